//! How a group starts, how its health is asked for, and how what a container leaves behind is ended.

use std::time::Duration;

use podium_proto::mesos::v1::{CommandInfo, TaskGroupInfo, TaskState, TaskStatus, task_status};
use rustix::process::Pid;
use tokio::{sync::oneshot, task::AbortHandle, time::Instant};

use super::{
    driver::Driver,
    health::{self, Ask, Plan, Verdict},
    processes,
    sandbox::{self, Ground},
    spawn::{self, Program},
    support,
    task::{Aside, Cause, DEFAULT_GRACE, Ending, Phase, Task, duration},
    uris::{self, Errand, Word},
};

/// How long the killing of left-behind processes is tried before the end is reported all the same.
pub(super) const SWEEP: Duration = Duration::from_secs(10);

/// What has to be at hand before anything of a group may start.
pub(super) struct Ready {
    program: Program,
    plan: Option<Plan>,
}

/// A group that can start once its artifacts are there.
pub(super) struct Fetching {
    ready: Vec<(String, Ready)>,
    fetcher: AbortHandle,
    /// The program that extracts an archive just now.
    pub(super) helper: Option<Aside>,
}

/// Ends a task's health check, and the probe that may be at work.
pub(super) fn stop_checks(task: &mut Task) {
    if let Some(checker) = task.checker.take() {
        checker.abort();
    }
    if let Some(probe) = task.probe.take() {
        let _ = rustix::process::kill_process_group(probe.pid, rustix::process::Signal::KILL);
    }
}

impl Driver {
    /// Starts all of a group or nothing. A group that is known already was delivered twice.
    pub(super) fn launch(&mut self, group: TaskGroupInfo) {
        if group.tasks.is_empty() || group.tasks.iter().any(|task| self.tasks.contains_key(&task.task_id.value)) {
            return;
        }
        self.groups += 1;
        let ids: Vec<String> = group.tasks.iter().map(|task| task.task_id.value.clone()).collect();
        for info in group.tasks {
            self.tasks.insert(info.task_id.value.clone(), Task::new(info, self.groups));
        }
        for id in &ids {
            self.report(id, |_| {}, TaskState::TaskStarting);
        }
        let prepared: Vec<Result<Ready, String>> = ids.iter().map(|id| self.prepare(id)).collect();
        if prepared.iter().any(Result::is_err) {
            for (id, result) in ids.iter().zip(prepared) {
                self.refuse(id, result.err());
            }
            return;
        }
        let ready: Vec<(String, Ready)> = ids.into_iter().zip(prepared.into_iter().flatten()).collect();
        let errands: Vec<Errand> = ready.iter().filter_map(|(id, ready)| self.errand(id, &ready.program)).collect();
        if errands.is_empty() {
            return self.start(ready);
        }
        let fetcher = tokio::spawn(uris::run(self.groups, errands, self.words.clone())).abort_handle();
        self.fetching.insert(self.groups, Fetching { ready, fetcher, helper: None });
    }

    fn errand(&self, id: &str, program: &Program) -> Option<Errand> {
        let uris = self.tasks.get(id)?.info.command.as_ref()?.uris.clone();
        let (directory, folder) = (program.directory.clone(), program.logs.folder.clone());
        let errand = Errand { task: id.to_owned(), uris, directory, folder, account: program.account };
        (!errand.uris.is_empty()).then_some(errand)
    }

    /// What a fetcher has to say.
    pub(super) fn told(&mut self, word: Word) {
        match word {
            Word::Run { group, program, reply } => {
                let Some(fetching) = self.fetching.get_mut(&group) else { return };
                match spawn::spawn(&program) {
                    Ok(pid) => fetching.helper = Some(Aside { pid, reply }),
                    Err(error) => {
                        let _ = reply.send(Err(error.to_string()));
                    }
                }
            }
            Word::Done { group, mut failures } => {
                let Some(Fetching { ready, .. }) = self.fetching.remove(&group) else { return };
                if failures.is_empty() {
                    return self.start(ready);
                }
                for (id, _) in ready {
                    let failure = failures.remove(&id);
                    self.refuse(&id, failure);
                }
            }
        }
    }

    /// Ends a group that waits for its artifacts, if it does.
    pub(super) fn stop_fetching(&mut self, group: u64) {
        let Some(Fetching { ready, fetcher, helper }) = self.fetching.remove(&group) else { return };
        fetcher.abort();
        if let Some(helper) = helper {
            let _ = rustix::process::kill_process_group(helper.pid, rustix::process::Signal::KILL);
        }
        let message = "Killed while the artifacts of its group were being fetched".to_owned();
        let ending = Ending { state: TaskState::TaskKilled, message, reason: None };
        for (id, _) in ready {
            self.finish(&id, &ending);
        }
    }

    fn ground(&self) -> Ground<'_> {
        Ground {
            sandbox: &self.settings.sandbox,
            executor: self.executor.as_ref(),
            marks_volumes: !self.settings.guarded,
            marker: &self.settings.marker,
            framework_user: self.framework.as_ref().map_or("", |framework| framework.user.as_str()),
            ip: self.settings.host_ip(),
        }
    }

    fn prepare(&self, id: &str) -> Result<Ready, String> {
        let task = self.tasks.get(id).ok_or("the task is unknown")?;
        support::check(&task.info, self.executor.as_ref())?;
        let plan = task.info.health_check.as_ref().map(Plan::new).transpose()?;
        let program = sandbox::prepare(&self.ground(), &task.container, &task.info)?;
        Ok(Ready { program, plan })
    }

    /// Ends a task whose group did not start: with its own reason, or because of a sibling's.
    fn refuse(&mut self, id: &str, reason: Option<String>) {
        let ending = match reason {
            Some(message) => Ending { state: TaskState::TaskFailed, message, reason: Some(task_status::Reason::ContainerLaunchFailed) },
            None => Ending {
                state: TaskState::TaskKilled,
                message: "Another container of the group could not be started".to_owned(),
                reason: None,
            },
        };
        self.finish(id, &ending);
    }

    fn start(&mut self, ready: Vec<(String, Ready)>) {
        let mut started = Vec::new();
        let mut failure = None;
        for (id, Ready { program, plan }) in ready {
            if failure.is_some() {
                self.refuse(&id, None);
                continue;
            }
            match spawn::spawn(&program) {
                Ok(pid) => {
                    if let Some(task) = self.tasks.get_mut(&id) {
                        task.phase = Phase::Running { pid };
                        task.complete_by = task.info.max_completion_time.as_ref().map(|time| Instant::now() + duration(time));
                        task.program = Some(program);
                    }
                    started.push((id, plan));
                }
                Err(error) => {
                    let command = program.executable.to_string_lossy();
                    self.refuse(&id, Some(format!("cannot start '{command}' in {}: {error}", program.directory.display())));
                    failure = Some(());
                }
            }
        }
        for (id, plan) in started {
            if failure.is_some() {
                self.kill(&id, Cause::Wanted, DEFAULT_GRACE);
            } else {
                self.running(&id, plan);
            }
        }
    }

    fn running(&mut self, id: &str, plan: Option<Plan>) {
        if let Some(task) = self.tasks.get(id)
            && let Err(error) = sandbox::link_task(&self.ground(), &task.container, &task.info)
        {
            super::say(&format!("no link tasks/{id}: {error}"));
        }
        self.report(id, |_| {}, TaskState::TaskRunning);
        let (Some(plan), Some(task)) = (plan, self.tasks.get_mut(id)) else { return };
        let checker = health::run(id.to_owned(), plan, self.asks.clone(), self.connected.subscribe());
        task.checker = Some(tokio::spawn(checker).abort_handle());
    }

    /// What a health check wants.
    pub(super) fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Run { task, command, reply } => self.run_probe(&task, &command, reply),
            Ask::Abandon { task } => {
                if let Some(probe) = self.tasks.get_mut(&task).and_then(|task| task.probe.take()) {
                    let _ = rustix::process::kill_process_group(probe.pid, rustix::process::Signal::KILL);
                }
            }
            Ask::Report { task, verdict, message } => self.health(&task, verdict, message),
        }
    }

    fn run_probe(&mut self, id: &str, command: &CommandInfo, reply: oneshot::Sender<Result<i32, String>>) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let (Phase::Running { .. }, Some(program)) = (&task.phase, &task.program) else { return };
        let started = sandbox::probe(program, command)
            .and_then(|probe| spawn::spawn(&probe).map_err(|error| format!("cannot start the command: {error}")));
        match started {
            Ok(pid) => {
                task.hindrance = None;
                task.probe = Some(Aside { pid, reply });
            }
            Err(error) => {
                // Within the grace period nobody else would: a failure does not count there.
                if task.hindrance.as_ref() != Some(&error) {
                    super::say(&format!("task {id}: its health check can't be run: {error}"));
                    task.hindrance = Some(error.clone());
                }
                let _ = reply.send(Err(error));
            }
        }
    }

    fn health(&mut self, id: &str, verdict: Verdict, message: String) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        if !matches!(task.phase, Phase::Running { .. }) {
            return;
        }
        task.healthy = Some(verdict.healthy);
        let grace = task.grace(None);
        let change = |status: &mut TaskStatus| {
            status.healthy = Some(verdict.healthy);
            status.reason = Some(task_status::Reason::TaskHealthCheckStatusUpdated.into());
            status.message = Some(message).filter(|message| !message.is_empty());
        };
        self.report(id, change, TaskState::TaskRunning);
        if verdict.kill {
            self.kill(id, Cause::Wanted, grace);
        }
    }

    /// Kills what ended containers have left behind, and reports the end of those that left nothing (more).
    pub(super) fn sweep(&mut self, now: Instant) {
        let sweeping: Vec<(String, Pid, Ending, Instant)> = self
            .tasks
            .iter()
            .filter_map(|(id, task)| match &task.phase {
                Phase::Sweeping { pid, ending, give_up } => Some((id.clone(), *pid, ending.clone(), *give_up)),
                _ => None,
            })
            .collect();
        for (id, pid, mut ending, give_up) in sweeping {
            let left = self.left_behind(&id, pid);
            if !left.is_empty() && now < give_up {
                left.into_iter().for_each(processes::kill);
                continue;
            }
            if !left.is_empty() {
                ending.message.push_str("; some of its processes could not be killed");
            }
            self.finish(&id, &ending);
        }
    }

    /// All processes that the container of `id`, whose first process was `leader`, has left: orphans are our
    /// children now. They are known by its session or its marker; once no other container runs, by being there.
    fn left_behind(&self, id: &str, leader: Pid) -> Vec<Pid> {
        let probes = self.tasks.values().filter_map(|task| task.probe.as_ref());
        let helpers = self.fetching.values().filter_map(|fetching| fetching.helper.as_ref());
        let at_work = probes.chain(helpers).map(|program| program.pid);
        let others: Vec<Pid> = self.tasks.values().filter_map(Task::pid).chain(at_work).collect();
        let marker = self.tasks.get(id).map(|task| self.ground().marker(&task.container));
        let orphans = processes::children(rustix::process::getpid()).into_iter().filter(|pid| !others.contains(pid));
        let ours = orphans.filter(|pid| {
            others.is_empty()
                || processes::stat(*pid).is_some_and(|stat| stat.session == leader.as_raw_nonzero().get())
                || marker.is_some() && processes::marker(*pid) == marker
        });
        let mut all = Vec::new();
        for orphan in ours {
            all.push(orphan);
            all.extend(processes::descendants(orphan));
        }
        all
    }

    fn finish(&mut self, id: &str, ending: &Ending) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.phase = Phase::Ended;
        // Only an unhealthy one says so in the end: Mesos carries no good news into a terminal state.
        let healthy = task.healthy.filter(|healthy| !healthy);
        let change = |status: &mut TaskStatus| {
            status.message = Some(ending.message.clone());
            status.reason = ending.reason.map(Into::into);
            status.healthy = healthy;
        };
        self.report(id, change, ending.state);
        self.pull_down(id, ending);
    }
}

//! Who we are to Mesos: the `framework` record, read or created before the first SUBSCRIBE, and replaced when Mesos has
//! removed the framework.
//!
//! We choose the id ourselves and make it durable first, which Mesos allows: so no framework can come into being
//! whose id nobody remembers. A store that has lost the record would begin a second framework beside the first, whose
//! tasks nobody would see any more; so Mesos is asked first, and a person where the answer leaves doubt. A framework whose
//! tasks all carry the label of another store leaves none.
//!
//! A removed framework's tasks are dead by Mesos' word, and its id is of no more use: we begin anew under another id, and
//! learn by reconciliation of each task that it is gone. Nothing is taken for dead without that word.

use std::time::Duration;

use podium_mesos::client::{self, MesosConfig};
use podium_mesos::operator::{KnownFramework, Operator, OperatorError};
use podium_proto::mesos::v1::Task;
use podium_proto::records::Framework;
use podium_retry::Backoff;
use podium_store::Key;
use podium_store::view::Held;
use podium_store::writer::{Compare, Group, Op, Outcome};
use tokio::sync::watch;
use uuid::Uuid;

use super::strays::Origin;
use super::{FirstFramework, GatewayState, Settings};
use crate::runtime::{Failure, Term};

/// How long the index may take to show what was written.
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes of the record that may come to nothing.
const ATTEMPTS: u32 = 5;

/// Why nothing is written in the place of a removed framework.
const OTHER_ID: &str = "the framework record has another id by now";

/// As whom, and for which store, this term acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub framework_id: String,
    pub cluster_id: String,
    /// The lease of this leadership.
    pub lease: i64,
}

/// As whom we act.
pub(super) fn principal(settings: &Settings) -> Option<String> {
    let authenticated = settings.credentials.as_ref().map(|credentials| credentials.principal.clone());
    authenticated.or_else(|| settings.principal.clone())
}

/// How to subscribe as this framework.
pub(super) fn mesos_config(settings: &Settings, framework_id: &str, roles: watch::Receiver<Vec<String>>) -> MesosConfig {
    let mut framework = client::framework_info(&settings.framework_name, &settings.user, framework_id);
    framework.principal = principal(settings);
    framework.failover_timeout = Some(settings.failover_timeout_seconds);
    if !settings.gpus {
        client::renounce_gpus(&mut framework);
    }
    MesosConfig {
        credentials: settings.credentials.clone(),
        trust: settings.trust.clone(),
        longest_backoff: Duration::from_secs(settings.longest_backoff_seconds),
        ..MesosConfig::new(settings.masters.clone(), framework, roles)
    }
}

/// How to ask the operator API of the same masters.
pub(super) fn operator(settings: &Settings) -> Result<Operator, Failure> {
    let operator = Operator::new(&settings.masters, settings.credentials.clone(), settings.trust.clone());
    operator.map_err(|error| Failure(error.to_string()))
}

/// Reads the record, or creates it.
pub(super) async fn identity(
    term: &Term,
    settings: &Settings,
    operator: &Operator,
    state: &watch::Sender<GatewayState>,
) -> Result<Identity, Failure> {
    let mut attempts = 0;
    while attempts < ATTEMPTS {
        let (found, unreadable) =
            term.index.read(|state| (state.framework().map(|held| held.value.clone()), state.framework_is_unreadable()));
        if unreadable {
            return Err(Failure(super::FRAMEWORK_UNREADABLE.to_owned()));
        }
        if let Some(framework) = found {
            return Ok(Identity { framework_id: framework.framework_id, cluster_id: framework.cluster_id, lease: term.lease });
        }
        let framework = Framework {
            framework_id: choose_id(settings, operator, None, state).await?,
            cluster_id: Uuid::new_v4().to_string(),
            created_ms: term.clock.now().0,
            ..Framework::default()
        };
        write(term, Compare::Absent(Key::Framework), framework).await?;
        attempts += 1;
    }
    Err(Failure("the framework record could not be written".to_owned()))
}

/// How a term ends when Mesos has removed our framework.
#[derive(Debug)]
pub(super) enum Removed {
    /// The next one goes on as whom the record names.
    GoesOn(Failure),
    /// No other framework begins until a person says so, and until then nobody knows what runs.
    Waits(Failure),
}

/// Mesos has removed our framework: writes down under which id we go on. The next term does so.
pub(super) async fn begin_anew(
    term: &Term,
    settings: &Settings,
    operator: &Operator,
    removed: &Identity,
    message: &str,
    state: &watch::Sender<GatewayState>,
) -> Removed {
    let word = format!("Mesos has removed our framework {}, and with it every task ({message})", removed.framework_id);
    tracing::error!(framework_id = removed.framework_id, message, "Mesos has removed our framework, and with it every task");
    tell(state, &word);
    let end = match recorded(term, &removed.framework_id) {
        None => OTHER_ID.to_owned(),
        Some(_) => match choose_id(settings, operator, Some(removed), state).await {
            Err(failure) => return Removed::Waits(failure),
            Ok(id) => match replace(term, removed, &id).await {
                Ok(()) => format!("what is wanted is launched again as framework {id}"),
                Err(failure) => failure.0,
            },
        },
    };
    Removed::GoesOn(Failure(format!("{word}; {end}")))
}

/// Puts another id in the place of the removed one.
async fn replace(term: &Term, removed: &Identity, framework_id: &str) -> Result<(), Failure> {
    let held = recorded(term, &removed.framework_id).ok_or_else(|| Failure(OTHER_ID.to_owned()))?;
    let framework = Framework { framework_id: framework_id.to_owned(), created_ms: term.clock.now().0, ..held.value };
    write(term, Compare::Unchanged(Key::Framework, held.mod_revision), framework).await?;
    match recorded(term, framework_id) {
        Some(_) => Ok(()),
        None => Err(Failure("the framework record was changed meanwhile, and is read again".to_owned())),
    }
}

/// The record, if it is of this framework.
fn recorded(term: &Term, framework_id: &str) -> Option<Held<Framework>> {
    term.index.read(|state| state.framework().filter(|held| held.value.framework_id == framework_id).cloned())
}

/// Adds to the record that an operator vouches for what is reserved up to this revision. All else stays as it is: our framework may
/// have been replaced since.
pub(super) fn vouched(held: &Held<Framework>, revision: i64) -> Group {
    let vouched_revision = held.value.vouched_revision.max(revision);
    let framework = Framework { vouched_revision, ..held.value.clone() };
    Group::global().when(Compare::Unchanged(Key::Framework, held.mod_revision)).then(Op::record(Key::Framework, framework))
}

/// Writes the record, and waits until the index shows it; whether it was written, the index tells.
async fn write(term: &Term, when: Compare, framework: Framework) -> Result<(), Failure> {
    let group = Group::global().when(when).then(Op::record(Key::Framework, framework));
    let revision = match term.writer.write(group).await {
        Outcome::Committed { revision } | Outcome::Conflict { revision } | Outcome::Unknown { revision } => revision,
        Outcome::NotLeader => return Err(Failure("the leadership was lost before the framework record was written".to_owned())),
        Outcome::Refused(reason) => return Err(Failure(format!("the store refuses the framework record: {reason}"))),
    };
    term.index.wait_for(revision, PATIENCE).await.map(|_| ()).map_err(|behind| Failure(behind.to_string()))
}

/// An id for a framework that begins, or goes on after the store has forgotten it. Waits for as long as Mesos can't be
/// asked; fails where a person must decide.
async fn choose_id(
    settings: &Settings,
    operator: &Operator,
    removed: Option<&Identity>,
    state: &watch::Sender<GatewayState>,
) -> Result<String, Failure> {
    let fresh = || format!("podium-{}", Uuid::new_v4());
    match &settings.first_framework {
        FirstFramework::Take(id) if removed.is_none_or(|removed| removed.framework_id != *id) => return Ok(id.clone()),
        FirstFramework::New => return Ok(fresh()),
        FirstFramework::Take(_) | FirstFramework::Ask => {}
    }
    let mut backoff = Backoff::reconnect();
    loop {
        match forgotten(settings, operator, removed).await {
            Ok(None) => return Ok(fresh()),
            Ok(Some(reason)) => return Err(Failure(reason)),
            Err(trouble) => tell(state, &trouble),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// Why a new framework must not simply begin: an older one of our name holds resources, nobody speaks for it, and it is not
/// certain that it is another store's. Fails while Mesos can't tell.
async fn forgotten(settings: &Settings, operator: &Operator, removed: Option<&Identity>) -> Result<Option<String>, String> {
    // An agent that is not back yet may have tasks of a framework that the master does not know without it: asked first, so
    // that what it brings is in the later answers.
    let away = match operator.agents_away().await {
        Ok(away) => away,
        Err(error) if error.is_refusal() => 0,
        Err(error) => return Err(error.to_string()),
    };
    let known = match operator.frameworks().await {
        Ok(_) if away > 0 => return Err(format!("a new framework begins when Mesos has heard of {away} agents again, or given them up")),
        Ok(known) => known,
        Err(error) if error.is_refusal() => {
            tracing::warn!(%error, "whether Mesos keeps tasks of an older framework of ours can't be told");
            return Ok(None);
        }
        Err(error) => return Err(error.to_string()),
    };
    let mut anothers = Vec::new();
    for old in known.iter().filter(|framework| is_abandoned(framework, &settings.framework_name)) {
        // A store that knows of no framework has no cluster id either by which it could tell its own tasks.
        let Some(removed) = removed else { return Ok(Some(undecided(old, "the store knows of no framework"))) };
        let tasks = match operator.tasks(&old.id).await {
            Err(error) if !error.is_refusal() && !error.is_too_large() => return Err(error.to_string()),
            answer => answer,
        };
        if let Some(doubt) = doubt(tasks, &removed.cluster_id) {
            let ours = &removed.framework_id;
            return Ok(Some(undecided(old, &format!("{doubt}, and framework {ours}, which the store knows of, was removed"))));
        }
        anothers.push(&old.id);
    }
    if !anothers.is_empty() {
        tracing::info!(framework_ids = ?anothers, "frameworks of our name without a subscription are another store's");
    }
    Ok(None)
}

/// Of our name, with tasks, and nobody speaks for it.
fn is_abandoned(framework: &KnownFramework, name: &str) -> bool {
    framework.name == name && !framework.connected && framework.holds_resources
}

/// Why it is not certain that a framework is another store's: none where every task that it has says so.
fn doubt(tasks: Result<Vec<Task>, OperatorError>, cluster_id: &str) -> Option<String> {
    let tasks = match tasks {
        Ok(tasks) => tasks,
        Err(error) => return Some(format!("Mesos does not tell its tasks ({error})")),
    };
    let origin = |task: &Task| Origin::read(task.labels.as_ref()?, &task.task_id.value.parse().ok()?);
    let is_anothers = |task: &Task| origin(task).is_some_and(|origin| origin.cluster_id != cluster_id);
    match tasks.as_slice() {
        [] => Some("Mesos shows no task of it that could say whose it is".to_owned()),
        tasks => (!tasks.iter().all(is_anothers)).then(|| "not all of its tasks say that another store launched them".to_owned()),
    }
}

/// What a person must decide, and why.
fn undecided(old: &KnownFramework, why: &str) -> String {
    format!(
        "framework {0}, which Mesos knows as {1}, has no subscription and has tasks, or may have some; {why}: \
         if it is this store's, which has forgotten it, start with --framework-id {0}; if it is another Podium's, with --framework-id new",
        old.id, old.name
    )
}

fn tell(state: &watch::Sender<GatewayState>, trouble: &str) {
    state.send_modify(|state| {
        state.leads = true;
        state.trouble = Some(trouble.to_owned());
    });
}

#[cfg(test)]
mod tests {
    use podium_mesos::client::{Credentials, Masters};
    use podium_mesos::task_group::label;
    use podium_proto::mesos::v1::framework_info::capability::Type;
    use podium_proto::mesos::v1::{Label, Labels, TaskId};
    use podium_store::{Index, Session, SessionConfig, Store, StoreConfig};
    use podium_types::id::{InstanceId, PodId};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::runtime::{Clock, Stage, supervise};

    fn known(name: &str, connected: bool, holds_resources: bool) -> KnownFramework {
        KnownFramework { id: "podium-1".to_owned(), name: name.to_owned(), connected, holds_resources }
    }

    #[test]
    fn an_old_framework_with_tasks_that_nobody_speaks_for_is_for_people_to_decide() {
        assert!(is_abandoned(&known("podium", false, true), "podium"));
        for other in [known("marathon", false, true), known("podium", true, true), known("podium", false, false)] {
            assert!(!is_abandoned(&other, "podium"));
        }
        let reason = undecided(&known("podium", false, true), "the store knows of no framework");
        for part in ["--framework-id podium-1", "--framework-id new", "; the store knows of no framework: "] {
            assert!(reason.contains(part), "{reason}");
        }
    }

    #[test]
    fn a_framework_is_anothers_when_all_of_its_tasks_say_so_and_else_it_is_told_why_that_is_not_certain() {
        let instance = InstanceId { pod: PodId::new("/web").unwrap(), uuid: Uuid::from_u128(1) };
        let task = |cluster: &str| {
            let labels = [
                (label::POD, "/web"),
                (label::CONFIG, "2026-01-01T00:00:00.000Z"),
                (label::INCARNATION, "1"),
                (label::CLUSTER, cluster),
                (label::REVISION, "7"),
            ];
            let label = |(key, value): (&str, &str)| Label { key: key.to_owned(), value: Some(value.to_owned()) };
            let labels = labels.into_iter().filter(|(_, value)| !value.is_empty()).map(label).collect();
            let task_id = TaskId { value: instance.task_id("c", 1).to_string() };
            Task { task_id, labels: Some(Labels { labels }), ..Task::default() }
        };
        let url = podium_http::parse_url("http://127.0.0.1:5050").unwrap();
        let refused = OperatorError::Status { url, status: http::StatusCode::FORBIDDEN, text: "not for you".to_owned() };
        assert_eq!(doubt(Ok(vec![task("theirs"), task("a third's")]), "ours"), None);
        for (tasks, why) in [
            (Ok(vec![task("theirs"), task("ours")]), "not all of its tasks say"),
            // Without the label it may be anybody's.
            (Ok(vec![task("theirs"), task("")]), "not all of its tasks say"),
            (Ok(Vec::new()), "shows no task"),
            (Err(refused), "not for you"),
        ] {
            let doubt = doubt(tasks, "ours").unwrap();
            assert!(doubt.contains(why), "{doubt}");
        }
    }

    /// A store that has written a framework's record so often.
    async fn store_with(framework_id: &str, times: u32) -> (podium_etcd::Server, tempfile::TempDir, Store, Index) {
        let data = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = podium_etcd::Server::start(podium_etcd::Config::new(listener, data.path())).await.unwrap();
        let store = Store::connect(StoreConfig::new([format!("http://{address}")])).await.unwrap();
        let index = Index::start(&store);
        for _ in 0..times {
            let framework = Framework { framework_id: framework_id.to_owned(), ..Framework::default() };
            let written = store.commit(Group::global().then(Op::record(Key::Framework, framework))).await;
            index.wait_for(written.committed().unwrap(), PATIENCE).await.unwrap();
        }
        (server, data, store, index)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_id_is_told_only_where_it_is_written_and_else_the_next_term_looks_again() {
        let (_server, _data, store, index) = store_with("podium-1", 1).await;
        // As if somebody else had just written the record: this index shows another revision of it.
        let (_elsewhere, _other_data, _store, other_index) = store_with("podium-1", 50).await;
        let (told, mut terms) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let session = Session::start(&store, SessionConfig { ttl: PATIENCE, identity: "test".to_owned() });
        let stage = Stage { store, index: index.clone(), session, clock: Clock::start(), patience: PATIENCE, stop: stop.clone() };
        let leading = tokio::spawn(supervise(stage, "gateway", move |term: Term| {
            let told = told.clone();
            async move {
                told.send(term.clone()).await.unwrap();
                term.lost.cancelled().await;
                Ok(())
            }
        }));
        let term = terms.recv().await.unwrap();
        let settings = Settings {
            masters: Masters::List(vec!["127.0.0.1:1".to_owned()]),
            first_framework: FirstFramework::New,
            ..Settings::default()
        };
        let (operator, (state, _)) = (operator(&settings).unwrap(), super::super::state_channel());
        let begun = async |term: &Term| {
            let removed = Identity { framework_id: "podium-1".to_owned(), cluster_id: "ours".to_owned(), lease: term.lease };
            match begin_anew(term, &settings, &operator, &removed, "torn down", &state).await {
                Removed::GoesOn(failure) => failure.0,
                Removed::Waits(failure) => panic!("nobody is asked: {failure}"),
            }
        };
        let id = || index.read(|state| state.framework().unwrap().value.framework_id.clone());
        let in_vain = begun(&Term { index: other_index, ..term.clone() }).await;
        assert!(in_vain.contains("changed meanwhile") && id() == "podium-1", "{in_vain}");
        let written = begun(&term).await;
        assert!(written.ends_with(&format!("launched again as framework {}", id())) && id() != "podium-1", "{written}");
        let late = begun(&term).await;
        assert!(late.ends_with(OTHER_ID), "{late}");
        stop.cancel();
        leading.await.unwrap();
    }

    #[test]
    fn the_framework_is_one_that_lives_long_and_gpus_are_a_choice() {
        let (_roles, roles) = watch::channel(Vec::new());
        let mut settings = Settings { failover_timeout_seconds: 60.0, principal: Some("p".to_owned()), ..Settings::default() };
        let info = |settings: &Settings| mesos_config(settings, "F", roles.clone()).framework;
        let capabilities = |settings: &Settings| info(settings).capabilities.iter().map(|one| one.r#type()).collect::<Vec<_>>();
        let all = [
            Type::PartitionAware,
            Type::TaskKillingState,
            Type::MultiRole,
            Type::ReservationRefinement,
            Type::RegionAware,
            Type::GpuResources,
        ];
        assert_eq!(capabilities(&settings), all);
        let framework = info(&settings);
        assert_eq!((framework.checkpoint, framework.failover_timeout), (Some(true), Some(60.0)));
        assert_eq!((framework.id.unwrap().value, framework.principal.as_deref()), ("F".to_owned(), Some("p")));
        settings.gpus = false;
        settings.credentials = Some(Credentials { principal: "q".to_owned(), secret: "s".to_owned() });
        assert_eq!(capabilities(&settings), all[..5]);
        assert_eq!(info(&settings).principal.as_deref(), Some("q"));
    }
}

//! What each command does: a few requests, and one answer on stdout.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use clap::CommandFactory;
use podium_types::definition::Settings;
use podium_types::id::PodId;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::connection::{Change, Connection};
use super::documents::{self, Definition};
use super::failure::Failure;
use super::logs;
use super::render;
use super::status::{Deployment, PodStatus, Refused, Violation};
use super::terminal::{Paint, Tone, printable};
use super::unknown;
use super::wait::{self, Ends, Goal};
use crate::cli::{
    ApplyArgs, Cli, ClientCommand, CompletionsArgs, DeleteArgs, DiffArgs, GetPodArgs, GetWhat, ListArgs, OutputFormat, RollbackArgs,
    ScaleArgs, StatusArgs, TokenArgs, ValidateArgs, VersionArgs, WaitArgs,
};

/// A scaling that someone else's change gets in between is tried again so often.
const SCALE_ATTEMPTS: usize = 5;

/// Carries out one command.
pub async fn execute(command: ClientCommand) -> Result<(), Failure> {
    match command {
        ClientCommand::Apply(args) => apply(args).await,
        ClientCommand::Get(args) => match args.what {
            GetWhat::Pods(args) => get_pods(args).await,
            GetWhat::Pod(args) => get_pod(args).await,
            GetWhat::Versions(args) => get_versions(args).await,
            GetWhat::Deployments(args) => get_deployments(args).await,
            GetWhat::Unknown(args) => get_unknown(args).await,
        },
        ClientCommand::Status(args) => status(args).await,
        ClientCommand::Scale(args) => scale(args).await,
        ClientCommand::Logs(args) => logs::run(args).await,
        ClientCommand::Rollback(args) => rollback(args).await,
        ClientCommand::Delete(args) => delete(args).await,
        ClientCommand::Adopt(args) => unknown::adopt(args).await,
        ClientCommand::Kill(args) => unknown::kill(args).await,
        ClientCommand::Validate(args) => validate(args),
        ClientCommand::Diff(args) => diff(args).await,
        ClientCommand::Token(args) => token(&args),
        ClientCommand::Completions(args) => completions(args),
        ClientCommand::Version(args) => version(args).await,
    }
}

async fn apply(args: ApplyArgs) -> Result<(), Failure> {
    let documents = documents::load(&args.file.files)?;
    let mut server = Connection::new(&args.server)?;
    // All are judged before the first is sent: half of a file helps nobody.
    let definitions = documents::judge(documents, &settings_of(&mut server).await?)?;
    let mut goals = Vec::new();
    for Definition { document, pod } in &definitions {
        let ends = ends_so_far(&mut server, &pod.id, &args.wait).await?;
        let change = Change { force: args.force.force, strict: true, dry_run: args.dry_run, ..Change::default() };
        let answer = server.put(&pod.id, &document.json, change).await.map_err(|failure| within(&document.origin, failure))?;
        warn(&answer.warnings);
        if args.dry_run {
            print(&render::trial(pod.id.as_str(), &answer.body))?;
            continue;
        }
        say(&format!("{} {}, version {}", pod.id, done(answer.change.as_deref()), text(&answer.body, "version")))?;
        goals.push(Goal::Stable { id: pod.id.clone(), ends });
    }
    finish(&mut server, goals, &args.wait).await
}

async fn get_pods(args: ListArgs) -> Result<(), Failure> {
    let mut server = Connection::new(&args.server)?;
    match args.output.output {
        OutputFormat::Json => print_json(&server.get("/v2/pods").await?.body),
        OutputFormat::Table => list(&mut server).await,
    }
}

async fn get_pod(args: GetPodArgs) -> Result<(), Failure> {
    let mut server = Connection::new(&args.server)?;
    match args.output.output {
        OutputFormat::Json => print_json(&of_pod(&mut server, &args.id, "").await?),
        OutputFormat::Table => {
            let status: PodStatus = status_of(&mut server, &args.id).await?;
            print(&render::pods(&[status], &[], Paint::for_stdout()))
        }
    }
}

async fn get_versions(args: GetPodArgs) -> Result<(), Failure> {
    let mut server = Connection::new(&args.server)?;
    let path = format!("/v2/pods{}::versions", args.id);
    match args.output.output {
        OutputFormat::Json => print_json(&server.get(&path).await?.body),
        OutputFormat::Table => print(&render::versions(&server.get_as::<Vec<String>>(&path).await?, Paint::for_stdout())),
    }
}

async fn get_deployments(args: ListArgs) -> Result<(), Failure> {
    let mut server = Connection::new(&args.server)?;
    match args.output.output {
        OutputFormat::Json => print_json(&server.get("/v2/deployments").await?.body),
        OutputFormat::Table => {
            let deployments: Vec<Deployment> = server.get_as("/v2/deployments").await?;
            print(&render::deployments(&deployments, Paint::for_stdout()))
        }
    }
}

async fn get_unknown(args: ListArgs) -> Result<(), Failure> {
    let mut server = Connection::new(&args.server)?;
    match args.output.output {
        OutputFormat::Json => print_json(&server.get(unknown::LIST).await?.body),
        OutputFormat::Table => print(&server.get_as::<unknown::Listing>(unknown::LIST).await?.render(Paint::for_stdout())),
    }
}

async fn status(args: StatusArgs) -> Result<(), Failure> {
    let mut server = Connection::new(&args.server)?;
    if args.wait.wait {
        let before = match &args.id {
            Some(id) => vec![status_of::<PodStatus>(&mut server, id).await?],
            None => statuses(&mut server).await?,
        };
        let goal = |status: &PodStatus| Some(Goal::Stable { id: PodId::new(&status.id).ok()?, ends: Ends::before(Some(status)) });
        wait::until(&mut server, before.iter().filter_map(goal).collect(), args.wait.timeout).await?;
    }
    match (args.output.output, &args.id) {
        (OutputFormat::Json, Some(id)) => print_json(&status_of(&mut server, id).await?),
        (OutputFormat::Json, None) => print_json(&server.get("/v2/pods/::status").await?.body),
        (OutputFormat::Table, Some(id)) => print(&render::pod(&status_of(&mut server, id).await?, Paint::for_stdout())),
        (OutputFormat::Table, None) => list(&mut server).await,
    }
}

async fn scale(args: ScaleArgs) -> Result<(), Failure> {
    let mut server = Connection::new(&args.server)?;
    let ends = ends_so_far(&mut server, &args.id, &args.wait).await?;
    let mut attempt = 0;
    let version = loop {
        let current = server.get(&format!("/v2/pods{}", args.id)).await?;
        let mut definition = current.body;
        if let Some(scaling) = definition.get_mut("scaling").and_then(Value::as_object_mut) {
            scaling.insert("instances".to_owned(), json!(args.instances));
        }
        attempt += 1;
        // Whoever changed the pod meanwhile must not be overruled by what we read before.
        let change = Change { force: args.force.force, if_match: current.etag.as_deref(), ..Change::default() };
        match server.put(&args.id, &definition, change).await {
            Ok(answer) => break text(&answer.body, "version").to_owned(),
            Err(Failure::Changed(_)) if attempt < SCALE_ATTEMPTS => {}
            Err(failure) => return Err(failure),
        }
    };
    say(&format!("{} scaled to {}, version {version}", args.id, args.instances))?;
    finish(&mut server, vec![Goal::Stable { id: args.id, ends }], &args.wait).await
}

async fn rollback(args: RollbackArgs) -> Result<(), Failure> {
    let mut server = Connection::new(&args.server)?;
    let ends = ends_so_far(&mut server, &args.id, &args.wait).await?;
    let current = server.get(&format!("/v2/pods{}", args.id)).await?;
    let target = match args.to {
        Some(version) => version.to_string(),
        None => {
            let mut versions: Vec<String> = server.get_as(&format!("/v2/pods{}::versions", args.id)).await?;
            // Time stamps sort as their texts do.
            versions.retain(|version| version.as_str() < text(&current.body, "version"));
            versions.pop().ok_or_else(|| Failure::Failed(format!("{} has no earlier version", args.id)))?
        }
    };
    let definition = server.get(&format!("/v2/pods{}::versions/{target}", args.id)).await?.body;
    // Whoever changed the pod meanwhile must not be overruled by what we read before.
    let change = Change { force: args.force.force, if_match: current.etag.as_deref(), ..Change::default() };
    let answer = server.put(&args.id, &definition, change).await?;
    say(&format!("{} is as in version {target} again, version {}", args.id, text(&answer.body, "version")))?;
    finish(&mut server, vec![Goal::Stable { id: args.id, ends }], &args.wait).await
}

async fn delete(args: DeleteArgs) -> Result<(), Failure> {
    let mut server = Connection::new(&args.server)?;
    let answer = server.delete(&args.id, args.force.force).await?;
    // The only warning there is about a deletion: something holds it up.
    let (then, behind) = match answer.warnings.is_empty() {
        true => ("its instances are being stopped", ""),
        false => ("its instances are stopped when the quarantine is over", " as soon as the quarantine is over"),
    };
    say(&format!("{} deleted, {then}", args.id))?;
    warn(&answer.warnings);
    finish(&mut server, vec![Goal::Gone { id: args.id, behind }], &args.wait).await
}

fn validate(args: ValidateArgs) -> Result<(), Failure> {
    let settings = Settings { default_network_name: Some(args.default_network_name), default_role: args.default_role };
    for Definition { document, pod } in documents::judge(documents::load(&args.file.files)?, &settings)? {
        say(&format!("{}: {} is valid", document.origin, pod.id))?;
    }
    Ok(())
}

async fn diff(args: DiffArgs) -> Result<(), Failure> {
    let documents = documents::load(&args.file.files)?;
    let mut server = Connection::new(&args.server)?;
    let settings = settings_of(&mut server).await?;
    let mut different = 0;
    for Definition { pod, .. } in documents::judge(documents, &settings)? {
        let old = match server.get(&format!("/v2/pods{}", pod.id)).await {
            Ok(answer) => pretty_without_version(answer.body),
            Err(Failure::NotFound(_)) => String::new(),
            Err(failure) => return Err(failure),
        };
        let new = serde_json::to_value(&pod).map_err(|error| Failure::Failed(error.to_string()))?;
        let difference = render::difference(&old, &pretty_without_version(new), pod.id.as_str(), Paint::for_stdout());
        different += usize::from(!difference.is_empty());
        print(&difference)?;
    }
    match different {
        0 => Ok(()),
        1 => Err(Failure::Failed("1 pod would change".to_owned())),
        many => Err(Failure::Failed(format!("{many} pods would change"))),
    }
}

/// The secret on the first line, its line for the server on the second.
fn token(args: &TokenArgs) -> Result<(), Failure> {
    let token = podium_api::NewToken::draw(&args.name, args.right, &args.below).map_err(Failure::Usage)?;
    say(&token.secret)?;
    say(&token.line)?;
    eprintln!("The first line is the token: keep it, it cannot be had again. The second goes into the server's --tokens-file.");
    Ok(())
}

fn completions(args: CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "podium", &mut script);
    print(&String::from_utf8_lossy(&script))
}

async fn version(args: VersionArgs) -> Result<(), Failure> {
    let own = env!("CARGO_PKG_VERSION");
    let mut server = Connection::new(&args.server)?;
    // A version of our own is worth an answer even when no server is there.
    let info = server.get("/v2/info").await;
    match args.output.output {
        OutputFormat::Json => {
            let theirs = info.as_ref().map_or(Value::Null, |info| info.body.get("version").cloned().unwrap_or_default());
            print_json(&json!({ "client": own, "server": theirs }))
        }
        OutputFormat::Table => {
            let theirs = match &info {
                Ok(info) => text(&info.body, "version").to_owned(),
                Err(failure) => format!("unknown ({failure})"),
            };
            print(&format!("client {own}\nserver {theirs}\n"))
        }
    }
}

/// What an apply did, in one word.
fn done(change: Option<&str>) -> &'static str {
    match change {
        Some("created") => "created",
        Some("nothing") => "unchanged",
        _ => "changed",
    }
}

/// What this server judges definitions by.
async fn settings_of(server: &mut Connection) -> Result<Settings, Failure> {
    let info = server.get("/v2/info").await?.body;
    let config = |name: &str| info.get("marathon_config").and_then(|config| config.get(name)).and_then(Value::as_str).map(str::to_owned);
    let default_role = config("mesos_role").unwrap_or_else(|| Settings::default().default_role);
    Ok(Settings { default_network_name: config("default_network_name"), default_role })
}

/// What ended before a change, so that a wait blames only what ends after it.
async fn ends_so_far(server: &mut Connection, id: &PodId, wait: &WaitArgs) -> Result<Ends, Failure> {
    if !wait.wait {
        return Ok(Ends::default());
    }
    match server.get_as::<PodStatus>(&format!("/v2/pods{id}::status")).await {
        Ok(status) => Ok(Ends::before(Some(&status))),
        Err(Failure::NotFound(_)) => Ok(Ends::default()),
        Err(failure) => Err(failure),
    }
}

async fn finish(server: &mut Connection, goals: Vec<Goal>, wait: &WaitArgs) -> Result<(), Failure> {
    if wait.wait { wait::until(server, goals, wait.timeout.max(Duration::from_millis(1))).await } else { Ok(()) }
}

async fn status_of<T: DeserializeOwned>(server: &mut Connection, id: &PodId) -> Result<T, Failure> {
    of_pod(server, id, "::status").await
}

/// What is told of a pod at the path below its own. Where there is no pod because what was pushed as one was refused, every error
/// of that.
async fn of_pod<T: DeserializeOwned>(server: &mut Connection, id: &PodId, below: &str) -> Result<T, Failure> {
    let told = server.get_as(&format!("/v2/pods{id}{below}")).await;
    let Err(Failure::NotFound(missing)) = told else { return told };
    // Where these cannot be had it stays that there is no such pod.
    let refused = refusals(server).await.unwrap_or_default().into_iter().find(|one| one.id == id.as_str());
    let line = |error: Violation| format!("{id}: the last push was refused: {}: {}", error.path, error.message);
    Err(match refused {
        Some(refused) => Failure::Refused(refused.errors.into_iter().map(line).collect()),
        None => Failure::NotFound(missing),
    })
}

async fn refusals(server: &mut Connection) -> Result<Vec<Refused>, Failure> {
    match server.get_as("/v2/podium/refused").await {
        // A server of an earlier version keeps them to itself.
        Err(Failure::NotFound(_)) => Ok(Vec::new()),
        refused => refused,
    }
}

/// Every pod, and every push that became none.
async fn list(server: &mut Connection) -> Result<(), Failure> {
    let pods = statuses(server).await?;
    let mut refused = refusals(server).await?;
    // A pod that runs says it by itself.
    refused.retain(|one| one.version.is_none());
    print(&render::pods(&pods, &refused, Paint::for_stdout()))
}

async fn statuses(server: &mut Connection) -> Result<Vec<PodStatus>, Failure> {
    server.get_as("/v2/pods/::status").await
}

/// Names the document whose violations these are.
fn within(origin: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Refused(lines) => Failure::Refused(lines.into_iter().map(|line| format!("{origin}: {line}")).collect()),
        other => other,
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or("unknown")
}

fn pretty_without_version(mut definition: Value) -> String {
    if let Some(object) = definition.as_object_mut() {
        object.shift_remove("version");
    }
    format!("{definition:#}\n")
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("{} {}", Paint::for_stderr().tone("warning:", Some(Tone::Uneasy)), printable(warning));
    }
}

pub(super) fn say(line: &str) -> Result<(), Failure> {
    print(&format!("{line}\n"))
}

fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Who reads has seen enough: `podium get pods | head -1`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

pub(super) fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

//! `podium logs`: what containers print, as it stands in their sandboxes, once or as it grows.
//!
//! Promises: what a container wrote to its standard output goes to ours, what it wrote to its standard error to ours; with
//! several sources every line says which one it is from, and no line is cut in two; a follower sees every incarnation of
//! an instance from its beginning, and instances that are launched meanwhile.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::time::Duration;

use podium_types::id::InstanceId;
use tokio::time::Instant;

use super::connection::{Connection, LogPart};
use super::failure::Failure;
use super::status::PodStatus;
use super::terminal::{Paint, Tone, printable};
use crate::cli::{LogStream, LogsArgs};

/// Between two looks at a log that has not grown.
const PAUSE: Duration = Duration::from_millis(300);

/// Between two looks at which instances there are.
const RELIST: Duration = Duration::from_secs(2);

/// The first piece from a log's end in which lines are counted; the next one is eight times as large.
const FIRST_TAIL: u64 = 64 << 10;

/// The last piece in which lines are counted: what a server sends in one answer.
const LONGEST_TAIL: u64 = 1 << 20;

/// A line that is longer than this is passed on in pieces.
const LONGEST_LINE: usize = 1 << 20;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    instance: String,
    container: String,
    stream: &'static str,
}

/// How far a source has been read.
#[derive(Debug, Default)]
struct Reader {
    offset: u64,
    /// The task that the offset belongs to; another one is another file.
    task: String,
    /// A line whose end has not come yet.
    partial: Vec<u8>,
    /// What was last said to be wrong with it.
    complaint: String,
    /// Begin with so many last lines.
    tail: Option<usize>,
}

/// Carries out the command.
pub async fn run(args: LogsArgs) -> Result<(), Failure> {
    let mut server = Connection::new(&args.server)?;
    let sources = sources(&mut server, &args).await?;
    match args.follow {
        true => follow(&mut server, &args, sources).await,
        false => once(&mut server, &args, &sources).await,
    }
}

/// The files that the arguments name. Fails when there are none.
async fn sources(server: &mut Connection, args: &LogsArgs) -> Result<Vec<Source>, Failure> {
    let status: PodStatus = server.get_as(&format!("/v2/pods{}::status", args.id)).await?;
    let chosen = chosen(&status, args);
    let containers = containers(&status);
    if let Some(name) = args.container.as_ref().filter(|name| !containers.contains(name)) {
        return Err(Failure::Usage(format!("{} has no container '{name}': it has {}", args.id, containers.join(", "))));
    }
    if chosen.is_empty() && !args.follow {
        let why = match &args.instance {
            Some(instance) => format!("{} has no instance '{instance}'", args.id),
            None => format!("{} has no instances", args.id),
        };
        return Err(Failure::NotFound(why));
    }
    let streams: &[&'static str] = match args.stream {
        LogStream::Both => &["stdout", "stderr"],
        LogStream::Stdout => &["stdout"],
        LogStream::Stderr => &["stderr"],
    };
    let mut sources = Vec::new();
    for instance in chosen {
        let containers = containers_of(&status, &instance).into_iter();
        for container in containers.filter(|name| args.container.as_ref().is_none_or(|wanted| wanted == name)) {
            sources.extend(streams.iter().map(|stream| Source { instance: instance.clone(), container: container.clone(), stream }));
        }
    }
    Ok(sources)
}

/// The ids of the instances that are asked for: all, or the one that was named by its id, its uuid or the uuid's beginning;
/// one that ended lately can still be named.
fn chosen(status: &PodStatus, args: &LogsArgs) -> Vec<String> {
    let listed = status.instances.iter().map(|instance| instance.id.as_str());
    let Some(wanted) = &args.instance else { return listed.map(str::to_owned).collect() };
    let ended = status.termination_history.iter().map(|end| end.instance_id.as_str());
    let matches = |id: &&str| *id == wanted || id.rsplit_once(".instance-").is_some_and(|(_, uuid)| uuid.starts_with(wanted.as_str()));
    let mut found: Vec<String> = listed.chain(ended).filter(matches).map(str::to_owned).collect();
    found.sort();
    found.dedup();
    found
}

/// The containers' names, by the definition in force and by what runs.
fn containers(status: &PodStatus) -> Vec<String> {
    let mut names: Vec<String> = status.spec.containers.iter().map(|container| container.name.clone()).collect();
    for container in status.instances.iter().flat_map(|instance| &instance.containers) {
        if !names.contains(&container.name) {
            names.push(container.name.clone());
        }
    }
    names
}

/// The containers' names of one instance: during an upgrade an instance has those of its own version.
fn containers_of(status: &PodStatus, instance: &str) -> Vec<String> {
    let own = status.instances.iter().filter(|one| one.id == instance).flat_map(|one| &one.containers);
    let own: Vec<String> = own.map(|container| container.name.clone()).collect();
    // One that was not launched yet has none so far; of one that has ended they are not told.
    if own.is_empty() { status.spec.containers.iter().map(|container| container.name.clone()).collect() } else { own }
}

/// Prints what there is. The first thing that is wrong is the command's failure, after everything that can be read.
async fn once(server: &mut Connection, args: &LogsArgs, sources: &[Source]) -> Result<(), Failure> {
    let labelled = is_labelled(sources);
    let mut failure = None;
    for source in sources {
        let mut reader = Reader { tail: args.tail, ..Reader::default() };
        match copy(server, args, source, &mut reader, labelled).await {
            Ok(_) => finish(source, &mut reader, labelled)?,
            Err(Failure::Closed) => return Ok(()),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(()), Err)
}

async fn follow(server: &mut Connection, args: &LogsArgs, mut sources: Vec<Source>) -> Result<(), Failure> {
    let mut readers: BTreeMap<Source, Reader> = BTreeMap::new();
    let mut listed = Instant::now();
    let mut first = true;
    loop {
        if listed.elapsed() >= RELIST {
            listed = Instant::now();
            match self::sources(server, args).await {
                Ok(now) => sources = now,
                Err(Failure::NotFound(why)) => {
                    eprintln!("{}", printable(&why));
                    return Ok(());
                }
                // A server that is away may come back; the logs below say so.
                Err(_) => {}
            }
            let gone: Vec<Source> = readers.keys().filter(|source| !sources.contains(source)).cloned().collect();
            for source in gone {
                let Some(mut reader) = readers.remove(&source) else { continue };
                // Its last words, if they can still be had.
                let labelled = !sources.is_empty();
                if let Err(Failure::Closed) = last_words(server, args, &source, &mut reader, labelled).await {
                    return Ok(());
                }
            }
        }
        let labelled = is_labelled(&sources);
        let mut grown = false;
        for source in &sources {
            // What is launched while we look is shown from its beginning.
            let tail = args.tail.filter(|_| first);
            let reader = readers.entry(source.clone()).or_insert_with(|| Reader { tail, ..Reader::default() });
            match copy(server, args, source, reader, labelled).await {
                Ok(some) => grown |= some,
                Err(Failure::Closed) => return Ok(()),
                // Not launched yet, or nothing printed yet.
                Err(Failure::NotFound(_)) => {}
                Err(error) => complain(source, reader, &error),
            }
        }
        first = false;
        if !grown {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Says once what is wrong with a source.
fn complain(source: &Source, reader: &mut Reader, error: &Failure) {
    let text = error.to_string();
    if reader.complaint != text {
        let prefix = Paint::for_stderr().tone("warning:", Some(Tone::Uneasy));
        eprintln!("{prefix} {}: {}", printable(&label(source)), printable(&text));
        reader.complaint = text;
    }
}

fn is_labelled(sources: &[Source]) -> bool {
    sources.iter().any(|source| (&source.instance, &source.container) != (&sources[0].instance, &sources[0].container))
}

/// Prints what a source has beyond what was read; true if there was something.
async fn copy(server: &mut Connection, args: &LogsArgs, source: &Source, reader: &mut Reader, labelled: bool) -> Result<bool, Failure> {
    let mut grown = false;
    if reader.task.is_empty() {
        grown = begin(server, args, source, reader, labelled).await?;
    }
    loop {
        let part = part(server, args, source, i64::try_from(reader.offset).unwrap_or(i64::MAX)).await?;
        reader.complaint.clear();
        if part.task != reader.task {
            last_words(server, args, source, reader, labelled).await?;
            *reader = Reader { task: part.task, ..Reader::default() };
            continue;
        }
        if part.size < reader.offset {
            finish(source, reader, labelled)?;
            *reader = Reader { task: part.task, ..Reader::default() };
            continue;
        }
        if part.data.is_empty() {
            return Ok(grown);
        }
        grown = true;
        reader.offset = part.offset + part.data.len() as u64;
        print(source, reader, &part.data, labelled)?;
        if reader.offset >= part.size {
            return Ok(true);
        }
    }
}

/// Prints what a launch that is over has printed since it was last looked at. What cannot be read any more is let go.
async fn last_words(server: &mut Connection, args: &LogsArgs, source: &Source, reader: &mut Reader, labelled: bool) -> Result<(), Failure> {
    for previous in [true, false] {
        while let Ok(part) = part_of(server, args, source, i64::try_from(reader.offset).unwrap_or(i64::MAX), previous).await {
            if part.task != reader.task || part.data.is_empty() {
                break;
            }
            reader.offset = part.offset + part.data.len() as u64;
            print(source, reader, &part.data, labelled)?;
        }
    }
    finish(source, reader, labelled)
}

/// The first read: from the beginning, or from where the last lines begin that are asked for.
async fn begin(server: &mut Connection, args: &LogsArgs, source: &Source, reader: &mut Reader, labelled: bool) -> Result<bool, Failure> {
    let Some(lines) = reader.tail else {
        reader.task = part(server, args, source, 0).await?.task;
        return Ok(false);
    };
    let mut back = FIRST_TAIL;
    loop {
        let part = part(server, args, source, -i64::try_from(back).unwrap_or(i64::MAX)).await?;
        let start = last_lines(&part.data, lines);
        if part.offset == 0 || start > 0 || back == LONGEST_TAIL {
            let data = part.data.get(start..).unwrap_or_default();
            reader.task = part.task;
            reader.offset = part.offset + part.data.len() as u64;
            print(source, reader, data, labelled)?;
            return Ok(!data.is_empty());
        }
        back = (back * 8).min(LONGEST_TAIL);
    }
}

/// Where the last `lines` lines begin.
fn last_lines(data: &[u8], lines: usize) -> usize {
    let ended = data.strip_suffix(b"\n").unwrap_or(data);
    let newlines = ended.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    match lines {
        0 => data.len(),
        _ => newlines.map(|(at, _)| at + 1).nth(lines - 1).unwrap_or(0),
    }
}

async fn part(server: &mut Connection, args: &LogsArgs, source: &Source, offset: i64) -> Result<LogPart, Failure> {
    part_of(server, args, source, offset, args.previous).await
}

async fn part_of(server: &mut Connection, args: &LogsArgs, source: &Source, offset: i64, previous: bool) -> Result<LogPart, Failure> {
    let Source { instance, container, stream } = source;
    let path =
        format!("/v2/pods{}::logs?instance={instance}&container={container}&stream={stream}&offset={offset}&previous={previous}", args.id);
    server.log_part(&path).await
}

/// Prints whole lines with their label, or everything as it comes where there is but one source.
fn print(source: &Source, reader: &mut Reader, data: &[u8], labelled: bool) -> Result<(), Failure> {
    if !labelled {
        return write(source, data);
    }
    reader.partial.extend_from_slice(data);
    let whole = match reader.partial.iter().rposition(|byte| *byte == b'\n') {
        Some(last) => last + 1,
        None if reader.partial.len() > LONGEST_LINE => reader.partial.len(),
        None => 0,
    };
    let lines: Vec<u8> = reader.partial.drain(..whole).collect();
    write(source, &labelled_lines(&label(source), &lines))
}

/// Prints a last line that has no end.
fn finish(source: &Source, reader: &mut Reader, labelled: bool) -> Result<(), Failure> {
    let rest = std::mem::take(&mut reader.partial);
    if rest.is_empty() || !labelled {
        return Ok(());
    }
    write(source, &labelled_lines(&label(source), &rest))
}

fn labelled_lines(label: &str, lines: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(lines.len() + 64);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        text.extend_from_slice(label.as_bytes());
        text.push(b' ');
        text.extend_from_slice(line);
    }
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    text
}

/// `[<start of the uuid>/<container>]`.
fn label(source: &Source) -> String {
    let uuid = source.instance.parse::<InstanceId>().map(|instance| instance.uuid.to_string()).unwrap_or_default();
    let short = uuid.split('-').next().filter(|short| !short.is_empty()).unwrap_or(&source.instance);
    format!("[{short}/{}]", source.container)
}

fn write(source: &Source, data: &[u8]) -> Result<(), Failure> {
    if data.is_empty() {
        return Ok(());
    }
    let written = match source.stream {
        "stderr" => std::io::stderr().lock().write_all(data),
        _ => {
            let mut out = std::io::stdout().lock();
            out.write_all(data).and_then(|()| out.flush())
        }
    };
    match written {
        // Who reads has seen enough: the command ends, and well.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::Closed),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_counted_with_and_without_an_end() {
        let from = |data: &str, lines| data.get(last_lines(data.as_bytes(), lines)..).unwrap().to_owned();
        for (data, lines, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 5, "a\nb\n"),
            ("a\n\n", 1, "\n"),
            ("a\nb\n", 0, ""),
            ("", 3, ""),
        ] {
            assert_eq!(from(data, lines), expected, "{data:?} {lines}");
        }
    }

    #[test]
    fn every_line_is_labelled_and_ended() {
        assert_eq!(labelled_lines("[x/a]", b"one\n\ntwo"), b"[x/a] one\n[x/a] \n[x/a] two\n");
        let instance = "web.instance-3f2c90aa-0000-4000-8000-000000000000".to_owned();
        assert_eq!(label(&Source { instance, container: "nginx".to_owned(), stream: "stdout" }), "[3f2c90aa/nginx]");
    }

    #[test]
    fn each_instance_has_the_containers_of_its_own_version() {
        let status = serde_json::json!({
            "spec": {"containers": [{"name": "new"}]},
            "instances": [{"id": "old", "containers": [{"name": "before"}, {"name": "sidecar"}]}, {"id": "next", "containers": []}],
        });
        let status: PodStatus = serde_json::from_value(status).unwrap();
        assert_eq!(containers_of(&status, "old"), ["before", "sidecar"]);
        assert_eq!(containers_of(&status, "next"), ["new"]);
        assert_eq!(containers_of(&status, "ended"), ["new"]);
        assert_eq!(containers(&status), ["new", "before", "sidecar"]);
    }

    #[test]
    fn one_instance_on_two_streams_needs_no_label_and_two_containers_do() {
        let source = |container: &str, stream| Source { instance: "i".to_owned(), container: container.to_owned(), stream };
        assert!(!is_labelled(&[source("a", "stdout"), source("a", "stderr")]));
        assert!(is_labelled(&[source("a", "stdout"), source("b", "stdout")]));
        assert!(!is_labelled(&[]));
    }
}

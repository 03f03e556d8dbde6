//! Brings what a task asks for by its URIs into its sandbox: files of this machine, and of web servers; archives are
//! extracted by the machine's `tar`, `unzip` and `gzip`.
//!
//! Fetching never holds up the executor's loop, which starts the helper programs, since it waits for all children.
//! What stalls, redirects without end or is too large is given up; a URI with `cache` is fetched once for a group.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{File, Permissions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use podium_http::{Client, ClientConfig, Response, StatusCode, Url, header};
use podium_proto::mesos::v1::command_info::Uri;
use tokio::{
    io::AsyncWriteExt as _,
    sync::{mpsc, oneshot},
};
use tokio_stream::StreamExt as _;

use super::{
    sandbox::inside,
    spawn::{Logs, Program},
    support::cannot,
    users::{self, Account},
};
use crate::beneath::Folder;

/// As much as Mesos' own fetcher waits for a server that sends nothing.
const STALL: Duration = Duration::from_secs(60);
/// More than anything that should travel this way.
const LARGEST: u64 = 16 << 30;
const REDIRECTIONS: usize = 10;

/// What one task wants.
#[derive(Debug)]
pub(crate) struct Errand {
    pub task: String,
    pub uris: Vec<Uri>,
    /// Its sandbox, which exists, and may hold whatever an archive before has put there.
    pub directory: PathBuf,
    pub folder: Folder,
    pub account: Option<Account>,
}

/// What a fetcher tells the executor.
#[derive(Debug)]
pub(crate) enum Word {
    /// Run this program; the answer is its exit code, or what hindered it.
    Run { group: u64, program: Program, reply: oneshot::Sender<Result<i32, String>> },
    /// All is there but what these tasks lack, in plain words.
    Done { group: u64, failures: BTreeMap<String, String> },
}

/// Carries out the errands of one group and tells of their end, unless it is dropped before.
pub(crate) async fn run(group: u64, errands: Vec<Errand>, words: mpsc::Sender<Word>) {
    let mut fetcher = Fetcher { group, words: words.clone(), client: None, cache: BTreeMap::new() };
    let mut failures = BTreeMap::new();
    for errand in errands {
        for uri in &errand.uris {
            if let Err(why) = fetcher.fetch(uri, &errand).await {
                failures.insert(errand.task, format!("cannot fetch the uri '{}': {why}", shown(&uri.value)));
                break;
            }
        }
    }
    // An executor that has ended wants nothing any more.
    let _ = words.send(Word::Done { group, failures }).await;
}

struct Fetcher {
    group: u64,
    words: mpsc::Sender<Word>,
    client: Option<Client>,
    /// What was brought for the URIs to be cached.
    cache: BTreeMap<String, File>,
}

impl Fetcher {
    async fn fetch(&mut self, uri: &Uri, errand: &Errand) -> Result<(), String> {
        let name = target(uri)?;
        let executable = uri.executable.unwrap_or(false);
        let file = self.bring(uri, &name, errand).await?;
        let mode = Permissions::from_mode(if executable { 0o755 } else { 0o644 });
        file.set_permissions(mode).map_err(|error| error.to_string())?;
        if uri.cache.unwrap_or(false) {
            self.cache.insert(uri.value.clone(), file);
        }
        match extraction(&errand.directory.join(name), &errand.directory) {
            Some(argv) if !executable && uri.extract.unwrap_or(true) => self.extract(argv, errand).await,
            _ => Ok(()),
        }
    }

    /// Makes the content of the URI a new file `name` in the sandbox.
    async fn bring(&mut self, uri: &Uri, name: &Path, errand: &Errand) -> Result<File, String> {
        let source = match (local(&uri.value)?, self.cache.get(&uri.value)) {
            // Each task has to be allowed to read it: never cached.
            (Some(path), _) => Some(open(path, errand.account).await?),
            (None, Some(cached)) => Some(cached.try_clone().map_err(|error| error.to_string())?),
            (None, None) => None,
        };
        let target = make(name, errand).map_err(|error| error.to_string())?;
        match source {
            Some(source) => copy(source, target).await,
            None => self.download(&uri.value, target).await,
        }
    }

    async fn download(&mut self, uri: &str, target: File) -> Result<File, String> {
        let mut url = podium_http::parse_url(uri).map_err(|error| error.to_string())?;
        for _ in 0..=REDIRECTIONS {
            let response = self.client()?.get(&url).await.map_err(|error| error.to_string())?;
            match (response.status, redirection(&url, &response)) {
                (StatusCode::OK, _) => return save(response, target).await,
                (_, Some(next)) => url = next,
                (status, None) => return Err(format!("the server answered {status}")),
            }
        }
        Err(format!("the server redirects more than {REDIRECTIONS} times"))
    }

    fn client(&mut self) -> Result<&Client, String> {
        let config = ClientConfig {
            connect_timeout: Duration::from_secs(10),
            response_timeout: STALL,
            idle_timeout: STALL,
            ..ClientConfig::default()
        };
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::new(config).map_err(|error| error.to_string())?,
        };
        Ok(self.client.insert(client))
    }

    /// Has the executor run a helper program in the sandbox, as the task's user; it writes to the sandbox's logs.
    async fn extract(&self, argv: Vec<OsString>, errand: &Errand) -> Result<(), String> {
        let name = argv.first().cloned().unwrap_or_default();
        let program = Program {
            executable: name.clone(),
            argv,
            environment: BTreeMap::from([("PATH".to_owned(), super::sandbox::PATH.to_owned())]),
            directory: errand.directory.clone(),
            logs: Logs { folder: errand.folder.clone(), append: true },
            account: errand.account,
        };
        let name = name.to_string_lossy();
        let (reply, answer) = oneshot::channel();
        let ending = || "the executor is ending".to_owned();
        self.words.send(Word::Run { group: self.group, program, reply }).await.map_err(|_| ending())?;
        match answer.await.map_err(|_| ending())?.map_err(|error| format!("cannot extract it by '{name}': {error}"))? {
            0 => Ok(()),
            code => Err(format!("'{name}' could not extract it and exited with status {code}{}", last_line(&errand.folder))),
        }
    }
}

/// Where in the sandbox it shall be: as the URI says, else by the last part of its path.
fn target(uri: &Uri) -> Result<PathBuf, String> {
    if let Some(name) = &uri.output_file {
        return inside(name).ok_or_else(|| format!("its output file '{name}' leads out of the sandbox"));
    }
    let path = match uri.value.split_once("://") {
        Some((_, rest)) => rest.split(['?', '#']).next().unwrap_or_default().split_once('/').map_or("", |(_, path)| path),
        None => &uri.value,
    };
    let name = path.rsplit('/').next().unwrap_or_default();
    inside(name).ok_or_else(|| "it names no file; say by its output file how it shall be called".to_owned())
}

/// The file of this machine that a URI means; `None` for one of a web server.
fn local(uri: &str) -> Result<Option<PathBuf>, String> {
    if let Some(path) = uri.strip_prefix("file://") {
        return Ok(Some(PathBuf::from(path.strip_prefix("localhost").unwrap_or(path))));
    }
    match uri.split_once("://") {
        Some(("http" | "https", _)) => Ok(None),
        Some((scheme, _)) => Err(cannot(&format!("fetch by '{scheme}', only by http, https and file"))),
        None if Path::new(uri).is_absolute() => Ok(Some(PathBuf::from(uri))),
        None => Err("it is a relative path; give an absolute one".to_owned()),
    }
}

/// Where the answer leads, if it leads on and to a web server.
fn redirection(asked: &Url, response: &Response) -> Option<Url> {
    let next = podium_http::resolve(asked, response.header(header::LOCATION)?)?;
    // Not from a server that proves who it is to one that does not.
    let safe = asked.scheme_str() != Some("https") || next.scheme_str() == Some("https");
    (response.status.is_redirection() && safe).then_some(next)
}

/// A new file, with the folders on the way to it.
fn make(name: &Path, errand: &Errand) -> io::Result<File> {
    if let Some(parent) = name.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        errand.folder.make(parent, errand.account)?;
    }
    errand.folder.replace(name, 0o644, errand.account)
}

/// A plain file of this machine that the task's user may read.
async fn open(path: PathBuf, account: Option<Account>) -> Result<File, String> {
    let shown = path.display().to_string();
    let opened = tokio::task::spawn_blocking(move || users::open(&path, account)).await;
    let who = if account.is_some() { "the task's user" } else { "the executor" };
    let file = opened.unwrap_or_else(|error| Err(error.into())).map_err(|error| format!("{who} cannot read {shown}: {error}"))?;
    match file.metadata() {
        Ok(data) if data.is_file() => Ok(file),
        Ok(_) => Err(format!("{shown} is no plain file")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

/// All of one file at the end of another.
async fn copy(mut source: File, mut target: File) -> Result<File, String> {
    let copied = tokio::task::spawn_blocking(move || {
        source.seek(SeekFrom::Start(0))?;
        if io::copy(&mut source.take(LARGEST), &mut target)? == LARGEST {
            return Err(too_large());
        }
        Ok(target)
    });
    copied.await.unwrap_or_else(|error| Err(error.into())).map_err(|error| error.to_string())
}

fn too_large() -> io::Error {
    io::Error::other(format!("it is larger than {LARGEST} bytes"))
}

async fn save(mut response: Response, target: File) -> Result<File, String> {
    let mut file = tokio::fs::File::from_std(target);
    let mut left = LARGEST;
    while let Some(piece) = response.body.next().await {
        let piece = piece.map_err(|error| error.to_string())?;
        left = left.checked_sub(piece.len() as u64).ok_or_else(|| too_large().to_string())?;
        file.write_all(&piece).await.map_err(|error| error.to_string())?;
    }
    file.flush().await.map_err(|error| error.to_string())?;
    Ok(file.into_std().await)
}

/// The command that extracts a file, if its name says that it is an archive.
fn extraction(archive: &Path, directory: &Path) -> Option<Vec<OsString>> {
    const TAR: [&str; 9] = [".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".gz.tar", ".tar.zst"];
    let name = archive.file_name()?.to_string_lossy().to_lowercase();
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let (mut argv, into) = match () {
        () if TAR.iter().any(|suffix| name.ends_with(suffix)) => (words(&["tar", "--no-same-owner", "-xf"]), Some("-C")),
        () if name.ends_with(".zip") => (words(&["unzip", "-q", "-o"]), Some("-d")),
        () if name.ends_with(".gz") => (words(&["gzip", "-dkf"]), None),
        () => return None,
    };
    argv.push(archive.into());
    if let Some(option) = into {
        argv.extend([option.into(), directory.into()]);
    }
    Some(argv)
}

/// A URI without the user and password that may stand in it.
fn shown(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{}", &rest[authority.len()..]),
        None => uri.to_owned(),
    }
}

/// `: ` and what a program said last, if it said anything.
fn last_line(sandbox: &Folder) -> String {
    let text = tail(sandbox, Path::new("stderr")).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next_back().map_or_else(String::new, |line| format!(": {line}"))
}

/// The last of a file; of anything else nothing.
fn tail(sandbox: &Folder, name: &Path) -> io::Result<Vec<u8>> {
    const TAIL: u64 = 1000;
    let mut file = sandbox.read(name)?;
    let data = file.metadata()?;
    let mut text = Vec::new();
    if data.is_file() {
        file.seek(SeekFrom::Start(data.len().saturating_sub(TAIL)))?;
        file.take(TAIL).read_to_end(&mut text)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(value: &str) -> Uri {
        Uri { value: value.to_owned(), ..Uri::default() }
    }

    #[test]
    fn a_file_is_called_by_the_last_part_of_its_path() {
        for (value, name) in
            [("http://h/a/b.tgz?v=1#x", "b.tgz"), ("/etc/hosts", "hosts"), ("file:///etc/hosts", "hosts"), ("https://h:1/x", "x")]
        {
            assert_eq!(target(&uri(value)), Ok(PathBuf::from(name)), "{value}");
        }
        for value in ["http://host", "http://host/", "http://host/..", "file:///"] {
            assert!(target(&uri(value)).is_err(), "{value}");
        }
        let named = |name: &str| target(&Uri { output_file: Some(name.to_owned()), ..uri("http://h/a") });
        assert_eq!(named("x/y"), Ok(PathBuf::from("x/y")));
        assert!(named("../y").is_err());
    }

    #[test]
    fn only_web_servers_and_this_machine_are_asked() {
        assert_eq!(local("http://h/a"), Ok(None));
        assert_eq!(local("file://localhost/a"), Ok(Some(PathBuf::from("/a"))));
        assert!(local("a/b").is_err());
        assert!(local("ftp://h/a").unwrap_err().contains("'ftp'"));
    }

    #[test]
    fn archives_are_known_by_their_names() {
        let first = |name: &str| extraction(Path::new(name), Path::new("d")).map(|argv| argv[0].clone());
        assert_eq!(first("/s/A.TAR.GZ"), Some("tar".into()));
        assert_eq!(first("/s/a.zip"), Some("unzip".into()));
        assert_eq!(first("/s/a.gz"), Some("gzip".into()));
        assert_eq!(first("/s/a.jar"), None);
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(shown("http://me:secret@h/a@b"), "http://h/a@b");
        assert_eq!(shown("http://h/a"), "http://h/a");
        assert_eq!(shown("/a@b"), "/a@b");
    }
}

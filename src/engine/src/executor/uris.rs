//! Brings what a task asks for by its URIs into its sandbox: files of this machine, and of web servers; archives are
//! extracted by the machine's `tar`, `unzip` and `gzip`.
//!
//! Fetching never holds up the executor's loop, which starts the helper programs, since it waits for all children.
//! What stalls, redirects without end or is too large is given up; a URI with `cache` is fetched once for a group.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::Permissions,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use podium_http::{Client, ClientConfig, Response, StatusCode, Url, header};
use podium_proto::mesos::v1::command_info::Uri;
use tokio::{
    fs::{self, File},
    io::AsyncWriteExt as _,
    sync::{mpsc, oneshot},
};
use tokio_stream::StreamExt as _;

use super::{
    sandbox::{inside, make_directory, own},
    spawn::{Logs, Program},
    support::cannot,
    users::Account,
};

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
    /// Its sandbox, which exists.
    pub directory: PathBuf,
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
    /// Where the URIs to be cached are.
    cache: BTreeMap<String, PathBuf>,
}

impl Fetcher {
    async fn fetch(&mut self, uri: &Uri, errand: &Errand) -> Result<(), String> {
        let target = errand.directory.join(target(uri)?);
        if let Some(parent) = target.parent() {
            make_directory(parent, errand.account).map_err(|error| error.to_string())?;
        }
        self.bring(uri, &target).await?;
        own(&target, errand.account).map_err(|error| error.to_string())?;
        let executable = uri.executable.unwrap_or(false);
        let mode = Permissions::from_mode(if executable { 0o755 } else { 0o644 });
        fs::set_permissions(&target, mode).await.map_err(|error| error.to_string())?;
        match extraction(&target, &errand.directory) {
            Some(argv) if !executable && uri.extract.unwrap_or(true) => self.extract(argv, errand).await,
            _ => Ok(()),
        }
    }

    /// Makes `target` the content of the URI.
    async fn bring(&mut self, uri: &Uri, target: &Path) -> Result<(), String> {
        let cached = self.cache.get(&uri.value).filter(|path| path.as_path() != target);
        if let Some(source) = cached.cloned().map_or_else(|| local(&uri.value), |path| Ok(Some(path)))? {
            fs::copy(&source, target).await.map_err(|error| format!("{}: {error}", source.display()))?;
        } else {
            self.download(&uri.value, target).await?;
        }
        if uri.cache.unwrap_or(false) {
            self.cache.insert(uri.value.clone(), target.to_owned());
        }
        Ok(())
    }

    async fn download(&mut self, uri: &str, target: &Path) -> Result<(), String> {
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
            logs: Logs { directory: errand.directory.clone(), append: true },
            account: errand.account,
        };
        let name = name.to_string_lossy();
        let (reply, answer) = oneshot::channel();
        let ending = || "the executor is ending".to_owned();
        self.words.send(Word::Run { group: self.group, program, reply }).await.map_err(|_| ending())?;
        match answer.await.map_err(|_| ending())?.map_err(|error| format!("cannot extract it by '{name}': {error}"))? {
            0 => Ok(()),
            code => {
                Err(format!("'{name}' could not extract it and exited with status {code}{}", last_line(&errand.directory.join("stderr"))))
            }
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

async fn save(mut response: Response, target: &Path) -> Result<(), String> {
    let mut file = File::create(target).await.map_err(|error| error.to_string())?;
    let mut left = LARGEST;
    while let Some(piece) = response.body.next().await {
        let piece = piece.map_err(|error| error.to_string())?;
        left = left.checked_sub(piece.len() as u64).ok_or_else(|| format!("it is larger than {LARGEST} bytes"))?;
        file.write_all(&piece).await.map_err(|error| error.to_string())?;
    }
    file.flush().await.map_err(|error| error.to_string())
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
fn last_line(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(1000)..]);
    text.lines().next_back().map_or_else(String::new, |line| format!(": {line}"))
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

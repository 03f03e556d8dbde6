//! Artifacts of a web server: fetched before anything of the group starts, and given up in plain words.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use podium_proto::mesos::v1::{TaskInfo, TaskState, command_info::Uri};

use super::{
    rig::{Rig, state, task},
    wait::PATIENCE,
};

/// Answers GETs of its files; asked for `/moved/…`, it sends the client to `/…`. All else is 404.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(files: BTreeMap<String, Vec<u8>>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is of no interest.
                let _ = answer(stream, &files, &log);
            }
        });
        Server { address, asked }
    }

    fn uri(&self, path: &str) -> Uri {
        Uri { value: format!("http://{}{path}", self.address), ..Uri::default() }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let lines = BufReader::new(stream.try_clone()?).lines();
    let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    log.lock().unwrap().push(path.clone());
    let (status, extra, body) = match (path.strip_prefix("/moved"), files.get(&path)) {
        (Some(rest), _) => ("302 Found", format!("location: {rest}\r\n"), &[][..]),
        (None, Some(body)) => ("200 OK", String::new(), &body[..]),
        (None, None) => ("404 Not Found", String::new(), &[][..]),
    };
    write!(stream, "HTTP/1.1 {status}\r\n{extra}content-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
    stream.write_all(body)
}

fn fetching(mut task: TaskInfo, uris: Vec<Uri>) -> TaskInfo {
    task.command.as_mut().unwrap().uris = uris;
    task
}

#[tokio::test]
async fn files_of_a_web_server_are_fetched_through_redirections_and_once_a_group_when_cached() {
    let mut rig = Rig::new().await;
    let source = rig.folder.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("inner"), "extracted\n").unwrap();
    let tar = std::process::Command::new("tar").args(["-czf", "pack.tgz", "inner"]).current_dir(&source).status().unwrap();
    assert!(tar.success());
    let server = Server::start(BTreeMap::from([
        ("/tool".to_owned(), b"#!/bin/sh\necho tool runs\n".to_vec()),
        ("/pack.tgz".to_owned(), fs::read(source.join("pack.tgz")).unwrap()),
        ("/pack.tgz?version=2".to_owned(), fs::read(source.join("pack.tgz")).unwrap()),
    ]));
    let tool = Uri { executable: Some(true), output_file: Some("bin/tool".into()), cache: Some(true), ..server.uri("/moved/tool") };
    let first = fetching(task("a", "bin/tool && cat inner"), vec![tool.clone(), server.uri("/pack.tgz?version=2")]);
    let packed = Uri { extract: Some(false), ..server.uri("/pack.tgz") };
    let second = fetching(task("b", "bin/tool && ls pack.tgz && test ! -e inner"), vec![tool, packed]);
    rig.launch("e", vec![first, second]).await;
    for end in rig.ends(&["a", "b"]).await {
        assert_eq!(state(&end), TaskState::TaskFinished, "{end:?}");
    }
    let printed = |task: &str| fs::read_to_string(rig.task_sandbox("e", task).join("stdout")).unwrap();
    assert_eq!((printed("a"), printed("b")), ("tool runs\nextracted\n".to_owned(), "tool runs\npack.tgz\n".to_owned()));
    assert_eq!(server.asked(), ["/moved/tool", "/tool", "/pack.tgz?version=2", "/pack.tgz"]);
}

#[tokio::test]
async fn what_cannot_be_fetched_or_extracted_fails_the_group_in_plain_words() {
    let mut rig = Rig::new().await;
    let server = Server::start(BTreeMap::from([("/broken.tar".to_owned(), b"no archive".to_vec())]));
    let nobody = Uri { value: "http://127.0.0.1:1/x".into(), ..Uri::default() };
    let ftp = Uri { value: "ftp://127.0.0.1/x".into(), ..Uri::default() };
    for (executor, uri, words) in [
        ("missing", server.uri("/missing"), "the server answered 404 Not Found"),
        ("circle", server.uri(&"/moved".repeat(12)), "redirects more than 10 times"),
        ("broken", server.uri("/broken.tar"), "'tar' could not extract it"),
        ("nobody", nobody, "cannot connect to 127.0.0.1:1"),
        ("ftp", ftp, "only by http, https and file"),
    ] {
        let value = uri.value.clone();
        rig.launch(executor, vec![fetching(task(&format!("{executor}-1"), "true"), vec![uri]), task(&format!("{executor}-2"), "true")])
            .await;
        let ends = rig.ends(&[&format!("{executor}-1"), &format!("{executor}-2")]).await;
        assert_eq!((state(&ends[0]), state(&ends[1])), (TaskState::TaskFailed, TaskState::TaskKilled), "{ends:?}");
        let said = ends[0].message.clone().unwrap();
        assert!(said.contains(words) && said.contains(&format!("cannot fetch the uri '{value}'")), "{said}");
    }
}

#[tokio::test]
async fn a_group_killed_while_it_fetches_ends_at_once() {
    let mut rig = Rig::new().await;
    // Takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = Uri { value: format!("http://{}/x", silent.local_addr().unwrap()), ..Uri::default() };
    rig.launch("e", vec![fetching(task("a", "true"), vec![uri]), task("b", "true")]).await;
    let connection = tokio::time::timeout(PATIENCE, silent.accept()).await.expect("the executor does not ask").unwrap();
    rig.kill("b", None).await;
    for end in rig.ends(&["a", "b"]).await {
        assert_eq!(state(&end), TaskState::TaskKilled, "{end:?}");
    }
    assert_eq!(rig.exited("e").await, 0);
    drop(connection);
}

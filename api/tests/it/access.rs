//! Who may call: passwords, tokens with their rights, pages of other origins, encryption.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use podium_api::{AccessConfig, NewToken, Password, Right, TlsFiles};
use podium_http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::given;
use crate::world::{Got, World, limits, pod};

struct Tokens {
    folder: tempfile::TempDir,
    all: NewToken,
    team: NewToken,
    looker: NewToken,
}

impl Tokens {
    fn draw() -> Self {
        let tokens = Self {
            folder: tempfile::tempdir().unwrap(),
            all: NewToken::draw("all", Right::Write, "/").unwrap(),
            team: NewToken::draw("team", Right::Write, "/team").unwrap(),
            looker: NewToken::draw("looker", Right::Read, "/team").unwrap(),
        };
        tokens.write(&[&tokens.all, &tokens.team, &tokens.looker]);
        tokens
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("tokens")
    }

    fn write(&self, tokens: &[&NewToken]) {
        let lines: Vec<&str> = tokens.iter().map(|token| token.line.as_str()).collect();
        std::fs::write(self.path(), lines.join("\n")).unwrap();
    }
}

async fn world(tokens: &Tokens) -> World {
    let (path, password) = (tokens.path(), Password::parse("ops:se:cret"));
    World::changed(1, limits(), move |config| {
        config.access = AccessConfig { password: password.clone(), tokens_file: Some(path.clone()), ..AccessConfig::default() };
    })
    .await
}

async fn ask(world: &World, token: &NewToken, method: Method, path: &str, body: &str) -> Got {
    let bearer = format!("Bearer {}", token.secret);
    world.send(method, path, &[("authorization", &bearer), ("content-type", "application/json")], body).await
}

#[tokio::test]
async fn who_is_not_known_is_asked_for_a_password_or_a_token_and_told_only_that_the_server_lives() {
    let tokens = Tokens::draw();
    let world = world(&tokens).await;
    let basic = |pair: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    for bad in ["", "Basic", "Bearer", "Bearer podium-x", &basic("ops:wrong"), &basic("ops:se"), "Basic %%%", "Digest x", "Bearer"] {
        for path in ["/v2/pods", "/v2/pods/a", "/v2/pods/::status", "/v2/info", "/v2/events", "/metrics", "/nothing", "/", "/v2/leader"] {
            let headers: &[(&str, &str)] = if bad.is_empty() { &[] } else { &[("authorization", bad)] };
            let refused = world.send(Method::GET, path, headers, "").await;
            assert_eq!(refused.status, 401, "{path} {bad}: {}", refused.text());
            let asked: Vec<_> = refused.headers.get_all("www-authenticate").iter().collect();
            assert_eq!(asked, ["Basic realm=\"Mesosphere\"", "Bearer realm=\"podium\""]);
            assert!(!refused.message().is_empty() && !refused.text().contains("secret"));
        }
    }
    for path in ["/ping", "/livez", "/readyz"] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
    let known = world.send(Method::GET, "/v2/pods", &[("authorization", &basic("ops:se:cret"))], "").await;
    assert_eq!(known.status, 200, "{}", known.text());
}

#[tokio::test]
async fn a_token_reaches_the_pods_below_its_path_and_lists_no_others() {
    let tokens = Tokens::draw();
    let world = world(&tokens).await;
    for (token, id, status) in
        [(&tokens.all, "/other", 201), (&tokens.team, "/team/a", 201), (&tokens.team, "/other/b", 403), (&tokens.looker, "/team/b", 403)]
    {
        assert_eq!(ask(&world, token, Method::POST, "/v2/pods", &pod(id, 1)).await.status, status, "{id}");
    }
    for (method, path, status) in [
        (Method::GET, "/v2/pods/team/a", 200),
        (Method::GET, "/v2/pods/team/a::status", 200),
        (Method::GET, "/v2/pods/team/missing", 404),
        (Method::GET, "/v2/pods/other", 403),
        (Method::GET, "/v2/pods/other::versions", 403),
        (Method::GET, "/v2/pods/missing", 403),
        (Method::PUT, "/v2/pods/team/a", 403),
        (Method::DELETE, "/v2/pods/team/a", 403),
        (Method::PUT, "/v2/pods/team/a?dryRun=true", 403),
        (Method::DELETE, "/v2/pods/team/a::instances", 403),
        (Method::DELETE, "/v2/queue/team/a/delay", 403),
        (Method::DELETE, "/v2/queue/other/delay", 403),
        (Method::DELETE, "/v2/leader", 403),
        (Method::GET, "/metrics", 403),
        (Method::GET, "/v2/podium/unknown", 403),
        (Method::POST, "/v2/podium/orders", 403),
        (Method::GET, "/v2/pods/other::logs", 403),
        (Method::GET, "/v2/pods/team/a::logs", 404),
        (Method::GET, "/v2/groups/other", 404),
    ] {
        let got = ask(&world, &tokens.looker, method.clone(), path, &pod("/team/a", 2)).await;
        assert_eq!(got.status, status, "{method} {path}: {}", got.text());
        if status == 403 {
            assert_eq!(got.message(), "Not Authorized to perform this action!");
        }
    }
    for path in ["/v2/pods", "/v2/pods/::status", "/v2/deployments"] {
        let (part, whole) =
            (ask(&world, &tokens.looker, Method::GET, path, "").await, ask(&world, &tokens.all, Method::GET, path, "").await);
        assert_eq!((part.json().as_array().unwrap().len(), whole.json().as_array().unwrap().len()), (1, 2), "{path}");
        assert!(!part.text().contains("/other"));
    }
    for deployment in ask(&world, &tokens.all, Method::GET, "/v2/deployments", "").await.json().as_array().unwrap() {
        let path = format!("/v2/deployments/{}", deployment["id"].as_str().unwrap());
        let status = if deployment["affectedPods"][0] == "/other" { 404 } else { 403 };
        assert_eq!(ask(&world, &tokens.looker, Method::DELETE, &path, "").await.status, status, "what may not be seen is not there");
    }
    let (part, whole) =
        (ask(&world, &tokens.looker, Method::GET, "/v2/info", "").await, ask(&world, &tokens.all, Method::GET, "/v2/info", "").await);
    assert_eq!(
        (part.json()["marathon_config"]["hostname"].as_str(), whole.json()["marathon_config"]["hostname"].as_str()),
        (None, Some("here"))
    );
    assert_eq!(ask(&world, &tokens.team, Method::DELETE, "/v2/pods/team/a?force=true", "").await.status, 202);
}

#[tokio::test]
async fn the_queue_and_the_groups_show_no_others_either() {
    let tokens = Tokens::draw();
    let mut world = world(&tokens).await;
    let mut revision = 0;
    for id in ["/team/a", "/other/deep/b"] {
        assert_eq!(ask(&world, &tokens.all, Method::POST, "/v2/pods", &pod(id, 1)).await.status, 201);
        revision = given::happen(&mut world, &format!("{id} waits 1"), revision).await;
    }
    let revision = revision.to_string();
    for path in ["/v2/queue", "/v2/groups", "/v2/deployments", "/v2/pods/::status"] {
        for (token, sees_all) in [(&tokens.looker, false), (&tokens.all, true)] {
            let bearer = format!("Bearer {}", token.secret);
            let got = world.send(Method::GET, path, &[("authorization", &bearer), ("x-podium-min-revision", &revision)], "").await;
            let text = got.text();
            assert!(got.status == 200 && text.contains("/team/a"), "{path}: {text}");
            assert_eq!(text.contains("other"), sees_all, "{path}: {text}");
        }
    }
}

#[tokio::test]
async fn nothing_is_judged_for_who_may_change_nothing() {
    let tokens = Tokens::draw();
    let world = world(&tokens).await;
    for body in ["{", &pod("/team/a", 1), "{\"id\":\"/team/a\"}"] {
        assert_eq!(ask(&world, &tokens.looker, Method::POST, "/v2/pods", body).await.status, 403, "{body}");
    }
    assert_eq!(ask(&world, &tokens.team, Method::POST, "/v2/pods", "{").await.status, 400);
}

#[tokio::test]
async fn a_token_that_is_taken_out_of_the_file_is_refused_without_a_restart() {
    let tokens = Tokens::draw();
    let world = world(&tokens).await;
    assert_eq!(ask(&world, &tokens.team, Method::GET, "/v2/pods", "").await.status, 200);
    // What listens by it is told by its end.
    let bearer = format!("Bearer {}", tokens.team.secret);
    let headers = [("authorization", bearer.as_str()), ("accept", "text/event-stream")];
    let listening = world.send(Method::GET, "/v2/events", &headers, "");
    let (ended, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(30), listening), async { tokens.write(&[&tokens.all]) });
    ended.expect("the file is read again");
    assert_eq!(ask(&world, &tokens.team, Method::GET, "/v2/pods", "").await.status, 401);
    assert_eq!(ask(&world, &tokens.all, Method::GET, "/v2/pods", "").await.status, 200);
}

#[tokio::test]
async fn pages_of_named_origins_may_call_and_those_of_others_are_told_nothing() {
    let world = World::changed(1, limits(), |config| config.cors_origins = vec!["https://ui.example".to_owned()]).await;
    let asks = |origin: &'static str| [("origin", origin), ("access-control-request-method", "PUT"), ("content-type", "application/json")];
    let allowed = world.send(Method::OPTIONS, "/v2/pods/a", &asks("https://ui.example")[..2], "").await;
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (204, "https://ui.example"));
    assert!(allowed.header("access-control-allow-methods").contains("PUT") && allowed.header("vary").contains("Origin"));
    let stranger = world.send(Method::OPTIONS, "/v2/pods/a", &asks("https://evil.example")[..2], "").await;
    assert_eq!((stranger.header("access-control-allow-origin"), stranger.header("access-control-allow-methods")), ("", ""));
    let there = &world;
    let put = |origin: &'static str| async move {
        let headers = [("origin", origin), ("content-type", "application/json")];
        there.send(Method::PUT, "/v2/pods/a", &headers, "{}").await
    };
    assert_eq!(put("https://ui.example").await.status, 422);
    assert_eq!(put("https://evil.example").await.status, 403);
    // Refusals can be read by the page, too.
    let missing = world.send(Method::GET, "/v2/pods/missing", &[("origin", "https://ui.example")], "").await;
    assert_eq!((missing.status, missing.header("access-control-allow-origin")), (404, "https://ui.example"));
    for name in ["X-Podium-Revision", "X-Podium-Log-Offset", "X-Podium-Log-Size", "X-Podium-Task", "Retry-After", "Location"] {
        assert!(missing.header("access-control-expose-headers").split(", ").any(|exposed| exposed == name), "{name}: {missing:?}");
    }

    let any = World::changed(1, limits(), |config| config.cors_origins = vec!["*".to_owned()]).await;
    assert_eq!(any.send(Method::GET, "/v2/pods", &[("origin", "https://x.example")], "").await.header("access-control-allow-origin"), "*");
    let preflight = any.send(Method::OPTIONS, "/v2/pods/a", &asks("https://x.example")[..2], "").await;
    assert_eq!(preflight.header("access-control-allow-methods"), "GET, HEAD, OPTIONS");
    assert_eq!(any.send(Method::DELETE, "/v2/pods/a", &[("origin", "https://x.example")], "").await.status, 403);
}

fn certify(folder: &Path) -> rcgen::Certificate {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), certified.cert.pem()).unwrap();
    certified.cert
}

/// Asks over TLS, trusting this certificate alone.
async fn ask_encrypted(world: &World, trusted: &rcgen::Certificate, request: &str) -> std::io::Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.der().clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(world.servers[0].address()).await?;
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // The server closes without a goodbye when it is asked to close.
    let _ = stream.read_to_end(&mut answer).await;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn the_api_speaks_https_by_the_certificate_that_stands_there_now() {
    let folder = tempfile::tempdir().unwrap();
    let first = certify(folder.path());
    let files = TlsFiles { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    let world = World::changed(1, limits(), move |config| config.tls = Some(files.clone())).await;
    let request = "GET /v2/info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = ask_encrypted(&world, &first, request).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"http_port\":null"), "{answer}");
    let body = pod("/a", 1);
    let length = body.len();
    let post = format!(
        "POST /v2/pods HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let answer = ask_encrypted(&world, &first, &post).await.unwrap().to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 201") && answer.contains("location: https://localhost/v2/pods/a\r\n"), "{answer}");

    // Who speaks plainly, or says nothing, gets nothing.
    for sends in [request, ""] {
        let mut plain = TcpStream::connect(world.servers[0].address()).await.unwrap();
        plain.write_all(sends.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), plain.read_to_end(&mut text)).await.expect("it is cut off");
        assert!(!String::from_utf8_lossy(&text).contains("HTTP/1.1"));
    }

    let second = certify(folder.path());
    let renewed = async {
        // Nothing but the next handshake tells of it.
        while ask_encrypted(&world, &second, request).await.is_err() {}
    };
    tokio::time::timeout(Duration::from_secs(30), renewed).await.expect("the new certificate is taken up");
    assert!(ask_encrypted(&world, &first, request).await.is_err());
}

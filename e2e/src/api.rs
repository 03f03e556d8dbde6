//! Calls of the API by curl, the client that the documents use.

use std::process::Command;

use serde_json::Value;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP's status.
    pub status: u16,
    /// Header lines in lower case, `name: value`.
    pub headers: Vec<String>,
    /// The body as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON; `Null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    }
}

/// The API at one address.
#[derive(Debug, Clone)]
pub struct Api {
    /// `http://127.0.0.1:8080`.
    pub base: String,
}

impl Api {
    /// One call; `body` is sent as JSON. A server that cannot be reached answers with status 0.
    ///
    /// # Panics
    /// When curl is not installed.
    pub fn call(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        self.call_with(method, path, &[], body)
    }

    /// The same with headers, `Name: value` each.
    ///
    /// # Panics
    /// When curl is not installed.
    pub fn call_with(&self, method: &str, path: &str, headers: &[&str], body: Option<&str>) -> Answer {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "30", "--include", "--globoff", "--request", method]);
        if method == "HEAD" {
            curl.arg("--head");
        }
        if let Some(body) = body {
            curl.args(["--header", "Content-Type: application/json", "--header", "Expect:", "--data-binary", body]);
        }
        for header in headers {
            curl.args(["--header", header]);
        }
        let output = curl.arg(format!("{}{path}", self.base)).output().expect("curl is installed (Debian: curl)");
        parse(&String::from_utf8_lossy(&output.stdout))
    }

    /// GET.
    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None)
    }

    /// POST of a pod definition; the answer must be 201.
    ///
    /// # Panics
    /// When it is another.
    pub fn create(&self, definition: &Value) -> Answer {
        let answer = self.call("POST", "/v2/pods", Some(&definition.to_string()));
        assert_eq!(answer.status, 201, "POST {definition}: {}", answer.body);
        answer
    }

    /// `::status` of one pod; its error says what was answered instead.
    pub fn status(&self, id: &str) -> Result<Value, String> {
        let answer = self.get(&format!("/v2/pods{id}::status"));
        if answer.status == 200 { Ok(answer.json()) } else { Err(format!("{} {}", answer.status, answer.body)) }
    }

    /// As [`Api::stable`], with little load on what is being measured ([`Api::deployed`]).
    ///
    /// # Panics
    /// When it does not become so.
    pub fn settled(&self, id: &str, instances: usize) -> Value {
        self.deployed();
        self.stable(id, instances)
    }

    /// Waits until no deployment runs: all instances that were asked for do. Asks over one connection and without a
    /// process a look; the answer is short.
    ///
    /// # Panics
    /// When it does not become so.
    pub fn deployed(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        let client = podium_http::Client::new(podium_http::ClientConfig::default()).expect("no credentials to be refused");
        let url = podium_http::parse_url(&format!("{}/v2/deployments", self.base)).expect("the API's address is a URL");
        let deployments = || async { client.get(&url).await?.bytes().await };
        crate::wait::eventually("no deployment runs", || {
            let running = runtime.block_on(deployments()).map_err(|error| error.to_string())?;
            if running == "[]" { Ok(()) } else { Err(String::from_utf8_lossy(&running).chars().take(2_000).collect()) }
        });
    }

    /// Waits until the pod's status is STABLE with `instances` instances listed, all of them STABLE.
    ///
    /// # Panics
    /// When it does not become so.
    pub fn stable(&self, id: &str, instances: usize) -> Value {
        crate::wait::eventually(&format!("{id} is STABLE with {instances} instances"), || {
            let status = self.status(id)?;
            let listed = status["instances"].as_array().map(Vec::as_slice).unwrap_or_default();
            let good =
                status["status"] == "STABLE" && listed.len() == instances && listed.iter().all(|instance| instance["status"] == "STABLE");
            if good { Ok(status.clone()) } else { Err(status.to_string()) }
        })
    }
}

fn parse(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split_whitespace().nth(1)).and_then(|code| code.parse().ok()).unwrap_or(0);
    let headers = lines
        .map(|line| match line.split_once(':') {
            Some((name, value)) => format!("{}:{value}", name.to_ascii_lowercase()),
            None => line.to_owned(),
        })
        .collect();
    Answer { status, headers, body: body.to_owned() }
}

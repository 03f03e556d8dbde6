//! A store, and API servers on it; each test has its own.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use podium_api::{ApiConfig, Info, Limits, Server};
use podium_controllers::gateway::{GatewayState, state_channel};
use podium_http::{Client, ClientConfig, Method, Response};
use podium_proto::records::Accepted;
use podium_store::index::Index;
use podium_store::{Store, StoreConfig};
use podium_types::definition::Settings;
use podium_types::id::PodId;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::link::Link;

/// A store with API servers.
pub struct World {
    /// The embedded store; taken when a test ends it.
    pub etcd: Option<podium_etcd::Server>,
    /// What the gateway of every server's process would tell.
    pub gateway: watch::Sender<GatewayState>,
    /// The servers, each with its own index.
    pub servers: Vec<Server>,
    /// The first server's.
    pub index: Option<Index>,
    client: Client,
    endpoint: String,
    folder: tempfile::TempDir,
}

/// An answer with its body read.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    pub async fn of(response: Response) -> Self {
        let (status, headers) = (response.status.as_u16(), response.headers.clone());
        Self { status, headers, body: response.bytes().await.unwrap().to_vec() }
    }
}

impl World {
    /// One server with short waits.
    pub async fn new() -> Self {
        Self::with(1, limits()).await
    }

    /// Several servers.
    pub async fn with(servers: usize, limits: Limits) -> Self {
        Self::changed(servers, limits, |_| {}).await
    }

    /// Several servers that are not as usual.
    pub async fn changed(servers: usize, limits: Limits, change: impl Fn(&mut ApiConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let etcd = podium_etcd::Server::start(podium_etcd::Config::new(listener, folder.path())).await.unwrap();
        let endpoint = format!("http://{}", etcd.address());
        let client = client();
        let (gateway, _) = state_channel();
        let mut world = Self { etcd: Some(etcd), servers: Vec::new(), index: None, client, endpoint, gateway, folder };
        for _ in 0..servers {
            world.add(limits.clone(), &change).await;
        }
        world
    }

    /// One more server.
    pub async fn add(&mut self, limits: Limits, change: impl Fn(&mut ApiConfig)) {
        let store = self.store().await;
        let index = Index::start(&store);
        index.ready().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let info = Info { framework_name: "podium".to_owned(), identity: "here".to_owned(), mesos: None, failover_timeout: 604_800.0 };
        let host_names = vec!["podium.example".to_owned()];
        let gateway = self.gateway.subscribe();
        self.index.get_or_insert_with(|| index.clone());
        let mut config = ApiConfig {
            listener,
            store,
            index,
            settings: Settings::default(),
            info,
            gateway,
            agents: client(),
            host_names,
            cors_origins: Vec::new(),
            access: podium_api::AccessConfig::default(),
            tls: None,
            limits,
        };
        change(&mut config);
        self.servers.push(Server::start(config).unwrap());
    }

    /// Puts an empty store in the place of the store.
    pub async fn replace_store(&mut self) {
        self.etcd.take().expect("the store is there").kill().await;
        self.folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind(self.endpoint.trim_start_matches("http://")).await.unwrap();
        self.etcd = Some(podium_etcd::Server::start(podium_etcd::Config::new(listener, self.folder.path())).await.unwrap());
    }

    /// A connection of its own to the store.
    pub async fn store(&self) -> Store {
        Store::connect(store_config(&self.endpoint)).await.unwrap()
    }

    /// A link to the store.
    pub async fn link(&self) -> Link {
        Link::to(self.endpoint.strip_prefix("http://").unwrap().parse().unwrap()).await
    }

    /// Which version of a pod is in force.
    pub fn accepted(&self, pod: &PodId) -> Accepted {
        let index = self.index.as_ref().expect("there is a server");
        index.read(|state| state.pod(pod).and_then(|view| Some(view.accepted.as_ref()?.value))).expect("the pod is there")
    }

    /// A plain client of the store, for what Podium does not do itself.
    pub async fn etcd_client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([&self.endpoint], None).await.unwrap()
    }

    /// Sends a request to a server.
    pub async fn send_to(&self, server: usize, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Got {
        let url = format!("http://{}{path}", self.servers[server].address()).parse().unwrap();
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap())).collect();
        Got::of(self.client.request(method, &url, headers, body.to_owned()).await.unwrap()).await
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Got {
        self.send_to(0, method, path, headers, body).await
    }

    pub async fn get(&self, path: &str) -> Got {
        self.send(Method::GET, path, &[], "").await
    }

    /// Sends a definition as JSON.
    pub async fn push(&self, method: Method, path: &str, body: &str) -> Got {
        self.send(method, path, &[("content-type", "application/json")], body).await
    }
}

/// How tests reach a store.
pub fn store_config(endpoint: &str) -> StoreConfig {
    StoreConfig { request_timeout: Duration::from_secs(2), ..StoreConfig::new([endpoint]) }
}

/// Short enough for tests that wait for them, and long enough that a busy machine cuts off nobody else.
pub fn limits() -> Limits {
    Limits {
        head_timeout: Duration::from_secs(3),
        catch_up: Duration::from_millis(500),
        look_again: Duration::from_millis(10),
        ..Limits::default()
    }
}

/// The documents' quick-start pod.
pub fn pod(id: &str, instances: u32) -> String {
    format!(
        r#"{{"id":"{id}","scaling":{{"kind":"fixed","instances":{instances}}},
            "containers":[{{"name":"sleep1","exec":{{"command":{{"shell":"sleep 1000"}}}},"resources":{{"cpus":0.1,"mem":32}}}}],
            "networks":[{{"mode":"host"}}]}}"#
    )
}

fn client() -> Client {
    Client::new(ClientConfig::default()).unwrap()
}

//! One replica: the API and the controllers on a store and a Mesos. The same in `podium dev` and in `podium server`;
//! neither the store nor the engine can be told from the real ones here.

use std::time::Duration;

use podium_api::{ApiConfig, Info, Limits};
use podium_controllers::{Controllers, gateway};
use podium_store::{Index, Store, StoreConfig};
use podium_types::definition::Settings;
use tokio::net::TcpListener;

use super::ServeArgs;

/// What a replica is made of.
pub struct Parts {
    /// Where the API listens.
    pub listener: TcpListener,
    /// How the store is reached.
    pub store: StoreConfig,
    /// Where Mesos is, and as whom we speak to it.
    pub gateway: gateway::Settings,
    /// As whom we read the files of agents.
    pub agent_credentials: Option<podium_http::Credentials>,
    /// Who this process is in elections.
    pub identity: String,
    /// Whether a process of the same identity that came before is known to be dead: its leases are given back.
    pub sole_heir: bool,
    /// The network of pods that ask for a container network without a name.
    pub default_network_name: Option<String>,
}

/// A running replica.
pub struct Replica {
    api: podium_api::Server,
    controllers: Controllers,
    scheme: &'static str,
}

impl Replica {
    /// Starts it; returns when its API answers from an index that has been read.
    pub async fn start(args: &ServeArgs, parts: Parts) -> anyhow::Result<Self> {
        let access = args.access.callers(parts.listener.local_addr()?)?;
        let store = connect(&parts.store).await?;
        if parts.sole_heir {
            podium_store::election::end_sessions_of(&store, &parts.identity).await?;
        }
        let index = Index::start(&store);
        index.ready().await;
        let settings = Settings { default_network_name: parts.default_network_name.clone(), default_role: args.role.clone() };
        let (gateway_state, gateway_known) = gateway::state_channel();
        let gateway = gateway_settings(args, &parts, &settings);
        let controllers = Controllers::start(podium_controllers::Config {
            store: store.clone(),
            index: index.clone(),
            which: args.controllers.0.clone(),
            settings: settings.clone(),
            identity: parts.identity.clone(),
            lease_ttl: args.lease_ttl(),
            gateway: Some((gateway, gateway_state)),
        });
        let info = Info {
            framework_name: FRAMEWORK_NAME.to_owned(),
            identity: parts.identity,
            mesos: Some(parts.gateway.masters.to_string()),
            failover_timeout: parts.gateway.failover_timeout_seconds,
        };
        let agents = agents_client(parts.gateway.trust.clone(), parts.agent_credentials)?;
        let tls = args.access.tls();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let api = podium_api::Server::start(ApiConfig {
            listener: parts.listener,
            store,
            index,
            settings,
            info,
            gateway: gateway_known,
            agents,
            host_names: args.host_name.clone(),
            cors_origins: args.access.cors_origin.clone(),
            access,
            tls,
            limits: Limits::default(),
        })?;
        Ok(Self { api, controllers, scheme })
    }

    /// `http://host:port` of the API, or `https://…`.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.api.address())
    }

    /// Gives up the elections, then answers what was asked already.
    pub async fn shutdown(self) {
        self.controllers.shutdown().await;
        self.api.shutdown().await;
    }
}

/// Asks agents for logs: a person waits for the answer.
fn agents_client(trust: Option<podium_http::Trust>, credentials: Option<podium_http::Credentials>) -> anyhow::Result<podium_http::Client> {
    let response_timeout = Duration::from_secs(10);
    let config = podium_http::ClientConfig { response_timeout, trust, credentials, ..podium_http::ClientConfig::default() };
    Ok(podium_http::Client::new(config)?)
}

/// How the gateway reaches Mesos, and what it adds to every pod.
fn gateway_settings(args: &ServeArgs, parts: &Parts, settings: &Settings) -> gateway::Settings {
    let mut gateway = gateway::Settings {
        framework_name: FRAMEWORK_NAME.to_owned(),
        default_role: args.role.clone(),
        secrets_dir: args.secrets_dir.clone(),
        ..parts.gateway.clone()
    };
    gateway.task_group.default_network_name.clone_from(&settings.default_network_name);
    gateway
}

/// As Mesos shows it.
const FRAMEWORK_NAME: &str = "podium";

/// Tries until the store answers, or says that it never will.
async fn connect(config: &StoreConfig) -> anyhow::Result<Store> {
    let mut backoff = podium_retry::Backoff::reconnect();
    loop {
        match Store::connect(config.clone()).await {
            Ok(store) => return Ok(store),
            Err(error @ podium_store::StoreError::Unavailable { .. }) => {
                tracing::warn!(%error, "waiting for the store");
                tokio::time::sleep(backoff.next_delay()).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

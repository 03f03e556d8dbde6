//! One replica: the API and the controllers on a store and a Mesos. The same in `podium dev` and in `podium server`;
//! neither the store nor the engine can be told from the real ones here.

use std::net::SocketAddr;
use std::time::Duration;

use podium_api::{ApiConfig, Info, Limits};
use podium_controllers::{Controllers, gateway};
use podium_store::{Index, Key, Store, StoreConfig, StoreError};
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
    /// Who this process is: in elections the address of its API stands before it.
    pub name: String,
    /// Whether a process of the same name that came before is known to be dead: its leases are given back.
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
    /// Starts it. The API answers at once, if only that the store was not read yet; returns when it was, and the controllers are at work.
    pub async fn start(args: &ServeArgs, parts: Parts) -> anyhow::Result<Self> {
        let address = parts.listener.local_addr()?;
        let access = args.access.callers(address)?;
        let store = Store::open(parts.store.clone());
        let index = Index::start(&store);
        let settings = Settings { default_network_name: parts.default_network_name.clone(), default_role: args.role.clone() };
        let (gateway_state, gateway_known) = gateway::state_channel();
        let gateway = gateway_settings(args, &parts, &settings);
        let identity = format!("{}/{}", advertised(address), parts.name);
        let info = Info {
            framework_name: FRAMEWORK_NAME.to_owned(),
            identity: identity.clone(),
            mesos: Some(parts.gateway.masters.to_string()),
            failover_timeout: parts.gateway.failover_timeout_seconds,
        };
        let agents = agents_client(parts.gateway.trust.clone(), parts.agent_credentials)?;
        let tls = args.access.tls();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let api = podium_api::Server::start(ApiConfig {
            listener: parts.listener,
            store: store.clone(),
            index: index.clone(),
            settings: settings.clone(),
            info,
            gateway: gateway_known,
            agents,
            host_names: args.host_name.clone(),
            cors_origins: args.access.cors_origin.clone(),
            access,
            tls,
            limits: Limits::default(),
        })?;
        first_read(&store, &index).await?;
        if parts.sole_heir {
            podium_store::election::end_sessions_of(&store, &parts.name).await?;
        }
        let controllers = Controllers::start(podium_controllers::Config {
            store,
            index,
            which: args.controllers.0.clone(),
            settings,
            identity,
            lease_ttl: args.lease_ttl(),
            gateway: Some((gateway, gateway_state)),
        });
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

/// Where others find the API: the address that it listens on; of all addresses, the machine's name.
fn advertised(listens: SocketAddr) -> String {
    match listens.ip().is_unspecified() {
        true => format!("{}:{}", rustix::system::uname().nodename().to_string_lossy(), listens.port()),
        false => listens.to_string(),
    }
}

/// Waits until the index was read, however long the store is away; fails if the store says that it never will be.
async fn first_read(store: &Store, index: &Index) -> anyhow::Result<()> {
    let refused = async {
        let mut backoff = podium_retry::Backoff::reconnect();
        loop {
            match store.get(&Key::Framework).await {
                Ok(_) => std::future::pending().await,
                // The index' feed tells of it.
                Err(StoreError::Unavailable { .. }) => tokio::time::sleep(backoff.next_delay()).await,
                Err(error) => return error,
            }
        }
    };
    tokio::select! {
        () = index.ready() => Ok(()),
        error = refused => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_on_every_address_is_found_by_the_name_of_the_machine() {
        assert_eq!(advertised("127.0.0.1:8080".parse().unwrap()), "127.0.0.1:8080");
        assert_eq!(advertised("[::1]:80".parse().unwrap()), "[::1]:80");
        let anywhere = advertised("0.0.0.0:80".parse().unwrap());
        assert!(anywhere.ends_with(":80") && !anywhere.starts_with("0.0.0.0"), "{anywhere}");
    }
}

//! `podium dev`: everything on one machine in one process. Store, engine, controllers and API reach each other over
//! their network protocols alone, so that a part can be replaced by the real one at any time.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use podium_controllers::gateway;
use podium_engine::agent::{DEFAULT_RESOURCES, parse_attributes, parse_resources};
use podium_engine::simulated::SimulatedAgents;
use podium_engine::{Agents, Engine, Pace, RealAgent, Settings};
use podium_store::StoreConfig;
use tokio::net::TcpListener;

use super::folder::DataFolder;
use super::mesos::{default_user, first_framework};
use super::replica::{Parts, Replica};
use super::{ServeArgs, StopSignals, bind, say};

/// Flags of `podium dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where everything is kept; created where it is missing.
    #[arg(long, env = "PODIUM_DATA_DIR", default_value = "./podium-data", value_name = "FOLDER")]
    pub data_dir: PathBuf,

    /// Where the embedded store listens: etcdctl works on it. Port 0 means any free port.
    #[arg(long, env = "PODIUM_ETCD_LISTEN", default_value = "127.0.0.1:2379", value_name = "HOST:PORT", value_parser = super::parse_address)]
    pub etcd_listen: SocketAddr,

    /// Where the embedded Mesos listens. Port 0 means any free port.
    #[arg(long, env = "PODIUM_MESOS_LISTEN", default_value = "127.0.0.1:5050", value_name = "HOST:PORT", value_parser = super::parse_address)]
    pub mesos_listen: SocketAddr,

    /// Between two rounds of offers, as in a real Mesos master, whose default is 1s. With 0 offers are made at once, also
    /// of what is released.
    #[arg(long, env = "PODIUM_MESOS_ALLOCATION_INTERVAL", default_value = "0", value_name = "TIME", value_parser = crate::cli::parse_duration)]
    pub mesos_allocation_interval: Duration,

    /// Simulated agents: nothing is run, timers take the place of processes. They keep nothing over a restart: what ran is launched
    /// again, and what was reserved for a pod with persistent volumes is gone (DELETE its instances with `?wipe=true`).
    #[arg(long, env = "PODIUM_SIMULATE")]
    pub simulate: bool,

    /// How many simulated agents.
    #[arg(long, env = "PODIUM_AGENTS", default_value_t = 1, value_name = "N", requires = "simulate", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub agents: u32,

    /// What the agent offers. Nothing enforces it: by default it is far more than the machine has, so that small pods always fit.
    /// Simulated agents offer 16 cores and 64 GiB each. Mesos' JSON of resources may name more disks than the agent's own.
    #[arg(long, env = "PODIUM_AGENT_RESOURCES", default_value = DEFAULT_RESOURCES, value_name = "RESOURCES", conflicts_with = "simulate")]
    pub agent_resources: String,

    /// The agent's attributes, for constraints: `rack:a;zone:b`.
    #[arg(long, env = "PODIUM_AGENT_ATTRIBUTES", default_value = "", value_name = "ATTRIBUTES")]
    pub agent_attributes: String,

    /// The network of pods that ask for a container network without naming one.
    #[arg(long, env = "PODIUM_DEFAULT_NETWORK_NAME", default_value = "default", value_name = "NAME")]
    pub default_network_name: String,

    /// The framework's id to begin with, when the store knows none: one that a lost store has forgotten, or `new` for a new one in any case.
    #[arg(long, env = "PODIUM_FRAMEWORK_ID", value_name = "ID|new", value_parser = first_framework)]
    pub framework_id: Option<gateway::FirstFramework>,

    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Runs until SIGINT or SIGTERM, and then stops everything that it started.
pub async fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    let stop = StopSignals::catch()?.first();
    for (flag, address) in [("--etcd-listen", args.etcd_listen), ("--mesos-listen", args.mesos_listen)] {
        if !address.ip().is_loopback() && !args.serve.access.insecure_allow_anyone {
            anyhow::bail!(
                "{flag} {address} can be reached from other machines, and whoever reaches it can run commands on this one, unasked: listen on \
                 127.0.0.1, or say --insecure-allow-anyone"
            );
        }
    }
    let folder = DataFolder::open(&args.data_dir)?;
    folder.remove(ENDPOINTS);
    let api = bind("--listen", args.serve.listen).await?;
    let etcd = bind("--etcd-listen", args.etcd_listen).await?;
    let mesos = bind("--mesos-listen", args.mesos_listen).await?;

    let store = podium_etcd::Server::start(podium_etcd::Config::new(etcd, folder.join("etcd"))).await?;
    let engine = start_engine(&args, &folder, mesos).await?;
    let parts = Parts {
        listener: api,
        store: StoreConfig { prefix: args.serve.prefix.clone(), ..StoreConfig::new([format!("http://{}", store.address())]) },
        gateway: gateway::Settings {
            masters: gateway::Masters::List(vec![engine.address().to_string()]),
            user: default_user(),
            first_framework: args.framework_id.clone().unwrap_or_default(),
            ..gateway::Settings::default()
        },
        agent_credentials: None,
        name: name(&folder)?,
        // The folder is held: whoever had this name before is dead.
        sole_heir: true,
        default_network_name: Some(args.default_network_name.clone()),
    };
    let replica = Replica::start(&args.serve, parts).await?;
    announce(&folder, &replica, &store, &engine)?;

    tokio::select! {
        signal = stop => tracing::info!(signal, "stopping everything"),
        () = store.failed() => anyhow::bail!("the store in {} stopped: its disk failed; what runs is left as it is, and found again by the next start", folder.join("etcd").display()),
    }
    // The controllers first: nobody shall launch again what is being stopped.
    replica.shutdown().await;
    engine.shutdown().await;
    store.shutdown().await;
    folder.remove(ENDPOINTS);
    Ok(ExitCode::SUCCESS)
}

/// Where the running process listens, for scripts.
const ENDPOINTS: &str = "endpoints.json";

/// Where the agent of this folder listened last; the engine writes it.
const AGENT_ADDRESS: &str = "mesos/agent/address";

async fn start_engine(args: &DevArgs, folder: &DataFolder, listener: TcpListener) -> anyhow::Result<Engine> {
    let resources = parse_resources(&args.agent_resources).context("--agent-resources")?;
    let attributes = parse_attributes(&args.agent_attributes).context("--agent-attributes")?;
    let agents = if args.simulate {
        Agents::Simulated(SimulatedAgents { count: args.agents as usize, attributes, ..SimulatedAgents::default() })
    } else {
        // Executors and the files' readers are on this machine, wherever the master listens.
        let loopback = agent_listener(folder).await.context("a port for the agent")?;
        let program = std::env::current_exe().context("the path of this program")?;
        let executor_command = vec![program.into_os_string(), OsString::from("executor")];
        Agents::Real(RealAgent {
            listener: loopback,
            resources,
            attributes,
            hostname: "localhost".to_owned(),
            executor_command,
            retention: podium_engine::agent::Retention::default(),
        })
    };
    let data_dir = folder.join(if args.simulate { "mesos-simulated" } else { "mesos" });
    let config = podium_engine::Config { listener, data_dir, agents, settings: settings(args) };
    Ok(Engine::start(config).await?)
}

/// The last port if it is free, so that what was noted of the agent's address stays true over a restart.
async fn agent_listener(folder: &DataFolder) -> std::io::Result<TcpListener> {
    let last = folder.read(AGENT_ADDRESS).and_then(|address| address.trim().parse::<SocketAddr>().ok());
    if let Some(last) = last.filter(|last| last.ip().is_loopback())
        && let Ok(listener) = TcpListener::bind(last).await
    {
        return Ok(listener);
    }
    TcpListener::bind(("127.0.0.1", 0)).await
}

fn settings(args: &DevArgs) -> Settings {
    let interval = args.mesos_allocation_interval;
    let pace = if interval.is_zero() { Pace::default() } else { Pace::every(interval) };
    Settings { pace, ..Settings::default() }
}

/// Who this folder's process is in elections: one at a time, the same after a restart.
fn name(folder: &DataFolder) -> anyhow::Result<String> {
    if let Some(known) = folder.read("identity").map(|known| known.trim().to_owned()).filter(|known| !known.is_empty()) {
        return Ok(known);
    }
    let fresh = format!("dev:{}", uuid::Uuid::new_v4().simple());
    folder.write("identity", fresh.as_bytes())?;
    Ok(fresh)
}

/// Writes where things listen, then prints the one line that says so.
fn announce(folder: &DataFolder, replica: &Replica, store: &podium_etcd::Server, engine: &Engine) -> anyhow::Result<()> {
    let (api, etcd, mesos) = (replica.url(), store.address().to_string(), engine.address().to_string());
    let endpoints = serde_json::json!({"api": api, "etcd": etcd, "mesos": mesos, "pid": std::process::id()});
    folder.write(ENDPOINTS, endpoints.to_string().as_bytes())?;
    say(&format!("podium is ready: {api} (etcd {etcd}, mesos {mesos})  next: curl {api}/v2/pods/::status"));
    Ok(())
}

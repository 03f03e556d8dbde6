//! `podium server`: a replica of the API and the controllers on a real etcd and a real Mesos.

use std::process::ExitCode;

use clap::Args;

use super::mesos::MesosArgs;
use super::replica::{Parts, Replica};
use super::{ServeArgs, StopSignals, bind, say};

/// Flags of `podium server`.
#[derive(Debug, Args)]
pub struct ServerArgs {
    #[command(flatten)]
    pub etcd: super::etcd::EtcdArgs,

    /// The network of pods that ask for a container network without naming one; without this flag such pods are refused.
    #[arg(long, env = "PODIUM_DEFAULT_NETWORK_NAME", value_name = "NAME")]
    pub default_network_name: Option<String>,

    #[command(flatten)]
    pub mesos: MesosArgs,

    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Serves until SIGINT or SIGTERM.
pub async fn run(args: ServerArgs) -> anyhow::Result<ExitCode> {
    let gateway = args.mesos.settings(std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()))?;
    let agent_credentials = args.mesos.agent_credentials()?;
    let mut stop = StopSignals::catch()?.first();
    let listener = bind("--listen", args.serve.listen).await?;
    let parts = Parts {
        listener,
        store: args.etcd.config(&args.serve.prefix)?,
        gateway,
        agent_credentials,
        name: format!("{}/{}", std::process::id(), uuid::Uuid::new_v4().simple()),
        sole_heir: false,
        default_network_name: args.default_network_name,
    };
    let starting = Replica::start(&args.serve, parts);
    let replica = tokio::select! {
        replica = starting => replica?,
        _ = &mut stop => return Ok(ExitCode::SUCCESS),
    };
    say(&format!("podium server is ready: {}  next: podium get pods --server {0}", replica.url()));
    let signal = stop.await;
    tracing::info!(signal, "stopping");
    replica.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

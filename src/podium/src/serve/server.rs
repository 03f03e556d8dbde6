//! `podium server`: a replica of the API and the controllers on a real etcd and a real Mesos.

use std::process::ExitCode;

use clap::Args;

use super::replica::{Parts, Replica};
use super::{ServeArgs, StopSignals, bind};

/// Flags of `podium server`.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// etcd's endpoints.
    #[arg(long, env = "PODIUM_ETCD", required = true, value_delimiter = ',', value_name = "URL[,URL…]")]
    pub etcd: Vec<String>,

    /// The Mesos masters; any of them leads to the leading one.
    #[arg(long, env = "PODIUM_MESOS", required = true, value_delimiter = ',', value_name = "URL[,URL…]")]
    pub mesos: Vec<String>,

    /// The network of pods that ask for a container network without naming one; without this flag such pods are refused.
    #[arg(long, env = "PODIUM_DEFAULT_NETWORK_NAME", value_name = "NAME")]
    pub default_network_name: Option<String>,

    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Serves until SIGINT or SIGTERM.
pub async fn run(args: ServerArgs) -> anyhow::Result<ExitCode> {
    let stop = StopSignals::catch()?.first();
    tokio::pin!(stop);
    let listener = bind("--listen", args.serve.listen).await?;
    let parts = Parts {
        listener,
        etcd: args.etcd.iter().map(|url| with_scheme(url)).collect(),
        mesos: args.mesos,
        identity: format!("{}:{}:{}", hostname(), std::process::id(), uuid::Uuid::new_v4().simple()),
        sole_heir: false,
        default_network_name: args.default_network_name,
    };
    let starting = Replica::start(&args.serve, parts);
    let replica = tokio::select! {
        replica = starting => replica?,
        _ = &mut stop => return Ok(ExitCode::SUCCESS),
    };
    println!("podium server is ready: {}  next: podium get pods --server {0}", replica.url());
    let signal = stop.await;
    tracing::info!(signal, "stopping");
    replica.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

/// The machine's name, for people who look at the elections.
fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

//! Podium on a real Apache Mesos: master, agents, etcd and server are real, the executor is `podium executor`.

use podium_e2e::binary;
use podium_e2e::mesos::{Agent, Helpers};
use podium_e2e::mesos_server::MesosServer;

use crate::{marker, pod};

/// A pace that does not keep tests waiting: the allocator's own is a second.
const QUICK: &[(&str, &str)] = &[("allocation_interval", "100ms")];

#[test]
fn a_pod_runs_on_a_real_agent() {
    let podium = binary::podium(false);
    let cluster = MesosServer::start(podium, &[Agent::new(1), Agent::new(2)], Helpers::Podium(podium), QUICK, &[]);
    let marker = marker();
    cluster.api().create(&pod("/first", 2, &marker, &["exec sleep 1001"]));
    cluster.api().stable("/first", 2);
    assert_eq!(podium_e2e::process::marked_running(&marker, "sleep 1001").len(), 2);
}

//! Networks and endpoints (reference section 1.6).

use super::*;

/// Networks that a message names.
const MAX_NAMES: usize = 100;

pub(super) fn judge(pod: &PodDefinition, f: &mut Findings) {
    unique_endpoints(pod, f);
    if f.broken("/networks") {
        return;
    }
    modes(pod, f);
    let joined = Joined::by(pod);
    for (index, container) in pod.containers.iter().enumerate() {
        for (endpoint_index, endpoint) in container.endpoints.iter().enumerate() {
            judge_endpoint(endpoint, &joined, &format!("/containers({index})/endpoints({endpoint_index})"), f);
        }
    }
}

/// What endpoints have to know of the networks, counted once.
struct Joined<'a> {
    names: HashSet<&'a str>,
    /// The first of the names, for a message.
    told: Vec<&'a str>,
    host: bool,
    containers: usize,
}

impl<'a> Joined<'a> {
    fn by(pod: &'a PodDefinition) -> Self {
        let names = || pod.networks.iter().filter_map(|network| network.name.as_deref());
        Self {
            names: names().collect(),
            told: names().take(MAX_NAMES).collect(),
            // No network at all is the host's: a port behind it could not be reached either.
            host: pod.networks.is_empty() || of_mode(pod, NetworkMode::Host).next().is_some(),
            containers: of_mode(pod, NetworkMode::Container).count(),
        }
    }
}

fn of_mode(pod: &PodDefinition, mode: NetworkMode) -> impl Iterator<Item = &Network> {
    pod.networks.iter().filter(move |network| network.mode == mode)
}

fn modes(pod: &PodDefinition, f: &mut Findings) {
    let [hosts, bridges, containers] =
        [NetworkMode::Host, NetworkMode::Bridge, NetworkMode::Container].map(|mode| of_mode(pod, mode).count());
    if of_mode(pod, NetworkMode::Host).any(|network| network.name.is_some() || !network.labels.is_empty()) {
        f.rule("/networks", "Host networks may not have names or labels");
    }
    if of_mode(pod, NetworkMode::Bridge).any(|network| network.name.is_some()) {
        f.rule("/networks", "Bridge networks may not have names");
    }
    if repeated(of_mode(pod, NetworkMode::Container).map(|network| &network.name)) {
        f.rule("/networks", "Duplicate networks are not allowed");
    }
    let kinds = usize::from(hosts > 0) + usize::from(bridges > 0) + usize::from(containers > 0);
    if kinds > 1 || hosts > 1 || bridges > 1 {
        f.rule("/networks", "May specify a single host network, single bridge network, or else 1-to-n container networks");
    }
    if of_mode(pod, NetworkMode::Container).any(|network| network.name.is_none()) {
        f.rule("/networks", "Network name must be specified when container network is selected.");
    }
}

fn judge_endpoint(endpoint: &Endpoint, joined: &Joined<'_>, at: &str, f: &mut Findings) {
    let &Joined { host, containers, .. } = joined;
    let port_at = format!("{at}/containerPort");
    if host && endpoint.container_port.is_some() {
        f.rule(port_at, "is not allowed when using host-mode networking");
    } else if containers > 0 && endpoint.container_port.is_none() && !f.broken(&port_at) {
        f.rule(port_at, "is required when using container-mode networking");
    }
    let protocol_at = format!("{at}/protocol");
    if repeated(&endpoint.protocol) && !f.broken(&protocol_at) {
        f.rule(protocol_at, "Duplicate protocols within the same endpoint are not allowed");
    }
    for (index, name) in endpoint.network_names.iter().enumerate() {
        let path = format!("{at}/networkNames({index})");
        if !joined.names.contains(name.as_str()) && !f.broken(&path) {
            f.rule(path, cut(format!("is not one of ({})", joined.told.join(","))));
        }
    }
    if containers > 1 && endpoint.host_port.is_some() && endpoint.network_names.len() != 1 {
        let message = "networkNames must be a single item list when hostPort is specified and more than 1 container network is defined";
        f.rule(at, message);
    }
}

fn unique_endpoints(pod: &PodDefinition, f: &mut Findings) {
    let endpoints = || pod.containers.iter().flat_map(|container| &container.endpoints);
    if repeated(endpoints().map(|endpoint| &endpoint.name).filter(|name| !name.is_empty())) {
        // Marathon's spelling, which clients may look for.
        f.rule("/", "endpoint names nust be unique across all containers");
    }
    if repeated(endpoints().filter_map(|endpoint| endpoint.container_port)) {
        f.rule("/", "container ports must be unique across all containers");
    }
    if repeated(endpoints().filter_map(|endpoint| endpoint.host_port).filter(|port| *port != 0)) {
        f.rule("/", "host ports must be unique across all containers");
    }
}

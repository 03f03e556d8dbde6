//! Networks, port mappings, discovery and health checks (reference sections 4.4 and 4.5).

use podium_proto::mesos::v1;
use podium_types::definition::{Container, Endpoint, HttpScheme, Network, NetworkMode, Probe};

use super::container::{is_on_host_network, of_command};
use super::{BuildError, Launch};

/// The networks that the executor joins, and with it all containers; none on the host's network.
pub(super) fn infos(launch: &Launch<'_>) -> Result<Vec<v1::NetworkInfo>, BuildError> {
    let joined = launch.definition.networks.iter().enumerate().filter(|(_, network)| network.mode != NetworkMode::Host);
    joined
        .map(|(index, network)| {
            Ok(v1::NetworkInfo {
                name: Some(name(launch, index, network)?),
                labels: to_labels(network.labels.iter()),
                port_mappings: port_mappings(launch, index, network)?,
                ..v1::NetworkInfo::default()
            })
        })
        .collect()
}

fn name(launch: &Launch<'_>, index: usize, network: &Network) -> Result<String, BuildError> {
    if network.mode == NetworkMode::Bridge {
        return Ok(launch.settings.bridge_name.clone());
    }
    let name = network.name.as_ref().or(launch.settings.default_network_name.as_ref());
    name.cloned().ok_or(BuildError::NetworkName { index })
}

fn to_labels<'a>(labels: impl Iterator<Item = (&'a String, &'a String)>) -> Option<v1::Labels> {
    let labels: Vec<_> = labels.map(|(key, value)| v1::Label { key: key.clone(), value: Some(value.clone()) }).collect();
    (!labels.is_empty()).then_some(v1::Labels { labels })
}

/// True if the endpoint is reached by this network; naming none means all.
fn uses(endpoint: &Endpoint, network: &str) -> bool {
    endpoint.network_names.is_empty() || endpoint.network_names.iter().any(|name| name == network)
}

/// Every host port of the pod, once for each protocol of its endpoint.
fn port_mappings(launch: &Launch<'_>, index: usize, network: &Network) -> Result<Vec<v1::network_info::PortMapping>, BuildError> {
    let network_name = name(launch, index, network)?;
    let mut mappings = Vec::new();
    for (container, host_ports) in launch.definition.containers.iter().zip(&launch.placement.host_ports) {
        for (endpoint, host_port) in container.endpoints.iter().zip(host_ports) {
            let Some(host_port) = host_port else { continue };
            if network.mode == NetworkMode::Container && !uses(endpoint, &network_name) {
                continue;
            }
            let container_port = endpoint.container_port.filter(|port| *port != 0).unwrap_or(*host_port);
            let mapping = |protocol: Option<String>| v1::network_info::PortMapping {
                host_port: u32::from(*host_port),
                container_port: u32::from(container_port),
                protocol,
            };
            if endpoint.protocol.is_empty() {
                mappings.push(mapping(None));
            }
            mappings.extend(endpoint.protocol.iter().map(|protocol| mapping(Some(protocol.clone()))));
        }
    }
    Ok(mappings)
}

/// What a service registry is told of one task: the ports of its own endpoints that name a protocol.
pub(super) fn discovery(launch: &Launch<'_>, index: usize, container: &Container) -> Result<v1::DiscoveryInfo, BuildError> {
    let mut ports = Vec::new();
    let host_ports = launch.placement.host_ports.get(index).map(Vec::as_slice).unwrap_or_default();
    for (endpoint, host_port) in container.endpoints.iter().zip(host_ports) {
        for (number, scope) in places(launch, endpoint, *host_port)? {
            ports.extend(endpoint.protocol.iter().map(|protocol| port(endpoint, number, protocol, &scope)));
        }
    }
    let reversed: Vec<&str> = launch.definition.id.as_str().trim_start_matches('/').rsplit('/').collect();
    Ok(v1::DiscoveryInfo {
        visibility: v1::discovery_info::Visibility::Framework.into(),
        name: Some(reversed.join(".")),
        ports: Some(v1::Ports { ports }),
        ..v1::DiscoveryInfo::default()
    })
}

/// Where an endpoint can be reached: a port number, with the labels that say in which network.
type Place = (u16, Vec<(String, String)>);

/// All places at which an endpoint can be reached.
fn places(launch: &Launch<'_>, endpoint: &Endpoint, host_port: Option<u16>) -> Result<Vec<Place>, BuildError> {
    let scope = |kind: &str| ("network-scope".to_owned(), kind.to_owned());
    if is_on_host_network(launch.definition) {
        return Ok(host_port.map(|port| (port, Vec::new())).into_iter().collect());
    }
    if let Some(port) = host_port {
        return Ok(vec![(port, vec![scope("host")])]);
    }
    let Some(port) = endpoint.container_port else { return Ok(Vec::new()) };
    let mut places = Vec::new();
    for (index, network) in launch.definition.networks.iter().enumerate() {
        let network_name = name(launch, index, network)?;
        if network.mode == NetworkMode::Bridge || uses(endpoint, &network_name) {
            places.push((port, vec![scope("container"), ("network-name".to_owned(), network_name)]));
        }
    }
    Ok(places)
}

fn port(endpoint: &Endpoint, number: u16, protocol: &str, scope: &[(String, String)]) -> v1::Port {
    let scope = scope.iter().map(|(key, value)| (key, value));
    v1::Port {
        number: u32::from(number),
        name: Some(endpoint.name.clone()),
        protocol: Some(protocol.to_owned()),
        labels: to_labels(endpoint.labels.iter().chain(scope)),
        ..v1::Port::default()
    }
}

/// The check that Mesos performs.
pub(super) fn health_check(launch: &Launch<'_>, index: usize, container: &Container) -> Result<Option<v1::HealthCheck>, BuildError> {
    let Some(check) = &container.health_check else { return Ok(None) };
    let ipv4 = Some(v1::network_info::Protocol::IPv4.into());
    let mut built = v1::HealthCheck {
        delay_seconds: Some(check.delay_seconds.into()),
        interval_seconds: Some(check.interval_seconds.into()),
        timeout_seconds: Some(check.timeout_seconds.into()),
        consecutive_failures: Some(check.max_consecutive_failures),
        grace_period_seconds: Some(check.grace_period_seconds.into()),
        ..v1::HealthCheck::default()
    };
    let kind = match &check.probe {
        Probe::Http { endpoint, path, scheme } => {
            let scheme = match scheme {
                HttpScheme::Http => "http",
                HttpScheme::Https => "https",
            };
            built.http = Some(v1::health_check::HttpCheckInfo {
                port: checked_port(launch, index, container, endpoint)?,
                path: path.clone(),
                scheme: Some(scheme.to_owned()),
                protocol: ipv4,
                ..v1::health_check::HttpCheckInfo::default()
            });
            v1::health_check::Type::Http
        }
        Probe::Tcp { endpoint } => {
            let port = checked_port(launch, index, container, endpoint)?;
            built.tcp = Some(v1::health_check::TcpCheckInfo { port, protocol: ipv4 });
            v1::health_check::Type::Tcp
        }
        Probe::Exec { command } => {
            built.command = Some(of_command(command));
            v1::health_check::Type::Command
        }
    };
    built.r#type = Some(kind.into());
    Ok(Some(built))
}

/// The port at which the container listens inside its own network. Marathon silently sends no check where
/// there is none and then waits for ever; here that is an error.
fn checked_port(launch: &Launch<'_>, index: usize, container: &Container, name: &str) -> Result<u32, BuildError> {
    let on_host = is_on_host_network(launch.definition);
    let missing = |what| BuildError::Port { container: container.name.clone(), endpoint: name.to_owned(), what };
    let position = container.endpoints.iter().position(|endpoint| endpoint.name == name).ok_or_else(|| missing("declaration"))?;
    let host_port = launch.placement.host_ports.get(index).and_then(|ports| ports.get(position)).copied().flatten();
    let container_port = container.endpoints.get(position).and_then(|endpoint| endpoint.container_port).filter(|port| *port != 0);
    let port = if on_host { host_port } else { container_port.or(host_port) };
    port.map(u32::from).ok_or_else(|| missing(if on_host { "hostPort to check" } else { "containerPort to check" }))
}

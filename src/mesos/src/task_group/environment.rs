//! The environment of a task (reference section 4.3): later groups win over earlier ones.

use std::collections::BTreeMap;

use podium_proto::mesos::v1;
use podium_types::definition::{Container, EnvironmentValue, PodDefinition};

use super::{BuildError, Launch, container};

/// Labels with a longer key, or with a value that is not shorter than the next, are left out.
const MAX_LABEL_KEY: usize = 493;
const MAX_LABEL_VALUE: usize = 512;

/// The variables of one container, secrets among them.
pub(super) fn environment(launch: &Launch<'_>, container: &Container) -> Result<v1::Environment, BuildError> {
    let mut variables: BTreeMap<String, v1::environment::Variable> = BTreeMap::new();
    for (name, value) in launch.definition.environment.iter().chain(&container.environment) {
        variables.insert(name.clone(), given(launch, name, value)?);
    }
    let computed = std::iter::once(("HOST".to_owned(), launch.placement.hostname.clone()))
        .chain(context(launch, container))
        .chain(labels(launch.definition, container))
        .chain(endpoints(launch));
    for (name, value) in computed {
        variables.insert(name.clone(), text(&name, &value));
    }
    Ok(v1::Environment { variables: variables.into_values().collect() })
}

fn given(launch: &Launch<'_>, name: &str, value: &EnvironmentValue) -> Result<v1::environment::Variable, BuildError> {
    match value {
        EnvironmentValue::Text(value) => Ok(text(name, value)),
        EnvironmentValue::Secret(secret) => Ok(v1::environment::Variable {
            name: name.to_owned(),
            r#type: Some(v1::environment::variable::Type::Secret.into()),
            secret: Some(container::secret(launch, secret)?),
            ..v1::environment::Variable::default()
        }),
    }
}

fn text(name: &str, value: &str) -> v1::environment::Variable {
    v1::environment::Variable { name: name.to_owned(), value: Some(value.to_owned()), ..v1::environment::Variable::default() }
}

/// Who the task is, and what it gets.
fn context(launch: &Launch<'_>, container: &Container) -> impl Iterator<Item = (String, String)> {
    let resources = &container.resources;
    // Amounts are printed as Marathon prints doubles: `32.0`.
    [
        ("MESOS_TASK_ID", launch.instance.task_id(&container.name, launch.incarnation).to_string()),
        ("MESOS_EXECUTOR_ID", launch.instance.executor_id(launch.incarnation)),
        ("MARATHON_APP_ID", launch.definition.id.to_string()),
        ("MARATHON_APP_VERSION", launch.identity.config.to_string()),
        ("MARATHON_CONTAINER_ID", container.name.clone()),
        ("MARATHON_APP_ENFORCE_GROUP_ROLE", "FALSE".to_owned()),
        ("MARATHON_CONTAINER_RESOURCE_CPUS", format!("{:?}", resources.cpus)),
        ("MARATHON_CONTAINER_RESOURCE_MEM", format!("{:?}", resources.mem)),
        ("MARATHON_CONTAINER_RESOURCE_DISK", format!("{:?}", resources.disk)),
        ("MARATHON_CONTAINER_RESOURCE_GPUS", resources.gpus.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
}

fn labels(definition: &PodDefinition, container: &Container) -> Vec<(String, String)> {
    let mut merged: BTreeMap<&String, &String> = definition.labels.iter().collect();
    merged.extend(&container.labels);
    merged.retain(|key, value| key.len() < MAX_LABEL_KEY && value.len() < MAX_LABEL_VALUE);
    if merged.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = merged.keys().map(|key| collapsed(key)).collect();
    let all = ("MARATHON_APP_LABELS".to_owned(), names.join(" "));
    let each = names.iter().zip(merged.values()).map(|(name, value)| (format!("MARATHON_APP_LABEL_{name}"), (*value).clone()));
    std::iter::once(all).chain(each).collect()
}

/// Upper case, with each run of other characters as one `_`.
fn collapsed(name: &str) -> String {
    let mut cleaned = String::with_capacity(name.len());
    let mut foreign = false;
    for character in name.chars() {
        let plain = character.is_ascii_alphanumeric() || character == '_';
        if plain {
            cleaned.push(character.to_ascii_uppercase());
        } else if !foreign {
            cleaned.push('_');
        }
        foreign = !plain;
    }
    cleaned
}

/// Upper case, with each other character as `_`.
fn replaced(name: &str) -> String {
    name.chars().map(|character| if character.is_ascii_alphanumeric() { character.to_ascii_uppercase() } else { '_' }).collect()
}

/// The ports of every endpoint of the whole pod: a container finds its siblings by them.
fn endpoints(launch: &Launch<'_>) -> Vec<(String, String)> {
    let prefix = launch.settings.env_vars_prefix.as_deref().unwrap_or_default().to_ascii_uppercase();
    let on_host = container::is_on_host_network(launch.definition);
    let mut variables = Vec::new();
    for (container, host_ports) in launch.definition.containers.iter().zip(&launch.placement.host_ports) {
        for (endpoint, host_port) in container.endpoints.iter().zip(host_ports) {
            let name = replaced(&endpoint.name);
            let reached = if on_host { *host_port } else { endpoint.container_port };
            let ports = [("ENDPOINT", reached), ("EP_HOST", *host_port), ("EP_CONTAINER", endpoint.container_port)];
            let known = ports.into_iter().filter_map(|(kind, port)| Some((kind, port?)));
            variables.extend(known.map(|(kind, port)| (format!("{prefix}{kind}_{name}"), port.to_string())));
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_as_marathon_does() {
        assert_eq!(collapsed("a.b--c_d"), "A_B_C_D");
        assert_eq!(replaced("http-api.v1"), "HTTP_API_V1");
    }
}

//! `/v2/leader`: who talks to Mesos, which is what Marathon's clients mean by the leader. Every controller has an election of
//! its own; this is the gateway's.

use http::StatusCode;
use podium_controllers::gateway;
use podium_store::Key;
use podium_store::index::IndexState;
use podium_store::writer::{Compare, Group, Op};
use serde_json::json;

use crate::Api;
use crate::answer::{Answer, Problem, REVISION, header, json_value};
use crate::commit;
use crate::request::Head;

/// GET; for who may see everything.
pub fn get(api: &Api) -> Result<Answer, Problem> {
    let leader = leading(api).ok_or_else(no_leader)?;
    Ok(json_value(StatusCode::OK, &json!({ "leader": address(&leader) })))
}

/// The leader's name, as it stands in its candidacy.
pub fn leading(api: &Api) -> Option<String> {
    api.index.read(|state| state.leader(gateway::NAME).map(|leader| String::from_utf8_lossy(&leader.identity).into_owned()))
}

/// Where who is called so in elections answers: `host:port`.
pub fn address(identity: &str) -> &str {
    identity.split('/').next().unwrap_or(identity)
}

/// The machine of who is called so in elections.
pub fn host(identity: &str) -> &str {
    let address = address(identity);
    address.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(address, |(host, _)| host)
}

/// DELETE: takes the leader's candidacy away. It notices at once, and stands again behind the others.
pub async fn abdicate(api: &Api, head: &Head) -> Result<Answer, Problem> {
    if let Some(name) = ["backup", "restore"].into_iter().find(|name| !head.values(name).is_empty()) {
        let message = format!("`{name}` is not known here: the state is etcd's, and etcd's own tools save and restore it");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, message));
    }
    let plan = |state: &IndexState, _| {
        let leader = state.leader(gateway::NAME).ok_or_else(no_leader)?;
        let key = Key::Election(gateway::NAME.to_owned(), leader.lease);
        Ok((Group::global().when(Compare::SameLife(key.clone(), leader.create_revision)).then(Op::Delete(key)), ()))
    };
    let what = "the leadership";
    let (revision, ()) = commit::write(api, head, &what, plan).await?.confirmed(&what)?;
    let mut answer = json_value(StatusCode::OK, &json!({ "message": "Leadership abdicated", "details": [] }));
    header(&mut answer, REVISION, revision);
    Ok(answer)
}

fn no_leader() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "There is no leader")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_leader_stands_before_the_rest_of_its_name() {
        for (identity, at, on) in [
            ("10.0.0.7:8080/411/3f2c", "10.0.0.7:8080", "10.0.0.7"),
            ("[::1]:8080/dev:3f2c", "[::1]:8080", "[::1]"),
            ("node-1:80/x", "node-1:80", "node-1"),
            ("node-1", "node-1", "node-1"),
        ] {
            assert_eq!((address(identity), host(identity)), (at, on));
        }
    }
}

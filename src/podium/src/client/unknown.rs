//! Instances that run and of which the store has no record: showing them, taking them on, ending them.

use std::time::Duration;

use podium_types::id::InstanceId;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::connection::Connection;
use super::failure::Failure;
use super::render::{Cell, table};
use super::terminal::{Paint, printable};
use crate::cli::{AdoptArgs, KillArgs, OutputFormat, ServerArgs};

/// Where they are listed.
pub const LIST: &str = "/v2/podium/unknown";

/// Where orders are taken.
const ORDERS: &str = "/v2/podium/orders";

/// Between two looks at an order.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The listing, as far as it is shown.
#[derive(Debug, Deserialize)]
pub struct Listing {
    quarantine: Option<Quarantine>,
    instances: Vec<Instance>,
    more: u64,
    orders: Vec<Order>,
}

#[derive(Debug, Deserialize)]
struct Quarantine {
    reason: String,
    since: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    id: String,
    why: String,
    agent_id: String,
    config: Option<String>,
    task_ids: Vec<String>,
    adoptable: bool,
}

#[derive(Debug, Deserialize)]
struct Order {
    id: String,
}

impl Listing {
    /// For people.
    pub fn render(&self, paint: Paint) -> String {
        let mut out = String::new();
        if let Some(quarantine) = &self.quarantine {
            out.push_str(&format!("quarantine since {}: {}\n", printable(&quarantine.since), printable(&quarantine.reason)));
        }
        if self.instances.is_empty() {
            out.push_str("no unknown instances\n");
            return out;
        }
        let row = |one: &Instance| {
            let adoptable = if one.adoptable { "yes" } else { "no: its pod is not in the store" };
            let config = one.config.as_deref().unwrap_or("-");
            vec![
                Cell::from(&one.id),
                Cell::from(&one.why),
                Cell::from(adoptable),
                Cell::from(config),
                Cell::from(&one.agent_id),
                Cell::from(one.task_ids.join(" ")),
            ]
        };
        let rows: Vec<Vec<Cell>> = self.instances.iter().map(row).collect();
        out.push_str(&table(&["INSTANCE", "WHY", "ADOPTABLE", "CONFIG", "AGENT", "TASKS"], &rows, paint));
        if self.more > 0 {
            out.push_str(&format!("and {} more\n", self.more));
        }
        out
    }
}

/// `podium adopt`.
pub async fn adopt(args: AdoptArgs) -> Result<(), Failure> {
    let body = json!({ "kind": "adopt", "ids": args.ids, "all": args.all });
    order(&args.server, body, "taken on", args.timeout, args.output.output).await
}

/// `podium kill`.
pub async fn kill(args: KillArgs) -> Result<(), Failure> {
    let body = json!({ "kind": "kill", "ids": args.ids, "all": args.all_unknown });
    order(&args.server, body, "killed", args.timeout, args.output.output).await
}

/// What became of one id. Of an instance the server knew that it was there; of any other task only the gateway does.
fn outcome(id: &str, done: &str) -> String {
    match id.parse::<InstanceId>() {
        Ok(_) => format!("{} {done}", printable(id)),
        Err(_) => format!("{}: no longer there, if it ever was; the server does not know such ids", printable(id)),
    }
}

/// Gives an order and waits until it is carried out.
async fn order(server: &ServerArgs, body: Value, done: &str, timeout: Duration, output: OutputFormat) -> Result<(), Failure> {
    let mut server = Connection::new(server)?;
    let answer = server.post(ORDERS, &body).await?.body;
    let orders: Vec<&Value> = answer.get("orders").and_then(Value::as_array).into_iter().flatten().collect();
    let ids: Vec<&str> = orders.iter().filter_map(|order| order.get("id")?.as_str()).collect();
    let end = Instant::now() + timeout;
    loop {
        let listing: Listing = server.get_as(LIST).await?;
        if !listing.orders.iter().any(|order| ids.contains(&order.id.as_str())) {
            break;
        }
        if Instant::now() >= end {
            let seconds = timeout.as_secs();
            return Err(Failure::TimedOut(format!(
                "not carried out within {seconds} s; it still stands, and will be when the gateway can"
            )));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    if output == OutputFormat::Json {
        return super::commands::print_json(&answer);
    }
    let named = |order: &&Value| order.get("ids").and_then(Value::as_array).cloned().unwrap_or_default();
    for id in orders.iter().flat_map(named) {
        super::commands::say(&outcome(id.as_str().unwrap_or_default(), done))?;
    }
    let listing: Listing = server.get_as(LIST).await?;
    if let Some(quarantine) = &listing.quarantine {
        super::commands::say(&format!(
            "the quarantine goes on: {}; `podium get unknown` lists what is left",
            printable(&quarantine.reason)
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_of_an_instance_that_the_server_knew_it_is_said_that_it_was_killed() {
        let id = "a.instance-00000000-0000-0000-0000-000000000001";
        assert_eq!(outcome(id, "killed"), format!("{id} killed"));
        assert!(!outcome("typo", "killed").contains("killed"), "{}", outcome("typo", "killed"));
    }
}

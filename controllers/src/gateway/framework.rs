//! Who we are to Mesos: the `framework` record, read or created before the first SUBSCRIBE.
//!
//! We choose the id ourselves and make it durable first, which Mesos allows: so no framework can come into being
//! whose id nobody remembers.

use std::time::Duration;

use podium_proto::records::Framework;
use podium_store::Key;
use podium_store::writer::{Compare, Group, Op, Outcome};
use uuid::Uuid;

use crate::runtime::{Failure, Term};

/// How long the index may take to show what was written.
const PATIENCE: Duration = Duration::from_secs(30);

/// As whom, and for which store, this term acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub framework_id: String,
    pub cluster_id: String,
    /// The lease of this leadership.
    pub lease: i64,
}

/// Reads the record, or creates it.
pub(super) async fn identity(term: &Term) -> Result<Identity, Failure> {
    for _ in 0..5 {
        let (found, unreadable) =
            term.index.read(|state| (state.framework().map(|held| held.value.clone()), state.framework_is_unreadable()));
        if unreadable {
            return Err(Failure("the framework record was written by a newer Podium and can't be read".to_owned()));
        }
        if let Some(framework) = found {
            return Ok(Identity { framework_id: framework.framework_id, cluster_id: framework.cluster_id, lease: term.lease });
        }
        let framework = Framework {
            framework_id: format!("podium-{}", Uuid::new_v4()),
            cluster_id: Uuid::new_v4().to_string(),
            created_ms: term.clock.now().0,
            ..Framework::default()
        };
        let group = Group::global().when(Compare::Absent(Key::Framework)).then(Op::record(Key::Framework, framework));
        let revision = match term.writer.write(group).await {
            Outcome::Committed { revision } | Outcome::Conflict { revision } | Outcome::Unknown { revision } => revision,
            Outcome::NotLeader => return Err(Failure("the leadership was lost before the framework record was written".to_owned())),
            Outcome::Refused(reason) => return Err(Failure(format!("the store refuses the framework record: {reason}"))),
        };
        term.index.wait_for(revision, PATIENCE).await.map_err(|behind| Failure(behind.to_string()))?;
    }
    Err(Failure("the framework record could not be written".to_owned()))
}

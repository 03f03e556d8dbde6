//! What the core asks for: calls to Mesos and writes to the store.

use podium_proto::mesos::v1::OfferId;
use podium_proto::mesos::v1::offer::Operation;
use podium_store::writer::Group;
use podium_types::id::PodId;
use uuid::Uuid;

use super::entry::Ack;

/// A call to the master.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Call {
    Accept {
        offer_ids: Vec<OfferId>,
        operations: Vec<Operation>,
        refuse_seconds: f64,
    },
    Decline {
        offer_ids: Vec<OfferId>,
        refuse_seconds: f64,
    },
    /// Whether agents may be taken down for maintenance.
    AnswerInverse {
        offer_ids: Vec<OfferId>,
        accept: bool,
        refuse_seconds: f64,
    },
    Revive(Vec<String>),
    Suppress(Vec<String>),
    /// All roles, and those of them that are suppressed; the answer is for [`super::core::Core::roles_answered`].
    UpdateRoles {
        roles: Vec<String>,
        suppressed: Vec<String>,
    },
    Kill {
        task_id: String,
        agent_id: Option<String>,
    },
    Shutdown {
        executor_id: String,
        agent_id: String,
    },
    Acknowledge(Ack),
    /// Of no task: of all.
    Reconcile(Vec<(String, Option<String>)>),
}

/// Whose outcome a write's answer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Observed(PodId, Uuid),
    Queue(PodId),
    Unknown(PodId),
    Quarantine,
    Framework,
    Order(Uuid),
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Output {
    Call(Call),
    Write(Token, Group),
    /// Write into our record, as it is then, that an operator vouches for what is reserved up to this revision. The answer is of
    /// [`Token::Framework`].
    Vouch(i64),
    /// Ask the master which of our tasks run; the answer is of this round.
    Survey(u64),
}

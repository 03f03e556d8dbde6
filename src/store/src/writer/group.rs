//! What a controller asks of the store: one group of writes that happens as a whole or not at all.

use bytes::Bytes;
use etcd_client::{Compare as EtcdCompare, CompareOp, GetOptions, PutOptions, TxnOp};
use podium_types::id::PodId;

use crate::codec::{self, Record};
use crate::key::{Key, Keyspace};
use crate::view::Held;

/// Writes of one controller about one pod, and what must hold for them to be right.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The pod to look at again when this conflicts; `None` for the framework record.
    pub pod: Option<PodId>,
    /// All must hold. A decision that rests on another's key compares that key.
    pub compares: Vec<Compare>,
    /// Done in one transaction; no key twice.
    pub ops: Vec<Op>,
}

impl Group {
    /// An empty group about one pod.
    pub fn new(pod: PodId) -> Self {
        Self { pod: Some(pod), compares: Vec::new(), ops: Vec::new() }
    }

    /// An empty group about no pod: the framework record.
    pub fn global() -> Self {
        Self { pod: None, compares: Vec::new(), ops: Vec::new() }
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds a write.
    #[must_use]
    pub fn then(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }
}

/// A condition on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// There is no such key.
    Absent(Key),
    /// There is such a key, whatever it holds.
    Present(Key),
    /// The key was last written at exactly this revision.
    Unchanged(Key, i64),
    /// The key came into being at exactly this revision, however often it was written since.
    SameLife(Key, i64),
}

impl Compare {
    /// That the key is as the index showed it: last written then, or absent.
    pub fn as_seen<T>(key: Key, held: Option<&Held<T>>) -> Self {
        match held {
            Some(held) => Self::Unchanged(key, held.mod_revision),
            None => Self::Absent(key),
        }
    }

    /// The key that it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Absent(key) | Self::Present(key) | Self::Unchanged(key, _) | Self::SameLife(key, _) => key,
        }
    }

    pub(crate) fn to_etcd(&self, keys: &Keyspace) -> EtcdCompare {
        let bytes = keys.encode(self.key());
        match self {
            Self::Absent(_) => EtcdCompare::create_revision(bytes, CompareOp::Equal, 0),
            Self::Present(_) => EtcdCompare::create_revision(bytes, CompareOp::Greater, 0),
            Self::Unchanged(_, revision) => EtcdCompare::mod_revision(bytes, CompareOp::Equal, *revision),
            Self::SameLife(_, revision) => EtcdCompare::create_revision(bytes, CompareOp::Equal, *revision),
        }
    }

    /// Asks what stands there now, without the value: part of the answer to a failed condition.
    pub(crate) fn to_read(&self, keys: &Keyspace) -> TxnOp {
        TxnOp::get(keys.encode(self.key()), Some(GetOptions::new().with_keys_only()))
    }
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The key holds these bytes from now on.
    Put(Key, Bytes),
    /// The same, and the key goes when the lease does.
    PutLeased(Key, Bytes, i64),
    /// The key goes. An absent key is no error.
    Delete(Key),
}

impl Op {
    /// Puts a record, with this build's schema number.
    pub fn record<R: Record>(key: Key, record: R) -> Self {
        Self::Put(key, codec::encode(record))
    }

    /// Puts a record that goes when the lease does.
    pub fn leased_record<R: Record>(key: Key, record: R, lease: i64) -> Self {
        Self::PutLeased(key, codec::encode(record), lease)
    }

    /// The key that it writes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::PutLeased(key, ..) | Self::Delete(key) => key,
        }
    }

    pub(crate) fn to_etcd(&self, keys: &Keyspace) -> TxnOp {
        let bytes = keys.encode(self.key());
        match self {
            Self::Put(_, value) => TxnOp::put(bytes, value.to_vec(), None),
            Self::PutLeased(_, value, lease) => TxnOp::put(bytes, value.to_vec(), Some(PutOptions::new().with_lease(*lease))),
            Self::Delete(_) => TxnOp::delete(bytes, None),
        }
    }
}

/// What became of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done, durably. Wait for the index to reach `revision` to see it; 0: nothing was there to change.
    Committed {
        /// etcd's revision of the transaction.
        revision: i64,
    },
    /// A condition did not hold: nothing was done. Look at the pod again once the index has reached `revision`.
    Conflict {
        /// The newest revision among the keys that were compared; 0: none of them exists.
        revision: i64,
    },
    /// Another leads, or this leadership is over: drop everything that was decided.
    NotLeader,
    /// No answer: it may have happened or not. Look again once the index has reached `revision`, and never just repeat it.
    Unknown {
        /// From a [`crate::writer::Writer`]: whatever has not happened before this revision never will.
        /// From [`crate::Store::commit`]: 0, which says nothing.
        revision: i64,
    },
    /// The store refuses this group as such, and would again: too large, no permission, no space. In words, for the log.
    Refused(String),
}

impl Outcome {
    /// The revision of a committed group.
    pub fn committed(&self) -> Option<i64> {
        match self {
            Self::Committed { revision } => Some(*revision),
            _ => None,
        }
    }
}

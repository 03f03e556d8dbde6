//! One version of one key: what a put or a delete left behind.

use bytes::Bytes;
use etcd_client::proto::{PbEvent, PbKeyValue};
use prost::Message as _;

/// A version of a key, immutable and shared by the index, the log and everyone who reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) key: Bytes,
    /// Empty for a deletion.
    pub(crate) value: Bytes,
    /// The revision of the transaction that wrote it.
    pub(crate) modified: i64,
    /// Its place among the writes of that transaction, from 0.
    pub(crate) sub: i64,
    /// The revision that created the key; 0 for a deletion.
    pub(crate) created: i64,
    /// How many times the key was put since its creation; 0 for a deletion.
    pub(crate) version: i64,
    /// The lease it is attached to; 0 for none.
    pub(crate) lease: i64,
}

/// The wire numbers of etcd's `Event.EventType`.
const PUT: i32 = 0;
const DELETE: i32 = 1;

impl Version {
    pub(crate) fn tombstone(key: Bytes, modified: i64, sub: i64) -> Self {
        Version { key, value: Bytes::new(), modified, sub, created: 0, version: 0, lease: 0 }
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    /// Roughly what it costs to keep it: key and value, and the bookkeeping around them.
    pub(crate) fn weight(&self) -> usize {
        self.key.len() + self.value.len() + size_of::<Self>() + 32
    }

    /// As the protocol shows it. A deletion shows its key and revision alone.
    pub(crate) fn to_wire(&self) -> PbKeyValue {
        PbKeyValue { value: self.value.to_vec(), ..self.to_wire_key() }
    }

    /// As [`Version::to_wire`], without the value.
    pub(crate) fn to_wire_key(&self) -> PbKeyValue {
        PbKeyValue {
            key: self.key.to_vec(),
            create_revision: self.created,
            mod_revision: self.modified,
            version: self.version,
            value: Vec::new(),
            lease: self.lease,
        }
    }

    pub(crate) fn to_event(&self, previous: Option<&Version>) -> PbEvent {
        PbEvent {
            r#type: if self.is_tombstone() { DELETE } else { PUT },
            kv: Some(self.to_wire()),
            prev_kv: previous.map(Version::to_wire),
        }
    }

    /// A place in the history as etcd writes it: revision and place in its transaction.
    pub(crate) fn place_bytes(modified: i64, sub: i64) -> Vec<u8> {
        [&modified.to_be_bytes()[..], b"_", &sub.to_be_bytes()[..]].concat()
    }

    /// etcd's key for this version: its place, and a mark where it is a deletion.
    pub(crate) fn history_key(&self) -> Vec<u8> {
        let mut key = Self::place_bytes(self.modified, self.sub);
        key.extend(self.is_tombstone().then_some(b't'));
        key
    }

    /// The bytes under which it is kept on disk: etcd's own record, so that the content hashes of both servers agree.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut wire = self.to_wire();
        if self.is_tombstone() {
            wire.mod_revision = 0;
        }
        wire.encode_to_vec()
    }

    /// Reads what [`Version::encode`] wrote for the transaction `modified` and the place `sub`.
    pub(crate) fn decode(modified: i64, sub: i64, bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        let wire = PbKeyValue::decode(bytes)?;
        Ok(Version {
            key: wire.key.into(),
            value: wire.value.into(),
            modified,
            sub,
            created: wire.create_revision,
            version: wire.version,
            lease: wire.lease,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_the_same() {
        let put = Version { key: "k".into(), value: "v".into(), modified: 7, sub: 2, created: 3, version: 4, lease: 9 };
        let deletion = Version::tombstone("k".into(), 8, 0);
        for version in [put, deletion] {
            assert_eq!(Version::decode(version.modified, version.sub, &version.encode()), Ok(version));
        }
    }
}

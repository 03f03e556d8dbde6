//! Values as bytes: protobuf with a schema number for what machines write, JSON as it is for the rest.
//!
//! A record of a newer schema is never interpreted, and so never overwritten by a decision that rests on it:
//! its reader sees [`DecodeError::Newer`] and leaves that pod alone.

use bytes::Bytes;
use podium_proto::records;
use prost::Message;

/// The schema that this build writes, and the newest that it reads.
pub const SCHEMA: u32 = 1;

/// Why a stored value cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer Podium: leave it alone.
    #[error("written with schema {0}, this build reads up to {SCHEMA}: leave it to the newer replica, or upgrade this one")]
    Newer(u32),
    /// No such record at all.
    #[error("not a record of this kind: {0}")]
    Malformed(String),
}

/// A record that machines write: knows its schema number.
pub trait Record: Message + Default {
    /// The number that it carries.
    fn schema(&self) -> u32;
    /// Sets the number that it carries.
    fn set_schema(&mut self, schema: u32);
}

macro_rules! records {
    ($($name:ident),*) => {$(
        impl Record for records::$name {
            fn schema(&self) -> u32 {
                self.schema
            }
            fn set_schema(&mut self, schema: u32) {
                self.schema = schema;
            }
        }
    )*};
}
records!(
    Accepted, Verdict, Deployment, ReplicaSet, Instance, Delay, Observed, Reach, Tombstone, Queue, Framework, Unknown, Quarantine, Order,
    Kill, Reset
);

/// The bytes of a record, with this build's schema number.
pub fn encode<R: Record>(mut record: R) -> Bytes {
    record.set_schema(SCHEMA);
    record.encode_to_vec().into()
}

/// Reads a record.
pub fn decode<R: Record>(bytes: &[u8]) -> Result<R, DecodeError> {
    // The number is read by itself first: a newer record may not even have the shape of ours.
    let schema = SchemaOnly::decode(bytes).map_err(|error| DecodeError::Malformed(error.to_string()))?.schema;
    if schema > SCHEMA {
        return Err(DecodeError::Newer(schema));
    }
    R::decode(bytes).map_err(|error| DecodeError::Malformed(error.to_string()))
}

/// Field 1 of every record.
#[derive(Clone, Copy, PartialEq, Message)]
struct SchemaOnly {
    #[prost(uint32, tag = "1")]
    schema: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_carries_this_builds_schema_and_reads_back() {
        let bytes = encode(records::ReplicaSet { schema: 0, wanted: 3, floor: 2, ceiling: 4 });
        assert_eq!(decode::<records::ReplicaSet>(&bytes), Ok(records::ReplicaSet { schema: SCHEMA, wanted: 3, floor: 2, ceiling: 4 }));
    }

    #[test]
    fn a_newer_record_is_not_interpreted() {
        let bytes = records::ReplicaSet { schema: SCHEMA + 1, wanted: 3, floor: 2, ceiling: 4 }.encode_to_vec();
        assert_eq!(decode::<records::ReplicaSet>(&bytes), Err(DecodeError::Newer(SCHEMA + 1)));
        // Not even when its other fields have changed their types.
        let reshaped = [0x08, 0x02, 0x12, 0x01, b'x'];
        assert_eq!(decode::<records::ReplicaSet>(&reshaped), Err(DecodeError::Newer(2)));
    }

    #[test]
    fn garbage_is_an_error_and_no_default() {
        assert!(matches!(decode::<records::Instance>(b"{\"json\": true}"), Err(DecodeError::Malformed(_))));
    }
}

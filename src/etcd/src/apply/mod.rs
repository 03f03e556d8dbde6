//! What each verb does to the keyspace, one file a verb. Pure: no disk, no clock, no network.
//!
//! The writer calls these for writes, and the KV service for reads. The requests were checked before (`check`); what
//! depends on the state is checked here, before anything changes, so that no request is applied in part.
//!
//! The answers carry the revision alone in their header, as the nested answers of a transaction do in etcd; the service
//! fills in the rest of the outer one.

mod compare;
mod delete;
mod put;
mod range;
mod txn;

use etcd_client::proto::PbResponseHeader;

pub(crate) use delete::delete;
pub(crate) use put::check_alone as check_put;
pub(crate) use put::put;
pub(crate) use range::{range, sort};
pub(crate) use txn::{is_read_only, read_txn, txn};

fn header(revision: i64) -> Option<PbResponseHeader> {
    Some(PbResponseHeader { revision, ..PbResponseHeader::default() })
}

/// Which leases exist, for the puts that name one.
pub(crate) trait Leases {
    fn exists(&self, id: i64) -> bool;
}

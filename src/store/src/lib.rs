//! Desired and observed state in etcd: the keyspace, the codecs, the watch-fed index that every reader of
//! this process shares, the fenced batch writer and the elections. Built on etcd-client; nothing here
//! knows whether the other side is etcd or the embedded store.

pub mod codec;
pub mod election;
pub mod index;
pub mod key;
mod store;
pub mod view;
pub mod writer;

pub use election::{Election, Leadership, Session, SessionConfig};
pub use index::Index;
pub use key::{Key, Keyspace, Kind};
pub use store::{Standing, Store, StoreConfig, StoreError, StoreTls};
pub use writer::Writer;

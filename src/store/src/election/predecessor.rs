//! Taking over at once from a process that is known to be dead: the owner of a data folder that we hold now.

use std::collections::BTreeSet;

use etcd_client::GetOptions;

use crate::key::Key;
use crate::store::{Store, StoreError};

/// Revokes every lease that holds an election for a process of this name, so that its successor need not wait for their ends. An
/// identity is the name, or ends in it behind a slash: what stands before that may change from one process to the next. Only for
/// a name that one process at a time can have. Returns how many there were.
///
/// A predecessor that is alive after all loses its elections by this and nothing else: its writes stay fenced.
pub async fn end_sessions_of(store: &Store, name: &str) -> Result<usize, StoreError> {
    let prefix = format!("{}/elections/", store.keyspace().root().trim_end_matches('/'));
    let found = store.answer(store.kv().await?.get(prefix, Some(GetOptions::new().with_prefix()))).await?;
    let leases: BTreeSet<i64> = found
        .kvs()
        .iter()
        .filter(|kv| kv.value().strip_suffix(name.as_bytes()).is_some_and(|before| before.is_empty() || before.ends_with(b"/")))
        .filter_map(|kv| match store.keyspace().parse(kv.key()) {
            Some(Key::Election(_, lease)) => Some(lease),
            _ => None,
        })
        .collect();
    for lease in &leases {
        match store.answer(store.leases().await?.revoke(*lease)).await {
            // Expired meanwhile: as good.
            Ok(_) | Err(StoreError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(leases.len())
}

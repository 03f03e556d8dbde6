//! The content hash that etcd's HashKV gives: equal for two servers with equal history.

use std::sync::Arc;

use super::{Keyspace, Version, live_at};
use crate::error::Refusal;

/// etcd hashes the name of the bucket in which it keeps versions before their contents.
const BUCKET: &[u8] = b"key";
/// The reflected polynomial of CRC-32C (Castagnoli).
const POLYNOMIAL: u32 = 0x82f6_3b78;

impl Keyspace {
    /// The hash of all versions up to a revision (0 is the current one), and the compacted revision.
    pub(crate) fn hash(&self, revision: i64) -> Result<(u32, i64), Refusal> {
        let upto = self.view().resolve(revision)?;
        let any_live = self.index.values().any(|versions| live_at(versions, upto).is_some());
        let mut versions: Vec<&Arc<Version>> = self.index.values().flat_map(|versions| self.hashed(versions, upto, any_live)).collect();
        versions.sort_unstable_by_key(|version| (version.modified, version.sub));
        let mut crc = Crc32c::new();
        crc.update(BUCKET);
        for version in versions {
            crc.update(&version.history_key());
            crc.update(&version.encode());
        }
        Ok((crc.finish(), self.compacted))
    }

    /// The versions of a key that count. Of the compacted past only what still lives at `upto` does, because members that
    /// have and have not yet removed the rest must agree; unless nothing lives at all, when etcd hashes what is there.
    /// A deletion of the compacted revision itself never counts: older members have removed it.
    fn hashed<'a>(&self, versions: &'a [Arc<Version>], upto: i64, any_live: bool) -> impl Iterator<Item = &'a Arc<Version>> + use<'a> {
        let compacted = self.compacted;
        let live = live_at(versions, upto).map(|version| version.modified);
        versions.iter().filter(move |version| match version.modified {
            modified if modified > compacted => modified <= upto,
            modified => !version.is_tombstone() && (live == Some(modified) || !any_live),
        })
    }
}

struct Crc32c(u32);

impl Crc32c {
    fn new() -> Self {
        Crc32c(!0)
    }

    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u32::from(*byte);
            for _ in 0..8 {
                self.0 = (self.0 >> 1) ^ (POLYNOMIAL * (self.0 & 1));
            }
        }
    }

    fn finish(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_standard() {
        let mut crc = Crc32c::new();
        crc.update(b"123456789");
        assert_eq!(crc.finish(), 0xe306_9283);
    }
}

//! The events gathered for one watcher, cut into responses.

use etcd_client::proto::{PbEvent, PbWatchResponse};
use prost::Message as _;

use super::watchers::Watcher;
use crate::limits::MESSAGE_BYTES;
use crate::mvcc::{Keyspace, Version};

#[derive(Debug, Default)]
pub(super) struct Batch {
    events: Vec<PbEvent>,
}

impl Batch {
    pub(super) fn push(&mut self, version: &Version, watcher: &Watcher, keyspace: &Keyspace) {
        let creates = version.created == version.modified;
        let previous = (watcher.previous && !creates).then(|| keyspace.view().before(&version.key, version.modified)).flatten();
        self.events.push(version.to_event(previous.map(|previous| &**previous)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// One response, or for a watcher that asked for fragments as many as the message limit wants; each but the last is
    /// marked. Nothing comes of no events.
    pub(super) fn into_responses(self, head: &PbWatchResponse, fragment: bool) -> Vec<PbWatchResponse> {
        let mut responses = Vec::new();
        let mut bytes = 0;
        for event in self.events {
            let more = event.encoded_len() + 8;
            let full = fragment && bytes + more > MESSAGE_BYTES;
            if responses.is_empty() || full {
                responses.push(head.clone());
                bytes = head.encoded_len();
            }
            bytes += more;
            if let Some(response) = responses.last_mut() {
                response.events.push(event);
            }
        }
        if let Some((_, unfinished)) = responses.split_last_mut() {
            unfinished.iter_mut().for_each(|response| response.fragment = true);
        }
        responses
    }
}

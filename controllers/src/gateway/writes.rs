//! What follows from the answers to writes: acknowledgements and launches when they are durable, and doubt when it is
//! not known what the store holds.

use podium_proto::mesos::v1::offer::Operation;
use podium_store::Key;
use podium_store::view::PodView;
use podium_store::writer::{Compare, Group, Op, Outcome};
use podium_types::id::PodId;
use uuid::Uuid;

use super::core::{Core, PendingSlot};
use super::entry::{Entry, Writing};
use super::output::{Call, Output, Token};

/// A record that the store refuses is not tried again before.
const REFUSED_MS: i64 = 30_000;

impl Core {
    /// A write was answered.
    pub fn written(&mut self, token: Token, outcome: Outcome, now: i64) {
        match token {
            Token::Queue(id) => {
                if let Some(pod) = self.pods.get_mut(&id)
                    && let Some(next) = pod.waiting.written(outcome.committed().is_some(), now)
                {
                    self.queue_wakes.insert((next, id.clone()));
                }
                self.drop_idle(&id);
            }
            Token::Unknown(_) | Token::Quarantine | Token::Framework | Token::Order(_) => {
                if outcome == Outcome::NotLeader {
                    return;
                }
                self.record_kept(&token, outcome.committed().is_some(), now);
            }
            Token::Observed(id, uuid) => {
                let Some(writing) = self.entry_mut(&id, uuid).and_then(|entry| entry.writing.take()) else { return };
                match outcome {
                    Outcome::Committed { revision } => self.committed(&id, uuid, writing, revision, now),
                    Outcome::Conflict { revision } | Outcome::Unknown { revision } => self.doubt(&id, uuid, writing, revision, now),
                    Outcome::Refused(reason) => {
                        tracing::error!(pod = %id, instance = %uuid, reason, "the store refuses what was observed");
                        if let Some(entry) = self.entry_mut(&id, uuid) {
                            entry.rest_until_ms = now.saturating_add(REFUSED_MS);
                        }
                        self.doubt(&id, uuid, writing, 0, now);
                    }
                    // The term is over; whoever leads next reads what is there.
                    Outcome::NotLeader => return,
                }
                self.look(&id, uuid, now);
                self.drop_idle(&id);
            }
        }
    }

    fn committed(&mut self, id: &PodId, uuid: Uuid, writing: Writing, revision: i64, now: i64) {
        let Some(pod) = self.pods.get_mut(id) else { return };
        let Some(entry) = pod.entries.get_mut(&uuid) else { return };
        entry.revision = revision;
        match writing {
            Writing::Launch { slot, operations } => {
                entry.kill = Default::default();
                if self.slots.contains_key(&slot) {
                    self.decided(slot, operations, now);
                } else {
                    // Its subscription is over, and it was never sent. Only Mesos may say so.
                    entry.held_by = None;
                    entry.doubtful = true;
                }
            }
            Writing::Update { acks } => self.out.extend(acks.into_iter().map(|ack| Output::Call(Call::Acknowledge(ack)))),
            Writing::Delete => {
                entry.observed = None;
                entry.revision = 0;
                pod.deleted.insert(uuid, revision);
                self.reloads.insert((revision, id.clone(), uuid));
            }
        }
    }

    /// What the store holds is not what was expected: it is read again, and then Mesos is asked again.
    fn doubt(&mut self, id: &PodId, uuid: Uuid, writing: Writing, revision: i64, now: i64) {
        if let Some(entry) = self.entry_mut(id, uuid) {
            entry.reload = Some(revision);
            entry.acks.clear();
            entry.dirty = false;
            entry.held_by = None;
        }
        self.reloads.insert((revision, id.clone(), uuid));
        if let Writing::Launch { slot, .. } = writing {
            self.decided(slot, Vec::new(), now);
        }
    }

    /// One launch of a slot is durable, or won't be sent. With the last one, the slot is accepted.
    fn decided(&mut self, slot_id: u64, operations: Vec<Operation>, now: i64) {
        let Some(slot) = self.slots.get_mut(&slot_id) else { return };
        slot.operations.extend(operations);
        slot.undecided = slot.undecided.saturating_sub(1);
        if slot.undecided > 0 {
            return;
        }
        let Some(slot) = self.slots.remove(&slot_id) else { return };
        for (id, uuid) in &slot.members {
            if let Some(entry) = self.entry_mut(id, *uuid).filter(|entry| entry.held_by == Some(slot_id)) {
                entry.held_by = None;
            }
        }
        // What more waits can use the rest at once.
        let refuse_seconds = if self.role_waits(&slot.role) { 0.0 } else { self.settings.decline_seconds };
        let PendingSlot { offer_ids, operations, members, .. } = slot;
        self.call(if operations.is_empty() {
            Call::Decline { offer_ids, refuse_seconds }
        } else {
            Call::Accept { offer_ids, operations, refuse_seconds }
        });
        // Those that are not wanted any more were waiting to be killed.
        for (id, uuid) in members {
            self.look(&id, uuid, now);
        }
    }

    /// Records that are to be read again from an index at this revision.
    pub fn reloads_due(&mut self, revision: i64) -> Vec<(PodId, Uuid)> {
        let mut due = Vec::new();
        while let Some((_, id, uuid)) = self.reloads.first().filter(|(at, ..)| *at <= revision).cloned() {
            self.reloads.pop_first();
            due.push((id, uuid));
        }
        due
    }

    pub fn awaits_index(&self) -> bool {
        !self.reloads.is_empty()
    }

    /// Reads a record again.
    pub fn reload(&mut self, id: &PodId, uuid: Uuid, view: Option<&PodView>, now: i64) {
        let Some(pod) = self.pods.get_mut(id) else { return };
        let Some(entry) = pod.entries.get_mut(&uuid).filter(|entry| entry.reload.is_some()) else {
            // It was deleted, and the index has seen that.
            pod.deleted.remove(&uuid);
            self.drop_idle(id);
            return;
        };
        let held = view.and_then(|view| view.observed.get(&uuid));
        entry.observed = held.map(|held| held.value.clone());
        entry.revision = held.map_or(0, |held| held.mod_revision);
        entry.instance = view.and_then(|view| view.instances.get(&uuid)).cloned();
        entry.reload = None;
        entry.doubtful = true;
        self.look(id, uuid, now);
        self.drop_idle(id);
    }
}

impl Entry {
    /// The write that makes the record durable, unless it is, or must wait.
    pub fn write_update(&mut self, id: &PodId, uuid: Uuid, now: i64) -> Option<Group> {
        if !self.dirty || self.writing.is_some() || self.reload.is_some() || self.rest_until_ms > now {
            return None;
        }
        let record = self.observed.clone()?;
        let key = Key::Observed(id.clone(), uuid);
        self.dirty = false;
        self.writing = Some(Writing::Update { acks: std::mem::take(&mut self.acks) });
        Some(Group::new(id.clone()).when(as_known(key.clone(), self.revision)).then(Op::record(key, record)))
    }

    /// The write that ends the record; an instance that came back would need it.
    pub fn write_delete(&mut self, id: &PodId, uuid: Uuid) -> Group {
        let key = Key::Observed(id.clone(), uuid);
        self.writing = Some(Writing::Delete);
        Group::new(id.clone())
            .when(Compare::Unchanged(key.clone(), self.revision))
            .when(Compare::Absent(Key::Instance(id.clone(), uuid)))
            .then(Op::Delete(key))
    }
}

/// That the record is as it was last written, or absent.
pub(super) fn as_known(key: Key, revision: i64) -> Compare {
    if revision == 0 { Compare::Absent(key) } else { Compare::Unchanged(key, revision) }
}

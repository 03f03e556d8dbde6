//! The way to an agent: what may be lost on it, and what must arrive and waits where it finds no room.

use std::collections::VecDeque;

use podium_proto::mesos::v1::FrameworkId;
use tokio::sync::mpsc;

use crate::link::ToAgent;

/// The master's end of an agent's link.
#[derive(Debug)]
pub(super) struct AgentLink {
    to: mpsc::Sender<ToAgent>,
    /// What must arrive and found the link full.
    backlog: VecDeque<ToAgent>,
}

impl AgentLink {
    pub(super) const fn new(to: mpsc::Sender<ToAgent>) -> Self {
        Self { to, backlog: VecDeque::new() }
    }

    /// Sends what may be lost, as on a network; false if it was.
    pub(super) fn send(&mut self, message: ToAgent) -> bool {
        self.backlog.is_empty() && self.to.try_send(message).is_ok()
    }

    /// Sends what must arrive, now or when the link has room; true if it waits.
    pub(super) fn must_send(&mut self, message: ToAgent) -> bool {
        self.backlog.push_back(message);
        self.flush()
    }

    /// Ends what these frameworks run; true if the word waits.
    pub(super) fn shut_down_frameworks(&mut self, frameworks: impl IntoIterator<Item = String>) -> bool {
        let shut_down = |value| ToAgent::ShutdownFramework { framework_id: FrameworkId { value } };
        self.backlog.extend(frameworks.into_iter().map(shut_down));
        self.flush()
    }

    /// Sends what waits; true if something still does.
    pub(super) fn flush(&mut self) -> bool {
        while let Some(message) = self.backlog.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(message)) = self.to.try_send(message) {
                self.backlog.push_front(message);
                return true;
            }
        }
        false
    }
}

//! Which master to ask next: each of a list in turn, or the one that ZooKeeper says leads.

use std::convert::Infallible;

use podium_http::Url;
use tokio::sync::watch;

use super::ConfigError;
use super::masters::{Ensemble, Masters};
use super::zookeeper::{self, Leader};

/// Whom to ask next.
pub(crate) enum Candidates {
    /// Each in turn.
    List(std::iter::Cycle<std::vec::IntoIter<Url>>),
    /// Whoever leads, as the detector says.
    Leader(watch::Receiver<Leader>),
}

/// Finds out who leads, where that takes asking; to be polled beside the work with the [`Candidates`].
pub(crate) enum Detector {
    /// A list needs none.
    Idle,
    ZooKeeper {
        ensemble: Ensemble,
        secure: bool,
        leader: watch::Sender<Leader>,
    },
}

impl Detector {
    pub async fn run(self) -> Infallible {
        match self {
            Detector::Idle => std::future::pending().await,
            Detector::ZooKeeper { ensemble, secure, leader } => zookeeper::detect(&ensemble, secure, leader).await,
        }
    }
}

impl Candidates {
    /// As configured, `secure` where authorities are named; with what keeps them up to date.
    pub fn new(masters: &Masters, secure: bool) -> Result<(Self, Detector), ConfigError> {
        Ok(match masters {
            Masters::List(list) => (Candidates::List(Masters::urls(list, secure)?.into_iter().cycle()), Detector::Idle),
            Masters::ZooKeeper(ensemble) => {
                let (leader, known) = watch::channel(Leader::Unknown("ZooKeeper has not been asked yet".to_owned()));
                (Candidates::Leader(known), Detector::ZooKeeper { ensemble: ensemble.clone(), secure, leader })
            }
        })
    }

    /// The next one, or why none is known to lead; then [`Candidates::news`] tells when to ask again.
    pub fn next(&mut self) -> Result<Url, String> {
        match self {
            Candidates::List(list) => list.next().ok_or_else(|| ConfigError::NoMaster.to_string()),
            Candidates::Leader(leader) => match &*leader.borrow_and_update() {
                Leader::Known(url) => Ok(url.clone()),
                Leader::Unknown(reason) => Err(reason.clone()),
            },
        }
    }

    /// Completes when something else is known than at the last [`Candidates::next`].
    pub async fn news(&mut self) {
        if let Candidates::Leader(leader) = self
            && leader.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    /// Completes when another than `url` is known to lead.
    pub async fn moved(&mut self, url: &Url) {
        let other = |known: &Leader| matches!(known, Leader::Known(now) if now != url);
        if let Candidates::Leader(leader) = self
            && leader.wait_for(other).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

//! One stream: what its client missed, then what happens, and a sign of life now and then.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use podium_store::StoreError;
use podium_store::index::Replay;
use serde_json::json;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::derive::Event;
use super::place::{Id, Place};
use super::{Audience, Events, Happening, News, now};
use crate::access::Caller;

/// Events that are sent together, in bytes.
const PIECE: usize = 32 * 1024;

/// Who listens, to what.
pub(super) struct Listener {
    pub events: Events,
    pub caller: Caller,
    /// By which the caller is known. When they no longer are, or with other rights, the stream ends.
    pub credentials: HeaderMap,
    /// Kinds of events that are wanted; none: all.
    pub kinds: HashSet<String>,
    pub peer: String,
    pub out: mpsc::Sender<Bytes>,
}

/// Why a stream ends.
enum Ended {
    /// The client left, may listen no more, or was too slow; or events are missing, and it may ask for them by its last id.
    Closed,
    /// The server stops.
    Stopped,
}

impl Listener {
    /// Serves the stream to its end.
    pub(super) async fn run(mut self, after: Option<Id>) {
        let mut news = self.events.listen();
        let stop = self.events.shared.stop.clone();
        let address = json!({ "remoteAddress": self.peer });
        self.events.tell_local("event_stream_attached", Audience::Whole, address.clone());
        let (out, access) = (self.out.clone(), Arc::clone(&self.events.shared.access));
        let (credentials, caller) = (self.credentials.clone(), self.caller.clone());
        tokio::select! {
            () = stop.cancelled() => {}
            () = out.closed() => {}
            () = access.until_others(&credentials, &caller) => {}
            _ = self.serve(&mut news, after) => {}
        }
        drop(news);
        self.events.tell_local("event_stream_detached", Audience::Whole, address);
    }

    async fn serve(&mut self, news: &mut broadcast::Receiver<News>, after: Option<Id>) -> Result<(), Ended> {
        // The head goes out with the first piece: the client shall know at once that it is heard.
        self.send(Bytes::from_static(b": welcome\n\n")).await?;
        let mut beat = interval(self.events.shared.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.reset();
        let mut last = Place { revision: 0, number: 0 };
        if let Some(after) = after {
            last = after.place;
            self.catch_up(news, after, &mut last, &mut beat).await?;
        }
        loop {
            tokio::select! {
                heard = news.recv() => {
                    let piece = self.piece(happened(heard)?, news, &mut last)?;
                    self.send(piece).await?;
                }
                _ = beat.tick() => {
                    let sent = self.events.sent();
                    // Nothing waits: what was sent up to there has been read.
                    let id = news.is_empty().then_some(Place { revision: sent + 1, number: 0 }).filter(|place| *place > last);
                    self.sign_of_life(id).await?;
                }
            }
        }
    }

    /// This event and those that wait behind it, as far as they are wanted.
    fn piece(&self, first: Arc<Happening>, news: &mut broadcast::Receiver<News>, last: &mut Place) -> Result<Bytes, Ended> {
        let mut piece = BytesMut::new();
        let mut next = Some(first);
        while let Some(happening) = next.take() {
            self.add(&happening, last, &mut piece);
            if piece.len() < PIECE {
                next = match news.try_recv() {
                    Ok(News::Happened(happening)) => Some(happening),
                    Err(broadcast::error::TryRecvError::Empty) => None,
                    // What is in the piece is lost with it: the client asks for it again by its last id.
                    _ => return Err(Ended::Closed),
                };
            }
        }
        Ok(piece.freeze())
    }

    fn add(&self, happening: &Happening, last: &mut Place, piece: &mut BytesMut) {
        if let Some(place) = happening.place {
            if place <= *last {
                return;
            }
            *last = place;
        }
        if (self.kinds.is_empty() || self.kinds.contains(happening.kind)) && happening.audience.includes(&self.caller) {
            piece.extend_from_slice(&happening.text);
        }
    }

    /// Tells what happened after `last`, until the present takes over.
    async fn catch_up(
        &mut self,
        news: &mut broadcast::Receiver<News>,
        after: Id,
        last: &mut Place,
        beat: &mut Interval,
    ) -> Result<(), Ended> {
        let shared = Arc::clone(&self.events.shared);
        // Who has an event of a revision knows that revision; a place before its first event says nothing of it.
        let known = if last.number > 0 { last.revision } else { last.revision - 1 };
        if shared.index.position().revision < known {
            // Is it this server that is behind, or has the store gone back? That is asked at once, before its writes go past the id.
            if let Some(reason) = self.gone_back(known).await {
                return self.gap(last, after, &reason).await;
            }
        }
        if let Err(behind) = shared.index.wait_for(known, shared.catch_up).await {
            let reason = format!("this server knows the store up to revision {} only", behind.reached.revision);
            return self.gap(last, after, &reason).await;
        }
        if self.events.named().id(after.place) != after {
            return self.gap(last, after, "that id is of another store, or of this one before it was restored").await;
        }
        let mut goal = self.events.telling();
        if goal < last.revision {
            // Nothing was missed: of that revision and later ones the news bring everything.
            return Ok(());
        }
        let mut replay = match Replay::start(&shared.store, &shared.index, last.revision, &shared.room).await {
            Ok(replay) => replay,
            Err(error) => return self.broken(error, after, last).await,
        };
        // The index may be yet to hear that another store, or an older state of it, is in the place of the one that it knows. Asked
        // behind the start of the replay, which breaks with the store that it is of.
        if let Some(reason) = self.gone_back(known).await {
            return self.gap(last, after, &reason).await;
        }
        // The first of the present that the past has to reach; until one was heard, what had been told at the start.
        let mut ahead: Option<Place> = None;
        loop {
            // Boxed and kept, since a half-read message of the past must not be lost when something else comes first.
            let mut past = Box::pin(replay.next());
            let turn = loop {
                tokio::select! {
                    turn = &mut past => break turn,
                    heard = news.recv(), if ahead.is_none() => match heard {
                        Ok(News::Happened(happening)) => match happening.place {
                            Some(place) => ahead = (place > *last).then_some(place),
                            None => {
                                let mut piece = BytesMut::new();
                                self.add(&happening, last, &mut piece);
                                self.send(piece.freeze()).await?;
                            }
                        },
                        // The past comes by all that went by.
                        Ok(News::Missing) | Err(broadcast::error::RecvError::Lagged(_)) => goal = self.events.telling(),
                        Err(broadcast::error::RecvError::Closed) => return Err(Ended::Stopped),
                    },
                    _ = beat.tick() => self.sign_of_life(None).await?,
                }
            };
            drop(past);
            let turn = match turn {
                Ok(turn) => turn,
                Err(error) => return self.broken(error, after, last).await,
            };
            let mut piece = BytesMut::new();
            for happening in Happening::of_turn(&turn, &self.events.named(), now()) {
                self.add(&happening, last, &mut piece);
            }
            self.send(piece.freeze()).await?;
            // The present begins here: what of it was told already is passed over.
            if ahead.map_or(goal, |place| place.revision) <= turn.revision {
                return Ok(());
            }
        }
    }

    /// Why the store is not the one that has told a revision; `None`: it is, as far as it answers.
    async fn gone_back(&self, known: i64) -> Option<String> {
        let standing = self.events.shared.store.standing().await.ok()?;
        if !self.events.named().is_of(standing.cluster_id) {
            return Some("the store is another one".to_owned());
        }
        (standing.revision < known).then(|| format!("the store is at revision {}: was it restored?", standing.revision))
    }

    async fn broken(&mut self, error: StoreError, after: Id, last: &mut Place) -> Result<(), Ended> {
        match error {
            StoreError::Compacted => self.gap(last, after, "the store's history was compacted since then").await,
            StoreError::TooLarge(reason) => self.gap(last, after, &reason).await,
            error => {
                tracing::info!(%error, "a stream of events could not be taken up");
                Err(Ended::Closed)
            }
        }
    }

    /// Says that events are missing, and goes on from now.
    async fn gap(&mut self, last: &mut Place, after: Id, reason: &str) -> Result<(), Ended> {
        let fields =
            json!({ "lastEventId": after.to_string(), "message": format!("events are missing, read anew what you follow: {reason}") });
        *last = Place { revision: self.events.sent() + 1, number: 0 };
        let event = Event::new("event_stream_gap", None, now(), fields);
        self.send(Happening::new(&event, Some(self.events.named().id(*last)), Audience::Everyone).text).await
    }

    /// A comment, or the place up to which everything was told: an id without an event moves the client's last id.
    async fn sign_of_life(&mut self, place: Option<Place>) -> Result<(), Ended> {
        let text = place.map_or_else(|| ":\n\n".to_owned(), |place| format!(":\nid: {}\n\n", self.events.named().id(place)));
        self.send(text.into()).await
    }

    async fn send(&self, piece: Bytes) -> Result<(), Ended> {
        if piece.is_empty() {
            return Ok(());
        }
        self.out.send(piece).await.map_err(|_| Ended::Closed)
    }
}

fn happened(heard: Result<News, broadcast::error::RecvError>) -> Result<Arc<Happening>, Ended> {
    match heard {
        Ok(News::Happened(happening)) => Ok(happening),
        Ok(News::Missing) | Err(broadcast::error::RecvError::Lagged(_)) => Err(Ended::Closed),
        Err(broadcast::error::RecvError::Closed) => Err(Ended::Stopped),
    }
}

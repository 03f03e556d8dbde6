//! The body of an answer as a stream that is never waited for without bound.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, Sleep, sleep};

use crate::Error;

/// A streaming body. After an error it is at its end.
#[derive(Debug)]
pub struct Body {
    incoming: Option<Incoming>,
    authority: String,
    idle_timeout: Duration,
    deadline: Pin<Box<Sleep>>,
    /// The deadline counts. It does only while somebody waits: who reads late must not blame the peer.
    waiting: bool,
}

impl Body {
    pub(crate) fn new(incoming: Incoming, authority: String, idle_timeout: Duration) -> Self {
        Body { incoming: Some(incoming), authority, idle_timeout, deadline: Box::pin(sleep(idle_timeout)), waiting: false }
    }

    /// How long the peer may be silent from now on.
    pub fn set_idle_timeout(&mut self, idle_timeout: Duration) {
        self.idle_timeout = idle_timeout;
        self.waiting = false;
    }

    /// The whole body, if it is at most `limit` bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Timeout`], [`Error::Broken`].
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, Error> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.next().await {
            let piece = piece?;
            if whole.len().saturating_add(piece.len()) > limit {
                return Err(Error::TooLarge { authority: self.authority, limit });
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// At most the first `limit` bytes, as text.
    pub(crate) async fn excerpt(mut self, limit: usize) -> String {
        let mut start = BytesMut::new();
        while let Some(Ok(piece)) = self.next().await {
            let room = limit.saturating_sub(start.len()).min(piece.len());
            start.extend(piece.iter().take(room));
            if start.len() >= limit {
                break;
            }
        }
        String::from_utf8_lossy(&start).trim().to_owned()
    }

    fn end(&mut self, error: Error) -> Poll<Option<Result<Bytes, Error>>> {
        self.incoming = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for Body {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(incoming) = self.incoming.as_mut() else { return Poll::Ready(None) };
            match Pin::new(incoming).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.waiting = false;
                    // Trailers are of no use here.
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    let authority = self.authority.clone();
                    return self.end(Error::Broken { authority, reason: error.to_string() });
                }
                Poll::Ready(None) => {
                    self.incoming = None;
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    if !self.waiting {
                        let end = Instant::now() + self.idle_timeout;
                        self.deadline.as_mut().reset(end);
                        self.waiting = true;
                    }
                    ready!(self.deadline.as_mut().poll(context));
                    let (authority, after) = (self.authority.clone(), self.idle_timeout);
                    return self.end(Error::Timeout { authority, what: "nothing more", after });
                }
            }
        }
    }
}

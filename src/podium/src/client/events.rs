//! What happens to pods, told by the server as it happens: what a wait wakes up for.
//!
//! Promises: once [`Events::open`] has returned, whatever happens to a pod makes [`Events::next`] return, at the next sign of life at
//! the latest; without a stream it returns at a slow pace, and takes up a new one as soon as the server gives it. Everything is bounded.

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use podium_http::Body;
use podium_types::id::PodId;
use tokio::time::{sleep, timeout};

use super::connection::Connection;

/// Between two looks while there is no stream.
const SLOW: Duration = Duration::from_secs(2);
/// A stream that is not given in this time is done without.
const OPENING: Duration = Duration::from_secs(5);
/// A server gives a sign of life every 15 s.
const SILENCE: Duration = Duration::from_secs(40);
/// No event is larger by far; a stream of something else is none.
const LARGEST: usize = 4 << 20;
/// How a stream begins.
const GREETING: &str = ": welcome";

/// The events of a server.
#[derive(Debug)]
pub struct Events {
    stream: Option<Stream>,
}

#[derive(Debug)]
struct Stream {
    body: Body,
    /// What came and is not read yet.
    text: Vec<u8>,
}

/// One event, or one sign of life.
#[derive(Debug, PartialEq, Eq)]
struct Block<'a> {
    id: Option<&'a str>,
    data: Option<&'a str>,
}

impl Events {
    /// Opens a stream, if the server gives one.
    pub async fn open(server: &Connection) -> Self {
        Self { stream: Stream::open(server).await }
    }

    /// The stream is of no use: it may lead to a server that can't be asked.
    pub fn give_up(&mut self) {
        self.stream = None;
    }

    /// Waits until something has happened to a pod, the server has given a sign of life, or it is time to look anyway. To cancel it
    /// loses nothing.
    pub async fn next(&mut self, server: &mut Connection, pod: &PodId) {
        if let Some(stream) = &mut self.stream
            && stream.next(server, pod).await
        {
            return;
        }
        self.stream = None;
        sleep(SLOW).await;
        self.stream = Stream::open(server).await;
    }
}

impl Stream {
    async fn open(server: &Connection) -> Option<Self> {
        let mut body = timeout(OPENING, server.events()).await.ok()?.ok()?;
        body.set_idle_timeout(SILENCE);
        Some(Self { body, text: Vec::new() })
    }

    /// Whether news came before the end.
    async fn next(&mut self, server: &mut Connection, pod: &PodId) -> bool {
        loop {
            let mut news = self.read(server, pod);
            // All that is there already is one reason to look, not many.
            while self.text.len() <= LARGEST
                && let Some(Some(Ok(piece))) = self.body.next().now_or_never()
            {
                self.text.extend_from_slice(&piece);
                news |= self.read(server, pod);
            }
            if news {
                return true;
            }
            match self.body.next().await {
                Some(Ok(piece)) if self.text.len() + piece.len() <= LARGEST => self.text.extend_from_slice(&piece),
                _ => return false,
            }
        }
    }

    /// Reads what is whole; whether the pod has to be looked at.
    fn read(&mut self, server: &mut Connection, pod: &PodId) -> bool {
        let Some(end) = self.text.windows(2).rposition(|pair| pair == b"\n\n") else { return false };
        let whole: Vec<u8> = self.text.drain(..end + 2).collect();
        let mut news = false;
        for block in String::from_utf8_lossy(&whole).split("\n\n").filter(|block| !block.is_empty() && *block != GREETING) {
            let block = Block::of(block);
            if let Some(revision) = block.revision() {
                server.has_seen(revision);
            }
            news |= block.concerns(pod);
        }
        news
    }
}

impl<'a> Block<'a> {
    fn of(text: &'a str) -> Self {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Self { id: field("id"), data: field("data") }
    }

    /// The store's revision that tells of it: who asks another replica has to ask for that.
    fn revision(&self) -> Option<i64> {
        self.id.filter(|_| self.data.is_some())?.split('-').next()?.parse().ok()
    }

    /// Whether it tells of the pod, by name or by path, or of no pod at all, as a sign of life and a gap do.
    fn concerns(&self, pod: &PodId) -> bool {
        let Some(data) = self.data else { return true };
        data.contains(&format!("\"{pod}\"")) || data.contains(&format!("\"/v2/pods{pod}\"")) || data.contains("\"event_stream_gap\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_concerns_the_pod_that_it_names_and_a_sign_of_life_every_pod() {
        let pod = PodId::new("/web").unwrap();
        let block = Block::of("event: instance_changed_event\nid: 12-3-0a1b2c3d\ndata: {\"runSpecId\":\"/web\"}");
        assert_eq!((block.concerns(&pod), block.revision()), (true, Some(12)));
        for data in [r#"{"uri":"/v2/pods/web"}"#, r#"{"steps":[{"actions":[{"pod":"/web"}]}]}"#, r#"{"eventType":"event_stream_gap"}"#] {
            assert!(Block { id: None, data: Some(data) }.concerns(&pod), "{data}");
        }
        for data in [r#"{"runSpecId":"/web/a"}"#, r#"{"uri":"/v2/pods/webs"}"#, r#"{"remoteAddress":"127.0.0.1"}"#] {
            assert!(!Block { id: None, data: Some(data) }.concerns(&pod), "{data}");
        }
        // The id of a sign of life names a revision that may not have come yet.
        let sign = Block::of(":\nid: 13-0-0a1b2c3d");
        assert_eq!((sign.concerns(&pod), sign.revision()), (true, None));
    }
}

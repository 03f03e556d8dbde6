//! The body of an answer: whole, or in pieces that are made while the client reads; as it is, or compressed.

use std::io::Write as _;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{Stream, StreamExt as _, stream};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use http::{HeaderMap, Response};
use tokio::sync::mpsc;
use warp::Reply as _;

use crate::answer::Answer;

/// What is smaller is not worth it: it fits into one packet as it is.
const WORTH_COMPRESSING: usize = 1_400;

/// A list of more bytes is sent in pieces of about so many.
const PIECE: usize = 64 * 1024;

/// So much is compressed at a time, so that a large answer never holds its thread for long.
const SLICE: usize = 32 * 1024;

/// A body.
#[derive(Debug)]
pub enum Content {
    /// Known as a whole; its length is announced.
    Whole(Bytes),
    /// Made by a task that sends its pieces; it ends when the sender is dropped.
    Pieces(mpsc::Receiver<Bytes>),
    /// Any of them, compressed.
    Compressed(Box<Compressed>),
}

impl Default for Content {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

impl Content {
    /// Parts of about `size` bytes together, one after the other. Long ones are never put together as a whole: they follow each other
    /// as the client takes them. Needs a tokio runtime.
    pub(crate) fn joined(parts: impl Iterator<Item = Bytes> + Send + 'static, size: usize) -> Self {
        if size < 4 * PIECE {
            let mut whole = BytesMut::with_capacity(size);
            parts.for_each(|part| whole.extend_from_slice(&part));
            return Self::Whole(whole.freeze());
        }
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut parts = parts;
            while let Some(piece) = next_piece(&mut parts) {
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
        });
        Self::Pieces(receiver)
    }

    /// The bytes, if they are at hand as they are.
    #[cfg(test)]
    pub(crate) fn whole(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) => bytes,
            _ => &[],
        }
    }
}

/// Parts of about [`PIECE`] bytes together; `None` behind the last.
fn next_piece(parts: &mut impl Iterator<Item = Bytes>) -> Option<Bytes> {
    let mut piece = BytesMut::new();
    while piece.len() < PIECE
        && let Some(part) = parts.next()
    {
        piece.reserve(part.len().max(PIECE));
        piece.extend_from_slice(&part);
    }
    (!piece.is_empty()).then(|| piece.freeze())
}

/// Compresses an answer for a client that takes gzip, where it is worth it. Streams of events stay as they are: a proxy or a
/// browser may sit on a compressed one until it is long enough.
pub(crate) fn negotiate(request: &HeaderMap, answer: Answer) -> Answer {
    let small = matches!(answer.body(), Content::Whole(bytes) if bytes.len() < WORTH_COMPRESSING);
    let stream = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if small || stream || answer.headers().contains_key(CONTENT_ENCODING) {
        return answer;
    }
    let (mut head, content) = answer.into_parts();
    head.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    if !takes_gzip(request) {
        return Response::from_parts(head, content);
    }
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    // The entity tag stays: it names the version of a pod, which `If-Match` compares, and not these bytes.
    Response::from_parts(head, Content::Compressed(Box::new(Compressed::new(content))))
}

/// Whether gzip is accepted, by name or by `*`, and not with a weight of 0.
fn takes_gzip(request: &HeaderMap) -> bool {
    let mut any = false;
    for value in request.get_all(ACCEPT_ENCODING) {
        for coding in value.to_str().unwrap_or_default().split(',') {
            let mut parts = coding.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let refused = parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q == 0.0)));
            match name.to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => return !refused,
                "*" => any = !refused,
                _ => {}
            }
        }
    }
    any
}

/// A body that is compressed piece by piece, as the client takes it.
#[derive(Debug)]
pub struct Compressed {
    source: Source,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

#[derive(Debug)]
enum Source {
    Whole(Bytes),
    Pieces(mpsc::Receiver<Bytes>),
}

impl Compressed {
    fn new(content: Content) -> Self {
        let source = match content {
            Content::Whole(bytes) => Source::Whole(bytes),
            Content::Pieces(pieces) => Source::Pieces(pieces),
            Content::Compressed(once) => once.source,
        };
        // Made for one reader: speed before size.
        Self { source, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, std::io::Error>>> {
        loop {
            let Some(mut encoder) = self.encoder.take() else { return Poll::Ready(None) };
            let piece = match &mut self.source {
                Source::Whole(rest) => (!rest.is_empty()).then(|| rest.split_to(rest.len().min(SLICE))),
                Source::Pieces(pieces) => match pieces.poll_recv(context) {
                    Poll::Ready(piece) => piece,
                    Poll::Pending => {
                        self.encoder = Some(encoder);
                        return Poll::Pending;
                    }
                },
            };
            let Some(piece) = piece else { return Poll::Ready(Some(encoder.finish().map(Bytes::from))) };
            encoder.write_all(&piece)?;
            // What a task sends is wanted now, the rest may wait until there is enough of it.
            if matches!(self.source, Source::Pieces(_)) {
                encoder.flush()?;
            }
            let ready = std::mem::take(encoder.get_mut());
            self.encoder = Some(encoder);
            if !ready.is_empty() {
                return Poll::Ready(Some(Ok(ready.into())));
            }
        }
    }
}

/// As warp sends it.
pub(crate) fn into_reply(answer: Answer) -> warp::reply::Response {
    let (head, content) = answer.into_parts();
    let mut reply = match content {
        Content::Whole(bytes) => warp::reply::Response::new(bytes.into()),
        Content::Pieces(mut pieces) => streamed(stream::poll_fn(move |context| pieces.poll_recv(context)).map(Ok)),
        Content::Compressed(mut compressed) => streamed(stream::poll_fn(move |context| compressed.poll_next(context))),
    };
    *reply.status_mut() = head.status;
    *reply.headers_mut() = head.headers;
    reply
}

fn streamed(pieces: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + Sync + 'static) -> warp::reply::Response {
    warp::reply::stream(pieces).into_response()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    fn asks(value: &'static str) -> HeaderMap {
        [(ACCEPT_ENCODING, HeaderValue::from_static(value))].into_iter().collect()
    }

    async fn sent(content: Content) -> Vec<u8> {
        let Content::Compressed(mut compressed) = content else { panic!("not compressed") };
        let pieces: Vec<_> = stream::poll_fn(move |context| compressed.poll_next(context)).collect().await;
        pieces.into_iter().flat_map(|piece| piece.unwrap()).collect()
    }

    #[test]
    fn gzip_is_taken_by_name_or_by_star_unless_refused() {
        for yes in ["gzip", "deflate, gzip;q=0.5", "*", "GZIP", "x-gzip"] {
            assert!(takes_gzip(&asks(yes)), "{yes}");
        }
        for no in ["", "identity", "gzip;q=0", "gzip;q=0, *", "*;q=0", "br"] {
            assert!(!takes_gzip(&asks(no)), "{no}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn what_is_compressed_is_the_same_again_whole_or_in_pieces() {
        let text: Vec<u8> = (0..200_000_u32).flat_map(|n| (n % 1000).to_string().into_bytes()).collect();
        let (sender, pieces) = mpsc::channel(1);
        let chunks: Vec<Bytes> = text.chunks(70_000).map(Bytes::copy_from_slice).collect();
        tokio::spawn(async move {
            for chunk in chunks {
                sender.send(chunk).await.unwrap();
            }
        });
        for content in [Content::Whole(text.clone().into()), Content::Pieces(pieces)] {
            let answer = negotiate(&asks("gzip"), Response::new(content));
            assert_eq!(answer.headers()[CONTENT_ENCODING], "gzip");
            let packed = sent(answer.into_body()).await;
            let mut unpacked = Vec::new();
            GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == text && packed.len() < text.len() / 2);
        }
    }

    #[tokio::test]
    async fn an_array_is_the_same_text_whole_or_in_pieces() {
        for (count, size) in [(0, 0), (1, 10), (3, 10), (40, 9_000), (2, 400_000)] {
            let values: Vec<Bytes> = (0..count).map(|_| Bytes::from(format!("\"{}\"", "x".repeat(size)))).collect();
            let text = format!("[{}]", values.iter().map(|value| String::from_utf8_lossy(value)).collect::<Vec<_>>().join(","));
            let mut sent = Vec::new();
            match crate::answer::json_array(values).into_body() {
                Content::Whole(whole) => sent.extend_from_slice(&whole),
                Content::Pieces(mut pieces) => {
                    assert!(text.len() > 4 * PIECE);
                    while let Some(piece) = pieces.recv().await {
                        sent.extend_from_slice(&piece);
                    }
                }
                Content::Compressed(_) => panic!("nobody asked for that"),
            }
            assert!(sent == text.as_bytes(), "{count} of {size}");
        }
    }

    #[test]
    fn small_answers_and_events_stay_as_they_are() {
        let small = negotiate(&asks("gzip"), Response::new(Content::Whole(Bytes::from_static(b"[]"))));
        assert!(!small.headers().contains_key(CONTENT_ENCODING) && small.body().whole() == b"[]");
        let mut events = Response::new(Content::Pieces(mpsc::channel(1).1));
        events.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        assert!(matches!(negotiate(&asks("gzip"), events).body(), Content::Pieces(_)));
    }
}

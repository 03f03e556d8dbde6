//! One subscription: from SUBSCRIBE to the end of its stream.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use podium_http::{Body, Client, Method, Response, Url};
use podium_proto::mesos::v1;
use podium_proto::mesos::v1::scheduler::{self, Call, call};
use podium_proto::wire::recordio::Codec;
use podium_proto::wire::text;
use prost::Message as _;
use tokio::time::timeout;
use tokio_util::codec::Decoder as _;

use super::calls::PROTOBUF;

/// Why an attempt or a subscription ended. All of it is retried; the words are for people.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Http(#[from] podium_http::Error),
    #[error("{url} answered {status}: {text}")]
    Status { url: Url, status: StatusCode, text: String },
    #[error("{0} redirects to nowhere")]
    Redirect(Url),
    #[error("too many redirects between masters")]
    RedirectLoop,
    #[error("{0} sent no Mesos-Stream-Id; is it a Mesos master?")]
    NoStreamId(Url),
    #[error(transparent)]
    RecordIo(#[from] podium_proto::wire::recordio::Error),
    #[error("the master sent a record that is not an event: {0}")]
    Malformed(#[from] prost::DecodeError),
    #[error("the master closed the stream")]
    Closed,
    #[error("the master sent no whole record within {} seconds", .0.as_secs_f32())]
    Stalled(Duration),
}

/// An open event stream.
pub(super) struct Stream {
    /// Of the master that answered, for the other calls.
    pub url: Url,
    pub stream_id: HeaderValue,
    body: Body,
    buffer: BytesMut,
    codec: Codec,
    /// For a whole record.
    patience: Duration,
}

/// Masters that send us round in circles are given up after so many hops.
pub(crate) const MAX_REDIRECTS: usize = 5;

/// Posts SUBSCRIBE and follows redirects by hand, sending body, headers and credentials each time.
pub(super) async fn subscribe(
    client: &Client,
    url: &Url,
    framework: &v1::FrameworkInfo,
    suppressed: &[String],
    patience: Duration,
) -> Result<Stream, SessionError> {
    let subscribe =
        call::Subscribe { framework_info: framework.clone(), suppressed_roles: suppressed.to_vec(), ..call::Subscribe::default() };
    let call = Call {
        r#type: Some(call::Type::Subscribe.into()),
        framework_id: framework.id.clone(),
        subscribe: Some(subscribe),
        ..Call::default()
    };
    let body = Bytes::from(call.encode_to_vec());
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, PROTOBUF);
    headers.insert(header::ACCEPT, PROTOBUF);
    let mut url = url.clone();
    for _ in 0..MAX_REDIRECTS {
        let response = client.request(Method::POST, &url, headers.clone(), body.clone()).await?;
        match response.status {
            StatusCode::OK => return open(url, response, patience),
            StatusCode::TEMPORARY_REDIRECT => {
                let next = response.header(header::LOCATION).and_then(|location| podium_http::resolve(&url, location));
                url = next.ok_or(SessionError::Redirect(url))?;
            }
            status => return Err(SessionError::Status { url, status, text: response.excerpt(500).await }),
        }
    }
    Err(SessionError::RedirectLoop)
}

fn open(url: Url, response: Response, patience: Duration) -> Result<Stream, SessionError> {
    let Some(stream_id) = response.headers.get("Mesos-Stream-Id").cloned() else {
        return Err(SessionError::NoStreamId(url));
    };
    Ok(Stream { url, stream_id, body: response.body, buffer: BytesMut::new(), codec: Codec::default(), patience })
}

impl Stream {
    /// The stream is dead if the master takes longer for a record: also if it sends, but nothing whole.
    pub fn set_patience(&mut self, patience: Duration) {
        self.body.set_idle_timeout(patience);
        self.patience = patience;
    }

    /// The next event. May be dropped and called again without losing one.
    pub async fn next(&mut self) -> Result<scheduler::Event, SessionError> {
        let patience = self.patience;
        let record = timeout(patience, self.record()).await.map_err(|_| SessionError::Stalled(patience))??;
        Ok(text::decode(&record)?)
    }

    async fn record(&mut self) -> Result<Bytes, SessionError> {
        loop {
            if let Some(record) = self.codec.decode(&mut self.buffer)? {
                return Ok(record);
            }
            match self.body.next().await {
                Some(piece) => self.buffer.extend_from_slice(&piece?),
                None => {
                    self.codec.decode_eof(&mut self.buffer)?;
                    return Err(SessionError::Closed);
                }
            }
        }
    }
}

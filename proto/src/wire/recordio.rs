//! RecordIO, the framing of Mesos' event streams: `<length in decimal> LF <payload>`, no LF after it.
//!
//! Used by the scheduler client and by the embedded master and executor. Records and HTTP chunks are
//! independent: any split is accepted, inside the length too. A bad length cannot be recovered from,
//! so after an error the connection must be dropped; the decoder answers nothing more.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// The largest record accepted unless told otherwise: a master's offers for a large cluster fit.
pub const MAX_RECORD: usize = 64 << 20;

/// Digits of the longest length that a 64-bit number can have.
const MAX_DIGITS: usize = 20;

/// Why a stream is not RecordIO, or not one that we are willing to read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The length holds something that is not a decimal digit, or nothing at all.
    #[error("the length of a RecordIO record is not a number (got byte 0x{0:02x}); is this stream RecordIO?")]
    NotANumber(u8),
    /// No line feed after as many digits as a length can have.
    #[error("the length of a RecordIO record has more than {MAX_DIGITS} digits")]
    LengthTooLong,
    /// The record is larger than the reader's limit.
    #[error("a RecordIO record of {length} bytes is over the limit of {limit} bytes")]
    RecordTooLarge {
        /// As announced; saturated.
        length: u64,
        /// The reader's.
        limit: usize,
    },
    /// The stream ended in the middle of a record.
    #[error("the stream ended in the middle of a RecordIO record")]
    Truncated,
    /// The stream was already found to be bad.
    #[error("the RecordIO stream was given up after an earlier error")]
    GivenUp,
    /// The transport failed.
    #[error("reading the RecordIO stream: {0}")]
    Io(#[from] std::io::Error),
}

/// Splits a byte stream into records, and frames records for one.
#[derive(Debug)]
pub struct Codec {
    limit: usize,
    /// Length of the record whose payload is awaited.
    awaited: Option<usize>,
    broken: bool,
}

impl Default for Codec {
    fn default() -> Self {
        Codec::new(MAX_RECORD)
    }
}

impl Codec {
    /// A decoder that refuses records of more than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Codec { limit, awaited: None, broken: false }
    }

    /// Reads `<digits> LF` off the front, once it is all there.
    fn length(&self, source: &mut BytesMut) -> Result<Option<usize>, Error> {
        let mut length: u64 = 0;
        for (index, byte) in source.iter().enumerate() {
            match byte {
                b'\n' if index > 0 => {
                    source.advance(index + 1);
                    let fits = usize::try_from(length).ok().filter(|length| *length <= self.limit);
                    return fits.map(Some).ok_or(Error::RecordTooLarge { length, limit: self.limit });
                }
                b'0'..=b'9' if index < MAX_DIGITS => {
                    length = length.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
                }
                b'0'..=b'9' => return Err(Error::LengthTooLong),
                other => return Err(Error::NotANumber(*other)),
            }
        }
        Ok(None)
    }

    fn step(&mut self, source: &mut BytesMut) -> Result<Option<Bytes>, Error> {
        let awaited = match self.awaited {
            Some(length) => length,
            None => match self.length(source)? {
                Some(length) => *self.awaited.insert(length),
                None => return Ok(None),
            },
        };
        if source.len() < awaited {
            // Grown as data arrives and not by what the peer announces.
            source.reserve((awaited - source.len()).min(1 << 20));
            return Ok(None);
        }
        self.awaited = None;
        Ok(Some(source.split_to(awaited).freeze()))
    }
}

impl Decoder for Codec {
    type Item = Bytes;
    type Error = Error;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Bytes>, Error> {
        if self.broken {
            return Err(Error::GivenUp);
        }
        let result = self.step(source);
        self.broken = result.is_err();
        result
    }

    fn decode_eof(&mut self, source: &mut BytesMut) -> Result<Option<Bytes>, Error> {
        match self.decode(source)? {
            None if self.awaited.is_some() || !source.is_empty() => Err(Error::Truncated),
            record => Ok(record),
        }
    }
}

impl Encoder<&[u8]> for Codec {
    type Error = Error;

    fn encode(&mut self, record: &[u8], target: &mut BytesMut) -> Result<(), Error> {
        target.extend_from_slice(&encode(record));
        Ok(())
    }
}

/// One record, framed: best sent as one HTTP chunk, since weak clients read no other way.
#[must_use]
pub fn encode(record: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(record.len() + MAX_DIGITS + 1);
    framed.put_slice(record.len().to_string().as_bytes());
    framed.put_u8(b'\n');
    framed.put_slice(record);
    framed.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(codec: &mut Codec, chunks: &[&[u8]]) -> Result<Vec<Bytes>, Error> {
        let (mut buffer, mut records) = (BytesMut::new(), Vec::new());
        for chunk in chunks {
            buffer.extend_from_slice(chunk);
            while let Some(record) = codec.decode(&mut buffer)? {
                records.push(record);
            }
        }
        while let Some(record) = codec.decode_eof(&mut buffer)? {
            records.push(record);
        }
        Ok(records)
    }

    #[test]
    fn the_documented_record_is_read_and_written() {
        assert_eq!(encode(br#"{"type":"HEARTBEAT"}"#), "20\n{\"type\":\"HEARTBEAT\"}");
        let records = read(&mut Codec::default(), &[b"20\n{\"type\":\"HEARTBEAT\"}"]).unwrap();
        assert_eq!(records, ["{\"type\":\"HEARTBEAT\"}"]);
    }

    #[test]
    fn a_length_that_is_no_number_gives_the_stream_up() {
        let mut codec = Codec::default();
        assert!(matches!(read(&mut codec, &[b"<html>"]), Err(Error::NotANumber(b'<'))));
        assert!(matches!(codec.decode(&mut BytesMut::from("3\nabc")), Err(Error::GivenUp)));
        assert!(matches!(read(&mut Codec::default(), &[b"\nabc"]), Err(Error::NotANumber(b'\n'))));
    }

    #[test]
    fn lengths_over_the_limit_are_refused_before_their_payload_arrives() {
        assert!(matches!(read(&mut Codec::new(4), &[b"5\n"]), Err(Error::RecordTooLarge { length: 5, limit: 4 })));
        assert!(matches!(read(&mut Codec::default(), &[b"99999999999999999999\n"]), Err(Error::RecordTooLarge { .. })));
        assert!(matches!(read(&mut Codec::default(), &[&[b'0'; 21]]), Err(Error::LengthTooLong)));
    }

    #[test]
    fn a_stream_that_ends_inside_a_record_says_so() {
        assert!(matches!(read(&mut Codec::default(), &[b"5\nabc"]), Err(Error::Truncated)));
        assert!(matches!(read(&mut Codec::default(), &[b"5"]), Err(Error::Truncated)));
    }

    proptest! {
        #[test]
        fn any_records_survive_any_split(
            records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..10),
            size in 1usize..7,
        ) {
            let stream: Vec<u8> = records.iter().flat_map(|record| encode(record)).collect();
            let chunks: Vec<&[u8]> = stream.chunks(size).collect();
            let read = read(&mut Codec::default(), &chunks).unwrap();
            prop_assert_eq!(read, records.into_iter().map(Bytes::from).collect::<Vec<_>>());
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&mut Codec::new(64), &[&bytes]);
        }
    }
}

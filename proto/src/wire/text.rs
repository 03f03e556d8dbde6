//! Messages with texts that are no UTF-8. Mesos is written in C++, which lets a text hold any bytes: what a command of a container
//! has printed may stand in an update, and what somebody typed in Latin-1 in an agent's attributes. Such a message is read like any
//! other. Lost, an update would be sent again for ever; and with one offer all that come with it would be.

use std::ops::Range;

use bytes::Buf as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message, Name};
use prost_reflect::{Kind, MessageDescriptor};

use super::json;

/// Messages in messages that are looked through; prost reads no deeper ones either.
const MAX_DEPTH: usize = 100;

/// Reads a message. What is no UTF-8 in its texts becomes `?`, byte by byte.
///
/// # Errors
/// As for any message; of the bytes as they were given.
pub fn decode<M: Message + Name + Default>(bytes: &[u8]) -> Result<M, DecodeError> {
    M::decode(bytes).or_else(|error| {
        let Ok(descriptor) = json::descriptor(&M::full_name()) else { return Err(error) };
        let (mut legible, mut texts) = (bytes.to_vec(), Vec::new());
        find_texts(bytes, 0..bytes.len(), &descriptor, MAX_DEPTH, &mut texts);
        for place in texts {
            if let Some(text) = legible.get_mut(place) {
                make_legible(text);
            }
        }
        M::decode(legible.as_slice()).map_err(|_| error)
    })
}

/// Where the texts of the message at `place` lie, as far as it can be read.
fn find_texts(bytes: &[u8], place: Range<usize>, message: &MessageDescriptor, depth: usize, found: &mut Vec<Range<usize>>) {
    let Some(mut rest) = bytes.get(place.clone()).filter(|_| depth > 0) else { return };
    while let Ok((tag, wire)) = decode_key(&mut rest) {
        if wire != WireType::LengthDelimited {
            if skip_field(wire, tag, &mut rest, DecodeContext::default()).is_err() {
                return;
            }
            continue;
        }
        let length = decode_varint(&mut rest).ok().and_then(|length| usize::try_from(length).ok());
        let Some(length) = length.filter(|length| *length <= rest.len()) else { return };
        let start = place.end - rest.len();
        match message.get_field(tag).map(|field| field.kind()) {
            Some(Kind::String) => found.push(start..start + length),
            Some(Kind::Message(inner)) => find_texts(bytes, start..start + length, &inner, depth - 1, found),
            _ => {}
        }
        rest.advance(length);
    }
}

fn make_legible(mut text: &mut [u8]) {
    while let Err(error) = std::str::from_utf8(text) {
        let (good, bad) = (error.valid_up_to(), error.error_len());
        let end = bad.map_or(text.len(), |bad| good + bad);
        if let Some(bytes) = text.get_mut(good..end) {
            bytes.fill(b'?');
        }
        text = text.get_mut(end..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesos::v1;
    use crate::mesos::v1::scheduler::{Event, event};

    fn update(message: &str) -> Event {
        let status = v1::TaskStatus {
            task_id: v1::TaskId { value: "t".to_owned() },
            state: v1::TaskState::TaskFailed.into(),
            message: Some(message.to_owned()),
            uuid: Some(vec![0xff; 16].into()),
            ..v1::TaskStatus::default()
        };
        Event { r#type: Some(event::Type::Update.into()), update: Some(event::Update { status }), ..Event::default() }
    }

    fn offer(attribute: &str) -> Event {
        let attribute = v1::Attribute {
            name: "site".to_owned(),
            r#type: v1::value::Type::Text.into(),
            text: Some(v1::value::Text { value: attribute.to_owned() }),
            ..v1::Attribute::default()
        };
        let offers = vec![v1::Offer { hostname: "é".to_owned(), attributes: vec![attribute], ..v1::Offer::default() }];
        Event { r#type: Some(event::Type::Offers.into()), offers: Some(event::Offers { offers }), ..Event::default() }
    }

    /// With these bytes in the place of the first text that is `wanted`.
    fn spoilt(message: &impl Message, wanted: &[u8], bytes: &[u8]) -> Vec<u8> {
        let mut record = message.encode_to_vec();
        let at = record.windows(wanted.len()).position(|window| window == wanted).unwrap();
        record[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(Event::decode(record.as_slice()).is_err());
        record
    }

    #[test]
    fn what_is_no_text_is_read_with_all_else_in_the_message() {
        let record = spoilt(&update("said: ##### é"), b"#####", &[0xff, 0xfe, 0xe2, 0x82, 0xff]);
        assert_eq!(decode(&record), Ok(update("said: ????? é")));
        let record = spoilt(&offer("M#nchen"), b"#", &[0xfc]);
        assert_eq!(decode(&record), Ok(offer("M?nchen")));
    }

    #[test]
    fn an_executor_reads_what_its_agent_tells_of_itself() {
        use v1::executor::{Event, event};
        let told = |attribute: &str| {
            let attributes = offer(attribute).offers.unwrap().offers.remove(0).attributes;
            let agent_info = v1::AgentInfo { hostname: "h".to_owned(), attributes, ..v1::AgentInfo::default() };
            let subscribed = event::Subscribed { agent_info, ..event::Subscribed::default() };
            Event { r#type: Some(event::Type::Subscribed.into()), subscribed: Some(subscribed), ..Event::default() }
        };
        let mut record = told("M#nchen").encode_to_vec();
        let at = record.windows(7).position(|window| window == b"M#nchen").unwrap();
        record[at + 1] = 0xfc;
        assert!(Event::decode(record.as_slice()).is_err());
        assert_eq!(decode(&record), Ok(told("M?nchen")));
    }

    #[test]
    fn what_is_no_event_is_none() {
        for record in [&[0xff; 4][..], &[0x2a, 0x7f, 0x0a], &[0x2a, 0x02, 0x0a, 0x7f], &update("x").encode_to_vec()[..9]] {
            assert_eq!(decode::<Event>(record), Event::decode(record), "{record:?}");
        }
    }
}

//! Messages of tasks that are no UTF-8. Mesos is written in C++, which lets a text hold any bytes, and what a command of a container
//! has printed may stand in one. Such an update is told like any other: lost, it would be sent again for ever.

use std::ops::Range;

use bytes::Buf as _;
use podium_proto::mesos::v1::scheduler::Event;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message as _};

/// Field numbers on the way to the message: the event's update, its status, the status' message.
const MESSAGE: [u32; 3] = [5, 1, 4];

/// Reads an event. What is no UTF-8 in the message of an update becomes `?`, byte by byte.
pub(super) fn event(record: &[u8]) -> Result<Event, DecodeError> {
    Event::decode(record).or_else(|error| {
        let mut legible = record.to_vec();
        let [update, status, message] = MESSAGE;
        let updates = fields(record, 0..record.len(), update).into_iter();
        let statuses = updates.flat_map(|place| fields(record, place, status));
        for place in statuses.flat_map(|place| fields(record, place, message)) {
            if let Some(text) = legible.get_mut(place) {
                make_legible(text);
            }
        }
        Event::decode(legible.as_slice()).map_err(|_| error)
    })
}

/// Where the fields of a number lie in the message at `place`, as far as it can be read.
fn fields(record: &[u8], place: Range<usize>, number: u32) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let Some(mut rest) = record.get(place.clone()) else { return found };
    while let Ok((tag, wire)) = decode_key(&mut rest) {
        if tag != number || wire != WireType::LengthDelimited {
            if skip_field(wire, tag, &mut rest, DecodeContext::default()).is_err() {
                break;
            }
            continue;
        }
        let Some(length) =
            decode_varint(&mut rest).ok().and_then(|length| usize::try_from(length).ok()).filter(|length| *length <= rest.len())
        else {
            break;
        };
        let start = place.end - rest.len();
        found.push(start..start + length);
        rest.advance(length);
    }
    found
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
    use podium_proto::mesos::v1;
    use podium_proto::mesos::v1::scheduler::event;

    use super::*;

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

    #[test]
    fn an_update_whose_message_is_no_text_is_read_with_all_else_in_it() {
        let mut record = update("said: ## é, ###").encode_to_vec();
        let at = |record: &[u8], wanted: &[u8]| record.windows(wanted.len()).position(|bytes| bytes == wanted).unwrap();
        for (wanted, bytes) in [(&b"##"[..], &[0xff, 0xfe][..]), (b"###", &[0xe2, 0x82, 0xff])] {
            let at = at(&record, wanted);
            record[at..at + bytes.len()].copy_from_slice(bytes);
        }
        assert!(Event::decode(record.as_slice()).is_err());
        assert_eq!(event(&record).unwrap(), update("said: ?? é, ???"));
    }

    #[test]
    fn what_is_no_event_is_none() {
        for record in [&[0xff; 4][..], &[0x2a, 0x7f, 0x0a], &[0x2a, 0x02, 0x0a, 0x7f], &update("x").encode_to_vec()[..9]] {
            assert_eq!(event(record), Event::decode(record), "{record:?}");
        }
    }
}

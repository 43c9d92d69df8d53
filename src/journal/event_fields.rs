//! The fields of an event frame by which a search selects events. They borrow from the frame, so a search allocates nothing for an
//! event that it does not return.

use super::frame::{FRAME_HEADER_LEN, FrameHeader};
use super::payload::PayloadReader;
use crate::clock::UnixMillis;
use crate::event::Position;

/// Fields of a stored event, without the request and the body.
#[derive(Clone, Copy, Debug)]
pub struct EventFields<'a> {
    /// Position at which the event was first written.
    pub position: Position,
    /// Time when the server read the first byte of the request head.
    pub received_at: UnixMillis,
    /// Kafka topic of the event's source, as configured when the delivery arrived.
    pub topic: &'a str,
    /// Name of the event's source in the configuration.
    pub source: &'a str,
    /// Event id that the provider assigned; `None` if the delivery contained no valid id.
    pub id: Option<&'a str>,
    /// Event type as the provider spells it; `None` if the delivery contained no event type.
    pub event_type: Option<&'a str>,
}

/// Reads the fields of a valid event frame; `None` if a later version wrote the frame.
pub(super) fn read<'a>(header: &FrameHeader, frame: &'a [u8]) -> Option<EventFields<'a>> {
    let mut input = PayloadReader { bytes: frame, at: FRAME_HEADER_LEN };
    let received_at = UnixMillis(input.u64()?);
    input.take(KEY_AND_FINGERPRINT_LEN)?;
    let topic = input.text()?;
    // The time at which the event happened.
    input.u64()?;
    let source = input.text()?;
    let [id, event_type] = [input.optional_str().ok()?, input.optional_str().ok()?];
    let position = Position { log: header.log, seq: header.seq };
    Some(EventFields { position, received_at, topic, source, id, event_type })
}

/// Size in bytes of the dedupe key and of the fingerprint.
const KEY_AND_FINGERPRINT_LEN: usize = 16 + 12;

//! The bytes of one frame. Pure functions: no files, no clock.
//!
//! ```text
//! 0    4    8        16       24   25    26        27     28  32           len
//! +----+----+--------+--------+----+-----+---------+------+---+--------------+
//! |len |crc | log id |  seq   |kind|flags|integrity|  0   | 0 | payload …    |   then zeroes to the next multiple of 8
//! +----+----+--------+--------+----+-----+---------+------+---+--------------+
//! ```
//!
//! All numbers are little-endian. `crc` is CRC-32C over bytes 24..len, then log id, sequence and the id of the segment that
//! holds the frame. In that order a sender's task computes most of it and the writer only adds the last 24 bytes, and a frame
//! that lies in the wrong file, or was left there by an earlier life of it, never passes.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::payload::{Reader, Writer, u32_at, u64_at};
use crate::clock::UnixMillis;
use crate::event::{Event, EventParts, EventRequest, Integrity, LogId};
use crate::event_key::EventKey;

/// Frames begin at multiples of this many bytes.
pub const ALIGN: usize = 8;
/// Bytes before a frame's payload.
pub const HEAD: usize = 32;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One event.
    Event = 1,
    /// The first frame of a commit.
    Commit = 2,
    /// A snapshot of all cursors.
    Cursors = 3,
}

/// A frame whose checksum has been checked, or that is about to be written.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Length in bytes, without padding.
    pub len: usize,
    /// The opening under which it was first written.
    pub log: LogId,
    /// An event's sequence; for control frames, the sequence of the next event.
    pub seq: u64,
    /// What it is.
    pub kind: Kind,
}

/// What the first frame of a commit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Every event below this sequence was on disk before this commit was written.
    pub mark: u64,
    /// Events in this commit.
    pub count: u32,
    /// Bytes of this commit with this frame and all padding.
    pub length: u64,
}

/// The length with padding.
pub fn padded(len: usize) -> usize {
    len.next_multiple_of(ALIGN)
}

/// Reads a frame's head, if `bytes` can be the start of one that is at most `room` bytes long. Proves nothing yet.
pub fn peek(bytes: &[u8], room: u64) -> Option<Head> {
    let len = u32_at(bytes, 0)? as usize;
    let kind = match bytes.get(24)? {
        1 => Kind::Event,
        2 => Kind::Commit,
        3 => Kind::Cursors,
        _ => return None,
    };
    let fits = (HEAD..=room.min(u32::MAX as u64) as usize).contains(&len) && bytes.get(27..HEAD)? == [0; HEAD - 27];
    fits.then_some(Head { len, log: LogId(u64_at(bytes, 8)?), seq: u64_at(bytes, 16)?, kind })
}

/// True if `frame` (exactly `len` bytes) carries the checksum that it has in this segment.
pub fn is_genuine(frame: &[u8], segment: u64) -> bool {
    frame.len() >= HEAD && is_genuine_by(frame, crc32c::crc32c(&frame[24..]), segment)
}

/// The same, from a frame's head and the checksum of everything behind its first 24 bytes.
pub fn is_genuine_by(head: &[u8], sum: u32, segment: u64) -> bool {
    head.len() >= HEAD && u32_at(head, 4) == Some(bind(sum, &head[8..24], segment))
}

/// A frame that is complete but for sequence, log id and checksum.
pub struct Draft {
    bytes: Vec<u8>,
    payload_crc: u32,
}

impl Draft {
    /// Lays out an event. Everything that costs time happens here, in the sender's task.
    pub fn event(event: &Event) -> Draft {
        let mut out = begin(Kind::Event, HEAD + event_len(event));
        out.0[25] = u8::from(event.dedupe_key().is_some()) | (u8::from(event.occurred_at().is_some()) << 1);
        out.0[26] = Integrity::ALL.iter().position(|i| *i == event.integrity()).expect("ALL lists every value") as u8;
        out.u64(event.received_at().0);
        out.0.extend_from_slice(&event.dedupe_key().map_or([0; 16], |key| key.0));
        out.text(event.topic());
        out.u64(event.occurred_at().map_or(0, |at| at.0));
        out.text(event.source());
        out.maybe(event.id());
        out.maybe(event.event_type());
        out.text(event.type_prefix());
        out.maybe(event.ordering_key());
        out.text(event.auth());
        let request = event.request();
        out.text(&request.method);
        out.text(&request.target);
        out.print(&request.remote);
        out.maybe(request.traceparent.as_deref());
        out.u32(request.headers.len() as u32);
        for (name, value) in &request.headers {
            out.text(name.as_str());
            out.bytes(value.as_bytes());
        }
        out.bytes(event.body());
        debug_assert!(out.0.len() <= HEAD + event_len(event), "event_len forgets a field");
        finish(out)
    }

    /// Lays out the first frame of a commit whose other frames, with their padding, are `others` bytes long.
    pub fn commit(mark: u64, count: u32, others: u64) -> Draft {
        let commit = Commit { mark, count, length: padded(COMMIT_LEN) as u64 + others };
        let mut out = begin(Kind::Commit, COMMIT_LEN);
        out.u64(commit.mark);
        out.u64(commit.length);
        out.u32(commit.count);
        finish(out)
    }

    /// Lays out a snapshot of all cursors.
    pub fn cursors<'a>(cursors: impl ExactSizeIterator<Item = (&'a Arc<str>, u64)>) -> Draft {
        let mut out = begin(Kind::Cursors, HEAD + 64 * cursors.len());
        out.u32(cursors.len() as u32);
        for (lane, cursor) in cursors {
            out.text(lane);
            out.u64(cursor);
        }
        finish(out)
    }

    /// Bytes that the frame will occupy.
    pub fn padded_len(&self) -> usize {
        padded(self.bytes.len())
    }

    /// Appends the finished frame and its padding to `out`.
    pub fn seal_into(&self, out: &mut Vec<u8>, log: LogId, seq: u64, segment: u64) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        seal(&mut out[start..], self.payload_crc, log, seq, segment);
        out.resize(start + self.padded_len(), 0);
    }
}

/// Appends a copy of a genuine frame, bound to another segment; log id and sequence stay.
pub fn copy_into(frame: &[u8], out: &mut Vec<u8>, head: &Head, segment: u64) {
    let start = out.len();
    out.extend_from_slice(frame);
    seal(&mut out[start..], crc32c::crc32c(&frame[24..]), head.log, head.seq, segment);
    out.resize(start + padded(frame.len()), 0);
}

/// The fields of an event that the journal itself needs.
pub struct Facts {
    /// When it arrived: the first-seen time of its key.
    pub received_at: UnixMillis,
    /// What makes repeats recognisable.
    pub key: Option<EventKey>,
    /// The topic that it goes to.
    pub lane: Arc<str>,
}

/// Reads the [`Facts`] of a genuine event frame. `None`: this version cannot read it.
pub fn facts(frame: &[u8]) -> Option<Facts> {
    let mut input = Reader { bytes: frame, at: HEAD };
    let received_at = UnixMillis(input.u64()?);
    let key: [u8; 16] = input.take(16)?.try_into().ok()?;
    let key = (frame[25] & 1 != 0).then_some(EventKey(key));
    Some(Facts { received_at, key, lane: input.text()?.into() })
}

/// Reads a genuine event frame back. `None`: this version cannot read it.
pub fn decode_event(frame: &[u8]) -> Option<Event> {
    let Facts { received_at, key, lane } = facts(frame)?;
    let mut input = Reader { bytes: frame, at: HEAD + 24 + 4 + lane.len() };
    let occurred_at = input.u64()?;
    let parts = EventParts {
        received_at,
        dedupe_key: key,
        topic: lane,
        occurred_at: (frame[25] & 2 != 0).then_some(UnixMillis(occurred_at)),
        integrity: *Integrity::ALL.get(frame[26] as usize)?,
        source: input.text()?.into(),
        id: input.maybe()?,
        event_type: input.maybe()?,
        type_prefix: input.text()?.into(),
        ordering_key: input.maybe()?,
        auth: input.text()?.into(),
        request: EventRequest {
            method: input.text()?.to_owned(),
            target: input.text()?.to_owned(),
            remote: input.text()?.parse::<SocketAddr>().ok()?,
            traceparent: input.maybe()?,
            headers: input.headers()?,
        },
        body: Bytes::copy_from_slice(input.bytes()?),
    };
    Some(Event::from_journal(parts))
}

/// Reads a genuine commit frame back.
pub fn decode_commit(frame: &[u8]) -> Option<Commit> {
    let mut input = Reader { bytes: frame, at: HEAD };
    Some(Commit { mark: input.u64()?, length: input.u64()?, count: input.u32()? })
}

/// Reads a genuine cursor snapshot back.
pub fn decode_cursors(frame: &[u8]) -> Option<Vec<(Arc<str>, u64)>> {
    let mut input = Reader { bytes: frame, at: HEAD };
    let count = input.u32()?;
    (0..count).map(|_| Some((input.text()?.into(), input.u64()?))).collect()
}

fn begin(kind: Kind, capacity: usize) -> Writer {
    let mut bytes = Vec::with_capacity(capacity + ALIGN);
    bytes.resize(HEAD, 0);
    bytes[24] = kind as u8;
    Writer(bytes)
}

fn finish(mut out: Writer) -> Draft {
    let len = out.0.len() as u32;
    out.0[..4].copy_from_slice(&len.to_le_bytes());
    Draft { payload_crc: crc32c::crc32c(&out.0[24..]), bytes: out.0 }
}

fn seal(frame: &mut [u8], payload_crc: u32, log: LogId, seq: u64, segment: u64) {
    frame[8..16].copy_from_slice(&log.0.to_le_bytes());
    frame[16..24].copy_from_slice(&seq.to_le_bytes());
    let crc = bind(payload_crc, &frame[8..24], segment);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn bind(payload_crc: u32, log_and_seq: &[u8], segment: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(payload_crc, log_and_seq), &segment.to_le_bytes())
}

/// An event's payload in bytes, or a few more: one allocation holds it, and none is larger than need be.
fn event_len(event: &Event) -> usize {
    let len = |text: Option<&str>| text.map_or(0, str::len);
    let texts = event.topic().len() + event.source().len() + event.type_prefix().len() + event.auth().len();
    let request = event.request();
    let head = request.method.len() + request.target.len() + REMOTE_LEN + len(request.traceparent.as_deref());
    let names = len(event.id()) + len(event.event_type()) + len(event.ordering_key());
    let headers: usize = request.headers.iter().map(|(name, value)| 8 + name.as_str().len() + value.len()).sum();
    FIXED_LEN + texts + head + names + headers + event.body().len()
}

/// Bytes of an event's payload besides text, headers and body: two times, the key, and thirteen lengths.
const FIXED_LEN: usize = 8 + 16 + 8 + 13 * 4;
/// The longest address with its port.
const REMOTE_LEN: usize = "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255%4294967295]:65535".len();
/// Bytes of a commit frame.
pub const COMMIT_LEN: usize = HEAD + 20;

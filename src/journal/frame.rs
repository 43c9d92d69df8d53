//! Encodes and decodes single frames. All functions are pure: they access neither files nor a clock.
//!
//! ```text
//! 0    4    8        16       24   25    26        27     28  32                      len
//! +----+----+--------+--------+----+-----+---------+------+---+-----------+-----------+
//! |len |crc | log id |  seq   |kind|flags|integrity|  0   | 0 | payload … | optional… |   zeroes to the next multiple of 8
//! +----+----+--------+--------+----+-----+---------+------+---+-----------+-----------+
//! ```
//!
//! All numbers in a frame are little-endian. `crc` is the CRC-32C of four parts in this order: bytes 24..len, the log id, the
//! sequence, and the id of the segment that contains the frame. The task that appends the event computes the checksum of bytes
//! 24..len. The writer extends this checksum with the other three parts (24 bytes). Because the checksum covers the segment id,
//! a frame is invalid if it is in the wrong file, or if it belongs to an earlier segment that used the same file.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::journal_time::{CommitTimes, JournalMillis};
use super::keys::ListedKeyFile;
use super::payload::{OPTIONAL_HEADER_LEN, PayloadReader, PayloadWriter, u32_at, u64_at};
use super::segment_name::SegmentName;
use crate::clock::UnixMillis;
use crate::event::{Event, EventParts, EventRequest, Integrity, LogId};
use crate::event_key::EventKey;
use crate::fingerprint::Fingerprint;

/// Kind of a frame, with its number on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    Event = 1,
    /// First frame of a commit, with the durable watermark and the length of the commit.
    Commit = 2,
    /// Cursors of topics.
    Cursors = 3,
    /// List of all older segments.
    Segments = 4,
    /// Segments that the journal is about to delete.
    Release = 5,
    /// List of all key files.
    KeyFiles = 6,
    /// Sequences of lost events.
    Lost = 7,
    /// Sequences of events that a rewritten segment no longer contains, because no topic needed them.
    Omitted = 8,
    /// Frame that a later version wrote.
    Later = 255,
}

/// Decoded header of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameHeader {
    /// Length in bytes, without padding.
    pub(super) len: usize,
    /// Log id of the journal when the frame was first written. A copy of the frame has the same log id.
    pub(super) log: LogId,
    /// Sequence of the event. In a commit frame or a cursors frame, the sequence of the next event.
    pub(super) seq: u64,
    pub(super) kind: FrameKind,
}

/// Content of a commit frame, which is the first frame of each commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CommitFrame {
    /// Durable watermark before this commit was written.
    pub(super) watermark: u64,
    /// Number of events in this commit.
    pub(super) count: u32,
    /// Size of this commit in bytes, including this frame and the padding of all frames, but not the padding of the page.
    pub(super) length: u64,
    /// Time of the commit, which is the first-seen time of the keys of its events.
    pub(super) times: CommitTimes,
}

/// Content of a cursors frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CursorsFrame {
    /// True if the frame contains the cursors of all topics. Otherwise, the frame contains the cursors that have moved since the
    /// last commit with cursors.
    pub(super) is_complete: bool,
    pub(super) cursors: Vec<(Arc<str>, u64)>,
    /// Sequence from which on no event waits for a topic, because the journal was open without forwarding when these events were
    /// stored. `None` if the journal forwards events. Only a complete frame contains it.
    pub(super) backlog_end: Option<u64>,
}

/// Entry in the list of older segments, with which every segment starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListedSegment {
    pub(super) name: SegmentName,
    /// Sequence after the last event of the segment. Equal to the first sequence if the segment contains no event.
    pub(super) next_seq: u64,
}

/// Fields of an event that the journal needs for segment summaries and for its key index.
pub(super) struct FrameFacts {
    pub(super) received_at: UnixMillis,
    pub(super) key: Option<EventKey>,
    pub(super) fingerprint: Fingerprint,
    pub(super) topic: Arc<str>,
    /// True if the next event belongs to the same delivery.
    pub(super) continues: bool,
}

/// Encoded frame without its sequence, log id and checksum.
pub(super) struct FrameDraft {
    bytes: Vec<u8>,
    payload_crc: u32,
}

impl FrameDraft {
    /// Encodes an event. `continues` is true if the next event belongs to the same delivery. This function runs in the task
    /// that appends the event, so that the writer neither encodes the event nor computes the checksum of its payload.
    pub(super) fn event(event: &Event, continues: bool) -> FrameDraft {
        let mut out = start_frame(FrameKind::Event, FRAME_HEADER_LEN + event_len(event));
        let flags = [(HAS_KEY, event.dedupe_key().is_some()), (HAS_TIME, event.occurred_at().is_some()), (CONTINUES, continues)];
        out.0[25] = flags.into_iter().map(|(flag, is_set)| if is_set { flag } else { 0 }).sum();
        out.0[26] = Integrity::ALL.iter().position(|i| *i == event.integrity()).expect("ALL lists every value") as u8;
        out.u64(event.received_at().0);
        out.0.extend_from_slice(&event.dedupe_key().map_or([0; 16], |key| key.0));
        out.0.extend_from_slice(&event.fingerprint().secret);
        out.0.extend_from_slice(&event.fingerprint().body);
        out.text(event.topic());
        out.u64(event.occurred_at().map_or(0, |at| at.0));
        out.text(event.source());
        out.optional_text(event.id());
        out.optional_text(event.event_type());
        out.text(event.type_prefix());
        out.optional_text(event.ordering_key());
        out.text(event.auth());
        let request = event.request();
        out.text(&request.method);
        out.text(&request.target);
        out.display(&request.remote);
        out.optional_text(request.traceparent.as_deref());
        out.u32(request.headers.len() as u32);
        for (name, value) in &request.headers {
            out.text(name.as_str());
            out.bytes(value.as_bytes());
        }
        out.bytes(event.body());
        out.optional_field(ACCOUNT, event.account().map(str::as_bytes));
        debug_assert!(out.0.len() <= FRAME_HEADER_LEN + event_len(event), "event_len lacks a field");
        finish_frame(out)
    }

    /// Encodes the first frame of a commit. The other frames of the commit occupy `others` bytes, including padding.
    pub(super) fn commit(watermark: u64, count: u32, others: u64, times: CommitTimes) -> FrameDraft {
        let mut out = start_frame(FrameKind::Commit, COMMIT_LEN);
        out.u64(watermark);
        out.u64(padded(COMMIT_LEN) as u64 + others);
        out.u32(count);
        out.u32(0);
        out.u64(times.journal.0);
        out.u64(times.wall.0);
        finish_frame(out)
    }

    /// Encodes the fields of a [`CursorsFrame`].
    pub(super) fn cursors(cursors: &[(Arc<str>, u64)], is_complete: bool, backlog_end: Option<u64>) -> FrameDraft {
        let mut out = start_frame(FrameKind::Cursors, FRAME_HEADER_LEN + 4 + 64 * cursors.len());
        out.0[25] = if is_complete { ALL_TOPICS } else { 0 };
        out.u32(cursors.len() as u32);
        for (topic, cursor) in cursors {
            out.text(topic);
            out.u64(*cursor);
        }
        out.optional_field(BACKLOG_END, backlog_end.map(u64::to_le_bytes).as_ref().map(<[u8; 8]>::as_slice));
        finish_frame(out)
    }

    /// Encodes the list of all older segments.
    pub(super) fn segments(segments: &[ListedSegment]) -> FrameDraft {
        let mut out = start_frame(FrameKind::Segments, FRAME_HEADER_LEN + 4 + 32 * segments.len());
        out.u32(segments.len() as u32);
        for ListedSegment { name, next_seq } in segments {
            [name.ordinal, name.id, name.first_seq, *next_seq].into_iter().for_each(|number| out.u64(number));
        }
        finish_frame(out)
    }

    /// Encodes the record that the journal is about to delete these segments.
    pub(super) fn release(names: impl ExactSizeIterator<Item = SegmentName>) -> FrameDraft {
        let mut out = start_frame(FrameKind::Release, FRAME_HEADER_LEN + 4 + 24 * names.len());
        out.u32(names.len() as u32);
        for name in names {
            [name.ordinal, name.id, name.first_seq].into_iter().for_each(|number| out.u64(number));
        }
        finish_frame(out)
    }

    /// Encodes the list of all key files with keys.
    pub(super) fn key_files(files: &[ListedKeyFile]) -> FrameDraft {
        let mut out = start_frame(FrameKind::KeyFiles, FRAME_HEADER_LEN + 4 + 16 * files.len());
        out.u32(files.len() as u32);
        for ListedKeyFile { id, keys } in files {
            out.u64(*id);
            out.u64(*keys);
        }
        finish_frame(out)
    }

    /// Encodes ranges of sequences. `kind` is [`FrameKind::Lost`] or [`FrameKind::Omitted`].
    pub(super) fn ranges(kind: FrameKind, ranges: &[Range<u64>]) -> FrameDraft {
        let mut out = start_frame(kind, FRAME_HEADER_LEN + 4 + 16 * ranges.len());
        out.u32(ranges.len() as u32);
        for range in ranges {
            out.u64(range.start);
            out.u64(range.end);
        }
        finish_frame(out)
    }

    /// Returns the number of bytes that the frame will occupy, including padding.
    pub(super) fn padded_len(&self) -> usize {
        padded(self.bytes.len())
    }

    /// Appends the finished frame and its padding to `out`.
    pub(super) fn write_into(&self, out: &mut Vec<u8>, log: LogId, seq: u64, segment: u64) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        set_header(&mut out[start..], self.payload_crc, log, seq, segment);
        out.resize(start + self.padded_len(), 0);
    }
}

/// Rounds a frame length up to a multiple of [`FRAME_ALIGN`].
pub(super) fn padded(len: usize) -> usize {
    len.next_multiple_of(FRAME_ALIGN)
}

/// Parses a frame header; `None` if `bytes` cannot be the start of a frame of at most `room` bytes. Does not verify the
/// checksum.
pub(super) fn parse_header(bytes: &[u8], room: u64) -> Option<FrameHeader> {
    let len = u32_at(bytes, 0)? as usize;
    let kind = match bytes.get(24)? {
        1 => FrameKind::Event,
        2 => FrameKind::Commit,
        3 => FrameKind::Cursors,
        4 => FrameKind::Segments,
        5 => FrameKind::Release,
        6 => FrameKind::KeyFiles,
        7 => FrameKind::Lost,
        8 => FrameKind::Omitted,
        0 => return None,
        _ => FrameKind::Later,
    };
    let fits = (FRAME_HEADER_LEN..=room.min(u32::MAX as u64) as usize).contains(&len)
        && bytes.get(27..FRAME_HEADER_LEN)? == [0; FRAME_HEADER_LEN - 27];
    fits.then_some(FrameHeader { len, log: LogId(u64_at(bytes, 8)?), seq: u64_at(bytes, 16)?, kind })
}

/// Returns true if `frame` has a valid checksum for the segment with the id `segment`. `frame` must have exactly the length
/// that its header states.
pub(super) fn is_valid(frame: &[u8], segment: u64) -> bool {
    frame.len() >= FRAME_HEADER_LEN && matches_checksum(frame, crc32c::crc32c(&frame[24..]), segment)
}

/// Returns true if the checksum in `header` is valid for the segment with the id `segment`. `payload_crc` is the checksum of
/// bytes 24..len of the frame.
pub(super) fn matches_checksum(header: &[u8], payload_crc: u32, segment: u64) -> bool {
    header.len() >= FRAME_HEADER_LEN && u32_at(header, 4) == Some(bind_crc(payload_crc, &header[8..24], segment))
}

/// Appends a copy of a valid frame to `out`, with the checksum for another segment. The copy has the log id and sequence of the
/// original frame.
pub(super) fn copy_into(frame: &[u8], out: &mut Vec<u8>, header: &FrameHeader, segment: u64) {
    let start = out.len();
    out.extend_from_slice(frame);
    set_header(&mut out[start..], crc32c::crc32c(&frame[24..]), header.log, header.seq, segment);
    out.resize(start + padded(frame.len()), 0);
}

/// Decodes the [`FrameFacts`] of a valid event frame; `None` if a later version wrote the frame.
pub(super) fn decode_facts(frame: &[u8]) -> Option<FrameFacts> {
    let mut input = PayloadReader { bytes: frame, at: FRAME_HEADER_LEN };
    let received_at = UnixMillis(input.u64()?);
    let key: [u8; 16] = input.take(16)?.try_into().ok()?;
    let key = (frame[25] & HAS_KEY != 0).then_some(EventKey(key));
    let fingerprint = Fingerprint { secret: input.take(6)?.try_into().ok()?, body: input.take(6)?.try_into().ok()? };
    let topic = input.text()?.into();
    Some(FrameFacts { received_at, key, fingerprint, topic, continues: frame[25] & CONTINUES != 0 })
}

/// Returns the topic of a valid event frame; `None` if a later version wrote the frame.
pub(super) fn event_topic(frame: &[u8]) -> Option<&str> {
    PayloadReader { bytes: frame, at: FRAME_HEADER_LEN + 36 }.text()
}

/// Decodes a valid event frame; `None` if a later version wrote the frame.
pub(super) fn decode_event(frame: &[u8]) -> Option<Event> {
    let FrameFacts { received_at, key, fingerprint, topic, .. } = decode_facts(frame)?;
    let mut input = PayloadReader { bytes: frame, at: FRAME_HEADER_LEN + 36 + 4 + topic.len() };
    let occurred_at = input.u64()?;
    let mut parts = EventParts {
        received_at,
        dedupe_key: key,
        fingerprint,
        account: None,
        topic,
        occurred_at: (frame[25] & HAS_TIME != 0).then_some(UnixMillis(occurred_at)),
        integrity: *Integrity::ALL.get(frame[26] as usize)?,
        source: input.text()?.into(),
        id: input.optional_text().ok()?,
        event_type: input.optional_text().ok()?,
        type_prefix: input.text()?.into(),
        ordering_key: input.optional_text().ok()?,
        auth: input.text()?.into(),
        request: Arc::new(EventRequest {
            method: input.text()?.to_owned(),
            target: input.text()?.to_owned(),
            remote: input.text()?.parse::<SocketAddr>().ok()?,
            traceparent: input.optional_text().ok()?,
            headers: input.headers()?,
        }),
        body: Bytes::copy_from_slice(input.bytes()?),
    };
    if let Some(account) = input.optional_value(ACCOUNT) {
        parts.account = Some(std::str::from_utf8(account).ok()?.into());
    }
    Some(Event::from_journal(parts))
}

/// Decodes a valid commit frame.
pub(super) fn decode_commit(frame: &[u8]) -> Option<CommitFrame> {
    let mut input = PayloadReader { bytes: frame, at: FRAME_HEADER_LEN };
    let (watermark, length, count) = (input.u64()?, input.u64()?, input.u32()?);
    input.take(4)?;
    let times = CommitTimes { journal: JournalMillis(input.u64()?), wall: UnixMillis(input.u64()?) };
    Some(CommitFrame { watermark, count, length, times })
}

/// Decodes a valid cursors frame.
pub(super) fn decode_cursors(frame: &[u8]) -> Option<CursorsFrame> {
    let mut input = PayloadReader { bytes: frame, at: FRAME_HEADER_LEN };
    let count = input.u32()?;
    let cursors: Option<Vec<_>> = (0..count).map(|_| Some((input.text()?.into(), input.u64()?))).collect();
    let (is_complete, cursors) = (frame[25] & ALL_TOPICS != 0, cursors?);
    let backlog_end = input.optional_value(BACKLOG_END).and_then(|end| u64_at(end, 0));
    Some(CursorsFrame { is_complete, cursors, backlog_end })
}

/// Decodes the list of older segments from a valid segments frame.
pub(super) fn decode_segments(frame: &[u8]) -> Option<Vec<ListedSegment>> {
    let mut input = PayloadReader { bytes: frame, at: FRAME_HEADER_LEN };
    let count = input.u32()?;
    let listed = (0..count).map(|_| Some(ListedSegment { name: segment_name(&mut input)?, next_seq: input.u64()? }));
    listed.collect()
}

/// Decodes the names of the segments from a valid release frame.
pub(super) fn decode_release(frame: &[u8]) -> Option<Vec<SegmentName>> {
    let mut input = PayloadReader { bytes: frame, at: FRAME_HEADER_LEN };
    let count = input.u32()?;
    (0..count).map(|_| segment_name(&mut input)).collect()
}

/// Decodes the list of key files from a valid key files frame.
pub(super) fn decode_key_files(frame: &[u8]) -> Option<Vec<ListedKeyFile>> {
    let mut input = PayloadReader { bytes: frame, at: FRAME_HEADER_LEN };
    let count = input.u32()?;
    (0..count).map(|_| Some(ListedKeyFile { id: input.u64()?, keys: input.u64()? })).collect()
}

/// Decodes the ranges of sequences from a valid lost frame or omitted frame.
pub(super) fn decode_ranges(frame: &[u8]) -> Option<Vec<Range<u64>>> {
    let mut input = PayloadReader { bytes: frame, at: FRAME_HEADER_LEN };
    let count = input.u32()?;
    (0..count).map(|_| Some(input.u64()?..input.u64()?)).collect()
}

fn segment_name(input: &mut PayloadReader<'_>) -> Option<SegmentName> {
    let (ordinal, id, first_seq) = (input.u64()?, input.u64()?, input.u64()?);
    Some(SegmentName { ordinal, first_seq, id })
}

fn start_frame(kind: FrameKind, capacity: usize) -> PayloadWriter {
    let mut bytes = Vec::with_capacity(capacity + FRAME_ALIGN);
    bytes.resize(FRAME_HEADER_LEN, 0);
    bytes[24] = kind as u8;
    PayloadWriter(bytes)
}

fn finish_frame(PayloadWriter(mut bytes): PayloadWriter) -> FrameDraft {
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    FrameDraft { payload_crc: crc32c::crc32c(&bytes[24..]), bytes }
}

fn set_header(frame: &mut [u8], payload_crc: u32, log: LogId, seq: u64, segment: u64) {
    frame[8..16].copy_from_slice(&log.0.to_le_bytes());
    frame[16..24].copy_from_slice(&seq.to_le_bytes());
    let crc = bind_crc(payload_crc, &frame[8..24], segment);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn bind_crc(payload_crc: u32, log_and_seq: &[u8], segment: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(payload_crc, log_and_seq), &segment.to_le_bytes())
}

/// Returns an upper bound for the number of bytes that the frame of an event will occupy, including padding.
pub(super) fn event_frame_len(event: &Event) -> usize {
    padded(FRAME_HEADER_LEN + event_len(event))
}

/// Returns an upper bound for the size of an event's payload in bytes, so that one allocation is sufficient. The bound is
/// tight, so the allocation wastes little memory.
fn event_len(event: &Event) -> usize {
    let len = |text: Option<&str>| text.map_or(0, str::len);
    let texts = event.topic().len() + event.source().len() + event.type_prefix().len() + event.auth().len();
    let request = event.request();
    let head = request.method.len() + request.target.len() + REMOTE_LEN + len(request.traceparent.as_deref());
    let names = len(event.id()) + len(event.event_type()) + len(event.ordering_key());
    let headers: usize = request.headers.iter().map(|(name, value)| 8 + name.as_str().len() + value.len()).sum();
    let account = event.account().map_or(0, |account| OPTIONAL_HEADER_LEN + account.len());
    FIXED_LEN + texts + head + names + headers + event.body().len() + account
}

/// Flag of an event that has a dedupe key.
const HAS_KEY: u8 = 1;
/// Flag of an event whose time the provider states.
const HAS_TIME: u8 = 2;
/// Flag of an event whose delivery also contains the next event.
const CONTINUES: u8 = 4;
/// Flag of a cursors frame with the cursors of all topics.
const ALL_TOPICS: u8 = 1;
/// Tag of the optional field that contains the account of an event.
const ACCOUNT: u16 = 1;
/// Tag of the optional field that contains the end of the backlog, in a frame with the cursors of all topics.
const BACKLOG_END: u16 = 1;
/// Alignment of frames in bytes.
pub(super) const FRAME_ALIGN: usize = 8;
/// Size in bytes of the pages in which the writer writes. Every commit starts with a page and is padded to the end of a page.
pub(super) const PAGE: u64 = 4096;
/// Length of a frame header in bytes.
pub(super) const FRAME_HEADER_LEN: usize = 32;
/// Length of a commit frame in bytes.
pub(super) const COMMIT_LEN: usize = FRAME_HEADER_LEN + 40;
/// Size in bytes of an event's payload without strings, headers and body: two timestamps, the key, the fingerprint, and thirteen
/// lengths.
const FIXED_LEN: usize = 8 + 16 + 12 + 8 + 13 * 4;
/// Length in bytes of the longest socket address as text.
const REMOTE_LEN: usize = "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255%4294967295]:65535".len();

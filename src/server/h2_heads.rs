//! Counts the request heads that arrive on an HTTP/2 connection, so that a request which hyper rejects by itself has an outcome.
//!
//! hyper and h2 reject a malformed or oversized head without passing it to hookhold. They send a reset or a 431, but these
//! frames do not tell whether hookhold has counted the stream: a stream that hookhold serves can also end with a reset. The
//! difference between the heads that have arrived and the requests that hookhold serves is exact. h2 asks for more bytes only
//! when it has handled all complete frames, so the difference is final whenever a read has to wait.
//!
//! This file knows only the header of a frame (RFC 9113, section 4.1), and not its contents. [`super::h2_io`] gives h2 the bytes of
//! one head at a time, so that hookhold can charge a request before h2 decodes the next one.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

use super::idle::ConnectionGrowth;
use crate::outcome::Outcome;

/// Counts of the request heads on one connection. The connection's task updates and reads them.
#[derive(Default)]
pub(super) struct RequestHeads {
    /// Number of complete heads that h2 has received.
    arrived: AtomicU64,
    /// Number of requests that hyper has passed to hookhold.
    served: AtomicU64,
    /// Number of heads for which hookhold has recorded an outcome although hyper did not pass them to hookhold.
    counted: AtomicU64,
    /// Number of heads whose streams have ended and whose responses have been written.
    finished: AtomicU64,
    /// True if a part of a head has arrived.
    has_partial: AtomicBool,
    read_state: AtomicU8,
    /// True if the peer does not read, so that h2 cannot write.
    is_write_blocked: AtomicBool,
    /// True if the connection takes charged memory, or has done so.
    is_grown: AtomicBool,
    over_budget: OnceLock<Outcome>,
}

/// State of the connection's latest read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadState {
    /// h2 has received bytes and may still have to handle them.
    Handling,
    /// h2 has handled all complete frames and waits for the client.
    Waiting,
    /// h2 has handled all complete frames. It receives no more bytes before the next poll of the connection, so that other tasks
    /// run first.
    Paused,
    /// h2 has handled all complete frames. It receives no more bytes until the peer reads what h2 has written.
    WriteBlocked,
}

impl ReadState {
    const ALL: [ReadState; 4] = [ReadState::Handling, ReadState::Waiting, ReadState::Paused, ReadState::WriteBlocked];
}

impl RequestHeads {
    /// Counts a request that hyper passes to hookhold.
    pub(super) fn request_served(&self) {
        self.served.fetch_add(1, Relaxed);
    }

    /// Returns the number of new heads that hyper has rejected. Returns 0 while h2 may still have to handle a head.
    pub(super) fn newly_rejected(&self) -> u64 {
        if self.read_state() == ReadState::Handling { 0 } else { self.unserved() }
    }

    /// Returns the number of new heads that hyper has not passed to hookhold. Must be final: the connection has ended, or h2
    /// has handled all complete frames.
    pub(super) fn unserved(&self) -> u64 {
        let unserved = self.pending();
        self.counted.fetch_add(unserved, Relaxed);
        unserved
    }

    /// Returns the number of heads that h2 has received and that hyper has neither passed to hookhold nor rejected.
    pub(super) fn pending(&self) -> u64 {
        self.arrived.load(Relaxed).saturating_sub(self.served.load(Relaxed) + self.counted.load(Relaxed))
    }

    /// Returns the number of heads that hyper has rejected.
    pub(super) fn rejected(&self) -> u64 {
        self.counted.load(Relaxed)
    }

    /// Records that the streams of the first `count` heads have ended. Must be called after h2 has written all responses.
    pub(super) fn finish(&self, count: u64) {
        self.finished.store(count, Relaxed);
    }

    /// Returns the number of heads whose streams may still take memory in h2.
    pub(super) fn open(&self) -> u64 {
        self.arrived.load(Relaxed).saturating_sub(self.finished.load(Relaxed))
    }

    /// Returns true if a complete head has arrived.
    pub(super) fn has_arrived(&self) -> bool {
        self.arrived.load(Relaxed) > 0
    }

    /// Returns true if the connection has ended within a head.
    pub(super) fn has_partial(&self) -> bool {
        self.has_partial.load(Relaxed)
    }

    pub(super) fn read_state(&self) -> ReadState {
        ReadState::ALL[usize::from(self.read_state.load(Relaxed))]
    }

    pub(super) fn set_read_state(&self, state: ReadState) {
        self.read_state.store(state as u8, Relaxed);
    }

    /// Returns true once after a read that has waited although the socket may contain bytes. The caller must then poll the
    /// connection again, because no event will wake it.
    pub(super) fn end_pause(&self) -> bool {
        let must_poll = match self.read_state() {
            ReadState::Handling | ReadState::Waiting => false,
            ReadState::Paused => true,
            ReadState::WriteBlocked => !self.is_write_blocked(),
        };
        if must_poll {
            self.set_read_state(ReadState::Waiting);
        }
        must_poll
    }

    pub(super) fn is_write_blocked(&self) -> bool {
        self.is_write_blocked.load(Relaxed)
    }

    pub(super) fn set_write_blocked(&self, is_blocked: bool) {
        self.is_write_blocked.store(is_blocked, Relaxed);
    }

    pub(super) fn growth(&self) -> ConnectionGrowth {
        if self.is_grown.load(Relaxed) { ConnectionGrowth::Grown } else { ConnectionGrowth::Usual }
    }

    pub(super) fn set_grown(&self) {
        self.is_grown.store(true, Relaxed);
    }

    /// Returns the outcome of the requests on a connection whose memory exceeds an in-flight budget, or `None` if it does not.
    pub(super) fn over_budget(&self) -> Option<Outcome> {
        self.over_budget.get().copied()
    }

    pub(super) fn set_over_budget(&self, outcome: Outcome) {
        let _ = self.over_budget.set(outcome);
    }
}

/// Scanner of the client's bytes, from the connection preface on.
pub(super) struct H2FrameScanner {
    part: FramePart,
    /// Frame header of which a part has arrived.
    header: [u8; FRAME_HEADER_BYTES],
    /// Highest stream of a client on which a request head has arrived. A later HEADERS frame on this or a lower stream contains
    /// trailers.
    last_stream: u32,
    /// True if the list of fields continues in a CONTINUATION frame. h2 has decoded the first part.
    has_split_fields: bool,
    /// Memory in bytes that h2 needs for the DATA frames and trailers until their requests have read them.
    unread: usize,
}

/// Part of the connection to which the next byte belongs.
#[derive(Clone, Copy)]
enum FramePart {
    /// Connection preface, with the number of bytes that are missing.
    Preface { missing: usize },
    /// Header of a frame, with the number of bytes that have arrived.
    Header { arrived: usize },
    /// Payload of a frame, with its length and the number of bytes that are missing.
    Payload { length: usize, missing: usize, end: PayloadEnd },
}

/// Meaning of the end of a payload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PayloadEnd {
    /// Completes a request head.
    Head,
    /// Completes the trailers of a request.
    Trailers,
    /// Ends only the frame.
    Frame,
}

impl H2FrameScanner {
    pub(super) fn new() -> H2FrameScanner {
        H2FrameScanner {
            part: FramePart::Preface { missing: PREFACE_BYTES },
            header: [0; FRAME_HEADER_BYTES],
            last_stream: 0,
            has_split_fields: false,
            unread: 0,
        }
    }

    /// Scans bytes, up to the second request head that hyper has not passed to hookhold. Returns the number of scanned bytes. h2
    /// may receive only these bytes. The caller must pass the other bytes again later.
    pub(super) fn scan(&mut self, bytes: &[u8], heads: &RequestHeads) -> usize {
        let mut at = 0;
        loop {
            match &mut self.part {
                FramePart::Preface { missing } | FramePart::Payload { missing, .. } => {
                    let skipped = (*missing).min(bytes.len() - at);
                    *missing -= skipped;
                    at += skipped;
                    if *missing > 0 {
                        return at;
                    }
                    self.end_part(heads);
                }
                FramePart::Header { arrived } => {
                    let (start, count) = (*arrived, (FRAME_HEADER_BYTES - *arrived).min(bytes.len() - at));
                    self.header[start..][..count].copy_from_slice(&bytes[at..at + count]);
                    if start + count < FRAME_HEADER_BYTES {
                        *arrived += count;
                        return at + count;
                    }
                    if heads.pending() > 0 && self.starts_head() {
                        return at;
                    }
                    at += count;
                    self.part = self.start_payload(heads);
                }
            }
        }
    }

    /// Returns the number of bytes of an incomplete frame, which h2 stores until the frame is complete.
    pub(super) fn incomplete_bytes(&self) -> usize {
        match self.part {
            FramePart::Preface { .. } => 0,
            FramePart::Header { arrived } => arrived,
            FramePart::Payload { length, missing, .. } => FRAME_HEADER_BYTES + length - missing,
        }
    }

    /// Returns true if h2 has decoded the first part of a list of fields.
    pub(super) fn has_split_fields(&self) -> bool {
        self.has_split_fields
    }

    /// Returns the memory in bytes that h2 needs for the DATA frames and trailers that have arrived since the last call of
    /// [`H2FrameScanner::forget_unread`].
    pub(super) fn unread(&self) -> usize {
        self.unread
    }

    /// Assumes that the requests have read all DATA frames and trailers.
    pub(super) fn forget_unread(&mut self) {
        self.unread = 0;
    }

    fn end_part(&mut self, heads: &RequestHeads) {
        if let FramePart::Payload { length, end, .. } = self.part {
            match end {
                PayloadEnd::Head => {
                    heads.has_partial.store(false, Relaxed);
                    heads.arrived.fetch_add(1, Relaxed);
                }
                PayloadEnd::Trailers => self.unread += EVENT_BYTES + length * BYTES_PER_INDEXED_FIELD,
                PayloadEnd::Frame if self.header[KIND_AT] == DATA => self.unread += EVENT_BYTES + length,
                PayloadEnd::Frame => {}
            }
            self.has_split_fields &= end == PayloadEnd::Frame;
        }
        self.part = FramePart::Header { arrived: 0 };
    }

    fn stream(&self) -> u32 {
        let [.., first, second, third, fourth] = self.header;
        u32::from_be_bytes([first, second, third, fourth]) & STREAM_BITS
    }

    /// Returns true if the complete frame header is the one of a new request. A client has only odd streams. HEADERS on an even one is
    /// a request that h2 rejects, and h2 then still accepts lower streams.
    fn starts_head(&self) -> bool {
        self.header[KIND_AT] == HEADERS && (self.stream() > self.last_stream || self.has_even_stream())
    }

    fn has_even_stream(&self) -> bool {
        self.stream().is_multiple_of(2)
    }

    /// Returns the payload that follows the complete frame header.
    fn start_payload(&mut self, heads: &RequestHeads) -> FramePart {
        let [high, middle, low, kind, flags, ..] = self.header;
        let is_first = self.starts_head();
        if is_first {
            if !self.has_even_stream() {
                self.last_stream = self.stream();
            }
            heads.has_partial.store(true, Relaxed);
        }
        let is_head = is_first || (kind == CONTINUATION && heads.has_partial());
        let has_fields = matches!(kind, HEADERS | CONTINUATION);
        let end = match (has_fields && flags & END_HEADERS != 0, is_head) {
            (true, true) => PayloadEnd::Head,
            (true, false) => PayloadEnd::Trailers,
            (false, _) => PayloadEnd::Frame,
        };
        self.has_split_fields |= has_fields && end == PayloadEnd::Frame;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        FramePart::Payload { length, missing: length, end }
    }
}

/// Length of the connection preface in bytes (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;
/// Offset of the frame's type in a frame header.
const KIND_AT: usize = 3;
/// Bits of a frame header's last four bytes that contain the stream. The remaining bit is reserved.
const STREAM_BITS: u32 = u32::MAX >> 1;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Memory that h2 needs for one DATA frame or one list of trailers, without their contents.
const EVENT_BYTES: usize = 320;
/// Memory that h2 needs for a header field that its sender encodes in one byte.
const BYTES_PER_INDEXED_FIELD: usize = 112;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), &vec![HEADERS; payload]].concat()
    }

    /// Otherwise all later requests would count as trailers: without an outcome, and without a charge for their memory.
    #[test]
    fn a_head_on_an_even_stream_hides_no_later_head() {
        let (heads, mut scanner) = (RequestHeads::default(), H2FrameScanner::new());
        assert_eq!(scanner.scan(&[0; PREFACE_BYTES], &heads), PREFACE_BYTES);
        for (stream, arrived) in [(1_000_000, 1), (1, 2), (1, 2), (1_000_000, 3), (3, 4)] {
            scanner.scan(&frame(HEADERS, END_HEADERS, stream, 20), &heads);
            heads.unserved();
            assert_eq!(heads.arrived.load(Relaxed), arrived, "{stream}");
        }
    }

    #[test]
    fn each_head_counts_once_it_is_complete() {
        let frames = [
            (vec![0; PREFACE_BYTES], 0, false),
            (frame(4, 0, 0, 30), 0, false),
            (frame(HEADERS, END_HEADERS, 1, 300), 1, false),
            (frame(0, 0, 1, 20), 1, false),
            (frame(HEADERS, 0, 3, 0), 1, true),
            (frame(CONTINUATION, 0, 3, 7), 1, true),
            (frame(CONTINUATION, END_HEADERS, 3, 0), 2, false),
            (frame(HEADERS, END_HEADERS | 1, 1, 9), 2, false), // trailers
            (frame(HEADERS, 1, 3, 9), 2, false),
            (frame(CONTINUATION, END_HEADERS, 3, 9), 2, false),
            (frame(HEADERS, END_HEADERS | 0x20, 1 << 30, 9), 3, false),
        ];
        for size in 1..100 {
            let (mut scanner, heads) = (H2FrameScanner::new(), RequestHeads::default());
            for (bytes, arrived, has_partial) in &frames {
                let (last, first) = bytes.split_last().expect("no frame is empty");
                first.chunks(size).for_each(|piece| assert_eq!(scanner.scan(piece, &heads), piece.len()));
                assert!(heads.arrived.load(Relaxed) <= *arrived, "a frame counts only with its last byte");
                assert_eq!(scanner.scan(&[*last], &heads), 1);
                assert_eq!((heads.arrived.load(Relaxed), heads.has_partial()), (*arrived, *has_partial), "pieces of {size}");
                heads.unserved();
            }
        }
    }

    #[test]
    fn the_scanner_stops_before_the_head_that_follows_an_unserved_one() {
        let first = [vec![0; PREFACE_BYTES], frame(HEADERS, END_HEADERS, 1, 5), frame(DATA, 0, 1, 20)].concat();
        let second = [frame(HEADERS, 0, 3, 7), frame(CONTINUATION, END_HEADERS, 3, 0), frame(DATA, 1, 3, 1)].concat();
        let third = frame(HEADERS, END_HEADERS | 1, 5, 4);
        let all = [&first[..], &second, &third].concat();
        for size in 1..=all.len() {
            let (mut scanner, heads, mut scanned) = (H2FrameScanner::new(), RequestHeads::default(), Vec::new());
            let mut at = 0;
            while at < all.len() {
                let piece = &all[at..all.len().min(at + size)];
                let count = scanner.scan(piece, &heads);
                at += count;
                if count < piece.len() {
                    scanned.push(at);
                    heads.request_served();
                }
            }
            // A part of the next frame header may arrive with an earlier piece.
            let ends = [first.len(), first.len() + second.len()];
            let is_near = |(at, end): (&usize, &usize)| (end - at.min(end)) == 0 && at - end < FRAME_HEADER_BYTES;
            assert!(scanned.len() == 2 && scanned.iter().zip(&ends).all(is_near), "pieces of {size}: {scanned:?}");
            assert_eq!(heads.pending(), 1);
        }
    }

    #[test]
    fn incomplete_frames_and_split_fields_are_known() {
        let (mut scanner, heads) = (H2FrameScanner::new(), RequestHeads::default());
        let mut after = |bytes: &[u8]| {
            scanner.scan(bytes, &heads);
            (scanner.incomplete_bytes(), scanner.has_split_fields(), scanner.unread())
        };
        assert_eq!(after(&[0; PREFACE_BYTES]), (0, false, 0));
        assert_eq!(after(&frame(HEADERS, 0, 1, 30)[..20]), (20, true, 0));
        assert_eq!(after(&[0; 19]), (0, true, 0));
        assert_eq!(after(&frame(CONTINUATION, END_HEADERS, 1, 7)), (0, false, 0));
        assert_eq!(after(&frame(DATA, 0, 1, 5)[..4]), (4, false, 0));
        assert_eq!(after(&frame(DATA, 0, 1, 5)[4..]), (0, false, EVENT_BYTES + 5));
        assert_eq!(after(&frame(HEADERS, END_HEADERS | 1, 1, 3)), (0, false, 2 * EVENT_BYTES + 5 + 3 * BYTES_PER_INDEXED_FIELD));
    }

    #[test]
    fn a_paused_connection_is_polled_once_more() {
        let heads = RequestHeads::default();
        let polls = |state, is_blocked| {
            heads.set_read_state(state);
            heads.set_write_blocked(is_blocked);
            [heads.end_pause(), heads.end_pause()]
        };
        assert_eq!(polls(ReadState::Paused, false), [true, false]);
        assert_eq!(polls(ReadState::WriteBlocked, false), [true, false]);
        assert_eq!(polls(ReadState::WriteBlocked, true), [false, false]);
        assert_eq!(polls(ReadState::Waiting, false), [false, false]);
    }

    #[test]
    fn heads_are_rejected_only_when_h2_has_handled_all_frames() {
        for state in [ReadState::Waiting, ReadState::Paused, ReadState::WriteBlocked] {
            let heads = RequestHeads::default();
            heads.arrived.store(3, Relaxed);
            heads.request_served();
            assert_eq!(heads.newly_rejected(), 0);
            heads.set_read_state(state);
            assert_eq!((heads.read_state(), heads.newly_rejected(), heads.newly_rejected(), heads.unserved()), (state, 2, 0, 0));
        }
    }
}

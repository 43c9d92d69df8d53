//! Parked events: events that Kafka has rejected because of the event itself, such as a record that is too large for its topic. The
//! forwarder parks such an event before the topic's cursor passes it, so that the event does not hold back its topic.
//!
//! Each parked event is a file of its own, which contains the frame of the event and the reason. The file is on disk before
//! [`Journal::park`] returns. `retain` and `max_size` do not apply to parked events: they stay until an operator sends them again
//! or drops them, or until the dead-letter topic has them. `max_parked` and [`MAX_PARKED_EVENTS`] limit them.
//!
//! The name of the file tells whether the dead-letter topic has a notice of the event, which is a record without the body. Only the
//! process that has the journal open changes the name, while other processes may read or delete the file.

use std::io;
use std::sync::Arc;

use super::disk::{Disk, is_full, write_atomically};
use super::errors::in_file;
use super::frame::{self, FRAME_HEADER_LEN, FrameDraft, FrameKind, PAGE};
use super::payload::{PayloadReader, PayloadWriter};
use super::reader::StoredEvent;
use super::{Journal, Shared, id_text};
use crate::clock::UnixMillis;
use crate::event::{LogId, Position};

/// Reason why Kafka has rejected an event, and the time at which hookhold has parked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkingNote {
    /// Word for the reason: a value of the label `reason` of `hookhold_parked_total`.
    pub reason: String,
    /// Text of Kafka's error.
    pub detail: String,
    /// Time at which hookhold has parked the event.
    pub parked_at: UnixMillis,
}

/// Event that Kafka has rejected, with the reason.
#[derive(Debug)]
pub struct ParkedEvent {
    /// The event as the journal has stored it, with its original position.
    pub stored: StoredEvent,
    /// Id of the journal that has stored the event, as [`Journal::id`] returns it.
    pub instance: String,
    /// Reason why Kafka has rejected the event.
    pub note: ParkingNote,
    /// True if the dead-letter topic has a notice of the event.
    pub has_notice: bool,
}

/// File of a parked event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedFile {
    /// Position of the event.
    pub position: Position,
    /// Space that the file takes, in bytes.
    pub bytes: u64,
    /// True if the dead-letter topic has a notice of the event.
    pub has_notice: bool,
}

/// Reason why an event could not be parked.
#[derive(Debug, thiserror::Error)]
pub enum ParkError {
    /// The parked events have reached their limit.
    #[error(
        "parked events: expected room within max_parked and {} events, found none; send the parked events again or drop them \
         (`hookhold parked`), or raise journal.max_parked",
        MAX_PARKED_EVENTS
    )]
    Full,
    /// The disk is full.
    #[error("parked events: expected free disk space, found none; free some disk space")]
    NoRoom,
    /// The file could not be written.
    #[error("parked events: {0}; check the disk")]
    Io(#[from] io::Error),
}

/// The parked events in the directory of a journal. Works while another process has the journal open.
pub struct ParkedEvents(Arc<dyn Disk>);

impl ParkedEvents {
    /// Creates a handle to the parked events in `disk`.
    pub fn new(disk: Arc<dyn Disk>) -> ParkedEvents {
        ParkedEvents(disk)
    }

    /// Returns the files of all parked events, ordered by the sequences of the events.
    pub fn list(&self) -> io::Result<Vec<ParkedFile>> {
        list(&*self.0)
    }

    /// Reads a parked event. Returns `None` if no event is parked at this position.
    pub fn read(&self, position: Position) -> io::Result<Option<ParkedEvent>> {
        for has_notice in [false, true] {
            let name = file_name(position, has_notice);
            let file = match self.0.open(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => in_file(opened, || name.clone())?,
            };
            let mut bytes = vec![0; file.size()? as usize];
            let read = in_file(file.read_at(&mut bytes, 0), || name.clone())?;
            bytes.truncate(read);
            let parked = decode(&bytes, has_notice).filter(|parked| parked.stored.position == position);
            let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("{name}: expected a parked event, found damage"));
            return parked.map(Some).ok_or_else(damaged);
        }
        Ok(None)
    }

    /// Deletes a parked event for good. Returns false if no event is parked at this position.
    pub fn remove(&self, position: Position) -> io::Result<bool> {
        let removed = remove(&*self.0, position)?;
        if removed {
            self.0.sync_dir()?;
        }
        Ok(removed)
    }
}

impl Journal {
    /// Parks an event. The event is on disk when this function returns. Parking the same event again replaces its file.
    pub fn park(&self, stored: &StoredEvent, note: &ParkingNote) -> Result<(), ParkError> {
        self.0.park(stored, note)
    }

    /// Returns a handle to the parked events.
    pub fn parked_events(&self) -> ParkedEvents {
        ParkedEvents::new(self.0.disk.clone())
    }

    /// Deletes a parked event for good, because the dead-letter topic has it. Returns false if no event is parked at this position:
    /// another process may have deleted it.
    pub fn remove_parked(&self, position: Position) -> io::Result<bool> {
        let removed = remove(&*self.0.disk, position)?;
        if removed {
            self.0.sync_dir()?;
        }
        Ok(removed)
    }

    /// Notes that the dead-letter topic has a notice of a parked event. Returns false if no event without a notice is parked at this
    /// position: another process may have deleted it.
    pub fn note_notice(&self, position: Position) -> io::Result<bool> {
        match self.0.disk.rename(&file_name(position, false), &file_name(position, true)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            renamed => renamed.and_then(|()| self.0.sync_dir()).map(|()| true),
        }
    }
}

impl Shared {
    fn park(&self, stored: &StoredEvent, note: &ParkingNote) -> Result<(), ParkError> {
        let bytes = encode(stored, self.identity.journal, note);
        let (own, others): (Vec<_>, Vec<_>) = list(&*self.disk)?.into_iter().partition(|file| file.position == stored.position);
        let (count, used) = others.iter().fold((0, 0), |(count, used), file| (count + 1, used + file.bytes));
        let used = used + space(bytes.len() as u64);
        if count >= MAX_PARKED_EVENTS || used > self.options.limits.max_parked {
            return Err(ParkError::Full);
        }
        // The name stays the same, so that each event has only one file.
        let name = file_name(stored.position, own.iter().any(|file| file.has_notice));
        let written = write_atomically(&*self.disk, &name, &bytes).and_then(|()| self.sync_dir());
        written.map_err(|error| if is_full(&error) { ParkError::NoRoom } else { ParkError::Io(error) })?;
        self.set_parked(count + 1, used);
        Ok(())
    }

    /// Updates the metrics of the parked events, whose number another process may have reduced. Does nothing if no event is parked.
    pub(super) fn recount_parked(&self) {
        if self.metrics.journal.parked_events.get() > 0 {
            self.count_parked();
        }
    }

    /// Updates the metrics of the parked events.
    pub(super) fn count_parked(&self) {
        let Ok(files) = list(&*self.disk) else { return };
        self.set_parked(files.len(), files.iter().map(|file| file.bytes).sum());
    }

    fn set_parked(&self, count: usize, bytes: u64) {
        self.metrics.journal.parked_events.set(count as i64);
        self.metrics.journal.parked_bytes.set(bytes as i64);
    }
}

/// Returns true if `file` is the name of a parked event's file.
pub(super) fn is_parked_file(file: &str) -> bool {
    position(file).is_some()
}

fn list(disk: &dyn Disk) -> io::Result<Vec<ParkedFile>> {
    let named = |(file, size): (String, u64)| {
        let (position, has_notice) = position(&file)?;
        Some(ParkedFile { position, bytes: space(size), has_notice })
    };
    let mut files: Vec<ParkedFile> = disk.list()?.into_iter().filter_map(named).collect();
    files.sort_by_key(|file| (file.position.seq, file.position.log));
    // A file that another process renames meanwhile may be listed under both names.
    files.dedup_by_key(|file| file.position);
    Ok(files)
}

/// Deletes the file of a parked event. Returns false if there is none. Tries first the name that the file has first, because another
/// process may rename it meanwhile.
fn remove(disk: &dyn Disk, position: Position) -> io::Result<bool> {
    for has_notice in [false, true] {
        match disk.remove(&file_name(position, has_notice)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => return removed.map(|()| true),
        }
    }
    Ok(false)
}

fn encode(stored: &StoredEvent, journal: u64, note: &ParkingNote) -> Vec<u8> {
    let mut head = PayloadWriter(MAGIC.to_vec());
    head.u64(journal);
    head.u64(note.parked_at.0);
    head.text(&note.reason);
    head.text(&note.detail);
    let PayloadWriter(mut bytes) = head;
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    FrameDraft::event(&stored.event, false).write_into(&mut bytes, stored.position.log, stored.position.seq, PARKED_SEGMENT);
    bytes
}

fn decode(bytes: &[u8], has_notice: bool) -> Option<ParkedEvent> {
    let mut head = PayloadReader { bytes, at: 0 };
    if head.take(MAGIC.len())? != MAGIC {
        return None;
    }
    let (instance, parked_at) = (id_text(head.u64()?), UnixMillis(head.u64()?));
    let (reason, detail) = (head.text()?.to_owned(), head.text()?.to_owned());
    let covered = head.at;
    let (checksum, start) = (head.u32()?, head.at);
    let header = frame::parse_header(&bytes[start..], (bytes.len() - start) as u64)?;
    let event = bytes.get(start..start + header.len)?;
    let is_valid = checksum == crc32c::crc32c(&bytes[..covered])
        && header.len >= FRAME_HEADER_LEN
        && header.kind == FrameKind::Event
        && frame::is_valid(event, PARKED_SEGMENT);
    let event = is_valid.then(|| frame::decode_event(event)).flatten()?;
    let stored = StoredEvent { position: Position { log: header.log, seq: header.seq }, event };
    Some(ParkedEvent { stored, instance, note: ParkingNote { reason, detail, parked_at }, has_notice })
}

fn file_name(position: Position, has_notice: bool) -> String {
    let ext = if has_notice { NOTICE_EXT } else { PARKED_EXT };
    format!("{position}{ext}")
}

/// Returns the position of a parked event, and whether there is a notice of it, from the name of its file.
fn position(file: &str) -> Option<(Position, bool)> {
    let has_notice = file.ends_with(NOTICE_EXT);
    let (log, seq) = file.strip_suffix(if has_notice { NOTICE_EXT } else { PARKED_EXT })?.split_once('-')?;
    let position = Position { log: LogId(u64::from_str_radix(log, 16).ok()?), seq: seq.parse().ok()? };
    (file_name(position, has_notice) == file).then_some((position, has_notice))
}

/// Returns the space that a file of this size takes, in bytes.
fn space(size: u64) -> u64 {
    size.next_multiple_of(PAGE)
}

/// Maximum number of parked events. If Kafka rejects more events than that, the fault is hardly in the events.
pub const MAX_PARKED_EVENTS: usize = 10_000;
const PARKED_EXT: &str = ".parked";
/// Extension of the file of a parked event of which the dead-letter topic has a notice.
const NOTICE_EXT: &str = ".noticed";
/// First bytes of the file of a parked event, with the version of its format.
const MAGIC: &[u8] = b"HKPARK01";
/// Segment id in the checksum of a parked event's frame. No segment has this id, so the frame is invalid in every segment.
const PARKED_SEGMENT: u64 = 0;

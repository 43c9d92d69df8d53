//! Copies the tail.

use std::io;
use std::sync::Arc;

use super::super::RESERVE;
use super::super::directory_scan::Found;
use super::super::disk::{self, Disk, write_whole};
use super::super::errors::{OpenError, context};
use super::super::frame::{self, Draft};
use super::super::keys::Keys;
use super::super::segment::Segment;
use super::super::segment_file::{self, Name, random};
use super::super::segment_summary::SegmentSummary;
use super::note;
use crate::event::LogId;

/// Copies the tail into a segment that is complete before it has a name.
pub fn copy_tail(disk: &dyn Disk, found: &Found, log: LogId, ordinal: u64, keys: &Keys) -> Result<Arc<Segment>, OpenError> {
    let name = Name { ordinal, first: found.mark, id: context(random(), || "no random numbers".into())? };
    let (bytes, table) = context(lay_out_tail(found, log, name), || "the newest events could not be read".into())?;
    let write = || {
        write_whole(disk, &name.segment(), &bytes).or_else(|error| {
            if !disk::is_full(&error) {
                return Err(error);
            }
            disk.remove(RESERVE).map_err(|_| error)?;
            write_whole(disk, &name.segment(), &bytes)
        })?;
        disk.sync_dir()?;
        disk.open(&name.segment())
    };
    let file = write().map_err(|source| match disk::is_full(&source) {
        true => OpenError::NoRoom { bytes: bytes.len() as u64 },
        false => OpenError::Io { what: "the newest events could not be copied".into(), source },
    })?;
    tracing::info!(events = found.tail.len(), segment = name.segment(), "recovered events that a crash left unsure");
    note(keys, name, found.tail.iter().map(|(_, frame)| frame));
    Ok(Segment::new(name, file, bytes.len() as u64, table, false))
}

/// The bytes of the copy. It ends with a commit that carries the mark behind its last event: it is whole or not there.
fn lay_out_tail(found: &Found, log: LogId, name: Name) -> io::Result<(Vec<u8>, SegmentSummary)> {
    let next = found.mark + found.tail.len() as u64;
    let mut out = segment_file::header(name, log).to_vec();
    let cursors = found.cursors.as_deref().unwrap_or_default();
    let cursors = Draft::cursors(cursors.iter().map(|(lane, cursor)| (lane, *cursor)));
    let events = found.tail.iter().map(|(_, frame)| frame::padded(frame.head.len) as u64).sum::<u64>();
    let others = cursors.padded_len() as u64 + events;
    Draft::commit(found.mark, found.tail.len() as u32, others).seal_into(&mut out, log, found.mark, name.id);
    cursors.seal_into(&mut out, log, found.mark, name.id);
    let mut table = SegmentSummary::empty(found.mark);
    let mut frame = Vec::new();
    for (index, at) in &found.tail {
        frame.resize(at.head.len, 0);
        let got = found.segments[*index].file.read_at(&mut frame, at.offset)?;
        if got < frame.len() || !frame::is_genuine(&frame, found.segments[*index].name.id) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame changed between two reads"));
        }
        frame::copy_into(&frame, &mut out, &at.head, name.id);
        table.next = at.head.seq + 1;
        if let Some(facts) = &at.facts {
            table.add(&facts.lane, at.head.seq, frame::padded(at.head.len) as u64, facts.received_at);
        }
    }
    Draft::commit(next, 0, 0).seal_into(&mut out, log, next, name.id);
    table.end = out.len() as u64;
    Ok((out, table))
}

//! Decides which file counts if a directory contains both a segment and its replacement. An interrupted rewriting leaves both.
//! Their files have the same place: the same ordinal and the same first sequence.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::segment_file::SegmentHeader;
use super::segment_name::SegmentName;

/// Returns the names of the segments that another segment replaces. `segments` contains the names and headers of all segments;
/// the header is `None` if it is damaged.
pub(super) fn find<'a>(segments: impl Iterator<Item = (SegmentName, Option<&'a SegmentHeader>)>) -> Vec<SegmentName> {
    let mut replaced = Vec::new();
    let mut by_place = BTreeMap::new();
    for (name, header) in segments {
        let number = number_of_replaced(header);
        match by_place.entry(name.place()) {
            Entry::Vacant(entry) => _ = entry.insert((name, number)),
            Entry::Occupied(mut entry) if number > entry.get().1 => replaced.push(entry.insert((name, number)).0),
            Entry::Occupied(_) => replaced.push(name),
        }
    }
    replaced
}

/// Returns the number of segments that a segment replaces; `None` if its header is damaged. Of two segments with the same place,
/// the one with the higher number counts. A replacement gets its name only after all of its frames are on disk, so it counts
/// even if it is not sealed. If its header is damaged, the other segment counts: it still contains all frames.
fn number_of_replaced(header: Option<&SegmentHeader>) -> Option<usize> {
    header.map(|header| header.replaced.len())
}

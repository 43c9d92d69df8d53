//! Names of the files of a segment.

use std::io;

use super::random::Random;

/// Name of a segment. The segment's files have this name and different extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SegmentName {
    /// Position of the segment in the order in which the journal created its segments.
    pub(super) ordinal: u64,
    /// First sequence of the segment. All earlier events were durable before the segment started. The segment supersedes all
    /// events of older segments at and above this sequence.
    pub(super) first_seq: u64,
    /// Random id of the segment.
    pub(super) id: u64,
}

impl SegmentName {
    /// Returns a name with a random id.
    pub(super) fn new(ordinal: u64, first_seq: u64, random: &dyn Random) -> io::Result<SegmentName> {
        Ok(SegmentName { ordinal, first_seq, id: random.next_u64()? })
    }

    /// Returns the name of a segment that replaces this segment: the same name with another random id.
    pub(super) fn replacement(self, random: &dyn Random) -> io::Result<SegmentName> {
        SegmentName::new(self.ordinal, self.first_seq, random)
    }

    /// Returns the position in the order of the segments. A segment has the same place as a segment that it replaces.
    pub(super) fn place(self) -> (u64, u64) {
        (self.ordinal, self.first_seq)
    }

    /// Returns the name of the file that contains the frames.
    pub(super) fn segment_file(self) -> String {
        self.with_ext(SEGMENT_EXT)
    }

    /// Returns the name of the spare file: the file of this segment after the journal has deleted the segment.
    pub(super) fn spare_file(self) -> String {
        self.with_ext(SPARE_EXT)
    }

    /// Returns the name of the file that contains the keys.
    pub(super) fn key_file(self) -> String {
        self.with_ext(KEYS_EXT)
    }

    /// Returns the name of the file that contains the segment summary.
    pub(super) fn summary_file(self) -> String {
        self.with_ext(SUMMARY_EXT)
    }

    /// Parses a file name that consists of a segment name and the extension `ext`; `None` for any other file name.
    pub(super) fn parse(file: &str, ext: &str) -> Option<SegmentName> {
        let mut parts = file.strip_suffix(ext)?.splitn(3, '-');
        let (ordinal, first_seq) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let name = SegmentName { ordinal, first_seq, id: u64::from_str_radix(parts.next()?, 16).ok()? };
        let is_possible = ordinal < IMPOSSIBLE && first_seq < IMPOSSIBLE;
        (is_possible && name.with_ext(ext) == file).then_some(name)
    }

    fn with_ext(self, ext: &str) -> String {
        format!("{:010}-{}-{:016x}{ext}", self.ordinal, self.first_seq, self.id)
    }
}

/// Number that neither an ordinal nor a sequence reaches. A file with such a number is not ours, and the next number after it might
/// not exist.
const IMPOSSIBLE: u64 = 1 << 62;
pub(super) const SEGMENT_EXT: &str = ".seg";
pub(super) const SPARE_EXT: &str = ".spare";
/// Name of a new spare file.
pub(super) const NEW_SPARE: &str = "next.spare";
pub(super) const KEYS_EXT: &str = ".keys";
pub(super) const SUMMARY_EXT: &str = ".topics";

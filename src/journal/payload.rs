//! Encodes and decodes the payload of a frame. Numbers are little-endian and have 4 or 8 bytes. A 4-byte length precedes each
//! string. A payload may end in optional fields, each with a 2-byte tag and a 4-byte length. This module does not know which
//! fields an event has.

use std::fmt;
use std::io::Write;

use crate::header_field::{self, HeaderField};

/// Writer that appends encoded fields to the payload of a frame.
pub(super) struct PayloadWriter(pub(super) Vec<u8>);

impl PayloadWriter {
    pub(super) fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub(super) fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(super) fn optional_text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.u32(ABSENT),
        }
    }

    /// Appends an optional field, unless `value` is `None`.
    pub(super) fn optional_field(&mut self, tag: u16, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.0.extend_from_slice(&tag.to_le_bytes());
            self.bytes(value);
        }
    }

    /// Appends an optional field with ids, unless there are none.
    pub(super) fn optional_ids(&mut self, tag: u16, ids: &[u64]) {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        self.optional_field(tag, (!ids.is_empty()).then_some(&bytes));
    }

    /// Appends the `Display` text of a value without allocating a string.
    pub(super) fn display(&mut self, value: &impl fmt::Display) {
        let at = self.0.len();
        self.u32(0);
        write!(self.0, "{value}").expect("a Vec accepts every write");
        let len = (self.0.len() - at - 4) as u32;
        self.0[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }
}

/// Error: the payload ends too early, or a text field is not valid UTF-8.
pub(super) struct Malformed;

/// Reader of the fields in the payload of a frame. Every method fails if too few bytes remain.
pub(super) struct PayloadReader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> PayloadReader<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take(4).and_then(|bytes| u32_at(bytes, 0))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take(8).and_then(|bytes| u64_at(bytes, 0))
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// Reads a text field that may be absent. Returns `None` if the field is absent.
    pub(super) fn optional_text(&mut self) -> Result<Option<String>, Malformed> {
        Ok(self.optional_str()?.map(str::to_owned))
    }

    /// Like [`PayloadReader::optional_text`], but without a copy of the text.
    pub(super) fn optional_str(&mut self) -> Result<Option<&'a str>, Malformed> {
        if u32_at(self.bytes, self.at).ok_or(Malformed)? == ABSENT {
            self.at += 4;
            return Ok(None);
        }
        self.text().map(Some).ok_or(Malformed)
    }

    /// Reads the next optional field, and returns its tag and its value; `None` at the end of the payload, or where its padding
    /// starts. No field has the tag 0.
    fn optional_field(&mut self) -> Option<(u16, &'a [u8])> {
        let tag = u16::from_le_bytes(self.take(2)?.try_into().ok()?);
        let value = self.bytes()?;
        (tag != 0).then_some((tag, value))
    }

    /// Reads the optional fields up to the one with this tag, and returns its value; `None` if there is no such field.
    pub(super) fn optional_value(&mut self, tag: u16) -> Option<&'a [u8]> {
        std::iter::from_fn(|| self.optional_field()).find(|(found, _)| *found == tag).map(|(_, value)| value)
    }

    /// Reads the optional field with ids that [`PayloadWriter::optional_ids`] has written.
    pub(super) fn optional_ids(&mut self, tag: u16) -> Vec<u64> {
        let ids = self.optional_value(tag).unwrap_or_default();
        ids.chunks_exact(8).filter_map(|id| u64_at(id, 0)).collect()
    }

    pub(super) fn headers(&mut self) -> Option<Vec<HeaderField>> {
        let count = self.u32()?;
        (0..count).map(|_| header_field::parse(self.text()?, self.bytes()?)).collect()
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Length of an optional field without its value, in bytes.
pub(super) const OPTIONAL_HEADER_LEN: usize = 6;
/// Length prefix that marks an absent text field.
const ABSENT: u32 = u32::MAX;

//! Payload.

use std::fmt;
use std::io::Write;

use crate::header_field::{self, HeaderField};

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Lays out payloads: numbers in 4 or 8 bytes, text and bytes behind a 4-byte length.
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.0.extend_from_slice(bytes);
    }

    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Text that is made on the spot.
    pub fn print(&mut self, value: &impl fmt::Display) {
        let at = self.0.len();
        self.u32(0);
        write!(self.0, "{value}").expect("memory takes every write");
        let len = (self.0.len() - at - 4) as u32;
        self.0[at..at + 4].copy_from_slice(&len.to_le_bytes());
    }

    pub fn maybe(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.u32(ABSENT),
        }
    }
}

/// Reads payloads; every step ends in `None` where the bytes end.
pub struct Reader<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Reader<'a> {
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take(4).and_then(|bytes| u32_at(bytes, 0))
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take(8).and_then(|bytes| u64_at(bytes, 0))
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    pub fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    pub fn maybe(&mut self) -> Option<Option<String>> {
        if u32_at(self.bytes, self.at)? == ABSENT {
            self.at += 4;
            return Some(None);
        }
        Some(Some(self.text()?.to_owned()))
    }

    pub fn headers(&mut self) -> Option<Vec<HeaderField>> {
        let count = self.u32()?;
        (0..count).map(|_| header_field::parse(self.text()?, self.bytes()?)).collect()
    }
}

/// The length that stands for "there is none".
const ABSENT: u32 = u32::MAX;

//! Writes and reads raw HTTP/2 frames, so that a test chooses every byte of a connection.

#![allow(dead_code, reason = "each test file uses a part of this")]

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PRIORITY_FLAG: u8 = 0x20;

/// Bytes with which a client opens a connection: the preface and an empty SETTINGS frame.
pub fn opening() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, b"")].concat()
}

/// Returns the bytes of one frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Encodes a header field as a literal that neither side indexes (RFC 7541, section 6.2.2).
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        match u8::try_from(text.len()) {
            Ok(length) if length < 127 => bytes.push(length),
            _ => {
                let mut rest = text.len() - 127;
                bytes.push(127);
                while rest >= 128 {
                    bytes.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                bytes.push(rest as u8);
            }
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// A frame that the server has sent.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// Removes the first frame from `bytes`. Returns `None` if the frame is incomplete.
pub fn take_frame(bytes: &mut Vec<u8>) -> Option<Frame> {
    let length = u32::from_be_bytes([0, *bytes.first()?, *bytes.get(1)?, *bytes.get(2)?]) as usize;
    let header: [u8; 9] = bytes.get(..9)?.try_into().expect("nine bytes");
    let payload = bytes.get(9..9 + length)?.to_vec();
    bytes.drain(..9 + length);
    let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
    Some(Frame { kind: header[3], stream, payload })
}

impl Frame {
    /// Returns the error code of a RST_STREAM or GOAWAY frame.
    pub fn error_code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }

    /// Returns the status of the first response on a connection. The status is the first field of the block: an index of the
    /// static table, or a literal with the name `:status` and a Huffman-coded value (RFC 7541, appendices A and B).
    pub fn status(&self) -> u16 {
        match self.payload[..] {
            [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
            [name, length, ref value @ ..] if name & 0x3f == 8 && length & 0x80 != 0 => {
                let bits: String = value[..usize::from(length & 0x7f)].iter().map(|byte| format!("{byte:08b}")).collect();
                let (mut status, mut rest) = (0, &bits[..]);
                while status < 100 {
                    let size = if &rest[..5] < "00011" { 5 } else { 6 };
                    let (code, after) = rest.split_at(size);
                    let code = u16::from_str_radix(code, 2).expect("bits");
                    status = status * 10 + if size == 5 { code } else { code - 0b011001 + 3 };
                    rest = after;
                }
                status
            }
            _ => panic!("no status: {self:?}"),
        }
    }
}

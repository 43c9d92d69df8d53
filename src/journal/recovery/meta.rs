//! The meta file.

use std::io;

use super::super::META;
use super::super::disk::{Disk, write_whole};
use super::super::segment_file;

/// The hash key, drawn at the first start. A journal with segments but without it would take every repeat for new.
pub fn meta(disk: &dyn Disk) -> io::Result<[u8; 16]> {
    let mut bytes = [0; META_LEN];
    match disk.open(META) {
        Ok(file) => {
            let got = file.read_at(&mut bytes, 0)?;
            let genuine =
                got == META_LEN && &bytes[..8] == META_MAGIC && bytes[28..] == crc32c::crc32c(&bytes[..28]).to_le_bytes();
            if !genuine {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it is damaged; restore it from a copy of the directory"));
            }
            if bytes[8..12] != segment_file::FORMAT.to_le_bytes() {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "a later version of hookhold wrote it"));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !segment_file::list(disk)?.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "it is missing, but there are segments; restore it"));
            }
            bytes[..8].copy_from_slice(META_MAGIC);
            bytes[8..12].copy_from_slice(&segment_file::FORMAT.to_le_bytes());
            getrandom::fill(&mut bytes[12..28]).map_err(io::Error::other)?;
            let crc = crc32c::crc32c(&bytes[..28]);
            bytes[28..].copy_from_slice(&crc.to_le_bytes());
            write_whole(disk, META, &bytes)?;
            disk.sync_dir()?;
        }
        Err(error) => return Err(error),
    }
    Ok(bytes[12..28].try_into().expect("16 bytes"))
}

const META_MAGIC: &[u8; 8] = b"hookmeta";

const META_LEN: usize = 32;

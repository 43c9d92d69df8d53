//! The keys of stored events. hookhold must recognise a duplicate even after it has deleted the event, so the keys are in files
//! of their own. This module does not know frames or segments; it knows only the id of the segment that a key file belongs to.
//!
//! ```text
//!  append ─► memory: keys of unsealed segments and of the newest sealed segments
//!              │ sealing: one key file for each segment
//!              ▼
//!            recent key files ─► flush ─► merged key files ─► compaction ─► one merged key file for each eighth of the window
//! ```
//!
//! A lookup first searches the keys in memory, then the filters of the merged key files. It reads pages of a file only if the
//! filter of the file matches. A fresh key asks at most [`MAX_ASKED_FILES`] filters and reads no file.
//!
//! Damage never stops a startup and never rejects a delivery: it costs the keys of a page or of a file. hookhold may then store
//! a duplicate, but loses no event.

mod block;
mod damage;
mod directory;
mod entry;
mod file;
mod header;
mod index;
mod lost;
mod memory;
mod merge;
mod merging;
mod page;
mod policy;
pub(super) mod ranges;
mod reader;
mod retention;
mod standalone;
mod startup;

pub(super) use damage::KeyDamage;
pub(super) use directory::KeyDirectory;
pub use entry::SeenKey;
pub(super) use entry::{KeyEntry, ListedKeyFile};
pub(super) use header::encode_key_file;
pub(super) use index::{KeyEnvironment, KeyIndex};
pub use index::{KeyLimits, KeySizes, MemoryLookup};
pub(super) use merging::KeyMerging;
pub use policy::{MAX_ASKED_FILES, MAX_RECENT_KEYS};
pub(super) use retention::{EvictedKeys, delete_old};
pub use standalone::StandaloneKeys;
pub(super) use startup::{load, report_missing, report_missing_of_segment};

//! The faults of a life. Each seed draws its own mixture: which faults can happen, and which limits the journal has. The table
//! [`FAULTS`] states for each fault what the journal may lose.

use std::time::Duration;

use hookhold::journal::{MAX_RECENT_KEYS, Options};
use hookhold::limits::JournalLimits;

/// A kind of fault.
pub struct FaultKind {
    pub fault: Fault,
    pub name: &'static str,
    pub loss: Loss,
}

/// Possible cost of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: every acknowledged event and every remembered key survives.
    Nothing,
    /// Nothing for good. While the fault lasts, the journal may lack events and keys, if it counts the damage.
    Hidden,
    /// The acknowledged events and the keys that the fault has hit, if the journal counts the damage:
    ///
    /// - The journal may lose the events of the newest commit without counting them, because after a power cut nothing on the
    ///   disk shows that their sync had succeeded.
    /// - A fault that hits a segment may hit the record that another segment is released. The released segment then looks lost,
    ///   so the journal counts it and forgets its keys.
    /// - A misdirected write within one segment may hide the events between its place and the intended place.
    /// - Two faults may hit an event, and the record that this event is lost. The key of the event may then return.
    /// - Two faults may hit the first commit of a segment, and the record of the owner, so that nothing shows that the commit was
    ///   synced. A failed event that the commit superseded may then return.
    /// - A segment with a page that cannot be read pins its space, so the journal may become full.
    Hit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    TornSectors,
    TornPages,
    UnreadablePages,
    FailedWrite,
    FailedSync,
    FailedName,
    FailedDirectorySync,
    FullDisk,
    FullAtWrite,
    FullAtSync,
    FailedRead,
    FailedStep,
    UnreadableRange,
    SegmentCorruption,
    KeyCorruption,
    SideCorruption,
    CutOff,
    LostSync,
    MisdirectedWrite,
    VanishedFile,
    ClockJump,
    SecondProcess,
    MovedDirectory,
}

/// Every fault and what it may cost. Kills and power cuts happen in every life and cost nothing. A fault whose loss is [`Loss::Hit`] makes a complete recovery impossible: the only copy of the bytes is gone.
pub const FAULTS: &[FaultKind] = &[
    kind(Fault::TornSectors, "torn sectors", Loss::Nothing),
    kind(Fault::TornPages, "torn pages", Loss::Nothing),
    kind(Fault::UnreadablePages, "unreadable pages", Loss::Nothing),
    kind(Fault::FailedWrite, "failed writes", Loss::Nothing),
    kind(Fault::FailedSync, "failed syncs", Loss::Nothing),
    kind(Fault::FailedName, "failed names", Loss::Nothing),
    kind(Fault::FailedDirectorySync, "failed directory syncs", Loss::Nothing),
    kind(Fault::FullDisk, "full disk", Loss::Nothing),
    kind(Fault::FullAtWrite, "full disk at a write", Loss::Nothing),
    kind(Fault::FullAtSync, "full disk at a sync", Loss::Nothing),
    kind(Fault::FailedRead, "failed reads", Loss::Hidden),
    kind(Fault::FailedStep, "failed steps of any kind", Loss::Hidden),
    kind(Fault::UnreadableRange, "unreadable ranges", Loss::Hit),
    kind(Fault::SegmentCorruption, "corrupted segments", Loss::Hit),
    kind(Fault::KeyCorruption, "corrupted key files", Loss::Hit),
    kind(Fault::SideCorruption, "corrupted other files", Loss::Hit),
    kind(Fault::CutOff, "files that are cut off", Loss::Hit),
    kind(Fault::LostSync, "lost syncs", Loss::Hit),
    kind(Fault::MisdirectedWrite, "misdirected writes", Loss::Hit),
    kind(Fault::VanishedFile, "vanished files", Loss::Hit),
    kind(Fault::ClockJump, "clock jumps", Loss::Nothing),
    kind(Fault::SecondProcess, "second processes", Loss::Nothing),
    kind(Fault::MovedDirectory, "moved directories", Loss::Nothing),
];

const fn kind(fault: Fault, name: &'static str, loss: Loss) -> FaultKind {
    FaultKind { fault, name, loss }
}

/// Faults and limits of one life.
#[derive(Clone, Debug)]
pub struct Hazards {
    pub faults: Vec<Fault>,
    /// True if the journal may delete old segments.
    pub retention: bool,
    /// True if keys may expire or be evicted during the life.
    pub forgets_keys: bool,
    /// True if processes run long enough for the journal to recycle the files of deleted segments.
    pub is_long: bool,
    /// True if no sync has any effect. The model must notice this.
    pub ignores_syncs: bool,
    pub options: Options,
}

impl Hazards {
    /// Draws the hazards of a life. `enabled` contains the faults that may happen.
    pub fn draw(rng: &mut fastrand::Rng, enabled: &[Fault]) -> Hazards {
        // Few faults in each life, because the effects of one fault can hide the effects of another.
        let rate = [0.0, 0.15, 0.4][rng.usize(..3)];
        let faults: Vec<Fault> = enabled.iter().copied().filter(|_| rng.f64() < rate).collect();
        let retention = rng.u8(..3) == 0;
        let is_long = retention && rng.bool();
        let jumps = faults.contains(&Fault::ClockJump);
        let has_short_window = !jumps && rng.u8(..5) == 0;
        let max_key_bytes = if rng.u8(..8) == 0 { rng.u64(500..20_000) } else { NO_LIMIT };
        let forwards = rng.u8(..3) > 0;
        // With retention, the segments must be large enough and few enough for the journal to recycle them.
        let sizes = if retention { [24, 32, 40, 64] } else { [18, 20, 32, 64] };
        let segment_size = sizes[rng.usize(..4)] * 1024;
        let limits = JournalLimits {
            max_size: if retention { rng.u64(4..9) * segment_size } else { NO_LIMIT },
            retain: if retention && rng.bool() { Duration::from_secs(10) } else { LONG },
            segment_size,
            max_backlog: if rng.u8(..6) == 0 { rng.u64(1..6) * segment_size } else { NO_LIMIT },
            max_parked: NO_LIMIT,
        };
        let dedupe_window = if has_short_window { Duration::from_secs(rng.u64(5..60)) } else { LONG };
        let max_recent_keys = [0, 10, MAX_RECENT_KEYS][rng.usize(..3)];
        let options = Options { limits, dedupe_window, max_key_bytes, forwards, max_recent_keys };
        let forgets_keys = has_short_window || max_key_bytes < NO_LIMIT;
        Hazards { faults, retention, forgets_keys, is_long, ignores_syncs: false, options }
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// Returns true if a fault of this life may hide events and keys from one process.
    pub fn may_hide(&self) -> bool {
        self.faults.iter().any(|fault| loss(*fault) == Loss::Hidden)
    }

    /// Returns a random fault of this life; `None` if the life has no faults.
    pub fn choose(&self, rng: &mut fastrand::Rng) -> Option<Fault> {
        self.faults.get(rng.usize(..self.faults.len().max(1))).copied()
    }
}

/// Returns what a fault may cost.
pub fn loss(fault: Fault) -> Loss {
    FAULTS.iter().find(|kind| kind.fault == fault).expect("the table contains every fault").loss
}

/// Returns all faults, or those that the environment variable `HOOKHOLD_FAULTS` names, separated by commas.
pub fn enabled() -> Vec<Fault> {
    let wanted = std::env::var("HOOKHOLD_FAULTS").ok();
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|names| names.split(',').any(|wanted| wanted == name));
    FAULTS.iter().filter(|kind| is_wanted(kind.name)).map(|kind| kind.fault).collect()
}

/// Time that the journal's clock does not reach in any life, although a clock jump is longer.
pub const LONG: Duration = Duration::from_secs(60 * 86_400);
/// A limit that no life reaches.
pub const NO_LIMIT: u64 = u64::MAX / 8;

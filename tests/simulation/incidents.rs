//! Causes the faults of a life.

use std::io;

use hookhold::journal::{Environment, Journal};

use crate::disk::Step;
use crate::hazards::{Fault, Loss, loss};
use crate::life::{Life, State};
use crate::model::Checked;

impl Life {
    /// Causes one of the faults of this life, in a later step or at once.
    pub fn cause_fault(&self) {
        let fault = {
            let State { rng, .. } = &mut *self.state();
            self.hazards.choose(rng)
        };
        let other = io::ErrorKind::Other;
        let disk = &self.disk;
        match fault {
            None => {}
            Some(Fault::FailedWrite) => disk.fail(Step::Write, ".seg", other, 1),
            Some(Fault::FailedSync) => match self.choose(0..3) {
                0 => disk.fail(Step::Sync, ".seg", other, 1),
                _ => disk.fail(Step::Sync, ".tmp", other, 1),
            },
            Some(Fault::FailedName) => match self.choose(0..6) {
                4 => disk.fail_rename_late(""),
                5 => disk.fail_rename_late(".seg"),
                step => disk.fail([Step::Create, Step::Rename, Step::Remove, Step::Truncate][step], "", other, 1),
            },
            Some(Fault::FailedDirectorySync) => disk.fail(Step::SyncDir, "", other, 1),
            Some(Fault::FullDisk) => match self.choose(0..2) {
                0 => disk.set_limit(disk.used() + self.choose(0..40_000) as u64),
                _ => disk.set_limit(u64::MAX),
            },
            Some(Fault::FullAtWrite) => disk.fail(Step::Write, "", io::ErrorKind::StorageFull, 1),
            Some(Fault::FullAtSync) => disk.fail(Step::Sync, ".tmp", io::ErrorKind::StorageFull, 1),
            Some(Fault::FailedRead) => disk.fail_medium(Step::Read, [".seg", ".keys", ""][self.choose(0..3)]),
            Some(Fault::FailedStep) => disk.fail_after(self.choose(1..30) as u64),
            Some(fault @ Fault::LostSync) => self.incident(fault, || disk.lose_sync(["", ".seg", ".tmp"][self.choose(0..3)])),
            Some(fault @ Fault::MisdirectedWrite) => {
                self.incident(fault, || disk.misdirect_write(["", ".seg"][self.choose(0..2)]))
            }
            Some(Fault::MovedDirectory) => {
                disk.move_away();
                let now = self.clock.elapsed_ms();
                self.state().moved_ms.get_or_insert(now);
                self.state().model.counts.count("directory moved", 1);
            }
            Some(fault) => self.damage(fault),
        }
    }

    /// Starts a second process on the same directory, perhaps after an operator has deleted the lock file. It must not open the
    /// journal.
    pub fn start_second_process(&self) -> Checked {
        if !self.hazards.has(Fault::SecondProcess) || self.crew().journal.is_none() || self.has_exited() {
            return Ok(());
        }
        if self.choose(0..2) == 0 && self.disk.len("lock").is_some() {
            self.disk.remove_file("lock");
        }
        self.state().model.counts.count("second process", 1);
        let environment = Environment {
            disk: self.disk.second_process(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            metrics: self.metrics.clone(),
        };
        match Journal::open_in_steps(environment, self.hazards.options.clone()) {
            Ok(_) if !self.disk.is_dead() && self.crew().journal.is_some() => Err("a second process opened the journal".into()),
            _ => Ok(()),
        }
    }

    /// Checks that the process notices soon that its directory has been moved.
    pub fn check_place(&self) -> Checked {
        let Some(moved) = self.state().moved_ms else { return Ok(()) };
        let is_late = self.clock.elapsed_ms() > moved + MAX_CHECK_DELAY_MS;
        if is_late && self.step_background() && !self.disk.is_dead() && !self.has_exited() {
            return Err("the process has not noticed that its directory has been moved".into());
        }
        Ok(())
    }

    /// Makes a step of the current opening fail.
    pub fn fail_an_opening(&self) {
        if self.hazards.has(Fault::FailedStep) {
            self.disk.fail_after(self.choose(1..80) as u64);
        } else if self.hazards.has(Fault::FailedRead) {
            let ending = [".seg", ".keys", "meta", "lock", ""][self.choose(0..5)];
            self.disk.fail_medium(Step::Read, ending);
        }
    }

    /// Damages a synced file in one of `rarity` calls, if damage is a hazard of this life.
    pub fn damage_something(&self, rarity: usize) {
        let fault = {
            let State { rng, .. } = &mut *self.state();
            self.hazards.choose(rng)
        };
        if let Some(fault) = fault.filter(|_| self.choose(0..rarity) == 0) {
            self.damage(fault);
        }
    }

    /// Damages a synced file if `fault` does so. At most a few times in each life, so that the model can tell what a fault may
    /// have cost.
    fn damage(&self, fault: Fault) {
        let endings: &[&str] = match fault {
            Fault::SegmentCorruption => &[".seg"],
            Fault::KeyCorruption => &[".keys"],
            Fault::SideCorruption => &["meta", "lock", ".topics", ".spare", "reserve"],
            Fault::UnreadableRange | Fault::CutOff | Fault::VanishedFile => &[".seg", ".keys", ".topics", "meta", "lock"],
            _ => return,
        };
        // A file vanishes or is cut off while no process runs, as by `fsck`, and alone, so that other files show the loss.
        let is_offline = matches!(fault, Fault::CutOff | Fault::VanishedFile);
        let is_possible = !is_offline || (self.crew().journal.is_none() && self.state().incidents == 0);
        if self.state().incidents >= MAX_INCIDENTS || !is_possible {
            return;
        }
        let names: Vec<String> = endings.iter().flat_map(|ending| self.disk.names(ending)).collect();
        if names.is_empty() {
            return;
        }
        let name = &names[self.choose(0..names.len())];
        let len = self.disk.len(name).unwrap_or(0);
        if len == 0 {
            return;
        }
        let start = self.choose(0..len);
        let bytes = start..(start + [1, 8, 64, 600, 5_000][self.choose(0..5)]).min(len);
        self.trace(format_args!("{fault:?} at {bytes:?} of {name}"));
        if is_offline {
            self.state().incidents = MAX_INCIDENTS - 1;
        }
        self.incident(fault, || match fault {
            Fault::UnreadableRange => self.disk.spoil(name, bytes),
            Fault::CutOff => self.disk.cut_off(name, start),
            Fault::VanishedFile => self.disk.remove_file(name),
            _ if self.choose(0..2) == 0 => self.disk.corrupt(name, bytes, |_| 0),
            _ => self.disk.corrupt(name, bytes, |byte| byte ^ 0x5A),
        });
        let kind = match fault {
            Fault::UnreadableRange => "unreadable range",
            Fault::CutOff => "file cut off",
            Fault::VanishedFile => "file vanished",
            Fault::KeyCorruption => "corrupted key file",
            Fault::SideCorruption => "corrupted other file",
            _ => "corrupted segment",
        };
        self.state().model.counts.count(kind, 1);
    }

    /// Causes a fault that breaks the guarantees of the disk.
    fn incident(&self, fault: Fault, cause: impl FnOnce()) {
        debug_assert_eq!(loss(fault), Loss::Hit, "the table allows the journal to lose what this fault hits");
        if self.state().incidents < MAX_INCIDENTS {
            self.state().incidents += 1;
            cause();
        }
    }

    /// Tells the model which events and keys the incidents since the last call may have destroyed.
    pub fn note_incidents(&self) {
        for incident in self.disk.take_incidents() {
            self.trace(format_args!("incident at {:?} of {}", incident.bytes, incident.file));
            self.state().model.expose(&incident);
        }
    }

    /// Returns true if a fault may hide events and keys from the current process.
    pub fn may_hide(&self) -> bool {
        (self.hazards.may_hide() && self.has_failed_steps()) || self.state().incidents > 0
    }
}

/// Maximum number of faults in one life that break the guarantees of the disk.
const MAX_INCIDENTS: u64 = 3;
/// Time after which the background work must have checked the place of the directory, in milliseconds.
const MAX_CHECK_DELAY_MS: u64 = 5_000;

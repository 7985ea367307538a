// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests that come to nothing: what reboots, crashes or fails as soon as it is started is started again more and more slowly,
//! and in the end not at all. Each start takes the one CPU of dom0 for seconds, and the lock of whoever else wants to start a
//! guest. xend refuses to restart what has run for less than 20 s; systemd's own limit counts starts in a time, which a
//! start that takes long never exceeds, and knows nothing of reboots within a run.

use std::time::{Duration, Instant};

use super::Error;
use super::record::{Ending, Record};
use crate::base::clock::now;
use crate::config::types::GuestName;

/// A run shorter than this, in seconds, has come to nothing.
const SHORT: u64 = 60;

/// After so many of these in a row there is no further one.
const LIMIT: u32 = 5;

/// What comes after so many runs in a row that came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The guest is started again, after this time.
    Again(Duration),
    /// It is not.
    GiveUp,
}

/// Once is nothing; from then on the pause doubles: 0, 5, 10 and 20 s.
pub fn after(futile: u32) -> Step {
    match futile {
        0 | 1 => Step::Again(Duration::ZERO),
        LIMIT.. => Step::GiveUp,
        more => Step::Again(Duration::from_secs(5 << (more - 2))),
    }
}

/// Within so many instructions behind a guest's reset one more is its firmware's: SeaBIOS, which finds that it has run before, resets
/// the machine once more (tryReboot in its src/resume.c), after 190,000. Whoever counts them comes a little later, so there is much
/// to spare; a guest that resets within that time counts every other time.
const FIRMWARE: u64 = 20_000_000;

/// Reboots of an emulated guest within a run.
#[derive(Debug)]
pub struct Reboots {
    /// Up to which instruction the firmware's own reset may come, if it has not.
    firmware: Option<u64>,
    /// When it began, or began again.
    since: Instant,
    /// How many in a row came too soon.
    times: u32,
}

impl Reboots {
    /// Of a guest that begins now.
    pub fn begin(now: Instant) -> Self {
        Self {
            firmware: None,
            since: now,
            times: 0,
        }
    }

    /// The machine was reset once more, after so many instructions. Returns what is next if that was the guest.
    pub fn another(&mut self, instructions: u64, now: Instant) -> Option<Step> {
        if self.firmware.take().is_some_and(|until| instructions < until) {
            return None;
        }
        self.firmware = Some(instructions.saturating_add(FIRMWARE));
        self.times = match is_short((now - self.since).as_secs()) {
            true => self.times + 1,
            false => 0,
        };
        self.since = now;
        Some(after(self.times))
    }

    /// How many in a row came too soon.
    pub fn times(&self) -> u32 {
        self.times
    }

    /// The guest goes on after a pause, which does not count.
    pub fn go_on(&mut self, now: Instant) {
        self.since = now;
    }
}

/// That a guest has rebooted so many times in a row, and waits.
pub fn slowed(times: u32, pause: Duration) -> String {
    format!(
        "rebooted within a minute, {times} times in a row now: started again in {} s",
        pause.as_secs()
    )
}

/// That it is not started again.
pub fn given_up(guest: &GuestName, times: u32) -> Error {
    Error::Futile {
        guest: guest.clone(),
        times,
        how: "rebooted within a minute of its start".to_owned(),
    }
}

/// Whether a guest that ran for so many seconds, and then rebooted, has come to nothing.
pub fn is_short(seconds: u64) -> bool {
    seconds < SHORT
}

/// How many runs in a row came to nothing, `run` being the newest. One that never came up counts however long that took: it may
/// have waited for a lock.
pub fn count(run: &Record) -> u32 {
    let lasted = run.until.unwrap_or_else(now).saturating_sub(run.since);
    let futile = match run.ending {
        Some(Ending::NotStarted) => true,
        Some(Ending::Rebooted | Ending::Crashed | Ending::Watchdog | Ending::Suspended | Ending::Abandoned) | None => {
            is_short(lasted)
        }
        Some(
            Ending::PoweredOff
            | Ending::Stopped
            | Ending::Killed
            | Ending::KilledAtOnce
            | Ending::Destroyed
            | Ending::Identical,
        ) => false,
    };
    if futile { run.futile.saturating_add(1) } else { 0 }
}

/// The same for a run that begins after `before`, in the boot of that id: what systemd itself starts again goes on counting. Who
/// starts a guest by hand has looked into it, and that counts from the beginning.
pub fn carried(before: &Record, boot: &str) -> u32 {
    match before.again && before.boot == boot {
        true => count(before),
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ending: Option<Ending>, lasted: u64, futile: u32) -> Record {
        Record {
            run: String::new(),
            boot: "this".into(),
            domid: None,
            up: false,
            since: 1000,
            reboots: 0,
            until: Some(1000 + lasted),
            ending,
            why: None,
            trouble: None,
            previous: None,
            snapshot_lost: false,
            again: true,
            futile,
            failed_starts: 0,
        }
    }

    #[test]
    fn slower_and_then_not_at_all() {
        let steps: Vec<Step> = (1..=6).map(after).collect();
        let again = |seconds| Step::Again(Duration::from_secs(seconds));
        assert_eq!(
            steps,
            [again(0), again(5), again(10), again(20), Step::GiveUp, Step::GiveUp]
        );
    }

    #[test]
    fn reboots_in_a_row() {
        let mut now = Instant::now();
        let mut reboots = Reboots::begin(now);
        let mut instructions = 5_000_000;
        for times in 1..=4 {
            now += Duration::from_secs(59);
            assert_eq!(reboots.another(instructions, now), Some(after(times)));
            assert_eq!(reboots.times(), times);
            assert_eq!(reboots.another(instructions + 190_000, now), None, "its firmware");
            now += Duration::from_secs(20);
            reboots.go_on(now);
            instructions += 5_190_000;
        }
        now += Duration::from_secs(SHORT);
        let again = reboots.another(instructions, now);
        assert_eq!(again, Some(Step::Again(Duration::ZERO)), "it came to something");
        let mut next = || {
            instructions += 25_000_000;
            reboots.another(instructions, now)
        };
        for _ in 1..LIMIT {
            assert_ne!(next(), Some(Step::GiveUp));
        }
        assert_eq!(next(), Some(Step::GiveUp));
    }

    #[test]
    fn only_what_comes_to_nothing_counts() {
        assert_eq!(count(&run(Some(Ending::Crashed), 59, 2)), 3);
        assert_eq!(count(&run(Some(Ending::Crashed), 60, 2)), 0);
        assert_eq!(count(&run(Some(Ending::Rebooted), 3, 0)), 1);
        assert_eq!(count(&run(Some(Ending::PoweredOff), 3, 2)), 0, "as intended");
        assert_eq!(count(&run(Some(Ending::Stopped), 3, 2)), 0, "somebody wanted that");
        assert_eq!(count(&run(Some(Ending::NotStarted), 120, 2)), 3, "it waited for a lock");
        assert_eq!(count(&run(None, 3, 1)), 2, "its supervisor was killed");
    }

    #[test]
    fn who_starts_it_by_hand_begins_anew() {
        let crashed = run(Some(Ending::Crashed), 3, 3);
        assert_eq!(carried(&crashed, "this"), 4);
        let left = Record {
            again: false,
            ..crashed
        };
        assert_eq!(carried(&left, "this"), 0, "given up, refused, recorded or replayed");
        assert_eq!(carried(&run(Some(Ending::Crashed), 3, 3), "another"), 0);
    }
}

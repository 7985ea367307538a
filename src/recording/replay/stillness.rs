// SPDX-License-Identifier: MIT OR Apache-2.0
//! A replay that does not go on: is it because the log and the guest disagree, or because the host lets QEMU wait?
//!
//! QEMU that waits for its log sleeps, or turns in circles. QEMU that waits for the host waits for a disk, was stopped, or is not
//! given the processor. Only the first says something about the run.

use std::fs;
use std::time::{Duration, Instant};

/// A replay that has executed nothing for so long, and could have, waits for something the log does not have.
const STALLED: Duration = Duration::from_secs(30);

/// What is waited for the host.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often a replay is asked how far it is.
const LOOK: Duration = Duration::from_secs(1);

/// Between two looks no more than this is counted: what is longer we did not run ourselves.
const LONGEST: Duration = Duration::from_secs(3);

/// What the threads of a process do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// They sleep, or some of them run.
    Able,
    /// One waits for a disk, or was stopped.
    Held,
}

/// What to make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::recording) enum Stillness {
    /// It goes on, or may still.
    No,
    /// It could have gone on and did not.
    OfTheRun,
    /// The host does not let it.
    OfTheHost,
}

/// How far a replay is.
pub(in crate::recording) struct Progress {
    /// Instructions.
    pub(in crate::recording) done: u64,
    /// When to look again.
    pub(in crate::recording) again: Instant,
    looked: Instant,
    /// How long it stood still and could have gone on.
    still: Duration,
    /// How long it has not gone on at all.
    moved: Instant,
    /// What the process had used of the processor.
    used: u64,
    /// Who stands still for longer, and could go on, does not.
    stalled: Duration,
}

impl Progress {
    pub(in crate::recording) fn new(now: Instant) -> Self {
        Self::with_patience(now, STALLED)
    }

    /// The same where standing still is believed after `stalled`.
    pub(in crate::recording) fn with_patience(now: Instant, stalled: Duration) -> Self {
        Self {
            done: 0,
            again: now + LOOK,
            looked: now,
            still: Duration::ZERO,
            moved: now,
            used: 0,
            stalled,
        }
    }

    /// Leaves out the time until `now`: who reads what is watched kept it.
    pub(super) fn pass_over(&mut self, now: Instant) {
        (self.looked, self.moved, self.again) = (now, now, now + LOOK);
    }

    /// Looks at it after `done` instructions; it is what `threads` says, and has `used` so many ticks of the processor.
    pub(in crate::recording) fn look(&mut self, now: Instant, done: u64, threads: &Threads) -> Stillness {
        let passed = now - self.looked;
        let used = threads.used.saturating_sub(self.used);
        (self.looked, self.again, self.used) = (now, now + LOOK, threads.used);
        if done != self.done {
            (self.done, self.moved, self.still) = (done, now, Duration::ZERO);
            return Stillness::No;
        }
        // Ready to run and not let: the host has other things to do.
        let starved = threads.ready && used == 0;
        if threads.doing == Doing::Able && !starved {
            self.still += passed.min(LONGEST);
        }
        if self.still >= self.stalled {
            Stillness::OfTheRun
        } else if now - self.moved >= PATIENCE {
            Stillness::OfTheHost
        } else {
            Stillness::No
        }
    }
}

/// The threads of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::recording) struct Threads {
    doing: Doing,
    /// Whether one of them runs, or would.
    ready: bool,
    /// Ticks of the processor.
    used: u64,
}

impl Threads {
    /// Those of the process `pid`, as far as the kernel tells.
    pub(in crate::recording) fn of(pid: u32) -> Self {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
        Self::parse(stats)
    }

    /// `stat` of each (proc(5)).
    fn parse(stats: impl Iterator<Item = String>) -> Self {
        let mut threads = Self {
            doing: Doing::Able,
            ready: false,
            used: 0,
        };
        for stat in stats {
            // The name before it may have any character.
            let Some((_, rest)) = stat.rsplit_once(") ") else {
                continue;
            };
            let mut fields = rest.split(' ');
            match fields.next() {
                Some("D" | "T" | "t") => threads.doing = Doing::Held,
                Some("R") => threads.ready = true,
                _ => {}
            }
            // utime and stime, the 14th and 15th of all.
            let ticks = fields.skip(10).take(2).filter_map(|field| field.parse::<u64>().ok());
            threads.used += ticks.sum::<u64>();
        }
        threads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(state: &str, user: u64, system: u64) -> String {
        format!("7 (qemu) system) {state} 1 7 7 0 -1 4194624 5 0 0 0 {user} {system} 0 0 20 0 4 0 99 1 1")
    }

    fn threads(states: &[(&str, u64)]) -> Threads {
        Threads::parse(states.iter().map(|(state, used)| stat(state, *used, 1)))
    }

    #[test]
    fn what_a_reader_takes_is_not_counted() {
        let begin = Instant::now();
        let mut progress = Progress::new(begin);
        let able = threads(&[("S", 5)]);
        for turn in 1..2000 {
            progress.pass_over(begin + LOOK * turn);
        }
        assert_eq!(progress.look(begin + LOOK * 2000, 0, &able), Stillness::No);
    }

    #[test]
    fn what_threads_do() {
        let all = threads(&[("S", 5), ("R", 7)]);
        assert_eq!((all.doing, all.ready, all.used), (Doing::Able, true, 14));
        assert_eq!(threads(&[("S", 0), ("D", 0)]).doing, Doing::Held);
        assert_eq!(threads(&[("T", 0)]).doing, Doing::Held);
        assert_eq!(threads(&[]).used, 0);
    }

    /// Looks every `step` seconds, 10000 times at most, at a machine that does not go on.
    fn ends(step: u64, look: &dyn Fn(u64) -> Threads) -> (Stillness, u64) {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        progress.look(start, 1000, &look(0));
        for turn in 1..10_000 {
            let now = start + Duration::from_secs(turn * step);
            match progress.look(now, 1000, &look(turn)) {
                Stillness::No => {}
                found => return (found, turn * step),
            }
        }
        (Stillness::No, 0)
    }

    #[test]
    fn whose_fault_it_is() {
        // It sleeps: the log has nothing for it.
        assert_eq!(ends(1, &|_| threads(&[("S", 5)])), (Stillness::OfTheRun, 30));
        // It turns in circles.
        assert_eq!(ends(1, &|turn| threads(&[("R", turn * 99)])), (Stillness::OfTheRun, 30));
        // A disk that does not answer, a stopped process, a host without a processor for it.
        for held in ["D", "T"] {
            assert_eq!(
                ends(1, &|_| threads(&[("S", 5), (held, 5)])),
                (Stillness::OfTheHost, 600)
            );
        }
        assert_eq!(ends(1, &|_| threads(&[("R", 5)])), (Stillness::OfTheHost, 600));
        // We were stopped ourselves.
        assert_eq!(ends(50, &|_| threads(&[("S", 5)])), (Stillness::OfTheRun, 500));
        // A slow disk, and then it goes on.
        let mut progress = Progress::new(Instant::now());
        let (start, able) = (Instant::now(), threads(&[("S", 5)]));
        for turn in 0..100 {
            let now = start + Duration::from_secs(turn);
            assert_eq!(progress.look(now, turn / 25, &able), Stillness::No);
        }
    }
}

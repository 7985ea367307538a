// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run that was killed, or whose host lost power, is salvaged, and what there is of it is the same run again.

use std::fs::{self, File, FileTimes};
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use ttvm::recording::State;
use ttvm::recording::library::manifest::RunExit;

use super::super::Outcome;
use super::super::lab::{self, GUEST, Lab, Place, contents};
use super::describe_tiny;

/// How many runs are killed; TTVM_KILLS says another number, and then each is told of.
const KILLS: u64 = 3;

/// How many logs are cut.
const CUTS: u64 = 24;

/// Numbers without an order, the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit.max(1)
    }
}

/// Salvages the only recording and replays it.
fn is_the_same_run(place: &Place, what: &str) {
    let id = place.entry().id.to_string();
    let salvaged = place.run(&["recordings", "salvage", GUEST, &id]);
    salvaged.expect(0, &[&format!("demo {id}: salvaged: "), " instructions, console "]);
    let entry = place.entry();
    assert_eq!(entry.state, State::Complete, "{what}");
    let result = entry.manifest.and_then(|manifest| manifest.result).expect("a result");
    assert_eq!(result.exit, RunExit::Cut);
    let replayed = place.replay(&["--verify"]);
    assert!(
        replayed.status == 0 && replayed.out.contains("IDENTICAL") && !replayed.out.contains("disk"),
        "{what}: {}{replayed:?}",
        salvaged.out
    );
    let whole = place.run(&["recordings", "salvage", GUEST, &id]);
    whole.expect(0, &[&format!("demo {id} is whole")]);
}

pub fn killed(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,clocks,disk,net,loop", "");
    let mut numbers = Numbers(1);
    // From its first words to what the guest does when it has done everything else.
    let words = ["guest up", "random ", "rtc ", "disk ", "written ", "PING", "turn 9 "];
    let many = std::env::var("TTVM_KILLS").ok();
    let count = many
        .as_ref()
        .map_or(KILLS, |text| text.parse().expect("TTVM_KILLS is a number"));
    for number in 0..count {
        let running = place.start(&["record", GUEST], "recording as");
        let emulator = running.emulator();
        let what = match number % 2 {
            0 => {
                let word = words[numbers.below(words.len() as u64) as usize];
                lab::console_says(&place, word);
                format!("killed behind {word:?}")
            }
            _ => {
                // With as many the guest is up, and does the same for ever soon.
                let length = 20_000 + numbers.below(440_000);
                let log = place.entry().directory.join("replay.log");
                lab::until("the log has so many bytes", || {
                    fs::metadata(&log).is_ok_and(|data| data.len() >= length)
                });
                format!("killed behind {length} bytes of the log")
            }
        };
        // QEMU alone, ttvm alone, with which QEMU ends, or both.
        let who = number % 3;
        if who != 1 {
            kill(emulator, Signal::SIGKILL).expect("kill");
        }
        if who != 0 {
            running.signal(Signal::SIGKILL);
        }
        running.end();
        lab::until("QEMU is gone", || lab::state(emulator).is_none_or(|state| state == 'Z'));
        is_the_same_run(&place, &format!("kill {number}, {what}"));
        if many.is_some() {
            println!("kill {number}, {what}: the same run");
        }
        let id = place.entry().id.to_string();
        place.run(&["recordings", "rm", GUEST, &id]).expect(0, &["removed"]);
    }
    Ok(())
}

/// A recording that is put back as it was when the power failed.
struct PowerCut<'a> {
    place: &'a Place,
    directory: PathBuf,
    /// Its files when it was not finished yet.
    log: Vec<u8>,
    console: Vec<u8>,
    manifest: Vec<u8>,
}

impl<'a> PowerCut<'a> {
    /// Of a run that comes to its end.
    fn of(place: &'a Place) -> Self {
        let mut command = place.command(&["record", GUEST]);
        // Everything is there but the manifest's result.
        command.env("TTVM_FAIL_POINT", "recording.synced");
        lab::Running::start(command).end().expect(-9, &[]);
        let directory = place.entry().directory;
        let read = |name: &str| fs::read(directory.join(name)).expect(name);
        Self {
            place,
            log: read("replay.log"),
            console: read("console.log"),
            manifest: read("manifest.toml"),
            directory,
        }
    }

    /// With `length` bytes of its log, then zeros, and as much of its console as `console` says.
    fn back(&self, length: usize, zeros: usize, console: usize) {
        let mut log = self.log[..length].to_vec();
        log.resize(length + zeros, 0);
        // QEMU writes that last.
        log[..4].fill(0);
        let mut printed = self.console[..console].to_vec();
        printed.resize(console + zeros, 0);
        for (name, content) in [
            ("replay.log", &log),
            ("console.log", &printed),
            ("manifest.toml", &self.manifest),
        ] {
            fs::write(self.directory.join(name), content).expect(name);
        }
        // Of a run of another end.
        for name in ["replay.json", "trail.json"] {
            drop(fs::remove_file(self.directory.join(name)));
        }
        self.place.give();
    }
}

pub fn power_cut(lab: &Lab) -> Outcome {
    let place = lab.place();
    describe_tiny(&place, "");
    let cut = PowerCut::of(&place);
    let mut numbers = Numbers(2);
    let all = cut.console.len();
    let mut short = 0;
    for _ in 0..CUTS {
        // Behind the first instructions.
        let length = 200 + numbers.below(cut.log.len() as u64 - 200) as usize;
        let zeros = [0, 1, 4096][numbers.below(3) as usize];
        let console = [all, numbers.below(all as u64) as usize][numbers.below(2) as usize];
        cut.back(length, zeros, console);
        is_the_same_run(
            &place,
            &format!("{length} bytes of the log, {zeros} zeros, {console} bytes of the console"),
        );
        let result = place.recording().manifest().result.clone().expect("a result");
        short += u32::from(!result.console_complete);
        assert!(
            cut.console
                .starts_with(contents(&place.recording().console()).as_bytes())
        );
    }
    assert!((1..CUTS as u32).contains(&short), "{short}");
    // Before the first instructions, there is nothing.
    cut.back(20, 100, all);
    let id = place.entry().id.to_string();
    let refused = place.run(&["recordings", "salvage", GUEST, &id]);
    refused.expect(
        4,
        &["nothing of the recording", &format!("ttvm recordings rm demo {id}")],
    );
    Ok(())
}

/// Whoever does not know of it finds it done by the next run, with the time at which the other ended.
pub fn by_the_next_run(lab: &Lab) -> Outcome {
    let place = lab.place();
    describe_tiny(&place, "");
    let cut = PowerCut::of(&place);
    let id = place.entry().id.to_string();
    cut.back(cut.log.len() - 500, 0, cut.console.len());
    let began = place.entry().manifest.expect("a manifest").run.started;
    let log = File::options().write(true).open(cut.directory.join("replay.log"));
    let ended = std::time::UNIX_EPOCH + std::time::Duration::from_secs(began + 3);
    log.and_then(|log| log.set_times(FileTimes::new().set_modified(ended)))
        .expect("a time");
    place.record(&[]).expect(0, &[&format!("demo {id}: salvaged: ")]);
    let salvaged = place
        .library()
        .find(&GUEST.parse().expect("a name"), Some(&id))
        .expect("it is whole");
    let result = salvaged.manifest().result.as_ref().expect("a result");
    assert_eq!(result.ended, began + 3);
    place.replay(&[&id, "--verify"]).expect(0, &["IDENTICAL"]);
    // What cannot be salvaged is in nobody's way.
    cut.back(20, 0, 0);
    place
        .record(&[])
        .expect(0, &["warning: nothing of the recording ", &id]);
    place.run(&["recordings", "list"]).expect(0, &["incomplete"]);
    Ok(())
}

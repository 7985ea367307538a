// SPDX-License-Identifier: MIT OR Apache-2.0
//! `make bench PART=replay`: what recording and replaying cost, as ratios of medians measured in turns in one run.

#[allow(dead_code, reason = "made for tests, too")]
#[path = "../tests/replay/lab.rs"]
mod lab;
mod table;

use std::path::{Path, PathBuf};
use std::time::Instant;

use lab::{GUEST, Lab, Place, Running, contents};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use table::{Table, is_wanted};
use ttvm::qemu::engine;
use ttvm::qemu::machine::{Backing, Drive, Mode, Replaying};
use ttvm::qemu::process::Emulator;
use ttvm::qemu::qmp::Event;

const RUNS: usize = 5;
const STEPS: &str = "random,disk,clocks,disk,net,disk";

fn main() {
    if !is_wanted("replay") {
        return;
    }
    let lab = match Lab::with(Path::new(env!("CARGO_BIN_EXE_ttvm"))) {
        Ok(lab) => lab,
        Err(missing) => return println!("record and replay: {missing}"),
    };
    let places = [lab.place(), lab.place()];
    for place in &places {
        place.describe(STEPS, "");
    }
    let [place, other] = &places;
    other.record(&[]);
    let (mut plain, mut record, mut replay, mut by_hand, mut two) = (vec![], vec![], vec![], vec![], vec![]);
    let (mut bytes, mut guest_seconds) = (0.0, 0.0);
    for run in 0..RUNS {
        record.push(place.record(&[]).seconds);
        plain.push(timed(|| emulate(place, &Mode::Plain)));
        let recording = place.recording();
        bytes += recording.manifest().result.as_ref().map_or(0, |it| it.log.size) as f64;
        guest_seconds += up(&contents(&recording.console()));
        let mode = Mode::Replay(Replaying {
            log: recording.log(),
            state: None,
            debugger: None,
        });
        let mut measure: [&mut dyn FnMut(); 2] = [&mut || replay.push(verified(place)), &mut || {
            by_hand.push(timed(|| emulate(place, &mode)))
        }];
        // Neither is always the first.
        measure.rotate_left(run % 2);
        measure.into_iter().for_each(|measure| measure());
        two.push(timed(|| {
            let both = places
                .each_ref()
                .map(|place| Running::start(place.command(&["replay", GUEST, "--verify"])));
            for ran in both {
                ran.end().expect(0, &["IDENTICAL"]);
            }
        }));
    }
    let mut table = Table::default();
    table.ratio(
        "ttvm record ÷ the same machine, neither recorded nor replayed",
        &record,
        &plain,
        "1.2",
    );
    table.ratio("ttvm replay --verify ÷ ttvm record", &replay, &record, "");
    table.ratio("two replays at once ÷ one", &two, &replay, "");
    table.ratio(
        "ttvm replay --verify ÷ the same replay by QEMU alone",
        &replay,
        &by_hand,
        "1.05",
    );
    table.value(
        "log for a second of the guest",
        format!(
            "{:.1} MB in {:.1} s",
            bytes / 1e6 / RUNS as f64,
            guest_seconds / RUNS as f64
        ),
        format!("{:.2} MB", bytes / 1e6 / guest_seconds),
        "",
    );
    table.print();
}

/// Seconds.
fn timed(what: impl FnOnce()) -> f64 {
    let started = Instant::now();
    what();
    started.elapsed().as_secs_f64()
}

fn verified(place: &Place) -> f64 {
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]).seconds
}

/// What the guest's clock said at last.
fn up(console: &str) -> f64 {
    let line = console.lines().find_map(|line| line.strip_prefix("end "));
    line.and_then(|line| line.split(' ').next()?.parse().ok())
        .expect("the end")
}

/// Runs the machine that was recorded, from a fresh disk, to its end, and does nothing else.
fn emulate(place: &Place, mode: &Mode) {
    let overlay: PathBuf = place.path("by-hand.qcow2");
    drop(std::fs::remove_file(&overlay));
    let base = place.path("base.img");
    engine::create_overlay(
        &overlay.to_string_lossy(),
        Some(&base.to_string_lossy()),
        lab::DISK as u64,
    )
    .expect("an overlay");
    let drive = Drive {
        target: "vda".parse().expect("a target"),
        backing: Backing::Overlay { path: overlay, base },
    };
    let mut emulator = Emulator::start(&place.machine(vec![drive]), mode, None, &place.path("")).expect("QEMU");
    if matches!(mode, Mode::Replay(_)) {
        emulator.qmp().go_on().expect("QEMU goes on");
    }
    loop {
        while !emulator.console().expect("the console").is_empty() {}
        emulator.listen();
        match emulator.qmp().event().expect("QEMU") {
            Some(Event::Shutdown(_)) => break,
            Some(_) => continue,
            None => {}
        }
        let mut fds = emulator.descriptors().map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let _ = poll(&mut fds, PollTimeout::NONE);
    }
    emulator.quit().expect("QEMU's end");
}

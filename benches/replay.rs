// SPDX-License-Identifier: MIT OR Apache-2.0
//! `make bench PART=replay`: what recording and replaying cost, as ratios of medians measured in turns in one run.

#[allow(dead_code, reason = "made for tests, too")]
#[path = "../tests/replay/lab.rs"]
mod lab;
mod table;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lab::{GUEST, Lab, Place, Running, contents};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use table::{Table, is_wanted};
use ttvm::qemu::engine::{self, Engine};
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
    let (mut first, mut alone) = (vec![], vec![]);
    let (mut bytes, mut guest_seconds, mut instructions) = (0.0, 0.0, 0.0);
    for run in 0..RUNS {
        record.push(place.record(&[]).seconds);
        plain.push(timed(|| emulate(place, &Mode::Plain)));
        let recording = place.recording();
        let result = recording.manifest().result.as_ref().expect("a result");
        bytes += result.log.size as f64;
        instructions += result.instructions.expect("a count") as f64;
        guest_seconds += up(&contents(&recording.console()));
        let mode = Mode::Replay(Replaying {
            log: recording.log(),
            state: None,
            debugger: None,
            packets: Vec::new(),
            watching: None,
        });
        // The first makes checkpoints and the trail, those that follow are compared with it.
        let mut measure: [&mut dyn FnMut(); 2] = [&mut || first.push(verified(place)), &mut || {
            alone.push(timed(|| emulate(place, &mode)))
        }];
        measure.rotate_left(run % 2);
        measure.into_iter().for_each(|measure| measure());
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
        "1.10",
    );
    table.ratio(
        "the first replay, which makes checkpoints ÷ the same replay by QEMU alone",
        &first,
        &alone,
        "",
    );
    travel(place, &mut table);
    branches(place, &mut table);
    explain(place, &replay, &mut table);
    jobs(place, &mut table);
    questions(place, &replay, &mut table);
    table.value(
        "log for 1,000 instructions",
        format!("{:.0} instructions in {RUNS} runs", instructions),
        format!("{:.3} bytes", bytes * 1000.0 / instructions),
        "",
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

/// Points of a run that is gone to.
const POINTS: u64 = 200;

/// Goes to moments of the newest recording, by chance, and tells how long that takes, with a core of the guest's memory each.
fn travel(place: &Place, table: &mut Table) {
    let recording = place.recording();
    let result = recording.manifest().result.as_ref().expect("a result");
    let end = result.instructions.expect("a count");
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut seconds: Vec<f64> = (0..POINTS)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = ((state >> 16) % end).to_string();
            let ran = place.replay(&["--at", &at, "--dump-memory", "core"]);
            ran.expect(0, &[]);
            std::fs::remove_file(place.path("core")).expect("a core");
            ran.seconds
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let at = |share: usize| seconds[(seconds.len() * share / 100).min(seconds.len() - 1)];
    table.value(
        &format!("replay --at N --dump-memory, {POINTS} points by chance: half of them, 95 of 100"),
        format!("{:.3} s, {:.3} s; the longest {:.3} s", at(50), at(95), at(100)),
        format!("{:.3} s", at(95)),
        "1.5 s",
    );
    let checkpoints = recording.directory().join("checkpoints");
    let files = std::fs::read_dir(checkpoints).expect("checkpoints").flatten();
    let store: u64 = files
        .map(|file| file.metadata().map_or(0, |data| data.blocks() * 512))
        .sum();
    let memory = recording.manifest().engine.memory;
    let listed = place.run(&["recordings", "checkpoints", GUEST]).out.lines().count() - 1;
    table.value(
        &format!("{listed} checkpoints ÷ the guest's memory"),
        format!("{:.1} MB ÷ {:.1} MB", store as f64 / 1e6, memory as f64 / 1e6),
        format!("{:.3}", store as f64 / memory as f64),
        "2",
    );
}

/// Points at which a run is left.
const BRANCHES: u64 = 50;

/// Leaves the newest recording at moments by chance and tells how long it takes until the guest is live there; each branch is then
/// replayed from its parent's first instruction.
fn branches(place: &Place, table: &mut Table) {
    let recording = place.recording();
    let result = recording.manifest().result.as_ref().expect("a result");
    let end = result.instructions.expect("a count");
    let id = recording.id().to_string();
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut same = 0;
    let mut seconds: Vec<f64> = (0..BRANCHES)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = ((state >> 16) % (end - 1000)).to_string();
            let args = [
                "branch",
                GUEST,
                &id,
                "--at",
                &at,
                "--as",
                "other",
                "--for",
                "guest:20_000_000",
            ];
            let begun = Instant::now();
            let running = place.start(&args, "recording as");
            let live = begun.elapsed().as_secs_f64();
            running.end().expect(0, &["recorded other "]);
            let replayed = place.run(&["replay", "other", "--verify", "--no-checkpoints"]);
            same += u64::from(replayed.status == 0);
            live
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let at = |share: usize| seconds[(seconds.len() * share / 100).min(seconds.len() - 1)];
    table.value(
        &format!("ttvm branch, until the guest lives, {BRANCHES} points by chance: half of them, 95 of 100"),
        format!("{:.3} s, {:.3} s; the longest {:.3} s", at(50), at(95), at(100)),
        format!("{:.3} s", at(95)),
        "2 s",
    );
    table.value(
        "replays of these branches that were IDENTICAL",
        format!("{same} of {BRANCHES}"),
        format!("{:.0} %", same as f64 * 100.0 / BRANCHES as f64),
        "100 %",
    );
}

/// How long it takes to find an instruction at which a bit of the memory was turned over, from a replay's beginning on: with the
/// verdict before it.
fn explain(place: &Place, replays: &[f64], table: &mut Table) {
    let recording = place.recording();
    let result = recording.manifest().result.as_ref().expect("a result");
    let end = result.instructions.expect("a count");
    let seconds: Vec<f64> = [3, 6, 9]
        .into_iter()
        .map(|tenths| {
            let at = end / 10 * tenths;
            let mut command = place.command(&["replay", GUEST, "--verify", "--explain"]);
            // Something of Linux's own.
            command.env("TTVM_FLIP", format!("{at}:0x1000123"));
            let ran = Running::start(command).end();
            ran.expect(5, &["the first different instruction is number "]);
            ran.seconds
        })
        .collect();
    table.ratio(
        "the first different instruction, found after a replay ÷ ttvm replay --verify",
        &seconds,
        replays,
        "3",
    );
}

/// What a second processor is worth to a proof.
fn jobs(place: &Place, table: &mut Table) {
    let [mut one, mut two] = [vec![], vec![]];
    let verified = |jobs: &str| {
        let ran = place.run(&["verify", GUEST, "--jobs", jobs]);
        ran.expect(0, &["IDENTICAL"]).seconds
    };
    for run in 0..RUNS {
        let mut measure: [&mut dyn FnMut(); 2] = [&mut || one.push(verified("1")), &mut || two.push(verified("2"))];
        // Neither is always the first.
        measure.rotate_left(run % 2);
        measure.into_iter().for_each(|measure| measure());
    }
    table.ratio("ttvm verify --jobs 2 ÷ --jobs 1", &two, &one, "0.65");
}

/// Seconds.
/// Questions to a run.
const QUESTIONS: usize = 20;

/// What it costs to watch a run, and how long one waits for an answer.
fn questions(place: &Place, replay: &[f64], table: &mut Table) {
    let trace = |args: &[&str]| {
        let ran = place.run(&[&["trace", GUEST, "--json"], args].concat());
        ran.expect(0, &[]);
        ran
    };
    let (mut watched, mut calls) = (vec![], vec![]);
    for _ in 0..RUNS {
        let ran = trace(&["syscalls"]);
        watched.push(ran.seconds);
        calls = ran.out.lines().map(str::to_owned).collect();
    }
    table.ratio(
        "ttvm trace syscalls, a whole run ÷ ttvm replay --verify",
        &watched,
        replay,
        "",
    );
    let calls: Vec<serde_json::Value> = calls
        .iter()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let number = |of: &serde_json::Value| of.as_u64().unwrap_or_default();
    // Of those that have the address of something on the stack.
    let calls: Vec<_> = calls
        .iter()
        .filter(|call| call["until"].is_u64() && number(&call["arguments"][1]) >> 40 == 0x7f)
        .collect();
    let step = calls.len() / QUESTIONS;
    let mut seconds: Vec<f64> = (0..QUESTIONS)
        .map(|index| {
            let call = calls[index * step];
            let question = match index % 2 {
                0 => format!("first execution of {}", call["address"]),
                _ => format!("last write to {} before {}", call["arguments"][1], call["until"]),
            };
            // Not everything that a program hands to the kernel was written by anybody.
            place.run(&["ask", GUEST, &question]).expect(0, &[]).seconds
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let at = |share: usize| seconds[(seconds.len() * share / 100).min(seconds.len() - 1)];
    table.value(
        &format!("ttvm ask, {QUESTIONS} questions: half of them, 95 of 100"),
        format!("{:.3} s, {:.3} s; the longest {:.3} s", at(50), at(95), at(100)),
        format!("{:.3} s", at(95)),
        "5 s",
    );
}

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
    let mut emulator = Emulator::start(
        &Engine::Installed,
        &place.machine(vec![drive]),
        mode,
        None,
        &place.path(""),
    )
    .expect("QEMU");
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

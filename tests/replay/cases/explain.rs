// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first different instruction of two runs: found where the difference was made, and nowhere else. `TTVM_DIFFERENCES=50` makes
//! more of them, `TTVM_DIFFERENCES=7..8` those of these numbers.

use std::ops::Range;

use replay_log::{Devices, Kind, Reader};

use super::super::Outcome;
use super::super::lab::{self, GUEST, Lab, Place, Ran, Running, STATE};
use super::super::mutants::{self, Good, LOG};
use super::describe_tiny;

/// Whose the changed recordings become.
const OTHER: &str = "other";

/// Which are made if nobody says.
const FEW: Range<u64> = 2..4;

/// What the log of the recorded guest speaks of.
const DEVICES: Devices = Devices { networks: 1, disks: 1 };

/// Behind this, Linux runs what is not the start of a machine.
pub const LINUX: u64 = 400_000_000;

/// In the memory, something of Linux's own: it loads itself from 16 MiB on.
pub const KERNEL_TEXT: u64 = (16 << 20) + 0x123;

fn numbers() -> Range<u64> {
    let Ok(text) = std::env::var("TTVM_DIFFERENCES") else {
        return FEW;
    };
    let number = |text: &str| text.parse().expect("TTVM_DIFFERENCES is a number, or two as in 5..9");
    match text.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => 0..number(&text),
    }
}

/// The number of the first different instruction that was found.
#[track_caller]
fn number(ran: &Ran) -> u64 {
    let (_, text) = ran
        .out
        .split_once("the first different instruction is number ")
        .unwrap_or_else(|| panic!("no instruction in:\n{}{}", ran.out, ran.err));
    let digits: String = text
        .chars()
        .take_while(|c| !": ".contains(*c) && *c != 'a')
        .filter(char::is_ascii_digit)
        .collect();
    digits.parse().expect("a number")
}

/// An event of a log that is changed: the byte at which it begins, and when it happened.
#[derive(Clone, Copy)]
struct Moment {
    at: usize,
    instructions: u64,
}

/// The events of `kind` behind the start of Linux.
fn events(log: &[u8], kind: impl Fn(&Kind) -> bool) -> Vec<Moment> {
    let mut reader = Reader::new(log, DEVICES).expect("a log");
    let mut found = Vec::new();
    while let Some(event) = reader.next().expect("an event") {
        if event.instructions > LINUX && kind(&event.kind) {
            found.push(Moment {
                at: usize::try_from(event.at).expect("a small log"),
                instructions: event.instructions,
            });
        }
    }
    found
}

/// Has the event at `at` happen one instruction later, with all that happens with it; `None` if there is no instruction
/// to be had before or behind it.
fn later(log: &[u8], at: usize) -> Option<Vec<u8>> {
    let all = mutants::events(log);
    let here = all.iter().position(|event| event.start == at)?;
    let is_count = |index: &usize| log[all[*index].start] == 0;
    let before = (0..here).rev().find(is_count)?;
    let behind = (here..all.len()).find(is_count)?;
    let mut log = log.to_vec();
    for (index, change) in [(before, 1), (behind, -1)] {
        let field = &mut log[all[index].start + 1..all[index].end];
        let count = i64::from(u32::from_be_bytes((&*field).try_into().expect("four bytes"))) + change;
        field.copy_from_slice(&u32::try_from(count).ok().filter(|count| *count > 0)?.to_be_bytes());
    }
    Some(log)
}

/// One that is different, and at which instruction, where that can be known beforehand.
struct Changed {
    what: &'static str,
    archive: Vec<u8>,
    expected: Option<u64>,
    words: &'static [&'static str],
}

/// The one with this number.
fn change(good: &Good, number: u64) -> Changed {
    let log = good.content(LOG).to_vec();
    let turn = usize::try_from(number / 8).expect("a small number");
    let pick = |all: &[Moment]| all[(turn * 7 + all.len() / 2) % all.len()];
    let shifted = |what, kind: fn(&Kind) -> bool| {
        let mut all = events(&log, kind);
        all.retain(|event| later(&log, event.at).is_some());
        let event = pick(&all);
        Changed {
            what,
            archive: good.with_file(LOG, |log| *log = later(log, event.at).expect("a log")),
            expected: Some(event.instructions + 1),
            words: &[],
        }
    };
    match number % 8 {
        0 => shifted("an interrupt comes one instruction later", |it| *it == Kind::Interrupt),
        1 => {
            let packet = pick(&events(
                &log,
                |kind| matches!(kind, Kind::Packet { frame, .. } if frame.len() > 60),
            ));
            Changed {
                what: "a byte of a packet",
                // 9 (its kind and network), its length, and the payload of a ping.
                archive: good.with_file(LOG, |log| log[packet.at + 1 + 9 + 50 + turn] ^= 4),
                expected: Some(packet.instructions + 1),
                words: &["a packet of ", "no other byte differs"],
            }
        }
        2 => Changed {
            what: "a byte of a sector",
            archive: good.with_disk(|disk| disk[(1 << 20) + 4096 * turn + 5] ^= 1),
            expected: None,
            words: &["with it, disk vda is to read sector "],
        },
        3 => Changed {
            what: "the time of day",
            archive: good.with(true, |manifest| {
                let began = manifest["engine"]["began"].as_integer().expect("seconds");
                let engine = manifest["engine"].as_table_mut().expect("a table");
                engine.insert(
                    "began".to_owned(),
                    (began + 1 + i64::try_from(turn).expect("few")).into(),
                );
            }),
            expected: None,
            words: &["inb"],
        },
        4 => shifted("a disk's request is done later", |it| matches!(it, Kind::DiskDone(_))),
        5 => Changed {
            what: "a byte of the kernel",
            archive: good.with_file("kernel", |kernel| kernel[3_000_000 + 100_000 * turn] ^= 8),
            expected: None,
            words: &["behind it, the byte at 0x"],
        },
        6 => Changed {
            what: "a byte of the initial RAM disk",
            archive: good.with_file("initrd", |initrd| initrd[10_000 + 1000 * turn] ^= 1),
            expected: None,
            words: &["behind it, the byte at 0x"],
        },
        _ => Changed {
            what: "the command line",
            archive: good.with(true, |manifest| {
                let cmdline = manifest["engine"]["cmdline"].as_str().expect("text").to_owned();
                let engine = manifest["engine"].as_table_mut().expect("a table");
                engine.insert("cmdline".to_owned(), format!("{cmdline} x{turn}").into());
            }),
            expected: None,
            words: &["behind it, the byte at 0x"],
        },
    }
}

/// Compares the recording with one that is changed.
fn compared(place: &Place, changed: &Changed) {
    place.write("changed.ttvm", &changed.archive);
    place
        .run(&["recordings", "import", "changed.ttvm", "--as", OTHER])
        .expect(0, &[]);
    let ran = place.run(&["recordings", "compare", GUEST, OTHER]);
    ran.expect(5, &["are not the same run"]).expect(5, changed.words);
    let found = number(&ran);
    println!("{}, {:.1} s:\n{}", changed.what, ran.seconds, ran.out);
    // An interrupt is between two instructions: the number may be that of either.
    if let Some(expected) = changed.expected {
        assert!(
            (expected - 1..=expected).contains(&found),
            "{}, {expected}: {}",
            changed.what,
            ran.out
        );
    }
    let other = OTHER.parse().expect("a name");
    let id = place
        .library()
        .find(&other, None)
        .expect("a recording")
        .id()
        .to_string();
    place.run(&["recordings", "rm", OTHER, &id]).expect(0, &[]);
}

pub fn differences(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,clocks,disk,net", "");
    place.record(&[]);
    place
        .run(&["recordings", "export", GUEST, "--with-disks", "-o", "good.ttvm"])
        .expect(0, &[]);
    let good = Good::read(&std::fs::read(place.path("good.ttvm")).expect("an export"));
    for number in numbers() {
        compared(&place, &change(&good, number));
    }
    // Itself, under another name.
    place
        .run(&["recordings", "import", "good.ttvm", "--as", OTHER])
        .expect(0, &[]);
    place.run(&["recordings", "compare", GUEST, OTHER]).expect(
        0,
        &[
            "are the same run",
            "memory and registers are the same up to instruction",
        ],
    );
    Ok(())
}

/// Nothing here makes the run that was recorded; a difference that nobody sees; a machine that cannot be compared.
pub fn nothing_to_find(lab: &Lab) -> Outcome {
    let place = lab.place();
    super::changes::made_another_run(&place);
    place.replay(&["--explain"]).expect(
        5,
        &[
            "DIVERGED: demo ",
            "each replay on this host goes the same way, and it is not that of the recording",
        ],
    );
    let place = lab.place();
    place.describe("random", "");
    place.record(&[]);
    let ran = lab::behind_its_back(&place, &["--explain"]).end();
    ran.expect(
        5,
        &[
            "disk vda ended with another content: it was blake3:",
            "it became blake3:",
            "what differs came behind them, or the guest never read it",
        ],
    );
    let left: Vec<_> = std::fs::read_dir(place.path(STATE).join("overlays"))
        .expect("a directory")
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let place = lab.place();
    describe_tiny(&place, "");
    place.record(&[]);
    place.replay(&["--explain"]).expect(4, &["Multiboot"]);
    Ok(())
}

pub fn memory(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,disk", "");
    place.record(&[]);
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    let flip = LINUX + 123_456_789;
    let mut command = place.command(&["replay", GUEST, "--verify", "--explain"]);
    command.env("TTVM_FLIP", format!("{flip}:{KERNEL_TEXT:#x}"));
    let ran = Running::start(command).end();
    ran.expect(
        5,
        &[
            "DIVERGED: demo ",
            &format!("behind it, the byte at {KERNEL_TEXT:#x} of the memory was "),
        ],
    );
    assert_eq!(number(&ran), flip, "{}", ran.out);
    println!("memory: {:.1} s\n{}", ran.seconds, ran.out);
    Ok(())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `make demo`, the part that needs neither Xen nor root: a run is recorded, replayed, visited at a point of it, and a replay that
//! becomes another run is caught. The argument is the program.

#[allow(dead_code, reason = "made for tests, too")]
#[path = "../tests/replay/lab.rs"]
mod lab;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use lab::{FILE, GUEST, Lab, Place, Ran, Running, contents};

/// What the guest prints when it has written to its disk.
const POINT: &str = "written";

/// After so many instructions, the host's memory fails.
const FLIPPED: u64 = 654_321_098;

/// Where its memory goes.
const CORE: &str = "core";

fn main() {
    let started = Instant::now();
    let program = std::env::args().nth(1).unwrap_or_default();
    let lab = Lab::with(Path::new(&program)).unwrap_or_else(|missing| {
        println!("FAILED: {missing}");
        std::process::exit(1)
    });
    let place = lab.place();
    place.describe("random,clocks,disk,net", "");
    println!(
        "An emulated guest, recorded and replayed {}; no Xen, no KVM, no rights.\n",
        lab.user()
    );
    println!("$ cat ~/{FILE}");
    print(&contents(&place.path(FILE)));

    let recorded = show(&place, &["record", GUEST]);
    println!("What it printed:");
    print(&contents(&place.recording().console()));
    let same = show(&place, &["replay", GUEST, "--verify"]);

    println!(
        "It has left checkpoints, and what the machine was like on its way. The next one is compared there, too:\n"
    );
    let again = show(&place, &["replay", GUEST, "--verify"]);

    println!("To where it had just printed {POINT:?}, from the last checkpoint before that, and on to the end:\n");
    let visited = show(&place, &["replay", GUEST, "--at", POINT]);
    println!("All of its memory there, for gdb and crash:\n");
    let dumped = show(&place, &["replay", GUEST, "--at", POINT, "--dump-memory", CORE]);
    let core = std::fs::metadata(place.path(CORE)).ok();
    let (size, taken) = core.map_or((0, 0), |core| (core.len() >> 20, core.blocks() >> 11));
    println!("{CORE} is {size} MB, and takes {taken} MB of the disk.\n");

    println!("One bit of its disk is changed. Another disk, another run:\n");
    let mut disk = std::fs::read(place.path("base.img")).expect("the disk");
    disk[2_000_000] ^= 1;
    place.write("base.img", &disk);
    let refused = show(&place, &["replay", GUEST, "--verify"]);
    disk[2_000_000] ^= 1;
    place.write("base.img", &disk);

    println!(
        "The bit is back. Now a bit of its memory is turned over in every replay, as a fault of the host would, and found:\n"
    );
    println!("$ TTVM_FLIP={FLIPPED}:0x1000123 ttvm replay {GUEST} --verify --explain");
    let before = Instant::now();
    let mut command = place.command(&["replay", GUEST, "--verify", "--explain"]);
    command.env("TTVM_FLIP", format!("{FLIPPED}:0x1000123"));
    let other = Running::start(command).end();
    tell(&other, before);
    let all = [
        (&recorded, 0),
        (&same, 0),
        (&again, 0),
        (&visited, 0),
        (&dumped, 0),
        (&refused, 4),
        (&other, 5),
    ];
    let found = other
        .out
        .contains("the first different instruction is number 654,321,098,");
    let compared = again.out.contains("memory and registers at ") && size > 0;
    let as_it_should = compared && found && all.iter().all(|(ran, status)| ran.status == *status);
    println!(
        "{} {:.0} s in all.\n",
        match as_it_should {
            true => "The same run was found the same, and the others were not.",
            false => "FAILED: not every one of these ended as it should.",
        },
        started.elapsed().as_secs_f64()
    );
    drop((place, lab));
    std::process::exit(i32::from(!as_it_should))
}

/// Runs a command as a person would, and shows what the person sees.
fn show(place: &Place, args: &[&str]) -> Ran {
    println!("$ ttvm {}", args.join(" "));
    let started = Instant::now();
    let ran = place.run(args);
    tell(&ran, started);
    ran
}

fn tell(ran: &Ran, started: Instant) {
    print(&ran.err);
    print(&ran.out);
    println!(
        "  [exit status {}, {:.1} s]\n",
        ran.status,
        started.elapsed().as_secs_f64()
    );
}

fn print(text: &str) {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        println!("  {}", line.trim_end());
    }
}

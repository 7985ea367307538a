// SPDX-License-Identifier: MIT OR Apache-2.0
//! `make race`: a program that crashes one time in some, and what can be known of a crash when its run is kept. Needs neither Xen nor
//! root. The argument is the program ttvm.

#[allow(dead_code, reason = "made for tests, too")]
#[path = "../tests/replay/lab.rs"]
mod lab;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use lab::{GUEST, Lab, Place, Ran, contents};

/// What the guest runs, and what it prints when that crashed.
const SCRIPT: &str = "echo race begins; race || echo CRASHED; poweroff -f";
const CRASHED: &str = "CRASHED";

/// It is recorded so often at most.
const TIMES: u32 = 40;

fn main() {
    let started = Instant::now();
    let program = std::env::args().nth(1).unwrap_or_default();
    let lab = Lab::with(Path::new(&program)).unwrap_or_else(|missing| fail(&missing));
    let place = lab.place();
    place.describe("none", "");
    place.script(SCRIPT);
    let binary = place.path("race");
    compile(&binary);
    let read = std::fs::read(&binary).unwrap_or_else(|error| fail(&error.to_string()));
    place.give_program("bin/race", &read);

    println!("A guest runs examples/race/race.c, and is recorded until that crashes:\n");
    let number = (1..=TIMES).find(|_| {
        let recorded = place.run(&["record", GUEST]);
        recorded.status == 0 && contents(&place.recording().console()).contains(CRASHED)
    });
    let Some(number) = number else {
        fail(&format!("it did not crash in {TIMES} runs"));
    };
    println!("It did in run {number}. What it printed:");
    print(&contents(&place.recording().console()));
    let same = show(&place, &["replay", GUEST, "--verify"]);

    println!("From which moment on was that certain? The run is left at many moments, and lives on otherwise:\n");
    let branches = show(
        &place,
        &[
            "branch",
            GUEST,
            "--at",
            "'race begins'",
            "--as",
            "other",
            "--tries",
            "3",
            "--every",
            "100ms",
            "--printing",
            CRASHED,
            "--for",
            "guest:20s",
        ],
    );
    println!("And who gave the thing up, which main had still in use?\n");
    let answer = show(
        &place,
        &[
            "ask",
            GUEST,
            "last write to thing before 'both threads are done'",
            "--symbols",
            "race",
        ],
    );
    println!("{:.0} s in all.\n", started.elapsed().as_secs_f64());
    let as_it_should = same.status == 0 && branches.status == 0 && answer.out.contains("put");
    drop((place, lab));
    std::process::exit(i32::from(!as_it_should))
}

fn compile(to: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/race/race.c");
    let compiled = Command::new("cc")
        .args(["-static", "-O1", "-pthread", "-o"])
        .args([to, &source])
        .status();
    if !compiled.is_ok_and(|status| status.success()) {
        fail("cc could not compile it; Debian's package gcc has one");
    }
}

/// Runs a command as a person would, and shows what the person sees.
fn show(place: &Place, args: &[&str]) -> Ran {
    println!("$ ttvm {}", args.join(" "));
    let before = Instant::now();
    let ran = place.run(args);
    print(&ran.err);
    print(&ran.out);
    println!(
        "  [exit status {}, {:.1} s]\n",
        ran.status,
        before.elapsed().as_secs_f64()
    );
    ran
}

fn print(text: &str) {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        println!("  {}", line.trim_end());
    }
}

fn fail(why: &str) -> ! {
    println!("FAILED: {why}");
    std::process::exit(1)
}

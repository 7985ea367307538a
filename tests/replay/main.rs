// SPDX-License-Identifier: MIT OR Apache-2.0
//! Record and replay with QEMU, as an ordinary user: `cargo test --features host-tests --test replay [-- NAME… [--all | --both]]`.
//!
//! Real guests (tests/guest), the real program, two cases at a time, and beside them one that waits. Where QEMU is not installed
//! nothing is run. `TTVM_PROGRAM` names the `ttvm` under test: that of the package, in `make check`; else it is cargo's.

mod cases;
mod lab;
mod mutants;
mod slurm;
#[path = "../support/terminal.rs"]
mod terminal;
#[path = "../guest/tiny.rs"]
mod tiny;
#[path = "../support/tutorial.rs"]
mod tutorial;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use lab::Lab;

/// One test: its name and what it does. What needs something that is not there says so with [`Skipped`].
pub struct Case {
    name: &'static str,
    test: fn(&Lab) -> Outcome,
}

/// `Err` with what is missing if the case could not be run.
pub type Outcome = Result<(), Skipped>;

/// What is missing.
pub struct Skipped(pub &'static str);

const WORKERS: usize = 2;

/// What comes of the cases.
#[derive(Default)]
struct Results {
    failed: Mutex<Vec<&'static str>>,
    skipped: Mutex<usize>,
}

impl Results {
    /// Runs cases until none is left, the last one first.
    fn work(&self, lab: &Lab, queue: &Mutex<Vec<Case>>) {
        loop {
            let Some(case) = queue.lock().expect("the queue").pop() else {
                return;
            };
            let started = Instant::now();
            let result = catch_unwind(AssertUnwindSafe(|| (case.test)(lab)));
            let seconds = started.elapsed().as_secs_f64();
            match result {
                Ok(Ok(())) => println!("test {} ... ok ({seconds:.1} s)", case.name),
                Ok(Err(Skipped(missing))) => {
                    println!("test {} ... skipped: {missing}", case.name);
                    *self.skipped.lock().expect("a number") += 1;
                }
                Err(_) => {
                    println!("test {} ... FAILED ({seconds:.1} s)", case.name);
                    self.failed.lock().expect("the list of failures").push(case.name);
                }
            }
        }
    }
}

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let asked = |flag: &str| std::env::args().any(|arg| arg == flag);
    let (named, both) = (!wanted.is_empty(), asked("--both"));
    let mut cases = cases::quick();
    if named || both || asked("--all") {
        cases.extend(cases::later());
    }
    if named || both {
        cases.extend(cases::long());
    }
    cases.retain(|case| wanted.is_empty() || wanted.iter().any(|name| case.name.contains(name.as_str())));
    let total = cases.len();
    let given = std::env::var_os("TTVM_PROGRAM");
    let found = match given.as_ref().map(Path::new) {
        // What is made to be shipped has them beside it.
        Some(program) => Lab::with_plugins(program, &program.with_file_name(".")),
        None => Lab::with(Path::new(env!("CARGO_BIN_EXE_ttvm"))),
    };
    let lab = match found {
        Ok(lab) => lab,
        Err(error) if given.is_some() => {
            println!("failed: TTVM_PROGRAM is not what is tested: {error}");
            return ExitCode::FAILURE;
        }
        Err(missing) => {
            println!("record and replay: {total} tests skipped: {missing}");
            return ExitCode::SUCCESS;
        }
    };
    println!("running {total} tests of record and replay, {}", lab.user());
    let started = Instant::now();
    // Taken from the end.
    cases.reverse();
    let (waiting, busy) = cases.into_iter().partition(|case| cases::WAITING.contains(&case.name));
    let (waiting, busy): (Mutex<Vec<Case>>, Mutex<Vec<Case>>) = (Mutex::new(waiting), Mutex::new(busy));
    let results = Results::default();
    std::thread::scope(|scope| {
        scope.spawn(|| results.work(&lab, &waiting));
        for _ in 0..WORKERS {
            scope.spawn(|| results.work(&lab, &busy));
        }
    });
    let failed = results.failed.into_inner().unwrap_or_default();
    let skipped = results.skipped.into_inner().unwrap_or_default();
    for name in &failed {
        println!("failed: {name}");
    }
    println!(
        "{} passed, {} failed, {skipped} skipped; {:.0} s",
        total - failed.len() - skipped,
        failed.len(),
        started.elapsed().as_secs_f64()
    );
    match failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

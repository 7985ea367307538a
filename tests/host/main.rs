// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests on the emulated host: `cargo test --features host-tests --test host [-- NAME… [--all | --both]]`.
//!
//! Two workers, each with a machine of its own that is taken back to where a case begins. `TTVM_DEB` names the package under
//! test. Each case runs on the Debian that its list names (tests/host/cases), with `--both` on both, with `SUITE=` on that one
//! only; `--all` adds those that take longer. A case that fails leaves the host's journal and console in `target/host/SUITE-CASE.log`; with `TTVM_TRACE=FILE`,
//! what each script took is appended to that file.

mod cases;
mod machine;
mod report;
#[path = "../support/tutorial.rs"]
mod tutorial;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use machine::{Host, State, Suite};
use report::{Finished, Report};

/// One test: its name, where it starts from, where it is run, and what it does.
#[derive(Clone, Copy)]
pub struct Case {
    name: &'static str,
    state: State,
    when: When,
    test: fn(&mut Host),
}

/// Where a case is run if nobody says otherwise.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// By `make check`, on Debian 12.
    Bookworm,
    /// By `make check`, on Debian 13.
    Trixie,
    /// By `make check-all`, on Debian 12.
    LaterBookworm,
    /// By `make check-all`, on Debian 13.
    LaterTrixie,
    /// By `make check-both` only.
    Both,
}

/// A case on one of the Debians.
#[derive(Clone, Copy)]
struct Run {
    suite: Suite,
    case: Case,
}

/// As many machines as there are CPUs to emulate dom0's one. A third brings nothing: both CPUs are busy with two.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let names: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let runs = chosen(&names, asked("--all"), asked("--both"), Suite::chosen());
    let total = runs.len();
    println!("running {total} tests on the emulated host");
    let deb = package();
    let queue = Mutex::new(VecDeque::from(runs));
    let report = Report::default();
    std::thread::scope(|scope| {
        for worker in 0..WORKERS.min(total) {
            let take = match worker % 2 {
                0 => VecDeque::pop_back,
                _ => VecDeque::pop_front,
            };
            let (deb, queue, report) = (&deb, &queue, &report);
            scope.spawn(move || work(deb, queue, take, report));
        }
    });
    report.print();
    if report.failed().is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What is run, in an order in which a worker that takes from one end changes machines rarely: each begins with another
/// Debian, and the last ones are in the middle.
fn chosen(names: &[&str], all: bool, both: bool, suite: Option<Suite>) -> Vec<Run> {
    let named = !names.is_empty();
    let mut runs = Vec::new();
    for case in cases::all() {
        if named && !names.iter().any(|name| case.name.contains(name)) {
            continue;
        }
        let own = match case.when {
            When::Bookworm => Some(Suite::Bookworm),
            When::Trixie => Some(Suite::Trixie),
            // Else asked for by name.
            When::LaterBookworm => (all || named).then_some(Suite::Bookworm),
            When::LaterTrixie => (all || named).then_some(Suite::Trixie),
            When::Both => named.then_some(Suite::Bookworm),
        };
        for of in Suite::ALL {
            let wanted = match suite {
                Some(suite) => suite == of && (both || own.is_some()),
                None => both || own == Some(of),
            };
            if wanted {
                runs.push(Run { suite: of, case });
            }
        }
    }
    runs.sort_by_key(|run| (run.suite, run.case.state));
    runs
}

fn package() -> PathBuf {
    let debian = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/debian");
    if let Some(path) = std::env::var_os("TTVM_DEB") {
        return path.into();
    }
    let mut packages: Vec<PathBuf> = std::fs::read_dir(&debian)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    packages
        .pop()
        .unwrap_or_else(|| panic!("no package in {}: run `make deb` first", debian.display()))
}

/// The machine that a worker has.
struct Held {
    suite: Suite,
    state: State,
    host: Host,
}

/// Makes `held` the machine as it has to be for a run, from the one that there is if that is possible.
fn prepare(deb: &Path, run: &Run, held: &mut Option<Held>) -> machine::Result<()> {
    let (suite, state) = (run.suite, run.case.state);
    let host = match held.take() {
        Some(mut held) if (held.suite, held.state) == (suite, state) => {
            held.host.restore()?;
            held.host
        }
        other => {
            drop(other);
            Host::start(suite, state, deb)?
        }
    };
    *held = Some(Held { suite, state, host });
    Ok(())
}

fn work(deb: &Path, queue: &Mutex<VecDeque<Run>>, take: fn(&mut VecDeque<Run>) -> Option<Run>, report: &Report) {
    let mut held: Option<Held> = None;
    loop {
        let Some(run) = take(&mut queue.lock().expect("the queue")) else {
            return;
        };
        let mut again = true;
        loop {
            let started = Instant::now();
            let ready = match prepare(deb, &run, &mut held) {
                Ok(()) => true,
                Err(error) => {
                    eprintln!("the emulated host could not be made ready: {error}");
                    false
                }
            };
            let prepared = started.elapsed();
            let started = Instant::now();
            let host = held.as_mut().map(|held| &mut held.host);
            let passed = match host {
                Some(host) if ready => catch_unwind(AssertUnwindSafe(|| (run.case.test)(host))).is_ok(),
                _ => false,
            };
            let taken = started.elapsed();
            let host = held.as_mut().map(|held| &mut held.host);
            if !passed && again && host.as_ref().is_some_and(|host| host.is_at_fault()) {
                println!(
                    "test {} {} ... its emulator was at fault: once more",
                    run.suite.name(),
                    run.case.name
                );
                again = false;
                continue;
            }
            report.add(
                Finished {
                    suite: run.suite,
                    name: run.case.name,
                    passed,
                    prepared,
                    taken,
                },
                host,
            );
            break;
        }
    }
}

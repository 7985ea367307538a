// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests on the emulated host: `cargo test --features host-tests --test host [-- NAME…]`.
//!
//! Two workers, each with a machine of its own that is taken back to the booted, pristine host before every case.
//! `TTVM_DEB` names the package under test.

mod cases;
mod machine;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use machine::Host;

/// One test: its name, where it starts from, and what it does.
pub struct Case {
    name: &'static str,
    from: From,
    test: fn(&mut Host),
}

/// The state of the machine a case is handed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum From {
    /// Plain Linux, with the package lying ready.
    Plain,
    /// Plain Linux, with the package installed.
    Installed,
    /// Xen, with the package installed.
    Xen,
}

/// As many machines as there are CPUs to emulate dom0's one.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let mut cases: Vec<Case> = cases::all();
    cases.retain(|case| wanted.is_empty() || wanted.iter().any(|name| case.name.contains(name.as_str())));
    // Taken from both ends, so that a worker changes machines rarely, one makes the machine with Xen while the other has work
    // already, and the last ones, in the middle, are short.
    cases.sort_by_key(|case| case.from);
    let total = cases.len();
    println!("running {total} tests on the emulated host");
    let deb = package();
    let queue = Mutex::new(VecDeque::from(cases));
    let failed: Mutex<Vec<&str>> = Mutex::default();
    std::thread::scope(|scope| {
        for worker in 0..WORKERS.min(total) {
            let take = match worker % 2 {
                0 => VecDeque::pop_back,
                _ => VecDeque::pop_front,
            };
            let (deb, queue, failed) = (&deb, &queue, &failed);
            scope.spawn(move || work(deb, queue, take, failed));
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    for name in &failed {
        println!("failed: {name}");
    }
    println!("{} passed, {} failed", total - failed.len(), failed.len());
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
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

type Queue = VecDeque<Case>;

/// What Linux says when time stands still: the emulator now and then loses a timer while the kernel boots, and nobody can go on.
const STALL: &str = "rcu_preempt kthread timer wakeup didn't happen";

/// Runs a case on a machine that is as it has to be.
fn attempt(deb: &Path, case: &Case, machine: &mut Option<(From, Host)>) -> std::thread::Result<()> {
    catch_unwind(AssertUnwindSafe(|| {
        let host = match machine.take() {
            Some((from, mut host)) if from == case.from => host.restore().map(|()| host),
            _ => match case.from {
                From::Xen => Host::boot(deb),
                From::Installed => Host::boot_installed(deb),
                From::Plain => Host::boot_plain(deb),
            },
        };
        let (_, host) = machine.insert((case.from, host.expect("the emulated host")));
        (case.test)(host);
    }))
}

fn work(deb: &Path, queue: &Mutex<Queue>, take: fn(&mut Queue) -> Option<Case>, failed: &Mutex<Vec<&'static str>>) {
    let mut machine: Option<(From, Host)> = None;
    loop {
        let Some(case) = take(&mut queue.lock().expect("the queue")) else {
            return;
        };
        let started = Instant::now();
        let mut result = attempt(deb, &case, &mut machine);
        if result.is_err() && machine.as_ref().is_some_and(|(_, host)| host.console().contains(STALL)) {
            println!("test {} ... its emulator lost a timer: once more", case.name);
            result = attempt(deb, &case, &mut machine);
        }
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("test {} ... ok ({seconds:.1} s)", case.name),
            Err(_) => {
                println!("test {} ... FAILED ({seconds:.1} s)", case.name);
                if let Some((_, host)) = &mut machine {
                    let journal =
                        host.sh("journalctl -b --no-pager -o short-monotonic -n 60; ttvm status; lvs; xl list");
                    println!(
                        "--- the host after {}\n{}",
                        case.name,
                        journal.map(|o| o.text()).unwrap_or_default()
                    );
                    let console = host.console();
                    let from = console.char_indices().rev().nth(3000).map_or(0, |(at, _)| at);
                    println!("--- the end of its console\n{}", &console[from..]);
                }
                failed.lock().expect("the list of failures").push(case.name);
            }
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said of the cases: a line each, the state of a host on which one failed, and tables of where the time went.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use crate::machine::{Host, Suite};

/// A case that has been run.
#[derive(Clone, Copy)]
pub struct Finished {
    pub suite: Suite,
    pub name: &'static str,
    pub passed: bool,
    /// Until the machine was as it had to be.
    pub prepared: Duration,
    pub taken: Duration,
}

#[derive(Default)]
pub struct Report {
    finished: Mutex<Vec<Finished>>,
}

/// How many of the slowest are listed.
const SLOWEST: usize = 10;
/// Longer than any one line of what is printed of a script.
const SCRIPT: usize = 160;
/// How what waits begins, in cases/mod.rs.
const WAITS: &str = "timeout 600 ";

impl Report {
    /// Notes a case, prints its line, and saves what there is of a host on which it failed.
    pub fn add(&self, case: Finished, host: Option<&mut Host>) {
        let mut line = format!("test {} {} ... ", case.suite.name(), case.name);
        let _ = write!(
            line,
            "{} ({:.1} s",
            if case.passed { "ok" } else { "FAILED" },
            case.taken.as_secs_f64()
        );
        if let Some(host) = host {
            let scripts = host.spent();
            let waited: Duration = scripts
                .iter()
                .filter(|(script, _)| script.contains(WAITS))
                .map(|(_, time)| *time)
                .sum();
            let _ = write!(
                line,
                "; {} scripts, {:.1} s of waiting; machine {:.1} s)",
                scripts.len(),
                waited.as_secs_f64(),
                case.prepared.as_secs_f64()
            );
            trace(&case, &scripts);
            if !case.passed {
                match save(&case, host, &scripts) {
                    Ok(path) => {
                        let _ = write!(line, "\n  the host's journal and console: {path}");
                    }
                    Err(error) => {
                        let _ = write!(line, "\n  the host's journal and console could not be saved: {error}");
                    }
                }
            }
        } else {
            line.push(')');
        }
        println!("{line}");
        self.finished.lock().expect("the list of cases").push(case);
    }

    pub fn failed(&self) -> Vec<Finished> {
        let finished = self.finished.lock().expect("the list of cases");
        finished.iter().filter(|case| !case.passed).copied().collect()
    }

    /// Time by subject, the slowest cases, the failed ones, and the last line.
    pub fn print(&self) {
        let finished = self.finished.lock().expect("the list of cases").clone();
        let mut subjects: BTreeMap<(&str, Suite), (u32, Duration)> = BTreeMap::new();
        let mut machines: BTreeMap<Suite, Duration> = BTreeMap::new();
        for case in &finished {
            let subject = case.name.split("::").next().unwrap_or_default();
            let entry = subjects.entry((subject, case.suite)).or_default();
            entry.0 += 1;
            entry.1 += case.taken;
            *machines.entry(case.suite).or_default() += case.prepared;
        }
        println!("\n{:<16} {:<9} {:>5} {:>8}", "SUBJECT", "DEBIAN", "CASES", "SECONDS");
        for ((subject, suite), (count, time)) in &subjects {
            println!(
                "{subject:<16} {:<9} {count:>5} {:>8.0}",
                suite.name(),
                time.as_secs_f64()
            );
        }
        for (suite, time) in &machines {
            println!(
                "{:<16} {:<9} {:>5} {:>8.0}",
                "(machines)",
                suite.name(),
                "",
                time.as_secs_f64()
            );
        }
        let mut slowest = finished.clone();
        slowest.sort_by_key(|case| std::cmp::Reverse(case.taken));
        println!("\nthe slowest:");
        for case in slowest.iter().take(SLOWEST) {
            println!(
                "slow {:>7.1} s  {} {}",
                case.taken.as_secs_f64(),
                case.suite.name(),
                case.name
            );
        }
        let failed: Vec<_> = finished.iter().filter(|case| !case.passed).collect();
        for case in &failed {
            println!("failed: {} {}", case.suite.name(), case.name);
        }
        println!("{} passed, {} failed", finished.len() - failed.len(), failed.len());
    }
}

/// A line for each script, for whoever wants to know where the time of a case goes.
fn trace(case: &Finished, scripts: &[(String, Duration)]) {
    let Some(path) = std::env::var_os("TTVM_TRACE") else {
        return;
    };
    let written = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut file| file.write_all(listed(case, scripts).as_bytes()));
    if let Err(error) = written {
        eprintln!("{}: {error}", Path::new(&path).display());
    }
}

fn listed(case: &Finished, scripts: &[(String, Duration)]) -> String {
    let mut text = String::new();
    for (script, time) in scripts {
        let line: String = script.replace('\n', " ").chars().take(SCRIPT).collect();
        let _ = writeln!(
            text,
            "{} {}\t{:.2}\t{line}",
            case.suite.name(),
            case.name,
            time.as_secs_f64()
        );
    }
    text
}

/// Writes down the host of a failed case and returns where.
fn save(case: &Finished, host: &mut Host, scripts: &[(String, Duration)]) -> std::io::Result<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/host");
    std::fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{}-{}.log", case.suite.name(), case.name.replace("::", "-")));
    let state = host.sh("systemctl --failed --no-pager; ttvm status; lvs -a; dmsetup ls; xl list; journalctl -b --no-pager -o short-monotonic");
    let state = state.map_or_else(|error| error.to_string(), |output| output.text());
    let text = format!(
        "# the scripts of {}, and the seconds that each took\n{}\n# the host afterwards, its journal\n{state}\n\n# its console\n{}\n",
        case.name,
        listed(case, scripts),
        host.console()
    );
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

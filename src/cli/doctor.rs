// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm doctor`: whether this host is ready, and if not, what exactly to do.

use std::io::{self, Write};
use std::path::Path;

use nix::unistd::geteuid;
use serde::Serialize;

use super::{Error, print_json};
use crate::config::places::Places;
use crate::doctor::{Answers, Check, Facts, Fix, State, examine};
use crate::error::{Exit, one_line};
use crate::text;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Do what can be undone, and say how it is undone
    #[arg(long)]
    fix: bool,
    /// Only say what --fix would do
    #[arg(long, requires = "fix")]
    dry_run: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "fix")]
    json: bool,
}

/// What was found, as JSON.
#[derive(Serialize)]
struct Examination<'a> {
    /// Nothing fails; something may still be worth a warning.
    ready: bool,
    checks: &'a [Check],
}

pub(super) fn run(places: &Places, arguments: &Arguments) -> Result<Exit, Error> {
    if arguments.fix && (places.root() != Path::new("/") || !geteuid().is_root()) {
        return Err(Error::FixNeedsRoot);
    }
    let mut checks = look(places);
    if arguments.fix {
        let fixes: Vec<Fix> = checks.iter().filter_map(|check| check.fix.clone()).collect();
        if mend(&fixes, arguments.dry_run)? {
            checks = look(places);
        }
    }
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let (failures, warnings) = (count(State::Fail), count(State::Warn));
    if arguments.json {
        print_json(&Examination {
            ready: failures == 0,
            checks: &checks,
        })?;
    } else {
        print(&checks, failures, warnings)?;
    }
    Ok(if failures == 0 { Exit::Done } else { Exit::Failed })
}

fn look(places: &Places) -> Vec<Check> {
    let facts = Facts::read(places);
    examine(&facts, &Answers::ask(&facts))
}

/// Does what can be undone. Whether anything was done. One that fails does not stand in the way of the others.
fn mend(fixes: &[Fix], dry_run: bool) -> Result<bool, Error> {
    let mut out = io::stdout().lock();
    let mut done = false;
    for fix in fixes {
        if dry_run {
            writeln!(out, "would {fix}; to undo it: {}", fix.undo())?;
            continue;
        }
        match fix.apply() {
            Ok(()) => {
                writeln!(out, "did {fix}; to undo it: {}", fix.undo())?;
                done = true;
            }
            Err(error) => eprintln!("ttvm: {}", text::lines(&one_line(&error))),
        }
    }
    if fixes.is_empty() {
        writeln!(out, "nothing that --fix does can be done here")?;
    }
    writeln!(out)?;
    Ok(done)
}

fn print(checks: &[Check], failures: usize, warnings: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for check in checks {
        let Check { state, area, .. } = check;
        writeln!(out, "{state:<4}  {area:<10}  {}", text::line(&check.sentence))?;
        if let Some(remedy) = &check.remedy {
            let by_itself = check.fix.as_ref().map_or("", |_| " (--fix does it)");
            writeln!(out, "{:16}  -> {}{by_itself}", "", text::line(remedy))?;
        }
    }
    writeln!(out, "doctor: {}", summary(failures, warnings))
}

fn summary(failures: usize, warnings: usize) -> String {
    let counted = |count: usize, word: &str| match count {
        1 => format!("1 {word}"),
        _ => format!("{count} {word}s"),
    };
    match (failures, warnings) {
        (0, 0) => "all ok".to_owned(),
        (0, _) => format!("ready, with {}", counted(warnings, "warning")),
        (_, 0) => counted(failures, "failure"),
        _ => format!("{}, {}", counted(failures, "failure"), counted(warnings, "warning")),
    }
}

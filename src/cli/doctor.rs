// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm doctor`: whether this host is ready, and if not, what exactly to do.

use std::io::{self, Write};
use std::path::Path;

use nix::unistd::geteuid;
use serde::Serialize;

use super::{Error, print_json};
use crate::base::error::{Exit, one_line};
use crate::base::text;
use crate::config::places::Places;
use crate::doctor::{Answers, Check, Facts, Fix, State, examine};

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
    let mut mended = Mended::default();
    if arguments.fix {
        let fixes: Vec<Fix> = checks.iter().filter_map(|check| check.fix.clone()).collect();
        mended = mend(&fixes, arguments.dry_run, &mut io::stdout().lock())?;
        if mended.done {
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
    Ok(match failures == 0 && !mended.failed {
        true => Exit::Done,
        false => Exit::Failed,
    })
}

fn look(places: &Places) -> Vec<Check> {
    let facts = Facts::read(places);
    examine(&facts, &Answers::ask(&facts))
}

/// What came of the fixes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mended {
    /// Something was done.
    done: bool,
    /// Something could not be done.
    failed: bool,
}

/// Does what can be undone. One that fails does not stand in the way of the others.
fn mend(fixes: &[Fix], dry_run: bool, out: &mut impl Write) -> io::Result<Mended> {
    let mut mended = Mended::default();
    for fix in fixes {
        if dry_run {
            writeln!(
                out,
                "would {}",
                text::line(&format!("{fix}; to undo it: {}", fix.undo()))
            )?;
            continue;
        }
        match fix.apply() {
            Ok(()) => {
                writeln!(out, "did {}", text::line(&format!("{fix}; to undo it: {}", fix.undo())))?;
                mended.done = true;
            }
            Err(error) => {
                eprintln!("ttvm: {}", text::lines(&one_line(&error)));
                mended.failed = true;
            }
        }
    }
    if fixes.is_empty() {
        writeln!(out, "nothing that --fix does can be done here")?;
    }
    writeln!(out)?;
    Ok(mended)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fix_fails_and_the_next_is_done() {
        let directory = std::env::temp_dir().join(format!("ttvm-mend-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("grubenv");
        let fixes = [directory.join("nowhere/grubenv"), path.clone()].map(Fix::CreateGrubenv);
        let mut out = Vec::new();
        let mended = mend(&fixes, true, &mut out).expect("words");
        assert_eq!((mended, path.exists()), (Mended::default(), false));
        let mended = mend(&fixes, false, &mut out).expect("words");
        let all = Mended {
            done: true,
            failed: true,
        };
        assert_eq!((mended, path.exists()), (all, true));
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            (text.matches("would ").count(), text.matches("did ").count()),
            (2, 1),
            "{text}"
        );
        std::fs::remove_dir_all(directory).expect("it goes");
    }
}

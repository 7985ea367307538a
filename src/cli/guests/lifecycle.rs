// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm start`, `stop`, `restart` and `kill`: guests' units, by the names of the guests, several at once.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use crate::base::clock::now;
use crate::base::error::Exit;
use crate::base::text;
use crate::cli::systemd::{self, FOR_EVER, JOURNALCTL, SYSTEMCTL, State, Unit, Units};
use crate::cli::{Error, guest_name};
use crate::config::places::{Given, Places};
use crate::config::types::GuestName;
use crate::config::{self, guests, host};
use crate::guest::record::Record;
use crate::guest::watch::AT_ONCE;
use crate::run::{self, Command};

/// So much of the journal is shown of a start that failed.
const LINES: &str = "10";

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The guests
    #[arg(value_parser = guest_name, required = true)]
    guests: Vec<GuestName>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// The system's places, whoever calls: their guests alone have units. An error if the command line says others.
pub(in crate::cli) fn system(given: &Given, action: &str) -> Result<Places, Error> {
    let places = Places::of_machine(given)?;
    if places != Places::system(Path::new("/")) {
        return Err(Error::Usage(format!(
            "`ttvm {action}` is for the units of this host: --root, --config-dir and --state-dir cannot be used with it"
        )));
    }
    Ok(places)
}

/// Why there is no such guest; of one that is the caller's own, how it is run.
pub(super) fn unknown(error: config::Error, name: &GuestName) -> Error {
    let own = Places::of_caller(&Given::default()).ok().filter(Places::is_own);
    let is_own = own.is_some_and(|own| guests::names(&own).is_ok_and(|names| names.contains(name)));
    match error {
        config::Error::NoSuchGuest { .. } if is_own => Error::Own(name.clone()),
        error => error.into(),
    }
}

/// What is done to the guests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Action {
    Start,
    Stop,
    Restart,
    Kill,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Kill => "kill",
        }
    }

    fn begins(self) -> bool {
        matches!(self, Self::Start | Self::Restart)
    }
}

/// A guest, and what its unit does before anything is done to it.
struct Subject {
    name: GuestName,
    unit: Unit,
    state: State,
}

pub(in crate::cli) fn run(given: &Given, action: Action, arguments: &Arguments) -> Result<Exit, Error> {
    let places = system(given, action.as_str())?;
    let names = distinct(&arguments.guests);
    // First what is wrong with what was typed.
    let without_file = check(&places, action, &names)?;
    if !systemd::is_here() {
        // Nothing runs of a guest that has no file.
        let first = without_file.into_iter().next();
        return Err(first.map_or(Error::NoSystemd(action.as_str()), |(name, error)| unknown(error, &name)));
    }
    let units = systemd::units_now()?;
    let subjects = subjects(names, without_file, &units)?;
    let concerned: Vec<&Subject> = (subjects.iter())
        .filter(|subject| concerns(action, &subject.state))
        .collect();
    if action.begins()
        && let Some(busy) = subjects.iter().find(|it| it.unit != Unit::Plain)
    {
        return Err(Error::Busy {
            guest: busy.name.clone(),
            state: busy.state.to_string(),
        });
    }
    let mut out = io::stdout().lock();
    for subject in &subjects {
        match (arguments.dry_run, concerns(action, &subject.state)) {
            (true, true) => writeln!(out, "would {} {}", action.as_str(), unit_of(action, subject))?,
            (_, true) => {}
            (_, false) if action == Action::Start => writeln!(out, "{} is {} already", subject.name, subject.state)?,
            (_, false) => writeln!(out, "{} does not run", subject.name)?,
        }
    }
    drop(out);
    if arguments.dry_run || concerned.is_empty() {
        return Ok(Exit::Done);
    }
    let names: Vec<String> = concerned.iter().map(|subject| unit_of(action, subject)).collect();
    match action {
        Action::Start | Action::Restart => {
            let began = now();
            let before = invocations(&names)?;
            let done = tell(action.as_str(), &[], &names);
            started(&concerned, &names, &before, began, done)
        }
        Action::Stop => stopped(&concerned, tell("stop", &[], &names)),
        Action::Kill => {
            kill(&names)?;
            stopped(&concerned, tell("stop", &[], &names))
        }
    }
}

/// Each once, in the order in which they were named.
fn distinct(names: &[GuestName]) -> Vec<GuestName> {
    let mut distinct: Vec<GuestName> = Vec::new();
    for name in names {
        if !distinct.contains(name) {
            distinct.push(name.clone());
        }
    }
    distinct
}

/// Whether each guest can be what is asked for, as far as its file says: one that is started is right, and of others that have no
/// file any more a unit may still run. Those are handed back, with what is wrong.
fn check(places: &Places, action: Action, names: &[GuestName]) -> Result<BTreeMap<GuestName, config::Error>, Error> {
    if action.begins() {
        let host = host::load(places)?;
        for name in names {
            guests::load(places, &host, name).map_err(|error| unknown(error, name))?;
        }
        return Ok(BTreeMap::new());
    }
    // A mistake in a file, the guest's or the host's, is no reason to let it run.
    let without = |name: &GuestName| Some((name.clone(), guests::require_file(places, name).err()?));
    Ok(names.iter().filter_map(without).collect())
}

fn subjects(
    names: Vec<GuestName>,
    mut without_file: BTreeMap<GuestName, config::Error>,
    units: &Units,
) -> Result<Vec<Subject>, Error> {
    let mut subjects = Vec::new();
    for name in names {
        let (unit, state) = units.of(&name);
        if let Some(error) = without_file.remove(&name).filter(|_| state.is_down()) {
            return Err(unknown(error, &name));
        }
        subjects.push(Subject { name, unit, state });
    }
    Ok(subjects)
}

/// Whether there is something to be done to a guest of that state.
fn concerns(action: Action, state: &State) -> bool {
    match action {
        Action::Start => !state.is_up(),
        Action::Restart => true,
        Action::Stop | Action::Kill => !state.is_down(),
    }
}

fn unit_of(action: Action, subject: &Subject) -> String {
    let unit = if action.begins() { Unit::Plain } else { subject.unit };
    unit.of(&subject.name)
}

/// Has systemd do it to all units at once, and waits until it is done. polkit may ask whoever is not root.
fn tell(action: &str, options: &[&str], units: &[String]) -> Result<(), run::Error> {
    // What failed is said by us, in other words.
    Command::new(&SYSTEMCTL)
        .arg(action)
        .args(options.iter().copied())
        .args(["--quiet", "--"])
        .args(units)
        .deadline(FOR_EVER)
        .on_the_terminal()
        .run()
        .map(drop)
}

/// Sends units' main processes the signal that ends guests at once. The stop that follows ends a unit that has none yet.
fn kill(units: &[String]) -> Result<(), Error> {
    let living = with_main_process(units)?;
    if living.is_empty() {
        return Ok(());
    }
    // (--kill-who= has been --kill-whom= as well since systemd 252.)
    let signal = format!("--signal={AT_ONCE}");
    match tell("kill", &["--kill-who=main", &signal], &living) {
        // They have ended meanwhile. Where they have not, it was denied, and to ask the guests to shut down is another thing.
        Err(run::Error::Failed { .. }) if with_main_process(&living)?.is_empty() => Ok(()),
        done => done.map_err(Error::Told),
    }
}

fn with_main_process(units: &[String]) -> Result<Vec<String>, Error> {
    let shown = systemd::show(units, ["MainPID"]).map_err(Error::Systemd)?;
    let living = units
        .iter()
        .zip(shown)
        .filter(|(_, [pid])| !matches!(pid.as_str(), "" | "0"));
    Ok(living.map(|(unit, _)| unit.clone()).collect())
}

/// The newest start of each unit, by systemd's id of it; nothing of one that systemd has forgotten.
fn invocations(units: &[String]) -> Result<Vec<String>, Error> {
    let shown = systemd::show(units, ["InvocationID"]).map_err(Error::Systemd)?;
    Ok(shown.into_iter().map(|[id]| id).collect())
}

/// Says what has become of each start.
fn started(
    subjects: &[&Subject],
    units: &[String],
    before: &[String],
    began: u64,
    done: Result<(), run::Error>,
) -> Result<Exit, Error> {
    // systemctl fails if one of them does; which one, the units say. What it says itself is why it was not even tried: with
    // --quiet, nothing else.
    let refusal = match done {
        Ok(()) => String::new(),
        Err(run::Error::Failed { stderr, .. }) => stderr.trim().to_owned(),
        Err(error) => return Err(Error::Systemd(error)),
    };
    let properties = [
        "InvocationID",
        "ActiveState",
        "SubState",
        "StatusText",
        "Result",
        "ExecMainStatus",
    ];
    let shown = systemd::show(units, properties).map_err(Error::Systemd)?;
    let mut exit = Exit::Done;
    for ((subject, before), [id, active, sub, text, result, status]) in subjects.iter().zip(before).zip(shown) {
        let name = &subject.name;
        // All else that the unit says is of a start before.
        if is_untried(before, &id, &refusal) {
            eprintln!("ttvm: guest \"{name}\" was not started: {}", text::lines(&refusal));
            exit = first(exit, Exit::Failed);
            continue;
        }
        let again = State::is_restarting(&active, &sub);
        let failed = active == "failed" || result != "success" || again;
        match active.as_str() {
            "active" => {
                writeln!(io::stdout(), "{name}: {}", text::line(&text))?;
                continue;
            }
            _ if !failed => {
                let ended = ending(name).unwrap_or_default();
                writeln!(
                    io::stdout(),
                    "{name}: started, and ended already: {}",
                    text::line(&ended)
                )?;
                continue;
            }
            _ => {}
        }
        let of_unit = status.parse().ok().and_then(Exit::of_status);
        exit = first(exit, of_unit.filter(|exit| *exit != Exit::Done).unwrap_or(Exit::Failed));
        let why = if text.is_empty() { &result } else { &text };
        eprintln!("ttvm: guest \"{name}\" did not start: {}", text::line(why));
        for line in refusal.lines() {
            eprintln!("  systemctl says: {}", text::line(line));
        }
        if again {
            eprintln!("  systemd tries it again; `ttvm stop {name}` ends that");
        }
        for line in journal(&Unit::Plain.of(name), began) {
            eprintln!("    {}", text::line(&line));
        }
        eprintln!("  more: `ttvm logs {name}`; `ttvm guest check {name}` says what this host lacks for it");
    }
    Ok(exit)
}

/// Whether a unit was not even started: systemctl says why, and the newest start is the one it was `before`.
fn is_untried(before: &str, now: &str, refusal: &str) -> bool {
    !refusal.is_empty() && before == now
}

/// Of several guests, the first failure is the command's.
fn first(before: Exit, now: Exit) -> Exit {
    match before {
        Exit::Done => now,
        before => before,
    }
}

/// How the newest run of a guest of this host ended.
fn ending(name: &GuestName) -> Option<String> {
    Record::load(Path::new("/"), name).and_then(|record| record.last_exit())
}

/// The last lines of the unit's journal since a start that failed; none if it cannot be read.
fn journal(unit: &str, since: u64) -> Vec<String> {
    let output = Command::new(&JOURNALCTL)
        .args(["--quiet", "--no-pager", "--output=cat", "--lines", LINES])
        .arg(format!("--since=@{since}"))
        .args(["--unit", unit])
        .run();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Says how each run ended.
fn stopped(subjects: &[&Subject], done: Result<(), run::Error>) -> Result<Exit, Error> {
    done.map_err(Error::Told)?;
    let mut out = io::stdout().lock();
    for subject in subjects {
        // One that had not begun has left nothing.
        let ended = ending(&subject.name).filter(|_| subject.state.is_up());
        writeln!(
            out,
            "{}: {}",
            subject.name,
            text::line(ended.as_deref().unwrap_or("stopped"))
        )?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_to_do() {
        let concerned =
            |action, states: &[State]| -> Vec<bool> { states.iter().map(|state| concerns(action, state)).collect() };
        let states = [
            State::Running,
            State::Starting,
            State::Restarting,
            State::Stopped,
            State::Failed,
        ];
        assert_eq!(concerned(Action::Start, &states), [false, true, true, true, true]);
        assert_eq!(concerned(Action::Stop, &states), [true, true, true, false, false]);
        assert_eq!(concerned(Action::Kill, &states), [true, true, true, false, false]);
    }

    #[test]
    fn what_was_refused_was_not_started() {
        assert!(is_untried("", "", "Interactive authentication required."));
        assert!(is_untried("1f", "1f", "Unit ttvm@a.service is masked."));
        assert!(!is_untried("1f", "20", "Unit ttvm@b.service is masked."), "another one");
        assert!(!is_untried("1f", "1f", ""), "it was being started already");
    }

    #[test]
    fn each_guest_once() {
        let names =
            |text: &str| -> Vec<GuestName> { text.split(' ').map(|name| name.parse().expect("a name")).collect() };
        assert_eq!(distinct(&names("b a b a c")), names("b a c"));
    }
}

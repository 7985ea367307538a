// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm boot`: the boot entries, what is booted next, and trying one with a way back.

use std::io::{self, Write};
use std::path::Path;

use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use super::terminal::table;
use super::{Error, print_json};
use crate::base::error::{Exit, one_line};
use crate::base::text;
use crate::boot::grub::settings::{self, DROP_IN};
use crate::boot::next::{judge, refusal};
use crate::boot::xen_options::limits;
use crate::boot::{self, BootMenu, EntryId, Firmware, Menu, MenuEntry, Stage, System, Trial};
use crate::config::host::{self, HostConfig};
use crate::config::places::Places;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Show the entries of ttvm: what they boot, and why one is missing
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what was booted, what is booted next and why, and how the last try ended
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Boot an entry the next time only; a boot that fails is followed by plain Linux
    Once {
        /// The entry
        #[arg(value_parser = entries())]
        entry: EntryId,
        /// Make it the default once it has booted and is well
        #[arg(long)]
        keep: bool,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Boot an entry from now on
    Default {
        /// The entry
        #[arg(value_parser = entries())]
        entry: EntryId,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Say that this boot of a tried entry is well, without waiting for ttvm-boot-ok.service
    Confirm {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Take back `ttvm boot once`
    Cancel {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the entries as they are written into grub.cfg
    Render,
}

/// An entry's id on the command line.
fn entries() -> impl TypedValueParser<Value = EntryId> {
    PossibleValuesParser::new(EntryId::ALL.map(EntryId::as_str)).try_map(|id| id.parse::<EntryId>())
}

pub(super) fn run(places: &Places, command: &Command) -> Result<Exit, Error> {
    let root = places.root();
    match command {
        Command::List { json } => list(places, *json)?,
        Command::Status { json } => status(places, *json)?,
        Command::Once { entry, keep, dry_run } => {
            let mut menu = BootMenu::read(root, &System)?;
            menu.set_once(*entry, *keep, *dry_run)?;
            let then = match keep {
                true => ", and from then on if it is well",
                false => "",
            };
            say(*dry_run, &format!("boot {entry} the next time{then}"))?;
        }
        Command::Default { entry, dry_run } => set_default(root, *entry, *dry_run)?,
        Command::Confirm { dry_run } => confirm(root, *dry_run)?,
        Command::Cancel { dry_run } => match BootMenu::read(root, &System)?.cancel(*dry_run)? {
            true => say(*dry_run, "boot the default entry the next time")?,
            false => writeln!(io::stdout(), "nothing to do")?,
        },
        Command::Render => {
            let menu = render(root, &host::load(places)?)?;
            for note in &menu.notes {
                eprintln!("{}", text::line(note));
            }
            write!(io::stdout(), "{}", text::script(&menu.to_string()))?;
        }
    }
    Ok(Exit::Done)
}

/// What is going to happen, in the words of both `--dry-run` and the real thing.
fn say(dry_run: bool, what: &str) -> Result<(), Error> {
    let will = if dry_run { "would" } else { "will" };
    Ok(writeln!(io::stdout(), "{will} {what}")?)
}

fn set_default(root: &Path, entry: EntryId, dry_run: bool) -> Result<(), Error> {
    let mut menu = BootMenu::read(root, &System)?;
    let drop_in = menu.needs_drop_in(entry)?;
    if dry_run {
        if drop_in {
            say(true, &format!("write {DROP_IN} and the boot menu anew"))?;
        }
    } else {
        menu.set_default(entry, |path| {
            eprintln!(
                "ttvm: writing the boot menu anew ({}); this takes a while",
                path.display()
            );
            settings::write_menu(path)
        })?;
    }
    say(dry_run, &format!("boot {entry} by default"))
}

fn confirm(root: &Path, dry_run: bool) -> Result<(), Error> {
    let mut menu = BootMenu::read(root, &System)?;
    if dry_run {
        let entry = menu.booted().filter(|_| menu.is_trial());
        let entry = entry.ok_or(refusal::Error::NotOnTrial)?;
        say(true, &format!("note that {entry} is well"))?;
        if menu.keeps() {
            say(true, &format!("boot {entry} by default"))?;
        }
        return Ok(());
    }
    let entry = judge::confirm(&mut menu)?;
    writeln!(io::stdout(), "{entry} is well")?;
    if menu.keeps() {
        say(false, &format!("boot {entry} by default"))?;
    }
    Ok(())
}

fn render(root: &Path, config: &HostConfig) -> Result<Menu, Error> {
    let (environment, said) = settings::read(root).map_err(Error::Settings)?;
    let mut menu = boot::render(root, &environment, &config.boot, &System)?;
    menu.notes.splice(0..0, said);
    Ok(menu)
}

/// One entry, as `list` shows it.
#[derive(Serialize)]
struct Row {
    entry: EntryId,
    title: Option<String>,
    booted: bool,
    next: bool,
    default: bool,
    /// It has been booted as it is now and was well.
    proved: bool,
    /// Why there is no such entry.
    missing: Option<String>,
}

fn list(places: &Places, json: bool) -> Result<(), Error> {
    let root = places.root();
    let menu = BootMenu::read(root, &System)?;
    let is = |entry: Option<&MenuEntry>, id: EntryId| entry.is_some_and(|entry| entry.id == id.as_str());
    let complete = EntryId::ALL.iter().all(|id| menu.entry(*id).is_some());
    // Only where something is missing is it worked out why.
    let notes = match complete {
        true => Vec::new(),
        false => render(root, &host::load(places)?)?.notes,
    };
    let rows = EntryId::ALL.map(|id| {
        let entry = menu.entry(id);
        let why = || {
            let said = notes
                .iter()
                .find_map(|note| note.strip_prefix(&format!("ttvm-grub: no entry {id}: ")));
            said.unwrap_or("the boot menu is older than this; run update-grub")
                .to_owned()
        };
        Row {
            entry: id,
            title: entry.map(|entry| entry.title.clone()),
            booted: menu.booted() == Some(id),
            next: is(menu.next(), id),
            default: is(menu.default(), id),
            proved: menu.has_proved(id),
            missing: entry.is_none().then(why),
        }
    });
    if json {
        return print_json(&rows);
    }
    let lines: Vec<Vec<String>> = rows.iter().map(line).collect();
    Ok(table::print(&["ENTRY", "STATE", "BOOTS"], &lines)?)
}

fn line(row: &Row) -> Vec<String> {
    let states = [
        (row.booted, "booted"),
        (row.default, "default"),
        (row.next && !row.default, "next boot"),
        (row.proved, "proved"),
        (row.missing.is_some(), "missing"),
    ];
    let states: Vec<&str> = states.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
    let boots = row
        .title
        .as_deref()
        .map(|title| title.strip_prefix("ttvm: ").unwrap_or(title));
    vec![
        row.entry.to_string(),
        if states.is_empty() {
            "-".into()
        } else {
            states.join(", ")
        },
        boots.or(row.missing.as_deref()).unwrap_or_default().to_owned(),
    ]
}

/// What `status` shows.
#[derive(Serialize)]
struct Status {
    firmware: Firmware,
    booted: Option<EntryId>,
    trial_boot: bool,
    next: Option<String>,
    next_why: String,
    default: Option<String>,
    /// The default is no entry that has been well as it is now, and not plain Linux.
    default_unproved: bool,
    limits: Option<Vec<Limit>>,
    last_try: Option<LastTry>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Limit {
    option: String,
    in_force: bool,
}

#[derive(Serialize)]
struct LastTry {
    #[serde(flatten)]
    trial: Trial,
    #[serde(flatten)]
    stage: Stage,
}

fn status(places: &Places, json: bool) -> Result<(), Error> {
    let status = look(places)?;
    if json {
        return print_json(&status);
    }
    let mut rows = vec![("Firmware", status.firmware.to_string())];
    let booted = match (status.booted, status.trial_boot) {
        (Some(entry), true) => format!("{entry}, as a try"),
        (Some(entry), false) => entry.to_string(),
        (None, _) => "no entry of ttvm".to_owned(),
    };
    rows.push(("Booted", booted));
    let next = status.next.as_deref().unwrap_or("nothing: the boot menu is empty");
    rows.push(("Next boot", format!("{next} ({})", status.next_why)));
    let default = status.default.as_deref().unwrap_or("-");
    let unproved = match status.default_unproved {
        true => " (not confirmed as it is now)",
        false => "",
    };
    rows.push(("Default", format!("{default}{unproved}")));
    rows.push((
        "Xen's limits",
        match &status.limits {
            None => "-".to_owned(),
            Some(limits) => {
                let describe = |limit: &Limit| match limit.in_force {
                    true => limit.option.clone(),
                    false => format!("{} NOT IN FORCE", limit.option),
                };
                limits.iter().map(describe).collect::<Vec<_>>().join(", ")
            }
        },
    ));
    let last = status.last_try.as_ref().map_or_else(|| "none".to_owned(), describe);
    rows.push(("Last try", last));
    let mut out = io::stdout().lock();
    for (name, value) in rows {
        writeln!(out, "{name:>12}: {}", text::line(&value))?;
    }
    for warning in &status.warnings {
        writeln!(out, "{:>12}: {}", "Warning", text::line(warning))?;
    }
    Ok(())
}

fn look(places: &Places) -> Result<Status, Error> {
    let root = places.root();
    let config = host::load(places)?;
    let menu = BootMenu::read(root, &System)?;
    let firmware = Firmware::of(root);
    let default = menu.default();
    let own = default.and_then(|entry| entry.id.parse::<EntryId>().ok());
    let next_why = match (menu.once(), menu.default_is_saved()) {
        (Some(_), _) => "for this one time".to_owned(),
        (None, true) => "the saved default".to_owned(),
        (None, false) => format!("GRUB_DEFAULT is \"{}\"", menu.default_choice()),
    };
    let mut warnings = Vec::new();
    warnings.extend(menu.env_problem().map(|problem| one_line(&problem)));
    warnings.extend(firmware.without_xen().map(str::to_owned));
    let xen = judge::running_xen().unwrap_or_else(|error| {
        warnings.push(format!("Xen cannot be asked, which needs root: {}", one_line(&error)));
        None
    });
    Ok(Status {
        firmware,
        booted: menu.booted(),
        trial_boot: menu.is_trial(),
        next: menu.next().map(name),
        next_why,
        default: default.map(name),
        default_unproved: own.is_some_and(|id| id.is_xen() && !menu.has_proved(id)),
        limits: xen.and_then(|xen| xen.command_line).map(|line| {
            let limits = limits(&config.boot, &line).into_iter();
            limits.map(|(option, in_force)| Limit { option, in_force }).collect()
        }),
        last_try: menu.trial().map(|(trial, stage)| LastTry {
            trial: trial.clone(),
            stage,
        }),
        warnings,
    })
}

/// An entry's id if it is one of ours, else what a person reads.
fn name(entry: &MenuEntry) -> String {
    match entry.id.parse::<EntryId>() {
        Ok(id) => id.to_string(),
        Err(_) => format!("\"{}\"", entry.title),
    }
}

fn describe(last: &LastTry) -> String {
    let entry = last.trial.entry;
    match &last.stage {
        Stage::Waiting => format!("{entry} comes with the next boot"),
        Stage::Withdrawn => format!("{entry} was withdrawn"),
        Stage::Running => format!("{entry} is running and has yet to prove itself"),
        Stage::Well => format!("{entry} was well"),
        Stage::Failed(why) => format!("{entry} FAILED: {why}"),
    }
}

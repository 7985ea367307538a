// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm status`: all guests at a glance. Asks systemd once, Xen's store and the kernel; starts no program, and runs no LVM command.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nix::unistd::geteuid;
use serde::Serialize;

use super::snapshot::describe;
use super::watch;
use crate::base::clock::{duration, now};
use crate::base::error::{Exit, one_line};
use crate::base::text;
use crate::cli::systemd::{self, State, Units};
use crate::cli::terminal::table::{self, Cell, Tone};
use crate::cli::{Error, guest_name, print_json, without_host};
use crate::config::guest::Guest;
use crate::config::host::{self, HostConfig};
use crate::config::places::Places;
use crate::config::types::{GuestName, Size, Volume};
use crate::config::{self, guests};
use crate::guest as claims;
use crate::guest::domain::{self, Domain, Presence};
use crate::guest::preparation::Preparation;
use crate::guest::record::Record;
use crate::recording::{self, Library};
use crate::snapshot::{Fill, Store};
use crate::xenstore::{self, XenStore};

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The guests; all if none is named
    #[arg(value_parser = guest_name)]
    pub(in crate::cli) guests: Vec<GuestName>,
    /// Show them until q or Ctrl-C, as they change; where there is no terminal, print a line for each change
    #[arg(long, short = 'w')]
    watch: bool,
    /// Print JSON; with --watch, a line for each guest, and one for each change
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// One guest's line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in crate::cli) struct Row {
    pub(in crate::cli) guest: GuestName,
    pub(in crate::cli) state: String,
    #[serde(skip)]
    tone: Tone,
    pub(in crate::cli) domid: Option<u32>,
    pub(in crate::cli) memory: Option<u64>,
    pub(in crate::cli) snapshots: Vec<Fill>,
    /// Those that are read, in the same order.
    #[serde(skip)]
    pub(in crate::cli) volumes: Vec<Volume>,
    pub(in crate::cli) uptime: Option<u64>,
    /// When it came up, in seconds since 1970, while it is.
    #[serde(skip)]
    pub(in crate::cli) since: Option<u64>,
    pub(super) reboots: u32,
    pub(super) snapshot_lost: bool,
    /// Why it stands still, while it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
    last_exit: Option<String>,
}

impl Row {
    /// A guest of which nothing is known but what its unit does.
    pub(super) fn bare(guest: GuestName, state: &str) -> Self {
        Self {
            guest,
            state: state.to_owned(),
            tone: Tone::Plain,
            domid: None,
            memory: None,
            snapshots: Vec::new(),
            volumes: Vec::new(),
            uptime: None,
            since: None,
            reboots: 0,
            snapshot_lost: false,
            trouble: None,
            last_exit: None,
        }
    }

    /// The state in a word or two, without the details of this guest.
    pub(in crate::cli) fn word(&self) -> &str {
        match self.state.starts_with("foreign domain") {
            true => "foreign domain",
            false => self.state.split(',').next().unwrap_or_default(),
        }
    }

    /// It as it is at `now`, if nothing but the time has changed.
    pub(super) fn grow_older(&mut self, now: u64) {
        self.uptime = self.since.map(|since| now.saturating_sub(since));
    }

    /// Whether something has happened to the guest since it was `other`: time that goes by, and a snapshot that fills, is no event.
    pub(in crate::cli) fn differs(&self, other: &Self) -> bool {
        let events = |row: &Self| Self {
            snapshots: Vec::new(),
            uptime: None,
            ..row.clone()
        };
        events(self) != events(other)
    }
}

/// What is known of all guests together.
pub(super) struct World {
    /// Nothing if systemd cannot be asked.
    pub(in crate::cli) units: Option<Units>,
    /// Where no systemd looks after guests, which then run in the foreground.
    pub(in crate::cli) own: Option<Foreground>,
    pub(super) domains: BTreeMap<u32, Domain>,
}

/// Guests that run as long as the command that runs them.
pub(super) struct Foreground {
    locks: PathBuf,
    library: Library,
}

impl Foreground {
    /// What a guest does: whoever runs it has its lock, and whoever records it a recording that has not ended.
    fn state(&self, guest: &GuestName) -> State {
        if !claims::is_claimed(&self.locks, guest) {
            return State::Stopped;
        }
        let recordings = self.library.list(Some(guest)).unwrap_or_default();
        match recordings
            .iter()
            .any(|entry| entry.state == recording::State::Recording)
        {
            true => State::Recording,
            false => State::Replaying,
        }
    }
}

impl World {
    /// As it is now, for the guests of `places`.
    pub(in crate::cli) fn look(places: &Places) -> Self {
        // Of a user's own guests systemd knows nothing, and where it does not run nobody expects it to.
        let asked = systemd::is_here() && !places.is_own();
        let runs_here = !asked && (places.is_own() || geteuid().is_root());
        let units = asked.then(systemd::units_now).and_then(|units| {
            units
                .map_err(|error| eprintln!("ttvm: note: units are not shown: {}", text::line(&one_line(&error))))
                .ok()
        });
        Self {
            units,
            own: runs_here.then(|| Foreground {
                locks: claims::locks(places.state_dir()),
                library: Library::open(places.state_dir()),
            }),
            domains: domains(),
        }
    }

    /// What a guest does, and what a person should think of it.
    pub(in crate::cli) fn state(&self, guest: &GuestName) -> (String, Tone) {
        match self.unit(guest) {
            Some(state) => (state.to_string(), tone(&state)),
            None => ("unknown".to_owned(), Tone::Plain),
        }
    }

    fn unit(&self, guest: &GuestName) -> Option<State> {
        let units = self.units.as_ref().map(|units| units.of(guest).1);
        units.or_else(|| Some(self.own.as_ref()?.state(guest)))
    }
}

fn tone(state: &State) -> Tone {
    match state {
        state if state.is_up() => Tone::Good,
        State::Failed => Tone::Bad,
        State::Starting | State::Stopping | State::Restarting => Tone::Passing,
        _ => Tone::Plain,
    }
}

pub(in crate::cli) fn run(places: &Places, arguments: &Arguments) -> Result<Exit, Error> {
    if arguments.watch {
        return watch::run(places, arguments);
    }
    let found = rows(places, &arguments.guests, &World::look(places))?;
    found.print_notes();
    if arguments.json {
        print_json(&found.rows)?;
        return Ok(Exit::Done);
    }
    let lines: Vec<Vec<Cell>> = found.rows.iter().map(cells).collect();
    table::print(&HEAD, &lines)?;
    Ok(Exit::Done)
}

/// What is known of guests.
pub(super) struct Found {
    pub(in crate::cli) rows: Vec<Row>,
    /// What could not be found out, a line each.
    pub(in crate::cli) notes: Vec<String>,
}

impl Found {
    /// Says on the standard error what is missing.
    pub(super) fn print_notes(&self) {
        for note in &self.notes {
            eprintln!("ttvm: note: {}", text::line(note));
        }
    }
}

/// The guests of that name, or all.
pub(super) fn rows(places: &Places, wanted: &[GuestName], world: &World) -> Result<Found, Error> {
    // Who wants to know what runs is not to be kept from it by a mistake in a file.
    let (host, wrong) = host::load_or_defaults(places);
    let mut notes: Vec<String> = wrong.iter().map(without_host).collect();
    let names = match wanted {
        [] => guests::names(places)?,
        wanted => wanted.to_vec(),
    };
    let mut rows = Vec::new();
    for name in names {
        match row(places, &host, &name, world, &mut notes) {
            // Its file has gone since the names were read.
            Err(Error::Config(config::Error::NoSuchGuest { .. })) if wanted.is_empty() => {}
            row => rows.push(row?),
        }
    }
    Ok(Found { rows, notes })
}

/// Domains, or none where Xen does not run or does not answer us.
fn domains() -> BTreeMap<u32, Domain> {
    if !xenstore::is_here() {
        return BTreeMap::new();
    }
    let list = XenStore::connect().and_then(|mut store| domain::list(&mut store));
    list.unwrap_or_else(|error| {
        eprintln!("ttvm: note: domains are not shown: {}", text::line(&one_line(&error)));
        BTreeMap::new()
    })
}

fn row(
    places: &Places,
    host: &HostConfig,
    name: &GuestName,
    world: &World,
    notes: &mut Vec<String>,
) -> Result<Row, Error> {
    let (state, tone) = world.state(name);
    let record = record_of(places, name);
    let row = Row {
        tone,
        reboots: record.as_ref().map_or(0, |record| record.reboots),
        snapshot_lost: record.as_ref().is_some_and(|record| record.snapshot_lost),
        ..Row::bare(name.clone(), &state)
    };
    match guests::load(places, host, name) {
        Ok(guest) => Ok(of_guest(row, &guest, record, host, world, notes)),
        Err(error @ config::Error::NoSuchGuest { .. }) => Err(error.into()),
        Err(_) => Ok(invalid(row, places, world)),
    }
}

/// What is remembered of the newest run of a guest. It is of the system's guests alone, and a user's own may have the same name.
pub(super) fn record_of(places: &Places, name: &GuestName) -> Option<Record> {
    match places.is_own() {
        true => None,
        false => Record::load(places.root(), name),
    }
}

/// A guest whose file is wrong.
fn invalid(mut row: Row, places: &Places, world: &World) -> Row {
    (row.state, row.tone) = ("invalid".to_owned(), Tone::Bad);
    row.last_exit = Some(format!("ttvm guest check {}", row.guest));
    // It may have been right when the guest was started.
    if !places.is_own()
        && let Some(preparation) = Preparation::load(&row.guest)
        && let Presence::Own(domain) = domain::presence(&world.domains, &row.guest, preparation.uuid())
    {
        row.state = "running, file invalid".to_owned();
        row.domid = Some(domain.domid);
        row.memory = Some(domain.memory);
    }
    row
}

fn of_guest(
    mut row: Row,
    guest: &Guest,
    record: Option<Record>,
    host: &HostConfig,
    world: &World,
    notes: &mut Vec<String>,
) -> Row {
    let unit = world.unit(&guest.name);
    match domain::presence(&world.domains, &guest.name, guest.uuid) {
        Presence::Own(domain) => {
            row.domid = Some(domain.domid);
            row.memory = Some(domain.memory);
            if unit == Some(State::Stopped) {
                // A domain without its unit: an earlier run was killed together with systemd.
                (row.state, row.tone) = ("left behind".to_owned(), Tone::Bad);
            }
        }
        Presence::Foreign(domain) => {
            (row.state, row.tone) = (format!("foreign domain {}", domain.domid), Tone::Bad);
        }
        Presence::Absent => {}
    }
    // Reading device-mapper needs root; the rest of the table does not.
    if guest.snapshots().next().is_some()
        && let Ok(store) = Store::open(&guest.name, guest.snapshots().cloned().collect(), &host.snapshot)
    {
        match store.status() {
            Ok(fills) => {
                for (snapshot, fill) in fills {
                    row.volumes.push(snapshot.volume.clone());
                    row.snapshots.push(fill);
                }
            }
            Err(error) => notes.push(format!(
                "how full the snapshots of {} are is not known: {}",
                guest.name,
                one_line(&error)
            )),
        }
    }
    if let Some(record) = record {
        let running = record.ending.is_none() && unit.is_some_and(|state| state.is_up());
        if running && guest.toolstack.is_emulated() {
            row.memory = Some(guest.memory.bytes());
        }
        row.since = (running && row.memory.is_some()).then_some(record.since);
        row.grow_older(now());
        if running && let Some(trouble) = &record.trouble {
            (row.state, row.tone) = (format!("{}, {trouble}", row.state), Tone::Bad);
            row.trouble = Some(trouble.clone());
        }
        row.last_exit = if running { record.previous } else { record.last_exit() };
    }
    row
}

pub(super) const HEAD: [&str; 7] = ["GUEST", "STATE", "DOMID", "MEMORY", "SNAPSHOT", "UPTIME", "LAST EXIT"];

pub(in crate::cli) fn cells(row: &Row) -> Vec<Cell> {
    let dash = || "-".to_owned();
    let mut fill: Vec<String> = row.snapshots.iter().map(describe).collect();
    let lost = row.snapshot_lost || row.snapshots.iter().any(Fill::is_lost);
    if row.snapshot_lost && !row.snapshots.iter().any(Fill::is_lost) {
        fill.push("last run OVERFLOWED".into());
    }
    vec![
        row.guest.to_string().into(),
        Cell::toned(&row.state, row.tone),
        row.domid.map_or_else(dash, |domid| domid.to_string()).into(),
        row.memory
            .map_or_else(dash, |bytes| Size::from_bytes(bytes).to_string())
            .into(),
        Cell::toned(
            if fill.is_empty() { dash() } else { fill.join(", ") },
            if lost { Tone::Bad } else { Tone::Plain },
        ),
        row.uptime.map_or_else(dash, duration).into(),
        row.last_exit.clone().unwrap_or_else(dash).into(),
    ]
}

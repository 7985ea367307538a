// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm status`: all guests at a glance. Asks systemd once, Xen's store and the kernel; runs no LVM command.

use std::collections::BTreeMap;

use serde::Serialize;

use super::snapshot::describe;
use super::{Error, guest_name, print_json, table};
use crate::clock::{duration, now};
use crate::config::guest::Toolstack;
use crate::config::places::Places;
use crate::config::types::{GuestName, Size};
use crate::config::{guests, host};
use crate::error::Exit;
use crate::guest::domain::{self, Domain, Presence};
use crate::guest::preparation::Preparation;
use crate::guest::record::Record;
use crate::run::{Command, Program};
use crate::snapshot::{Fill, Store};
use crate::xenstore::{self, XenStore};

static SYSTEMCTL: Program = Program::new(&["systemctl"]);

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The guests; all if none is named
    #[arg(value_parser = guest_name)]
    guests: Vec<GuestName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One guest's line.
#[derive(Serialize)]
struct Row {
    guest: GuestName,
    state: String,
    domid: Option<u32>,
    memory: Option<u64>,
    snapshots: Vec<Fill>,
    uptime: Option<u64>,
    reboots: u32,
    snapshot_lost: bool,
    /// Why it stands still, while it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
    last_exit: Option<String>,
}

pub(super) fn run(places: &Places, arguments: &Arguments) -> Result<Exit, Error> {
    let host = host::load(places)?;
    let names = if arguments.guests.is_empty() {
        guests::names(places)?
    } else {
        arguments.guests.clone()
    };
    let units = unit_states(&names);
    let domains = domains();
    let mut rows = Vec::new();
    for name in names {
        rows.push(row(places, &host, &name, &units, &domains)?);
    }
    if arguments.json {
        print_json(&rows)?;
        return Ok(Exit::Done);
    }
    let lines: Vec<Vec<String>> = rows.iter().map(line).collect();
    table::print(
        &["GUEST", "STATE", "DOMID", "MEMORY", "SNAPSHOT", "UPTIME", "LAST EXIT"],
        &lines,
    )?;
    Ok(Exit::Done)
}

/// Domains, or none where Xen does not run or does not answer us.
fn domains() -> BTreeMap<u32, Domain> {
    if !xenstore::is_here() {
        return BTreeMap::new();
    }
    let list = XenStore::connect().and_then(|mut store| domain::list(&mut store));
    list.unwrap_or_else(|error| {
        eprintln!("ttvm: note: domains are not shown: {error}");
        BTreeMap::new()
    })
}

/// What systemd says of each guest's unit; nothing where systemd does not run.
fn unit_states(names: &[GuestName]) -> BTreeMap<String, String> {
    if names.is_empty() {
        return BTreeMap::new();
    }
    let units = names
        .iter()
        .flat_map(|name| UNITS.map(|(unit, _)| format!("{unit}@{name}.service")));
    let output = Command::new(&SYSTEMCTL)
        .args(["show", "--property=Id,ActiveState,SubState", "--"])
        .args(units)
        .run();
    let Ok(output) = output else {
        return BTreeMap::new();
    };
    let mut states = BTreeMap::new();
    for unit in output.stdout.split("\n\n") {
        let property = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        if let (Some(id), Some(active), Some(sub)) = (property("Id"), property("ActiveState"), property("SubState")) {
            let state = match (active, sub) {
                ("active", _) => activity(id),
                ("inactive", _) => "stopped",
                ("activating", "auto-restart") => "restarting",
                ("activating", _) => "starting",
                ("deactivating", _) => "stopping",
                (other, _) => other,
            };
            states.insert(id.to_owned(), state.to_owned());
        }
    }
    states
}

/// The units of a guest, and what it does while one is active. No two of them are at once (Conflicts=).
const UNITS: [(&str, &str); 3] = [
    ("ttvm", RUNNING),
    ("ttvm-record", "recording"),
    ("ttvm-replay", "replaying"),
];

const RUNNING: &str = "running";

fn activity(unit: &str) -> &'static str {
    let kind = unit.split('@').next().unwrap_or_default();
    UNITS
        .iter()
        .find(|(name, _)| *name == kind)
        .map_or(RUNNING, |(_, what)| what)
}

fn row(
    places: &Places,
    host: &host::HostConfig,
    name: &GuestName,
    units: &BTreeMap<String, String>,
    domains: &BTreeMap<u32, Domain>,
) -> Result<Row, Error> {
    let state = |unit: &str| units.get(&format!("{unit}@{name}.service")).map(String::as_str);
    let mut other = ["ttvm-record", "ttvm-replay"].into_iter().filter_map(state);
    // One of them that runs, or is about to, says more than the plain unit, which then does not.
    let unit = other
        .rfind(|state| !["stopped", "failed"].contains(state))
        .or(state("ttvm"));
    let record = Record::load(places.root(), name);
    let mut row = Row {
        guest: name.clone(),
        state: unit.unwrap_or("unknown").to_owned(),
        domid: None,
        memory: None,
        snapshots: Vec::new(),
        uptime: None,
        reboots: record.as_ref().map_or(0, |record| record.reboots),
        snapshot_lost: record.as_ref().is_some_and(|record| record.snapshot_lost),
        trouble: None,
        last_exit: None,
    };
    let guest = match guests::load(places, host, name) {
        Ok(guest) => guest,
        Err(_) if guests::names(places)?.contains(name) => {
            row.state = "invalid".into();
            row.last_exit = Some(format!("ttvm guest check {name}"));
            // It may have been right when the guest was started.
            if let Some(preparation) = Preparation::load(name)
                && let Presence::Own(domain) = domain::presence(domains, name, preparation.uuid())
            {
                row.state = "running, file invalid".into();
                row.domid = Some(domain.domid);
                row.memory = Some(domain.memory);
            }
            return Ok(row);
        }
        Err(error) => return Err(error.into()),
    };
    match domain::presence(domains, name, guest.uuid) {
        Presence::Own(domain) => {
            row.domid = Some(domain.domid);
            row.memory = Some(domain.memory);
            if unit == Some("stopped") {
                // A domain without its unit: an earlier run was killed together with systemd.
                row.state = "left behind".into();
            }
        }
        Presence::Foreign(domain) => row.state = format!("foreign domain {}", domain.domid),
        Presence::Absent => {}
    }
    // Reading device-mapper needs root; the rest of the table does not.
    if guest.snapshots().next().is_some()
        && let Ok(store) = Store::open(name, guest.snapshots().cloned().collect(), &host.snapshot)
    {
        row.snapshots = store.status()?.into_iter().map(|(_, fill)| fill).collect();
    }
    if let Some(record) = record {
        let running = record.ending.is_none() && unit.is_some_and(|unit| UNITS.iter().any(|(_, what)| *what == unit));
        if running && guest.toolstack == Toolstack::Qemu {
            row.memory = Some(guest.memory.bytes());
        }
        row.uptime = (running && row.memory.is_some()).then(|| now().saturating_sub(record.since));
        if running && let Some(trouble) = &record.trouble {
            row.state = format!("{}, {trouble}", row.state);
            row.trouble = Some(trouble.clone());
        }
        row.last_exit = if running { record.previous } else { record.last_exit() };
    }
    Ok(row)
}

fn line(row: &Row) -> Vec<String> {
    let dash = || "-".to_owned();
    let mut fill: Vec<String> = row.snapshots.iter().map(describe).collect();
    if row.snapshot_lost && !row.snapshots.iter().any(Fill::is_lost) {
        fill.push("last run OVERFLOWED".into());
    }
    vec![
        row.guest.to_string(),
        row.state.clone(),
        row.domid.map_or_else(dash, |domid| domid.to_string()),
        row.memory
            .map_or_else(dash, |bytes| Size::from_bytes(bytes).to_string()),
        if fill.is_empty() { dash() } else { fill.join(", ") },
        row.uptime.map_or_else(dash, duration),
        row.last_exit.clone().unwrap_or_else(dash),
    ]
}

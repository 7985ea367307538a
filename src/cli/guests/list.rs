// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm list`: guests, a line each. No program is started for it.

use serde::Serialize;

use super::status::World;
use crate::base::error::Exit;
use crate::cli::terminal::table::{self, Cell, Tone};
use crate::cli::{Error, host_or_defaults, print_json};
use crate::config::guest::{DiskSource, Guest};
use crate::config::guests;
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::guest::mode::GuestNetwork;

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One guest's line.
#[derive(Serialize)]
struct Row {
    guest: GuestName,
    /// None if the guest's file is wrong.
    toolstack: Option<&'static str>,
    state: String,
    #[serde(skip)]
    tone: Tone,
    disks: Vec<String>,
    networks: Vec<String>,
}

pub(in crate::cli) fn run(places: &Places, arguments: &Arguments) -> Result<Exit, Error> {
    let host = host_or_defaults(places);
    let names = guests::names(places)?;
    let world = World::look(places);
    let network = GuestNetwork::load(places.root());
    let rows: Vec<Row> = names
        .iter()
        .map(|name| row(name, guests::load(places, &host, name).ok().as_ref(), &world, &network))
        .collect();
    if arguments.json {
        print_json(&rows)?;
        return Ok(Exit::Done);
    }
    let lines: Vec<Vec<Cell>> = rows.iter().map(cells).collect();
    table::print(&["GUEST", "TOOLSTACK", "STATE", "DISK", "NETWORK"], &lines)?;
    if rows.is_empty() {
        let directory = guests::directory(places);
        eprintln!(
            "ttvm: there is no guest in {}: `ttvm guest new NAME` makes one",
            directory.display()
        );
    }
    Ok(Exit::Done)
}

fn row(name: &GuestName, guest: Option<&Guest>, world: &World, network: &GuestNetwork) -> Row {
    let (state, tone) = match guest {
        Some(_) => world.state(name),
        None => (format!("invalid: ttvm guest check {name}"), Tone::Bad),
    };
    Row {
        guest: name.clone(),
        toolstack: guest.map(|guest| guest.toolstack.as_str()),
        state,
        tone,
        disks: guest.map(disks).unwrap_or_default(),
        networks: guest.map(|guest| networks(guest, network)).unwrap_or_default(),
    }
}

/// What each disk is made from, or is.
fn disks(guest: &Guest) -> Vec<String> {
    let disks = guest.disks.iter().map(|disk| match &disk.source {
        DiskSource::Snapshot(snapshot) => snapshot.origin.to_string(),
        DiskSource::Overlay(origin) => origin.to_string(),
        DiskSource::Path { path, .. } => path.display().to_string(),
    });
    disks.collect()
}

/// The bridge of each interface; an emulated guest's are on none.
fn networks(guest: &Guest, network: &GuestNetwork) -> Vec<String> {
    let networks = guest.vifs.iter().map(|vif| match (&vif.bridge, &network.bridge) {
        _ if guest.toolstack.is_emulated() && vif.outside => "outside".to_owned(),
        _ if guest.toolstack.is_emulated() => "inside".to_owned(),
        (Some(bridge), _) => bridge.to_string(),
        (None, Some(bridge)) => bridge.to_string(),
        (None, None) => "no bridge".to_owned(),
    });
    networks.collect()
}

fn cells(row: &Row) -> Vec<Cell> {
    let dash = |texts: &[String]| match texts {
        [] => "-".to_owned(),
        texts => texts.join(", "),
    };
    vec![
        row.guest.to_string().into(),
        row.toolstack.unwrap_or("-").to_owned().into(),
        Cell::toned(&row.state, row.tone),
        dash(&row.disks).into(),
        dash(&row.networks).into(),
    ]
}

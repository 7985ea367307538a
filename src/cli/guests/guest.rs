// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm guest`: guests' files.

use std::io::{self, Write};
use std::path::Path;

use clap::Subcommand;

use super::{guest_new, import};
use crate::base::error::{Exit, chain};
use crate::base::text;
use crate::cli::terminal::table;
use crate::cli::{Error, guest_name, print_json};
use crate::config::guest::{Boot, DiskSource, Guest};
use crate::config::host::{self, HostConfig};
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::config::{self, guests};
use crate::guest::mode::GuestNetwork;
use crate::guest::obstacles;
use crate::guest::toolstack::{self, xl_config};

#[derive(Subcommand)]
pub(in crate::cli) enum Command {
    /// List guests and what they are
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a guest with everything its file leaves to defaults
    Show {
        /// The guest
        #[arg(value_parser = guest_name)]
        guest: GuestName,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check guests' files and ttvm.toml; all guests if none is named
    Check {
        /// The guests
        #[arg(value_parser = guest_name)]
        guests: Vec<GuestName>,
    },
    /// Make a guest that is ready to be recorded
    New(guest_new::Arguments),
    /// Make a guest of a file of xm or xl, and list what is not carried over
    Import(import::Arguments),
    /// Print the file for xl, or for xm, that will be used
    Config {
        /// The guest
        #[arg(value_parser = guest_name)]
        guest: GuestName,
    },
}

pub(in crate::cli) fn run(places: &Places, command: &Command) -> Result<Exit, Error> {
    let host = host::load(places)?;
    match command {
        Command::List { json } => list(places, &host, *json),
        Command::Show { guest, json } => show(places, &guests::load(places, &host, guest)?, *json),
        Command::Check { guests } => check(places, &host, guests),
        Command::New(arguments) => guest_new::run(places, &host, arguments),
        Command::Import(arguments) => import::run(places, &host, arguments),
        Command::Config { guest } => {
            let guest = guests::load(places, &host, guest)?;
            let network = GuestNetwork::load(places.root());
            let text = toolstack::render(&guest, &guests::path(places, &guest.name), &network);
            io::stdout().write_all(text.as_bytes())?;
            Ok(Exit::Done)
        }
    }
}

/// What is printed of a guest in a list.
#[derive(serde::Serialize)]
struct Row {
    guest: GuestName,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<Guest>,
    valid: bool,
}

fn list(places: &Places, host: &HostConfig, json: bool) -> Result<Exit, Error> {
    let rows: Vec<Row> = guests::names(places)?
        .into_iter()
        .map(|name| {
            let summary = guests::load(places, host, &name).ok();
            Row {
                valid: summary.is_some(),
                guest: name,
                summary,
            }
        })
        .collect();
    if json {
        print_json(&rows)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|row| match row.summary {
            Some(guest) => vec![
                row.guest.to_string(),
                guest.kind.as_str().into(),
                guest.memory.to_string(),
                guest.vcpus.to_string(),
                guest
                    .disks
                    .iter()
                    .map(|disk| disk.target.to_string())
                    .collect::<Vec<_>>()
                    .join(","),
                guest
                    .snapshots()
                    .map(|snapshot| snapshot.volume.to_string())
                    .collect::<Vec<_>>()
                    .join(","),
            ],
            None => vec![
                row.guest.to_string(),
                format!("invalid: ttvm guest check {}", row.guest),
            ],
        })
        .collect();
    table::print(&["GUEST", "TYPE", "MEMORY", "VCPUS", "DISKS", "SNAPSHOTS"], &rows)?;
    Ok(Exit::Done)
}

fn show(places: &Places, guest: &Guest, json: bool) -> Result<Exit, Error> {
    if json {
        print_json(guest)?;
        return Ok(Exit::Done);
    }
    let mut lines = vec![
        ("guest", guest.name.to_string()),
        ("file", guests::path(places, &guest.name).display().to_string()),
        ("uuid", guest.uuid.to_string()),
        ("toolstack", guest.toolstack.as_str().to_owned()),
        ("type", guest.kind.as_str().to_owned()),
        ("memory", guest.memory.to_string()),
        ("vcpus", guest.vcpus.to_string()),
    ];
    match &guest.boot {
        Boot::Kernel {
            kernel,
            initrd,
            cmdline,
        } => {
            lines.push(("kernel", kernel.display().to_string()));
            lines.extend(initrd.iter().map(|initrd| ("initrd", initrd.display().to_string())));
            lines.extend(cmdline.iter().map(|cmdline| ("cmdline", cmdline.clone())));
        }
        Boot::Bootloader { program, args } => {
            lines.push((
                "bootloader",
                format!("{program} {}", args.join(" ")).trim_end().to_owned(),
            ));
        }
        Boot::Firmware => lines.push(("boots", "its own firmware".into())),
    }
    for disk in &guest.disks {
        let behind = match &disk.source {
            DiskSource::Snapshot(snapshot) => {
                let size = snapshot
                    .size
                    .map_or_else(String::new, |size| format!(", {size} for changes if thick"));
                format!("{}, a fresh snapshot of {}{size}", snapshot.volume, snapshot.origin)
            }
            DiskSource::Overlay(origin) => format!("an overlay over {origin}"),
            DiskSource::Path { path, format, writable } => {
                let access = if *writable { "written" } else { "read-only" };
                format!("{} ({}), {access}", path.display(), format.as_str())
            }
        };
        lines.push(("disk", format!("{}: {behind}", disk.target)));
        lines.extend(
            disk.xm
                .iter()
                .map(|parameters| ("xm", format!("{}: {parameters}", disk.target))),
        );
    }
    for vif in &guest.vifs {
        let bridge = vif
            .bridge
            .as_ref()
            .map_or_else(String::new, |bridge| format!(" on {bridge}"));
        let address = vif
            .address
            .map_or_else(String::new, |address| format!(", address {address}"));
        lines.push(("vif", format!("{}{bridge}{address}", vif.mac)));
    }
    let on_reboot = match guest.on_reboot {
        config::guest::OnReboot::Keep => "keep (started again on the disk it wrote)",
        config::guest::OnReboot::Fresh => "fresh (started again on a fresh snapshot)",
        config::guest::OnReboot::Stop => "stop",
    };
    lines.push(("on_reboot", on_reboot.into()));
    lines.push(("start_timeout", format!("{} s", guest.start_timeout.as_secs())));
    lines.push(("shutdown_timeout", format!("{} s", guest.shutdown_timeout.as_secs())));
    for (table, keys) in [("xl", &guest.xl), ("xm", &guest.xm)] {
        lines.extend(
            keys.iter()
                .map(|(key, value)| (table, format!("{key} = {}", xl_config::value(value)))),
        );
    }
    let mut out = io::stdout().lock();
    for (key, value) in lines {
        writeln!(out, "{key:>16}: {}", text::line(&value))?;
    }
    Ok(Exit::Done)
}

fn check(places: &Places, host: &HostConfig, wanted: &[GuestName]) -> Result<Exit, Error> {
    let names = if wanted.is_empty() {
        guests::names(places)?
    } else {
        wanted.to_vec()
    };
    let mut exit = Exit::Done;
    for name in names {
        match guests::load(places, host, &name) {
            Ok(guest) if is_ready(places, &guest)? => {}
            Ok(_) => exit = Exit::Config,
            Err(error) => {
                exit = Exit::Config;
                eprintln!("{}", text::lines(&chain(&error)));
            }
        }
    }
    Ok(exit)
}

/// Says what is wrong with a guest whose file is right: what this host lacks for it, unless it is another one's. Whether nothing
/// is.
fn is_ready(places: &Places, guest: &Guest) -> Result<bool, Error> {
    let here = places.root() == Path::new("/");
    let lacks = if here {
        obstacles::on_this_host(guest)
    } else {
        Vec::new()
    };
    let name = &guest.name;
    for what in &lacks {
        eprintln!("{name}: {}", text::line(&what.to_string()));
    }
    if lacks.is_empty() {
        writeln!(io::stdout(), "{name}: ok")?;
    }
    let silent = obstacles::prints_nothing(guest).map(|obstacle| obstacle.to_string());
    for warning in guest.warnings().into_iter().chain(silent) {
        eprintln!("{name}: warning: {}", text::line(&warning));
    }
    Ok(lacks.is_empty())
}

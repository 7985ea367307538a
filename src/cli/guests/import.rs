// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm guest import`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;

use crate::base::error::{Exit, chain};
use crate::base::text;
use crate::cli::{Error, guest_name, print_json};
use crate::config::guest::Toolstack;
use crate::config::host::HostConfig;
use crate::config::places::Places;
use crate::config::types::{GuestName, Size, Target, Volume};
use crate::import::{Asked, Dialect, Known, Note, Plan, Request, plan};
use crate::{lvm2_cmd, run};

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The file of xm or xl; - is the standard input
    file: PathBuf,
    /// The guest's name, if not the one in the file
    #[arg(long, value_parser = guest_name)]
    name: Option<GuestName>,
    /// What is to start the guest, if not the host's default
    #[arg(long, value_enum)]
    toolstack: Option<ToolstackArgument>,
    /// Whose language the file is written in
    #[arg(long, value_enum, default_value = "auto")]
    dialect: DialectArgument,
    /// Make the disk TARGET a fresh snapshot of the volume VG/LV before each run
    #[arg(long = "origin", value_name = "TARGET=VG/LV", value_parser = origin)]
    origins: Vec<(Target, Volume)>,
    /// Print the guest's file instead of writing it
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ToolstackArgument {
    Xl,
    Xm,
    Qemu,
}

#[derive(Clone, Copy, ValueEnum)]
enum DialectArgument {
    Auto,
    Xm,
    Xl,
}

/// `xvda1=xenvg/base`.
fn origin(text: &str) -> Result<(Target, Volume), String> {
    let (target, volume) = text
        .split_once('=')
        .ok_or_else(|| "say which disk, and which volume it is made from: xvda1=xenvg/base".to_owned())?;
    let target = target
        .parse()
        .map_err(|why: crate::config::types::Invalid| why.to_string())?;
    let volume = volume
        .parse()
        .map_err(|why: crate::config::types::Invalid| why.to_string())?;
    Ok((target, volume))
}

/// What was done, as JSON.
#[derive(Serialize)]
struct Answer<'a> {
    guest: &'a GuestName,
    file: &'a Path,
    written: bool,
    dialect: Dialect,
    toolstack: Toolstack,
    notes: &'a [Note],
    missing: &'a [String],
    /// Why the guest would not be taken as it is, if so.
    refused: Option<String>,
    text: &'a str,
}

pub(in crate::cli) fn run(places: &Places, host: &HostConfig, arguments: &Arguments) -> Result<Exit, Error> {
    let request = Request {
        file: &arguments.file,
        name: arguments.name.clone(),
        toolstack: arguments.toolstack.map(|toolstack| match toolstack {
            ToolstackArgument::Xl => Toolstack::Xl,
            ToolstackArgument::Xm => Toolstack::Xm,
            ToolstackArgument::Qemu => Toolstack::Qemu,
        }),
        dialect: match arguments.dialect {
            DialectArgument::Auto => None,
            DialectArgument::Xm => Some(Dialect::Xm),
            DialectArgument::Xl => Some(Dialect::Xl),
        },
        origins: &arguments.origins,
    };
    // LVM is the machine's, not a tree's.
    let here = places.root() == Path::new("/");
    let ask = |volume: &Volume| if here { known(volume) } else { Asked::Nothing };
    let mut made = plan(places, host, &request, &ask)?;
    if !arguments.dry_run {
        made = made.write(places)?;
    }
    // What was written exists because of that.
    let exists = arguments.dry_run && made.exists();
    let refused = match exists {
        true => Some(format!(
            "{} exists, and is not replaced: choose another name (--name NAME)",
            made.path.display()
        )),
        false => made.refusal().map(|refusal| chain(refusal)),
    };
    let exit = match &refused {
        Some(_) if exists => Exit::Refused,
        Some(_) => Exit::Config,
        None => Exit::Done,
    };
    print(&made, refused, arguments)?;
    Ok(exit)
}

fn print(plan: &Plan, refused: Option<String>, arguments: &Arguments) -> Result<(), Error> {
    let file = arguments.file.display().to_string();
    if arguments.json {
        print_json(&Answer {
            guest: &plan.name,
            file: &plan.path,
            written: !arguments.dry_run,
            dialect: plan.dialect,
            toolstack: plan.toolstack,
            notes: &plan.notes,
            missing: &plan.missing,
            refused: refused.clone(),
            text: &plan.text,
        })?;
    } else if arguments.dry_run {
        write!(io::stdout(), "{}", text::script(&plan.text))?;
    } else {
        let (dialect, toolstack) = (plan.dialect.as_str(), plan.toolstack.as_str());
        writeln!(
            io::stdout(),
            "wrote {}: guest \"{}\" of {} ({dialect}'s language), for toolstack \"{toolstack}\"",
            plan.path.display(),
            plan.name,
            text::line(&file)
        )?;
    }
    if !arguments.json && !plan.notes.is_empty() {
        eprintln!("not carried over, or not as it stands:");
        for note in &plan.notes {
            eprintln!("{}", text::line(&format!("{file}:{note}")));
        }
    }
    if !arguments.json && !plan.missing.is_empty() {
        eprintln!("before the guest can be started:");
        for what in &plan.missing {
            eprintln!("{}", text::line(what));
        }
    }
    if let Some(why) = refused {
        eprintln!("as it is, the guest would not be taken:\n{}", text::lines(&why));
    }
    Ok(())
}

/// What LVM says of a volume, if it can be asked. One LVM command.
fn known(volume: &Volume) -> Asked {
    // Not the volume itself: a thin snapshot is not active by default. A group has its directory while any volume of it is.
    if !Path::new("/dev").join(volume.vg.as_str()).exists() {
        // A device of that name and no such directory: it is somebody else's (multipath, dm-crypt).
        let is_mapped = Path::new("/dev/mapper").join(volume.dm_name()).exists();
        return if is_mapped { Asked::Unknown } else { Asked::Nothing };
    }
    let volumes = match lvm2_cmd::volumes(&volume.vg) {
        Ok(volumes) => volumes,
        // It has been asked, and knows no such group.
        Err(lvm2_cmd::Error::Run(run::Error::Failed { .. })) => return Asked::Unknown,
        Err(_) => return Asked::Nothing,
    };
    let Some(found) = volumes.into_iter().find(|found| found.name == volume.lv.as_str()) else {
        return Asked::Unknown;
    };
    let origin = found.origin.parse().ok().map(|lv| Volume {
        vg: volume.vg.clone(),
        lv,
    });
    let thick = found.is("thicksnapshot");
    Asked::Known(Known {
        origin,
        room: thick.then(|| Size::from_bytes(found.size)),
    })
}

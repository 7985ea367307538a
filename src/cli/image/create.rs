// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm image create`: a guest's disk from the host's own files.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use ext4_fill::Kind;
use serde::Serialize;

use super::super::{Error, guest_name, print_json};
use super::read_and_seal;
use crate::base::text::{line, script};
use crate::cli::guests::snapshot::print_plan;
use crate::cli::terminal::progress::Progress;
use crate::config::guest::Toolstack;
use crate::config::guests;
use crate::config::host::HostConfig;
use crate::config::places::Places;
use crate::config::types::{GuestName, LvmName, Size, Volume};
use crate::image::Origin;
use crate::image::create::{self, Creation, Keep, NoBoots, Pattern, Reason, Report, Request, usual_place};
use crate::image::seal::{Outcome, Seal, State};
use crate::making::Disk;

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The guest: its host name, and the name of its image
    #[arg(value_parser = guest_name)]
    guest: GuestName,
    /// The size of the disk, such as 3G
    #[arg(long)]
    size: Size,
    /// Make a logical volume, VG/LV
    #[arg(long, value_name = "VG/LV", conflicts_with = "file")]
    lv: Option<Volume>,
    /// In this thin pool of the volume group
    #[arg(long, value_name = "LV", requires = "lv")]
    thin_pool: Option<LvmName>,
    /// Make an image file [default: images/GUEST.img where recordings are]
    #[arg(long)]
    file: Option<PathBuf>,
    /// What is copied: a directory, or a tar archive
    #[arg(long, default_value = "/", value_name = "PATH")]
    from: PathBuf,
    /// Leave out files that this is the pattern of: *.iso, /srv, /srv/*
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<Pattern>,
    /// Leave this as it is in the source
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = keep())]
    keep: Vec<Keep>,
    /// The kind of file system
    #[arg(long, default_value = "ext4", value_parser = kind())]
    fs: Kind,
    /// What the guest's fstab calls its root, such as /dev/xvda1 [default: the UUID of the file system]
    #[arg(long, value_name = "DEVICE", value_parser = fstab_root)]
    fstab_root: Option<String>,
    /// Seal it when it is made
    #[arg(long)]
    seal: bool,
    /// Name every file that was left out or had a problem
    #[arg(long, short)]
    verbose: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "dry_run")]
    json: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

fn keep() -> impl TypedValueParser<Value = Keep> {
    PossibleValuesParser::new(Keep::NAMES.map(|(name, _)| name)).try_map(|name| name.parse::<Keep>())
}

/// A field of fstab(5), which ends at a blank.
fn fstab_root(text: &str) -> Result<String, &'static str> {
    let is_field = !text.is_empty() && !text.starts_with('#');
    match is_field && !text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        true => Ok(text.to_owned()),
        false => Err("fstab has no such device: write /dev/xvda1, LABEL=root or UUID=..., without blanks"),
    }
}

const KINDS: [Kind; 3] = [Kind::Ext4, Kind::Ext3, Kind::Ext2];

fn kind() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(KINDS.map(Kind::as_str)).map(|name| {
        let found = KINDS.into_iter().find(|kind| kind.as_str() == name);
        found.unwrap_or(Kind::Ext4)
    })
}

/// Refuses a root for an fstab that is not written.
fn is_written(arguments: &Arguments) -> Result<(), Error> {
    let kept = arguments.keep.iter().find_map(|keep| match keep {
        Keep::Fstab => Some("fstab"),
        Keep::All => Some("all"),
        _ => None,
    });
    match (&arguments.fstab_root, kept) {
        (Some(_), Some(kept)) => Err(Error::Usage(format!(
            "--fstab-root is for a new /etc/fstab, and --keep {kept} leaves the one in the source: give one of both"
        ))),
        _ => Ok(()),
    }
}

pub(super) fn run(places: &Places, host: &HostConfig, arguments: &Arguments) -> Result<(), Error> {
    is_written(arguments)?;
    let request = request(places, host, arguments)?;
    let started = Instant::now();
    let mut looking = Progress::of(format!("looking through {}", request.source.display()));
    let creation = Creation::prepare(request, &mut |done, total| looking.update(done, total))?;
    drop(looking);
    let (disk, lacks) = bootable(places, host, creation)?;
    let creation = disk.creation();
    let place = creation.request().place.clone();
    if arguments.dry_run {
        let mut plan = disk.plan();
        if arguments.seal {
            plan.push(format!("seal {place}"));
        }
        print_plan(&plan)?;
        lacks.iter().for_each(|lacks| eprintln!("{}", line(lacks)));
        return Ok(());
    }
    let mut copying = Progress::of(format!("copying to {place}"));
    let report = disk.make_image(&mut |done, total| copying.update(done, total))?;
    drop(copying);
    let seconds = started.elapsed().as_secs_f64();
    if arguments.json {
        let sealed = if arguments.seal {
            Some(sealed(&place, host))
        } else {
            None
        };
        let state = match &sealed {
            Some(Ok(Outcome::Sealed(digest) | Outcome::Already(digest))) => State::Sealed { digest: *digest },
            _ => State::Unsealed,
        };
        // What is made is there, whatever came of the seal.
        let text = disk.text(&report.root);
        print_json(&Row::new(creation, &report, seconds, (state, &text)))?;
        sealed.transpose()?;
        return Ok(());
    }
    let guest_file = guests::path(places, &arguments.guest);
    print(creation, &report, seconds, arguments.verbose)?;
    let mut out = io::stdout();
    if let Some(lacks) = lacks {
        writeln!(out, "{}", line(&lacks))?;
    }
    writeln!(
        out,
        "\nIn {}:\n\n{}",
        guest_file.display(),
        script(&disk.text(&report.root))
    )?;
    if arguments.seal {
        let (Outcome::Sealed(digest) | Outcome::Already(digest)) = sealed(&place, host)?;
        writeln!(io::stdout(), "{} is sealed: {digest}", line(&place.to_string()))?;
    }
    Ok(())
}

/// The guest of the image with what it boots, and what there is to say if the source has nothing.
fn bootable(places: &Places, host: &HostConfig, creation: Creation) -> Result<(Disk, Option<String>), Error> {
    // Xen gets its guests' disks from volumes; an emulated machine from files, too.
    let toolstack = match creation.request().place {
        Origin::File(_) => Toolstack::Qemu,
        Origin::Volume(_) => host.guest.toolstack,
    };
    match creation.boots() {
        Ok(boots) => Ok((Disk::with_own_kernel(places, creation, toolstack, boots), None)),
        Err(NoBoots::Source(error)) => Err(error.into()),
        Err(lacks) => Ok((Disk::without_kernel(creation, toolstack), Some(lacks.to_string()))),
    }
}

fn sealed(place: &Origin, host: &HostConfig) -> Result<Outcome, create::Error> {
    let sealing = Seal::open(place, &host.snapshot);
    sealing
        .and_then(|sealing| read_and_seal(&sealing))
        .map_err(|source| create::Error::Unsealed {
            origin: place.clone(),
            source: Box::new(source),
        })
}

fn request(places: &Places, host: &HostConfig, arguments: &Arguments) -> Result<Request, Error> {
    let name = arguments.guest.clone();
    let absolute = |path: &Path| std::path::absolute(path).map_err(Error::Output);
    let place = match (&arguments.lv, &arguments.file) {
        (Some(volume), _) => Origin::Volume(volume.clone()),
        (None, Some(path)) => Origin::File(absolute(path)?),
        (None, None) => Origin::File(usual_place(places.state_dir(), &name)),
    };
    Ok(Request {
        name,
        size: arguments.size,
        place,
        pool: arguments.thin_pool.clone(),
        source: absolute(&arguments.from)?,
        exclude: arguments.exclude.clone(),
        keep: arguments.keep.clone(),
        kind: arguments.fs,
        root: arguments.fstab_root.clone(),
        state: places.state_dir().to_owned(),
        script: None,
        password: None,
        guests: guests::disks(places, host)?.into_iter().collect(),
        thin_pool_limit: host.snapshot.thin_pool_limit,
        lock_timeout: host.snapshot.lock_timeout,
    })
}

/// What was made, as JSON.
#[derive(Serialize)]
struct Row<'a> {
    image: &'a Origin,
    guest: &'a GuestName,
    size: u64,
    file_system: &'static str,
    files: u64,
    bytes: u64,
    seconds: f64,
    /// As `ttvm image status` has it.
    #[serde(flatten)]
    state: State,
    /// Whether the source has anything that a guest could boot.
    bootable: bool,
    /// The guest's file.
    guest_file: &'a str,
    left_out: Vec<Count>,
    problems: Vec<Count>,
}

#[derive(Serialize)]
struct Count {
    what: String,
    count: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<String>,
}

impl<'a> Row<'a> {
    fn new(creation: &'a Creation, report: &Report, seconds: f64, (state, guest_file): (State, &'a str)) -> Self {
        let request = creation.request();
        let left_out = report.left_out.iter().map(|(reason, (count, files))| Count {
            what: reason.to_string(),
            count: *count,
            files: files.clone(),
        });
        let problems = report.problems.iter().map(|(problem, (count, files))| Count {
            what: problem.to_string(),
            count: *count,
            files: files.clone(),
        });
        Self {
            image: &request.place,
            guest: &request.name,
            size: request.size.bytes(),
            file_system: request.kind.as_str(),
            files: report.files,
            bytes: report.bytes,
            seconds: (seconds * 1000.0).round() / 1000.0,
            state,
            bootable: creation.may_boot(),
            guest_file,
            left_out: left_out.collect(),
            problems: problems.collect(),
        }
    }
}

/// What was made.
pub(in crate::cli) fn print(creation: &Creation, report: &Report, seconds: f64, verbose: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let request = creation.request();
    let (size, kind) = (request.size, request.kind.as_str());
    let megabytes = report.bytes as f64 / 1e6;
    writeln!(
        out,
        "{} is made: {size}, {kind}, with {} files ({megabytes:.1} MB) in {seconds:.1} s",
        line(&request.place.to_string()),
        report.files
    )?;
    for (reason, (count, files)) in &report.left_out {
        // Without these it may be no whole system.
        if *reason == Reason::Filesystem {
            writeln!(out, "left out: {reason} ({count}): {}", line(&files.join(", ")))?;
            continue;
        }
        writeln!(out, "left out: {reason} ({count})")?;
        if verbose {
            for file in files {
                writeln!(out, "    {}", line(file))?;
            }
        }
    }
    for (problem, (count, files)) in &report.problems {
        let named = files.iter().take(if verbose { files.len() } else { NAMED });
        let mut named: Vec<&str> = named.map(String::as_str).collect();
        if (named.len() as u64) < *count {
            named.push("…");
        }
        writeln!(out, "{problem}: {count} ({})", line(&named.join(", ")))?;
    }
    if let Some(nothing) = creation.boots_nothing() {
        writeln!(out, "{}", line(nothing))?;
    }
    if let Some(network) = creation.network() {
        writeln!(out, "its network: {}", line(network))?;
    }
    if creation.lacks_network() {
        writeln!(
            out,
            "its network is as in the source: nothing that is known here configures it"
        )?;
    }
    if let Some(program) = creation.lacks_keys() {
        writeln!(
            out,
            "its host keys of SSH are gone: see that it makes new ones (`{program}`)"
        )?;
    }
    Ok(())
}

/// How many files with a problem are named.
const NAMED: usize = 3;

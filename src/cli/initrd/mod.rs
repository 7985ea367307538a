// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm initrd`: what is in initial RAM disks, and making them.

mod busybox;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use initrd::inspect::{Summary, inspect};
use initrd::names::escape;
use initrd::newc::Header;
use initrd::pack::{Options, Plan};
use initrd::{Compression, Event, Kind, Linux, Reader, manifest, mode_text, unpack};
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use super::guests::snapshot::print_plan;
use super::terminal::clock::date_and_time;
use super::terminal::progress::Progress;
use super::terminal::table;
use super::{Error, answers, print_json};
use crate::base::error::Exit;
use crate::config::places::Given;
use crate::config::types::Size;
use crate::initrd::images;

/// What an image may hold if nobody says otherwise.
const LIMIT: Size = Size::mib(4096);

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make the RAM-based guest: busybox, the drivers of a kernel, network by DHCP, a login
    Busybox(busybox::Arguments),
    /// Show the segments of an image
    Inspect {
        /// The image; - is the standard input
        image: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the files in an image
    List {
        /// The image; - is the standard input
        image: PathBuf,
        /// Show mode, links, owner, group, size and time, too
        #[arg(short, long)]
        long: bool,
        /// Print names as they are, each with a NUL after it
        #[arg(short = 'z', long, conflicts_with_all = ["long", "json"])]
        null: bool,
        /// Print JSON
        #[arg(long, conflicts_with = "long")]
        json: bool,
    },
    /// Unpack an image to a new directory, from which it can be packed again
    Unpack {
        /// The image; - is the standard input
        image: PathBuf,
        /// The directory, which is not there yet or is empty
        directory: PathBuf,
        /// What may be in the image at the most
        #[arg(long, value_name = "SIZE", default_value_t = LIMIT)]
        max_size: Size,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Make an image of a directory: the one it was unpacked from, with what was changed, or one of all that is in it
    Pack {
        /// The directory
        directory: PathBuf,
        /// The image
        image: PathBuf,
        /// Compress so, if the directory was not unpacked from an image: none, gzip, bzip2, lzma, xz, lzo, lz4, zstd (the
        /// usual one)
        #[arg(long)]
        compression: Option<Compression>,
        /// Compress so much; more takes longer
        #[arg(long)]
        level: Option<i32>,
        /// Replace an image that is there
        #[arg(long)]
        force: bool,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) fn run(given: &Given, command: &Command) -> Result<Exit, Error> {
    match command {
        Command::Busybox(arguments) => busybox::run(given, arguments),
        Command::Inspect { image, json } => show(image, *json),
        Command::List { image, json: true, .. } => list_json(image),
        Command::List { image, long, null, .. } => list(image, *long, *null),
        Command::Unpack {
            image,
            directory,
            max_size,
            dry_run: true,
        } => plan_unpack(image, directory, *max_size),
        Command::Unpack {
            image,
            directory,
            max_size,
            ..
        } => take_apart(image, directory, *max_size),
        Command::Pack {
            directory,
            image,
            compression,
            level,
            force,
            dry_run,
        } => {
            let options = Options {
                compression: *compression,
                level: *level,
                epoch: epoch()?,
                force: *force,
            };
            match dry_run {
                true => plan_pack(directory, image, &options),
                false => put_together(directory, image, &options),
            }
        }
    }
}

/// Whoever only looks can go on as long as there is something.
fn open(image: &Path) -> Result<Reader, images::Error> {
    images::reader(image, Size::from_bytes(u64::MAX))
}

fn show(image: &Path, json: bool) -> Result<Exit, Error> {
    let mut summaries = Vec::new();
    let result = inspect(&mut open(image)?, &mut summaries, &mut |_, _| Ok(()));
    // What comes before something that is wrong is worth knowing.
    if json {
        print_json(&summaries)?;
    } else if !summaries.is_empty() {
        let head = [
            "SEGMENT",
            "OFFSET",
            "SIZE",
            "COMPRESSION",
            "UNPACKED",
            "FILES",
            "CONTENT",
        ];
        table::print(&head, &summaries.iter().map(row).collect::<Vec<_>>())?;
        for Summary { segment, remarks, .. } in &summaries {
            for why in remarks {
                writeln!(io::stdout(), "segment {segment}: {why}")?;
            }
        }
    }
    result?;
    Ok(Exit::Done)
}

fn row(summary: &Summary) -> Vec<String> {
    let content: Vec<&str> = summary.content.iter().map(String::as_str).collect();
    let content = match content.is_empty() {
        true => "-".to_owned(),
        false => content.join(", "),
    };
    vec![
        summary.segment.to_string(),
        summary.offset.to_string(),
        summary.size.to_string(),
        summary.compression.to_string(),
        summary.unpacked.to_string(),
        summary.entries.to_string(),
        content,
    ]
}

/// A file as JSON.
#[derive(Serialize)]
struct Row {
    segment: usize,
    name: String,
    kind: char,
    mode: String,
    uid: u32,
    gid: u32,
    links: u32,
    size: u32,
    mtime: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

impl Row {
    fn of(segment: usize, header: &Header, reader: &mut Reader) -> Result<Self, initrd::Error> {
        let kind = Kind::of_mode(header.mode);
        Ok(Self {
            segment,
            name: escape(&header.name),
            kind: kind.map_or('?', Kind::letter),
            mode: format!("{:04o}", header.mode & 0o7777),
            uid: header.uid,
            gid: header.gid,
            links: header.nlink,
            size: header.size,
            mtime: header.mtime,
            device: kind.is_some_and(Kind::is_device).then_some(header.rdev),
            target: target(header, reader)?,
        })
    }
}

/// Where a symbolic link leads.
fn target(header: &Header, reader: &mut Reader) -> Result<Option<String>, initrd::Error> {
    if Kind::of(header) != Ok(Kind::Link) {
        return Ok(None);
    }
    Ok(Some(escape(&reader.target()?.path)))
}

/// Row by row: there may be a million.
fn list_json(image: &Path) -> Result<Exit, Error> {
    let mut reader = open(image)?;
    // Also where it ends in a failure: what was read until then is the answer.
    answers();
    let mut out = BufWriter::new(io::stdout().lock());
    let mut segment = 0;
    let mut linux = Linux::default();
    let mut walk = || -> Result<(), Error> {
        let mut json = serde_json::Serializer::pretty(&mut out);
        let mut rows = json.serialize_seq(None).map_err(io::Error::from)?;
        let walked = loop {
            let event = reader.event();
            if let Ok(Some(event)) = &event {
                linux.see(event);
            }
            let row = match event {
                Ok(None) => break Ok(()),
                Ok(Some(Event::Segment(it))) => {
                    segment = it.number;
                    continue;
                }
                Ok(Some(Event::Entry(header))) => Row::of(segment, &header, &mut reader),
                Ok(Some(_)) => continue,
                Err(error) => break Err(error),
            };
            match row {
                Ok(row) => rows.serialize_element(&row).map_err(io::Error::from)?,
                Err(error) => break Err(error),
            }
        };
        // What comes before something that is wrong is an array, too.
        SerializeSeq::end(rows).map_err(io::Error::from)?;
        Ok(walked?)
    };
    let walked = walk();
    writeln!(out)?;
    out.flush()?;
    say(&linux);
    walked?;
    Ok(Exit::Done)
}

fn list(image: &Path, long: bool, null: bool) -> Result<Exit, Error> {
    let mut reader = open(image)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let mut linux = Linux::default();
    let mut walk = || -> Result<(), Error> {
        while let Some(event) = reader.event()? {
            linux.see(&event);
            let Event::Entry(header) = event else { continue };
            if null {
                out.write_all(&header.name)?;
                out.write_all(&[0])?;
            } else if long {
                writeln!(out, "{}", line(&header, &mut reader)?)?;
            } else {
                writeln!(out, "{}", escape(&header.name))?;
            }
        }
        Ok(())
    };
    let walked = walk();
    out.flush()?;
    say(&linux);
    walked?;
    Ok(Exit::Done)
}

/// What Linux does not take.
fn say(linux: &Linux) {
    for (segment, why) in linux.remarks() {
        eprintln!("segment {segment}: {why}");
    }
}

/// As `ls -l` has it, with numbers for owner and group: their names are not this host's.
fn line(header: &Header, reader: &mut Reader) -> Result<String, initrd::Error> {
    let size = match Kind::of_mode(header.mode).is_some_and(Kind::is_device) {
        true => format!("{}, {}", header.rdev.0, header.rdev.1),
        false => header.size.to_string(),
    };
    let target = target(header, reader)?;
    let target = target.map(|target| format!(" -> {target}")).unwrap_or_default();
    Ok(format!(
        "{} {:>3} {:>5} {:>5} {:>9} {} {}{target}",
        mode_text(header.mode),
        header.nlink,
        header.uid,
        header.gid,
        size,
        date_and_time(u64::from(header.mtime)),
        escape(&header.name),
    ))
}

fn plan_unpack(image: &Path, directory: &Path, limit: Size) -> Result<Exit, Error> {
    unpack::check(directory)?;
    let summaries = images::plan(image, limit)?;
    let line = |summary: &Summary| {
        let entries = entries(summary.entries);
        format!(
            "unpack segment {} ({}): {entries}",
            summary.segment, summary.compression
        )
    };
    let mut plan: Vec<String> = summaries.iter().map(line).collect();
    plan.push(format!("put that in {}", directory.display()));
    print_plan(&plan)?;
    Ok(Exit::Done)
}

fn entries(count: u64) -> String {
    let what = if count == 1 { "entry" } else { "entries" };
    format!("{count} {what}")
}

fn segments(count: usize) -> String {
    let what = if count == 1 { "segment" } else { "segments" };
    format!("{count} {what}")
}

fn take_apart(image: &Path, directory: &Path, limit: Size) -> Result<Exit, Error> {
    let mut progress = Progress::of(format!("unpacking {}", image.display()));
    let done = images::unpack(image, directory, limit, &mut |done, total| progress.update(done, total))?;
    drop(progress);
    let directory = directory.display();
    writeln!(
        io::stdout(),
        "{} unpacked to {directory}: {}, {}",
        image.display(),
        segments(done.segments),
        entries(done.entries)
    )?;
    if done.in_list {
        writeln!(
            io::stdout(),
            "owners and devices are in {directory}/{} only, from where `ttvm initrd pack` takes them",
            manifest::NAME
        )?;
    }
    Ok(Exit::Done)
}

fn plan_pack(directory: &Path, image: &Path, options: &Options) -> Result<Exit, Error> {
    let outline = Plan::of(directory, image, options)?.outline();
    let mut plan = Vec::new();
    for (at, segment) in outline.iter().enumerate() {
        let level = segment
            .level
            .map(|level| format!(" at level {level}"))
            .unwrap_or_default();
        let entries = entries(segment.entries as u64);
        plan.push(format!(
            "pack segment {} ({}{level}): {entries}",
            at + 1,
            segment.compression
        ));
    }
    plan.push(format!("put that in {}", image.display()));
    print_plan(&plan)?;
    Ok(Exit::Done)
}

fn put_together(directory: &Path, image: &Path, options: &Options) -> Result<Exit, Error> {
    let mut progress = Progress::of(format!("packing {}", directory.display()));
    let packed = images::pack(directory, image, options, &mut |done, total| {
        progress.update(done, total)
    })?;
    drop(progress);
    writeln!(
        io::stdout(),
        "{} packed to {}: {}, {} bytes",
        directory.display(),
        image.display(),
        segments(packed.segments),
        packed.size
    )?;
    Ok(Exit::Done)
}

/// The time that nothing is to be later than, for who makes the same image twice
/// (<https://reproducible-builds.org/specs/source-date-epoch/>).
fn epoch() -> Result<Option<u32>, Error> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else {
        return Ok(None);
    };
    let seconds = text.to_str().and_then(|text| text.parse().ok());
    let wrong = || {
        Error::Usage(format!(
            "SOURCE_DATE_EPOCH is {text:?}, which is no number of seconds since 1970"
        ))
    };
    seconds.ok_or_else(wrong).map(Some)
}

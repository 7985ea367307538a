// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm guest new`: a guest that is ready to be recorded.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use ext4_fill::Kind;

use super::snapshot::print_plan;
use crate::base::error::{Exit, reason};
use crate::base::{signals, text};
use crate::cli::image::create;
use crate::cli::terminal::password;
use crate::cli::terminal::progress::Progress;
use crate::cli::{Error, guest_name};
use crate::config::guest::Toolstack;
use crate::config::guests;
use crate::config::host::HostConfig;
use crate::config::places::Places;
use crate::config::types::{GuestName, LvmName, Size, Volume};
use crate::guest::obstacles;
use crate::image::create::{Creation, Request, usual_place};
use crate::image::{Origin, create as image};
use crate::making::{self, Disk, Kept, Plan, Ram, RamRequest};

/// The size of a disk if nobody says: a file that takes no more than what is in it.
const SIZE: Size = Size::mib(4096);

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The guest
    #[arg(value_parser = guest_name)]
    guest: GuestName,
    /// Make its disk of a system: /, a directory, or a tar archive; without, all of the guest is in memory
    #[arg(long, value_name = "PATH")]
    from: Option<PathBuf>,
    /// The size of the disk [default: enough]
    #[arg(long, requires = "from")]
    size: Option<Size>,
    /// Make the disk in this new file [default: images/GUEST.img where recordings are]
    #[arg(long, requires = "from")]
    file: Option<PathBuf>,
    /// Make the disk a logical volume, VG/LV
    #[arg(long, value_name = "VG/LV", requires_all = ["from", "size"], conflicts_with = "file")]
    lv: Option<Volume>,
    /// In this thin pool of the volume group
    #[arg(long, value_name = "LV", requires = "lv")]
    thin_pool: Option<LvmName>,
    /// Have the guest run this script once it is up, print to the console, and power itself off
    #[arg(long, value_name = "SCRIPT", requires = "from")]
    run: Option<PathBuf>,
    /// Take the kernel from here: its file, a package of Debian (linux-image-VERSION), or a directory with boot and lib/modules
    /// [default: the newest of what --from names, or of this host]
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Ask for root's password, or read it from the standard input if that is no terminal
    #[arg(long)]
    password: bool,
    /// What starts it
    #[arg(long, value_enum, default_value_t = Start::Qemu)]
    toolstack: Start,
    /// Only say what would be made
    #[arg(long)]
    dry_run: bool,
}

/// What starts a new guest.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Start {
    /// Xen: it cannot be recorded
    Xl,
    /// An emulated machine, on any host
    Qemu,
}

impl From<Start> for Toolstack {
    fn from(start: Start) -> Self {
        match start {
            Start::Xl => Self::Xl,
            Start::Qemu => Self::Qemu,
        }
    }
}

pub(in crate::cli) fn run(places: &Places, host: &HostConfig, arguments: &Arguments) -> Result<Exit, Error> {
    match &arguments.from {
        None => ram(places, host, arguments),
        Some(source) => from(places, host, arguments, source),
    }
}

/// A guest that is all in memory.
fn ram(places: &Places, host: &HostConfig, arguments: &Arguments) -> Result<Exit, Error> {
    making::is_free(places, &arguments.guest)?;
    let password = arguments.password.then(password::ask).transpose()?;
    let is_own = password.is_some();
    let _whole = signals::defer();
    let request = RamRequest {
        name: arguments.guest.clone(),
        toolstack: arguments.toolstack.into(),
        kernel: arguments.kernel.clone(),
        password,
    };
    let mut progress = Progress::of("reading the kernel and its drivers");
    let ram = Ram::prepare(places, host, &request, &mut |done, total| progress.update(done, total))?;
    drop(progress);
    if arguments.dry_run {
        return would_make(&ram.plan);
    }
    ram.plan.make(places, host)?;
    let mut out = io::stdout().lock();
    let password = if is_own { "your password" } else { "password root" };
    let (guest, size) = (&arguments.guest, Size::mib(ram.size.div_ceil(1 << 20)));
    writeln!(
        out,
        "made {guest}: kernel {}, an initial RAM disk of {size}, {} of memory; log in as root, {password}",
        text::line(&ram.version),
        ram.memory
    )?;
    if !ram.missing.is_empty() {
        writeln!(out, "this kernel does not have: {}", text::line(&ram.missing.join(" ")))?;
    }
    next(places, host, &ram.plan.path, arguments)
}

fn would_make(plan: &Plan) -> Result<Exit, Error> {
    let kept: Vec<String> = plan.kept.iter().map(Kept::plan).collect();
    print_plan(&kept)?;
    writeln!(
        io::stdout(),
        "would write {}:\n\n{}",
        plan.path.display(),
        text::script(&plan.text)
    )?;
    Ok(Exit::Done)
}

/// A guest with a disk that is made of what is at `source`.
fn from(places: &Places, host: &HostConfig, arguments: &Arguments, source: &Path) -> Result<Exit, Error> {
    making::is_free(places, &arguments.guest)?;
    let password = arguments.password.then(password::ask).transpose()?;
    let password = password.map(|password| password.fresh_hash()).transpose()?;
    let _whole = signals::defer();
    let started = Instant::now();
    let request = request(places, host, arguments, source)?;
    let creation = prepare(Request { password, ..request }, arguments.size.is_none())?;
    let disk = with_kernel(places, creation, arguments)?;
    let path = guests::path(places, &arguments.guest);
    if arguments.dry_run {
        print_plan(&disk.plan())?;
        writeln!(
            io::stdout(),
            "would write {}:\n\n{}",
            path.display(),
            text::script(&disk.draft_text())
        )?;
        return Ok(Exit::Done);
    }
    let place = &disk.creation().request().place;
    let mut copying = Progress::of(format!("copying to {place}"));
    let report = disk.make(places, host, &mut |done, total| copying.update(done, total))?;
    drop(copying);
    create::print(disk.creation(), &report, started.elapsed().as_secs_f64(), false)?;
    let mut out = io::stdout();
    let (guest, version) = (&arguments.guest, disk.version().unwrap_or("none"));
    writeln!(
        out,
        "made {guest}: kernel {}, {} of memory",
        text::line(version),
        disk.memory()
    )?;
    if disk.creation().nobody_logs_in() {
        writeln!(
            out,
            "nobody can log in: no account has a password that is not locked (--password sets root's)"
        )?;
    }
    next(places, host, &path, arguments)
}

/// Looks through the source. A size that nobody asked for is one that does.
fn prepare(request: Request, grows: bool) -> Result<Creation, Error> {
    let source = request.source.display().to_string();
    let look = |request| {
        let mut looking = Progress::of(format!("looking through {source}"));
        Creation::prepare(request, &mut |done, total| looking.update(done, total))
    };
    match look(request.clone()) {
        Err(image::Error::TooSmall { fits, .. }) if grows => {
            let size = Size::from_bytes(fits.bytes() + SIZE.bytes());
            Ok(look(Request { size, ..request })?)
        }
        creation => Ok(creation?),
    }
}

fn with_kernel(places: &Places, creation: Creation, arguments: &Arguments) -> Result<Disk, Error> {
    let toolstack = arguments.toolstack.into();
    let Some(kernel) = &arguments.kernel else {
        let boots = creation.boots().map_err(making::Error::from)?;
        return Ok(Disk::with_own_kernel(places, creation, toolstack, boots));
    };
    let mut progress = Progress::of("reading the kernel and its drivers");
    let disk = Disk::with_kernel(places, (creation, toolstack), kernel, &mut |done, total| {
        progress.update(done, total)
    });
    Ok(disk?)
}

fn request(places: &Places, host: &HostConfig, arguments: &Arguments, source: &Path) -> Result<Request, Error> {
    let place = match (&arguments.lv, &arguments.file) {
        (Some(volume), _) => Origin::Volume(volume.clone()),
        (None, Some(path)) => Origin::File(absolute(path)?),
        (None, None) => Origin::File(usual_place(places.state_dir(), &arguments.guest)),
    };
    if let (Start::Xl, Origin::File(_)) = (arguments.toolstack, &place) {
        return Err(Error::Usage(
            "Xen's guests have their disks on volumes: name one with --lv VG/LV".to_owned(),
        ));
    }
    Ok(Request {
        name: arguments.guest.clone(),
        size: arguments.size.unwrap_or(SIZE),
        place,
        pool: arguments.thin_pool.clone(),
        source: absolute(source)?,
        exclude: Vec::new(),
        keep: Vec::new(),
        kind: Kind::Ext4,
        root: None,
        script: arguments.run.as_deref().map(script).transpose()?,
        password: None,
        state: places.state_dir().to_owned(),
        guests: guests::disks(places, host)?.into_iter().collect(),
        thin_pool_limit: host.snapshot.thin_pool_limit,
        lock_timeout: host.snapshot.lock_timeout,
    })
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(Error::Output)
}

/// What the guest is there to run: the kernel says by the first line what runs that.
fn script(path: &Path) -> Result<Vec<u8>, Error> {
    let wrong = |why: String| Error::Usage(format!("--run {}: {why}", path.display()));
    let content = fs::read(path).map_err(|error| wrong(reason(&error)))?;
    match content.starts_with(b"#!") || content.starts_with(b"\x7fELF") {
        true => Ok(content),
        false => Err(wrong(
            "nothing says what runs it: let it begin with a line such as #!/bin/sh".to_owned(),
        )),
    }
}

/// What to do with it.
fn next(places: &Places, host: &HostConfig, path: &Path, arguments: &Arguments) -> Result<Exit, Error> {
    let mut out = io::stdout().lock();
    let guest = &arguments.guest;
    writeln!(out, "its file: {}\n", path.display())?;
    match (arguments.toolstack, &arguments.run) {
        (Start::Xl, _) => writeln!(out, "ttvm start {guest}")?,
        (Start::Qemu, None) => writeln!(
            out,
            "ttvm record {guest} --console    # `poweroff` in the guest ends the run, or Ctrl-]"
        )?,
        (Start::Qemu, Some(script)) => {
            // A unit goes on by itself; on the console, it is waited for.
            let console = if places.has_units() { "--console" } else { "         " };
            writeln!(out, "ttvm record {guest} {console}    # ends with {}", script.display())?;
        }
    }
    if let Start::Qemu = arguments.toolstack {
        writeln!(
            out,
            "ttvm replay {guest} --verify     # whether it is the same run once more"
        )?;
    }
    // What `guest check` would say of it. It is made all the same: what is missing may come.
    if places.root() == Path::new("/") {
        for lack in obstacles::on_this_host(&guests::load(places, host, guest)?) {
            eprintln!("{guest}: {}", text::line(&lack.to_string()));
        }
    }
    Ok(Exit::Done)
}

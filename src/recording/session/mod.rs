// SPDX-License-Identifier: MIT OR Apache-2.0
//! What recording and replaying have in common: the guest's disks made fresh, its machine, and the errors.

pub mod disks;
pub(super) mod joined;
pub mod limit;
pub(super) mod live;
pub mod plain;
pub(super) mod scratch;
mod standstill;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use self::disks::Seals;
use super::error::Error as LibraryError;
use super::library::manifest::Manifest;
use super::log::point;
use super::{Divergence, Recording, tt_xen};
use crate::base::catalogue::Message;
use crate::base::error::{Classify, Exit};
use crate::config::guest::{Boot, Guest, Shift};
use crate::config::host::SnapshotConfig;
use crate::config::types::{GuestName, Size, Target};
use crate::file::digest;
use crate::file::tree;
use crate::qemu::machine::{Backing, Drive, Format, Kernel, Machine, Network};
use crate::qemu::{content, core, engine, process, qmp, watch};
use crate::{guest, image, run, snapshot};

/// Whoever follows a run.
pub trait Listener {
    /// The guest printed something.
    fn console(&mut self, text: &[u8]);
    /// The guest is up.
    fn ready(&mut self, text: &str);
    /// What takes time now, and how far it is: bytes of a disk, or instructions of a replay.
    fn progress(&mut self, what: &str, done: u64, total: u64);
    /// The guest stands still for this reason; without one, it goes on.
    fn trouble(&mut self, _why: Option<&str>) {}
    /// The guest has rebooted, and goes on.
    fn rebooted(&mut self) {}
}

/// Has `listener` follow what is read, until somebody asks to end.
pub(super) fn reading(what: &'static str, listener: &mut dyn Listener) -> impl FnMut(u64, u64) -> ControlFlow<()> {
    move |done, total| {
        listener.progress(what, done, total);
        match crate::base::signals::waiting() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// A keyboard for the guest's console.
pub trait Keys {
    /// What was typed; `None` if whoever types wants to end the run.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>>;
    /// What to poll for.
    fn descriptor(&self) -> BorrowedFd<'_>;
    /// What the guest prints, for whoever types.
    fn show(&mut self, _text: &[u8]) {}
    /// The guest has ended: nothing is typed or printed from now on.
    fn end(&mut self) {}
}

/// Where a run finds and leaves things.
#[derive(Debug, Clone)]
pub struct Environment<'a> {
    /// The settings of LVM's snapshots.
    pub snapshot: &'a SnapshotConfig,
    /// Where overlays are made.
    pub overlays: PathBuf,
    /// What is known of seals already.
    pub seals: Seals,
    /// Whether somebody else makes and removes LVM's snapshots: the unit's own programs do.
    pub prepared: bool,
    /// Whether other runs of the guest may be on their way, here or on other hosts: then a replay's disks are overlays over what they are
    /// made from, and no snapshot of LVM is touched.
    pub shared: bool,
}

/// Why a run could not be recorded or replayed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The toolstack does not record.
    #[error(
        "guest \"{guest}\" has toolstack \"xl\", and Xen's own cannot record: set toolstack = \"qemu\" in its file (any host), or \"xm\" (TT Xen)"
    )]
    PlainOnly {
        /// The guest.
        guest: GuestName,
    },
    /// Its instructions do not tell the time.
    #[error(
        "nobody can say at which instruction of guest \"{guest}\" that is: --for guest:TIME takes toolstack \"qemu\" and an icount that is a number; --for TIME is the host's time"
    )]
    Uncountable {
        /// The guest.
        guest: GuestName,
    },
    /// A disk that a run would change for good.
    #[error(
        "disk {disk} of guest \"{guest}\" is written as it is: the next run would find another disk. Give it an \"origin\" in place of \"path\""
    )]
    WrittenDisk {
        /// The guest.
        guest: GuestName,
        /// The disk.
        disk: Target,
    },
    /// A disk that is no raw image.
    #[error(
        "disk {disk} of guest \"{guest}\" is a qcow2 file, and what is recorded has raw images: convert it with `qemu-img convert -O raw`"
    )]
    NotRaw {
        /// The guest.
        guest: GuestName,
        /// The disk.
        disk: Target,
    },
    /// It is not the run that was recorded.
    #[error("this would not be a replay of {guest} {id}:{}", lines(.differences))]
    Different {
        /// The guest.
        guest: GuestName,
        /// The recording.
        id: String,
        /// Each difference, as a sentence.
        differences: Vec<String>,
    },
    /// There is no room for a recording.
    #[error("there are {free} MiB free in {}, and a recording needs {needed} MiB: remove old ones (`ttvm recordings rm`)", directory.display())]
    NoSpace {
        /// Where recordings are.
        directory: PathBuf,
        /// MiB free.
        free: u64,
        /// MiB needed.
        needed: u64,
    },
    /// There is no room for what a guest will write.
    #[error("there are {free} MiB free in {}, and {needed} MiB are left alone: make room, then start the guest again", directory.display())]
    NoRoomForOverlays {
        /// Where overlays are.
        directory: PathBuf,
        /// MiB free.
        free: u64,
        /// MiB needed.
        needed: u64,
    },
    /// QEMU ended when nobody had asked it to.
    #[error("QEMU ended in the middle of the run{}", because(.why))]
    EngineDied {
        /// What it printed.
        why: String,
    },
    /// The host did not let it run.
    #[error(
        "QEMU has executed nothing for ten minutes, because the host did not let it: it waits for a disk, was stopped, or gets no processor. Look at the host (`dmesg`, `top`) and replay again; this says nothing about the run"
    )]
    HostStoodStill,
    /// It reboots again and again.
    #[error(transparent)]
    Futile(Box<guest::Error>),
    /// There was no room for what the guest wrote to its disks.
    #[error("there is no room in {} for what the guest writes to its disks: make room (`ttvm recordings rm`) and try again", directory.display())]
    NoRoomForDisks {
        /// Where its disks are.
        directory: PathBuf,
    },
    /// What a disk is made of failed.
    #[error(
        "{failure}. It is made of {files}: look at the host (`dmesg`, the file system or server that this is on), and try again; this says nothing about the run"
    )]
    DiskFailed {
        /// What failed.
        failure: qmp::Failure,
        /// What the disk is made of.
        files: String,
    },
    /// The log is none that the recorded machine can have written.
    #[error("nothing of {guest} {id} is run: replay.log is not what its machine can have written")]
    Log {
        /// The guest.
        guest: GuestName,
        /// The recording.
        id: String,
        /// What is wrong with it.
        #[source]
        source: replay_log::Error,
    },
    /// The machine does not fit into the host.
    #[error(
        "the machine has {memory} of memory, and this host has {free} to give: end something, or run it on a larger host"
    )]
    NoMemory {
        /// What it has.
        memory: Size,
        /// What is free.
        free: Size,
    },
    /// The guest's memory is not there.
    #[error("the guest's memory cannot be had or read")]
    Memory(#[source] io::Error),
    /// Checkpoints cannot be used.
    #[error("the checkpoints in {} cannot be used: remove them (`ttvm recordings checkpoints --rm`); the next replay makes others", directory.display())]
    Checkpoints {
        /// Where they are.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no such point in the run.
    #[error("there is no such point in the run")]
    Point {
        /// Why.
        #[source]
        source: point::Error,
    },
    /// There are no packets.
    #[error("the guest's packets cannot be had: {0}")]
    NoPackets(&'static str),
    /// Two runs cannot be compared instruction by instruction.
    #[error("the first different instruction cannot be looked for: {0}")]
    NotExplained(String),
    /// What was watched is of another run.
    #[error(
        "{guest} {id} is not the same run here, so that what was watched says nothing of it: {divergence}. `ttvm replay --verify {guest} {id}` says more"
    )]
    OtherRun {
        /// The guest.
        guest: GuestName,
        /// The recording.
        id: String,
        /// Where it is not.
        divergence: Box<Divergence>,
    },
    /// What was watched cannot be read.
    #[error("what QEMU's plugin writes cannot be read: reinstall the package ttvm, and try again")]
    Watched(#[source] io::Error),
    /// Nothing has that name.
    #[error(
        "nothing is known of \"{name}\": write its address, or name a file that knows it (--symbols: System.map, vmlinux, a copy of /proc/kallsyms of the run)"
    )]
    NoSymbol {
        /// The name.
        name: String,
    },
    /// It has no such disk.
    #[error("the guest has no disk \"{disk}\": `ttvm recordings show` names those that it has")]
    NoDisk {
        /// The disk.
        disk: Target,
    },
    /// Who wrote a sector cannot be said.
    #[error(
        "a request in the disk's queue cannot be read: the guest's driver does not keep to the virtio specification. `ttvm trace` can be asked for system calls, which write the disk"
    )]
    StrangeRequest,
    /// Names cannot be read.
    #[error("{} has no names of addresses", path.display())]
    Symbols {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no plugin.
    #[error(transparent)]
    Watch(#[from] watch::Error),
    /// A recording cannot be left.
    #[error("the recording cannot be left there: {why}")]
    Left {
        /// Why.
        why: String,
    },
    /// The guest that a branch is to be a run of is another.
    #[error(
        "there is a guest \"{name}\", and its file says otherwise than the recording, so that the branch could not be replayed: choose a name without a file (`--as`){}", lines(.differences)
    )]
    OtherFile {
        /// The guest.
        name: GuestName,
        /// Each difference, as a sentence.
        differences: Vec<String>,
    },
    /// There would be too many points.
    #[error("these are more than a thousand points: a step of {least} instructions or more will do")]
    SmallStep {
        /// Instructions.
        least: u64,
    },
    /// Points cannot be so far from each other.
    #[error(
        "that is no step from one point to the next: write instructions (1_000_000), a time (0.5s) or a share (10%)"
    )]
    NoStep,
    /// The guest's memory cannot be written to a file.
    #[error(transparent)]
    Core(#[from] core::Error),
    /// QEMU's log of the run is not one.
    #[error("replay.log is not what QEMU writes")]
    Unlike(#[source] replay_log::Error),
    /// There was no room for a part of the log.
    #[error("the disk ran full, and a part of replay.log is lost: make room (`ttvm recordings rm`) and record again")]
    LogLost,
    /// A file of the guest cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: digest::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The run cannot be waited for.
    #[error("cannot wait for the guest")]
    Wait(#[source] io::Error),
    /// Somebody asked to end before the guest ran.
    #[error("interrupted")]
    Interrupted,
    /// The machine cannot be asked.
    #[error(transparent)]
    Qmp(#[from] qmp::Error),
    /// QEMU is not there.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// It could not be started.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// A disk's content is not known.
    #[error(transparent)]
    Content(#[from] content::Error),
    /// An overlay could not be made.
    #[error("an overlay cannot be made")]
    Overlay(#[source] run::Error),
    /// The origin cannot be asked whether it is sealed.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// The library of recordings.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// TT Xen.
    #[error(transparent)]
    TtXen(#[from] tt_xen::Error),
    /// LVM's snapshots.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
}

fn lines(differences: &[String]) -> String {
    differences.iter().map(|line| format!("\n    {line}")).collect()
}

fn because(why: &str) -> String {
    match why {
        "" => " without a word; it may have been killed".to_owned(),
        why => format!(": {why}"),
    }
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::PlainOnly { .. }
            | Self::WrittenDisk { .. }
            | Self::Uncountable { .. }
            | Self::NotRaw { .. }
            | Self::Different { .. }
            | Self::NoPackets(_)
            | Self::NotExplained(_)
            | Self::Left { .. }
            | Self::OtherFile { .. }
            | Self::NoSpace { .. }
            | Self::Log { .. }
            | Self::Watch(watch::Error::NoInterface { .. })
            | Self::StrangeRequest
            | Self::NoMemory { .. } => Exit::Refused,
            Self::Point { source } => source.exit(),
            Self::NoStep | Self::SmallStep { .. } | Self::NoSymbol { .. } | Self::NoDisk { .. } => Exit::Usage,
            Self::OtherRun { .. } => Exit::Diverged,
            Self::Library(error) => error.exit(),
            Self::Image(error) => error.exit(),
            Self::Futile(error) => error.exit(),
            Self::Snapshot(error) => error.exit(),
            Self::TtXen(error) => error.exit(),
            Self::Process(error) => error.exit(),
            _ => Exit::Failed,
        }
    }

    fn message(&self) -> Option<Message> {
        match self {
            Self::Futile(error) => error.message(),
            _ => None,
        }
    }
}

/// That the file at `path` cannot be read.
pub(super) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::Read {
        path: path.clone(),
        source: digest::Error::Open { path, source },
    }
}

/// `Ok` if the host has as much memory as the machine may take. The kernel would promise more than it has, and end somebody
/// else when the guest takes it.
pub(super) fn require_memory(memory: Size) -> Result<(), Error> {
    match memory_free(Path::new("/")) {
        Some(free) if memory > free => Err(Error::NoMemory { memory, free }),
        _ => Ok(()),
    }
}

/// What processes can still have on the system in the tree that begins at `root`; `None` if it does not say.
pub fn memory_free(root: &Path) -> Option<Size> {
    let text = tree::text(root, Path::new("/proc/meminfo"), tree::SETTINGS).ok()?;
    let kib = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let free = kib("MemAvailable")?.saturating_add(kib("SwapFree").unwrap_or(0));
    Some(Size::mib(free >> 10))
}

/// The machine of a guest, without its disks. Its time of day begins in that second since 1970.
pub(super) fn machine_of(guest: &Guest, version: &engine::Version, began: u64) -> Machine {
    let qemu = guest.qemu.clone().unwrap_or_default();
    Machine {
        format: Format::Second { began },
        machine: qemu.machine.unwrap_or_else(|| version.machine()),
        memory: guest.memory,
        icount: qemu.icount,
        kernel: match &guest.boot {
            Boot::Kernel {
                kernel,
                initrd,
                cmdline,
            } => Some(Kernel {
                kernel: kernel.clone(),
                initrd: initrd.clone(),
                cmdline: cmdline.clone().unwrap_or_default(),
            }),
            Boot::Bootloader { .. } | Boot::Firmware => None,
        },
        drives: Vec::new(),
        networks: (guest.vifs.iter())
            .map(|vif| Network {
                mac: vif.mac,
                outside: vif.outside,
            })
            .collect(),
        reset_ends: guest.on_reboot != crate::config::guest::OnReboot::Keep,
        hpet: false,
    }
}

/// The machine that `manifest` is of, with its kernel and initial RAM disk where they are now, and without its disks.
pub fn recorded_machine(manifest: &Manifest, kernel: Option<PathBuf>, initrd: Option<PathBuf>) -> Machine {
    let engine = &manifest.engine;
    Machine {
        format: engine.began.map_or(Format::First, |began| Format::Second { began }),
        machine: engine.machine.clone(),
        memory: Size::from_bytes(engine.memory),
        icount: engine.icount.parse().unwrap_or(Shift::Auto),
        kernel: kernel.map(|kernel| Kernel {
            kernel,
            initrd,
            cmdline: engine.cmdline.clone().unwrap_or_default(),
        }),
        drives: Vec::new(),
        networks: (manifest.vifs.iter())
            .map(|vif| Network {
                mac: vif.mac,
                outside: false,
            })
            .collect(),
        reset_ends: engine.reset_ends,
        hpet: engine.hpet,
    }
}

/// `Ok` unless the machine stands still because a disk failed on the host, which says nothing about the run.
pub(super) fn require_disks(qmp: &mut qmp::Qmp, drives: &[Drive], overlays: &Path) -> Result<(), Error> {
    match qmp.failure()? {
        None => Ok(()),
        Some(failure) if failure.no_space => Err(Error::NoRoomForDisks {
            directory: overlays.to_owned(),
        }),
        Some(failure) => Err(Error::DiskFailed {
            files: files(&failure, drives),
            failure,
        }),
    }
}

/// What the disk that failed is made of, in words.
fn files(failure: &qmp::Failure, drives: &[Drive]) -> String {
    let drive = drives.iter().find(|drive| drive.target.as_str() == failure.disk);
    match drive.map(|drive| &drive.backing) {
        Some(Backing::Raw { path, .. }) => path.display().to_string(),
        Some(Backing::Overlay { path, base }) => format!("{} over {}", path.display(), base.display()),
        None => "files of this host".to_owned(),
    }
}

/// That a replay of `recording` would not be one, with each difference as a sentence.
pub(super) fn different(recording: &Recording, differences: Vec<String>) -> Error {
    Error::Different {
        guest: recording.guest().clone(),
        id: recording.id().to_string(),
        differences,
    }
}

/// What a log can speak of.
pub(super) fn devices(manifest: &Manifest) -> replay_log::Devices {
    replay_log::Devices {
        networks: manifest.vifs.len(),
        disks: manifest.disks.len(),
    }
}

/// Files that are removed with this.
#[derive(Debug)]
pub(super) struct Removed(pub(super) Vec<PathBuf>);

impl Drop for Removed {
    fn drop(&mut self) {
        for path in &self.0 {
            drop(std::fs::remove_file(path));
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What recording and replaying have in common: the guest's disks made fresh, its machine, and the errors.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use super::error::Error as LibraryError;
use super::manifest::{DiskDigest, FileDigest};
use super::tt_xen;
use crate::config::guest::{Boot, DiskFormat, DiskSource, Guest, Origin};
use crate::config::host::SnapshotConfig;
use crate::config::types::{GuestName, Target};
use crate::error::{Classify, Exit};
use crate::image::digest::{self, Digest};
use crate::image::{self, seal};
use crate::qemu::machine::{Backing, Drive, Kernel, Machine};
use crate::qemu::{content, engine, process, qmp};
use crate::run;
use crate::snapshot::{self, Store};

/// Whoever follows a run.
pub trait Listener {
    /// The guest printed something.
    fn console(&mut self, text: &[u8]);
    /// The guest is up.
    fn ready(&mut self, text: &str);
    /// What takes time now, and how far it is: bytes of a disk, or instructions of a replay.
    fn progress(&mut self, what: &str, done: u64, total: u64);
}

/// A keyboard for the guest's console.
pub trait Keys {
    /// What was typed; `None` if whoever types wants to end the run.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>>;
    /// What to poll for.
    fn descriptor(&self) -> BorrowedFd<'_>;
}

/// Where a run finds and leaves things.
#[derive(Debug, Clone)]
pub struct Surroundings<'a> {
    /// The settings of LVM's snapshots.
    pub snapshot: &'a SnapshotConfig,
    /// Where overlays are made.
    pub overlays: PathBuf,
    /// Whether somebody else makes and removes LVM's snapshots: the unit's own programs do.
    pub prepared: bool,
}

/// Why a run could not be recorded or replayed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The toolstack does not record.
    #[error(
        "guest \"{guest}\" has toolstack \"xl\", and Xen's own can not record: set toolstack = \"qemu\" in its file (any host), or \"xm\" (TT Xen)"
    )]
    PlainOnly {
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
    /// QEMU ended when nobody had asked it to.
    #[error("QEMU ended in the middle of the run{}", because(.why))]
    EngineDied {
        /// What it printed.
        why: String,
    },
    /// There was no room for a part of the log.
    #[error("the disk ran full, and a part of replay.log is lost: make room (`ttvm recordings rm`) and record again")]
    LogLost,
    /// A file of the guest can not be read.
    #[error("can not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: digest::Error,
    },
    /// A file can not be written.
    #[error("can not write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The run can not be waited for.
    #[error("can not wait for the guest")]
    Wait(#[source] io::Error),
    /// Somebody asked to end before the guest ran.
    #[error("interrupted")]
    Interrupted,
    /// The machine can not be asked.
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
    #[error("an overlay can not be made")]
    Overlay(#[source] run::Error),
    /// The origin can not be asked whether it is sealed.
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
            | Self::NotRaw { .. }
            | Self::Different { .. }
            | Self::NoSpace { .. } => Exit::Refused,
            Self::Library(error) => error.exit(),
            Self::Image(error) => error.exit(),
            Self::Snapshot(error) => error.exit(),
            Self::TtXen(error) => error.exit(),
            _ => Exit::Failed,
        }
    }
}

/// The disks of one run. Dropped, overlays are removed, and snapshots that were made for it.
pub(super) struct Disks<'a> {
    pub(super) drives: Vec<Drive>,
    store: Option<Store<'a>>,
    overlays: Vec<PathBuf>,
}

/// How a disk of a run is made.
pub(super) struct Wanted<'a> {
    pub(super) target: Target,
    pub(super) source: &'a DiskSource,
    /// In place of the origin: the same content, elsewhere.
    pub(super) base: Option<PathBuf>,
    /// Bytes.
    pub(super) size: u64,
}

impl<'a> Disks<'a> {
    /// Makes every disk fresh.
    pub(super) fn make(guest: &GuestName, wanted: &[Wanted<'_>], around: &Surroundings<'a>) -> Result<Self, Error> {
        let mut disks = Self {
            drives: Vec::new(),
            store: None,
            overlays: Vec::new(),
        };
        let snapshots: Vec<_> = wanted
            .iter()
            .filter_map(|disk| match (disk.source, &disk.base) {
                (DiskSource::Snapshot(snapshot), None) => Some(snapshot.clone()),
                _ => None,
            })
            .collect();
        if !snapshots.is_empty() && !around.prepared {
            let store = Store::open(guest, snapshots, around.snapshot)?;
            store.reset()?;
            disks.store = Some(store);
        }
        for disk in wanted {
            let backing = match (disk.source, &disk.base) {
                (DiskSource::Snapshot(snapshot), None) => Backing::Raw {
                    path: snapshot.volume.device().into(),
                    writable: true,
                },
                (DiskSource::Path { path, .. }, _) => Backing::Raw {
                    path: path.clone(),
                    writable: false,
                },
                (DiskSource::Snapshot(_) | DiskSource::Overlay(_), base) => {
                    let base = base.clone().unwrap_or_else(|| origin_of(disk.source).path());
                    disks.overlay(guest, disk, base, around)?
                }
            };
            disks.drives.push(Drive {
                target: disk.target.clone(),
                backing,
            });
        }
        Ok(disks)
    }

    fn overlay(
        &mut self,
        guest: &GuestName,
        disk: &Wanted<'_>,
        base: PathBuf,
        around: &Surroundings<'_>,
    ) -> Result<Backing, Error> {
        let path = around.overlays.join(format!("{guest}-{}.qcow2", disk.target));
        let failed = |source| Error::Write {
            path: path.clone(),
            source,
        };
        std::fs::create_dir_all(&around.overlays).map_err(failed)?;
        // What a run that was killed has left. The guest's lock is ours, so nobody uses it.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        engine::create_overlay(&path.to_string_lossy(), Some(&base.to_string_lossy()), disk.size)
            .map_err(Error::Overlay)?;
        self.overlays.push(path.clone());
        Ok(Backing::Overlay { path, base })
    }

    /// Puts an overlay over every disk that LVM keeps: QEMU can keep a machine's state only beside qcow2 files.
    pub(super) fn cover(&mut self, guest: &GuestName, around: &Surroundings<'_>) -> Result<(), Error> {
        for drive in &mut self.drives {
            let Backing::Raw {
                path: base,
                writable: true,
            } = &drive.backing
            else {
                continue;
            };
            let path = around.overlays.join(format!("{guest}-{}.qcow2", drive.target));
            drop(std::fs::remove_file(&path));
            let size = size_of(base)?;
            std::fs::create_dir_all(&around.overlays).map_err(|source| Error::Write {
                path: path.clone(),
                source,
            })?;
            engine::create_overlay(&path.to_string_lossy(), Some(&base.to_string_lossy()), size)
                .map_err(Error::Overlay)?;
            self.overlays.push(path.clone());
            drive.backing = Backing::Overlay {
                path,
                base: base.clone(),
            };
        }
        Ok(())
    }

    /// What each disk contains now.
    pub(super) fn contents(&self, listener: &mut dyn Listener) -> Result<Vec<Digest>, Error> {
        let contents = self.drives.iter().map(|drive| {
            let what = format!("reading what the guest left on {}", drive.target);
            let digest = content::digest(&drive.backing, &mut |done, total| {
                listener.progress(&what, done, total);
                std::ops::ControlFlow::Continue(())
            })?;
            Ok(digest)
        });
        contents.collect()
    }
}

impl Drop for Disks<'_> {
    fn drop(&mut self) {
        for path in &self.overlays {
            drop(std::fs::remove_file(path));
        }
        if let Some(store) = &self.store
            && let Err(error) = store.discard()
        {
            tracing::warn!("{}", crate::error::chain(&error));
        }
    }
}

/// The origin of a disk.
pub fn origin_of(source: &DiskSource) -> Origin {
    match source {
        DiskSource::Snapshot(snapshot) => Origin::Volume(snapshot.origin.clone()),
        DiskSource::Overlay(origin) => origin.clone(),
        DiskSource::Path { path, .. } => path
            .to_str()
            .and_then(|path| path.parse().ok())
            .unwrap_or_else(|| Origin::File(path.clone())),
    }
}

/// What the guest's disks are made from, or why it can not be recorded.
pub(super) fn check_disks(guest: &Guest) -> Result<(), Error> {
    for disk in &guest.disks {
        if let DiskSource::Path { format, writable, .. } = &disk.source {
            let (guest, disk) = (guest.name.clone(), disk.target.clone());
            if *writable {
                return Err(Error::WrittenDisk { guest, disk });
            }
            if *format != DiskFormat::Raw {
                return Err(Error::NotRaw { guest, disk });
            }
        }
    }
    Ok(())
}

/// An origin as it is now: instantly if it is sealed, else it is read.
pub(super) fn digest_origin(
    target: &Target,
    origin: &Origin,
    listener: &mut dyn Listener,
) -> Result<DiskDigest, Error> {
    let path = origin.path();
    let sealed = match seal::state(origin)? {
        seal::State::Sealed { digest, .. } => Some(digest),
        seal::State::Unsealed | seal::State::Broken { .. } => None,
    };
    let digest = match sealed {
        Some(digest) => digest,
        None => {
            tracing::warn!(
                "{origin} is not sealed: it is read to know what is on it. `ttvm image seal {origin}` makes that unnecessary, and protects it"
            );
            digest_of(&path, &format!("reading {origin}"), listener)?
        }
    };
    Ok(DiskDigest {
        target: target.clone(),
        origin: origin.clone(),
        size: size_of(&path)?,
        digest,
        sealed: sealed.is_some(),
        end: None,
    })
}

/// A file as it is now.
pub(super) fn digest_file(path: &Path, listener: &mut dyn Listener) -> Result<FileDigest, Error> {
    Ok(FileDigest {
        path: path.to_owned(),
        size: size_of(path)?,
        digest: digest_of(path, &format!("reading {}", path.display()), listener)?,
    })
}

fn digest_of(path: &Path, what: &str, listener: &mut dyn Listener) -> Result<Digest, Error> {
    let digest = digest::of_path(path, &mut |done, total| {
        listener.progress(what, done, total);
        match crate::signals::waiting() {
            true => std::ops::ControlFlow::Break(()),
            false => std::ops::ControlFlow::Continue(()),
        }
    });
    match digest {
        Err(digest::Error::Interrupted) => Err(Error::Interrupted),
        digest => digest.map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Bytes of a file or device.
pub(super) fn size_of(path: &Path) -> Result<u64, Error> {
    use std::io::Seek;
    let size = std::fs::File::open(path).and_then(|mut file| file.seek(io::SeekFrom::End(0)));
    size.map_err(|source| Error::Read {
        path: path.to_owned(),
        source: digest::Error::Open {
            path: path.to_owned(),
            source,
        },
    })
}

/// The machine of a guest, without its disks.
pub(super) fn machine_of(guest: &Guest, version: &engine::Version) -> Machine {
    let qemu = guest.qemu.clone().unwrap_or_default();
    Machine {
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
        macs: guest.vifs.iter().map(|vif| vif.mac).collect(),
        reset_ends: guest.on_reboot != crate::config::guest::OnReboot::Keep,
    }
}

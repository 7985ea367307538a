// SPDX-License-Identifier: MIT OR Apache-2.0
//! The disks of a run, each made fresh, and what is on them.

use std::io;
use std::path::{Path, PathBuf};

use super::{Environment, Error, Listener};
use crate::config::guest::{DiskFormat, DiskSource, Guest, Origin};
use crate::config::types::{GuestName, Target, Volume};
use crate::file::digest::{self, Digest};
use crate::image::seal;
use crate::qemu::machine::{Backing, Drive};
use crate::qemu::{content, engine};
use crate::recording::library::manifest::{DiskDigest, FileDigest};
use crate::snapshot::Store;

/// Two machines of a guest that are compared have their disks in directories beside its own: `GUEST-reference`, `GUEST-other`.
pub(in crate::recording) const COMPARED: [&str; 2] = ["reference", "other"];

/// So has one that leaves a recording: `GUEST-branch`.
pub(in crate::recording) const BRANCH: &str = "branch";

/// The same for all that run pieces of one recording at once: `GUEST-pieces`.
pub(in crate::recording) const PIECES: &str = "pieces";

/// And for one that is watched from within QEMU: `GUEST-watched`.
pub(in crate::recording) const WATCHED: &str = "watched";

/// The disks of one run. Dropped, overlays are removed, and snapshots that were made for it.
pub(in crate::recording) struct Disks<'a> {
    pub(in crate::recording) drives: Vec<Drive>,
    store: Option<Store<'a>>,
    overlays: Vec<PathBuf>,
}

/// How a disk of a run is made.
pub(in crate::recording) struct Wanted<'a> {
    pub(in crate::recording) target: Target,
    pub(in crate::recording) source: &'a DiskSource,
    /// In place of the origin: the same content, elsewhere.
    pub(in crate::recording) base: Option<PathBuf>,
    /// Bytes.
    pub(in crate::recording) size: u64,
}

impl<'a> Disks<'a> {
    /// Makes every disk fresh.
    pub(in crate::recording) fn make(
        guest: &GuestName,
        wanted: &[Wanted<'_>],
        environment: &Environment<'a>,
    ) -> Result<Self, Error> {
        for which in COMPARED.into_iter().chain([BRANCH, PIECES, WATCHED]) {
            // Left by a run that was killed. The guest's lock is ours.
            drop(std::fs::remove_dir_all(
                environment.overlays.join(format!("{guest}-{which}")),
            ));
        }
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
        if !snapshots.is_empty() && !environment.prepared {
            let store = Store::open(guest, snapshots, environment.snapshot)?;
            store.reset()?;
            disks.store = Some(store);
        }
        for disk in wanted {
            let backing = match (disk.source, &disk.base) {
                (DiskSource::Snapshot(snapshot), None) => Backing::Raw {
                    path: snapshot.volume.device().into(),
                    writable: true,
                },
                (DiskSource::Path { path, .. }, base) => Backing::Raw {
                    path: base.clone().unwrap_or_else(|| path.clone()),
                    writable: false,
                },
                (DiskSource::Snapshot(_) | DiskSource::Overlay(_), base) => {
                    let base = base.clone().unwrap_or_else(|| origin_of(disk.source).path());
                    disks.overlay(guest, &disk.target, (base, disk.size), environment)?
                }
            };
            disks.drives.push(Drive {
                target: disk.target.clone(),
                backing,
            });
        }
        Ok(disks)
    }

    /// Makes an empty overlay for the disk `target` over `base`, `size` bytes large.
    fn overlay(
        &mut self,
        guest: &GuestName,
        target: &Target,
        (base, size): (PathBuf, u64),
        environment: &Environment<'_>,
    ) -> Result<Backing, Error> {
        let path = environment.overlays.join(format!("{guest}-{target}.qcow2"));
        let failed = |source| Error::Write {
            path: path.clone(),
            source,
        };
        crate::file::private_directory(&environment.overlays).map_err(failed)?;
        // What a run that was killed has left. The guest's lock is ours, so nobody uses it.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        engine::create_overlay(&path.to_string_lossy(), Some(&base.to_string_lossy()), size).map_err(Error::Overlay)?;
        self.overlays.push(path.clone());
        Ok(Backing::Overlay { path, base })
    }

    /// Puts an overlay over every disk that LVM keeps: QEMU can keep a machine's state only beside qcow2 files.
    pub(in crate::recording) fn cover(
        &mut self,
        guest: &GuestName,
        environment: &Environment<'_>,
    ) -> Result<(), Error> {
        for mut drive in std::mem::take(&mut self.drives) {
            if let Backing::Raw {
                path: base,
                writable: true,
            } = drive.backing
            {
                let size = size_of(&base)?;
                drive.backing = self.overlay(guest, &drive.target, (base, size), environment)?;
            }
            self.drives.push(drive);
        }
        Ok(())
    }

    /// What the guest writes to, where it takes room.
    pub(in crate::recording) fn overlays(&self) -> &[PathBuf] {
        &self.overlays
    }

    /// What each disk contains now.
    pub(in crate::recording) fn contents(&self, listener: &mut dyn Listener) -> Result<Vec<Digest>, Error> {
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
            tracing::warn!("{}", crate::base::error::chain(&error));
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

/// What the guest's disks are made from, or why it cannot be recorded.
pub(in crate::recording) fn check_disks(guest: &Guest) -> Result<(), Error> {
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

/// What is known of the seals of volumes. Only LVM knows them; a unit's run has not the rights to ask it, so its preparation
/// did.
#[derive(Debug, Clone, Default)]
pub struct Seals(Option<Vec<(Volume, Option<Digest>)>>);

impl Seals {
    /// Those that were asked for; without, each is asked for when it is needed.
    pub fn known(seals: Option<Vec<(Volume, Option<Digest>)>>) -> Self {
        Self(seals)
    }

    /// The content of `origin`, if it is sealed.
    fn of(&self, origin: &Origin) -> Result<Option<Digest>, Error> {
        if let (Some(known), Origin::Volume(volume)) = (&self.0, origin) {
            let seal = known.iter().find(|(other, _)| other == volume);
            return Ok(seal.and_then(|(_, digest)| *digest));
        }
        Ok(seal::state(origin)?.digest())
    }
}

/// An origin as it is now: instantly if it is sealed, else it is read.
pub(in crate::recording) fn digest_origin(
    target: &Target,
    origin: &Origin,
    seals: &Seals,
    listener: &mut dyn Listener,
) -> Result<DiskDigest, Error> {
    let path = origin.path();
    let sealed = seals.of(origin)?;
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
        writable: true,
        end: None,
    })
}

/// A file as it is now.
pub(in crate::recording) fn digest_file(path: &Path, listener: &mut dyn Listener) -> Result<FileDigest, Error> {
    Ok(FileDigest {
        path: path.to_owned(),
        size: size_of(path)?,
        digest: digest_of(path, &format!("reading {}", path.display()), listener)?,
    })
}

fn digest_of(path: &Path, what: &str, listener: &mut dyn Listener) -> Result<Digest, Error> {
    let digest = digest::of_path(path, &mut |done, total| {
        listener.progress(what, done, total);
        match crate::base::signals::waiting() {
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
    let size = crate::file::open_content(path).and_then(|mut file| file.seek(io::SeekFrom::End(0)));
    size.map_err(|source| Error::Read {
        path: path.to_owned(),
        source: digest::Error::Open {
            path: path.to_owned(),
            source,
        },
    })
}

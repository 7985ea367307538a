// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making a guest's disk from the host's own files, from a directory or from an archive.
//!
//! mke2fs makes the file system, on a file without a name or on a volume with another one; it is filled without being mounted
//! ([`crate::ext4`]); and only when all of it is on the disk, it gets its name. Whatever ends this program before, there is
//! no mount, no loop device and no file; of a volume the next run knows that it is nobody's.
//!
//! ```text
//! request plan report        what is asked for, what will be done, what came of it
//! tree archive               where it comes from: a directory, or an archive
//! survey                     a first look at that: how much, and what it is
//! exclude pattern            what stays out
//! edits identity             what the guest has instead: its own name, keys, console, network
//! filler                     what writes it all into the file system
//! output fits                a file or a volume that has its name when it is whole; whether it is large enough
//! ```

mod archive;
mod edits;
mod error;
mod exclude;
mod filler;
mod fits;
mod identity;
mod output;
mod pattern;
mod plan;
mod report;
mod request;
mod survey;
mod tree;

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, SystemTime};

use ext4_fill::{BLOCK, Filesystem, Time};
use nix::libc;

use self::archive::member::excluded;
use self::archive::seen::Seen;
use self::archive::{Archive, copying};
use self::edits::Edit;
use self::edits::resolve::{self, Target};
use self::exclude::Exclusions;
use self::filler::{Filler, Stop};
use self::identity::Identity;
use self::output::unnamed::{self, Unnamed};
use self::survey::bounds::Bounds;
use self::survey::{Found, Survey, bootable};
use self::tree::Tree;
use self::tree::reader::{self, Event};
use super::Origin;
use crate::base::progress::Progress;
use crate::base::{fail_point, signals};
use crate::config::types::{GuestName, Size};
use crate::run::{Command, Program};

pub use error::Error;
pub use exclude::Reason;
pub use identity::Keep;
pub use pattern::Pattern;
pub use report::Report;
pub use request::Request;
pub use survey::boots::{Boots, NoBoots};
pub use tree::Problem;

static MKE2FS: Program = Program::new(&["mke2fs"]);
/// It writes the tables of a large volume.
const MKE2FS_LIMIT: Duration = Duration::from_secs(30 * 60);

#[derive(Debug)]
enum Source {
    Tree(Tree),
    Archive(Archive, Box<Seen>),
}

/// An image that can be made, as far as can be said before.
#[derive(Debug)]
pub struct Creation {
    request: Request,
    source: Source,
    exclusions: Exclusions,
    found: Found,
    survey: Survey,
}

impl Creation {
    /// Looks through the source and at the place; makes nothing. `progress` hears how many files were seen, and of about how
    /// many.
    pub fn prepare(request: Request, progress: &mut Progress<'_>) -> Result<Self, Error> {
        // A limit of whoever calls (ulimit -f) is an error like others, and not the end of the program.
        signals::ignore_file_size_limit();
        let (size, largest) = (request.size, request.kind.largest());
        if size.bytes() > largest {
            let largest = Size::from_bytes(largest.next_multiple_of(1 << 40));
            return Err(Error::LargeFilesystem { size, largest });
        }
        // Of what is looked through for minutes, it is said before that it cannot be put there.
        let mut group = None;
        let probe = match &request.place {
            Origin::File(path) => {
                unnamed::is_free(path)?;
                let is_usual = *path == usual_place(&request.state, &request.name);
                Some(Unnamed::probe(path, is_usual, size.bytes())?)
            }
            Origin::Volume(volume) => {
                group = Some(request.wanted(volume).examine()?);
                None
            }
        };
        let exclusions = request.exclusions();
        let unreadable = |source| Error::Source {
            path: request.source.clone(),
            source,
        };
        let data = fs::metadata(&request.source).map_err(unreadable)?;
        let looked_at = [&identity::LOOKED_AT[..], &bootable::LOOKED_AT[..]].concat();
        let (source, found, survey) = if data.is_dir() {
            let tree = Tree::open(&request.source).map_err(unreadable)?;
            let found = Found::in_tree(&tree, &looked_at);
            let (mut seen, total) = (0, tree.files());
            let mut go_on = || {
                seen += 1;
                progress(seen, total.max(seen + 1))
            };
            let bounds = Bounds::of(request.kind);
            let survey = survey::of_tree(&tree, &exclusions, bounds, &mut go_on)?;
            (Source::Tree(tree), found, survey)
        } else if data.is_file() {
            let archive = Archive::open(&request.source)?;
            let (found, survey, seen) = archive.survey(&exclusions, &looked_at, Bounds::of(request.kind), progress)?;
            (Source::Archive(archive, Box::new(seen)), found, survey)
        } else {
            return Err(Error::NoSource(request.source));
        };
        let creation = Self {
            request,
            source,
            exclusions,
            found,
            survey,
        };
        creation.is_a_system()?;
        creation.can_work()?;
        creation.is_straight()?;
        creation.fits()?;
        if let Some(probe) = probe {
            probe.has_room(creation.survey.blocks(creation.request.kind) * BLOCK as u64)?;
        }
        if let (Origin::Volume(volume), Some(group)) = (&creation.request.place, group) {
            creation.request.wanted(volume).fits(&group, creation.written())?;
        }
        Ok(creation)
    }

    /// Refuses a source in which what is to be otherwise in the guest is not where its path says.
    fn is_straight(&self) -> Result<(), Error> {
        let look = |path: &[u8]| {
            let here = match &self.source {
                Source::Tree(tree) => tree.here(path),
                Source::Archive(_, seen) => seen.here(path),
            };
            here.filter(|here| excluded(&self.exclusions, path, *here == Target::Directory).is_none())
        };
        for (path, edit) in self.identity(String::new()).edits().iter() {
            resolve::is_straight(&look, path)?;
            match edit {
                Edit::Directory { .. } => resolve::is_directory(&look, path)?,
                _ => resolve::is_no_directory(&look, path)?,
            }
        }
        for (directory, pattern) in self.exclusions.cleared() {
            resolve::is_cleared(&look, directory.as_bytes(), pattern)?;
        }
        Ok(())
    }

    /// What is to be made.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Makes it. What fails, or is called off by `progress` or a signal, leaves nothing.
    pub fn make(&self, progress: &mut Progress<'_>) -> Result<Report, Error> {
        let _deferred = signals::defer();
        let size = self.request.size;
        match &self.request.place {
            Origin::File(path) => {
                if *path == usual_place(&self.request.state, &self.request.name) {
                    unnamed::make_directory(path)?;
                }
                let image = Unnamed::new(path, size.bytes())?;
                image.has_room(self.survey.blocks(self.request.kind) * BLOCK as u64)?;
                self.make_filesystem(&image.device(), size.bytes(), true)?;
                let file = image.file().try_clone().map_err(|source| Error::Image {
                    action: "open",
                    path: path.clone(),
                    source,
                })?;
                let report = self.fill(file, true, progress)?;
                fail_point::reach("create.filled");
                image.name()?;
                fail_point::reach("create.named");
                Ok(report)
            }
            Origin::Volume(volume) => {
                let wanted = self.request.wanted(volume);
                let unfinished = wanted.make(self.written())?;
                self.make_filesystem(&unfinished.device()?, size.bytes(), false)?;
                let report = self.fill(unfinished.open()?, false, progress)?;
                fail_point::reach("create.filled");
                unfinished.finish()?;
                Ok(report)
            }
        }
    }

    fn make_filesystem(&self, device: &str, size: u64, zeroed: bool) -> Result<(), Error> {
        let Request { kind, .. } = self.request;
        let inodes = ext4_fill::room(kind, size, self.files()).inodes;
        let made = Command::new(&MKE2FS)
            .args(ext4_fill::mke2fs_arguments(kind, inodes, zeroed))
            .arg(device)
            .deadline(MKE2FS_LIMIT)
            .run();
        fail_point::reach("create.file-system");
        match made {
            Ok(_) => Ok(()),
            // Ctrl-C is for the whole group of processes.
            Err(_) if signals::waiting() => Err(Error::Interrupted),
            Err(error) => Err(Error::MakeFilesystem(error)),
        }
    }

    /// Fills the file system that is in `file`; the rest of it reads as zeros if `zeroed`. [`make`](Self::make) has mke2fs make it.
    pub fn fill(&self, file: File, zeroed: bool, progress: &mut Progress<'_>) -> Result<Report, Error> {
        let now = now();
        let fs = Filesystem::open(file, zeroed, now).map_err(Error::Filesystem)?;
        if fs.free_blocks() < self.survey.blocks(self.request.kind) || fs.free_inodes() < self.files() {
            return Err(self.too_small());
        }
        let root = self.request.root.clone();
        let root = root.unwrap_or_else(|| identity::by_uuid(fs.uuid()));
        let identity = self.identity(root.clone());
        let total = self.survey.bytes;
        let mut go_on = |done: u64| {
            let verdict = progress(done.min(total), total);
            verdict == ControlFlow::Continue(()) && !signals::waiting()
        };
        let mut filler = Filler::new(fs, identity.edits(), now, &mut go_on);
        filler.report.root = root;
        let filled = match &self.source {
            Source::Tree(tree) => self.copy(tree, &mut filler),
            Source::Archive(archive, seen) => copying::copy(archive, seen, &self.found, &self.exclusions, &mut filler),
        };
        filled.map_err(|stop| self.stopped(stop))?;
        fail_point::reach("create.copied");
        filler.finish().map_err(|stop| self.stopped(stop))
    }

    fn copy(&self, tree: &Tree, filler: &mut Filler<'_>) -> Result<(), Stop> {
        let (sender, events) = sync_channel(reader::AHEAD);
        std::thread::scope(|scope| {
            scope.spawn(move || reader::read(tree, &self.exclusions, sender));
            let mut is_first = true;
            // Taken along, so that the other half hears of an early end.
            for event in events {
                match event {
                    Event::Enter(item) => filler.enter(item),
                    Event::Leave(path) => filler.leave(&path),
                    Event::File(item) => {
                        if std::mem::take(&mut is_first) {
                            fail_point::reach("create.copying");
                        }
                        filler.file(item)
                    }
                    Event::Again(path, key) => filler.again(&path, key),
                    Event::LeftOut(path, reason) => {
                        filler.report.left_out(&path, reason);
                        Ok(())
                    }
                    Event::Problem(path, problem) => {
                        problem.is_bearable()?;
                        filler.report.problem(&path, problem);
                        Ok(())
                    }
                }?;
            }
            Ok(())
        })
    }

    fn stopped(&self, stop: Stop) -> Error {
        match stop {
            // Also what unpacks an archive has had the signal, and what it has not brought is missing.
            _ if signals::waiting() => Error::Interrupted,
            Stop::CalledOff => Error::Interrupted,
            Stop::Source(error) => *error,
            Stop::Failed(path, source) => {
                if let Some(error) = self.full_place(&source) {
                    return error;
                }
                let (path, kind) = (report::shown(&path), self.request.kind);
                match source {
                    ext4_fill::Error::Full(_) => Error::Full {
                        path,
                        size: self.request.size,
                        source,
                    },
                    ext4_fill::Error::TooLarge => Error::LargeFile { path, kind },
                    ext4_fill::Error::Links(_) => Error::ManyNames { path, kind },
                    source => Error::File { path, source },
                }
            }
        }
    }

    /// That the place of the image is full, if that is why it cannot be written.
    fn full_place(&self, source: &ext4_fill::Error) -> Option<Error> {
        let code = match source {
            ext4_fill::Error::Io {
                action: "write",
                source,
            } => source.raw_os_error()?,
            _ => return None,
        };
        let (place, source) = (self.request.place.clone(), io::Error::from_raw_os_error(code));
        let is_full = [libc::ENOSPC, libc::EDQUOT, libc::EFBIG].contains(&code);
        is_full.then_some(Error::PlaceFull { place, source })
    }

    fn identity(&self, root: String) -> Identity<'_> {
        Identity {
            name: &self.request.name,
            keep: &self.request.keep,
            kind: self.request.kind,
            script: self.request.script.as_deref(),
            password: self.request.password.as_deref(),
            root,
            found: &self.found,
        }
    }
}

fn now() -> Time {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Time {
        seconds: since.as_secs() as i64,
        nanoseconds: since.subsec_nanos(),
    }
}

/// Where the image of a guest goes if nobody says.
pub fn usual_place(state: &Path, guest: &GuestName) -> PathBuf {
    state.join("images").join(format!("{guest}.img"))
}

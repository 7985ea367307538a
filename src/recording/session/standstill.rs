// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest that nobody records and that stands still because of the host: there is no room for what it writes, or a disk cannot be
//! read or written. It goes on when that is over.
//!
//! Of the overlays' directory it is known how much is free. Of a volume, which may be in a thin pool, it is not, nor when another
//! failure is over: there the guest is let go on now and then, and QEMU makes the request that failed once more. If that fails
//! again, the guest stands still again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::disks::Disks;
use super::{Error, files};
use crate::qemu::machine::{Backing, Drive};
use crate::qemu::qmp::Failure;
use crate::recording::Library;
use crate::recording::record::{RESERVE, Space};

/// So much has to be free again before a guest goes on that waited for room: else it would wait again at once.
const ENOUGH: u64 = 2 * RESERVE;

/// How often a guest that stands still is looked after. One that has gone on for as long does not stand still any more.
const WAITING: Duration = Duration::from_secs(2);

/// Whether a guest stands still, and when it is looked after.
pub(super) struct Standstill {
    /// What the guest writes to.
    drives: Vec<Drive>,
    /// Where its overlays are.
    overlays: PathBuf,
    /// The room for them; without any, nothing is looked after.
    space: Option<Space>,
    why: Option<Why>,
    again: Option<Instant>,
}

/// Why it stands still.
#[derive(Debug, PartialEq, Eq)]
enum Why {
    /// There is no room for its overlays.
    Room,
    /// This was said of a disk, about which nothing else is known.
    Disk {
        said: String,
        /// Whether the guest goes on, for now.
        is_tried: bool,
    },
}

/// What has become of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// The room is gone, which is to be said: the guest has to be stopped.
    Gone(String),
    /// The guest is to go on, to see whether it can.
    Tried,
    /// It can; it may be that it `stands` so far.
    Back {
        /// Whether it does.
        stands: bool,
    },
}

impl Standstill {
    /// Of a guest with these disks.
    ///
    /// # Errors
    ///
    /// If there is no room to begin with.
    pub(super) fn begin(disks: &Disks<'_>, library: &Library, overlays: &Path) -> Result<Self, Error> {
        let mut standstill = Self::new(disks.drives.clone(), overlays.to_owned());
        if disks.overlays().is_empty() {
            return Ok(standstill);
        }
        let free = library.free_space()?;
        if free < RESERVE {
            return Err(Error::NoRoomForOverlays {
                directory: library.state_directory().to_owned(),
                free: free >> 20,
                needed: RESERVE >> 20,
            });
        }
        let space = Space::new(library)?;
        standstill.again = Some(space.again);
        standstill.space = Some(space);
        Ok(standstill)
    }

    fn new(drives: Vec<Drive>, overlays: PathBuf) -> Self {
        Self {
            drives,
            overlays,
            space: None,
            why: None,
            again: None,
        }
    }

    /// When it is to be looked after.
    pub(super) fn again(&self) -> Option<Instant> {
        self.again
    }

    /// Whether the guest stands still.
    pub(super) fn stands(&self) -> bool {
        !matches!(self.why, None | Some(Why::Disk { is_tried: true, .. }))
    }

    /// The guest stands still from now on, because a disk failed. Returns what is to be said, unless it was said before.
    pub(super) fn failed(&mut self, failure: &Failure, now: Instant) -> Option<String> {
        // QEMU makes that request once more when there is room.
        if self.why == Some(Why::Room) {
            return None;
        }
        self.again = Some(now + WAITING);
        let drive = self.drives.iter().find(|drive| drive.target.as_str() == failure.disk);
        let text = match drive.map(|drive| &drive.backing) {
            _ if !failure.no_space => format!(
                "stands still: {failure}. It is made of {}: look at the host (`dmesg`); that is tried every {} s",
                files(failure, &self.drives),
                WAITING.as_secs()
            ),
            Some(Backing::Raw { path, .. }) => format!(
                "stands still: there is no room for what it writes to disk {} ({}). It goes on when the volume has room, or the thin pool that it is in (`lvs -a`, `lvextend`)",
                failure.disk,
                path.display()
            ),
            Some(Backing::Overlay { .. }) | None => {
                self.why = Some(Why::Room);
                return Some(self.no_room());
            }
        };
        let is_new = !matches!(&self.why, Some(Why::Disk { said, .. }) if *said == text);
        self.why = Some(Why::Disk {
            said: text.clone(),
            is_tried: false,
        });
        is_new.then_some(text)
    }

    /// Looks whether it can go on, or has to stand still.
    pub(super) fn look(&mut self, library: &Library, now: Instant) -> Result<Change, Error> {
        if matches!(self.why, Some(Why::Disk { .. })) {
            return Ok(self.go_on(now));
        }
        let Some(space) = &mut self.space else {
            self.again = None;
            return Ok(Change::None);
        };
        let is_gone = space.look(library, 0)?;
        self.again = Some(space.again);
        if self.why == Some(Why::Room) {
            self.again = Some(now + WAITING);
            if library.free_space()? < ENOUGH {
                return Ok(Change::None);
            }
            self.why = None;
            return Ok(Change::Back { stands: true });
        }
        if !is_gone {
            return Ok(Change::None);
        }
        self.why = Some(Why::Room);
        self.again = Some(now + WAITING);
        Ok(Change::Gone(self.no_room()))
    }

    /// One that stands still because of a disk goes on for a time; if nothing happens in that, it goes on for good.
    fn go_on(&mut self, now: Instant) -> Change {
        match &mut self.why {
            Some(Why::Disk { is_tried, .. }) if !*is_tried => {
                *is_tried = true;
                self.again = Some(now + WAITING);
                Change::Tried
            }
            _ => {
                self.why = None;
                self.again = self.space.as_ref().map(|space| space.again);
                Change::Back { stands: false }
            }
        }
    }

    fn no_room(&self) -> String {
        format!(
            "stands still: there is no room in {} for what it writes; it goes on when {} MiB are free",
            self.overlays.display(),
            ENOUGH >> 20
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Failure {
        Failure {
            disk: "vda".to_owned(),
            is_read: false,
            no_space: true,
            reason: "No space left on device".to_owned(),
        }
    }

    /// A guest whose only disk is a volume.
    fn on_a_volume() -> Standstill {
        let drive = Drive {
            target: "vda".parse().expect("a name"),
            backing: Backing::Raw {
                path: "/dev/xenvg/snap1".into(),
                writable: true,
            },
        };
        Standstill::new(vec![drive], "/var/lib/ttvm/overlays".into())
    }

    #[test]
    fn a_full_volume_is_tried_until_it_has_room() {
        let library = Library::open(Path::new("/nowhere"));
        let mut standstill = on_a_volume();
        let mut now = Instant::now();
        assert_eq!(standstill.again(), None, "nothing is looked after");
        let said = standstill.failed(&full(), now).expect("it is said");
        assert!(
            said.contains("/dev/xenvg/snap1") && !said.contains("overlays"),
            "{said}"
        );
        for _ in 0..3 {
            assert!(standstill.stands());
            assert_eq!(standstill.again(), Some(now + WAITING));
            now += WAITING;
            assert_eq!(
                standstill.look(&library, now).expect("no room to look at"),
                Change::Tried
            );
            assert!(!standstill.stands());
            assert_eq!(standstill.again(), Some(now + WAITING), "not at once");
            assert_eq!(standstill.failed(&full(), now), None, "it is said once");
        }
        now += WAITING;
        assert_eq!(standstill.look(&library, now).expect("no room"), Change::Tried);
        now += WAITING;
        let back = standstill.look(&library, now).expect("no room");
        assert_eq!(back, Change::Back { stands: false });
        assert_eq!(standstill.again(), None, "it goes on");
        assert!(standstill.failed(&full(), now).is_some(), "another time");
    }

    #[test]
    fn an_overlay_waits_for_its_directory() {
        let mut standstill = on_a_volume();
        standstill.drives[0].backing = Backing::Overlay {
            path: "/var/lib/ttvm/overlays/g-vda.qcow2".into(),
            base: "/srv/base.img".into(),
        };
        let now = Instant::now();
        let said = standstill.failed(&full(), now).expect("it is said");
        assert!(said.contains("/var/lib/ttvm/overlays"), "{said}");
        assert!(standstill.stands());
        assert_eq!(standstill.failed(&full(), now), None);
    }

    #[test]
    fn what_cannot_be_read_is_tried() {
        let mut standstill = on_a_volume();
        let now = Instant::now();
        let failure = Failure {
            is_read: true,
            no_space: false,
            reason: "Input/output error".to_owned(),
            ..full()
        };
        let said = standstill.failed(&failure, now).expect("it is said");
        assert!(
            said.contains("disk vda cannot be read: Input/output error. It is made of /dev/xenvg/snap1"),
            "{said}"
        );
        let library = Library::open(Path::new("/nowhere"));
        let tried = standstill.look(&library, now + WAITING).expect("no room to look at");
        assert_eq!(tried, Change::Tried);
        assert!(standstill.failed(&full(), now).is_some(), "another failure");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs without systemd: an ordinary user's, and those in directories of their own.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::cli::Error;
use crate::cli::terminal::progress::Progress;
use crate::config::guest::{DiskSource, Guest};
use crate::config::host::{self, HostConfig};
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::config::{self, guests};
use crate::file::lock::{Attempt, Lock};
use crate::guest as running;
use crate::recording::Library;
use crate::recording::session::disks::{Seals, origin_of};
use crate::recording::session::{Environment, Listener};
use crate::recording::unit::toolstack;

/// A guest and its places.
pub(in crate::cli) struct Foreground<'a> {
    places: &'a Places,
    host: HostConfig,
    name: GuestName,
    library: Library,
}

impl<'a> Foreground<'a> {
    pub(in crate::cli) fn new(places: &'a Places, name: &GuestName) -> Result<Self, Error> {
        Ok(Self {
            places,
            host: host::load(places)?,
            name: name.clone(),
            library: Library::open(places.state_dir()),
        })
    }

    /// The guest, as its file is now.
    pub(in crate::cli) fn guest(&self) -> Result<Guest, Error> {
        Ok(guests::load(self.places, &self.host, &self.name)?)
    }

    /// The guest, if it still has a file; a file that is wrong is a mistake.
    pub(in crate::cli) fn guest_if_any(&self) -> Result<Option<Guest>, Error> {
        match guests::load(self.places, &self.host, &self.name) {
            Err(config::Error::NoSuchGuest { .. }) => Ok(None),
            guest => Ok(Some(guest?)),
        }
    }

    /// The text of the guest's file.
    pub(super) fn file_text(&self) -> Result<String, Error> {
        let path = guests::path(self.places, &self.name);
        Ok(config::read(self.places, &path)?)
    }

    pub(in crate::cli) fn library(&self) -> &Library {
        &self.library
    }

    pub(in crate::cli) fn environment(&self) -> Environment<'_> {
        Environment {
            snapshot: &self.host.snapshot,
            overlays: self.places.state_dir().join("overlays"),
            seals: Seals::default(),
            prepared: false,
            shared: false,
        }
    }

    /// Where a debugger connects.
    pub(super) fn socket(&self) -> PathBuf {
        self.places
            .state_dir()
            .join("overlays")
            .join(format!("{}.gdb", self.name))
    }

    /// Makes sure that no other run of the guest is going on.
    pub(in crate::cli) fn claim(&self) -> Result<Lock, Error> {
        // LVM's snapshots are the system's, wherever the configuration is.
        let locks = running::locks(self.places.state_dir());
        match running::claim_below(&locks, &self.name)? {
            Attempt::Taken(lock) => Ok(lock),
            Attempt::Busy(waiting) => running::soon(waiting)?.ok_or_else(|| Error::Running(self.name.clone())),
        }
    }

    /// What recording would do, in words.
    pub(super) fn plan_record(&self) -> Result<Vec<String>, Error> {
        let guest = self.guest()?;
        toolstack::check_record(unit_root(self.places), &guest, &self.library)?;
        let mut plan = Vec::new();
        for disk in &guest.disks {
            let fresh = match &disk.source {
                DiskSource::Snapshot(_) => "a fresh snapshot of",
                DiskSource::Overlay(_) => "a fresh overlay over",
                DiskSource::Path { .. } => "as it is,",
            };
            plan.push(format!("disk {}: {fresh} {}", disk.target, origin_of(&disk.source)));
        }
        let directory = self.places.state_dir().join("recordings").join(self.name.as_str());
        plan.push(format!("record {} below {}", self.name, directory.display()));
        Ok(plan)
    }
}

/// The system whose units may record and replay, if it is that of `places`.
pub(super) fn unit_root(places: &Places) -> Option<&Path> {
    places.has_units().then(|| places.root())
}

/// Tells a person how a run goes.
pub(in crate::cli) struct Follower {
    guest: GuestName,
    console: bool,
    hint: &'static str,
    progress: Option<(String, Progress)>,
}

impl Follower {
    pub(in crate::cli) fn new(guest: &GuestName, console: bool, hint: &'static str) -> Self {
        Self {
            guest: guest.clone(),
            console,
            hint,
            progress: None,
        }
    }

    /// No more progress.
    pub(in crate::cli) fn end(&mut self) {
        self.progress = None;
    }
}

impl Listener for Follower {
    fn console(&mut self, text: &[u8]) {
        if self.console {
            let mut out = io::stdout().lock();
            // A reader that has gone does not end the guest.
            drop(out.write_all(text).and_then(|()| out.flush()));
        }
    }

    fn ready(&mut self, text: &str) {
        self.end();
        eprintln!("ttvm: {}: {text}; {}", self.guest, self.hint);
    }

    fn progress(&mut self, what: &str, done: u64, total: u64) {
        let (_, progress) = match self.progress.take() {
            Some(current) if current.0 == what => self.progress.insert(current),
            _ => self.progress.insert((what.to_owned(), Progress::of(what))),
        };
        // Whether to go on is asked elsewhere.
        let _ = progress.update(done, total);
    }
}

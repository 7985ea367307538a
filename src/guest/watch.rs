// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every run on Xen has in common: it is alone, it waits for its turn to be built, and from then on it waits for its
//! domain's end or for the signal to stop, in one poll.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::domain::{self, Domain, Presence};
use super::{Error, building, taken, toolstack};
use crate::base::notify;
use crate::config::guest::Guest;
use crate::file::lock::{Attempt, Lock};
use crate::xenstore::XenStore;

/// What systemd is asked to allow for while a guest waits for its turn.
const QUEUE: Duration = Duration::from_secs(3600);

/// What ends a guest at once: not asked, not waited for. `ttvm kill` sends it.
pub const AT_ONCE: Signal = Signal::SIGQUIT;

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// We are asked to stop.
    Signal,
    /// Some domain has shut down or is gone.
    Release,
    /// The time is over, or another descriptor is ready.
    Nothing,
}

/// The domains of this host, and whoever may end a run.
pub struct Watch {
    root: PathBuf,
    signals: SignalFd,
    at_once: bool,
    store: XenStore,
}

impl Watch {
    /// Begins on the system in the tree that begins at `root`: from now on the signals to stop wait here.
    pub fn begin(root: &Path) -> Result<Self, Error> {
        let stop: SigSet = [Signal::SIGTERM, Signal::SIGINT, AT_ONCE].into_iter().collect();
        let wait = |errno: Errno| Error::Wait(errno.into());
        stop.thread_block().map_err(wait)?;
        let signals = SignalFd::with_flags(&stop, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(wait)?;
        let mut store = XenStore::connect_in(root)?;
        store.watch("@releaseDomain")?;
        // The store answers a new watch with one event at once.
        store.event()?;
        Ok(Self {
            root: root.to_owned(),
            signals,
            at_once: false,
            store,
        })
    }

    /// Whether the guest is to be given no time to shut down (`ttvm kill`).
    pub fn at_once(&self) -> bool {
        self.at_once
    }

    /// Becomes readable when we are asked to stop.
    pub fn signals(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }

    /// `Ok` if neither the guest nor a stranger of its name has a domain.
    pub fn require_absent(&mut self, guest: &Guest) -> Result<(), Error> {
        match self.presence(guest, 0)? {
            Presence::Absent => Ok(()),
            Presence::Own(domain) => Err(Error::Running {
                guest: guest.name.clone(),
                domid: domain.domid,
            }),
            Presence::Foreign(domain) => Err(Error::ForeignDomain {
                guest: guest.name.clone(),
                domid: domain.domid,
            }),
        }
    }

    /// The id of the guest's own domain.
    pub fn domid(&mut self, guest: &Guest) -> Result<Option<u32>, Error> {
        match self.presence(guest, 1)? {
            Presence::Own(domain) => Ok(Some(domain.domid)),
            Presence::Absent | Presence::Foreign(_) => Ok(None),
        }
    }

    /// What stands where the guest's domain would be. Where more domains claim to be the guest than are expected, its toolstack says
    /// which are.
    fn presence(&mut self, guest: &Guest, expected: usize) -> Result<Presence, Error> {
        let mut domains = domain::list(&mut self.store)?;
        let claims = |domain: &&Domain| domain.uuid == Some(guest.uuid) || domain.name == guest.name.as_str();
        let claimants: Vec<u32> = domains.values().filter(claims).map(|domain| domain.domid).collect();
        if claimants.len() > expected {
            let tools = toolstack::tools(&self.root, guest.toolstack);
            let own = tools.and_then(|tools| tools.own(&guest.name, claimants.clone()));
            let own = own.map_err(|source| Error::Toolstack {
                action: "look for",
                guest: guest.name.clone(),
                source,
            })?;
            domains.retain(|domid, _| own.contains(domid) || !claimants.contains(domid));
        }
        Ok(domain::presence(&domains, &guest.name, guest.uuid))
    }

    /// Whether the domain is still there.
    pub fn exists(&mut self, domid: u32) -> Result<bool, Error> {
        Ok(domain::exists(&mut self.store, domid)?)
    }

    /// Waits until no other guest's domain is being built; `None` if we were asked to stop meanwhile.
    pub fn turn(&self, guest: &Guest) -> Result<Option<Lock>, Error> {
        let lock = match building(&self.root)? {
            Attempt::Taken(lock) => lock,
            Attempt::Busy(waiting) => {
                // Whoever is ahead of us has a deadline; how many there are, nobody knows.
                notify::announce("waiting while other guests' domains are built", QUEUE);
                match taken(waiting, self.signals())? {
                    Some(lock) => lock,
                    None => return Ok(None),
                }
            }
        };
        notify::announce("building the domain", guest.start_timeout + Duration::from_secs(30));
        Ok(Some(lock))
    }

    /// Waits until something has happened to some domain, we are asked to stop, `also` is readable, or `until` is over.
    pub fn wait(&mut self, until: Option<Instant>, also: Option<BorrowedFd<'_>>) -> Result<Woken, Error> {
        // Events that came in with the answer to a question do not show in poll.
        if self.store.pending().is_some() {
            while self.store.pending().is_some() {}
            return Ok(Woken::Release);
        }
        let (signal, store) = self.poll(until, also).map_err(Error::Wait)?;
        if signal {
            while let Ok(Some(signal)) = self.signals.read_signal() {
                self.at_once |= signal.ssi_signo == AT_ONCE as u32;
            }
            // An event that came at the same moment is there for the next wait.
            return Ok(Woken::Signal);
        }
        if store {
            self.store.event()?;
            return Ok(Woken::Release);
        }
        Ok(Woken::Nothing)
    }

    fn poll(&self, until: Option<Instant>, also: Option<BorrowedFd<'_>>) -> io::Result<(bool, bool)> {
        let watched = [Some(self.signals.as_fd()), Some(self.store.as_fd()), also];
        let mut fds: Vec<PollFd<'_>> = watched
            .into_iter()
            .flatten()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            // Rounded up: a poll that wakes a moment early would spin.
            PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = |index: usize| fds[index].revents().is_some_and(|events| !events.is_empty());
        Ok((ready(0), ready(1)))
    }
}

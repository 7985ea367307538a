// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run of a guest, from `xl create` to its end: `ttvm-guest run`, the main process of `ttvm@NAME.service`.
//!
//! It takes the place of xl's own monitor, follows the domain through Xen's store, snapshots through
//! device-mapper's events and systemd through signals, all in one poll. Nothing is asked twice a second.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::domain::{self, Presence};
use super::mode::{self, GuestNetwork};
use super::preparation::Preparation;
use super::record::{Ending, Record, now};
use super::xl::{self, Shutdown};
use super::xl_config;
use super::{DIRECTORY, Error, building, claim};
use crate::config::guest::{Guest, OnReboot};
use crate::config::guests;
use crate::config::host::HostConfig;
use crate::config::places::Places;
use crate::config::types::{GuestName, GuestUuid};
use crate::error::{chain, one_line};
use crate::fail_point;
use crate::file;
use crate::lock::{Attempt, Lock};
use crate::notify;
use crate::run;
use crate::snapshot::Store;
use crate::xenstore::{self, XenStore};

/// When a domain is looked at again that could not be looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What systemd is asked to allow for while a guest waits for its turn.
const QUEUE: Duration = Duration::from_secs(3600);

/// The xl file of a guest.
pub fn xl_file(guest: &Guest) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{}.cfg", guest.name))
}

/// What the unit does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It stops.
    Stop,
    /// It is started again, on fresh snapshots.
    Restart,
}

/// Destroys the domain that an earlier run of this guest left behind. To be called only when no run of it is
/// alive: before the unit starts, after it ended.
pub fn reap(guest: &GuestName, uuid: GuestUuid) -> Result<(), Error> {
    if !xenstore::is_here() {
        return Ok(());
    }
    let mut store = XenStore::connect()?;
    let domains = domain::list(&mut store)?;
    if let Presence::Own(left) = domain::presence(&domains, guest, uuid) {
        tracing::warn!(
            ttvm_guest = %guest,
            ttvm_domid = left.domid,
            "destroying domain {} that an earlier run left behind",
            left.domid
        );
        destroy(guest, left.domid)?;
    }
    Ok(())
}

fn destroy(guest: &GuestName, domid: u32) -> Result<(), Error> {
    xl::destroy(domid).map_err(|source| Error::Xl {
        action: "destroy",
        guest: guest.clone(),
        source,
    })
}

/// Runs the guest until it ends, if its snapshots have been made for this start.
pub fn run(guest: &Guest, host: &HostConfig) -> Result<Next, Error> {
    // Whoever changes the snapshots by hand at this moment has made them fresh when it is done.
    let _claim = match claim(&guest.name)? {
        Attempt::Taken(lock) => lock,
        Attempt::Busy(waiting) => waiting.take().map_err(Error::Wait)?,
    };
    let mut run = Run::new(guest, host)?;
    let result = run.prepared().and_then(|()| run.until_the_end());
    if let Err(error) = &result
        && run.record.ending.is_none()
    {
        run.record.why = Some(one_line(error));
        run.end(if run.record.domid.is_some() {
            Ending::Abandoned
        } else {
            Ending::NotStarted
        });
    }
    result
}

/// Why the wait for a domain ended.
enum Event {
    /// It shut down, for this reason.
    Down(Shutdown),
    /// It is gone.
    Gone,
    /// systemd wants it stopped.
    StopRequested,
    /// The time given is over.
    Late,
}

struct Run<'a> {
    guest: &'a Guest,
    signals: SignalFd,
    store: XenStore,
    snapshots: Option<Store<'a>>,
    record: Record,
}

impl<'a> Run<'a> {
    fn new(guest: &'a Guest, host: &'a HostConfig) -> Result<Self, Error> {
        let mut stop = SigSet::empty();
        stop.add(Signal::SIGTERM);
        stop.add(Signal::SIGINT);
        let wait = |errno: Errno| Error::Wait(errno.into());
        stop.thread_block().map_err(wait)?;
        let signals = SignalFd::with_flags(&stop, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(wait)?;
        let mut store = XenStore::connect()?;
        store.watch("@releaseDomain")?;
        // The store answers a new watch with one event at once.
        store.event()?;
        let snapshots = match guest.snapshots().next() {
            Some(_) => Some(Store::open(
                &guest.name,
                guest.snapshots().cloned().collect(),
                &host.snapshot,
            )?),
            None => None,
        };
        Ok(Self {
            guest,
            signals,
            store,
            snapshots,
            record: Record::begin(&guest.name),
        })
    }

    /// Whether the snapshots were made for this start.
    fn prepared(&self) -> Result<(), Error> {
        let result = Preparation::check(&self.guest.name);
        if let (Err(Error::NotPrepared { .. }), Some(snapshots)) = (&result, &self.snapshots) {
            // systemd kills what is left in the unit once we end.
            snapshots.settle();
        }
        result
    }

    fn until_the_end(&mut self) -> Result<Next, Error> {
        loop {
            let Some(domid) = self.start()? else {
                self.end(Ending::Stopped);
                return Ok(Next::Stop);
            };
            self.up(domid);
            let ending = match self.wait(domid, None)? {
                Event::StopRequested => self.stop(domid)?,
                Event::Down(Shutdown::Reboot | Shutdown::SoftReset) if self.guest.on_reboot == OnReboot::Keep => {
                    destroy(&self.guest.name, domid)?;
                    self.record.reboots += 1;
                    tracing::info!(ttvm_guest = %self.guest.name, "guest rebooted: starting it again on the disk it wrote");
                    continue;
                }
                Event::Down(reason) => {
                    self.destroy_at_the_end(domid);
                    ending_of(reason)
                }
                Event::Gone | Event::Late => Ending::Destroyed,
            };
            self.end(ending);
            return self.next(ending);
        }
    }

    fn next(&self, ending: Ending) -> Result<Next, Error> {
        let crashed = |how| {
            Err(Error::Crashed {
                guest: self.guest.name.clone(),
                how,
            })
        };
        match ending {
            Ending::Crashed => crashed("crashed: its kernel panicked (Xen's shutdown code 3)"),
            Ending::Watchdog => crashed("was shut down by its watchdog (Xen's shutdown code 4)"),
            Ending::Suspended => crashed("suspended itself, and a run can not be resumed"),
            Ending::Rebooted if self.guest.on_reboot == OnReboot::Fresh => Ok(Next::Restart),
            _ => Ok(Next::Stop),
        }
    }

    /// Builds the domain and returns its id; `None` if systemd changed its mind meanwhile.
    fn start(&mut self) -> Result<Option<u32>, Error> {
        let guest = self.guest;
        let presence = domain::presence(&domain::list(&mut self.store)?, &guest.name, guest.uuid);
        match presence {
            Presence::Absent => {}
            Presence::Own(domain) => {
                return Err(Error::Running {
                    guest: guest.name.clone(),
                    domid: domain.domid,
                });
            }
            Presence::Foreign(domain) => {
                return Err(Error::ForeignDomain {
                    guest: guest.name.clone(),
                    domid: domain.domid,
                });
            }
        }
        let Some(turn) = self.wait_for_turn()? else {
            return Ok(None);
        };
        // Only now: as long as the turn is ours, the network mode does not change.
        let root = Path::new("/");
        let network = GuestNetwork::load(root);
        if let Err(error) = mode::announce(root, guest) {
            tracing::warn!(ttvm_guest = %guest.name, "dnsmasq can not be told of the guest's addresses: {error}");
        }
        let config = xl_file(guest);
        let source = guests::path(&Places::system(root), &guest.name);
        let text = xl_config::render(guest, &source, &network);
        fs::create_dir_all(DIRECTORY)
            .and_then(|()| file::replace(&config, text.as_bytes(), 0o600))
            .map_err(|source| Error::Write {
                path: config.clone(),
                source,
            })?;
        fail_point::reach("guest.creating");
        let created = xl::create(&config, guest.start_timeout, self.signals.as_fd());
        drop(turn);
        fail_point::reach("guest.created");
        let domains = domain::list(&mut self.store)?;
        let domid = match domain::presence(&domains, &guest.name, guest.uuid) {
            Presence::Own(domain) => Some(domain.domid),
            Presence::Absent | Presence::Foreign(_) => None,
        };
        let failed = match created {
            Ok(()) if domid.is_some() => return Ok(domid),
            Ok(()) => Err(Error::NoDomain {
                guest: guest.name.clone(),
            }),
            Err(run::Error::Cancelled { .. }) => Ok(None),
            Err(source) => Err(Error::Create {
                guest: guest.name.clone(),
                source,
            }),
        };
        // What xl left half-built.
        if let Some(domid) = domid {
            destroy(&guest.name, domid)?;
        }
        failed
    }

    /// Waits until no other guest's domain is being built; `None` if systemd changed its mind meanwhile.
    fn wait_for_turn(&self) -> Result<Option<Lock>, Error> {
        let lock = match building(Path::new("/"))? {
            Attempt::Taken(lock) => lock,
            Attempt::Busy(waiting) => {
                // Whoever is ahead of us has a deadline; how many there are, nobody knows.
                notify::announce("waiting while other guests' domains are built", QUEUE);
                let mut fds = [
                    PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                    PollFd::new(waiting.as_fd(), PollFlags::POLLIN),
                ];
                poll(&mut fds, PollTimeout::NONE).map_err(|errno| Error::Wait(errno.into()))?;
                if fds[0].any().unwrap_or_default() {
                    return Ok(None);
                }
                waiting.take().map_err(Error::Wait)?
            }
        };
        notify::announce(
            "building the domain",
            self.guest.start_timeout + Duration::from_secs(30),
        );
        Ok(Some(lock))
    }

    fn up(&mut self, domid: u32) {
        self.record.domid = Some(domid);
        self.record.since = now();

        tracing::info!(
            ttvm_guest = %self.guest.name,
            ttvm_run = %self.record.run,
            ttvm_domid = domid,
            "guest is up as domain {domid}"
        );
        let text = format!("running as domain {domid}, {} of memory", self.guest.memory);
        notify::ready(&text);
        // After it: nobody has to wait for the disk.
        self.record.save(&self.guest.name);
    }

    /// Asks the guest to shut down; destroys it if it does not in time.
    fn stop(&mut self, domid: u32) -> Result<Ending, Error> {
        let limit = self.guest.shutdown_timeout;
        // Longer than the unit's own bound, if the guest's file says so; destroying may take its time as well.
        let extend = limit + Duration::from_secs(60);
        notify::stopping();
        let text = format!("waiting for the guest to shut down, at most {} s", limit.as_secs());
        notify::announce(&text, extend);
        tracing::info!(ttvm_guest = %self.guest.name, ttvm_domid = domid, "asking the guest to shut down");
        if let Err(error) = xl::shutdown(domid) {
            tracing::warn!(ttvm_guest = %self.guest.name, "the guest can not be asked to shut down: {error}");
        }
        let ending = match self.wait(domid, Some(Instant::now() + limit))? {
            // However it went down, it was asked to.
            Event::Down(Shutdown::Crash) => Ending::Crashed,
            Event::Down(_) | Event::Gone => Ending::Stopped,
            Event::Late | Event::StopRequested => {
                tracing::warn!(
                    ttvm_guest = %self.guest.name,
                    ttvm_domid = domid,
                    "the guest did not shut down within {} s: destroying it",
                    limit.as_secs()
                );
                Ending::Killed
            }
        };
        if domain::exists(&mut self.store, domid)? {
            self.destroy_at_the_end(domid);
        }
        Ok(ending)
    }

    /// How the run ended does not depend on this; what is left of the domain is destroyed again when the unit ends.
    fn destroy_at_the_end(&self, domid: u32) {
        if let Err(error) = destroy(&self.guest.name, domid) {
            tracing::warn!(ttvm_guest = %self.guest.name, ttvm_domid = domid, "{}", chain(&error));
        }
    }

    /// Waits for something to happen to the domain, for systemd to want it stopped (if there is no deadline: with
    /// one, it is being stopped already), or for the deadline.
    fn wait(&mut self, domid: u32, until: Option<Instant>) -> Result<Event, Error> {
        let mut again = None;
        loop {
            if let Err(error) = self.watch_snapshots() {
                tracing::warn!(ttvm_guest = %self.guest.name, "the snapshots can not be watched: {}", chain(&error));
                self.snapshots = None;
            }
            // Events that came in with the answer to a question do not show in poll.
            let mut release = self.store.pending().is_some();
            while self.store.pending().is_some() {}
            if !release {
                let wake = [until, again].into_iter().flatten().min();
                let left = wake.map(|wake| wake.saturating_duration_since(Instant::now()));
                let ready = self.poll(left).map_err(Error::Wait)?;
                if ready.signal {
                    while let Ok(Some(_)) = self.signals.read_signal() {}
                    if until.is_none() {
                        return Ok(Event::StopRequested);
                    }
                }
                if ready.store {
                    self.store.event()?;
                    release = true;
                }
            }
            if release || again.is_some_and(|again| Instant::now() >= again) {
                again = None;
                match self.look(domid) {
                    Ok(Some(event)) => return Ok(event),
                    Ok(None) => {}
                    // A host short of memory may not be able to start a program now. The guest runs on.
                    Err(error) => {
                        tracing::warn!(ttvm_guest = %self.guest.name, "{}", chain(&error));
                        again = Some(Instant::now() + LOOK_AGAIN);
                    }
                }
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(Event::Late);
            }
        }
    }

    /// Some domain shut down or is gone. Ours?
    fn look(&mut self, domid: u32) -> Result<Option<Event>, Error> {
        if !domain::exists(&mut self.store, domid)? {
            return Ok(Some(Event::Gone));
        }
        match xl::shutdown_reason(domid, self.guest.uuid) {
            Ok(reason) => Ok(reason.map(Event::Down)),
            Err(run::Error::Failed { .. }) if !domain::exists(&mut self.store, domid)? => Ok(Some(Event::Gone)),
            Err(source) => Err(Error::Xl {
                action: "look at",
                guest: self.guest.name.clone(),
                source,
            }),
        }
    }

    /// Marks the run if a snapshot was lost, once, and listens for the next event of device-mapper.
    fn watch_snapshots(&mut self) -> Result<(), Error> {
        let Some(snapshots) = self.snapshots.as_ref().filter(|_| !self.record.snapshot_lost) else {
            return Ok(());
        };
        // First listen, then look: an event in between is not missed.
        snapshots.device_mapper().arm()?;
        let Some((lost, _)) = snapshots.status()?.into_iter().find(|(_, fill)| fill.is_lost()) else {
            return Ok(());
        };
        tracing::error!(
            ttvm_guest = %self.guest.name,
            ttvm_lv = %lost.volume,
            "{} overflowed: what the guest wrote is lost, this run is void; give the snapshot a larger size (or its thin pool more room) and start again",
            lost.volume
        );
        notify::status(&format!("running, but {} overflowed: this run is void", lost.volume));
        self.record.snapshot_lost = true;
        self.record.save(&self.guest.name);
        Ok(())
    }

    fn poll(&self, left: Option<Duration>) -> io::Result<Ready> {
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.store.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(snapshots) = self.snapshots.as_ref().filter(|_| !self.record.snapshot_lost) {
            fds.push(PollFd::new(snapshots.device_mapper().as_fd(), PollFlags::POLLIN));
        }
        let timeout = match left {
            None => PollTimeout::NONE,
            Some(left) => PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX),
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = |index: usize| fds[index].revents().is_some_and(|events| !events.is_empty());
        Ok(Ready {
            signal: ready(0),
            store: ready(1),
        })
    }

    fn end(&mut self, ending: Ending) {
        self.record.domid = None;
        self.record.until = Some(now());
        self.record.ending = Some(ending);
        tracing::info!(
            ttvm_guest = %self.guest.name,
            ttvm_run = %self.record.run,
            ttvm_ending = ?ending,
            "the run ended: {ending}"
        );
        notify::status(&format!("ended: {}", self.record.outcome().unwrap_or_default()));
        self.record.save(&self.guest.name);
    }
}

struct Ready {
    signal: bool,
    store: bool,
}

fn ending_of(reason: Shutdown) -> Ending {
    match reason {
        Shutdown::Poweroff => Ending::PoweredOff,
        Shutdown::Reboot | Shutdown::SoftReset => Ending::Rebooted,
        Shutdown::Suspend => Ending::Suspended,
        Shutdown::Crash => Ending::Crashed,
        Shutdown::Watchdog => Ending::Watchdog,
    }
}

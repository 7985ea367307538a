// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run of a guest on Xen, from `xl create` or `xm create` to its end: `ttvm-guest run`, the main process of
//! `ttvm@NAME.service`.
//!
//! It takes the place of xl's own monitor, follows the domain through Xen's store, snapshots through
//! device-mapper's events and systemd through signals, all in one poll. Nothing is asked twice a second.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use super::domain::{self, Presence};
use super::mode::{self, GuestNetwork};
use super::own_memory;
use super::preparation::Preparation;
use super::record::{Ending, Record};
use super::restarts::{self, Step};
use super::toolstack::{self, Shutdown, Tools};
use super::watch::{Watch, Woken};
use super::{Error, claim_for_run, config_file, write_config};
use crate::base::catalogue::Message;
use crate::base::clock::now;
use crate::base::error::{chain, one_line};
use crate::base::{fail_point, notify};
use crate::config::guest::{Guest, OnReboot, Toolstack};
use crate::config::guests;
use crate::config::host::HostConfig;
use crate::config::places::Places;
use crate::config::types::{GuestName, GuestUuid};
use crate::run;
use crate::snapshot::Store;
use crate::xenstore::{self, XenStore};

/// When a domain is looked at again that could not be looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

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
pub fn reap(guest: &GuestName, uuid: GuestUuid, toolstack: Toolstack) -> Result<(), Error> {
    if !xenstore::is_here() {
        return Ok(());
    }
    let mut store = XenStore::connect()?;
    let domains = domain::list(&mut store)?;
    if let Presence::Own(left) = domain::presence(&domains, guest, uuid) {
        tracing::warn!(
            message_id = Message::LeftBehind.id(),
            ttvm_guest = %guest,
            ttvm_domid = left.domid,
            "destroying domain {} that an earlier run left behind",
            left.domid
        );
        destroy(&*tools(guest, toolstack)?, guest, left.domid)?;
    }
    Ok(())
}

fn tools(guest: &GuestName, toolstack: Toolstack) -> Result<Box<dyn Tools>, Error> {
    toolstack::tools(Path::new("/"), toolstack).map_err(failed("start or end", guest))
}

fn destroy(tools: &dyn Tools, guest: &GuestName, domid: u32) -> Result<(), Error> {
    tools.destroy(guest, domid).map_err(failed("destroy", guest))
}

/// What becomes of a toolstack's error: the guest it could not `action`.
fn failed(action: &'static str, guest: &GuestName) -> impl FnOnce(run::Error) -> Error {
    let guest = guest.clone();
    move |source| Error::Toolstack { action, guest, source }
}

/// Runs the guest until it ends, if its snapshots have been made for this start.
pub fn run(guest: &Guest, host: &HostConfig) -> Result<Next, Error> {
    // Whoever changes the snapshots by hand at this moment has made them fresh when it is done.
    let Some(_claim) = claim_for_run(&guest.name)? else {
        return Ok(Next::Stop);
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
    tools: Box<dyn Tools>,
    watch: Watch,
    snapshots: Option<Store<'a>>,
    record: Record,
}

impl<'a> Run<'a> {
    fn new(guest: &'a Guest, host: &'a HostConfig) -> Result<Self, Error> {
        let watch = Watch::begin(Path::new("/"))?;
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
            tools: tools(&guest.name, guest.toolstack)?,
            watch,
            snapshots,
            record: Record::begin(&guest.name, true),
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
        let mut rebooted_at_once = 0;
        loop {
            let Some(domid) = self.start()? else {
                self.end(Ending::Stopped);
                return Ok(Next::Stop);
            };
            self.up(domid);
            let ending = match self.wait(domid, None)? {
                Event::StopRequested => self.stop(domid)?,
                Event::Down(Shutdown::Reboot | Shutdown::SoftReset) if self.guest.on_reboot == OnReboot::Keep => {
                    if self.watch.exists(domid)? {
                        destroy(&*self.tools, &self.guest.name, domid)?;
                    }
                    self.record.reboots += 1;
                    rebooted_at_once = match restarts::is_short(now().saturating_sub(self.record.since)) {
                        true => rebooted_at_once + 1,
                        false => 0,
                    };
                    if !self.again(rebooted_at_once)? {
                        self.end(Ending::Stopped);
                        return Ok(Next::Stop);
                    }
                    tracing::info!(ttvm_guest = %self.guest.name, "guest rebooted: starting it again on the disk it wrote");
                    continue;
                }
                Event::Down(reason) => {
                    if self.watch.exists(domid)? {
                        self.destroy_at_the_end(domid);
                    }
                    reason.into()
                }
                Event::Gone | Event::Late => Ending::Destroyed,
            };
            self.end(ending);
            return self.next(ending);
        }
    }

    /// Before a guest that rebooted is built once more: waits if it does that again and again, `times` by now. Whether it is to be
    /// built; not if systemd wants it stopped meanwhile.
    fn again(&mut self, times: u32) -> Result<bool, Error> {
        let pause = match restarts::after(times) {
            Step::Again(pause) if pause.is_zero() => return Ok(true),
            Step::Again(pause) => pause,
            Step::GiveUp => {
                let error = restarts::given_up(&self.guest.name, times);
                self.record.why = Some(one_line(&error));
                self.end(Ending::Rebooted);
                return Err(error);
            }
        };
        let text = restarts::slowed(times, pause);
        tracing::warn!(message_id = Message::Slowed.id(), ttvm_guest = %self.guest.name, "guest {text}");
        notify::status(&text);
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if self.watch.wait(Some(until), None)? == Woken::Signal {
                return Ok(false);
            }
        }
        Ok(true)
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
            Ending::Suspended => crashed("suspended itself, and a run cannot be resumed"),
            Ending::Rebooted if self.guest.on_reboot == OnReboot::Fresh => Ok(Next::Restart),
            _ => Ok(Next::Stop),
        }
    }

    /// Builds the domain and returns its id; `None` if systemd changed its mind meanwhile.
    fn start(&mut self) -> Result<Option<u32>, Error> {
        let guest = self.guest;
        self.watch.require_absent(guest)?;
        let Some(turn) = self.watch.turn(guest)? else {
            return Ok(None);
        };
        // Only now: as long as the turn is ours, the network mode does not change.
        let root = Path::new("/");
        let network = GuestNetwork::load(root);
        if let Err(error) = mode::announce(root, guest) {
            tracing::warn!(ttvm_guest = %guest.name, "dnsmasq cannot be told of the guest's addresses: {error}");
        }
        let source = guests::path(&Places::system(root), &guest.name);
        let config = config_file(root, &guest.name);
        write_config(&config, &toolstack::render(guest, &source, &network))?;
        fail_point::reach("guest.creating");
        let created = self.tools.create(guest, &config, self.watch.signals());
        drop(turn);
        fail_point::reach("guest.created");
        let domid = self.watch.domid(guest)?;
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
        // What was left half-built.
        if let Some(domid) = domid {
            destroy(&*self.tools, &guest.name, domid)?;
        }
        failed
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
        own_memory::give_back();
    }

    /// Asks the guest to shut down; destroys it if it does not in time.
    fn stop(&mut self, domid: u32) -> Result<Ending, Error> {
        if self.watch.at_once() {
            return self.kill(domid);
        }
        let limit = self.guest.shutdown_timeout;
        // Longer than the unit's own bound, if the guest's file says so; destroying may take its time as well.
        let extend = limit + Duration::from_secs(60);
        notify::stopping();
        let text = format!("waiting for the guest to shut down, at most {} s", limit.as_secs());
        notify::announce(&text, extend);
        tracing::info!(ttvm_guest = %self.guest.name, ttvm_domid = domid, "asking the guest to shut down");
        if let Err(error) = self.tools.shutdown(&self.guest.name, domid) {
            tracing::warn!(ttvm_guest = %self.guest.name, "the guest cannot be asked to shut down: {error}");
        }
        let ending = match self.wait(domid, Some(Instant::now() + limit))? {
            // However it went down, it was asked to.
            Event::Down(Shutdown::Crash) => Ending::Crashed,
            Event::Down(_) | Event::Gone => Ending::Stopped,
            Event::StopRequested => return self.kill(domid),
            Event::Late => {
                tracing::warn!(
                    message_id = Message::NotShutDown.id(),
                    ttvm_guest = %self.guest.name,
                    ttvm_domid = domid,
                    "the guest did not shut down within {} s: destroying it",
                    limit.as_secs()
                );
                Ending::Killed
            }
        };
        if self.watch.exists(domid)? {
            self.destroy_at_the_end(domid);
        }
        Ok(ending)
    }

    /// Destroys the domain, as somebody wants it at once.
    fn kill(&mut self, domid: u32) -> Result<Ending, Error> {
        notify::stopping();
        tracing::info!(ttvm_guest = %self.guest.name, ttvm_domid = domid, "destroying the domain, as `ttvm kill` asks for");
        if self.watch.exists(domid)? {
            self.destroy_at_the_end(domid);
        }
        Ok(Ending::KilledAtOnce)
    }

    /// How the run ended does not depend on this; what is left of the domain is destroyed again when the unit ends.
    fn destroy_at_the_end(&self, domid: u32) {
        if let Err(error) = destroy(&*self.tools, &self.guest.name, domid) {
            tracing::warn!(ttvm_guest = %self.guest.name, ttvm_domid = domid, "{}", chain(&error));
        }
    }

    /// Waits for something to happen to the domain, for systemd to want it stopped (if there is no deadline: with
    /// one, it is being stopped already, and can only be killed), or for the deadline.
    fn wait(&mut self, domid: u32, until: Option<Instant>) -> Result<Event, Error> {
        let mut again = None;
        loop {
            if let Err(error) = self.watch_snapshots() {
                tracing::warn!(ttvm_guest = %self.guest.name, "the snapshots cannot be watched: {}", chain(&error));
                self.snapshots = None;
            }
            let wake = [until, again].into_iter().flatten().min();
            let snapshots = self.snapshots.as_ref().filter(|_| !self.record.snapshot_lost);
            let woken = self.watch.wait(wake, snapshots.map(|it| it.device_mapper().as_fd()))?;
            if woken == Woken::Signal && (until.is_none() || self.watch.at_once()) {
                return Ok(Event::StopRequested);
            }
            if woken == Woken::Release || again.is_some_and(|again| Instant::now() >= again) {
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
        if !self.watch.exists(domid)? {
            return Ok(Some(self.gone(domid)));
        }
        match self.tools.reason(self.guest, domid) {
            Ok(reason) => Ok(reason.map(Event::Down)),
            Err(run::Error::Failed { .. }) if !self.watch.exists(domid)? => Ok(Some(self.gone(domid))),
            Err(error) => Err(failed("look at", &self.guest.name)(error)),
        }
    }

    fn gone(&self, domid: u32) -> Event {
        let reason = self.tools.last_reason(&self.guest.name, domid);
        reason.map_or(Event::Gone, Event::Down)
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
            message_id = Message::SnapshotLost.id(),
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

    fn end(&mut self, ending: Ending) {
        self.record.domid = None;
        self.record.end(ending);
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

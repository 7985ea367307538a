// SPDX-License-Identifier: MIT OR Apache-2.0
//! A recorded or replayed run of a domain, from ttd-deviced's start to its end.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Error;
use crate::base::catalogue::Message;
use crate::base::clock::now;
use crate::base::error::chain;
use crate::base::{fail_point, notify};
use crate::config::guest::Guest;
use crate::config::guests;
use crate::config::places::Places;
use crate::guest::mode::{self, GuestNetwork};
use crate::guest::record::Ending;
use crate::guest::toolstack::tt_xen::deviced::Deviced;
use crate::guest::toolstack::tt_xen::tail::Tail;
use crate::guest::toolstack::tt_xen::xm::{Mode, Xm};
use crate::guest::toolstack::tt_xen::xm_config;
use crate::guest::watch::{Watch, Woken};
use crate::guest::{Error as GuestError, config_file, write_config};
use crate::recording::Library;
use crate::recording::library::manifest::RunExit;
use crate::recording::record::Space;
use crate::recording::session::{Error as SessionError, Listener};
use crate::run;

/// Destroying a domain takes this long at most, and then some.
const DESTROYING: Duration = Duration::from_secs(150);

/// What runs, where, and what for.
pub(super) struct Domain<'a> {
    pub(super) root: &'a Path,
    pub(super) guest: &'a Guest,
    pub(super) xm: Xm,
    pub(super) mode: Mode<'a>,
    /// Whether it stands still until a person lets it go.
    pub(super) paused: bool,
    pub(super) watch: Watch,
}

/// When a run is ended that does not end by itself.
#[derive(Default)]
pub(super) struct Bounds<'a> {
    pub(super) limit: Option<Duration>,
    /// Whose room it needs.
    pub(super) library: Option<&'a Library>,
}

/// How a run ended.
pub(super) struct Ended {
    pub(super) exit: RunExit,
    pub(super) at: u64,
    /// Whether the disk was nearly full.
    pub(super) full: bool,
    /// What xenconsoled wrote down of it; `None` if it does not.
    pub(super) console: Option<Vec<u8>>,
}

/// Why the wait for a domain ended.
enum Event {
    Gone,
    StopRequested,
    Late,
    Full,
}

impl Domain<'_> {
    /// Runs it until it ends, or until it is told to: then it is asked to shut down if it is recorded. A replay takes no
    /// requests, which were not in the log.
    pub(super) fn run(
        mut self,
        bounds: &Bounds<'_>,
        text: &str,
        listener: &mut dyn Listener,
    ) -> Result<Ended, SessionError> {
        let guest = self.guest;
        self.watch.require_absent(guest).map_err(Error::from)?;
        let Some(turn) = self.watch.turn(guest).map_err(Error::from)? else {
            return Err(SessionError::Interrupted);
        };
        let deviced = Deviced::of(self.root, &guest.name, self.mode);
        if let Some(deviced) = &deviced {
            deviced.start().map_err(Error::from)?;
        }
        let console = Tail::of_console(self.root, &guest.name);
        let xend = Tail::of_xend(self.root);
        let created = self.create();
        drop(turn);
        let ended = created.and_then(|domid| {
            listener.ready(text);
            fail_point::reach("record.running");
            self.until_the_end(domid, bounds, &xend)
        });
        let lived = deviced.as_ref().map_or(Ok(true), |deviced| {
            // Asked before it is told to end.
            let lived = deviced.is_active();
            if let Err(error) = deviced.stop() {
                // systemd does it when our unit has ended.
                tracing::warn!(ttvm_guest = %guest.name, "{}", chain(&error));
            }
            lived
        });
        let (exit, full) = ended?;
        let unit = deviced.map(|deviced| deviced.unit()).unwrap_or_default();
        if !lived.map_err(Error::from)? {
            let guest = guest.name.clone();
            return Err(Error::DevicedDied { guest, unit }.into());
        }
        let console = console.read().unwrap_or_else(|error| {
            tracing::warn!(ttvm_guest = %guest.name, "cannot read {}: {error}", console.path().display());
            None
        });
        Ok(Ended {
            exit,
            at: now(),
            full,
            console,
        })
    }

    /// Builds the domain and returns its id.
    fn create(&mut self) -> Result<u32, SessionError> {
        let guest = self.guest;
        let network = GuestNetwork::load(self.root);
        if let Err(error) = mode::announce(self.root, guest) {
            tracing::warn!(ttvm_guest = %guest.name, "dnsmasq cannot be told of the guest's addresses: {error}");
        }
        let source = guests::path(&Places::system(self.root), &guest.name);
        let config = config_file(self.root, &guest.name);
        write_config(&config, &xm_config::render(guest, &source, &network)).map_err(Error::from)?;
        let cancel = Some(self.watch.signals());
        let created = self
            .xm
            .create(&config, self.mode, self.paused, guest.start_timeout, cancel);
        let domid = self.watch.domid(guest).map_err(Error::from)?;
        let failed = match (created, domid) {
            (Ok(()), Some(domid)) => return Ok(domid),
            (Ok(()), None) => SessionError::from(Error::from(GuestError::NoDomain {
                guest: guest.name.clone(),
            })),
            (Err(run::Error::Cancelled { .. }), _) => SessionError::Interrupted,
            (Err(source), _) => SessionError::from(Error::from(GuestError::Create {
                guest: guest.name.clone(),
                source,
            })),
        };
        // What xm left half-built.
        if domid.is_some() {
            self.destroy();
        }
        Err(failed)
    }

    fn until_the_end(&mut self, domid: u32, bounds: &Bounds<'_>, xend: &Tail) -> Result<(RunExit, bool), SessionError> {
        let event = match self.wait(domid, bounds) {
            Ok(event) => event,
            Err(error) => {
                // Nobody would look after it.
                self.destroy();
                return Err(error);
            }
        };
        let replayed = matches!(self.mode, Mode::Replay(_));
        match event {
            Event::Gone => Ok((exit_of(xend.ending(&self.guest.name, domid)), false)),
            Event::StopRequested | Event::Late | Event::Full if replayed => {
                notify::stopping();
                notify::extend(DESTROYING);
                self.destroy();
                Err(SessionError::Interrupted)
            }
            event => {
                self.stop(domid)?;
                Ok((RunExit::Stopped, matches!(event, Event::Full)))
            }
        }
    }

    /// Waits for the domain's end, or for a reason to end it.
    fn wait(&mut self, domid: u32, bounds: &Bounds<'_>) -> Result<Event, SessionError> {
        let end = bounds.limit.map(|limit| Instant::now() + limit);
        let mut space = bounds.library.map(Space::new).transpose()?;
        loop {
            let again = space.as_ref().map(|space| space.again);
            let until = [end, again].into_iter().flatten().min();
            match self.watch.wait(until, None).map_err(Error::from)? {
                Woken::Signal => return Ok(Event::StopRequested),
                Woken::Release if !self.watch.exists(domid).map_err(Error::from)? => return Ok(Event::Gone),
                Woken::Release | Woken::Nothing => {}
            }
            let now = Instant::now();
            if end.is_some_and(|end| now >= end) {
                return Ok(Event::Late);
            }
            if let (Some(library), Some(space)) = (bounds.library, &mut space)
                && now >= space.again
                && space.look(library, 0)?
            {
                return Ok(Event::Full);
            }
        }
    }

    /// Asks the guest to shut down; destroys it if it does not in time.
    fn stop(&mut self, domid: u32) -> Result<(), SessionError> {
        let name = &self.guest.name;
        let limit = self.guest.shutdown_timeout;
        let text = format!("waiting for the guest to shut down, at most {} s", limit.as_secs());
        notify::stopping();
        if self.watch.at_once() {
            notify::extend(DESTROYING);
            self.destroy();
            return Ok(());
        }
        notify::announce(&text, limit + DESTROYING);
        tracing::info!(ttvm_guest = %name, ttvm_domid = domid, "asking the guest to shut down");
        if let Err(error) = self.xm.shutdown(name) {
            tracing::warn!(ttvm_guest = %name, "the guest cannot be asked to shut down: {error}");
        }
        let until = Instant::now() + limit;
        while self.watch.exists(domid).map_err(Error::from)? {
            if Instant::now() >= until {
                tracing::warn!(
                    message_id = Message::NotShutDown.id(),
                    ttvm_guest = %name,
                    ttvm_domid = domid,
                    "the guest did not shut down within {} s: destroying it; a replay of this run has no end of its own",
                    limit.as_secs()
                );
                self.destroy();
                break;
            }
            // Asked twice, it has no more time.
            if self.watch.wait(Some(until), None).map_err(Error::from)? == Woken::Signal {
                self.destroy();
                break;
            }
        }
        Ok(())
    }

    /// How the run ended does not depend on this; what is left is destroyed again when the unit ends.
    fn destroy(&self) {
        if let Err(error) = self.xm.destroy(&self.guest.name) {
            tracing::warn!(ttvm_guest = %self.guest.name, "{}", chain(&GuestError::Toolstack {
                action: "destroy",
                guest: self.guest.name.clone(),
                source: error,
            }));
        }
    }
}

/// xend says of every domain that ends by itself how it did.
fn exit_of(ending: Option<Ending>) -> RunExit {
    match ending {
        Some(Ending::PoweredOff) => RunExit::PoweredOff,
        Some(Ending::Rebooted) => RunExit::Rebooted,
        Some(Ending::Crashed) => RunExit::Panicked,
        _ => RunExit::Ended,
    }
}

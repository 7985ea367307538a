// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm-run run|record|replay -- GUEST`: the main process of `ttvm-record@GUEST.service`, `ttvm-replay@GUEST.service`, and of
//! `ttvm@GUEST.service` if the guest is emulated.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::order::{self, Order};
use super::toolstack;
use crate::base::catalogue::Message;
use crate::base::clock::now;
use crate::base::error::{Classify, Exit};
use crate::base::{notify, signals};
use crate::config::guest::{Guest, OnReboot};
use crate::config::host::HostConfig;
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::config::{self, guests};
use crate::guest::preparation::Preparation;
use crate::guest::record::{Ending, Record};
use crate::guest::supervisor::Next;
use crate::guest::toolstack::qemu::RUNNER;
use crate::guest::{self, claim_for_run, unit};
use crate::recording::replay::{self, debugger};
use crate::recording::session::disks::Seals;
use crate::recording::session::limit::Limit;
use crate::recording::session::{Environment, Error as SessionError, Keys, Listener, plain};
use crate::recording::{Error as LibraryError, Id, Library, Verdict, record};

/// Between two lines for `systemctl status`.
const STATUS: Duration = Duration::from_secs(2);

/// What systemd is asked to allow for while something is read.
const READING: Duration = Duration::from_secs(120);

/// What a unit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `ttvm@`, emulated.
    Plain,
    /// `ttvm-record@`
    Record,
    /// `ttvm-replay@`
    Replay,
}

/// Why a unit failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The guest.
    #[error(transparent)]
    Guest(#[from] guest::Error),
    /// The library of recordings.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// What the unit was told to do.
    #[error(transparent)]
    Order(#[from] order::Error),
    /// The run.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// It was another run.
    #[error("{guest} {id} is not the same run: {verdict}")]
    Diverged {
        /// The guest.
        guest: GuestName,
        /// The recording.
        id: String,
        /// Where it differs.
        verdict: Box<Verdict>,
    },
}

impl Error {
    /// Whether somebody has stopped the unit, which is no failure. (A recording that was interrupted is another thing.)
    fn is_a_stop(&self) -> bool {
        match self {
            Self::Session(SessionError::Interrupted) => true,
            Self::Session(SessionError::Library(LibraryError::Interrupted))
            | Self::Library(LibraryError::Interrupted) => signals::waiting(),
            _ => false,
        }
    }
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(error) => error.exit(),
            Self::Guest(error) => error.exit(),
            Self::Library(error) => error.exit(),
            Self::Order(error) => error.exit(),
            Self::Session(error) => error.exit(),
            Self::Diverged { .. } => Exit::Diverged,
        }
    }

    fn message(&self) -> Option<Message> {
        match self {
            Self::Guest(error) => error.message(),
            Self::Session(error) => error.message(),
            Self::Diverged { .. } => Some(Message::Diverged),
            _ => None,
        }
    }
}

/// Reads the command line, runs the guest until it ends and returns the exit code.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (kind, unit, guest) = match words[..] {
        ["run", "--", guest] => (Kind::Plain, "ttvm", guest),
        ["record", "--", guest] => (Kind::Record, "ttvm-record", guest),
        ["replay", "--", guest] => (Kind::Replay, "ttvm-replay", guest),
        _ => {
            eprintln!("usage: {RUNNER} run|record|replay -- GUEST");
            return Exit::Usage.into();
        }
    };
    unit::main(RUNNER, unit, guest, |guest, host| serve(kind, guest, host))
}

/// Runs `guest` as `kind` says, until it ends.
fn serve(kind: Kind, guest: &Guest, host: &HostConfig) -> Result<Next, Error> {
    let name = &guest.name;
    let order = match kind {
        Kind::Plain => Ok(None),
        Kind::Record | Kind::Replay => Order::take(name),
    };
    let Some(_claim) = claim_for_run(name)? else {
        return Ok(Next::Stop);
    };
    let mut run = Record::begin(name, kind == Kind::Plain);
    let result = Preparation::check(name)
        .map_err(Error::from)
        .and_then(|()| Work::of(kind, order?, name).map_err(Error::from))
        .and_then(|what| work(&what, guest, host, &mut run))
        .or_else(|error| match error.is_a_stop() {
            true => Ok(Ending::Stopped),
            false => Err(error),
        });
    run.why = result.as_ref().err().map(|error| crate::base::error::one_line(error));
    run.end(match &result {
        Ok(ending) => *ending,
        Err(Error::Session(SessionError::Futile(_))) => Ending::Rebooted,
        Err(_) if run.up => Ending::Abandoned,
        Err(_) => Ending::NotStarted,
    });
    let outcome = run.outcome().unwrap_or_default();
    tracing::info!(ttvm_guest = %name, ttvm_run = %run.run, "the run ended: {outcome}");
    notify::status(&format!("ended: {outcome}"));
    run.save(name);
    result.map(|ending| match ending {
        Ending::Rebooted if kind == Kind::Plain && guest.on_reboot == OnReboot::Fresh => Next::Restart,
        _ => Next::Stop,
    })
}

/// What is done, by the unit and its order.
enum Work {
    /// A run that nobody records.
    Plain,
    /// A recorded run, up to `limit` if there is one.
    Record { limit: Option<Limit> },
    /// A replay; without a name, of the newest recording.
    Replay {
        recording: Option<Id>,
        gdb: bool,
        paused: bool,
        checkpoints: bool,
        any_engine: bool,
    },
}

impl Work {
    fn of(kind: Kind, order: Option<Order>, guest: &GuestName) -> Result<Self, order::Error> {
        Ok(match (kind, order) {
            (Kind::Plain, _) => Self::Plain,
            (Kind::Record, None) => Self::Record { limit: None },
            (Kind::Record, Some(Order::Record { limit })) => Self::Record { limit },
            (Kind::Replay, None) => Self::Replay {
                recording: None,
                gdb: false,
                paused: false,
                checkpoints: true,
                any_engine: false,
            },
            (
                Kind::Replay,
                Some(Order::Replay {
                    recording,
                    gdb,
                    paused,
                    checkpoints,
                    any_engine,
                }),
            ) => Self::Replay {
                recording: Some(recording),
                gdb,
                paused,
                checkpoints,
                any_engine,
            },
            (_, Some(order)) => return Err(order.of_another(guest)),
        })
    }
}

fn work(what: &Work, guest: &Guest, host: &HostConfig, run: &mut Record) -> Result<Ending, Error> {
    let places = Places::system(Path::new(toolstack::SYSTEM));
    let library = Library::open(places.state_dir());
    let environment = Environment {
        snapshot: &host.snapshot,
        overlays: places.state_dir().join("overlays"),
        seals: Seals::known(Preparation::load(&guest.name).and_then(|it| it.seals().map(<[_]>::to_vec))),
        prepared: true,
        shared: false,
    };
    let mut listener = Notifier::new(guest, run);
    let mut joined = match what {
        Work::Plain | Work::Record { .. } => toolstack::joined(guest),
        Work::Replay { .. } => None,
    };
    let keys = joined.as_mut().map(|joined| joined as &mut dyn Keys);
    match what {
        Work::Plain => Ok(plain::run(guest, &library, &environment, &mut listener, keys)?),
        Work::Record { limit } => {
            let path = guests::path(&places, &guest.name);
            let text = config::read(&places, &path)?;
            let options = record::Options { limit: *limit };
            let recorded = toolstack::record(guest, &text, &library, &environment, &options, &mut listener, keys)?;
            if let Some(cut) = &recorded.cut {
                tracing::warn!(message_id = cut.message().id(), ttvm_guest = %guest.name, "{cut}");
            }
            if matches!(recorded.cut, Some(record::Cut::Reboots { .. })) {
                return Ok(Ending::Rebooted);
            }
            Ok(
                match recorded.recording.manifest().result.as_ref().map(|result| result.exit) {
                    Some(crate::recording::library::manifest::RunExit::PoweredOff) => Ending::PoweredOff,
                    Some(crate::recording::library::manifest::RunExit::Rebooted) => Ending::Rebooted,
                    Some(crate::recording::library::manifest::RunExit::Panicked) => Ending::Crashed,
                    Some(crate::recording::library::manifest::RunExit::Ended) => Ending::Destroyed,
                    _ => Ending::Stopped,
                },
            )
        }
        Work::Replay {
            recording: wanted,
            gdb,
            paused,
            checkpoints,
            any_engine,
        } => {
            let wanted = wanted.as_ref().map(Id::to_string);
            let recording = library.find(&guest.name, wanted.as_deref())?;
            let options = replay::Options {
                gdb: gdb.then(|| debugger::Wanted {
                    socket: order::socket(&guest.name),
                    paused: *paused,
                }),
                at: None,
                packets: None,
                checkpoints: *checkpoints,
                engine: if *any_engine {
                    replay::Choice::Any
                } else {
                    replay::Choice::Installed
                },
            };
            match toolstack::replay(&recording, guest, &environment, &options, *paused, &mut listener) {
                Ok(Some(verdict @ Verdict::Diverged { .. })) => Err(Error::Diverged {
                    guest: guest.name.clone(),
                    id: recording.id().to_string(),
                    verdict: Box::new(verdict),
                }),
                Ok(Some(Verdict::Identical { .. })) => Ok(Ending::Identical),
                Ok(None) => Ok(Ending::Stopped),
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// Tells systemd how a run goes.
struct Notifier<'a> {
    guest: &'a Guest,
    run: &'a mut Record,
    told: Instant,
}

impl<'a> Notifier<'a> {
    fn new(guest: &'a Guest, run: &'a mut Record) -> Self {
        Self {
            guest,
            run,
            told: Instant::now(),
        }
    }
}

impl Listener for Notifier<'_> {
    fn console(&mut self, _text: &[u8]) {}

    fn ready(&mut self, text: &str) {
        tracing::info!(ttvm_guest = %self.guest.name, ttvm_run = %self.run.run, "{text}");
        notify::ready(&format!("{text}, {} of memory", self.guest.memory));
        self.run.up = true;
        self.run.since = now();
        self.run.save(&self.guest.name);
    }

    fn trouble(&mut self, why: Option<&str>) {
        notify::status(why.unwrap_or("running"));
        self.run.trouble = why.map(str::to_owned);
        self.run.save(&self.guest.name);
    }

    fn rebooted(&mut self) {
        tracing::info!(ttvm_guest = %self.guest.name, "guest rebooted: it starts again on the disk it wrote");
        self.run.reboots += 1;
        self.run.since = now();
        self.run.save(&self.guest.name);
    }

    fn progress(&mut self, what: &str, done: u64, total: u64) {
        if self.told.elapsed() < STATUS {
            return;
        }
        self.told = Instant::now();
        let percent = u128::from(done) * 100 / u128::from(total.max(1));
        let text = format!("{what}: {percent}%");
        match self.run.up {
            true => notify::status(&text),
            // Before READY=1 the unit's time to start would run out.
            false => notify::announce(&text, READING),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::watch::AT_ONCE;

    #[test]
    fn who_is_stopped_has_not_failed() {
        assert!(Error::from(SessionError::Interrupted).is_a_stop());
        // Nobody has sent this thread a signal.
        assert!(!Error::from(LibraryError::Interrupted).is_a_stop());
        assert!(!Error::from(SessionError::NoStep).is_a_stop());
        std::thread::spawn(|| {
            signals::hold(AT_ONCE);
            nix::sys::signal::raise(AT_ONCE).expect("a signal");
            assert!(Error::from(LibraryError::Interrupted).is_a_stop());
        })
        .join()
        .expect("it ends");
    }
}

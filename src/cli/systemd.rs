// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests' units: what systemd says of them, asked once for all of them, and the programs that tell it what to do.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use zbus::{Connection, OwnedObjectPath};

use crate::base::error::reason;
use crate::base::text::line;
use crate::config::types::GuestName;
use crate::run::{self, Command, Program};

pub(super) static SYSTEMCTL: Program = Program::new(&["systemctl"]);
pub(super) static JOURNALCTL: Program = Program::new(&["journalctl"]);

/// A unit may run, or take to start and stop, as long as it likes while it is waited for.
pub(super) const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// systemd's name on the system bus, its object and that one's interface (org.freedesktop.systemd1(5)).
pub(super) const NAME: &str = "org.freedesktop.systemd1";
pub(super) const PATH: &str = "/org/freedesktop/systemd1";
pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// How long an answer may take, on a host with one busy CPU.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why systemd cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Error {
    #[error("cannot wait for events")]
    Runtime(#[source] io::Error),
    #[error("cannot reach the system bus, by which systemd is asked: {0}; see `systemctl status dbus`")]
    NoBus(String),
    #[error("systemd does not say what runs: {0}")]
    NoAnswer(String),
}

impl From<zbus::Error> for Error {
    fn from(error: zbus::Error) -> Self {
        Self::NoAnswer(line(&error.to_string()).into_owned())
    }
}

/// A unit of a guest. No two of them are active at once (Conflicts=).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Plain,
    Record,
    Replay,
}

impl Unit {
    pub(super) const ALL: [Self; 3] = [Self::Plain, Self::Record, Self::Replay];

    fn template(self) -> &'static str {
        match self {
            Self::Plain => "ttvm@",
            Self::Record => "ttvm-record@",
            Self::Replay => "ttvm-replay@",
        }
    }

    /// Its name.
    pub(super) fn of(self, guest: &GuestName) -> String {
        format!("{}{guest}.service", self.template())
    }

    /// The one of that name, unless it is none of a guest's.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| name.starts_with(unit.template()))
    }
}

/// What a unit does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    Running,
    Recording,
    Replaying,
    Starting,
    Stopping,
    /// It failed, and is started again in a moment.
    Restarting,
    Stopped,
    Failed,
    /// systemd's own word for anything else.
    Other(String),
}

impl State {
    fn of(unit: Unit, active: &str, sub: &str) -> Self {
        match (active, sub) {
            ("active", _) => match unit {
                Unit::Plain => Self::Running,
                Unit::Record => Self::Recording,
                Unit::Replay => Self::Replaying,
            },
            ("inactive", _) => Self::Stopped,
            ("failed", _) => Self::Failed,
            _ if Self::is_restarting(active, sub) => Self::Restarting,
            ("activating", _) => Self::Starting,
            ("deactivating", _) => Self::Stopping,
            (other, _) => Self::Other(other.to_owned()),
        }
    }

    /// Whether systemd's words say that the unit failed and is started again.
    pub(super) fn is_restarting(active: &str, sub: &str) -> bool {
        active == "activating" && sub.starts_with("auto-restart")
    }

    /// Whether the guest is up.
    pub(super) fn is_up(&self) -> bool {
        matches!(self, Self::Running | Self::Recording | Self::Replaying)
    }

    /// Whether there is nothing to stop.
    pub(super) fn is_down(&self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Recording => "recording",
            Self::Replaying => "replaying",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Restarting => "restarting",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Other(word) => word,
        })
    }
}

/// Whether systemd runs this machine (sd_booted(3)).
pub(super) fn is_here() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The units of guests that systemd has in memory; all others are stopped.
#[derive(Debug, Default)]
pub(super) struct Units(BTreeMap<String, State>);

impl Units {
    /// What a unit of `guest` does.
    pub(super) fn state(&self, unit: Unit, guest: &GuestName) -> State {
        self.0.get(&unit.of(guest)).cloned().unwrap_or(State::Stopped)
    }

    /// The unit that says what becomes of `guest`: one that records or replays, or is about to, says more than the plain unit, which
    /// then does not run.
    pub(super) fn of(&self, guest: &GuestName) -> (Unit, State) {
        let others = [Unit::Replay, Unit::Record].map(|unit| (unit, self.state(unit, guest)));
        let busy = others.into_iter().find(|(_, state)| !state.is_down());
        busy.unwrap_or_else(|| (Unit::Plain, self.state(Unit::Plain, guest)))
    }
}

/// One question for all guests, which loads no unit that nobody needs.
pub(super) async fn units(bus: &Connection) -> Result<Units, Error> {
    /// Name, description, load state, active state, sub state, followed unit, object, job, its kind and object.
    type Row = (
        String,
        String,
        String,
        String,
        String,
        String,
        OwnedObjectPath,
        u32,
        String,
        OwnedObjectPath,
    );
    let patterns = Unit::ALL.map(|unit| format!("{}*.service", unit.template()));
    let any: [&str; 0] = [];
    let question = (&any[..], &patterns[..]);
    let asked = bus.call_method(Some(NAME), PATH, Some(MANAGER), "ListUnitsByPatterns", &question);
    let answer = in_time(asked).await.map_err(Error::NoAnswer)??;
    let rows: Vec<Row> = answer.body().deserialize()?;
    let states = rows.into_iter().filter_map(|(name, _, _, active, sub, ..)| {
        let state = State::of(Unit::named(&name)?, &active, &sub);
        Some((name, state))
    });
    Ok(Units(states.collect()))
}

/// What comes of `asked`, or that nothing came in time.
pub(in crate::cli) async fn in_time<T>(asked: impl Future<Output = T>) -> Result<T, String> {
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    answer.map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))
}

/// The connection to the system bus.
pub(super) async fn connect() -> Result<Connection, Error> {
    // Whoever listens there may take the connection and say nothing.
    let connected = in_time(Connection::system()).await.map_err(Error::NoBus)?;
    connected.map_err(|error| match error {
        zbus::Error::Connection(error, _) | zbus::Error::InputOutput(error) => Error::NoBus(reason(&error)),
        error => Error::NoBus(line(&error.to_string()).into_owned()),
    })
}

/// Does `work`, which waits for the bus and other events, on this thread.
pub(super) fn block_on<T, E: From<Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    runtime.block_on(work)
}

/// [`units`], for those who have no connection.
pub(super) fn units_now() -> Result<Units, Error> {
    block_on(async { units(&connect().await?).await })
}

/// What `systemctl show` says of `units`, in their order: the values of `properties`, in theirs.
pub(super) fn show<const N: usize>(units: &[String], properties: [&str; N]) -> Result<Vec<[String; N]>, run::Error> {
    let output = Command::new(&SYSTEMCTL)
        .arg("show")
        .arg(format!("--property={}", properties.join(",")))
        .arg("--")
        .args(units)
        .run()?;
    let blocks = output.stdout.trim_end().split("\n\n");
    Ok(blocks
        .map(|block| properties.map(|name| property(block, name)))
        .collect())
}

fn property(block: &str, name: &str) -> String {
    let mut values = block
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    values.next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_that_says_what_becomes_of_a_guest() {
        let guest: GuestName = "a".parse().expect("a name");
        let of = |states: &[(&str, State)]| {
            let states = states.iter().map(|(name, state)| ((*name).to_owned(), state.clone()));
            Units(states.collect()).of(&guest)
        };
        assert_eq!(of(&[]), (Unit::Plain, State::Stopped));
        assert_eq!(of(&[("ttvm@a.service", State::Failed)]), (Unit::Plain, State::Failed));
        assert_eq!(
            of(&[
                ("ttvm@a.service", State::Stopped),
                ("ttvm-record@a.service", State::Starting)
            ]),
            (Unit::Record, State::Starting)
        );
        // What became of an earlier replay is not what the guest does.
        assert_eq!(
            of(&[
                ("ttvm@a.service", State::Running),
                ("ttvm-replay@a.service", State::Failed)
            ]),
            (Unit::Plain, State::Running)
        );
    }

    #[test]
    fn words_of_systemd() {
        let name = "ttvm-replay@a.b.service";
        let unit = Unit::named(name).expect("a unit");
        assert_eq!(unit, Unit::Replay);
        assert_eq!(State::of(unit, "active", "running"), State::Replaying);
        assert_eq!(State::of(unit, "activating", "auto-restart"), State::Restarting);
        assert_eq!(State::of(unit, "activating", "start-pre"), State::Starting);
        assert_eq!(State::of(unit, "maintenance", "").to_string(), "maintenance");
        assert_eq!(Unit::named("ttvm-netd.service"), None);
        let block = "Id=a\nStatusText=x=y\nResult=";
        assert_eq!(property(block, "StatusText"), "x=y");
        assert_eq!(property(block, "Status"), "");
    }
}

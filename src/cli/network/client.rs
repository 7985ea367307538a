// SPDX-License-Identifier: MIT OR Apache-2.0
//! The connection to the service, and its errors as sentences.

use std::io::{self, IsTerminal};

use zbus::fdo::{self, DBusProxy};
use zbus::names::BusName;
use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::wire::DynamicDeserialize;
use zbus::{DynamicType, OwnedObjectPath};

use super::Asking;
use crate::base::error::{Classify, Exit, reason};
use crate::base::text::line;
use crate::cli::systemd::in_time;
use crate::netd::proxy::{ManagerProxy, NAME, Plan, answer};
use crate::network::{Attachment, Mode, Preview, error};

/// Why the service did not do what was asked for.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Error {
    #[error("`ttvm network` asks the service of this host: {0} cannot be used with it")]
    Elsewhere(&'static str),
    #[error("cannot wait for events")]
    Runtime(#[source] io::Error),
    #[error("cannot reach the system bus, by which the service {NAME} is asked: {0}; see `systemctl status dbus`")]
    NoBus(String),
    #[error("there is no service {NAME} on this host; install the package ttvm again")]
    NotInstalled,
    #[error("the service {NAME} does not start: {0}; see `journalctl -u ttvm-netd`")]
    NotStarted(String),
    #[error("the service {NAME} is run by user {0} and not by root: nothing is asked of it")]
    NotRoot(u32),
    #[error("you may not do this: run it as root")]
    Denied,
    #[error(
        "you may not do this without a password: run it as root, or without --no-ask-password where an agent of polkit can ask for one"
    )]
    NotAsked,
    /// What the service says.
    #[error("{text}")]
    Answer { name: String, text: String },
    #[error("there is no change to be confirmed or undone")]
    NothingPending,
    /// How a change ended that was made here.
    #[error("{0}")]
    Undone(String),
    #[error("{0}")]
    Lost(String),
    #[error(
        "the service {NAME} is not understood; if the package has just been renewed, `systemctl restart ttvm-netd`"
    )]
    Protocol(#[source] zbus::Error),
    #[error(
        "the service {NAME} says {0}, which is not understood; if the package has just been renewed, `systemctl restart ttvm-netd`"
    )]
    Word(String),
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Elsewhere(_) => Exit::Usage,
            Self::Answer { name, .. } => error::exit_of(name),
            Self::NothingPending | Self::NotRoot(_) => Exit::Refused,
            _ => Exit::Failed,
        }
    }
}

impl From<zbus::Error> for Error {
    fn from(error: zbus::Error) -> Self {
        let Some((name, text)) = answer(&error) else {
            return match error {
                zbus::Error::InputOutput(_) => Self::Lost("the connection to the system bus was lost".to_owned()),
                error => Self::Protocol(error),
            };
        };
        // What is not of the service is of the bus or of polkit.
        match name.strip_prefix("org.freedesktop.DBus.Error.") {
            None => Self::Answer { name, text },
            Some("AccessDenied" | "AuthFailed") => Self::Denied,
            Some("InteractiveAuthorizationRequired") => Self::NotAsked,
            Some("ServiceUnknown") => Self::NotInstalled,
            Some(spawn) if spawn.starts_with("Spawn.") => Self::NotStarted(text),
            Some("NoReply" | "Disconnected" | "NameHasNoOwner") => Self::Lost(format!(
                "the service {NAME} ended before it answered; see `journalctl -u ttvm-netd`, and `ttvm network status` for what has become of it"
            )),
            Some("UnknownMethod" | "UnknownInterface" | "UnknownObject" | "UnknownProperty") => Self::Protocol(error),
            Some(_) => Self::Answer { name, text },
        }
    }
}

impl From<fdo::Error> for Error {
    fn from(error: fdo::Error) -> Self {
        Self::from(zbus::Error::from(error))
    }
}

/// The service.
pub(super) struct Client {
    pub(super) manager: ManagerProxy<'static>,
    flags: MethodFlags,
}

impl Client {
    /// A connection, for those who change something.
    pub(super) async fn connect(asking: &Asking) -> Result<Self, Error> {
        let mut client = Self::connect_to_read().await?;
        // Without a terminal there is nobody to answer.
        if !asking.no_ask_password && io::stdin().is_terminal() {
            client.flags = MethodFlags::ALLOW_INTERACTIVE_AUTH;
        }
        Ok(client)
    }

    /// A connection, for those who only look.
    pub(super) async fn connect_to_read() -> Result<Self, Error> {
        let connected = in_time(zbus::Connection::system()).await.map_err(Error::NoBus)?;
        let bus = connected.map_err(|error| match error {
            zbus::Error::Connection(error, _) | zbus::Error::InputOutput(error) => Error::NoBus(reason(&error)),
            error => Error::NoBus(line(&error.to_string()).into_owned()),
        })?;
        let daemon = DBusProxy::builder(&bus)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        is_run_by_root(&daemon).await?;
        // The answer to a question is one look at the service; nothing is kept here that could be old.
        let manager = ManagerProxy::builder(&bus)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        Ok(Self {
            manager,
            flags: MethodFlags::default(),
        })
    }

    /// Calls a method that changes something.
    pub(super) async fn change<B, R>(&self, method: &str, body: &B) -> Result<R, Error>
    where
        B: serde::Serialize + DynamicType,
        R: for<'d> DynamicDeserialize<'d>,
    {
        let call = self.manager.inner().call_with_flags(method, self.flags, body);
        // There is no reply only to calls that want none.
        call.await?.ok_or(Error::Protocol(zbus::Error::InvalidReply))
    }

    /// The change on its way.
    pub(super) async fn pending(&self) -> Result<OwnedObjectPath, Error> {
        match self.manager.pending_transaction().await? {
            path if path.as_str() == "/" => Err(Error::NothingPending),
            path => Ok(path),
        }
    }
}

/// Starts the service if it does not run, and looks whose it is: who owns its name could say anything and be believed.
/// On a bus of its own, which only root could put in the place of the system's for root, a test is its own service.
async fn is_run_by_root(daemon: &DBusProxy<'_>) -> Result<(), Error> {
    let name = BusName::try_from(NAME).map_err(Error::Protocol)?;
    let owner = match daemon.get_name_owner(name.clone()).await {
        Err(fdo::Error::NameHasNoOwner(_)) => {
            let name = NAME.try_into().map_err(Error::Protocol)?;
            daemon.start_service_by_name(name, 0).await.map_err(start)?;
            daemon
                .get_name_owner(BusName::try_from(NAME).map_err(Error::Protocol)?)
                .await?
        }
        owner => owner?,
    };
    if std::env::var_os("DBUS_SYSTEM_BUS_ADDRESS").is_some() {
        return Ok(());
    }
    match daemon.get_connection_unix_user(owner.into()).await? {
        0 => Ok(()),
        user => Err(Error::NotRoot(user)),
    }
}

/// Why it does not start; without systemd's units the bus says so in other words.
fn start(error: fdo::Error) -> Error {
    match Error::from(error) {
        Error::Answer { text, .. } => Error::NotStarted(text),
        error => error,
    }
}

/// The service's words for a mode.
fn mode(text: &str) -> Result<Mode, Error> {
    text.parse().map_err(|_| Error::Word(format!("{text:?} for a mode")))
}

/// A plan as the service gives it.
pub(super) fn preview((from, to, steps, afterwards, warnings, moves_uplink): Plan) -> Result<Preview, Error> {
    Ok(Preview {
        from: mode(&from)?,
        to: mode(&to)?,
        steps,
        afterwards,
        warnings,
        moves_uplink,
    })
}

/// The interfaces of guests.
pub(super) async fn attachments(client: &Client) -> Result<Vec<Attachment>, Error> {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let rows = client.manager.list_attachments().await?.into_iter();
    let rows = rows.map(|(domid, devid, guest, vif, bridge, script, stays)| Attachment {
        domid,
        devid,
        guest: some(guest),
        vif,
        bridge,
        script,
        stays: some(stays),
    });
    Ok(rows.collect())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bridge in a zone of firewalld, over its D-Bus interface (firewalld.dbus(5)).
//!
//! firewalld drops what it has no rule for, whatever ttvm's own table says; and what is added here is gone when it
//! restarts or reloads, as a program's rules should be: it is for the caller to add the bridge again then.

use std::env;

use serde_json::Value;

use crate::base::error::{Classify, Exit};
use crate::config::types::InterfaceName;
use crate::run::{self, Command, Program};

static BUSCTL: Program = Program::new(&["busctl"]);

const NAME: &str = "org.fedoraproject.FirewallD1";

/// Another bus than the system's, for tests; sd-bus(3) knows it by the same name.
const BUS: &str = "DBUS_SYSTEM_BUS_ADDRESS";

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a name firewalld takes (firewalld.zone(5)).
    #[error(
        "{0:?} is not a zone of firewalld: 1 to 17 letters, digits, \"_\", \"-\" or \"/\"; `firewall-cmd --get-zones` lists them"
    )]
    ZoneName(String),
    /// There is no such zone.
    #[error("firewalld has no zone {0}; `firewall-cmd --get-zones` lists those it has")]
    NoSuchZone(String),
    /// Somebody put the interface in another zone.
    #[error(
        "{interface} is in the zone {zone} of firewalld already; take it out with `firewall-cmd --zone={zone} --remove-interface={interface}`, or name that zone in /etc/ttvm/ttvm.toml"
    )]
    OtherZone {
        /// The interface.
        interface: InterfaceName,
        /// Where it is.
        zone: String,
    },
    /// Nobody answers to its name.
    #[error("firewalld does not run; start it with `systemctl start firewalld`")]
    NotRunning,
    /// It, or the bus, refused.
    #[error("firewalld cannot be asked")]
    Call(#[source] run::Error),
    /// The answer is not what its documentation says.
    #[error("firewalld answers {answer:?} to {method}, which is not what firewalld.dbus(5) says")]
    Answer {
        /// What was asked.
        method: &'static str,
        /// What busctl printed.
        answer: String,
    },
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::ZoneName(_) | Self::NoSuchZone(_) => Exit::Config,
            Self::OtherZone { .. } => Exit::Refused,
            Self::NotRunning | Self::Call(_) | Self::Answer { .. } => Exit::Failed,
        }
    }
}

/// Whether firewalld runs; it is not started by the question.
pub fn is_running() -> Result<bool, Error> {
    let method = "NameHasOwner";
    let call = [
        "org.freedesktop.DBus",
        "/org/freedesktop/DBus",
        "org.freedesktop.DBus",
        method,
        "s",
        NAME,
    ];
    match busctl(&call) {
        Ok(answer) => first(&answer)
            .and_then(|value| value.as_bool())
            .ok_or(Error::Answer { method, answer }),
        // Then neither does firewalld, which needs a bus.
        Err(run::Error::NotInstalled { .. }) => Ok(false),
        Err(error) => Err(Error::Call(error)),
    }
}

/// The zone `interface` was put in; `None` if it is in none, which means the default one, or if firewalld does not
/// run.
pub fn zone_of(interface: &InterfaceName) -> Result<Option<String>, Error> {
    let method = "getZoneOfInterface";
    let answer = match zone_call(method, &["s", interface.as_str()]) {
        Ok(answer) => answer,
        Err(_) if !is_running()? => return Ok(None),
        Err(error) => return Err(Error::Call(error)),
    };
    match first(&answer) {
        Some(Value::String(zone)) if zone.is_empty() => Ok(None),
        Some(Value::String(zone)) => Ok(Some(zone)),
        _ => Err(Error::Answer { method, answer }),
    }
}

/// Puts `interface` in `zone` until firewalld reloads; fine if it is there already.
pub fn add(zone: &str, interface: &InterfaceName) -> Result<(), Error> {
    check(zone)?;
    match zone_call("addInterface", &["ss", zone, interface.as_str()]) {
        Ok(_) => Ok(()),
        Err(error) => match code(&error) {
            Some("ALREADY_ENABLED" | "ZONE_ALREADY_SET") => Ok(()),
            Some("INVALID_ZONE") => Err(Error::NoSuchZone(zone.to_owned())),
            // Asked after the answer: it may have been moved since.
            Some("ZONE_CONFLICT") => match zone_of(interface)? {
                Some(other) if other != zone => Err(Error::OtherZone {
                    interface: interface.clone(),
                    zone: other,
                }),
                Some(_) => Ok(()),
                None => Err(Error::Call(error)),
            },
            _ if !is_running()? => Err(Error::NotRunning),
            _ => Err(Error::Call(error)),
        },
    }
}

/// Takes `interface` out of `zone`; fine if it is not in it, or if firewalld does not run.
pub fn remove(zone: &str, interface: &InterfaceName) -> Result<(), Error> {
    check(zone)?;
    match zone_call("removeInterface", &["ss", zone, interface.as_str()]) {
        Ok(_) => Ok(()),
        Err(error) => match code(&error) {
            // In no zone, or in another one, where it is not ours.
            Some("NOT_ENABLED" | "UNKNOWN_INTERFACE" | "ZONE_CONFLICT" | "INVALID_ZONE") => Ok(()),
            _ if !is_running()? => Ok(()),
            _ => Err(Error::Call(error)),
        },
    }
}

fn check(zone: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-/".contains(c);
    let begins = zone.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    match begins && zone.len() <= 17 && !zone.ends_with('/') && zone.chars().all(allowed) {
        true => Ok(()),
        false => Err(Error::ZoneName(zone.to_owned())),
    }
}

fn zone_call(method: &'static str, args: &[&str]) -> Result<String, run::Error> {
    let object = [
        NAME,
        "/org/fedoraproject/FirewallD1",
        "org.fedoraproject.FirewallD1.zone",
        method,
    ];
    busctl(&[&object, args].concat())
}

fn busctl(call: &[&str]) -> Result<String, run::Error> {
    // A firewall that somebody stopped stays stopped.
    let options = ["--system", "--auto-start=no", "--json=short", "call", "--"];
    let mut command = Command::new(&BUSCTL).args(options).args(call.iter().copied());
    if let Ok(address) = env::var(BUS) {
        command = command.env(BUS, address);
    }
    Ok(command.run()?.stdout)
}

/// The first value of an answer: `{"type":"s","data":["trusted"]}`.
fn first(answer: &str) -> Option<Value> {
    let mut answer: Value = serde_json::from_str(answer).ok()?;
    Some(answer.get_mut("data")?.get_mut(0)?.take())
}

/// What firewalld calls an error: `Call failed: ZONE_CONFLICT: 'ttbr0' already bound to 'public'`. The name of the
/// D-Bus error is the same for all.
fn code(error: &run::Error) -> Option<&str> {
    let run::Error::Failed { stderr, .. } = error else {
        return None;
    };
    let (_, text) = stderr.split_once("Call failed: ")?;
    let end = text.find(|c: char| !c.is_ascii_uppercase() && c != '_')?;
    Some(&text[..end])
}

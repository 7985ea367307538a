// SPDX-License-Identifier: MIT OR Apache-2.0
//! A setting of the kernel's network (/proc/sys/net).

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Change, Context};
use crate::network::Error;

const IPV4: &str = "net/ipv4/conf/";
const FORWARDING: &str = "/forwarding";

/// Whether somebody has made the host a router between all its networks (`ip_forward`).
pub fn everything_is_forwarded() -> Result<bool, Error> {
    Ok(read(&format!("{IPV4}all{FORWARDING}"))?.as_deref() == Some("1"))
}

/// A value, and the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctl {
    /// Below /proc/sys: `net/ipv4/conf/eth0/forwarding`.
    key: String,
    value: String,
    before: String,
}

impl Sysctl {
    /// Packets that come in through `interface` are forwarded. `None` if they are already.
    pub fn forwarding(interface: &str) -> Result<Option<Self>, Error> {
        let key = format!("{IPV4}{interface}{FORWARDING}");
        Ok(read(&key)?.filter(|before| before != "1").map(|before| Self {
            key,
            value: "1".to_owned(),
            before,
        }))
    }

    /// The interface it is about.
    pub fn interface(&self) -> &str {
        let name = self
            .key
            .strip_prefix(IPV4)
            .and_then(|rest| rest.strip_suffix(FORWARDING));
        name.unwrap_or_default()
    }

    /// Whether it is that one for `interface`.
    pub fn forwards(&self, interface: &str) -> bool {
        self.interface() == interface
    }
}

fn path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}

/// The value of `key`; `None` if there is no such key, or not any more.
pub(super) fn read(key: &str) -> Result<Option<String>, Error> {
    match fs::read_to_string(path(key)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(source) => Err(failed("read", key, source)),
    }
}

/// Sets `key`, if it is there.
pub(super) fn write(key: &str, value: &str) -> Result<(), Error> {
    match fs::write(path(key), value) {
        Err(error) if !is_gone(&error) => Err(failed("write", key, error)),
        _ => Ok(()),
    }
}

/// An interface may go at any moment.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

fn failed(action: &'static str, key: &str, source: io::Error) -> Error {
    Error::File {
        action,
        path: path(key),
        source,
    }
}

impl Change for Sysctl {
    fn apply(&self, _: &mut Context<'_>) -> Result<(), Error> {
        write(&self.key, &self.value)
    }

    fn undo(&self, _: &mut Context<'_>) -> Result<(), Error> {
        // If somebody has changed it since, it is theirs; also by the switch for all of them.
        match read(&self.key)? {
            Some(value) if value == self.value && !everything_is_forwarded()? => write(&self.key, &self.before),
            _ => Ok(()),
        }
    }

    fn missing(&self, _: &mut Context<'_>) -> Result<Option<String>, Error> {
        Ok(read(&self.key)?
            .filter(|value| *value != self.value)
            .map(|value| format!("{} is {value}, not {}", self.key, self.value)))
    }

    fn undoing(&self) -> String {
        format!("set {} back to {}", self.key, self.before)
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "set {} to {}", self.key, self.value)
    }
}

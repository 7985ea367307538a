// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands of TT Xen's xm that ttvm runs. What they return is run's own error: whoever supervises says whose guest it was.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::deviced::RunDirectory;
use crate::config::types::GuestName;
use crate::run::{Command, Error, find};

/// xend's own limit for devices is 100 s (DEVICE_DESTROY_TIMEOUT and DEVICE_CREATE_TIMEOUT in its DevController.py).
const DESTROY_LIMIT: Duration = Duration::from_secs(120);

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode<'a> {
    /// Nothing but itself.
    Plain,
    /// It is recorded, into this directory.
    Record(&'a RunDirectory),
    /// The run that is recorded in this directory happens again.
    Replay(&'a RunDirectory),
}

impl Mode<'_> {
    /// The value of xm's `time_travel`; a plain run has none.
    pub fn time_travel(&self) -> Option<String> {
        match self {
            Self::Plain => None,
            Self::Record(directory) => Some(format!("ttd_flag=1,tt_dir={directory}")),
            Self::Replay(directory) => Some(format!("ttd_flag=1,tt_dir={directory},tt_replay_flag=1")),
        }
    }
}

/// xm, where the system has it.
#[derive(Debug, Clone)]
pub struct Xm {
    program: PathBuf,
}

impl Xm {
    /// The one of the system in the tree that begins at `root`.
    pub fn find(root: &Path) -> Result<Self, Error> {
        find(root, "xm")
            .map(|program| Self { program })
            .ok_or(Error::NotInstalled { program: "xm" })
    }

    fn command<'a>(&self, action: &str) -> Command<'a> {
        Command::file(self.program.clone()).arg(action)
    }

    /// Builds the domain that `config` describes, and starts it unless it is to be `paused`; returns when it is there. Ended
    /// before `limit` is over if `cancel` becomes readable.
    ///
    /// A recorded or replayed run has ttd-deviced running before ([`deviced::start`](super::deviced::Deviced::start)).
    pub fn create(
        &self,
        config: &Path,
        mode: Mode<'_>,
        paused: bool,
        limit: Duration,
        cancel: Option<BorrowedFd<'_>>,
    ) -> Result<(), Error> {
        let time_travel = mode.time_travel().map(|value| format!("time_travel={value}"));
        let command = self
            .command("create")
            .arg(config.to_string_lossy())
            .args(time_travel)
            .args(paused.then_some("-p"))
            .deadline(limit);
        match cancel {
            Some(fd) => command.cancel_on(fd),
            None => command,
        }
        .run()
        .map(drop)
    }

    /// Asks the guest to shut down. Does not wait for it.
    pub fn shutdown(&self, guest: &GuestName) -> Result<(), Error> {
        self.command("shutdown").arg(guest.as_str()).run().map(drop)
    }

    /// Ends the domain. One that is not there any more, because it ended by itself meanwhile, is well ended.
    pub fn destroy(&self, guest: &GuestName) -> Result<(), Error> {
        let destroyed = self
            .command("destroy")
            .arg(guest.as_str())
            .deadline(DESTROY_LIMIT)
            .run();
        match destroyed {
            Err(Error::Failed { .. }) if self.domid(guest)?.is_none() => Ok(()),
            other => other.map(drop),
        }
    }

    /// The version of the Xen that runs, as `xm info` says it; `None` if it does not answer.
    pub fn version(&self) -> Option<String> {
        parse_version(&self.command("info").run().ok()?.stdout)
    }

    /// The id of the guest's domain; `None` if there is none.
    pub fn domid(&self, guest: &GuestName) -> Result<Option<u32>, Error> {
        // `xm list NAME` fails for an unknown name just as it does without xend.
        let output = self.command("list").run()?;
        Ok(parse_domid(&output.stdout, guest))
    }
}

/// `xen_major : 3`, `xen_minor : 0`, `xen_extra : -unstable`: `3.0-unstable`.
fn parse_version(info: &str) -> Option<String> {
    let value = |key: &str| {
        let mut pairs = info.lines().filter_map(|line| line.split_once(':'));
        pairs
            .find(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim())
    };
    let (major, minor) = (value("xen_major")?, value("xen_minor")?);
    Some(format!("{major}.{minor}{}", value("xen_extra").unwrap_or_default()))
}

/// `Name ID Mem VCPUs State Time(s)`. xend also lists domains that it knows and that do not run: with neither id nor state, so
/// that their memory stands second.
fn parse_domid(list: &str, guest: &GuestName) -> Option<u32> {
    list.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [name, id, _memory, _vcpus, _state, _time] if name == guest.as_str() => id.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let info = "host : a\nxen_major              : 3\nxen_minor : 0\nxen_extra              : -unstable\nxen_caps : xen-3.0-x86_32\n";
        assert_eq!(parse_version(info).as_deref(), Some("3.0-unstable"));
        assert_eq!(parse_version("Error: xend is not running\n"), None);
    }

    #[test]
    fn domids() {
        let list = "\
Name                                      ID   Mem VCPUs      State   Time(s)
Domain-0                                   0   500     1     r-----   1275.5
clientAB                                   7    96     1     -b----     16.1
clientA                                   12    96     1     --p---      0.0
clientC                                         96     1                 0.0
";
        let domid = |name: &str| parse_domid(list, &name.parse().expect("a name"));
        assert_eq!(domid("clientA"), Some(12));
        assert_eq!(domid("clientAB"), Some(7));
        assert_eq!(domid("clientC"), None);
        assert_eq!(domid("client"), None);
        assert_eq!(domid("Name"), None);
    }
}

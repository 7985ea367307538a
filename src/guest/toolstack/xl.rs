// SPDX-License-Identifier: MIT OR Apache-2.0
//! The xl commands that ttvm runs.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use super::tools::{Shutdown, Tools};
use crate::config::guest::Guest;
use crate::config::types::{GuestName, GuestUuid};
use crate::run::{Command, Error, Program};

pub(super) static XL: Program = Program::new(&["xl"]);

/// xl's own limits are 10 s for backends and 40 s for hotplug scripts.
const DESTROY_LIMIT: Duration = Duration::from_secs(90);

/// Xen's own toolstack.
pub(super) struct Xl;

impl Tools for Xl {
    /// No xl stays behind to watch the domain (`-e`): the supervisor does.
    fn create(&self, guest: &Guest, config: &Path, cancel: BorrowedFd<'_>) -> Result<(), Error> {
        Command::new(&XL)
            .args(["create", "-q", "-e"])
            .arg(config.to_string_lossy())
            .deadline(guest.start_timeout)
            .cancel_on(cancel)
            .run()
            .map(drop)
    }

    /// By its power button if it has no Xen drivers.
    fn shutdown(&self, _guest: &GuestName, domid: u32) -> Result<(), Error> {
        Command::new(&XL)
            .args(["shutdown", "-F"])
            .arg(domid.to_string())
            .run()
            .map(drop)
    }

    fn destroy(&self, _guest: &GuestName, domid: u32) -> Result<(), Error> {
        Command::new(&XL)
            .arg("destroy")
            .arg(domid.to_string())
            .deadline(DESTROY_LIMIT)
            .run()
            .map(drop)
    }

    fn reason(&self, guest: &Guest, domid: u32) -> Result<Option<Shutdown>, Error> {
        let output = Command::new(&XL).args(["list", "-v"]).arg(domid.to_string()).run()?;
        Ok(parse_reason(&output.stdout, guest.uuid))
    }

    /// xl keeps nothing of a domain that is gone.
    fn last_reason(&self, _guest: &GuestName, _domid: u32) -> Option<Shutdown> {
        None
    }

    /// The store is right: a domain that xl has built cannot write there what it is.
    fn own(&self, _guest: &GuestName, domains: Vec<u32>) -> Result<Vec<u32>, Error> {
        Ok(domains)
    }
}

/// `Name ID Mem VCPUs State Time(s) UUID Reason-Code Security-Label`; the code is `-` while the domain runs. The name,
/// which anybody may have changed (`xl rename`), can be of several words.
fn parse_reason(list: &str, uuid: GuestUuid) -> Option<Shutdown> {
    let mut words = list.split_whitespace();
    words.find(|word| *word == uuid.to_string())?;
    words.next()?.parse().ok().and_then(Shutdown::from_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        let list = |code: &str| {
            format!(
                "Name ID Mem VCPUs State Time(s) UUID Reason-Code Security Label\n\
                 client A 1 96 1 ---s-- 3.1 6f1c0c1e-0000-0000-0000-000000000000 {code} -\n"
            )
        };
        let uuid: GuestUuid = "6f1c0c1e-0000-0000-0000-000000000000".parse().expect("a UUID");
        let reason = |list: &str| parse_reason(list, uuid);
        assert_eq!(reason(&list("-")), None);
        assert_eq!(reason(&list("0")), Some(Shutdown::Poweroff));
        assert_eq!(reason(&list("3")), Some(Shutdown::Crash));
        assert_eq!(reason(""), None);
    }
}

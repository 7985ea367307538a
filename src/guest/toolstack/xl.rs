// SPDX-License-Identifier: MIT OR Apache-2.0
//! The xl commands that ttvm runs.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use crate::config::types::GuestUuid;
use crate::guest::record::Ending;
use crate::run::{Command, Error, Program};

static XL: Program = Program::new(&["xl"]);

/// xl's own limits are 10 s for backends and 40 s for hotplug scripts.
const DESTROY_LIMIT: Duration = Duration::from_secs(90);

/// Why a domain does not run any more: Xen's shutdown codes (xen/include/public/sched.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::guest) enum Shutdown {
    Poweroff,
    Reboot,
    Suspend,
    Crash,
    Watchdog,
    SoftReset,
}

impl Shutdown {
    fn from_code(code: u32) -> Option<Self> {
        [
            Self::Poweroff,
            Self::Reboot,
            Self::Suspend,
            Self::Crash,
            Self::Watchdog,
            Self::SoftReset,
        ]
        .get(code as usize)
        .copied()
    }
}

impl From<Shutdown> for Ending {
    fn from(reason: Shutdown) -> Self {
        match reason {
            Shutdown::Poweroff => Self::PoweredOff,
            Shutdown::Reboot | Shutdown::SoftReset => Self::Rebooted,
            Shutdown::Suspend => Self::Suspended,
            Shutdown::Crash => Self::Crashed,
            Shutdown::Watchdog => Self::Watchdog,
        }
    }
}

/// Builds and starts the domain; returns when it runs. No xl stays behind to watch it (`-e`): the supervisor does.
pub(in crate::guest) fn create(config: &Path, limit: Duration, cancel: BorrowedFd<'_>) -> Result<(), Error> {
    Command::new(&XL)
        .args(["create", "-q", "-e"])
        .arg(config.to_string_lossy())
        .deadline(limit)
        .cancel_on(cancel)
        .run()
        .map(drop)
}

/// Asks the guest to shut down, by its power button if it has no Xen drivers. Does not wait for it.
pub(in crate::guest) fn shutdown(domid: u32) -> Result<(), Error> {
    Command::new(&XL)
        .args(["shutdown", "-F"])
        .arg(domid.to_string())
        .run()
        .map(drop)
}

/// Ends the domain and waits until its devices are released.
pub(in crate::guest) fn destroy(domid: u32) -> Result<(), Error> {
    Command::new(&XL)
        .arg("destroy")
        .arg(domid.to_string())
        .deadline(DESTROY_LIMIT)
        .run()
        .map(drop)
}

/// Why the domain has shut down; `None` while it runs.
pub(in crate::guest) fn shutdown_reason(domid: u32, uuid: GuestUuid) -> Result<Option<Shutdown>, Error> {
    let output = Command::new(&XL).args(["list", "-v"]).arg(domid.to_string()).run()?;
    Ok(parse_reason(&output.stdout, uuid))
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

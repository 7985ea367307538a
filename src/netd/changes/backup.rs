// SPDX-License-Identifier: MIT OR Apache-2.0
//! systemd's timer that undoes a change if this service does not: killed, hung, or started no more.
//!
//! Its program looks at the change's own deadline (`ttvm-netd rollback ID`), so that a timer that has become too early by
//! an extension does nothing, and one too many does no harm. Its clock (OnActiveSec=) stands still while the host is
//! asleep, the deadline's does not: after that the timer is late, and the service is not.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libsystemd::daemon;

use crate::run::{Command, Error, Program};

static SYSTEMD_RUN: Program = Program::new(&["systemd-run"]);
static SYSTEMCTL: Program = Program::new(&["systemctl"]);

const SELF: &str = "/usr/libexec/ttvm/ttvm-netd";
/// The service itself comes first.
const LATER: Duration = Duration::from_secs(5);
/// How long it may take to arm a timer.
pub const ARMING: Duration = Duration::from_secs(30);
/// The longest a change may take to be made: its deadline is known only afterwards.
pub const APPLY: Duration = Duration::from_secs(120);

/// Whether there is a systemd that can be asked, and a host that it is about.
#[derive(Debug, Clone, Copy)]
pub struct Backup(bool);

impl Backup {
    /// For the system below `root`.
    pub fn new(root: &Path) -> Self {
        let there = root == Path::new("/") && daemon::booted();
        if !there {
            tracing::warn!("systemd does not run this host: if this service is killed, nobody undoes a change in time");
        }
        Self(there)
    }

    /// Makes sure that the change `id` is undone once its deadline is over, looking after `after` from now. Timers that
    /// were armed before for the same change are kept: until this one runs there is never none.
    pub fn arm(self, id: u64, after: Duration) -> Result<(), Error> {
        if !self.0 {
            return Ok(());
        }
        let unique = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Command::new(&SYSTEMD_RUN)
            .arg("--quiet")
            .arg("--collect")
            .arg(format!("--unit={}{}", prefix(id), unique.as_micros()))
            .arg(format!(
                "--description=Undo change {id} of the network if nobody has confirmed it"
            ))
            .arg(format!("--on-active={}", (after + LATER).as_secs()))
            .arg("--timer-property=AccuracySec=1s")
            // Whoever has the lock may hang.
            .args(["--property=Restart=on-failure", "--property=RestartSec=10"])
            .arg("--")
            .args([SELF, "rollback"])
            .arg(id.to_string())
            .run()?;
        Ok(())
    }

    /// The change `id` is over.
    pub fn disarm(self, id: u64) {
        if !self.0 {
            return;
        }
        // A rollback that runs just now is not stopped: it finds nothing to do.
        let stopped = Command::new(&SYSTEMCTL)
            .args(["--quiet", "stop"])
            .arg(format!("{}*.timer", prefix(id)))
            .run();
        if let Err(error) = stopped {
            tracing::warn!("the timer of change {id} is not stopped and will find nothing to do: {error}");
        }
    }
}

fn prefix(id: u64) -> String {
    format!("ttvm-network-rollback-{id}-")
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! systemd's timer that undoes a change if this service does not: killed, hung, or started no more.
//!
//! Its program looks at the change's own deadline (`ttvm-netd rollback ID`), so that a timer that has become too early by
//! an extension does nothing, and one too many does no harm.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libsystemd::daemon;

use crate::run::{Command, Error, Program};

static SYSTEMD_RUN: Program = Program::new(&["systemd-run"]);
static SYSTEMCTL: Program = Program::new(&["systemctl"]);

const SELF: &str = "/usr/libexec/ttvm/ttvm-netd";
/// The service itself comes first.
const LATER: Duration = Duration::from_secs(5);
/// The longest a change may take to be made: its deadline is known only afterwards.
pub const APPLY: Duration = Duration::from_secs(120);

/// Makes sure that the change `id` is undone once its deadline is over, looking after `after` from now. Timers that were
/// armed before for the same change are kept: until this one runs there is never none.
pub fn arm(id: u64, after: Duration) -> Result<(), Error> {
    if !daemon::booted() {
        tracing::warn!("systemd does not run this host: nobody undoes change {id} if this service is killed");
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
        .arg("--")
        .args([SELF, "rollback"])
        .arg(id.to_string())
        .run()?;
    Ok(())
}

/// The change `id` is over.
pub fn disarm(id: u64) {
    if !daemon::booted() {
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

fn prefix(id: u64) -> String {
    format!("ttvm-network-rollback-{id}-")
}

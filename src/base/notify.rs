// SPDX-License-Identifier: MIT OR Apache-2.0
//! What systemd is told of a unit (sd_notify(3)). Run by hand there is nobody to tell, and that is no failure.

use std::time::Duration;

use libsystemd::daemon::NotifyState;

/// The unit is up.
pub fn ready(text: &str) {
    tell(&[NotifyState::Ready, status_of(text)]);
}

/// The unit is going down.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// What `systemctl status` shows; one line.
pub fn status(text: &str) {
    tell(&[status_of(text)]);
}

/// What comes next, and that it may take up to `limit` (EXTEND_TIMEOUT_USEC= only ever lengthens a timeout).
pub fn announce(text: &str, limit: Duration) {
    tell(&[status_of(text), extension(limit)]);
}

/// That what comes next may take up to `limit`.
pub fn extend(limit: Duration) {
    tell(&[extension(limit)]);
}

fn status_of(text: &str) -> NotifyState {
    NotifyState::Status(crate::base::text::line(text).into_owned())
}

fn extension(limit: Duration) -> NotifyState {
    NotifyState::Other(format!("EXTEND_TIMEOUT_USEC={}", limit.as_micros()))
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = libsystemd::daemon::notify(false, states) {
        tracing::warn!("systemd cannot be told: {error}");
    }
}

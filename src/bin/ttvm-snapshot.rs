// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm-snapshot reset|discard [--reap] -- GUEST`: what `ttvm@GUEST.service` runs before and after a guest.
//!
//! `--reap` is for the unit, at moments when no run is alive: it first destroys a domain that an earlier run of the
//! guest left behind, and after a reset leaves the proof of it for the supervisor.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use libsystemd::daemon::{NotifyState, notify};
use ttvm::config::guest::Guest;
use ttvm::config::host::HostConfig;
use ttvm::config::{self, guests, host};
use ttvm::error::{Classify, Exit, chain};
use ttvm::guest::{supervisor, token};
use ttvm::snapshot::Store;
use ttvm::{log, run};

const PROGRAM: &str = "ttvm-snapshot";

#[derive(Clone, Copy)]
enum Action {
    Reset,
    Discard,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (action, reap, guest) = match words[..] {
        ["reset", "--reap", "--", guest] => (Action::Reset, true, guest),
        ["reset", "--", guest] => (Action::Reset, false, guest),
        ["discard", "--reap", "--", guest] => (Action::Discard, true, guest),
        ["discard", "--", guest] => (Action::Discard, false, guest),
        _ => {
            eprintln!("usage: {PROGRAM} reset|discard [--reap] -- GUEST");
            return Exit::Usage.into();
        }
    };
    log::init(PROGRAM, Some(&format!("ttvm@{guest}.service")));
    match work(action, reap, guest) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            tracing::error!(ttvm_guest = guest, "{}", chain(&*error));
            if reap {
                // Shown by `systemctl status`; run by the unit there is somebody to tell.
                drop(notify(false, &[NotifyState::Status(error.to_string())]));
            }
            error.exit().into()
        }
    }
}

fn work(action: Action, reap: bool, guest: &str) -> Result<(), Box<dyn Classify>> {
    let root = Path::new("/");
    let name = guest.parse().map_err(|error| boxed(config::Error::Name(error)))?;
    let host = host::load(root).map_err(boxed)?;
    let guest = guests::load(root, &host, &name).map_err(boxed)?;
    let result = change(action, reap, &guest, &host);
    if reap && matches!(action, Action::Reset) {
        token::leave(&guest.name, result.as_ref().copied().map_err(|error| &**error)).map_err(boxed)?;
    }
    result
}

fn change(action: Action, reap: bool, guest: &Guest, host: &HostConfig) -> Result<(), Box<dyn Classify>> {
    if reap {
        // As long as the host's settings allow it to wait, and then some for LVM.
        let limit = host.snapshot.lock_timeout + host.snapshot.busy_timeout + Duration::from_secs(180);
        drop(notify(
            false,
            &[NotifyState::Other(format!("EXTEND_TIMEOUT_USEC={}", limit.as_micros()))],
        ));
        supervisor::reap(guest).map_err(boxed)?;
    }
    if guest.snapshots().next().is_none() {
        return Ok(());
    }
    let store = Store::open(guest, &host.snapshot).map_err(boxed)?;
    match action {
        Action::Reset => store.reset(),
        Action::Discard => store.discard(),
    }
    .map_err(boxed)?;
    tracing::info!(
        ttvm_guest = %guest.name,
        ttvm_commands = run::spawned(),
        "{} ({} commands run)",
        match action {
            Action::Reset => "snapshots are fresh",
            Action::Discard => "no snapshot is left",
        },
        run::spawned()
    );
    Ok(())
}

fn boxed(error: impl Classify + 'static) -> Box<dyn Classify> {
    Box::new(error)
}

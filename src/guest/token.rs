// SPDX-License-Identifier: MIT OR Apache-2.0
//! The proof that a guest's snapshots were made for this very start: `/run/ttvm/NAME.token`.
//!
//! `ttvm-snapshot` (ExecStartPre=) leaves it under the start's invocation id, `ttvm-guest` (ExecStart=) takes it away
//! and starts nothing without it. It also carries a refusal to the unit's main process, because systemd looks at the
//! exit status of that process alone to decide whether a failed start is tried again (RestartPreventExitStatus= in
//! systemd.service(5)): a start that only a person can put right is not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{DIRECTORY, Error};
use crate::config::types::GuestName;
use crate::error::{Classify, Exit, chain};
use crate::file;

#[derive(Serialize, Deserialize)]
struct Token {
    /// The invocation id that systemd gives each start of a unit (systemd.exec(5)).
    run: String,
    failure: Option<Failure>,
}

/// Why the snapshots were not made.
#[derive(Serialize, Deserialize)]
struct Failure {
    exit: Exit,
    why: String,
}

fn path(guest: &GuestName) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{guest}.token"))
}

/// The id of this start; `None` if systemd does not run us.
pub(super) fn invocation() -> Option<String> {
    std::env::var("INVOCATION_ID").ok()
}

/// Leaves the outcome of making the snapshots for this start.
pub fn leave(guest: &GuestName, outcome: Result<(), &dyn Classify>) -> Result<(), Error> {
    let token = Token {
        run: invocation().unwrap_or_default(),
        failure: outcome.err().map(|error| Failure {
            exit: error.exit(),
            why: chain(error),
        }),
    };
    let path = path(guest);
    fs::create_dir_all(DIRECTORY)
        .and_then(|()| file::replace(&path, &serde_json::to_vec(&token)?, 0o600))
        .map_err(|source| Error::Write { path, source })
}

/// Takes the outcome away: `Ok` if the snapshots were made for this start.
pub(super) fn take(guest: &GuestName) -> Result<(), Error> {
    let path = path(guest);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(Error::Read { path, source }),
    };
    let token: Option<Token> = serde_json::from_slice(&text).ok();
    match token.filter(|token| Some(&token.run) == invocation().as_ref()) {
        Some(Token { failure: None, .. }) => fs::remove_file(&path).map_err(|source| Error::Write { path, source }),
        Some(Token {
            failure: Some(Failure { exit, why }),
            ..
        }) => Err(Error::NoSnapshots {
            guest: guest.clone(),
            exit,
            why,
        }),
        None => Err(Error::NoToken { guest: guest.clone() }),
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the main processes of guests' units have in common.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::Error;
use super::preparation::invocation;
use super::record::{Ending, Record};
use super::restarts::{self, Step};
use super::supervisor::Next;
use super::watch::AT_ONCE;
use crate::base::catalogue::Message;
use crate::base::error::{Classify, Exit, chain, one_line};
use crate::base::{log, notify, signals};
use crate::config::guest::Guest;
use crate::config::host::{self, HostConfig};
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::config::{self, guests};

/// "Start me again": the code systemd-nspawn uses for the same, named in the unit's RestartForceExitStatus=.
const RESTART: u8 = 133;

/// The unit that systemd starts again by itself: of those that record and replay another run would be another recording.
const PLAIN: &str = "ttvm";

/// What is left after a pause, to end in.
const START: Duration = Duration::from_secs(30);

/// Does the `work` of `unit` for the guest of that name as `program`, and tells systemd by the exit code how it ended.
pub fn main<E>(
    program: &'static str,
    unit: &str,
    guest: &str,
    work: impl FnOnce(&Guest, &HostConfig) -> Result<Next, E>,
) -> ExitCode
where
    E: Classify + From<config::Error> + 'static,
{
    // It waits until somebody looks for it: by itself it would end us with a core dump.
    signals::hold(AT_ONCE);
    log::init(program, Some(&format!("{unit}@{guest}.service")));
    let load = || -> Result<Next, E> {
        let places = Places::system(Path::new("/"));
        let name = guest.parse().map_err(config::Error::Name)?;
        let host = host::load(&places)?;
        let guest = guests::load(&places, &host, &name)?;
        for warning in guest.warnings() {
            tracing::warn!(ttvm_guest = %guest.name, "{warning}");
        }
        work(&guest, &host)
    };
    let result = load();
    if let Err(error) = &result {
        let message = error.message().unwrap_or_else(|| note_failure(unit, guest, error));
        tracing::error!(message_id = message.id(), ttvm_guest = guest, "{}", chain(error));
    }
    let (code, again) = match result {
        Ok(Next::Stop) => (Exit::Done.into(), false),
        Ok(Next::Restart) => (RESTART.into(), true),
        Err(error) => (error.exit().into(), error.exit() == Exit::Failed),
    };
    let Some(name) = guest.parse().ok().filter(|_| unit == PLAIN) else {
        return code;
    };
    let slowed = if again { slow_down(&name) } else { Ok(()) };
    // Whoever stops it does not want it again, either.
    let stopped = again && signals::waiting();
    if !again || stopped || slowed.is_err() {
        not_again(&name);
    }
    match slowed {
        Ok(()) if stopped => Exit::Done.into(),
        Ok(()) => code,
        Err(error) => {
            tracing::error!(
                message_id = Message::GivenUp.id(),
                ttvm_guest = guest,
                "{}",
                chain(&error)
            );
            notify::status(&one_line(&error));
            error.exit().into()
        }
    }
}

/// Writes down that systemd does not start `guest` again, if that makes a difference.
fn not_again(guest: &GuestName) {
    if let Some(mut last) = this_run(guest).filter(|last| last.again && restarts::count(last) > 0) {
        last.again = false;
        last.save(guest);
    }
}

/// The newest run of `guest`, if that is the one this program is for.
fn this_run(guest: &GuestName) -> Option<Record> {
    Record::load(Path::new("/"), guest).filter(|last| Some(&last.run) == invocation().as_ref())
}

/// What kind of failure it is, by how far the run of `guest` came. Of one that was not even begun, that is written down here.
fn note_failure(unit: &str, guest: &str, error: &impl Classify) -> Message {
    // Nothing is remembered of a name that is no guest's.
    let is_a_guest = |name: &GuestName| guests::require_file(&Places::system(Path::new("/")), name).is_ok();
    let Some(guest) = guest.parse().ok().filter(is_a_guest) else {
        return Message::NotStarted;
    };
    match this_run(&guest) {
        Some(run) if run.ending == Some(Ending::NotStarted) => Message::NotStarted,
        Some(_) => Message::RunFailed,
        None => {
            let mut run = Record::begin(&guest, unit == PLAIN);
            run.why = Some(one_line(error));
            run.end(Ending::NotStarted);
            run.save(&guest);
            Message::NotStarted
        }
    }
}

/// Before systemd starts `guest` again: waits if its last runs came to nothing.
///
/// # Errors
///
/// If it is not to be started again.
fn slow_down(guest: &GuestName) -> Result<(), Error> {
    // Of a run that could not even be written down, only systemd knows.
    let Some(last) = this_run(guest) else {
        return Ok(());
    };
    let times = restarts::count(&last);
    let outcome = last.ending.map_or_else(String::new, |ending| ending.to_string());
    match restarts::after(times) {
        Step::GiveUp => Err(Error::Futile {
            guest: guest.clone(),
            times,
            how: format!("came to nothing (the last time: {outcome})"),
        }),
        // Whoever waits for the first start is told at once.
        Step::Again(pause) if !pause.is_zero() => {
            let text = format!(
                "came to nothing {times} times in a row (the last time: {outcome}); started again in {} s",
                pause.as_secs()
            );
            tracing::warn!(message_id = Message::Slowed.id(), ttvm_guest = %guest, "{text}");
            // A unit that has not come up is still being started.
            notify::announce(&text, pause + START);
            signals::pause(pause).map_err(Error::Wait)
        }
        Step::Again(_) => Ok(()),
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the boot of an entry that is tried is a success, and what follows from it: `ttvm boot confirm`, and
//! `ttvm-boot`, which the units of a tried boot run.

use std::fs;
use std::iter;
use std::path::Path;

use super::BootMenu;
use super::refusal::Error;
use crate::boot::entry_id::EntryId;
use crate::boot::grub::settings;
use crate::boot::running_xen::RunningXen;
use crate::config::boot::OkConfig;
use crate::run::{self, Command, Program};
use crate::xenstore::is_dom0;

static SYSTEMCTL: Program = Program::new(&["systemctl"]);
static XL: Program = Program::new(&["xl"]);
static XM: Program = Program::new(&["xm"]);

/// The timers that reset a tried boot.
const DEADLINES: &str = "ttvm-boot-deadline@*.timer";

/// Notes that this boot is well, stops its deadline and, if that was asked for, makes its entry the default.
pub fn confirm(menu: &mut BootMenu<'_>) -> Result<EntryId, Error> {
    let noted = menu.confirm();
    if matches!(noted, Err(Error::NotOnTrial)) {
        return noted;
    }
    // Whether or not it could be written down: a host that is well is not reset.
    let stop = Command::new(&SYSTEMCTL).args(["stop", "--", DEADLINES]).run();
    stop.map_err(|source| Error::Run {
        what: "stop the deadline of this boot",
        source,
    })?;
    for setting in ["softlockup_panic", "hung_task_panic"] {
        // For the try only; not every kernel has both.
        drop(fs::write(Path::new("/proc/sys/kernel").join(setting), "0"));
    }
    let id = noted?;
    if menu.keeps() {
        menu.set_default(id, settings::write_menu)?;
    }
    Ok(id)
}

/// `Err` says why this boot is not well.
pub fn is_well(menu: &BootMenu<'_>, config: &OkConfig) -> Result<(), String> {
    if menu.booted().is_some_and(EntryId::is_xen) {
        xen_info().map_err(|error| format!("Xen does not answer: {error}"))?;
    }
    // It is ordered after that, but would also be started if it cannot be reached any more.
    let units = iter::once("multi-user.target".to_owned()).chain(config.units.iter().cloned());
    let failed = inactive(&units.collect::<Vec<_>>()).map_err(|error| format!("systemd does not answer: {error}"))?;
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("not active: {}", failed.join(", "))),
    }
}

/// Those of `units` that are not active.
fn inactive(units: &[String]) -> Result<Vec<String>, run::Error> {
    let output = Command::new(&SYSTEMCTL)
        .args(["show", "--property=ActiveState", "--value", "--"])
        .args(units.iter().cloned())
        .run()?;
    let states = output.stdout.split('\n').filter(|line| !line.is_empty());
    let pairs = units.iter().zip(states.chain(std::iter::repeat("unknown")));
    Ok(pairs
        .filter(|(_, state)| *state != "active")
        .map(|(unit, state)| format!("{unit} ({state})"))
        .collect())
}

/// What systemd is still waiting for, in words.
pub fn unfinished() -> String {
    let jobs = Command::new(&SYSTEMCTL)
        .args(["list-jobs", "--no-legend", "--no-pager"])
        .run();
    let Ok(jobs) = jobs else {
        return "systemd does not answer".to_owned();
    };
    // JOB UNIT TYPE STATE; what only waits for others is not the reason.
    let running: Vec<&str> = jobs
        .stdout
        .lines()
        .filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [_, unit, _, "running"] => Some(unit),
            _ => None,
        })
        .filter(|unit| !unit.starts_with("ttvm-boot-"))
        .collect();
    match running.is_empty() {
        true => "nothing was being started any more".to_owned(),
        false => format!("still being started: {}", running.join(", ")),
    }
}

/// The Xen that runs; `None` if none does. One program, or two where only TT Xen's answers.
pub fn running_xen() -> Result<Option<RunningXen>, run::Error> {
    match is_dom0(Path::new("/")) {
        true => Ok(Some(RunningXen::parse(&xen_info()?))),
        false => Ok(None),
    }
}

/// What Xen's toolstack says of it.
fn xen_info() -> Result<String, run::Error> {
    let ask = |program| Command::new(program).arg("info").run();
    // TT Xen answers xm only.
    let info = ask(&XL).or_else(|error| ask(&XM).map_err(|_| error))?;
    Ok(info.stdout)
}

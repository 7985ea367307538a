// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the boot of an entry that is tried is a success, and what follows from it: `ttvm boot confirm`, and
//! `ttvm-boot`, which the units of a tried boot run.

use std::path::Path;
use std::thread;

use super::entry::EntryId;
use super::next::{BootMenu, Error};
use super::settings;
use crate::config::boot::OkConfig;
use crate::run::{Command, Program};

static SYSTEMCTL: Program = Program::new(&["systemctl"]);
static XL: Program = Program::new(&["xl"]);

/// The timers that reset a tried boot.
const DEADLINES: &str = "ttvm-boot-deadline@*.timer";

/// Notes that this boot is well, stops its deadline and, if that was asked for, makes its entry the default.
pub fn confirm(menu: &mut BootMenu<'_>) -> Result<EntryId, Error> {
    let id = menu.confirm()?;
    // After it: a machine that stops here is well, and known to be.
    let stop = Command::new(&SYSTEMCTL).args(["stop", "--", DEADLINES]).run();
    stop.map_err(|source| Error::Run {
        what: "stop the deadline of this boot; the machine will be reset",
        source,
    })?;
    if menu.keeps() {
        menu.set_default(id, settings::write_menu)?;
    }
    Ok(id)
}

/// Waits as long as `config` says, then looks: `Err` says why this boot is not well.
pub fn is_well(menu: &BootMenu<'_>, config: &OkConfig) -> Result<(), String> {
    // It is not something that is waited for, but that nothing goes wrong meanwhile.
    thread::sleep(config.delay);
    if menu.booted().is_some_and(EntryId::is_xen) {
        let info = Command::new(&XL).arg("info").run();
        info.map_err(|error| format!("Xen does not answer: {error}"))?;
    }
    let failed = inactive(&config.units).map_err(|error| format!("systemd does not answer: {error}"))?;
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("not active: {}", failed.join(", "))),
    }
}

/// Those of `units` that are not active.
fn inactive(units: &[String]) -> Result<Vec<String>, crate::run::Error> {
    if units.is_empty() {
        return Ok(Vec::new());
    }
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

/// What Xen was told at boot; `None` without Xen.
pub fn xen_command_line(root: &Path) -> Option<String> {
    if root != Path::new("/") || !Path::new("/proc/xen/capabilities").exists() {
        return None;
    }
    let info = Command::new(&XL).arg("info").run().ok()?;
    let line = info
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("xen_commandline"))?;
    Some(line.trim_start_matches([' ', ':']).to_owned())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's record and replay, and room for recordings.

use super::host::rough;
use crate::config::types::Size;
use crate::doctor::answers::{Answers, Asked};
use crate::doctor::check::{Area, Check};
use crate::doctor::facts::Facts;
use crate::doctor::purpose::Need;
use crate::qemu::engine::faults;
use crate::recording::record::ROOM;

const AREA: Area = Area::Recordings;

/// Less free space than this is used up in a day of recording.
const LITTLE: u64 = 2 << 30;

pub(in crate::doctor) fn check(facts: &Facts, answers: &Answers) -> Vec<Check> {
    let mut checks = vec![qemu(facts, answers)];
    if facts.purpose.qemu.is_any() || facts.purpose.tt_xen {
        checks.push(room(facts, answers));
    }
    checks
}

fn qemu(facts: &Facts, answers: &Answers) -> Check {
    const ID: &str = "qemu";
    let need = facts.purpose.qemu;
    if let Need::No(why) = need {
        return Check::skipped(AREA, ID, format!("not needed: {why}"));
    }
    let version = match &answers.qemu {
        Asked::Answer(version) => version,
        Asked::Failed(why) => {
            let (sentence, remedy) = why
                .split_once(": ")
                .unwrap_or((why, "reinstall the package qemu-system-x86"));
            return need.wrong(AREA, ID, sentence, remedy);
        }
        Asked::Elsewhere | Asked::Nobody | Asked::Denied => {
            return Check::skipped(AREA, ID, "the QEMU of another system is not run");
        }
    };
    let number = version.text.split(' ').next().unwrap_or_default();
    match (faults::known(version), faults::is_tested(version)) {
        (Some(fault), _) => Check::warn(
            AREA,
            ID,
            format!("QEMU {number} is known not to replay well: {fault}"),
            "install another version: ttvm is tested with those of Debian 12 (7.2) and 13 (10.0)",
        ),
        (None, true) => Check::ok(
            AREA,
            ID,
            format!("QEMU {number} is there, a version that ttvm is tested with"),
        ),
        (None, false) => Check::ok(
            AREA,
            ID,
            format!(
                "QEMU {number} is there; ttvm is not tested with it, and each replay's verdict tells whether it replays well"
            ),
        ),
    }
}

fn room(facts: &Facts, answers: &Answers) -> Check {
    const ID: &str = "room";
    let directory = facts.places.state_dir().display();
    let remedy = "remove recordings (`ttvm recordings rm`), or keep them elsewhere (`--state-dir`)";
    match &answers.free_space {
        Asked::Answer(free) => {
            let shown = rough(*free);
            match *free {
                ..ROOM => Check::fail(
                    AREA,
                    ID,
                    format!(
                        "{shown} are free in {directory}: no recording is begun with less than {}",
                        Size::from_bytes(ROOM)
                    ),
                    remedy,
                ),
                ROOM..LITTLE => Check::warn(AREA, ID, format!("only {shown} are free in {directory}"), remedy),
                _ => Check::ok(AREA, ID, format!("{shown} are free in {directory}")),
            }
        }
        Asked::Failed(why) => Check::warn(AREA, ID, why.as_str(), format!("see that {directory} can be used")),
        _ => Check::skipped(AREA, ID, "nobody asked"),
    }
}

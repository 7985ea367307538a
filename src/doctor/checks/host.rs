// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine itself, and ttvm's settings.

use crate::base::clock::Calendar;
use crate::base::error::one_line;
use crate::config::Error;
use crate::config::guest::Guest;
use crate::config::types::Size;
use crate::doctor::answers::Answers;
use crate::doctor::check::{Area, Check};
use crate::doctor::facts::Facts;
use crate::recording::Library;
use crate::recording::library::id::Id;
use crate::recording::session::memory_free;

const AREA: Area = Area::Host;

/// Before this (2026-01-01) there was no ttvm that could have been started.
const FIRST: u64 = 1_767_225_600;

pub(in crate::doctor) fn check(facts: &Facts, answers: &Answers) -> Vec<Check> {
    let mut checks = vec![settings(facts), clock(facts, answers), memory(facts)];
    checks.extend(facts.purpose.xen.is_any().then(|| systemd(facts)));
    checks
}

/// Guests on Xen are its units; without it only QEMU's are run, by hand.
fn systemd(facts: &Facts) -> Check {
    match facts.real("/run/systemd/system").is_dir() {
        true => Check::ok(AREA, "systemd", "systemd runs this system, and starts guests"),
        false => facts.purpose.xen.wrong(
            AREA,
            "systemd",
            "systemd does not run this system: guests on Xen are units of it",
            "use a host that is booted with systemd, and no container",
        ),
    }
}

fn settings(facts: &Facts) -> Check {
    let file = facts.places.config_dir().join("ttvm.toml");
    let file = file.display();
    match &facts.config_error {
        Some(error) => Check::fail(AREA, "settings", mistake(error), format!("correct {file}")),
        None if facts.places.real(&facts.places.config_dir().join("ttvm.toml")).exists() => {
            Check::ok(AREA, "settings", format!("{file} is right"))
        }
        None => Check::ok(
            AREA,
            "settings",
            format!("there is no {file}: the defaults are in force"),
        ),
    }
}

/// The first of the mistakes in a file, and how many more there are.
pub(super) fn mistake(error: &Error) -> String {
    match error {
        Error::Invalid(mistakes) => match &mistakes[..] {
            [first, rest @ ..] if !rest.is_empty() => format!("{first}; and {} more", rest.len()),
            _ => error.to_string(),
        },
        _ => one_line(error),
    }
}

/// An amount of bytes that nobody needs to know exactly.
pub(super) fn rough(bytes: u64) -> Size {
    match bytes >> 20 {
        mib @ 10_240.. => Size::mib(mib >> 10 << 10),
        mib => Size::mib(mib),
    }
}

fn clock(facts: &Facts, answers: &Answers) -> Check {
    let Calendar {
        date: (year, month, day),
        ..
    } = Calendar::of(answers.now);
    let today = format!("{year}-{month:02}-{day:02}");
    let remedy = "set the clock (`timedatectl set-ntp true`, or `timedatectl set-time`)";
    if answers.now < FIRST {
        return Check::fail(
            AREA,
            "clock",
            format!("the clock says {today}, and that is over"),
            remedy,
        );
    }
    match Library::open(facts.places.state_dir()).newest_id() {
        // Its newest recording is the one with the greatest id.
        Ok(Some(newest)) if newest > Id::new(answers.now, u32::MAX) => Check::warn(
            AREA,
            "clock",
            format!(
                "the clock says {today}, and there is a recording of later ({newest}): the next one would not be the newest"
            ),
            remedy,
        ),
        _ => Check::ok(AREA, "clock", format!("the clock says {today}")),
    }
}

fn memory(facts: &Facts) -> Check {
    let Some(free) = memory_free(facts.root()) else {
        return Check::skipped(AREA, "memory", "/proc/meminfo does not say how much memory there is");
    };
    let emulated = facts.right().filter(|guest| !guest.toolstack.is_xen());
    let shown = rough(free.bytes());
    let largest = emulated.max_by_key(|guest: &&Guest| guest.memory);
    match largest {
        Some(guest) if guest.memory > free => Check::warn(
            AREA,
            "memory",
            format!(
                "guest {} has {} of memory, and this host has {shown} to give now",
                guest.name, guest.memory
            ),
            format!(
                "end something, add swap, or lower \"memory\" in {}",
                crate::config::guests::path(&facts.places, &guest.name).display()
            ),
        ),
        Some(guest) => Check::ok(
            AREA,
            "memory",
            format!(
                "{shown} of memory are to be had, the largest emulated guest has {}",
                guest.memory
            ),
        ),
        None => Check::ok(AREA, "memory", format!("{shown} of memory are to be had")),
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each guest: its file, and what this host lacks for it.

use super::host::mistake;
use crate::config::guest::Guest;
use crate::config::guests;
use crate::config::types::LvmName;
use crate::doctor::answers::{Answers, Asked};
use crate::doctor::check::{Area, Check};
use crate::doctor::facts::Facts;
use crate::guest::obstacles;
use crate::lvm2_cmd::Group;

const AREA: Area = Area::Guests;
const ID: &str = "guest";

pub(in crate::doctor) fn check(facts: &Facts, answers: &Answers) -> Vec<Check> {
    if let Some(error) = &facts.guests_error {
        let remedy = "see that the directory can be read";
        return vec![Check::fail(AREA, ID, mistake(error), remedy)];
    }
    if let Some(lacks) = &facts.first_lacks {
        return vec![first(lacks)];
    }
    let mut checks = Vec::new();
    for (name, guest) in &facts.guests {
        match guest {
            Ok(guest) => checks.extend(ready(facts, answers, guest)),
            Err(error) => checks.push(Check::fail(
                AREA,
                ID,
                format!("{name}: {}", mistake(error)),
                format!("correct {}", guests::path(&facts.places, name).display()),
            )),
        }
    }
    checks
}

/// What there is to say where there is no guest.
fn first(lacks: &Option<String>) -> Check {
    match lacks
        .as_deref()
        .map(|why| why.split_once(": ").unwrap_or((why, "see ttvm(1), NEW GUESTS")))
    {
        None => Check::ok(AREA, ID, "there is no guest yet: `ttvm guest new NAME` makes one"),
        Some((why, remedy)) => Check::warn(
            AREA,
            ID,
            format!("there is no guest yet, and `ttvm guest new NAME` could not make one: {why}"),
            remedy,
        ),
    }
}

/// What there is to say of a guest whose file is right.
fn ready(facts: &Facts, answers: &Answers, guest: &Guest) -> Vec<Check> {
    let name = &guest.name;
    if !facts.is_here() {
        // What it needs is on another host.
        return vec![Check::ok(AREA, ID, format!("{name}: its file is right"))];
    }
    let groups = |vg: &LvmName| -> Result<Option<Group>, String> {
        match &answers.lvm {
            Asked::Answer(lvm) => Ok(lvm.group(vg.as_str()).cloned()),
            Asked::Failed(why) => Err(why.clone()),
            _ => Err("lvm is not installed".to_owned()),
        }
    };
    let mut checks: Vec<Check> = obstacles::found_with(guest, &groups)
        .into_iter()
        .map(|obstacle| Check::fail(AREA, ID, format!("{name}: {}", obstacle.what), obstacle.remedy))
        .collect();
    if let Some(silent) = obstacles::prints_nothing(guest) {
        checks.push(Check::warn(AREA, ID, format!("{name}: {}", silent.what), silent.remedy));
    }
    if checks.is_empty() {
        checks.push(Check::ok(
            AREA,
            ID,
            format!("{name}: its file is right, and all that it names is there"),
        ));
    }
    checks
}

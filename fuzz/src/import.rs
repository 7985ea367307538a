// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file of xm or xl on its way to a guest's.

use std::sync::LazyLock;

use ttvm::config::guest::Toolstack;
use ttvm::config::host::HostConfig;
use ttvm::config::places::Places;
use ttvm::import::{Asked, Dialect, Request, Value, parse, parse_disk, plan};

use crate::place::{Place, Sheet};
use crate::{PARSER, watch};

static PLACES: LazyLock<Places> = LazyLock::new(|| Places::system(Place::new("import").expect("a directory").path()));
static SHEET: LazyLock<Sheet> = LazyLock::new(|| Sheet::new().expect("a file"));

/// Reads the file, and each of its texts as a disk; makes a guest's file of it for one of the toolstacks.
///
/// # Panics
///
/// When a guest's file is made that is not read.
pub fn carry_over(data: &[u8], dialect: Dialect) {
    SHEET.write(data).expect("a file");
    let toolstacks = [Toolstack::Xl, Toolstack::Xm, Toolstack::Qemu];
    let request = Request {
        file: SHEET.path(),
        name: Some("clientA".parse().expect("a name")),
        toolstack: Some(toolstacks[data.len() % toolstacks.len()]),
        // In one of two cases it is found out.
        dialect: data.len().is_multiple_of(2).then_some(dialect),
        origins: &[],
    };
    watch(data, PARSER, || {
        match parse(data, dialect) {
            Ok(document) => document.settings.iter().for_each(|it| disks(&it.value, dialect)),
            Err(mistake) => drop(mistake),
        }
        match plan(&PLACES, &HostConfig::default(), &request, &|_| Asked::Unknown) {
            Ok(plan) => drop(plan.refusal().map(ToString::to_string)),
            Err(error) => drop(error.to_string()),
        }
    });
}

fn disks(value: &Value, dialect: Dialect) {
    match value {
        Value::Text(text) => drop(parse_disk(text, dialect)),
        Value::List(items) | Value::Tuple(items) => items.iter().for_each(|item| disks(item, dialect)),
        _ => {}
    }
}

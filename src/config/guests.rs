// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory of guests.

use std::fs;
use std::path::{Path, PathBuf};

use super::claims::Claims;
use super::guest::Guest;
use super::guest_file::{Surroundings, read};
use super::host::HostConfig;
use super::types::GuestName;
use super::{Error, source, under};

/// Where guest files are.
pub const DIRECTORY: &str = "/etc/ttvm/guests";

/// The file that describes `name`.
pub fn path(name: &GuestName) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{name}.toml"))
}

/// The names of all guests, sorted. Files that are not `NAME.toml` are not guests.
pub fn names(root: &Path) -> Result<Vec<GuestName>, Error> {
    let directory = under(root, Path::new(DIRECTORY));
    let unreadable = |source| Error::Unreadable {
        path: DIRECTORY.into(),
        source,
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry.map_err(unreadable)?.file_name();
        if let Some(name) = file.to_str().and_then(|file| file.strip_suffix(".toml"))
            && let Ok(name) = name.parse()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The guest `name`, checked by itself and against every other guest. Another guest whose own file is wrong does
/// not stand in its way.
pub fn load(root: &Path, host: &HostConfig, name: &GuestName) -> Result<Guest, Error> {
    let mut claims = Claims::default();
    for other in names(root)?.iter().filter(|other| *other != name) {
        if let Ok(other) = load_alone(root, host, other, &Claims::default()) {
            claims.add_guest(&other);
        }
    }
    load_alone(root, host, name, &claims)
}

/// Every guest whose own file is right.
pub fn all(root: &Path, host: &HostConfig) -> Result<Vec<Guest>, Error> {
    let mut guests = Vec::new();
    for name in names(root)? {
        guests.extend(load_alone(root, host, &name, &Claims::default()));
    }
    Ok(guests)
}

fn load_alone(root: &Path, host: &HostConfig, name: &GuestName, claims: &Claims) -> Result<Guest, Error> {
    let path = path(name);
    let Some(source) = source(root, &path)? else {
        return Err(Error::NoSuchGuest {
            name: name.to_string(),
            path,
            closest: closest(root, name),
        });
    };
    let around = Surroundings {
        root,
        defaults: &host.guest,
        machine: machine(root),
        claims,
    };
    source
        .read(|source, table| read(name, source, table, &around))
        .map_err(Error::Invalid)
}

fn closest(root: &Path, name: &GuestName) -> Option<String> {
    let distance = |other: &GuestName| strsim::damerau_levenshtein(other.as_str(), name.as_str());
    let names = names(root).unwrap_or_default();
    let closest = names.into_iter().min_by_key(distance)?;
    (distance(&closest) <= 2).then(|| closest.to_string())
}

/// This machine's id (machine-id(5)), so that guests of one name on two hosts of one network differ.
fn machine(root: &Path) -> uuid::Uuid {
    fs::read_to_string(under(root, Path::new("/etc/machine-id")))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(uuid::Uuid::nil())
}

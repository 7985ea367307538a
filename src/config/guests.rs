// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory of guests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::guest::claims::Claims;
use super::guest::file::{Context, read};
use super::guest::{DiskSource, Guest};
use super::host::HostConfig;
use super::places::Places;
use super::reader::Source;
use super::types::GuestName;
use super::{Error, source};
use crate::file::tree;

/// Where guests' files are, as messages call it.
pub fn directory(places: &Places) -> PathBuf {
    places.config_dir().join("guests")
}

/// The file that describes `name`, as messages call it.
pub fn path(places: &Places, name: &GuestName) -> PathBuf {
    directory(places).join(format!("{name}.toml"))
}

/// The names of all guests, sorted. Files that are not `NAME.toml` are not guests.
pub fn names(places: &Places) -> Result<Vec<GuestName>, Error> {
    let directory = directory(places);
    let unreadable = |source| Error::Unreadable {
        path: directory.clone(),
        source,
    };
    let entries = match fs::read_dir(places.real(&directory)) {
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
pub fn load(places: &Places, host: &HostConfig, name: &GuestName) -> Result<Guest, Error> {
    load_alone(places, host, name, &claims_of_others(places, host, name)?)
}

fn claims_of_others(places: &Places, host: &HostConfig, name: &GuestName) -> Result<Claims, Error> {
    let mut claims = Claims::default();
    for other in names(places)?.iter().filter(|other| *other != name) {
        if let Ok(other) = load_alone(places, host, other, &Claims::default()) {
            claims.add_guest(&other);
        }
    }
    Ok(claims)
}

/// Every guest whose own file is right.
pub fn all(places: &Places, host: &HostConfig) -> Result<Vec<Guest>, Error> {
    let mut guests = Vec::new();
    for name in names(places)? {
        guests.extend(load_alone(places, host, &name, &Claims::default()));
    }
    Ok(guests)
}

/// What guests' disks are made from, and what they get as it is.
pub fn disks(places: &Places, host: &HostConfig) -> Result<BTreeSet<PathBuf>, Error> {
    let mut paths = BTreeSet::new();
    for guest in all(places, host)? {
        paths.extend(guest.origins().map(|origin| origin.path()));
        paths.extend(guest.disks.iter().filter_map(|disk| match &disk.source {
            DiskSource::Path { path, .. } => Some(path.clone()),
            _ => None,
        }));
    }
    Ok(paths)
}

fn load_alone(places: &Places, host: &HostConfig, name: &GuestName, claims: &Claims) -> Result<Guest, Error> {
    let path = path(places, name);
    let Some(source) = source(places, &path)? else {
        return Err(no_such(places, name));
    };
    take_apart(places, host, name, source, claims, true)
}

/// What the guest `name` would be if its file had this text, checked as [`load`] does. Files that it names need not be there
/// unless `files` says so.
pub fn check(places: &Places, host: &HostConfig, name: &GuestName, text: &str, files: bool) -> Result<Guest, Error> {
    let source = Source::new(&path(places, name), text.to_owned());
    take_apart(
        places,
        host,
        name,
        source,
        &claims_of_others(places, host, name)?,
        files,
    )
}

fn take_apart(
    places: &Places,
    host: &HostConfig,
    name: &GuestName,
    source: Source,
    claims: &Claims,
    files: bool,
) -> Result<Guest, Error> {
    let context = Context {
        root: files.then(|| places.tree()),
        defaults: &host.guest,
        machine: machine(places.root()),
        claims,
    };
    source
        .read(|source, table| read(name, source, table, &context))
        .map_err(Error::Invalid)
}

/// Whether `name` has a file, whatever that says.
///
/// # Errors
///
/// If it is certain that there is none.
pub fn require_file(places: &Places, name: &GuestName) -> Result<(), Error> {
    match places.real(&path(places, name)).try_exists() {
        Ok(false) => Err(no_such(places, name)),
        Ok(true) | Err(_) => Ok(()),
    }
}

fn no_such(places: &Places, name: &GuestName) -> Error {
    Error::NoSuchGuest {
        name: name.to_string(),
        path: path(places, name),
        closest: closest(places, name),
    }
}

fn closest(places: &Places, name: &GuestName) -> Option<String> {
    let distance = |other: &GuestName| strsim::damerau_levenshtein(other.as_str(), name.as_str());
    let names = names(places).unwrap_or_default();
    let closest = names.into_iter().min_by_key(distance)?;
    (distance(&closest) <= 2).then(|| closest.to_string())
}

/// This machine's id (machine-id(5)), so that guests of one name on two hosts of one network differ.
fn machine(root: &Path) -> uuid::Uuid {
    tree::text(root, Path::new("/etc/machine-id"), tree::SETTINGS)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or_default()
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What guests are told of the network mode: `/run/ttvm/network/guests.json`, written by the network's own programs, read
//! whenever a guest is started.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::root::under;
use crate::config::guest::Guest;
use crate::config::types::{GuestName, InterfaceName};
use crate::file::{self, tree};

/// Where the network's programs have what lasts as long as this boot.
pub const DIRECTORY: &str = "/run/ttvm/network";

/// What a guest has to know of the network mode in force.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GuestNetwork {
    /// The bridge for vifs that name none.
    pub bridge: Option<InterfaceName>,
}

fn path() -> PathBuf {
    Path::new(DIRECTORY).join("guests.json")
}

/// Where dnsmasq is told of fixed addresses: a file for each guest, read as soon as it is written (dhcp-hostsdir in
/// dnsmasq(8)).
pub fn hosts_directory() -> PathBuf {
    Path::new(DIRECTORY).join("dhcp-hosts")
}

impl GuestNetwork {
    /// The one in force; without a mode, or with a damaged file, nothing.
    pub fn load(root: &Path) -> Self {
        tree::read(root, &path(), tree::SETTINGS)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    /// Puts it in force for guests that are started from now on.
    pub fn save(&self, root: &Path) -> io::Result<()> {
        fs::create_dir_all(under(root, Path::new(DIRECTORY)))?;
        file::replace(&under(root, &path()), &serde_json::to_vec(self)?, 0o644)
    }
}

/// Tells dnsmasq, if it runs for guests, which addresses this one has.
pub fn announce(root: &Path, guest: &Guest) -> io::Result<()> {
    let directory = under(root, &hosts_directory());
    if !directory.is_dir() {
        return Ok(());
    }
    let file = directory.join(guest.name.as_str());
    let lines = hosts(guest);
    if lines.is_empty() {
        return match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    // Not by rename, which dnsmasq would see twice, once under a name that is none of a guest.
    if fs::read(&file).is_ok_and(|old| old == lines.as_bytes()) {
        return Ok(());
    }
    // dnsmasq has given up root; guests' units make files for root alone.
    let mut written = OpenOptions::new().write(true).create(true).truncate(true).open(file)?;
    written.set_permissions(Permissions::from_mode(0o644))?;
    written.write_all(lines.as_bytes())
}

/// A line for each interface with a fixed address.
fn hosts(guest: &Guest) -> String {
    let name = host_name(&guest.name);
    let lines = guest.vifs.iter().filter_map(|vif| {
        let address = vif.address?;
        Some(match &name {
            Some(name) => format!("{},{address},{name}\n", vif.mac),
            None => format!("{},{address}\n", vif.mac),
        })
    });
    lines.collect()
}

/// A guest's name as its host name, where it can be one (RFC 1123), and is no other word to dnsmasq: a time ("7d"),
/// "ignore" (--dhcp-host in dnsmasq(8)).
fn host_name(guest: &GuestName) -> Option<String> {
    let name = guest.as_str();
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let is_word = name.starts_with(|c: char| c.is_ascii_digit()) || matches!(name, "ignore" | "infinite");
    (name.chars().all(fits) && !name.ends_with('-') && !is_word).then(|| name.to_owned())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What files of the host say about its packet filters.

use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use crate::file::tree;

/// What nft cannot tell.
#[derive(Debug)]
pub struct Host {
    /// Bridged IPv4 and IPv6 frames pass the rules for IP, and the settings that say so.
    pub bridge_calls: [Vec<Call>; 2],
    /// The legacy iptables have a table `filter`, which nft does not show.
    pub legacy: bool,
    /// ufw is on, and will be after the next boot.
    pub ufw: Option<Ufw>,
}

/// A setting that sends bridged frames through the rules for IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// How it is called.
    pub name: String,
    /// Whether it is of one bridge.
    pub own: bool,
}

/// ufw's own files.
#[derive(Debug)]
pub struct Ufw {
    /// Its defaults: input, forward.
    pub drops: [bool; 2],
    rules: String,
}

impl Ufw {
    /// Whether it has a rule of `kind` for what comes in on `bridge`.
    pub fn has(&self, kind: &str, bridge: &str) -> bool {
        // ### tuple ### route:allow any any 0.0.0.0/0 any 0.0.0.0/0 in_ttbr0
        let mut tuples = self
            .rules
            .lines()
            .filter_map(|line| line.strip_prefix("### tuple ### "));
        let wanted = format!("in_{bridge}");
        tuples.any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(kind) && words.any(|word| word == wanted)
        })
    }
}

impl Host {
    /// Reads them under `root`.
    pub fn read(root: &Path, bridge: &str) -> Result<Self, Error> {
        let is_on = |path: String| Ok::<_, Error>(read(root, &path)?.trim() == "1");
        let mut bridge_calls = [Vec::new(), Vec::new()];
        for (calls, version) in bridge_calls.iter_mut().zip(["iptables", "ip6tables"]) {
            // The kernel asks for either (br_nf_pre_routing in br_netfilter_hooks.c).
            if is_on(format!("proc/sys/net/bridge/bridge-nf-call-{version}"))? {
                let name = format!("net.bridge.bridge-nf-call-{version}");
                calls.push(Call { name, own: false });
            }
            let name = format!("nf_call_{version}");
            if is_on(format!("sys/class/net/{bridge}/bridge/{name}"))? {
                calls.push(Call { name, own: true });
            }
        }
        Ok(Self {
            bridge_calls,
            legacy: read(root, "proc/net/ip_tables_names")?
                .lines()
                .any(|name| name == "filter"),
            ufw: ufw(root)?,
        })
    }
}

fn ufw(root: &Path) -> Result<Option<Ufw>, Error> {
    let config = read(root, "etc/ufw/ufw.conf")?;
    if !value(&config, "ENABLED").is_some_and(|value| value.eq_ignore_ascii_case("yes")) {
        return Ok(None);
    }
    let defaults = read(root, "etc/default/ufw")?;
    // Without the line it drops.
    let drops = |name| value(&defaults, name).is_none_or(|value| !value.eq_ignore_ascii_case("accept"));
    Ok(Some(Ufw {
        drops: [drops("DEFAULT_INPUT_POLICY"), drops("DEFAULT_FORWARD_POLICY")],
        rules: read(root, "etc/ufw/user.rules")?,
    }))
}

/// `NAME=VALUE` or `NAME="VALUE"`.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.trim().strip_prefix(name));
    let value = lines.find_map(|rest| rest.trim_start().strip_prefix('='))?;
    Some(value.trim().trim_matches(['"', '\'']))
}

/// The text of a file; nothing if there is none.
fn read(root: &Path, path: &str) -> Result<String, Error> {
    match tree::read(root, Path::new(path), tree::WRITTEN) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(Error::Read {
            path: PathBuf::from("/").join(path),
            source,
        }),
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network interface as xm and xl write it: `ip=10.0.0.1,bridge=xenbr0` (xl-network-configuration(5)).

use std::net::Ipv4Addr;

use super::Dialect;
use super::output::Entry;
use crate::config::guest::Toolstack;
use crate::config::types::{InterfaceName, Mac};

/// An interface's keys, and what could not be carried over of it.
pub(super) struct Vif {
    pub(super) entries: Vec<Entry>,
    pub(super) notes: Vec<String>,
}

/// Takes an interface apart.
pub(super) fn read(spec: &str, dialect: Dialect, toolstack: Toolstack) -> Vif {
    let mut vif = Vif {
        entries: Vec::new(),
        notes: Vec::new(),
    };
    let xen = toolstack != Toolstack::Qemu;
    for field in spec
        .split(',')
        .map(|field| field.trim_start_matches(' '))
        .filter(|field| !field.is_empty())
    {
        let Some((mut key, mut value)) = field.split_once('=') else {
            vif.notes.push(format!("{field:?} is no setting"));
            continue;
        };
        // xl takes what stands there, blanks and all.
        if dialect == Dialect::Xm {
            (key, value) = (key.trim(), value.trim());
        }
        let mut keep = |key: &'static str| vif.entries.push(Entry::text(key, value));
        match key {
            _ if value.chars().any(char::is_control) => vif.notes.push(format!("{key} has control characters")),
            "mac" => match value.parse::<Mac>() {
                Ok(_) => keep("mac"),
                Err(why) => vif
                    .notes
                    .push(format!("{why}; one of the guest's own is derived from its UUID")),
            },
            "ip" if value
                .parse::<Ipv4Addr>()
                .is_ok_and(|ip| !matches!(ip.octets()[0], 0 | 127 | 224..)) =>
            {
                // In mode nat it is handed out by DHCP. xm's scripts are told of it in any case.
                keep("address");
                if toolstack == Toolstack::Xl {
                    keep("ip");
                }
            }
            "bridge" | "vifname" if xen => match value.parse::<InterfaceName>() {
                Ok(_) => keep(if key == "bridge" { "bridge" } else { "vifname" }),
                Err(why) => vif.notes.push(why.to_string()),
            },
            "ip" if xen => keep("ip"),
            "script" if xen => keep("script"),
            "model" if xen => keep("model"),
            "rate" if xen => keep("rate"),
            "bridge" | "vifname" | "ip" | "script" | "model" | "rate" => {
                vif.notes
                    .push(format!("{key} is Xen's: an emulated machine has a network of its own"));
            }
            // What an interface is without it.
            "type" if value == "vif" || value == "paravirtualised" => {}
            _ => vif.notes.push(format!("{key} has no counterpart")),
        }
    }
    // Given twice, the last one counts for xl and xm alike.
    let last = |index: usize, key: &str| vif.entries[index + 1..].iter().all(|entry| entry.key != key);
    let keep: Vec<bool> = vif
        .entries
        .iter()
        .enumerate()
        .map(|(index, entry)| last(index, &entry.key))
        .collect();
    let mut keep = keep.into_iter();
    vif.entries.retain(|_| keep.next().unwrap_or(true));
    vif
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network interface as xm and xl write it: `ip=10.0.0.1,bridge=xenbr0` (xl-network-configuration(5)).

use std::net::Ipv4Addr;

use super::Dialect;
use super::output::Entry;
use crate::config::guest::{GuestType, Toolstack};
use crate::config::types::{BridgeName, InterfaceName, Mac};

/// An interface's keys, and what could not be carried over of it.
pub(super) struct Vif {
    pub(super) entries: Vec<Entry>,
    pub(super) notes: Vec<String>,
    /// Its address on the wire, as the file has it.
    mac: Option<String>,
}

impl Vif {
    /// Which of several it is.
    pub(super) fn which(&self, index: usize) -> String {
        let place = [
            "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth",
        ];
        let place = place
            .get(index)
            .map_or_else(|| format!("number {}", index + 1), |place| format!("the {place}"));
        match &self.mac {
            Some(mac) => format!("{place} ({mac})"),
            None => place,
        }
    }
}

/// Takes an interface apart.
pub(super) fn read(spec: &str, dialect: Dialect, toolstack: Toolstack, kind: GuestType) -> Vif {
    let mut vif = Vif {
        entries: Vec::new(),
        notes: Vec::new(),
        mac: None,
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
        // Of a key, xl takes what stands there, blanks and all. Its values go to scripts, which take them as words.
        value = value.trim();
        if dialect == Dialect::Xm {
            key = key.trim();
        }
        let mut keep = |key: &'static str| vif.entries.push(Entry::text(key, value));
        match key {
            _ if value.chars().any(char::is_control) => vif.notes.push(format!("{key} has control characters")),
            "mac" => match ethernet(value).parse::<Mac>() {
                Ok(_) => {
                    vif.mac = Some(value.to_owned());
                    vif.entries.push(Entry::text("mac", &ethernet(value)));
                }
                Err(why) => vif
                    .notes
                    .push(format!("{why}; one of the guest's own is derived from its UUID")),
            },
            "ip" if first_address(value).is_some() => {
                // In mode nat it is handed out by DHCP. xm's scripts are told of it in any case.
                let (address, more) = first_address(value).unwrap_or_default();
                vif.entries.push(Entry::text("address", address));
                if toolstack == Toolstack::Xl {
                    vif.entries.push(Entry::text("ip", value));
                }
                if more {
                    vif.notes.push(format!(
                        "of {value:?}, {address} is the one that is handed out, and that no other guest may have"
                    ));
                }
            }
            "bridge" if xen => match value.parse::<BridgeName>() {
                Ok(_) => keep("bridge"),
                Err(why) => vif.notes.push(format!(
                    "{why}; without a bridge of its own the interface is on the host's ([guest] in ttvm.toml, or the network mode's), which is another network: name one in the guest's file"
                )),
            },
            "vifname" if xen => match value.parse::<InterfaceName>() {
                Ok(_) => keep("vifname"),
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
            // For guests that are emulated whole there is a card beside the paravirtual one, unless the file says "vif" (xm:
            // "netfront"); to others it means nothing (xl-network-configuration(5)).
            "type" if value == "ioemu" => {}
            "type" if ["vif", "netfront", "paravirtualised"].contains(&value) => {
                if kind == GuestType::Hvm && toolstack == Toolstack::Xl {
                    vif.notes.push(format!(
                        "type={value} has no counterpart: the guest gets an emulated card beside the paravirtual one"
                    ));
                }
            }
            "type" => vif.notes.push(format!("type={value} is nothing that is known: vif and ioemu are")),
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

/// An address as xl and xm read it, which need no zero in front of a digit.
fn ethernet(text: &str) -> String {
    let parts = text.split(':').map(|part| match part.len() {
        1 => format!("0{part}"),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join(":")
}

/// The first address of a guest among the words that the scripts take, and whether there are more words.
fn first_address(value: &str) -> Option<(&str, bool)> {
    let is_usable = |word: &&str| {
        word.parse::<Ipv4Addr>()
            .is_ok_and(|ip| !matches!(ip.octets()[0], 0 | 127 | 224..))
    };
    let mut words = value.split_ascii_whitespace();
    let first = words.next().filter(is_usable)?;
    Some((first, words.next().is_some()))
}

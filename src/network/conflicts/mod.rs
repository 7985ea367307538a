// SPDX-License-Identifier: MIT OR Apache-2.0
//! What else on this host stops the packets of guests.
//!
//! An accept in ttvm's own table does not help against a drop elsewhere: the kernel asks every chain at a hook, and
//! one drop is enough (nft(8), VERDICT STATEMENTS). So each of those chains is asked what it does with the packets
//! guests need, and whoever runs this host is told the commands. Nothing is changed here.

mod host;
mod packet;
mod remedy;
mod ruleset;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::host::Host;
use self::packet::{Packet, is_dropped};
use self::ruleset::{Chain, Ruleset};
use crate::base::error::{Classify, Exit};
use crate::config::types::InterfaceName;
use crate::run::{self, Command, Program};

static NFT: Program = Program::new(&["nft"]);

/// ttvm's own table.
const OWN: (&str, &str) = ("inet", "ttvm");

/// Who stops the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// Docker, whose policy for forwarded packets is to drop.
    Docker,
    /// firewalld, which has no zone for the bridge.
    Firewalld,
    /// ufw, Ubuntu's front to iptables.
    Ufw,
    /// The kernel's br_netfilter, which shows bridged frames to the rules for IP.
    BridgeNetfilter,
    /// Rules of nft or iptables that no program claims.
    Nftables,
    /// The legacy iptables, whose rules nft does not show.
    Iptables,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker",
            Self::Firewalld => "firewalld",
            Self::Ufw => "ufw",
            Self::BridgeNetfilter => "br_netfilter",
            Self::Nftables => "nftables",
            Self::Iptables => "legacy iptables",
        })
    }
}

/// Something that stops them, or may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// Who does.
    pub actor: Actor,
    /// What is stopped, and where.
    pub what: String,
    /// What to do about it: one line for the shell of root.
    pub remedy: String,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; remedy: {}", self.what, self.remedy)
    }
}

/// How the packets of guests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// The host routes them to other networks, and answers DHCP and DNS.
    Routed,
    /// The bridge carries them to the network it is part of.
    Bridged,
}

/// Whose packets are meant.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// How they go.
    pub mode: Traffic,
    /// The bridge the guests are attached to.
    pub bridge: &'a InterfaceName,
    /// The host answers DHCP and DNS there.
    pub answers: bool,
    /// The bridge is in a zone of firewalld that was chosen for it: its rules are not judged.
    pub zone_of_bridge_is_ours: bool,
}

/// Why the host could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// nft failed; without root it does.
    #[error("cannot list the packet filters of this host")]
    List(#[source] run::Error),
    /// nft printed something else than JSON.
    #[error("cannot understand what `nft -j list ruleset` prints")]
    Parse(#[source] serde_json::Error),
    /// A file is there and cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        Exit::Failed
    }
}

/// Asks the host whose files are under `root`, and the kernel.
pub fn find(root: &Path, question: &Question<'_>) -> Result<Vec<Conflict>, Error> {
    // Terse: a list of addresses to block can have a hundred thousand, and no rule is judged by them.
    let rules = match Command::new(&NFT).args(["-j", "-t", "list", "ruleset"]).run() {
        Ok(output) => Some(output.stdout),
        Err(run::Error::NotInstalled { .. }) => None,
        Err(error) => return Err(Error::List(error)),
    };
    find_in(root, rules.as_deref(), question)
}

/// The same with what `nft -j list ruleset` printed; `None` if there is no nft.
pub fn find_in(root: &Path, rules: Option<&str>, question: &Question<'_>) -> Result<Vec<Conflict>, Error> {
    let bridge = question.bridge.as_str();
    let host = Host::read(root, bridge)?;
    let rules_known = rules.is_some();
    let rules = rules
        .map_or_else(|| Ok(Ruleset::default()), Ruleset::parse)
        .map_err(Error::Parse)?;
    let routed = question.mode == Traffic::Routed;
    let search = Search {
        rules: &rules,
        host: &host,
        question,
    };
    let mut conflicts = Vec::new();

    let (packets, families): (&[Packet], &[&str]) = match question.mode {
        Traffic::Routed if question.answers => (
            &[Packet::Dhcp, Packet::Dns, Packet::DnsTcp, Packet::Out, Packet::Back],
            &["ip", "inet"],
        ),
        // Where nobody answers, it is all the same whether the question arrives.
        Traffic::Routed => (&[Packet::Out, Packet::Back], &["ip", "inet"]),
        Traffic::Bridged => (&[Packet::Frame], &["bridge"]),
    };
    let dropping = search.dropping(packets, families);
    for table in dropping.chunk_by(|(a, _), (b, _)| a.family == b.family && a.table == b.table) {
        let (first, _) = &table[0];
        conflicts.extend(remedy::table(remedy::actor(&rules, &host, first), bridge, table));
    }

    // On a bridge of ours this is what guests say to each other. A chain that is named above is not named again:
    // what lets the guests out there lets them through here.
    let mut calls = Vec::new();
    let mut across: Vec<&Chain> = Vec::new();
    let versions = host.bridge_calls.iter().zip([["ip", "inet"], ["ip6", "inet"]]);
    // The network behind a bridge of ours has IPv4 only.
    for (version, families) in versions.take(if routed { 1 } else { 2 }) {
        let mut chains = search.dropping(&[Packet::Across], &families);
        chains.retain(|(chain, _)| !dropping.iter().any(|(named, _)| std::ptr::eq(*named, *chain)));
        if version.is_empty() || chains.is_empty() {
            continue;
        }
        calls.extend(version);
        for (chain, _) in chains {
            // Family inet sees both versions.
            if !across.iter().any(|known| std::ptr::eq(*known, chain)) {
                across.push(chain);
            }
        }
    }
    if !across.is_empty() {
        conflicts.push(remedy::bridge_netfilter(&calls, bridge, &across));
    }

    if routed && !rules.any(|name| name.starts_with("ufw-")) {
        conflicts.extend(remedy::hidden_ufw(&host, bridge, question.answers));
    }
    if host.legacy && (routed || !host.bridge_calls[0].is_empty()) {
        conflicts.push(Conflict {
            actor: Actor::Iptables,
            what: format!("the legacy iptables have rules nft does not show; they may drop what {bridge} sends"),
            remedy: "iptables-legacy -S FORWARD  # to look".to_owned(),
        });
    }
    if !rules_known {
        conflicts.push(Conflict {
            actor: Actor::Nftables,
            what: "nft is not installed: it is not known what other packet filters do".to_owned(),
            remedy: "apt-get install nftables  # or dnf install nftables".to_owned(),
        });
    }
    Ok(conflicts)
}

struct Search<'a> {
    rules: &'a Ruleset,
    host: &'a Host,
    question: &'a Question<'a>,
}

impl<'a> Search<'a> {
    /// The chains of others that drop some of `packets`, those of a table together.
    fn dropping(&self, packets: &[Packet], families: &[&str]) -> Vec<(&'a Chain, Vec<Packet>)> {
        let bridge = self.question.bridge.as_str();
        let mut found: Vec<(&Chain, Vec<Packet>)> = Vec::new();
        for packet in packets {
            for chain in self.rules.base_chains(packet.hook()) {
                let counts = families.contains(&chain.family.as_str()) && !self.is_ours(chain);
                if !counts || !is_dropped(self.rules, chain, *packet, bridge) {
                    continue;
                }
                match found.iter_mut().find(|(known, _)| std::ptr::eq(*known, chain)) {
                    Some((_, packets)) => packets.push(*packet),
                    None => found.push((chain, vec![*packet])),
                }
            }
        }
        found.sort_by(|(a, _), (b, _)| (&a.family, &a.table).cmp(&(&b.family, &b.table)));
        found
    }

    fn is_ours(&self, chain: &Chain) -> bool {
        (chain.family.as_str(), chain.table.as_str()) == OWN
            || self.question.zone_of_bridge_is_ours && remedy::actor(self.rules, self.host, chain) == Actor::Firewalld
    }
}

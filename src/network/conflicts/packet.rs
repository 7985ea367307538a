// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a host's rules do with the packets guests need: each chain is walked as the kernel would, with the little
//! that is known of such a packet.
//!
//! Most conditions cannot be decided that way (addresses, marks, matches of iptables whose text nft keeps to
//! itself). Such a rule counts for the guests if it accepts and names their bridge, since somebody wrote it for
//! them; otherwise it is passed over, be it an accept or a drop.

use serde_json::Value;

use super::ruleset::{Chain, Ruleset};

/// A kind of packet guests cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet {
    /// The first one of a connection from the bridge to another network.
    Out,
    /// One from another network that answers it.
    Back,
    /// A request to the DHCP server on the bridge.
    Dhcp,
    /// A question to the name server on the bridge.
    Dns,
    /// The same in TCP, for long answers.
    DnsTcp,
    /// One from a port of the bridge to another, shown to the rules for IP (br_netfilter).
    Across,
    /// The same, as the rules of family bridge see it.
    Frame,
}

impl Packet {
    /// The chains that see it.
    pub fn hook(self) -> &'static str {
        match self {
            Self::Out | Self::Back | Self::Across | Self::Frame => "forward",
            Self::Dhcp | Self::Dns | Self::DnsTcp => "input",
        }
    }

    /// Whether the interface that `key` of `meta` speaks of is the bridge; `None` if that cannot be said.
    fn is_bridge(self, key: &str) -> Option<bool> {
        match (key, self) {
            ("iifname" | "iif", Self::Back) | ("oifname" | "oif", Self::Out) => Some(false),
            ("iifname" | "iif" | "oifname" | "oif", Self::Frame) => None,
            ("iifname" | "iif", _) => Some(true),
            // br_netfilter shows the bridge on both sides (br_nf_forward_ip in br_netfilter_hooks.c).
            ("oifname" | "oif", Self::Back | Self::Across) => Some(true),
            ("ibrname" | "obrname", Self::Frame) => Some(true),
            _ => None,
        }
    }

    fn transport(self) -> Option<(&'static str, u64)> {
        match self {
            Self::Dhcp => Some(("udp", 67)),
            Self::Dns => Some(("udp", 53)),
            Self::DnsTcp => Some(("tcp", 53)),
            Self::Out | Self::Back | Self::Across | Self::Frame => None,
        }
    }

    fn state(self) -> &'static str {
        match self {
            Self::Back => "established",
            _ => "new",
        }
    }
}

/// Whether `chain`, which the kernel calls, lets no such packet of `bridge` through.
pub fn is_dropped(rules: &Ruleset, chain: &Chain, packet: Packet, bridge: &str) -> bool {
    let walk = Walk { rules, packet, bridge };
    match walk.through(chain, false, 0) {
        Fate::Accepted => false,
        Fate::Dropped => true,
        Fate::Returned => chain.drops,
    }
}

/// The kernel's own limit to jumps within jumps (NFT_JUMP_STACK_SIZE).
const DEPTH: u32 = 16;

enum Fate {
    Accepted,
    Dropped,
    Returned,
}

/// What the conditions of a rule come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Yes,
    /// Yes, and it is the bridge that was asked for.
    Bridge,
    No,
    Unknown,
    /// A match of iptables on the connection: nft does not tell which state.
    Connection,
}

impl From<bool> for Holds {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

struct Walk<'a> {
    rules: &'a Ruleset,
    packet: Packet,
    bridge: &'a str,
}

impl Walk<'_> {
    /// `named`: a condition on the way here named the bridge.
    fn through(&self, chain: &Chain, named: bool, depth: u32) -> Fate {
        // A return that may or may not be taken, before a drop: the packet may live.
        let mut may_return = false;
        let dropped = |may_return| if may_return { Fate::Returned } else { Fate::Dropped };
        for rule in &chain.rules {
            let (mut sure, mut named, mut connection) = (true, named, false);
            for statement in rule {
                match self.condition(statement) {
                    Holds::Yes => {}
                    Holds::Bridge => named = true,
                    Holds::No => break,
                    Holds::Unknown => sure = false,
                    Holds::Connection => connection = true,
                }
                let Some((verdict, target)) = self.verdict(statement) else {
                    continue;
                };
                // In practice it accepts what is established, or drops what is invalid.
                let answers = connection && self.packet.state() == "established";
                sure &= !connection;
                match verdict {
                    "accept" if sure || named || answers => return Fate::Accepted,
                    "drop" if sure => return dropped(may_return),
                    "return" if sure => return Fate::Returned,
                    "return" => may_return = true,
                    "jump" | "goto" if (sure || named || answers) && depth < DEPTH => {
                        let Some(target) = self.rules.beside(chain, target) else {
                            break;
                        };
                        match self.through(target, named, depth + 1) {
                            Fate::Accepted => return Fate::Accepted,
                            Fate::Dropped if sure => return dropped(may_return),
                            Fate::Returned if sure && verdict == "goto" => return Fate::Returned,
                            Fate::Dropped | Fate::Returned => {}
                        }
                    }
                    _ => {}
                }
                break;
            }
        }
        Fate::Returned
    }

    /// A statement as a condition; what is none, holds.
    fn condition(&self, statement: &Value) -> Holds {
        if let Some(test) = statement.get("match") {
            let holds = self.holds(&test["left"], &test["right"]);
            return match (test["op"].as_str(), holds) {
                (Some("==" | "in"), holds) => holds,
                (Some("!="), Holds::Yes | Holds::Bridge) => Holds::No,
                (Some("!="), Holds::No) => Holds::Yes,
                _ => Holds::Unknown,
            };
        }
        if let Some(extension) = statement.get("xt") {
            return match (extension["type"].as_str(), extension["name"].as_str()) {
                (Some("target"), _) | (_, Some("comment")) => Holds::Yes,
                // Some releases of nft print nothing but null.
                (_, Some("conntrack" | "state") | None) => Holds::Connection,
                (_, Some(_)) => Holds::Unknown,
            };
        }
        let limits = ["limit", "quota", "ct count"];
        match limits.iter().any(|limit| statement.get(limit).is_some()) {
            true => Holds::Unknown,
            false => Holds::Yes,
        }
    }

    /// Whether `left` of the packet is `right`, or one of it.
    fn holds(&self, left: &Value, right: &Value) -> Holds {
        let meta = left["meta"]["key"].as_str().unwrap_or_default();
        if let Some(is_bridge) = self.packet.is_bridge(meta) {
            return any(right, |name| match name.as_str() {
                Some(name) if self.is_named(name) => match is_bridge {
                    true => Holds::Bridge,
                    false => Holds::No,
                },
                // Another interface: if the packet is on another one, it may be this.
                Some(name) if !name.starts_with('@') && is_bridge => Holds::No,
                _ => Holds::Unknown,
            });
        }
        if left["ct"]["key"] == "state" {
            return any(right, |state| {
                state
                    .as_str()
                    .map_or(Holds::Unknown, |name| (name == self.packet.state()).into())
            });
        }
        let Some((protocol, port)) = self.packet.transport() else {
            return Holds::Unknown;
        };
        let (header, field) = (left["payload"]["protocol"].as_str(), left["payload"]["field"].as_str());
        if meta == "l4proto" || (header, field) == (Some("ip"), Some("protocol")) {
            return any(right, |name| {
                name.as_str().map_or(Holds::Unknown, |name| (name == protocol).into())
            });
        }
        match (header, field) {
            (Some(header), Some("dport")) if header == protocol || header == "th" => {
                any(right, |value| match (value.as_u64(), &value["range"]) {
                    (Some(number), _) => (number == port).into(),
                    (None, Value::Array(ends)) => match ends.iter().map(Value::as_u64).collect::<Vec<_>>()[..] {
                        [Some(from), Some(to)] => (from..=to).contains(&port).into(),
                        _ => Holds::Unknown,
                    },
                    _ => Holds::Unknown,
                })
            }
            (Some("tcp" | "udp" | "icmp" | "icmpv6" | "sctp" | "dccp" | "udplite"), _) if header != Some(protocol) => {
                Holds::No
            }
            _ => Holds::Unknown,
        }
    }

    fn is_named(&self, name: &str) -> bool {
        match name.strip_suffix('*') {
            Some(beginning) => self.bridge.starts_with(beginning),
            None => name == self.bridge,
        }
    }

    /// The verdict of a statement, and where it jumps.
    fn verdict<'v>(&self, statement: &'v Value) -> Option<(&'static str, &'v str)> {
        if let Some(map) = statement.get("vmap") {
            let pairs = map["data"]["set"].as_array()?;
            let taken = pairs
                .iter()
                .find(|pair| matches!(self.holds(&map["key"], &pair[0]), Holds::Yes | Holds::Bridge));
            return self.verdict(&taken?[1]);
        }
        let xt = &statement["xt"];
        if xt["type"] == "target" && xt["name"] == "REJECT" {
            return Some(("drop", ""));
        }
        // A queue is somebody's program, whose rules are not ours to judge.
        let verdicts = [
            ("accept", "accept"),
            ("queue", "accept"),
            ("drop", "drop"),
            ("reject", "drop"),
            ("return", "return"),
            ("jump", "jump"),
            ("goto", "goto"),
        ];
        verdicts.into_iter().find_map(|(key, verdict)| {
            let value = statement.get(key)?;
            Some((verdict, value["target"].as_str().unwrap_or_default()))
        })
    }
}

/// The best answer for one of `values`: a value, a list or a set of them.
fn any(values: &Value, is: impl Fn(&Value) -> Holds) -> Holds {
    let list = values.get("set").or(values.get("|")).unwrap_or(values);
    let Some(list) = list.as_array() else {
        return is(list);
    };
    let answers: Vec<Holds> = list.iter().map(is).collect();
    let order = [Holds::Bridge, Holds::Yes, Holds::Unknown];
    order
        .into_iter()
        .find(|best| answers.contains(best))
        .unwrap_or(Holds::No)
}

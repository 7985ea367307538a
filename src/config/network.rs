// SPDX-License-Identifier: MIT OR Apache-2.0
//! `[network]` of `/etc/ttvm/ttvm.toml`: what the network modes are made of. Which mode is in force is chosen with
//! `ttvm network set`, not here.

use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::host::set;
use super::reader::{FromToml, Table, from_toml_str};
use super::types::{InterfaceName, Invalid};

/// `[network]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkConfig {
    /// `firewall`: who else has to let guests' packets through.
    pub firewall: Firewall,
    /// `zone`: firewalld's zone for the NAT bridge.
    pub zone: Zone,
    /// `[network.nat]`.
    pub nat: NatConfig,
    /// `[network.bridge]`.
    pub bridge: BridgeConfig,
}

/// `firewall`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firewall {
    /// Our own table is all there is.
    #[default]
    Nftables,
    /// The bridge is also put into a zone of firewalld.
    Firewalld,
}

/// The name of a zone of firewalld.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone(String);

/// `[network.nat]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatConfig {
    /// `bridge`: its name.
    pub bridge: InterfaceName,
    /// `subnet`: the guests' network.
    pub subnet: Subnet,
    /// `dhcp`: guests get addresses, and a name server, from dnsmasq.
    pub dhcp: bool,
}

/// `[network.bridge]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeConfig {
    /// `bridge`: its name.
    pub bridge: InterfaceName,
    /// `manage_uplink`: ttvm makes the bridge and moves the uplink's addresses and routes to it.
    pub manage_uplink: bool,
    /// `uplink`: the interface that is moved; else the one of the default route.
    pub uplink: Option<InterfaceName>,
}

impl Default for NatConfig {
    fn default() -> Self {
        Self {
            bridge: InterfaceName::fixed("ttbr0"),
            subnet: Subnet::default(),
            dhcp: true,
        }
    }
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self {
            // What xl joins a vif to that names no bridge (xl.conf(5)).
            bridge: InterfaceName::fixed("xenbr0"),
            manage_uplink: false,
            uplink: None,
        }
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self("trusted".to_owned())
    }
}

impl Zone {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Zone {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        // firewalld's own limit: the name becomes part of a chain's name.
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if text.is_empty() || text.len() > 17 || !text.chars().all(allowed) {
            return Err(Invalid(format!(
                "{text:?} is not a zone of firewalld: 1 to 17 letters, digits, \"_\" or \"-\""
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A private IPv4 network for guests, large enough for a gateway and some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet(Ipv4Net);

impl Default for Subnet {
    fn default() -> Self {
        // The seed's.
        Self(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 24))
    }
}

impl Subnet {
    /// The network.
    pub fn net(self) -> Ipv4Net {
        self.0
    }

    /// The host's address in it: the last one, so that guests may have the first ones.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0.broadcast()) - 1)
    }

    /// Where a guest with the network's first address looks for its gateway if it was set up for Xen's `vif-nat`, which
    /// answers 127 above the guest's own address.
    pub fn old_gateway(self) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from(u32::from(self.0.network()).checked_add(128)?);
        (self.0.contains(&address) && address != self.gateway() && address != self.0.broadcast()).then_some(address)
    }

    /// Whether a guest may have this address.
    pub fn is_for_guests(self, address: Ipv4Addr) -> bool {
        self.0.contains(&address)
            && address != self.0.network()
            && address != self.0.broadcast()
            && address != self.gateway()
            && Some(address) != self.old_gateway()
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Subnet {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = |why: &str| Invalid(format!("{text:?} is not a network for guests: {why}"));
        let net: Ipv4Net = text
            .parse()
            .map_err(|_| invalid("an IPv4 network such as \"10.0.0.0/24\""))?;
        if net.trunc() != net {
            return Err(invalid(&format!("the network that address is in is {}", net.trunc())));
        }
        if !(8..=29).contains(&net.prefix_len()) {
            return Err(invalid("its prefix must be from 8 to 29"));
        }
        // 100.64.0.0/10 is for carriers (RFC 6598), who are not expected here.
        let private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
            .into_iter()
            .filter_map(|net| net.parse::<Ipv4Net>().ok())
            .any(|private| private.contains(&net));
        if !private {
            return Err(invalid(
                "it is not part of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16 (RFC 1918)",
            ));
        }
        Ok(Self(net))
    }
}

from_toml_str!(Subnet, "a network such as \"10.0.0.0/24\"");
from_toml_str!(Zone, "the name of a zone of firewalld");

impl FromToml for Firewall {
    const EXPECTED: &'static str = "\"nftables\" or \"firewalld\"";
    fn from_toml(value: &toml::de::DeValue<'_>) -> Result<Self, String> {
        match value.as_str() {
            Some("nftables") => Ok(Self::Nftables),
            Some("firewalld") => Ok(Self::Firewalld),
            Some(other) => Err(format!("\"{other}\" is not one of \"nftables\", \"firewalld\"")),
            None => Err(String::new()),
        }
    }
}

impl NetworkConfig {
    pub(super) fn read(table: &Table<'_>) -> Self {
        let mut config = Self::default();
        set(&mut config.firewall, table.value("firewall"));
        set(&mut config.zone, table.value("zone"));
        if let Some(table) = table.table("nat") {
            set(&mut config.nat.bridge, table.value("bridge"));
            set(&mut config.nat.subnet, table.value("subnet"));
            set(&mut config.nat.dhcp, table.value("dhcp"));
            table.finish();
        }
        if let Some(table) = table.table("bridge") {
            set(&mut config.bridge.bridge, table.value("bridge"));
            set(&mut config.bridge.manage_uplink, table.value("manage_uplink"));
            config.bridge.uplink = table.value("uplink");
            table.finish();
        }
        table.finish();
        config
    }
}

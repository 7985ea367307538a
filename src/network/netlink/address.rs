// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses of interfaces.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use super::events::Events;
use super::{Error, Link, Netlink, saved};
use crate::config::types::Mac;

/// RTNLGRP_IPV6_IFADDR (linux/rtnetlink.h).
const GROUP_ADDRESSES: u32 = 9;

/// An address of an interface, with everything the kernel knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Address(#[serde(with = "saved")] AddressMessage);

impl Address {
    /// A plain one.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix;
        message.attributes = vec![
            AddressAttribute::Local(address.into()),
            AddressAttribute::Address(address.into()),
        ];
        if let Ok(net) = ipnet::Ipv4Net::new(address, prefix)
            && prefix < 31
        {
            message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
        }
        Self(message)
    }

    /// The number of its interface.
    pub fn link(&self) -> u32 {
        self.0.header.index
    }

    /// The address itself.
    pub fn ip(&self) -> Option<IpAddr> {
        let find = |local: bool| {
            self.0.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(ip) if local => Some(*ip),
                AddressAttribute::Address(ip) if !local => Some(*ip),
                _ => None,
            })
        };
        // On a point-to-point link the plain one is the other end.
        find(true).or_else(|| find(false))
    }

    /// The address and the network it is in.
    pub fn net(&self) -> Option<IpNet> {
        IpNet::new(self.ip()?, self.0.header.prefix_len).ok()
    }

    fn flags(&self) -> AddressFlags {
        let wide = self.0.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
        wide.unwrap_or(AddressFlags::from_bits_retain(u32::from(self.0.header.flags.bits())))
    }

    /// It was given for a time only: a DHCP client, or the kernel itself for IPv6, looks after it.
    pub fn is_leased(&self) -> bool {
        !self.flags().contains(AddressFlags::Permanent)
    }

    /// The kernel gives it by itself, and takes it away: the one of the link, or those that routers advertise. `mac` is
    /// that of its interface.
    pub fn is_kernels_own(&self, mac: Option<Mac>) -> bool {
        let said = self.0.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Protocol(protocol) => Some(*protocol),
            _ => None,
        });
        let Some(IpAddr::V6(ip)) = self.ip() else {
            return false;
        };
        match (said, self.0.header.scope) {
            (Some(AddressProtocol::RouterAnnouncement | AddressProtocol::LinkLocal), _) => true,
            // Linux before 5.18 does not say: then it is what the link's own address usually is.
            (_, AddressScope::Link) => {
                self.flags().contains(AddressFlags::StablePrivacy) || mac.is_some_and(|mac| is_derived_from(ip, mac))
            }
            // DHCP gives single addresses, routers a network of 64 bits to choose from (RFC 4862).
            _ => self.is_leased() && self.0.header.prefix_len == 64,
        }
    }

    /// The kernel has still to find out whether somebody else has it; until then it cannot be anybody's source.
    pub fn is_tentative(&self) -> bool {
        let flags = self.flags();
        flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Dadfailed)
    }

    /// The kernel makes no route to its network: whoever gave it has made one.
    pub fn has_no_route(&self) -> bool {
        self.flags().contains(AddressFlags::Noprefixroute)
    }

    /// Two that differ in what the kernel counts only.
    pub fn is_same(&self, other: &Self) -> bool {
        self.net() == other.net()
    }

    /// The same address, for another interface.
    fn on(&self, link: &Link) -> AddressMessage {
        let mut message = self.0.clone();
        message.header.index = link.index;
        // What the kernel says of an address, and does not take.
        let lost =
            AddressFlags::Secondary | AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Permanent;
        message.header.flags = AddressHeaderFlags::empty();
        message.attributes.retain_mut(|attribute| match attribute {
            AddressAttribute::Flags(flags) => {
                flags.remove(lost);
                true
            }
            // For IPv4 the label begins with the interface's name, or ifconfig(8) does not show it.
            AddressAttribute::Label(label) => {
                let suffix = label.find(':').map_or("", |at| &label[at..]);
                let renamed = format!("{}{suffix}", link.name);
                *label = renamed;
                label.len() <= 15
            }
            // For ever, and preferred for ever: that is what it is without.
            AddressAttribute::CacheInfo(info) => info.ifa_valid != u32::MAX || info.ifa_preferred != u32::MAX,
            _ => true,
        });
        message
    }
}

/// Whether the second half of `ip` is made from `mac` (RFC 4291, appendix A).
fn is_derived_from(ip: Ipv6Addr, Mac([a, b, c, d, e, g]): Mac) -> bool {
    ip.octets()[8..] == [a ^ 2, b, c, 0xff, 0xfe, d, e, g]
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.net() {
            Some(net) => net.fmt(f),
            None => f.write_str("an address of another family"),
        }
    }
}

impl Netlink {
    /// The addresses of all interfaces.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let answer = self.dump(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        let addresses = answer.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) => Some(Address(message)),
            _ => None,
        });
        Ok(addresses.collect())
    }

    /// Waits until no address of `link` is tentative, at most for `limit`.
    pub fn settle(&mut self, link: &Link, limit: Duration) -> Result<(), Error> {
        let events = Events::of(GROUP_ADDRESSES)?;
        let until = Instant::now() + limit;
        loop {
            let addresses = self.addresses()?;
            let mut own = addresses.iter().filter(|address| address.link() == link.index);
            if !own.any(Address::is_tentative) || !events.wait(until)? {
                return Ok(());
            }
        }
    }

    /// Gives an interface an address; it may have it already.
    pub fn add_address(&mut self, link: &Link, address: &Address) -> Result<(), Error> {
        let result = self.change(
            || format!("add {address} to {}", link.name),
            RouteNetlinkMessage::NewAddress(address.on(link)),
            NLM_F_CREATE | NLM_F_EXCL,
        );
        super::unless(nix::libc::EEXIST, result)
    }

    /// Takes an address from an interface, which may not have it.
    pub fn remove_address(&mut self, link: &Link, address: &Address) -> Result<(), Error> {
        let mut message = AddressMessage::default();
        message.header.family = address.0.header.family;
        message.header.prefix_len = address.0.header.prefix_len;
        message.header.index = link.index;
        message.attributes = address.0.attributes.clone();
        message
            .attributes
            .retain(|attribute| matches!(attribute, AddressAttribute::Local(_) | AddressAttribute::Address(_)));
        let result = self.change(
            || format!("take {address} from {}", link.name),
            RouteNetlinkMessage::DelAddress(message),
            0,
        );
        super::unless(nix::libc::EADDRNOTAVAIL, result)
    }
}

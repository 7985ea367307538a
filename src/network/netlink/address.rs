// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses of interfaces.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use super::{Error, Link, Netlink, saved};

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

    /// It is good beyond its own link.
    pub fn is_global(&self) -> bool {
        matches!(self.0.header.scope, AddressScope::Universe | AddressScope::Site)
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
        let leased = self.is_leased();
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
            AddressAttribute::CacheInfo(_) => leased,
            _ => true,
        });
        message
    }
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Routes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use super::{Address, Error, Link, Netlink, saved};

/// The kernel's own table of its own addresses (linux/rtnetlink.h).
const TABLE_LOCAL: u32 = 255;
const TABLE_MAIN: u32 = 254;

/// A route, with everything the kernel knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Route(#[serde(with = "saved")] RouteMessage);

impl Route {
    /// The numbers of the interfaces it leads through.
    pub fn links(&self) -> impl Iterator<Item = u32> {
        self.0.attributes.iter().flat_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => vec![*index],
            RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
            _ => Vec::new(),
        })
    }

    /// It leads through an object (`ip nexthop`) that knows the interface.
    pub fn has_nexthop_object(&self) -> bool {
        self.0
            .attributes
            .iter()
            .any(|attribute| matches!(attribute, RouteAttribute::NhId(_)))
    }

    /// The next router.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.0.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
            _ => None,
        })
    }

    fn table(&self) -> u32 {
        let wide = self.0.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });
        wide.unwrap_or(u32::from(self.0.header.table))
    }

    /// The smaller, the sooner it is chosen.
    pub fn priority(&self) -> u32 {
        let priority = self.0.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Priority(priority) => Some(*priority),
            _ => None,
        });
        priority.unwrap_or(0)
    }

    /// Where it leads; everywhere for a default route.
    pub fn destination(&self) -> Option<IpNet> {
        let prefix = self.0.header.destination_prefix_length;
        let address = self.0.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
            _ => None,
        });
        let address = match (address, self.0.header.address_family) {
            (Some(address), _) => address,
            (None, AddressFamily::Inet) => Ipv4Addr::UNSPECIFIED.into(),
            (None, AddressFamily::Inet6) => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        IpNet::new(address, prefix).ok()
    }

    /// It leads everywhere, in the main table.
    pub fn is_default_v4(&self) -> bool {
        self.0.header.address_family == AddressFamily::Inet
            && self.0.header.destination_prefix_length == 0
            && self.table() == TABLE_MAIN
            && self.0.header.kind == RouteType::Unicast
    }

    /// The kernel makes and removes it by itself: with one of `addresses`, or as a router advertised it.
    pub fn is_kernels_own(&self, addresses: &[Address]) -> bool {
        // NetworkManager makes them itself, in the kernel's name.
        let by_hand = || {
            let mut without = addresses.iter().filter(|address| address.has_no_route());
            without.any(|address| address.net().map(|net| net.trunc()) == self.destination())
        };
        self.table() == TABLE_LOCAL
            || self.0.header.protocol == RouteProtocol::Ra
            || self.0.header.protocol == RouteProtocol::Kernel && !by_hand()
            || self.0.header.flags.contains(RouteFlags::Cloned)
            || self.0.header.kind == RouteType::Multicast
    }

    /// It would be chosen for the same packets, through whatever interface.
    pub fn is_same(&self, other: &Self) -> bool {
        let key = |route: &Self| {
            (
                route.destination(),
                route.table(),
                route.priority(),
                route.0.header.tos,
                route.gateway(),
            )
        };
        key(self) == key(other)
    }

    /// The same route through `to` in place of `from`.
    fn through(&self, from: u32, to: u32) -> RouteMessage {
        let mut message = self.0.clone();
        // What the kernel says of a route, and does not take.
        message.header.flags &= RouteFlags::Onlink;
        message.attributes.retain_mut(|attribute| match attribute {
            RouteAttribute::Oif(index) => {
                if *index == from {
                    *index = to;
                }
                true
            }
            RouteAttribute::MultiPath(hops) => {
                for hop in hops.iter_mut() {
                    // A leg without a carrier is a leg nevertheless.
                    hop.flags &= RouteNextHopFlags::Onlink;
                    if hop.interface_index == from {
                        hop.interface_index = to;
                    }
                }
                true
            }
            RouteAttribute::CacheInfo(_) => false,
            _ => true,
        });
        message
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.destination() {
            Some(net) if net.prefix_len() == 0 => f.write_str("default")?,
            Some(net) => net.fmt(f)?,
            None => f.write_str("a route of another family")?,
        }
        match self.gateway() {
            Some(gateway) => write!(f, " via {gateway}"),
            None => Ok(()),
        }
    }
}

impl Netlink {
    /// All routes, of both families.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            for message in self.dump(&RouteNetlinkMessage::GetRoute(question))? {
                if let RouteNetlinkMessage::NewRoute(message) = message {
                    routes.push(Route(message));
                }
            }
        }
        // Those without a gateway come first: the others are reached through them.
        routes.sort_by_key(|route| (route.gateway().is_some(), scope_order(route.0.header.scope)));
        Ok(routes)
    }

    /// Adds a route that was seen on the interface numbered `from`, through `to`; it may be there already.
    pub fn add_route(&mut self, route: &Route, from: u32, to: &Link) -> Result<(), Error> {
        let result = self.change(
            || format!("add the route {route} through {}", to.name),
            RouteNetlinkMessage::NewRoute(route.through(from, to.index)),
            NLM_F_CREATE,
        );
        super::unless(nix::libc::EEXIST, result)
    }

    /// Removes a route that was seen on the interface numbered `from`, from `link`; it may not be there.
    pub fn remove_route(&mut self, route: &Route, from: u32, link: &Link) -> Result<(), Error> {
        let result = self.change(
            || format!("remove the route {route} through {}", link.name),
            RouteNetlinkMessage::DelRoute(route.through(from, link.index)),
            0,
        );
        super::unless(nix::libc::ESRCH, result)
    }
}

/// From what is near to what is far.
fn scope_order(scope: RouteScope) -> u8 {
    255 - u8::from(scope)
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Neighbours: whether a router still answers.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr as InetAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sys::socket::{setsockopt, sockopt::BindToDevice};

use super::events::Events;
use super::{Error, Link, Netlink};

/// RTNLGRP_NEIGH (linux/rtnetlink.h).
const GROUP_NEIGHBOURS: u32 = 3;
/// Port of the discard service (RFC 863): nobody does anything with what is sent there.
const DISCARD: u16 = 9;

/// What is known of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reachability {
    /// It has answered just now, or need not be asked.
    Answers,
    /// It has answered once.
    Remembered,
    /// It was asked and did not answer.
    Silent,
    /// Nobody has asked.
    Unknown,
}

fn reachability(message: &NeighbourMessage, link: u32, ip: IpAddr) -> Option<Reachability> {
    let is_it = message.header.ifindex == link
        && message.attributes.iter().any(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => IpAddr::V4(*address) == ip,
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => IpAddr::V6(*address) == ip,
            _ => false,
        });
    is_it.then_some(match message.header.state {
        NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp => Reachability::Answers,
        // Being asked: then there is news soon.
        NeighbourState::Probe => Reachability::Unknown,
        NeighbourState::Stale | NeighbourState::Delay => Reachability::Remembered,
        NeighbourState::Failed => Reachability::Silent,
        _ => Reachability::Unknown,
    })
}

impl Netlink {
    /// What the kernel knows of `ip` on the interface numbered `link`. Asks nobody.
    pub fn neighbour(&mut self, link: u32, ip: IpAddr) -> Result<Reachability, Error> {
        let answer = self.dump(&RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))?;
        let found = answer.iter().find_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => reachability(message, link, ip),
            _ => None,
        });
        Ok(found.unwrap_or(Reachability::Unknown))
    }

    /// Makes the kernel ask for `ip` on `link`, again and again, and waits for an answer; what it remembers of an earlier
    /// one does not count.
    pub fn probe(&mut self, link: &Link, ip: IpAddr, limit: Duration) -> Result<Reachability, Error> {
        // Before the question: no answer is missed.
        let events = Events::of(GROUP_NEIGHBOURS)?;
        let any: IpAddr = match ip {
            IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let ask = UdpSocket::bind(InetAddr::new(any, 0))?;
        // Also where the same address, as every router's fe80::, may be on another interface.
        setsockopt(&ask, BindToDevice, &OsString::from(&link.name)).map_err(std::io::Error::from)?;
        let to = match ip {
            IpAddr::V4(_) => InetAddr::new(ip, DISCARD),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, DISCARD, 0, link.index).into(),
        };
        let until = Instant::now() + limit;
        loop {
            match self.neighbour(link.index, ip)? {
                Reachability::Answers => return Ok(Reachability::Answers),
                // It has to be asked: a packet that cannot be sent is an answer as well, and the table has it.
                Reachability::Remembered => self.doubt(link.index, ip)?,
                Reachability::Silent | Reachability::Unknown => drop(ask.send_to(&[], to)),
            }
            if !events.wait(until)? {
                return self.neighbour(link.index, ip);
            }
        }
    }

    /// Makes the kernel ask a neighbour whether it is still there (NUD_PROBE in `ip-neighbour(8)`).
    fn doubt(&mut self, link: u32, ip: IpAddr) -> Result<(), Error> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = link;
        message.header.state = NeighbourState::Probe;
        let (family, address) = match ip {
            IpAddr::V4(ip) => (AddressFamily::Inet, NeighbourAddress::Inet(ip)),
            IpAddr::V6(ip) => (AddressFamily::Inet6, NeighbourAddress::Inet6(ip)),
        };
        message.header.family = family;
        message.attributes = vec![NeighbourAttribute::Destination(address)];
        let result = self.change(
            || format!("ask {ip} whether it is there"),
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_REPLACE,
        );
        // Forgotten meanwhile: then it is asked as a new one.
        super::unless(nix::libc::ENOENT, result)
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Neighbours: whether a router still answers.

use std::net::{IpAddr, SocketAddr as InetAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Error, Netlink};

/// RTNLGRP_NEIGH (linux/rtnetlink.h).
const GROUP_NEIGHBOURS: u32 = 3;
/// Port of the discard service (RFC 863): nobody does anything with what is sent there.
const DISCARD: u16 = 9;

/// What is known of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reachability {
    /// It has answered.
    Answers,
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
        NeighbourState::Reachable
        | NeighbourState::Stale
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent
        | NeighbourState::Noarp => Reachability::Answers,
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

    /// Makes the kernel ask for `ip` on the interface numbered `link`, and waits for its answer.
    pub fn probe(&mut self, link: u32, ip: IpAddr, limit: Duration) -> Result<Reachability, Error> {
        // Before the question: no answer is missed.
        let mut events = Socket::new(NETLINK_ROUTE)?;
        events.bind(&SocketAddr::new(0, 0))?;
        events.add_membership(GROUP_NEIGHBOURS)?;
        let any: IpAddr = match ip {
            IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let ask = UdpSocket::bind(InetAddr::new(any, 0))?;
        // A packet that can not be sent is an answer as well, and the neighbour table has it.
        drop(ask.send_to(&[], InetAddr::new(ip, DISCARD)));
        let until = Instant::now() + limit;
        loop {
            let known = self.neighbour(link, ip)?;
            if known != Reachability::Unknown || !wait(&events, until)? {
                return Ok(known);
            }
        }
    }
}

/// Waits for something to happen to any neighbour; false when the time is over.
fn wait(events: &Socket, until: Instant) -> Result<bool, Error> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(false);
    }
    // SAFETY: the socket is open as long as it is borrowed.
    let fd = unsafe { BorrowedFd::borrow_raw(events.as_raw_fd()) };
    let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    if poll(&mut fds, timeout).map_err(std::io::Error::from)? == 0 {
        return Ok(false);
    }
    // It is only a sign to look again, also if there were too many to be read.
    drop(events.recv_from_full());
    Ok(true)
}

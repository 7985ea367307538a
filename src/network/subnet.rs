// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a network can be the guests': nobody else on this host may have it, or a part of it.

use ipnet::IpNet;

use super::Error;
use super::netlink::{Link, Netlink};
use crate::config::network::Subnet;
use crate::config::types::InterfaceName;

/// Refuses a network that this host has an address in, or a route to, elsewhere than on `own`.
pub fn check(kernel: &mut Netlink, links: &[Link], subnet: Subnet, own: &InterfaceName) -> Result<(), Error> {
    let name = |index: u32| {
        let link = links.iter().find(|link| link.index == index);
        link.map_or_else(|| format!("interface {index}"), |link| link.name.clone())
    };
    let wanted = IpNet::V4(subnet.net());
    let overlaps = |net: &IpNet| net.contains(&wanted) || wanted.contains(net);
    let refuse = |by: String| {
        Err(Error::SubnetInUse {
            subnet: subnet.to_string(),
            by,
        })
    };
    for address in kernel.addresses()? {
        let link = name(address.link());
        if link != own.as_str() && address.net().is_some_and(|net| overlaps(&net.trunc())) {
            return refuse(format!("the address {address} on {link}"));
        }
    }
    for route in kernel.routes()? {
        let mut links = route.links().map(name);
        let elsewhere = links.find(|link| link != own.as_str());
        // A default route leads everywhere, and away from what is nearer.
        let near = route.destination().filter(|net| net.prefix_len() > 0);
        if let Some(link) = elsewhere
            && near.is_some_and(|net| overlaps(&net))
        {
            return refuse(format!("the route {route} through {link}"));
        }
    }
    Ok(())
}

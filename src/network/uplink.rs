// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interface that leads out of this host: which one it is, who looks after it, and whether it can be moved.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::Error;
use super::netlink::{Address, Link, Netlink, Reachability, Route};
use super::step::{Bridge, Uplink};
use crate::base::root::under;
use crate::config::types::InterfaceName;
use crate::file::tree;

/// How long a router may take to answer, on a link that has been up for a while.
const ANSWER: Duration = Duration::from_secs(2);

/// The interface of the default route.
pub fn find(links: &[Link], routes: &[Route]) -> Result<Link, Error> {
    let defaults = routes.iter().filter(|route| route.is_default_v4());
    let default = defaults.min_by_key(|route| route.priority());
    let index = default.and_then(|route| route.links().next()).ok_or(Error::NoUplink)?;
    links
        .iter()
        .find(|link| link.index == index)
        .cloned()
        .ok_or(Error::NoUplink)
}

/// Who else sets up an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    NetworkManager,
    Networkd,
    Ifupdown,
}

/// Who looks after `link`, by what they leave in /run.
fn owner(root: &Path, link: &Link) -> Option<Owner> {
    let read = |path: String| tree::text(root, Path::new(&path), tree::SETTINGS).ok();
    // https://gitlab.freedesktop.org/NetworkManager/NetworkManager: nm-config.c, the state of devices.
    let network_manager = read(format!("/run/NetworkManager/devices/{}", link.index))
        .is_some_and(|text| text.lines().any(|line| matches!(line, "managed=1" | "managed=true")));
    // sd-network reads the same (systemd: src/libsystemd/sd-network).
    let networkd = read(format!("/run/systemd/netif/links/{}", link.index))
        .is_some_and(|text| !text.lines().any(|line| line == "ADMIN_STATE=unmanaged"));
    // ifup(8): a line for each interface that is up, INTERFACE=LOGICAL.
    let ifupdown = read("/run/network/ifstate".to_owned())
        .is_some_and(|text| text.lines().any(|line| line.split('=').next() == Some(&link.name)));
    match (network_manager, networkd, ifupdown) {
        (true, _, _) => Some(Owner::NetworkManager),
        (_, true, _) => Some(Owner::Networkd),
        (_, _, true) => Some(Owner::Ifupdown),
        _ => None,
    }
}

/// What it takes to put `link` on the new bridge `bridge`, and what one should know; refused if it cannot be done, or,
/// unless it is forced, if somebody else would undo it.
pub fn plan(
    root: &Path,
    kernel: &mut Netlink,
    link: &Link,
    bridge: &InterfaceName,
    force: bool,
) -> Result<(Bridge, Uplink, Vec<String>), Error> {
    let refuse = |why: String| {
        Err(Error::UplinkUnsuitable {
            interface: link.name.clone(),
            why,
        })
    };
    if link.is_loopback {
        return refuse("it is the loopback interface".to_owned());
    }
    let Some(mac) = link.mac else {
        return refuse("it is no Ethernet interface".to_owned());
    };
    if let Some(index) = link.controller {
        let links = kernel.links()?;
        let name = links
            .iter()
            .find(|other| other.index == index)
            .map_or("another interface", |l| &l.name);
        return refuse(format!("it is a port of {name} already; name that one"));
    }
    if link.is_bridge {
        return refuse("it is a bridge itself: guests can join it as it is (`--bridge`)".to_owned());
    }
    if under(root, Path::new(&format!("/sys/class/net/{}/phy80211", link.name))).exists() {
        return refuse(
            "a wireless interface cannot be bridged (IEEE 802.11 has three addresses in a frame); use mode nat"
                .to_owned(),
        );
    }
    if let Some(what) = root_on_network(root)
        && !force
    {
        return refuse(format!(
            "{what} comes over the network and may not survive the moment of the switch; --force does it nevertheless"
        ));
    }
    let (addresses, routes) = what_moves(kernel, link)?;
    let leased = addresses.iter().find(|address| address.is_leased());
    let mut warnings = Vec::new();
    match owner(root, link) {
        Some(Owner::NetworkManager) if !force => {
            return refuse(format!(
                "NetworkManager looks after it and would take it back; let it make the bridge (nmcli connection add type \
                 bridge ifname {bridge}; nmcli connection add type ethernet ifname {0} master {bridge}) and leave \
                 manage_uplink off, or use --force",
                link.name
            ));
        }
        Some(Owner::Networkd) if !force => {
            return refuse(format!(
                "systemd-networkd looks after it and would take it back; let it make the bridge ([NetDev] Name={bridge} \
                 Kind=bridge in a .netdev file, Bridge={bridge} in the [Network] of {}) and leave manage_uplink off, or \
                 use --force",
                link.name
            ));
        }
        Some(Owner::Ifupdown) => warnings.push(format!(
            "ifupdown has set {0} up: `ifdown {0}` does not know that its addresses are on {bridge}",
            link.name
        )),
        _ => {}
    }
    if let Some(address) = leased
        && !force
    {
        return refuse(format!(
            "its address {address} is a lease, and the DHCP client that holds it would renew it on {0}; let that program \
             make the bridge and leave manage_uplink off, give {0} a fixed address, or use --force",
            link.name
        ));
    }
    if let Some(route) = routes.iter().find(|route| route.has_nexthop_object()) {
        return refuse(format!(
            "the route {route} goes through a nexthop object (`ip nexthop`), which ttvm cannot move"
        ));
    }
    let routers = answering(kernel, link, &routes)?;
    let name: InterfaceName = link
        .name
        .parse()
        .map_err(|error: crate::config::types::Invalid| Error::InvalidArgument(error.to_string()))?;
    // The kernel moves IPv6 only as far as somebody writes it down: what came by router advertisements comes anew.
    let disable_ipv6 = super::step::sysctl_value(&format!("net/ipv6/conf/{name}/disable_ipv6"))?;
    Ok((
        Bridge {
            name: bridge.clone(),
            // The one that DHCP servers and switches know the host by.
            mac,
            mtu: Some(link.mtu),
            addresses: Vec::new(),
            // Where it listens to routers, and how.
            settings: ["accept_ra", "use_tempaddr", "addr_gen_mode"]
                .iter()
                .filter_map(|key| {
                    let value = super::step::sysctl_value(&format!("net/ipv6/conf/{name}/{key}")).ok()??;
                    Some(("ipv6".to_owned(), (*key).to_owned(), value))
                })
                .collect(),
        },
        Uplink {
            uplink: name,
            bridge: bridge.clone(),
            seen_on: link.index,
            addresses,
            routes,
            disable_ipv6,
            routers,
        },
        warnings,
    ))
}

/// The addresses and routes of an interface that the kernel does not give by itself.
pub fn what_moves(kernel: &mut Netlink, link: &Link) -> Result<(Vec<Address>, Vec<Route>), Error> {
    let addresses = kernel.addresses()?.into_iter();
    let addresses: Vec<Address> = addresses
        .filter(|address| address.link() == link.index && !address.is_kernels_own(link.mac))
        .collect();
    let routes = kernel.routes()?.into_iter();
    let routes = routes
        .filter(|route| !route.is_kernels_own(&addresses) && route.links().any(|index| index == link.index))
        .collect();
    Ok((addresses, routes))
}

/// The routers that answer on an interface. Those that do not, or do not want to, prove nothing later.
pub fn answering(kernel: &mut Netlink, link: &Link, routes: &[Route]) -> Result<Vec<IpAddr>, Error> {
    let mut routers = Vec::new();
    for router in routes.iter().filter_map(Route::gateway) {
        if !routers.contains(&router) && kernel.probe(link, router, ANSWER)? == Reachability::Answers {
            routers.push(router);
        }
    }
    Ok(routers)
}

/// What of this system itself comes over the network.
fn root_on_network(root: &Path) -> Option<&'static str> {
    let mounts = tree::text(root, Path::new("/proc/mounts"), tree::WRITTEN).unwrap_or_default();
    let nfs = mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some("/") && words.next().is_some_and(|kind| kind.starts_with("nfs"))
    });
    let iscsi =
        fs::read_dir(under(root, Path::new("/sys/class/iscsi_session"))).is_ok_and(|mut dir| dir.next().is_some());
    match (nfs, iscsi) {
        (true, _) => Some("the root file system"),
        (_, true) => Some("a disk (iSCSI)"),
        _ => None,
    }
}

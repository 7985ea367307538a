// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a mode is made of.

use std::path::Path;

use super::named;
use crate::config::guests;
use crate::config::network::Subnet;
use crate::config::places::Places;
use crate::config::types::{InterfaceName, Mac};
use crate::file::tree;
use crate::network::journal::{Chosen, Settings};
use crate::network::netlink::Link;
use crate::network::step::{self, Bridge, Context, Dnsmasq, Firewall, Step, Sysctl, Zoned};
use crate::network::{Error, Mode, Request, firewalld, subnet, uplink};

pub(super) fn nat(
    context: &mut Context<'_>,
    from: &Chosen,
    bridge: &InterfaceName,
    subnet: Subnet,
    to: &Settings,
    warnings: &mut Vec<String>,
) -> Result<Vec<Step>, Error> {
    step::firewall::check()?;
    if to.dhcp {
        step::dnsmasq::check()?;
    }
    let links = context.kernel.links()?;
    // What we have made before is not in our way.
    let own = from
        .steps
        .iter()
        .any(|step| matches!(step, Step::Bridge(one) if one.name == *bridge));
    if !own && links.iter().any(|link| link.name == bridge.as_str()) {
        return Err(Error::Foreign {
            what: format!("there is an interface {bridge} that ttvm has not made"),
            remedy: "choose another name (`--bridge`, or bridge in [network.nat] of ttvm.toml), or remove it"
                .to_owned(),
        });
    }
    let made = from
        .settings
        .bridge
        .as_ref()
        .filter(|_| from.settings.mode == Mode::Nat);
    subnet::check(&mut context.kernel, &links, subnet, made.unwrap_or(bridge))?;
    let prefix = subnet.net().prefix_len();
    let setting = |family: &str, key: &str| (family.to_owned(), key.to_owned(), "1".to_owned());
    let mut steps = vec![Step::Bridge(Bridge {
        name: bridge.clone(),
        mac: stable_mac(context.root, bridge),
        mtu: None,
        addresses: [(subnet.gateway(), prefix)]
            .into_iter()
            .chain(subnet.old_gateway().map(|old| (old, 32)))
            .collect(),
        settings: vec![setting("ipv4", "forwarding"), setting("ipv6", "disable_ipv6")],
    })];
    let forwarding = forwarding(context, from, &links, bridge)?;
    let guarded = forwarding.iter().map(|sysctl| sysctl.interface().to_owned()).collect();
    steps.extend(forwarding.into_iter().map(Step::Sysctl));
    let firewall = Firewall {
        bridge: bridge.clone(),
        subnet,
        guarded,
    };
    firewall.check()?;
    steps.push(Step::Firewall(firewall));
    if let Some(zone) = &to.zone
        && (own || firewalld::zone_of(bridge)?.as_deref() != Some(zone.as_str()))
    {
        steps.push(Step::Zone(Zoned {
            zone: zone.clone(),
            bridge: bridge.clone(),
        }));
    }
    if to.dhcp {
        steps.push(Step::Dnsmasq(Dnsmasq {
            bridge: bridge.clone(),
            subnet,
        }));
    }
    for guest in guests::all(&Places::system(context.root), context.config)? {
        let addresses = guest
            .vifs
            .iter()
            .filter(|vif| vif.bridge.is_none())
            .filter_map(|vif| vif.address);
        for address in addresses.filter(|address| !subnet.is_for_guests(*address)) {
            warnings.push(format!("{} cannot have its address {address} in {subnet}", guest.name));
        }
    }
    Ok(steps)
}

/// Forwarding where guests' packets go out and come in, and nowhere else. The host's global switch (`ip_forward`) would
/// make it a router between all its networks, and changes other settings on the way, which do not come back with it
/// (inet_forward_change in Linux's net/ipv4/devinet.c).
fn forwarding(
    context: &mut Context<'_>,
    from: &Chosen,
    links: &[Link],
    bridge: &InterfaceName,
) -> Result<Vec<Sysctl>, Error> {
    let addresses = context.kernel.addresses()?;
    let uplink = from.steps.iter().find_map(|step| match step {
        Step::Uplink(uplink) => Some(uplink),
        _ => None,
    });
    let mut sysctls = Vec::new();
    for link in links {
        let has_v4 = addresses
            .iter()
            .any(|address| address.link() == link.index && address.ip().is_some_and(|ip| ip.is_ipv4()));
        // A device of the machine may get its address later.
        let is_way_out = (has_v4 || link.is_device && link.mac.is_some()) && link.controller.is_none();
        if !is_way_out || link.is_loopback || link.name == bridge.as_str() || link.name.starts_with("vif") {
            continue;
        }
        // Its addresses are on their way back.
        let name = match uplink.filter(|uplink| uplink.bridge.as_str() == link.name) {
            Some(uplink) => uplink.uplink.as_str(),
            None => &link.name,
        };
        let old = from.steps.iter().find_map(|step| match step {
            Step::Sysctl(sysctl) if sysctl.forwards(name) => Some(sysctl.clone()),
            _ => None,
        });
        match old {
            Some(old) => sysctls.push(old),
            None => {
                let Some(sysctl) = Sysctl::forwarding(name)? else {
                    continue;
                };
                sysctls.push(sysctl);
            }
        }
    }
    Ok(sysctls)
}

pub(super) fn bridged(
    context: &mut Context<'_>,
    from: &Chosen,
    bridge: &InterfaceName,
    to: &mut Settings,
    request: &Request,
    warnings: &mut Vec<String>,
) -> Result<Vec<Step>, Error> {
    // What is not said stays as it is.
    let unmanaged = request.options.manage_uplink == Some(false);
    let links = context.kernel.links()?;
    let there = links.iter().find(|link| link.name == bridge.as_str());
    let own = from.settings.mode == Mode::Bridge
        && from.settings.bridge.as_ref() == Some(bridge)
        && from.settings.uplink.is_some();
    match there {
        Some(_) if own => {
            let other = to.uplink.is_some() && to.uplink != from.settings.uplink;
            if other || unmanaged {
                return Err(Error::NotSupported(format!(
                    "{bridge} has been made by ttvm, on {}; switch to nat or none first, then to bridge again",
                    named(from.settings.uplink.as_ref().map_or("", InterfaceName::as_str))
                )));
            }
            to.manage_uplink = true;
            to.uplink = from.settings.uplink.clone();
            return Ok(from.steps.clone());
        }
        Some(_)
            if from
                .steps
                .iter()
                .any(|step| matches!(step, Step::Bridge(one) if one.name == *bridge)) =>
        {
            return Err(Error::NotSupported(format!(
                "{bridge} is ttvm's own bridge of mode {}, which goes with it; name another one",
                from.settings.mode
            )));
        }
        Some(link) if !link.is_bridge => {
            return Err(Error::Foreign {
                what: format!("{bridge} is there and is no bridge"),
                remedy: "name another one (`--bridge`)".to_owned(),
            });
        }
        Some(link) => {
            if links
                .iter()
                .all(|port| port.controller != Some(link.index) || port.name.starts_with("vif"))
            {
                warnings.push(format!("{bridge} has no port: guests on it reach only each other"));
            }
            to.manage_uplink = false;
            to.uplink = None;
            return Ok(Vec::new());
        }
        None if !to.manage_uplink => {
            return Err(Error::NoBridge {
                bridge: bridge.to_string(),
            });
        }
        None => {}
    }
    let uplink = match &to.uplink {
        Some(name) => {
            let found = links.iter().find(|link| link.name == name.as_str());
            found.cloned().ok_or_else(|| Error::UplinkUnsuitable {
                interface: name.to_string(),
                why: "there is no such interface".to_owned(),
            })?
        }
        None => uplink::find(&links, &context.kernel.routes()?)?,
    };
    let (bridge, uplink, notes) = uplink::plan(context.root, &mut context.kernel, &uplink, bridge, request.force)?;
    warnings.extend(notes);
    to.uplink = Some(uplink.uplink.clone());
    Ok(vec![Step::Bridge(bridge), Step::Uplink(uplink)])
}

/// The same on this machine whenever the bridge is made: a guest's cache of addresses stays true.
fn stable_mac(root: &Path, bridge: &InterfaceName) -> Mac {
    let machine = tree::text(root, Path::new("/etc/machine-id"), tree::SETTINGS).unwrap_or_default();
    let machine = uuid::Uuid::try_parse(machine.trim()).unwrap_or_default();
    let [_, a, b, c, d, e, ..] = *uuid::Uuid::new_v5(&machine, bridge.as_str().as_bytes()).as_bytes();
    // Locally administered, for one station.
    Mac([0x02, a, b, c, d, e])
}

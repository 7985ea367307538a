// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which steps lead from one mode to another, in an order in which the host is reachable and guests are without a
//! network for as short as can be.

use std::fs;
use std::path::Path;

use super::journal::{self, Chosen, Settings};
use super::netlink::Link;
use super::step::{self, Bridge, Context, Dnsmasq, Firewall, Guests, Op, Step, Sysctl, Uplink, Zoned};
use super::xend::{self, Xend};
use super::{Attachment, Error, Mode, Options, Request, attachments, firewalld, subnet, uplink};
use crate::config::guests;
use crate::config::network::{Firewall as Filter, NetworkConfig, Subnet};
use crate::config::types::{InterfaceName, Mac};
use crate::config::under;

/// A way from one mode to another.
#[derive(Debug)]
pub struct Plan {
    /// What is true at its end.
    pub to: Chosen,
    /// What is done, in order.
    pub ops: Vec<Op>,
    /// What is done once it is confirmed.
    pub afterwards: Vec<Op>,
    /// What one should know.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Whether the host's own addresses move.
    pub fn moves_uplink(&self) -> bool {
        // xend's script for a bridge does the same.
        let moves = |op: &Op| matches!(op.step(), Step::Uplink(_) | Step::Scripts(_));
        self.ops.iter().any(moves)
    }
}

/// What a mode comes to, with what was asked for in place of the configuration.
pub fn settings(config: &NetworkConfig, mode: Mode, options: &Options) -> Result<Settings, Error> {
    let given = [
        ("bridge", options.bridge.is_some(), mode != Mode::None),
        ("uplink", options.uplink.is_some(), mode == Mode::Bridge),
        ("manage_uplink", options.manage_uplink.is_some(), mode == Mode::Bridge),
        ("subnet", options.subnet.is_some(), mode == Mode::Nat),
        ("dhcp", options.dhcp.is_some(), mode == Mode::Nat),
    ];
    if let Some((name, ..)) = given.iter().find(|(_, given, allowed)| *given && !allowed) {
        return Err(Error::InvalidArgument(format!("{name} means nothing in mode {mode}")));
    }
    let firewalld = config.firewall == Filter::Firewalld;
    Ok(match mode {
        Mode::None => Settings::default(),
        Mode::Nat => Settings {
            mode,
            bridge: Some(options.bridge.clone().unwrap_or_else(|| config.nat.bridge.clone())),
            subnet: Some(options.subnet.unwrap_or(config.nat.subnet)),
            dhcp: options.dhcp.unwrap_or(config.nat.dhcp),
            zone: firewalld.then(|| config.zone.clone()),
            ..Settings::default()
        },
        Mode::Bridge => {
            let uplink = options.uplink.clone().or_else(|| config.bridge.uplink.clone());
            let managed = options
                .manage_uplink
                .unwrap_or(config.bridge.manage_uplink || options.uplink.is_some());
            Settings {
                mode,
                bridge: Some(options.bridge.clone().unwrap_or_else(|| config.bridge.bridge.clone())),
                manage_uplink: managed,
                uplink: uplink.filter(|_| managed),
                ..Settings::default()
            }
        }
    })
}

/// The way to what is asked for; `None` if there is nothing to do. `chosen` is the mode that was chosen before.
pub fn plan(context: &mut Context<'_>, chosen: &Chosen, request: &Request) -> Result<Option<Plan>, Error> {
    let mut to = settings(&context.config.network, request.mode, &request.options)?;
    let from = &chosen.in_force();
    let mut warnings = Vec::new();
    if let Some(xend) = Xend::in_charge(context.root) {
        return scripts(context, &xend, chosen, from, request);
    }
    let steps = match (to.mode, &to.bridge, to.subnet) {
        (Mode::Nat, Some(bridge), Some(subnet)) => nat(context, from, bridge, subnet, &to, &mut warnings)?,
        (Mode::Bridge, Some(bridge), _) => {
            let bridge = bridge.clone();
            bridged(context, from, &bridge, &mut to, request, &mut warnings)?
        }
        _ => Vec::new(),
    };
    if to == from.settings && steps == from.steps && from.degraded.is_none() {
        return Ok(None);
    }
    let attached = attachments::list(context.root, context.config, &mut context.kernel)?;
    let (ops, afterwards) = order(context, from, &to, &steps, &attached)?;
    if !request.force {
        nobody_is_cut_off(context, from, &to, &ops, &afterwards, &attached)?;
    }
    warnings.extend(attached.iter().filter_map(|vif| {
        let why = vif.stays.as_ref()?;
        Some(format!("{} stays on {}: {why}", vif.vif, named(&vif.bridge)))
    }));
    Ok(Some(Plan {
        to: Chosen {
            options: request.options.clone(),
            settings: to,
            steps,
            boot: journal::boot(),
            force: request.force,
            last: chosen.last + 1,
            ..Chosen::default()
        },
        ops,
        afterwards,
        warnings,
    }))
}

/// The way on a host with xend: its scripts make the network. Mode `none` gives xend what it had before the first switch.
fn scripts(
    context: &mut Context<'_>,
    xend: &Xend,
    chosen: &Chosen,
    from: &Chosen,
    request: &Request,
) -> Result<Option<Plan>, Error> {
    if request.options != Options::default() {
        return Err(Error::NotSupported(
            "xend's own scripts make the network of this host: options are given to them in xend-config.sxp".to_owned(),
        ));
    }
    let to = Settings {
        mode: request.mode,
        ..Settings::default()
    };
    let (mut ops, mut steps) = (Vec::new(), Vec::new());
    let wanted = match request.mode {
        Mode::None => None,
        Mode::Nat => Some(xend::Scripts::Nat),
        Mode::Bridge => Some(xend::Scripts::Bridge),
    };
    match wanted {
        None => ops.extend(from.steps.iter().rev().cloned().map(Op::Undo)),
        Some(scripts) => {
            let attached = attachments::list(context.root, context.config, &mut context.kernel)?;
            let attached = attached.iter().filter(|vif| !vif.bridge.is_empty()).count();
            let switched = xend.prepare(scripts, request.force, attached)?;
            let first = from.steps.iter().find_map(|step| match step {
                Step::Scripts(scripts) => Some(&scripts.switched),
                _ => None,
            });
            let step = |switched| {
                Step::Scripts(step::Scripts {
                    switched,
                    force: request.force,
                    attached,
                })
            };
            if switched.is_change() {
                steps.push(step(switched.after(first)));
                ops.push(Op::Do(step(switched)));
            } else {
                steps.clone_from(&from.steps);
            }
        }
    }
    if to == from.settings && ops.is_empty() {
        return Ok(None);
    }
    Ok(Some(Plan {
        to: Chosen {
            settings: to,
            steps,
            boot: journal::boot(),
            force: request.force,
            last: chosen.last + 1,
            ..Chosen::default()
        },
        ops,
        afterwards: Vec::new(),
        warnings: Vec::new(),
    }))
}

fn named(bridge: &str) -> &str {
    if bridge.is_empty() { "no bridge" } else { bridge }
}

fn nat(
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
    steps.push(Step::Firewall(Firewall {
        bridge: bridge.clone(),
        subnet,
        guarded,
    }));
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
    for guest in guests::all(context.root, context.config)? {
        let addresses = guest
            .vifs
            .iter()
            .filter(|vif| vif.bridge.is_none())
            .filter_map(|vif| vif.address);
        for address in addresses.filter(|address| !subnet.is_for_guests(*address)) {
            warnings.push(format!("{} can not have its address {address} in {subnet}", guest.name));
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
            None => sysctls.extend(Sysctl::forwarding(name)?),
        }
    }
    Ok(sysctls)
}

fn bridged(
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

/// The steps in an order, as they are done before and after the confirmation.
fn order(
    context: &mut Context<'_>,
    from: &Chosen,
    to: &Settings,
    steps: &[Step],
    attached: &[Attachment],
) -> Result<(Vec<Op>, Vec<Op>), Error> {
    let added = steps.iter().filter(|step| !from.steps.contains(step));
    let added: Vec<Op> = added.cloned().map(Op::Do).collect();
    let mut removed = Vec::new();
    for step in from.steps.iter().rev().filter(|step| !steps.contains(step)) {
        match step {
            Step::Uplink(uplink) => removed.extend(as_it_is(context, uplink)?.map(Step::Uplink)),
            other => removed.push(other.clone()),
        }
    }
    let old = from.settings.bridge.clone();
    let elsewhere = attached
        .iter()
        .filter(|vif| vif.stays.is_none() && !vif.bridge.is_empty())
        .map(|vif| (vif.vif.clone(), vif.bridge.clone()))
        .collect();
    let clash = removed
        .iter()
        .any(|old| added.iter().any(|new| old.takes_the_place_of(new.step())));
    if clash {
        // Who is started meanwhile waits for the new bridge, not for none.
        let mut ops = vec![Op::Do(Step::Guests(Guests {
            from: old,
            to: None,
            told: to.bridge.clone(),
            elsewhere,
        }))];
        ops.extend(removed.into_iter().map(Op::Undo));
        ops.extend(added);
        ops.push(Op::Do(Step::Guests(Guests {
            from: None,
            to: to.bridge.clone(),
            told: to.bridge.clone(),
            elsewhere: Vec::new(),
        })));
        return Ok((ops, Vec::new()));
    }
    let mut ops = added;
    ops.push(Op::Do(Step::Guests(Guests {
        from: old.clone(),
        to: to.bridge.clone(),
        told: to.bridge.clone(),
        elsewhere,
    })));
    // What carries the host itself goes while there is a way back; the rest stays until there is no need for one.
    let carries = |step: &Step| match step {
        Step::Uplink(_) => true,
        Step::Bridge(bridge) => from.settings.uplink.is_some() && Some(&bridge.name) == old.as_ref(),
        _ => false,
    };
    let (first, afterwards): (Vec<Step>, Vec<Step>) = removed.into_iter().partition(carries);
    ops.extend(first.into_iter().map(Op::Undo));
    let leftover = from.leftover.iter().filter(|step| !steps.contains(step)).cloned();
    Ok((ops, afterwards.into_iter().chain(leftover).map(Op::Undo).collect()))
}

/// The step of an uplink that has been on its bridge for a while, with the addresses and routes that are there now; none
/// if somebody has taken it away from there.
fn as_it_is(context: &mut Context<'_>, step: &Uplink) -> Result<Option<Uplink>, Error> {
    let links = context.kernel.links()?;
    let find = |name: &InterfaceName| links.iter().find(|link| link.name == name.as_str());
    let (Some(uplink), Some(bridge)) = (find(&step.uplink), find(&step.bridge)) else {
        return Ok(None);
    };
    if uplink.controller != Some(bridge.index) {
        return Ok(None);
    }
    let (addresses, routes) = uplink::what_moves(&mut context.kernel, bridge)?;
    let routers = uplink::answering(&mut context.kernel, bridge, &routes)?;
    Ok(Some(Uplink {
        seen_on: bridge.index,
        addresses,
        routes,
        routers,
        ..step.clone()
    }))
}

/// Refuses to take a bridge away from under guests that do not move with the mode.
fn nobody_is_cut_off(
    context: &mut Context<'_>,
    from: &Chosen,
    to: &Settings,
    ops: &[Op],
    afterwards: &[Op],
    attached: &[Attachment],
) -> Result<(), Error> {
    let follows = |vif: &&Attachment| vif.stays.is_none();
    if to.bridge.is_none()
        && let Some(bridge) = &from.settings.bridge
    {
        let left: Vec<&Attachment> = attached
            .iter()
            .filter(follows)
            .filter(|vif| !vif.bridge.is_empty())
            .collect();
        if !left.is_empty() {
            return Err(Error::GuestsAttached {
                bridge: bridge.to_string(),
                guests: names(&left),
            });
        }
    }
    for op in ops.iter().chain(afterwards) {
        let Op::Undo(Step::Bridge(bridge)) = op else {
            continue;
        };
        if ops
            .iter()
            .any(|op| matches!(op, Op::Do(Step::Bridge(new)) if new.name == bridge.name))
        {
            continue;
        }
        let stay: Vec<&Attachment> = attached
            .iter()
            .filter(|vif| !follows(vif) && vif.bridge == bridge.name.as_str())
            .collect();
        if !stay.is_empty() {
            return Err(Error::GuestsAttached {
                bridge: bridge.name.to_string(),
                guests: names(&stay),
            });
        }
        // Whoever else has put something there.
        let links = context.kernel.links()?;
        let index = links
            .iter()
            .find(|link| link.name == bridge.name.as_str())
            .map(|link| link.index);
        let foreign = links.iter().find(|link| {
            index.is_some()
                && link.controller == index
                && Some(link.name.as_str()) != from.settings.uplink.as_ref().map(InterfaceName::as_str)
                && !attached.iter().any(|vif| vif.is_called(&link.name))
        });
        if let Some(foreign) = foreign {
            return Err(Error::Foreign {
                what: format!("{} is a port of {}, which would go", foreign.name, bridge.name),
                remedy: format!("take it out (ip link set {} nomaster), or use --force", foreign.name),
            });
        }
    }
    Ok(())
}

fn names(vifs: &[&Attachment]) -> String {
    let names: Vec<&str> = vifs
        .iter()
        .map(|vif| vif.guest.as_deref().unwrap_or(&vif.vif))
        .collect();
    names.join(", ")
}

/// The same on this machine whenever the bridge is made: a guest's cache of addresses stays true.
fn stable_mac(root: &Path, bridge: &InterfaceName) -> Mac {
    let machine = fs::read_to_string(under(root, Path::new("/etc/machine-id"))).unwrap_or_default();
    let machine = uuid::Uuid::try_parse(machine.trim()).unwrap_or(uuid::Uuid::nil());
    let [_, a, b, c, d, e, ..] = *uuid::Uuid::new_v5(&machine, bridge.as_str().as_bytes()).as_bytes();
    // Locally administered, for one station.
    Mac([0x02, a, b, c, d, e])
}

/// The unit of a run that must not be disturbed, if there is one.
pub fn recording(root: &Path) -> Option<String> {
    ["record", "replay"].iter().find_map(|kind| {
        let slice = format!("/sys/fs/cgroup/system.slice/system-ttvm\\x2d{kind}.slice");
        let mut entries = fs::read_dir(under(root, Path::new(&slice))).ok()?.flatten();
        entries.find_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.starts_with(&format!("ttvm-{kind}@")).then_some(name)
        })
    })
}

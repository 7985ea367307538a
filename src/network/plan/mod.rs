// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which steps lead from one mode to another, in an order in which the host is reachable and guests are without a
//! network for as short as can be.

mod order;
mod scripts;
mod steps;

use std::fs;
use std::path::Path;

use self::order::{nobody_is_cut_off, order};
use self::scripts::scripts;
use self::steps::{bridged, nat};
use super::journal::{self, Chosen, Settings};
use super::step::{Context, Op, Step};
use super::xend::Xend;
use super::{Error, Mode, Options, Request, attachments};
use crate::base::root::under;
use crate::config::network::{Firewall as Filter, NetworkConfig};

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
    if let Some(xend) = scripted(context, from, request)? {
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
    if to == from.settings && steps == from.steps {
        return match &from.degraded {
            None => Ok(None),
            Some(why) => Err(Error::NotSupported(format!(
                "the mode is {} already, and not wholly in force: {why}; `ttvm network reconcile` makes what is missing",
                to.mode
            ))),
        };
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

/// xend, if the way is through its scripts: they make the network, ttvm has made them do it, or somebody wants that by force
/// on a host that has no bridge of its own.
fn scripted(context: &mut Context<'_>, from: &Chosen, request: &Request) -> Result<Option<Xend>, Error> {
    let Some(xend) = Xend::installed(context.root) else {
        return Ok(None);
    };
    let ours = from.steps.iter().any(|step| matches!(step, Step::Scripts(_)));
    if ours || Xend::in_charge(context.root).is_some() {
        return Ok(Some(xend));
    }
    if !request.force || request.options != Options::default() || request.mode == Mode::None {
        return Ok(None);
    }
    // network-bridge would take the uplink from under a bridge that has it.
    let links = context.kernel.links()?;
    let bridged = |link: &super::netlink::Link| {
        let ports = |port: &super::netlink::Link| port.controller == Some(link.index) && !port.name.starts_with("vif");
        link.is_bridge && links.iter().any(ports)
    };
    let there = request.mode == Mode::Bridge && links.iter().any(bridged);
    Ok(Some(xend).filter(|_| !there))
}

fn named(bridge: &str) -> &str {
    if bridge.is_empty() { "no bridge" } else { bridge }
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

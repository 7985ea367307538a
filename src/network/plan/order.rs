// SPDX-License-Identifier: MIT OR Apache-2.0
//! The steps from one mode to another, in their order, and who would be cut off by them.

use crate::config::types::InterfaceName;
use crate::network::journal::{Chosen, Settings};
use crate::network::step::{Context, Guests, Op, Step, Uplink};
use crate::network::{Attachment, Error, uplink};

/// The steps in an order, as they are done before and after the confirmation.
pub(super) fn order(
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
pub(super) fn nobody_is_cut_off(
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way on a host with xend.

use super::Plan;
use crate::network::journal::{self, Chosen, Settings};
use crate::network::step::{self, Context, Op, Step};
use crate::network::xend::{self, Xend};
use crate::network::{Error, Mode, Options, Request, attachments};

/// The way on a host with xend: its scripts make the network. Mode `none` gives xend what it had before the first switch.
pub(super) fn scripts(
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

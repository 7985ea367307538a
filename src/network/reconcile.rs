// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making again what is missing of a mode: after a boot, and after others have flushed or removed it.

use std::time::Duration;

use super::journal::{self, Chosen, Phase, Transaction};
use super::service::{Network, PATIENCE};
use super::step::{self, Context, Guests, Op, Step};
use super::{Error, Mode, Options, Recovered, Request, plan};
use crate::config::host::HostConfig;

impl Network {
    /// Makes again what is missing of the mode that was chosen; returns what was done, in sentences.
    pub fn reconcile(&self) -> Result<Vec<String>, Error> {
        let _lock = self.lock(PATIENCE)?;
        let config = self.config()?;
        let journal = self.journal();
        if matches!(self.settle(&config)?, Recovered::Waiting(_))
            && let Some(waiting) = journal.pending()?
        {
            return self.repair_waiting(&config, &waiting);
        }
        let mut chosen = journal.chosen()?;
        let before = chosen.clone();
        let done = if chosen.boot == journal::boot() {
            self.repair(&config, &mut chosen)
        } else {
            self.after_boot(&config, &mut chosen)
        };
        let leftover = chosen.leftover.first();
        let left = leftover.map(|step| format!("could not {}", Op::Undo(step.clone())));
        chosen.degraded = done.as_ref().err().map(Error::text).or(left);
        if chosen != before {
            journal.choose(&chosen)?;
        }
        done
    }

    /// The mode as it was chosen before this boot.
    fn after_boot(&self, config: &HostConfig, chosen: &mut Chosen) -> Result<Vec<String>, Error> {
        let mut options = Options::clone(&chosen.options);
        if chosen.settings.mode == Mode::Bridge {
            // Exactly the bridge and the uplink that were confirmed, whatever this boot looks like.
            options.bridge.clone_from(&chosen.settings.bridge);
            options.uplink.clone_from(&chosen.settings.uplink);
            options.manage_uplink = Some(chosen.settings.manage_uplink);
        }
        let request = Request {
            mode: chosen.settings.mode,
            options,
            confirm: Duration::ZERO,
            force: chosen.force,
        };
        let boot = journal::boot();
        let mut context = Context::new(&self.root, config)?;
        let Some(plan) = plan::plan(&mut context, chosen, &request)? else {
            return Ok(Vec::new());
        };
        // Once, while the host comes up: hours later nobody expects its own addresses to move.
        if plan.moves_uplink() && chosen.tried == boot {
            return Err(Error::NotSupported(format!(
                "the host's addresses could not be moved when it came up, and are not moved now; `ttvm network set {}` does \
                 it, with a way back",
                chosen.settings.mode
            )));
        }
        chosen.tried.clone_from(&boot);
        self.journal().choose(chosen)?;
        let done = plan.ops.iter().map(ToString::to_string).collect();
        let mut transaction = Transaction {
            id: plan.to.last,
            boot,
            phase: Phase::Applying,
            from: Default::default(),
            to: plan.to,
            ops: plan.ops,
            afterwards: plan.afterwards,
            confirm: Duration::ZERO,
            deadline: None,
        };
        // The new number is used up, whatever comes of it.
        chosen.last = transaction.id;
        transaction.to.degraded = None;
        self.journal().save(&transaction)?;
        self.make(config, &transaction)?;
        self.keep(config, transaction)?;
        *chosen = self.journal().chosen()?;
        Ok(done)
    }

    /// The same while a change waits: of both modes, what is there as long as it waits.
    fn repair_waiting(&self, config: &HostConfig, waiting: &Transaction) -> Result<Vec<String>, Error> {
        let mut context = Context::new(&self.root, config)?;
        let chosen = self.journal().chosen()?.in_force();
        let undone = |step: &&Step| waiting.ops.iter().any(|op| *op == Op::Undo((*step).clone()));
        let before = chosen.steps.iter().filter(|step| !undone(step));
        let made = waiting.ops.iter().filter_map(|op| match op {
            Op::Do(step) if !matches!(step, Step::Guests(_)) => Some(step),
            _ => None,
        });
        let mut done = Vec::new();
        for step in before.chain(made).filter(|step| !step.is_hosts_own()) {
            if let Some(what) = step.missing(&mut context)? {
                let op = Op::Do(step.clone());
                op.apply(&mut context)?;
                done.push(format!("{what}: {op}"));
            }
        }
        Ok(done)
    }

    /// Makes again what others have flushed or removed. The host's own addresses are not moved: whoever has changed
    /// something there since knows better.
    pub(super) fn repair(&self, config: &HostConfig, chosen: &mut Chosen) -> Result<Vec<String>, Error> {
        let mut context = Context::new(&self.root, config)?;
        let mut done = Vec::new();
        for step in std::mem::take(&mut chosen.leftover) {
            let op = Op::Undo(step);
            match op.apply(&mut context) {
                Ok(()) => done.push(op.to_string()),
                Err(error) => {
                    tracing::warn!("could not {op}: {}", error.text());
                    chosen.leftover.push(op.step().clone());
                }
            }
        }
        let open = step::everything_is_forwarded()?;
        let hosts = chosen.steps.iter().any(Step::is_hosts_own);
        let recorded = plan::recording(&self.root);
        let mut anew = false;
        for step in &mut chosen.steps {
            // Since somebody has made the host a router between all its networks, it is not for us to guard them.
            let mut changed = false;
            if let Step::Firewall(firewall) = step
                && open
                && !firewall.guarded.is_empty()
            {
                firewall.guarded.clear();
                changed = true;
            }
            let again = anew && matches!(step, Step::Dnsmasq(_));
            let missing = step.missing(&mut context)?;
            let what = match missing {
                Some(what) if step.is_hosts_own() || hosts && matches!(step, Step::Bridge(_)) => {
                    return Err(Error::NotSupported(format!(
                        "{what}; somebody has changed the host's own network: `ttvm network set none` takes ttvm out of it"
                    )));
                }
                Some(what) => what,
                None if changed => "forwarding is on for the whole host".to_owned(),
                None if again => "its bridge is a new one".to_owned(),
                None => continue,
            };
            anew |= matches!(step, Step::Bridge(_));
            // A run that is being recorded keeps its way out, and is not disturbed otherwise.
            if recorded.is_some() && !matches!(step, Step::Firewall(_) | Step::Zone(_) | Step::Sysctl(_)) {
                continue;
            }
            let op = Op::Do(step.clone());
            op.apply(&mut context)?;
            tracing::info!("{what}: {op}");
            done.push(format!("{what}: {op}"));
        }
        let bridge = chosen.settings.bridge.clone();
        let guests = Step::Guests(Guests {
            from: None,
            told: bridge.clone(),
            to: bridge,
            elsewhere: Vec::new(),
        });
        // Without a bridge of the mode, guests are where xl has put them.
        if chosen.settings.bridge.is_some()
            && recorded.is_none()
            && let Some(what) = guests.missing(&mut context)?
        {
            let op = Op::Do(guests);
            op.apply(&mut context)?;
            done.push(format!("{what}: {op}"));
        }
        Ok(done)
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A change from its beginning to its end. One at a time: whoever works on one holds `/run/ttvm/.network.lock`.

use std::time::Duration;

use super::journal::{self, Phase, Transaction};
use super::service::{Listener, Network, PATIENCE};
use super::step::{Context, Op, Step};
use super::{Applied, Error, Request, may_wait};
use crate::base::catalogue::Message;
use crate::base::fail_point;
use crate::config::host::HostConfig;
use crate::file::lock::Lock;

/// A change that is planned and written down, and not made yet. Dropped, it is forgotten.
#[derive(Debug)]
pub struct Begun<'a> {
    /// Its number.
    pub id: u64,
    network: &'a Network,
    transaction: Option<Transaction>,
    _lock: Lock,
}

/// What became of a change that an earlier process, or an earlier boot, left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered {
    /// There was none.
    Nothing,
    /// It waits to be confirmed, for this long.
    Waiting(Duration),
    /// It was to be kept, and is.
    Kept(u64),
    /// It is undone.
    Undone(u64),
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if self.transaction.is_some()
            && let Err(error) = self.network.journal().clear()
        {
            tracing::warn!("{}", error.text());
        }
    }
}

impl Network {
    /// Plans a switch and writes it down. Until [`apply`](Self::apply) is called, nothing is changed. `None` if the mode
    /// is already what it should be.
    pub fn begin(&self, request: &Request) -> Result<Option<Begun<'_>>, Error> {
        // Zero does not wait.
        if !request.confirm.is_zero() {
            may_wait(request.confirm)?;
        }
        let lock = self.lock(Duration::ZERO)?;
        let journal = self.journal();
        let config = self.config()?;
        if matches!(self.settle(&config)?, Recovered::Waiting(_)) {
            return Err(Error::Busy(
                "another change waits to be confirmed: `ttvm network confirm` or `ttvm network rollback` comes first"
                    .to_owned(),
            ));
        }
        let mut chosen = journal.chosen()?;
        let Some(plan) = self.checked(&config, &chosen, request)? else {
            return Ok(None);
        };
        if plan.moves_uplink() && request.confirm.is_zero() {
            return Err(Error::InvalidArgument(
                "the host's own addresses move: that has to be confirmed, so that a host that cannot be reached any more \
                 comes back by itself (--confirm-within)"
                    .to_owned(),
            ));
        }
        let transaction = Transaction {
            id: plan.to.last,
            boot: journal::boot(),
            phase: Phase::Applying,
            from: chosen.in_force().settings,
            to: plan.to,
            ops: plan.ops,
            afterwards: plan.afterwards,
            confirm: request.confirm,
            deadline: None,
        };
        // A number is used up by whatever becomes of it: a late word for an old change must not be taken for a new one.
        chosen.last = transaction.id;
        journal.choose(&chosen)?;
        journal.save(&transaction)?;
        fail_point::reach("network.begun");
        Ok(Some(Begun {
            id: transaction.id,
            network: self,
            transaction: Some(transaction),
            _lock: lock,
        }))
    }

    /// Makes the change and looks at it; undoes it if anything is wrong.
    pub fn apply(&self, mut begun: Begun<'_>) -> Result<Applied, Error> {
        let config = self.config()?;
        let Some(mut transaction) = begun.transaction.take() else {
            return Err(Error::NoSuchTransaction(begun.id));
        };
        self.make(&config, &transaction)?;
        let before = transaction.clone();
        let kept = transaction.confirm.is_zero();
        transaction.phase = if kept { Phase::Keeping } else { Phase::Pending };
        transaction.deadline = (!kept).then(|| journal::uptime() + transaction.confirm);
        // What is not written down is undone by whoever comes next: then better at once.
        if let Err(error) = self.journal().save(&transaction) {
            return self.revert(&config, before, &error.text()).and(Err(error));
        }
        if kept {
            self.finish(&config, transaction)?;
            return Ok(Applied::Kept);
        }
        fail_point::reach("network.pending");
        Ok(Applied::Pending(transaction.confirm))
    }

    pub(super) fn make(&self, config: &HostConfig, transaction: &Transaction) -> Result<(), Error> {
        let mut context = match Context::new(&self.root, config) {
            Ok(context) => context,
            // Nothing was changed.
            Err(error) => return self.journal().clear().and(Err(error)),
        };
        for (number, op) in transaction.ops.iter().enumerate() {
            fail_point::reach(&format!("network.op.{number}"));
            if let Err(error) = op.apply(&mut context) {
                let step = op.to_string();
                self.revert(
                    config,
                    transaction.clone(),
                    &format!("could not {step}: {}", error.text()),
                )?;
                return Err(Error::ApplyFailed {
                    step,
                    source: Box::new(error),
                });
            }
        }
        fail_point::reach("network.made");
        // What cannot be looked at is not known to work.
        let lacking = lacking(&mut context, &transaction.ops).unwrap_or_else(|error| Some(error.text()));
        if let Some(what) = lacking {
            self.revert(config, transaction.clone(), &what)?;
            return Err(Error::RolledBack(what));
        }
        fail_point::reach("network.verified");
        Ok(())
    }

    /// The change is what is wanted, and there is no way back any more.
    pub(super) fn keep(&self, config: &HostConfig, mut transaction: Transaction) -> Result<(), Error> {
        transaction.phase = Phase::Keeping;
        self.journal().save(&transaction)?;
        self.finish(config, transaction)
    }

    /// Removes what the change replaces.
    fn finish(&self, config: &HostConfig, mut transaction: Transaction) -> Result<(), Error> {
        let journal = self.journal();
        fail_point::reach("network.keeping");
        let mut context = Context::new(&self.root, config)?;
        for (number, op) in transaction.afterwards.iter().enumerate() {
            fail_point::reach(&format!("network.afterwards.{number}"));
            if let Err(error) = op.apply(&mut context) {
                let what = format!("could not {op}: {}", error.text());
                tracing::warn!("{what}");
                transaction.to.degraded = Some(what);
                transaction.to.leftover.push(op.step().clone());
            }
        }
        journal.choose(&transaction.to)?;
        fail_point::reach("network.kept");
        journal.clear()?;
        tracing::info!(
            ttvm_network = %transaction.to.settings.mode,
            "the network mode is {}",
            transaction.to.settings.mode
        );
        Ok(())
    }

    /// Undoes everything, whatever came of it; what cannot be undone stays written down, to be tried again.
    fn revert(&self, config: &HostConfig, mut transaction: Transaction, why: &str) -> Result<(), Error> {
        tracing::warn!(
            message_id = Message::NetworkUndone.id(),
            ttvm_network = %transaction.to.settings.mode,
            "undoing the change to {}: {why}",
            transaction.to.settings.mode
        );
        transaction.phase = Phase::Reverting;
        if let Err(error) = self.journal().save(&transaction) {
            // What is written there is undone by whoever finds it as well.
            tracing::warn!("{}", error.text());
        }
        if let Some(Listener(told)) = &self.listener {
            told();
        }
        let mut context = Context::new(&self.root, config)?;
        let mut failures = Vec::new();
        // The host itself comes before its guests.
        let (first, then): (Vec<_>, Vec<_>) = (transaction.ops.iter().enumerate().rev())
            .partition(|(_, op)| matches!(op, Op::Do(step) if step.is_hosts_own()));
        for (number, op) in first.into_iter().chain(then) {
            fail_point::reach(&format!("network.revert.{number}"));
            if let Err(error) = op.revert(&mut context) {
                let failure = format!("could not {}: {}", op.reverting(), error.text());
                tracing::error!(message_id = Message::NetworkNotUndone.id(), "{failure}");
                failures.push(failure);
            }
        }
        if !failures.is_empty() {
            return Err(Error::RollbackFailed {
                what: why.to_owned(),
                failures,
            });
        }
        fail_point::reach("network.reverted");
        let journal = self.journal();
        journal.clear()?;
        // While the change waited, others may have flushed what belongs to the mode before.
        let mut chosen = journal.chosen()?;
        if chosen.boot == journal::boot() {
            let before = chosen.clone();
            if let Err(error) = self.repair(config, &mut chosen) {
                tracing::warn!("{}", error.text());
            }
            if chosen != before {
                journal.choose(&chosen)?;
            }
        }
        Ok(())
    }

    /// The change `id`, which waits.
    fn waiting(&self, id: u64) -> Result<Transaction, Error> {
        let pending = self.journal().pending()?;
        let same = pending.filter(|one| one.id == id && one.boot == journal::boot());
        same.filter(|one| one.phase != Phase::Keeping)
            .ok_or(Error::NoSuchTransaction(id))
    }

    /// Keeps the change `id`, which waits for that.
    pub fn confirm(&self, id: u64) -> Result<(), Error> {
        let _lock = self.lock(PATIENCE)?;
        let config = self.config()?;
        let transaction = self.waiting(id)?;
        match transaction.left() {
            Some(left) if transaction.phase == Phase::Pending && !left.is_zero() => {
                self.still_there(&config, &transaction)?;
                self.keep(&config, transaction)
            }
            _ => {
                self.revert(&config, transaction, "it was not confirmed in time")?;
                Err(Error::NoSuchTransaction(id))
            }
        }
    }

    /// While a change waits, others may have flushed what belongs to it: that is made again, and what carries the host
    /// itself has to be there.
    fn still_there(&self, config: &HostConfig, transaction: &Transaction) -> Result<(), Error> {
        let mut context = Context::new(&self.root, config)?;
        for op in &transaction.ops {
            let Op::Do(step) = op else { continue };
            match step.missing(&mut context)? {
                None => {}
                Some(_) if matches!(step, Step::Guests(_)) => {}
                Some(what) if step.is_hosts_own() => {
                    return Err(Error::NotSupported(format!(
                        "{what}: it is not kept, and undone at its deadline"
                    )));
                }
                Some(_) => op.apply(&mut context)?,
            }
        }
        Ok(())
    }

    /// Undoes the change `id`.
    pub fn rollback(&self, id: u64, why: &str) -> Result<(), Error> {
        let _lock = self.lock(PATIENCE)?;
        let transaction = self.waiting(id)?;
        self.revert(&self.config_or_default(), transaction, why)
    }

    /// Lets the change `id` wait for `time` from now; returns the time left.
    pub fn extend(&self, id: u64, time: Duration) -> Result<Duration, Error> {
        may_wait(time)?;
        let _lock = self.lock(PATIENCE)?;
        let mut transaction = self.waiting(id)?;
        if transaction.phase != Phase::Pending || transaction.left().is_none_or(|left| left.is_zero()) {
            return Err(Error::NoSuchTransaction(id));
        }
        transaction.deadline = Some(journal::uptime() + time);
        self.journal().save(&transaction)?;
        Ok(time)
    }

    /// What an earlier process, or an earlier boot, left undone: a half-made change is undone, a kept one finished.
    pub fn recover(&self) -> Result<Recovered, Error> {
        let _lock = self.lock(PATIENCE)?;
        self.settle(&self.config_or_default())
    }

    pub(super) fn settle(&self, config: &HostConfig) -> Result<Recovered, Error> {
        let journal = self.journal();
        let Some(mut transaction) = journal.pending()? else {
            return Ok(Recovered::Nothing);
        };
        let id = transaction.id;
        if transaction.boot != journal::boot() {
            // The kernel has forgotten everything; what is left to do is what it never knew of.
            if transaction.phase == Phase::Keeping {
                journal.choose(&transaction.to)?;
                journal.clear()?;
                return Ok(Recovered::Kept(id));
            }
            transaction.ops.retain(|op| op.step().is_lasting());
            self.revert(config, transaction, "the host was restarted")?;
            return Ok(Recovered::Undone(id));
        }
        let why = match (transaction.phase, transaction.left()) {
            (Phase::Keeping, _) => {
                self.finish(config, transaction)?;
                return Ok(Recovered::Kept(id));
            }
            (Phase::Pending, Some(left)) if !left.is_zero() => return Ok(Recovered::Waiting(left)),
            (Phase::Pending, _) => "it was not confirmed in time",
            (Phase::Applying | Phase::Reverting, _) => "whoever made it did not come to an end",
        };
        self.revert(config, transaction, why)?;
        Ok(Recovered::Undone(id))
    }
}

/// What is not as it should be after all of `ops`.
fn lacking(context: &mut Context<'_>, ops: &[Op]) -> Result<Option<String>, Error> {
    // The guests are moved twice if a bridge is made anew: only the last time counts.
    let last_guests = ops.iter().rposition(|op| matches!(op.step(), Step::Guests(_)));
    for (number, op) in ops.iter().enumerate() {
        let missing = match op {
            Op::Do(Step::Guests(_)) if Some(number) != last_guests => None,
            Op::Do(step) => step.missing(context)?,
            Op::Undo(Step::Uplink(uplink)) => uplink.missing_undone(context)?,
            Op::Undo(_) => None,
        };
        if missing.is_some() {
            return Ok(missing);
        }
    }
    Ok(None)
}

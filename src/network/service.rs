// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the programs call. One change at a time: whoever works on one holds `/run/ttvm/.network.lock`.

use std::fmt;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::conflicts::{self, Question, Traffic};
use super::journal::{self, Chosen, Journal, Phase, Transaction};
use super::plan::{self, Plan};
use super::step::{self, Context, Guests, Op, Step};
use super::xend::Xend;
use super::{
    Applied, Attachment, Backend, Error, Mode, Options, Pending, Preview, Request, State, Status, attachments,
};
use crate::config::host::{self, HostConfig};
use crate::config::under;
use crate::fail_point;
use crate::lock::{self, Attempt, Lock};

const LOCK: &str = "/run/ttvm/.network.lock";
/// How long a change may take that another one waits for.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a change may wait to be confirmed, in seconds.
const CONFIRM: std::ops::RangeInclusive<u64> = 10..=3600;

/// The networks of this host.
#[derive(Debug, Clone)]
pub struct Network {
    root: PathBuf,
    listener: Option<Listener>,
}

/// Somebody who is told that a change begins to be undone.
#[derive(Clone)]
struct Listener(Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

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
    /// The networks of the system below `root`; nothing is read yet, each call reads what it needs.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            listener: None,
        }
    }

    /// Calls `told` whenever a change begins to be undone, on the thread that undoes it.
    #[must_use]
    pub fn listening(mut self, told: impl Fn() + Send + Sync + 'static) -> Self {
        self.listener = Some(Listener(Arc::new(told)));
        self
    }

    fn journal(&self) -> Journal {
        Journal::new(&self.root)
    }

    fn config(&self) -> Result<HostConfig, Error> {
        Ok(host::load(&self.root)?)
    }

    /// The lock; waits for whoever has it, if there is `patience`.
    fn lock(&self, patience: Duration) -> Result<Lock, Error> {
        let path = under(&self.root, Path::new(LOCK));
        let failed = |source| Error::File {
            action: "lock",
            path: path.clone(),
            source,
        };
        match lock::take(&path).map_err(failed)? {
            Attempt::Taken(lock) => Ok(lock),
            Attempt::Busy(waiting) => {
                let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
                let mut fds = [PollFd::new(waiting.as_fd(), PollFlags::POLLIN)];
                match poll(&mut fds, timeout).map_err(|errno| failed(errno.into()))? {
                    0 => Err(Error::Busy("another change is being made".to_owned())),
                    _ => waiting.take().map_err(failed),
                }
            }
        }
    }

    /// What can be said at once: two small files are read.
    pub fn status(&self) -> Result<Status, Error> {
        let journal = self.journal();
        let chosen = journal.chosen()?;
        let boot = journal::boot();
        let pending = journal.pending()?.filter(|pending| pending.boot == boot);
        let in_force = match &pending {
            Some(one) if matches!(one.phase, Phase::Pending | Phase::Keeping) => one.to.settings.clone(),
            Some(one) => one.from.clone(),
            None => chosen.in_force().settings,
        };
        let state = match pending.as_ref().map(|one| one.phase) {
            Some(Phase::Applying | Phase::Keeping) => State::Applying,
            Some(Phase::Pending) => State::AwaitingConfirm,
            Some(Phase::Reverting) => State::RollingBack,
            None if chosen.degraded.is_some() || in_force.mode != chosen.settings.mode => State::Degraded,
            None => State::Idle,
        };
        Ok(Status {
            mode: in_force.mode,
            desired: chosen.settings.mode,
            state,
            backend: match Xend::in_charge(&self.root) {
                Some(_) => Backend::Xend,
                None => Backend::Xl,
            },
            bridge: in_force.bridge,
            uplink: in_force.uplink,
            subnet: in_force.subnet,
            pending: pending.map(|one| Pending {
                id: one.id,
                from: one.from.mode,
                to: one.to.settings.mode,
                deadline_usec: one.deadline_usec(),
                left: one.left().unwrap_or(one.confirm),
            }),
            degraded: chosen.degraded,
        })
    }

    /// What else on this host stops guests' packets; one program is run.
    pub fn conflicts(&self) -> Result<Vec<String>, Error> {
        let status = self.status()?;
        let zoned = self.config_or_default().network.firewall == crate::config::network::Firewall::Firewalld;
        let Some(bridge) = &status.bridge else {
            return Ok(Vec::new());
        };
        self.conflicts_of(status.mode, bridge, zoned)
    }

    fn conflicts_of(
        &self,
        mode: Mode,
        bridge: &crate::config::types::InterfaceName,
        zoned: bool,
    ) -> Result<Vec<String>, Error> {
        let question = Question {
            mode: match mode {
                Mode::Bridge => Traffic::Bridged,
                _ => Traffic::Routed,
            },
            bridge,
            zone_of_bridge_is_ours: zoned,
        };
        let found = conflicts::find(&self.root, &question)?;
        let mut sentences: Vec<String> = found.iter().map(ToString::to_string).collect();
        if self.guards_too_much()? {
            sentences.push(
                "forwarding was switched on for the whole host after ttvm had switched it on for guests only, and others' \
                 packets are dropped; remedy: ttvm network reconcile"
                    .to_owned(),
            );
        }
        Ok(sentences)
    }

    fn guards_too_much(&self) -> Result<bool, Error> {
        let chosen = self.journal().chosen()?.in_force();
        let guards = |step: &Step| matches!(step, Step::Firewall(firewall) if !firewall.guarded.is_empty());
        Ok(chosen.steps.iter().any(guards) && step::everything_is_forwarded()?)
    }

    /// The guests' interfaces.
    pub fn attachments(&self) -> Result<Vec<Attachment>, Error> {
        let config = self.config_or_default();
        let mut context = Context::new(&self.root, &config)?;
        attachments::list(&self.root, &config, &mut context.kernel)
    }

    /// What a switch would do. Changes nothing.
    pub fn plan(&self, request: &Request) -> Result<Preview, Error> {
        let config = self.config()?;
        let chosen = self.journal().chosen()?;
        let from = self.status()?.mode;
        let plan = self.checked(&config, &chosen, request)?;
        let sentences = |ops: &[Op]| ops.iter().map(ToString::to_string).collect();
        Ok(match plan {
            None => Preview {
                from,
                to: request.mode,
                ..Preview::default()
            },
            Some(mut plan) => {
                if let Some(bridge) = &plan.to.settings.bridge {
                    let zoned = plan.to.settings.zone.is_some();
                    plan.warnings.extend(self.conflicts_of(request.mode, bridge, zoned)?);
                }
                Preview {
                    from,
                    to: request.mode,
                    steps: sentences(&plan.ops),
                    afterwards: sentences(&plan.afterwards),
                    moves_uplink: plan.moves_uplink(),
                    warnings: plan.warnings,
                }
            }
        })
    }

    fn checked(&self, config: &HostConfig, chosen: &Chosen, request: &Request) -> Result<Option<Plan>, Error> {
        if let Some(unit) = plan::recording(&self.root) {
            return Err(Error::RecordingActive { unit });
        }
        let mut context = Context::new(&self.root, config)?;
        plan::plan(&mut context, chosen, request)
    }

    /// Plans a switch and writes it down. Until [`apply`](Self::apply) is called, nothing is changed. `None` if the mode
    /// is already what it should be.
    pub fn begin(&self, request: &Request) -> Result<Option<Begun<'_>>, Error> {
        let confirm = request.confirm.as_secs();
        if confirm != 0 && !CONFIRM.contains(&confirm) {
            return Err(Error::InvalidArgument(format!(
                "a change can wait {} to {} s to be confirmed, or not at all (0), not {confirm} s",
                CONFIRM.start(),
                CONFIRM.end()
            )));
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
                "the host's own addresses move: that has to be confirmed, so that a host that can not be reached any more \
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

    fn make(&self, config: &HostConfig, transaction: &Transaction) -> Result<(), Error> {
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
        // What can not be looked at is not known to work.
        let lacking = lacking(&mut context, &transaction.ops).unwrap_or_else(|error| Some(error.text()));
        if let Some(what) = lacking {
            self.revert(config, transaction.clone(), &what)?;
            return Err(Error::RolledBack(what));
        }
        fail_point::reach("network.verified");
        Ok(())
    }

    /// The change is what is wanted, and there is no way back any more.
    fn keep(&self, config: &HostConfig, mut transaction: Transaction) -> Result<(), Error> {
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

    /// Undoes everything, whatever came of it; what can not be undone stays written down, to be tried again.
    fn revert(&self, config: &HostConfig, mut transaction: Transaction, why: &str) -> Result<(), Error> {
        tracing::warn!("undoing the change to {}: {why}", transaction.to.settings.mode);
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
                tracing::error!("{failure}");
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
            if let Err(error) = self.mend(config, &mut chosen) {
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

    /// A mistake in the configuration is no reason not to undo something.
    fn config_or_default(&self) -> HostConfig {
        self.config().unwrap_or_default()
    }

    /// Lets the change `id` wait for `time` from now; returns the time left.
    pub fn extend(&self, id: u64, time: Duration) -> Result<Duration, Error> {
        if !CONFIRM.contains(&time.as_secs()) {
            return Err(Error::InvalidArgument(format!(
                "a change can wait {} to {} s to be confirmed, not {} s",
                CONFIRM.start(),
                CONFIRM.end(),
                time.as_secs()
            )));
        }
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

    fn settle(&self, config: &HostConfig) -> Result<Recovered, Error> {
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

    /// Makes again what is missing of the mode that was chosen; returns what was done, in sentences.
    pub fn reconcile(&self) -> Result<Vec<String>, Error> {
        let _lock = self.lock(PATIENCE)?;
        let config = self.config()?;
        let journal = self.journal();
        if matches!(self.settle(&config)?, Recovered::Waiting(_))
            && let Some(waiting) = journal.pending()?
        {
            return self.mend_waiting(&config, &waiting);
        }
        let mut chosen = journal.chosen()?;
        let before = chosen.clone();
        let done = if chosen.boot == journal::boot() {
            self.mend(&config, &mut chosen)
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
    fn mend_waiting(&self, config: &HostConfig, waiting: &Transaction) -> Result<Vec<String>, Error> {
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
    fn mend(&self, config: &HostConfig, chosen: &mut Chosen) -> Result<Vec<String>, Error> {
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

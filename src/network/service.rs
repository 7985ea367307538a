// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the programs call, and what can be said without changing anything.

use std::fmt;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::conflicts::{self, Question, Traffic};
use super::journal::{self, Chosen, Journal, Phase};
use super::plan::{self, Plan};
use super::step::{self, Context, Op, Step};
use super::xend::Xend;
use super::{Attachment, Backend, Error, Mode, Pending, Preview, Request, State, Status, attachments};
use crate::base::root::under;
use crate::config::host::{self, HostConfig};
use crate::config::places::Places;
use crate::file::lock::{self, Attempt, Lock};

const LOCK: &str = "/run/ttvm/.network.lock";
/// How long a change may take that another one waits for.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// The networks of this host.
#[derive(Debug, Clone)]
pub struct Network {
    pub(super) root: PathBuf,
    pub(super) listener: Option<Listener>,
}

/// Somebody who is told that a change begins to be undone.
#[derive(Clone)]
pub(super) struct Listener(pub(super) Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
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

    pub(super) fn journal(&self) -> Journal {
        Journal::new(&self.root)
    }

    pub(super) fn config(&self) -> Result<HostConfig, Error> {
        Ok(host::load(&Places::system(&self.root))?)
    }

    /// The lock; waits for whoever has it, if there is `patience`.
    pub(super) fn lock(&self, patience: Duration) -> Result<Lock, Error> {
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
            dhcp: in_force.dhcp,
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
        self.conflicts_of(status.mode, bridge, status.dhcp, zoned)
    }

    pub(super) fn conflicts_of(
        &self,
        mode: Mode,
        bridge: &crate::config::types::InterfaceName,
        answers: bool,
        zoned: bool,
    ) -> Result<Vec<String>, Error> {
        let question = Question {
            mode: match mode {
                Mode::Bridge => Traffic::Bridged,
                _ => Traffic::Routed,
            },
            bridge,
            answers,
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
                    plan.warnings
                        .extend(self.conflicts_of(request.mode, bridge, plan.to.settings.dhcp, zoned)?);
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

    pub(super) fn checked(
        &self,
        config: &HostConfig,
        chosen: &Chosen,
        request: &Request,
    ) -> Result<Option<Plan>, Error> {
        if let Some(unit) = plan::recording(&self.root) {
            return Err(Error::RecordingActive { unit });
        }
        let mut context = Context::new(&self.root, config)?;
        plan::plan(&mut context, chosen, request)
    }

    /// A mistake in the configuration is no reason not to undo something.
    pub(super) fn config_or_default(&self) -> HostConfig {
        self.config().unwrap_or_default()
    }
}

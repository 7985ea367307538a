// SPDX-License-Identifier: MIT OR Apache-2.0
//! The change on its way: begun, made, waited for.

pub(super) mod backup;
mod clock;
mod endings;
pub(super) mod worker;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use zbus::{Connection, Variant};

use self::backup::Backup;
use self::worker::{Job, Turn, Worker};
use super::authority::Authority;
use super::error::Error;
use super::idle::{Activity, Running};
use super::users::ROOT;
use super::view;
use crate::network::{self, Applied, Ending, Network, Recovered, Request, Status};

/// What the objects of the service have in common.
pub struct Service {
    /// The network.
    pub worker: Worker,
    /// Who may change it.
    pub authority: Authority,
    /// What goes on.
    pub activity: Arc<Activity>,
    /// The bus.
    pub(super) connection: Connection,
    /// Somebody looks for conflicts.
    pub(super) looking: AtomicBool,
    pub(super) backup: Backup,
    known: Mutex<Known>,
    /// A deadline has moved, or a change is over.
    pub(super) moved: Notify,
    /// A change begins to be undone.
    pub(super) undoing: Arc<Notify>,
}

/// What is kept in memory.
#[derive(Default)]
pub struct Known {
    /// The change on its way.
    pub(super) active: Option<Active>,
    /// The change that ended last.
    pub(super) last: Option<Last>,
    /// What else stops guests' packets.
    pub(super) conflicts: Vec<String>,
    /// When that was looked for.
    pub(super) looked: Option<Instant>,
    /// What clients were told.
    pub(super) told: HashMap<&'static str, Variant<'static>>,
    /// The same of the change's object.
    pub(super) told_of_transaction: HashMap<&'static str, Variant<'static>>,
}

/// The change on its way.
pub struct Active {
    pub(super) id: u64,
    /// On [`clock`]; none as long as it is being made.
    pub(super) deadline: Option<Duration>,
    /// Somebody has confirmed it, though it has not come to its end.
    pub(super) confirmed: bool,
    _running: Running,
}

/// The change that ended last.
#[derive(Debug, Clone, Serialize)]
pub struct Last {
    pub(super) id: u64,
    #[serde(rename = "result")]
    pub(super) ending: Ending,
    /// The name of the error.
    pub(super) name: &'static str,
    pub(super) error: String,
}

/// Why a change is undone that nobody has confirmed.
const EXPIRED: &str = "it was not confirmed in time";

impl Service {
    /// Of this network, on this bus.
    pub fn new(network: Network, backup: Backup, connection: Connection) -> Arc<Self> {
        let undoing = Arc::new(Notify::new());
        let told = Arc::clone(&undoing);
        Arc::new(Self {
            worker: Worker::new(network.listening(move || told.notify_one())),
            undoing,
            authority: Authority::default(),
            activity: Arc::default(),
            backup,
            connection,
            known: Mutex::default(),
            moved: Notify::new(),
            looking: AtomicBool::new(false),
        })
    }

    /// What is kept in memory.
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing that can panic happens under it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What can be said at once.
    pub fn status(&self) -> Result<Status, Error> {
        Ok(self.worker.network().status()?)
    }

    /// The change that ended last.
    pub fn last(&self) -> Option<Last> {
        self.known().last.clone()
    }

    /// Puts right what an earlier process left, and takes on what it left waiting.
    pub async fn start(self: &Arc<Self>) -> Result<(), Error> {
        let turn = self.worker.own_turn().await?;
        let recovered = self.worker.change(&turn, Network::recover).await;
        if let Err(error) = &recovered {
            tracing::error!("what was left undone stays so: {error}");
        }
        if let Err(error) = self.conflicts(ROOT).await {
            tracing::warn!("{error}");
        }
        let status = match self.worker.change(&turn, Network::status).await {
            Ok(status) => status,
            // It can be asked what is wrong.
            Err(error) => {
                tracing::error!("{error}");
                return Ok(());
            }
        };
        let cut = || "the service ended in the middle of it".to_owned();
        let last = match (recovered, status.pending.as_ref()) {
            (Ok(Recovered::Waiting(left)), Some(pending)) => {
                self.take_on(pending.id, Some(left));
                self.serve(pending.id, pending.from.as_str(), pending.to.as_str()).await;
                tokio::spawn(Arc::clone(self).wait(pending.id));
                None
            }
            (Ok(Recovered::Kept(id)), _) => Some((id, Ending::Kept, "", cut())),
            (Ok(Recovered::Undone(id)), _) => Some((id, Ending::RolledBack, "", cut())),
            (Err(error), Some(pending)) => Some((pending.id, Ending::Failed, error.short(), error.to_string())),
            _ => None,
        };
        if let (Some((id, ..)), None) = (&last, status.pending.as_ref()) {
            self.disarm(&turn, *id).await;
        }
        let mut known = self.known();
        known.last = last.map(|(id, ending, name, error)| Last {
            id,
            ending,
            name,
            error,
        });
        // Nobody has been told anything yet, and whoever comes asks.
        known.told = view::properties(&status, &known.conflicts);
        known.told_of_transaction = view::transaction_properties(&status);
        Ok(())
    }

    /// Plans a change, and begins to make it. `None` if there is nothing to do.
    pub async fn switch(self: &Arc<Self>, request: Request) -> Result<Option<u64>, Error> {
        self.refuse_another()?;
        let turn = self.worker.turn().await?;
        // Somebody else was first.
        self.refuse_another()?;
        let (to, backup) = (request.mode.as_str(), self.backup);
        let (begun, has_begun) = oneshot::channel();
        let making = self
            .worker
            .start(&turn, move |network| make(network, backup, &request, begun));
        // Without word it has not begun, and says why.
        let Ok(id) = has_begun.await else {
            return making.await.map(|_| None);
        };
        self.take_on(id, None);
        // What is not known now is told when it is.
        let status = self.status().ok();
        let pending = status.as_ref().and_then(|status| status.pending.as_ref());
        let from = pending.map_or("", |pending| pending.from.as_str());
        let deadline_usec = status.as_ref().map_or(0, view::deadline_usec);
        self.serve(id, from, to).await;
        self.signal("TransactionStarted", &(view::path_of(id), from, to, deadline_usec))
            .await;
        self.publish().await;
        tokio::spawn(Arc::clone(self).made(id, making, turn));
        Ok(Some(id))
    }

    /// Waits for the end of the making.
    async fn made(self: Arc<Self>, id: u64, making: Job<Option<Applied>>, turn: Turn) {
        match self.undoing(making).await {
            Ok(Some(Applied::Pending(left))) => {
                self.take_on(id, Some(left));
                self.publish().await;
                tokio::spawn(self.wait(id));
            }
            Ok(_) => self.finish(&turn, id, Ok(Ending::Kept)).await,
            Err(error) => self.finish(&turn, id, Err(error)).await,
        }
    }

    /// Undoes a change at its deadline.
    async fn wait(self: Arc<Self>, id: u64) {
        loop {
            // Nobody to wait for: it is over.
            let Some(deadline) = self.deadline(id) else { return };
            tokio::select! {
                () = clock::until(deadline) => {}
                () = self.moved.notified() => continue,
            }
            let Ok(turn) = self.worker.own_turn().await else { return };
            // Kept, or extended, by whoever had the turn before.
            match self.deadline(id) {
                Some(deadline) if deadline <= clock::now() => {}
                _ => continue,
            }
            let undone = self.worker.start(&turn, move |network| network.rollback(id, EXPIRED));
            let result = match self.undoing(undone).await {
                // The timer was first, or it is to be kept.
                Err(error) if error.is_no_such_transaction() => self.outcome(&turn, id).await,
                undone => undone.map(|()| Ending::RolledBack),
            };
            return self.finish(&turn, id, result).await;
        }
    }

    /// Lets a change wait for `time` from now; returns its deadline in µs since 1970.
    pub async fn extend(&self, id: u64, time: Duration) -> Result<u64, Error> {
        self.refuse_half_made()?;
        let turn = self.worker.turn().await?;
        let backup = self.backup;
        let extend = move |network: &Network| {
            if network.status()?.pending.is_none_or(|pending| pending.id != id) {
                return Err(network::Error::NoSuchTransaction(id));
            }
            // Before the deadline moves beyond the timers that are there.
            backup.arm(id, time + backup::ARMING)?;
            network.extend(id, time)
        };
        let left = self.worker.change(&turn, extend).await?;
        if let Some(active) = self.known().active.as_mut().filter(|active| active.id == id) {
            active.deadline = Some(clock::now() + left);
        }
        self.moved.notify_one();
        self.publish().await;
        Ok(view::deadline_usec(&self.status()?))
    }

    /// Makes again what is missing.
    pub async fn reconcile(&self) -> Result<Vec<String>, Error> {
        self.refuse_half_made()?;
        let turn = self.worker.turn().await?;
        let done = self.worker.change(&turn, Network::reconcile).await;
        self.publish().await;
        done
    }

    fn take_on(&self, id: u64, left: Option<Duration>) {
        let active = Active {
            id,
            deadline: left.map(|left| clock::now() + left),
            confirmed: false,
            _running: self.activity.begin(),
        };
        self.known().active = Some(active);
    }

    fn deadline(&self, id: u64) -> Option<Duration> {
        let known = self.known();
        known.active.as_ref().filter(|active| active.id == id)?.deadline
    }

    fn refuse_another(&self) -> Result<(), Error> {
        let text = match self.known().active.as_ref() {
            None => return Ok(()),
            Some(Active { id, deadline: None, .. }) => format!("change {id} is being made or undone"),
            Some(Active { id, .. }) => format!("change {id} waits to be confirmed or undone"),
        };
        Err(network::Error::Busy(text).into())
    }

    /// What takes minutes is not waited for: most callers would give up before.
    pub(super) fn refuse_half_made(&self) -> Result<(), Error> {
        match self.known().active.as_ref() {
            Some(Active { id, deadline: None, .. }) => {
                Err(network::Error::Busy(format!("change {id} is still being made")).into())
            }
            _ => Ok(()),
        }
    }
}

/// Plans a change and makes it. Tells its number in between, when it is sure to be undone whoever dies.
fn make(
    network: &Network,
    backup: Backup,
    request: &Request,
    begun: oneshot::Sender<u64>,
) -> Result<Option<Applied>, network::Error> {
    let Some(change) = network.begin(request)? else {
        return Ok(None);
    };
    let id = change.id;
    backup.arm(id, request.confirm + backup::APPLY)?;
    // Nobody listens if the service is ending; then the next one takes it on.
    let _ = begun.send(id);
    let applied = network.apply(change);
    if let Ok(Applied::Pending(left)) = applied
        && let Err(error) = backup.arm(id, left)
    {
        tracing::warn!("the timer of change {id} stays as it was, later than its deadline: {error}");
    }
    applied.map(Some)
}

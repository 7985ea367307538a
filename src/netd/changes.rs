// SPDX-License-Identifier: MIT OR Apache-2.0
//! The change on its way: begun, made, waited for, kept or undone.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};
use zbus::{Connection, Variant};

use super::authority::Authority;
use super::backup::{self, Backup};
use super::error::Error;
use super::idle::{Activity, Running};
use super::transaction::Transaction;
use super::view;
use super::worker::{Job, Turn, Worker};
use crate::network::{self, Applied, Network, Request, Status};

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
    backup: Backup,
    known: Mutex<Known>,
    /// A deadline has moved, or a change is over.
    moved: Notify,
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
    /// None as long as it is being made.
    deadline: Option<Instant>,
    _running: Running,
}

/// The change that ended last.
#[derive(Debug, Clone, Serialize)]
pub struct Last {
    pub(super) id: u64,
    pub(super) result: &'static str,
    /// The name of the error.
    name: &'static str,
    pub(super) error: String,
}

/// Why a change is undone that nobody has confirmed.
const EXPIRED: &str = "it was not confirmed in time";

impl Service {
    /// Of this network, on this bus.
    pub fn new(network: Network, backup: Backup, connection: Connection) -> Arc<Self> {
        Arc::new(Self {
            worker: Worker::new(network),
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
        let before = self.worker.change(&turn, Network::status).await.ok();
        let recovered = self.worker.change(&turn, Network::recover).await;
        let left = recovered.unwrap_or_else(|error| {
            tracing::error!("what was left undone stays so: {error}");
            None
        });
        if let Err(error) = self.conflicts().await {
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
        if let (Some(left), Some(pending)) = (left, status.pending.as_ref()) {
            self.take_on(pending.id, Some(left));
            self.serve(pending.id, pending.from.as_str(), pending.to.as_str()).await;
            tokio::spawn(Arc::clone(self).wait(pending.id));
        }
        let left_over = before.and_then(|before| before.pending);
        if let (Some(left_over), None) = (&left_over, status.pending.as_ref()) {
            let (backup, id) = (self.backup, left_over.id);
            // Never fails by itself.
            let _ = self
                .worker
                .change(&turn, move |_: &Network| {
                    backup.disarm(id);
                    Ok(())
                })
                .await;
        }
        let mut known = self.known();
        if let (Some(left_over), None) = (left_over, status.pending.as_ref()) {
            known.last = Some(Last {
                id: left_over.id,
                result: if status.desired == left_over.to {
                    "kept"
                } else {
                    "rolled-back"
                },
                name: "",
                error: "the service ended in the middle of it".to_owned(),
            });
        }
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
        match making.await {
            Ok(Some(Applied::Pending(left))) => {
                self.take_on(id, Some(left));
                self.publish().await;
                tokio::spawn(self.wait(id));
            }
            Ok(_) => self.finish(&turn, id, Ok("kept")).await,
            Err(error) => self.finish(&turn, id, Err(error)).await,
        }
    }

    /// Undoes a change at its deadline.
    async fn wait(self: Arc<Self>, id: u64) {
        loop {
            // Nobody to wait for: it is over.
            let Some(deadline) = self.deadline(id) else { return };
            tokio::select! {
                () = sleep_until(deadline) => {}
                () = self.moved.notified() => continue,
            }
            let Ok(turn) = self.worker.own_turn().await else { return };
            // Kept, or extended, by whoever had the turn before.
            match self.deadline(id) {
                Some(deadline) if deadline <= Instant::now() => {}
                _ => continue,
            }
            let undone = self
                .worker
                .change(&turn, move |network| network.rollback(id, EXPIRED))
                .await;
            let result = match undone {
                // The timer was first.
                Err(error) if error.is_no_such_transaction() => Ok("rolled-back"),
                undone => undone.map(|()| "rolled-back"),
            };
            return self.finish(&turn, id, result).await;
        }
    }

    /// Keeps a change.
    pub async fn confirm(&self, id: u64) -> Result<(), Error> {
        self.end(id, "kept", Network::confirm).await
    }

    /// Undoes a change.
    pub async fn rollback(&self, id: u64) -> Result<(), Error> {
        self.end(id, "rolled-back", |network, id| {
            network.rollback(id, "somebody asked for it")
        })
        .await
    }

    async fn end(
        &self,
        id: u64,
        result: &'static str,
        end: fn(&Network, u64) -> Result<(), network::Error>,
    ) -> Result<(), Error> {
        self.refuse_half_made()?;
        let turn = self.worker.turn().await?;
        let ended = self.worker.change(&turn, move |network| end(network, id)).await;
        let gone = || {
            self.status()
                .is_ok_and(|status| status.pending.is_none_or(|pending| pending.id != id))
        };
        match ended {
            Ok(()) => self.finish(&turn, id, Ok(result)).await,
            // It is over, though not as was wanted.
            Err(ref error) if self.is_active(id) && gone() => self.finish(&turn, id, Err(error.clone())).await,
            Err(_) => {}
        }
        ended
    }

    /// Lets a change wait for `time` from now; returns its deadline in µs since 1970.
    pub async fn extend(&self, id: u64, time: Duration) -> Result<u64, Error> {
        self.refuse_half_made()?;
        let turn = self.worker.turn().await?;
        let backup = self.backup;
        let extend = move |network: &Network| {
            let left = network.extend(id, time)?;
            backup.arm(id, left)?;
            Ok(left)
        };
        let left = self.worker.change(&turn, extend).await?;
        if let Some(active) = self.known().active.as_mut().filter(|active| active.id == id) {
            active.deadline = Some(Instant::now() + left);
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
            deadline: left.map(|left| Instant::now() + left),
            _running: self.activity.begin(),
        };
        self.known().active = Some(active);
    }

    fn deadline(&self, id: u64) -> Option<Instant> {
        let known = self.known();
        known.active.as_ref().filter(|active| active.id == id)?.deadline
    }

    fn is_active(&self, id: u64) -> bool {
        self.known().active.as_ref().is_some_and(|active| active.id == id)
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
    fn refuse_half_made(&self) -> Result<(), Error> {
        match self.known().active.as_ref() {
            Some(Active { id, deadline: None, .. }) => {
                Err(network::Error::Busy(format!("change {id} is still being made")).into())
            }
            _ => Ok(()),
        }
    }

    /// A change is over.
    async fn finish(&self, turn: &Turn, id: u64, result: Result<&'static str, Error>) {
        let over = self.status().is_ok_and(|status| status.pending.is_none());
        let (result, name, error) = match result {
            Ok(result) => (result, "", String::new()),
            Err(error) => ("failed", error.short(), error.to_string()),
        };
        tracing::info!("change {id} is over: {result}");
        let running = {
            let mut known = self.known();
            known.last = Some(Last {
                id,
                result,
                name,
                error: error.clone(),
            });
            known.looked = None;
            known.told_of_transaction.clear();
            known.active.take_if(|active| active.id == id)
        };
        self.moved.notify_one();
        self.signal("TransactionFinished", &(view::path_of(id), result, error))
            .await;
        let server = self.connection.object_server();
        if let Err(error) = server.remove::<Transaction, _>(view::path_of(id)).await {
            tracing::debug!("{error}");
        }
        if let Err(error) = self.conflicts().await {
            tracing::warn!("{error}");
        }
        self.publish().await;
        // What could not be undone is tried again by the timer.
        if over {
            let backup = self.backup;
            let disarm = move |_: &Network| {
                backup.disarm(id);
                Ok(())
            };
            let _ = self.worker.change(turn, disarm).await;
        }
        drop(running);
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

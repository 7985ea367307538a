// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a change ends: kept, undone, or neither, and who is told.

use std::sync::Arc;
use std::time::Duration;

use super::clock;
use super::worker::{Job, Turn};
use super::{Last, Service};
use crate::netd::error::Error;
use crate::netd::transaction::Transaction;
use crate::netd::view;
use crate::network::{self, Ending, Network, Recovered, State};

/// After this long what has failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

impl Service {
    /// Keeps a change.
    pub async fn confirm(self: &Arc<Self>, id: u64) -> Result<(), Error> {
        self.end(id, Ending::Kept, Network::confirm).await
    }

    /// Undoes a change.
    pub async fn rollback(self: &Arc<Self>, id: u64) -> Result<(), Error> {
        self.end(id, Ending::RolledBack, |network, id| {
            network.rollback(id, "somebody asked for it")
        })
        .await
    }

    async fn end(
        self: &Arc<Self>,
        id: u64,
        wanted: Ending,
        end: fn(&Network, u64) -> Result<(), network::Error>,
    ) -> Result<(), Error> {
        self.refuse_half_made()?;
        let turn = self.worker.turn().await?;
        let ended = self
            .undoing(self.worker.start(&turn, move |network| end(network, id)))
            .await;
        let active = self.known().active.as_ref().is_some_and(|active| active.id == id);
        match ended {
            Ok(()) => self.finish(&turn, id, Ok(wanted)).await,
            // It is over already, or is to be kept and has not come to its end.
            Err(ref error) if active && error.is_no_such_transaction() => {
                let outcome = self.outcome(&turn, id).await;
                self.finish(&turn, id, outcome.clone()).await;
                if outcome? == wanted {
                    return Ok(());
                }
            }
            // Not everything could be undone.
            Err(ref error) if active && self.is_in(id, State::RollingBack) => {
                self.finish(&turn, id, Err(error.clone())).await;
            }
            // It is not undone any more, whatever comes.
            Err(_) if active && self.is_in(id, State::Applying) => {
                self.keep_soon(id);
                self.publish().await;
            }
            Err(_) => {}
        }
        ended
    }

    fn is_in(&self, id: u64, state: State) -> bool {
        self.status()
            .is_ok_and(|status| status.state == state && status.pending.is_some_and(|pending| pending.id == id))
    }

    /// Has a change that is to be kept, and could not be wholly, brought to its end in a moment.
    fn keep_soon(&self, id: u64) {
        if let Some(active) = self.known().active.as_mut().filter(|active| active.id == id) {
            active.confirmed = true;
            active.deadline = Some(clock::now() + AGAIN);
        }
        self.moved.notify_one();
    }

    /// What became of a change that does not wait any more.
    pub(super) async fn outcome(&self, turn: &Turn, id: u64) -> Result<Ending, Error> {
        let confirmed = self.known().active.as_ref().is_some_and(|active| active.confirmed);
        Ok(match self.worker.change(turn, Network::recover).await? {
            Recovered::Kept(kept) if kept == id => Ending::Kept,
            Recovered::Undone(undone) if undone == id => Ending::RolledBack,
            // Somebody else was first; once it is to be kept nobody undoes it, and otherwise nobody keeps it.
            _ if confirmed => Ending::Kept,
            _ => Ending::RolledBack,
        })
    }

    /// Waits for something, and tells if it is being undone meanwhile.
    pub(super) async fn undoing<T>(&self, mut job: Job<T>) -> Result<T, Error> {
        tokio::select! {
            ended = &mut job => return ended,
            () = self.undoing.notified() => {}
        }
        self.publish().await;
        job.await
    }

    /// A change is over.
    pub(super) async fn finish(self: &Arc<Self>, turn: &Turn, id: u64, ending: Result<Ending, Error>) {
        let over = self.status().is_ok_and(|status| status.pending.is_none());
        let (ending, name, error) = match ending {
            Ok(ending) => (ending, "", String::new()),
            // Nothing is left to undo.
            Err(error) if over => (Ending::RolledBack, error.short(), error.to_string()),
            Err(error) => (Ending::Failed, error.short(), error.to_string()),
        };
        tracing::info!("change {id} is over: {}", ending.as_str());
        let running = {
            let mut known = self.known();
            known.last = Some(Last {
                id,
                ending,
                name,
                error: error.clone(),
            });
            known.looked = None;
            known.told_of_transaction.clear();
            known.active.take_if(|active| active.id == id)
        };
        self.moved.notify_one();
        self.signal("TransactionFinished", &(view::path_of(id), ending.as_str(), error))
            .await;
        let server = self.connection.object_server();
        if let Err(error) = server.remove::<Transaction, _>(view::path_of(id)).await {
            tracing::debug!("{error}");
        }
        self.publish().await;
        if over {
            self.disarm(turn, id).await;
        } else {
            self.try_again_soon(turn, id).await;
        }
        self.look_for_conflicts();
        drop(running);
    }

    /// Stops the timers of a change that is over.
    pub(super) async fn disarm(&self, turn: &Turn, id: u64) {
        let backup = self.backup;
        let disarm = move |_: &Network| {
            backup.disarm(id);
            Ok(())
        };
        // Never fails by itself.
        let _ = self.worker.change(turn, disarm).await;
    }

    /// Has what could not be undone tried again in a moment, and again until it works; the timer that is there may run
    /// only in an hour.
    async fn try_again_soon(&self, turn: &Turn, id: u64) {
        let backup = self.backup;
        let arm = move |_: &Network| Ok(backup.arm(id, Duration::ZERO)?);
        if let Err(error) = self.worker.change(turn, arm).await {
            tracing::error!("change {id} is tried again only when its own timer runs: {error}");
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What everybody is told: the signals, the objects, the properties that have changed, and what else was found.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use zbus::object_server::{Interface, SignalEmitter};
use zbus::{Variant, fdo};

use super::changes::{Known, Last, Service};
use super::error::Error;
use super::manager::Manager;
use super::proxy::PATH;
use super::transaction::Transaction;
use super::users::ROOT;
use super::view;
use crate::network::Network;

/// Conflicts are not looked for more often.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

impl Service {
    /// Tells of a change that ended with the service's start; there was nobody to tell of it before.
    pub async fn tell_last(&self) {
        if let Some(Last { id, ending, error, .. }) = self.last() {
            self.signal("TransactionFinished", &(view::path_of(id), ending.as_str(), error))
                .await;
        }
    }

    /// What else stops guests' packets; as it was a moment ago if that was looked for then.
    /// Asked by this user.
    pub async fn conflicts(&self, uid: u32) -> Result<Vec<String>, Error> {
        let recent = |known: &Known| known.looked.is_some_and(|looked| looked.elapsed() < LOOK_AGAIN);
        let ended = |known: &Known| known.last.as_ref().map(|last| last.id);
        let before = {
            let known = self.known();
            if recent(&known) {
                return Ok(known.conflicts.clone());
            }
            ended(&known)
        };
        let found = self.worker.look(uid, Network::conflicts).await?;
        let mut known = self.known();
        // What was looked at before a change ended is old already.
        known.looked = (ended(&known) == before).then(Instant::now);
        known.conflicts.clone_from(&found);
        Ok(found)
    }

    /// The same for a property, which cannot wait: as it is known, and looked for again for the next one.
    pub fn known_conflicts(self: &Arc<Self>) -> Vec<String> {
        self.look_for_conflicts();
        self.known().conflicts.clone()
    }

    /// Has somebody look for conflicts, and tell what is new, while nobody waits for that.
    pub(super) fn look_for_conflicts(self: &Arc<Self>) {
        if !self.looking.swap(true, Ordering::Relaxed) {
            let service = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = service.conflicts(ROOT).await {
                    tracing::warn!("{error}");
                }
                service.publish().await;
                service.looking.store(false, Ordering::Relaxed);
            });
        }
    }

    /// Makes the object of a change.
    pub(super) async fn serve(self: &Arc<Self>, id: u64, from: &'static str, to: &'static str) {
        let transaction = Transaction::new(Arc::clone(self), id, from, to);
        let server = self.connection.object_server();
        if let Err(error) = server.at(view::path_of(id), transaction).await {
            tracing::error!("change {id} has no object: {error}");
        }
    }

    /// Sends a signal of the manager's.
    pub(super) async fn signal<B>(&self, name: &str, body: &B)
    where
        B: Serialize + zbus::DynamicType,
    {
        let interface = <Manager as Interface>::name();
        let sent = self
            .connection
            .emit_signal(None::<()>, PATH, interface, name, body)
            .await;
        if let Err(error) = sent {
            tracing::warn!("{name} could not be sent: {error}");
        }
    }

    /// Tells which properties have changed.
    pub async fn publish(&self) {
        let Ok(status) = self.status() else { return };
        let (manager, transaction, active) = {
            let mut known = self.known();
            let now = view::properties(&status, &known.conflicts);
            let manager = changed(&mut known.told, now);
            let active = known.active.as_ref().map(|active| active.id);
            let now = active.map_or_else(HashMap::new, |_| view::transaction_properties(&status));
            (manager, changed(&mut known.told_of_transaction, now), active)
        };
        self.tell(PATH, <Manager as Interface>::name(), manager).await;
        if let Some(id) = active {
            let interface = <Transaction as Interface>::name();
            self.tell(view::path_of(id).as_str(), interface, transaction).await;
        }
    }

    async fn tell(&self, path: &str, interface: zbus::names::InterfaceName<'_>, changed: HashMap<&str, Variant<'_>>) {
        if changed.is_empty() {
            return;
        }
        let sent = match SignalEmitter::new(&self.connection, path) {
            Ok(emitter) => {
                fdo::Properties::properties_changed(&emitter, interface, changed, [].as_slice().into()).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::warn!("PropertiesChanged could not be sent: {error}");
        }
    }
}

/// Replaces what was told by what is so now, and returns what is new in it.
fn changed(
    told: &mut HashMap<&'static str, Variant<'static>>,
    now: HashMap<&'static str, Variant<'static>>,
) -> HashMap<&'static str, Variant<'static>> {
    let mut new = now;
    new.retain(|name, value| match (told.get(name), &*value) {
        // A deadline on the clock that can be set is never the same twice.
        (Some(Variant::U64(told)), Variant::U64(now)) => told.abs_diff(*now) > 1_000_000,
        (told, now) => told != Some(now),
    });
    told.extend(new.clone());
    new
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! When the service is not needed any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;
use zbus::Connection;

/// Without a call for this long the service ends.
const IDLE: Duration = Duration::from_secs(20);
/// Without a message for this long everything that was on its way to us has come.
const QUIET: Duration = Duration::from_millis(50);

/// What goes on.
#[derive(Default)]
pub struct Activity {
    running: AtomicUsize,
    ended: Notify,
}

/// Something that goes on.
pub struct Running(Arc<Activity>);

impl Activity {
    /// Something begins, and ends with what is returned.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(self))
    }

    /// Waits until nothing has gone on for a while.
    pub async fn idle(&self, connection: &Connection) {
        loop {
            self.nothing_running().await;
            // A message, of whatever kind, wakes this listener; it is made before the count is looked at again.
            let message = connection.monitor_activity();
            if timeout(IDLE, message).await.is_err() && self.running.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }

    /// Waits until what has arrived is answered and what has begun is done; the name is given up already, so that nothing
    /// more comes.
    pub async fn drained(&self, connection: &Connection) {
        loop {
            self.nothing_running().await;
            quiet(connection).await;
            if self.running.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }

    async fn nothing_running(&self) {
        loop {
            let ended = self.ended.notified();
            if self.running.load(Ordering::Relaxed) == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// Waits until no message has come or gone for a moment.
pub async fn quiet(connection: &Connection) {
    while timeout(QUIET, connection.monitor_activity()).await.is_ok() {}
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.ended.notify_one();
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What blocks, on a thread of its own: one change at a time, one look at a time, and not too many waiting for either.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{self, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::netd::error::Error;
use crate::netd::users::{ROOT, Users};
use crate::network::{self, Network};

/// How many changes may wait for the one that is being made.
const CHANGES_WAITING: usize = 8;
/// How many reading calls may wait for each other.
const LOOKS_WAITING: usize = 32;
/// How many of them may be one user's.
const LOOKS_OF_ONE: u32 = 8;
/// Threads for what blocks: one that changes, one that looks meanwhile.
pub const THREADS: usize = 2;

/// The network, and who may use it when.
pub struct Worker {
    network: Network,
    changes: Queue,
    looks: Queue,
    lookers: Users,
}

/// The right to change something.
pub struct Turn(#[expect(dead_code, reason = "given back when it goes")] OwnedSemaphorePermit);

struct Queue {
    one: Arc<Semaphore>,
    waiting: AtomicUsize,
    limit: usize,
}

impl Queue {
    fn new(limit: usize) -> Self {
        Self {
            one: Arc::new(Semaphore::new(1)),
            waiting: AtomicUsize::new(0),
            limit,
        }
    }

    /// Waits in line; not if too many do already.
    async fn enter(&self) -> Result<OwnedSemaphorePermit, Error> {
        let _waiting =
            Waiting::new(&self.waiting, self.limit).ok_or_else(|| Error::limits("too many calls are waiting"))?;
        self.enter_uncounted().await
    }

    /// Waits in any case, and takes nobody's place.
    async fn enter_uncounted(&self) -> Result<OwnedSemaphorePermit, Error> {
        let permit = Arc::clone(&self.one).acquire_owned().await;
        permit.map_err(|_| Error::failed("the service is ending"))
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let entered = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < limit).then_some(entered)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Worker {
    /// For this network.
    pub fn new(network: Network) -> Self {
        Self {
            network,
            changes: Queue::new(CHANGES_WAITING),
            looks: Queue::new(LOOKS_WAITING),
            lookers: Users::new(LOOKS_OF_ONE),
        }
    }

    /// The network, for what can be said at once.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Waits for the right to change something; not if too many do already.
    pub async fn turn(&self) -> Result<Turn, Error> {
        self.changes.enter().await.map(Turn)
    }

    /// Waits for it in any case.
    pub async fn own_turn(&self) -> Result<Turn, Error> {
        self.changes.enter_uncounted().await.map(Turn)
    }

    /// Changes something.
    pub async fn change<T, F>(&self, turn: &Turn, change: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Network) -> Result<T, network::Error> + Send + 'static,
    {
        self.start(turn, change).await
    }

    /// Looks at something that takes a while, for this user; for root and the service itself however many wait.
    pub async fn look<T, F>(&self, uid: u32, look: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Network) -> Result<T, network::Error> + Send + 'static,
    {
        if uid == ROOT {
            let _one = self.looks.enter_uncounted().await?;
            return self.on_thread(look).await;
        }
        let _counted =
            (self.lookers.count(uid)).ok_or_else(|| Error::limits("too many calls of this user are waiting"))?;
        let _one = self.looks.enter().await?;
        self.on_thread(look).await
    }

    /// Starts to change something.
    pub fn start<T, F>(&self, _turn: &Turn, change: F) -> Job<T>
    where
        T: Send + 'static,
        F: FnOnce(&Network) -> Result<T, network::Error> + Send + 'static,
    {
        self.on_thread(change)
    }

    fn on_thread<T, F>(&self, work: F) -> Job<T>
    where
        T: Send + 'static,
        F: FnOnce(&Network) -> Result<T, network::Error> + Send + 'static,
    {
        let network = self.network.clone();
        Job(tokio::task::spawn_blocking(move || work(&network)))
    }
}

/// Something that is done on a thread.
pub struct Job<T>(JoinHandle<Result<T, network::Error>>);

impl<T> Future for Job<T> {
    type Output = Result<T, Error>;
    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|ended| match ended {
            Ok(result) => result.map_err(Error::from),
            Err(_) => Err(Error::failed(
                "an internal error; the service's messages tell more (journalctl -u ttvm-netd)",
            )),
        })
    }
}

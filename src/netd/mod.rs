// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service `org.ttvm.Network1`: the networks of this host for everybody on the system bus.
//!
//! ```text
//! manager transaction     the objects: who calls, with what
//! authority options       whether they may, and what they mean
//! changes news            the change on its way, how it ends, what blocks, systemd's timer behind it; who is told of it
//! users                   how much of it each user may want at once
//! view error idle         what is shown; how it is told; when it is over
//! socket                  the connection, and how much comes through it
//! proxy                   the same for clients
//! ```
//!
//! One thread serves the bus. What the network is asked or told blocks, and happens on two more.

mod authority;
mod changes;
mod error;
mod idle;
mod manager;
mod news;
pub mod options;
pub mod proxy;
mod socket;
mod transaction;
mod users;
mod view;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use zbus::fdo::{RequestNameFlags, RequestNameReply};

use crate::base::error::{Classify, Exit, report};
use crate::base::{log, notify};
use crate::network::{self, Network};
use changes::Service;
use manager::Manager;
use proxy::{NAME, PATH};

pub use changes::backup::Backup;

/// By this name `ttvm` is the service: in /usr/libexec/ttvm it is a link to it, in Debian's package a hard one, so that during an
/// upgrade it is the old program or the new one. A program of its own would have most of `ttvm` in it once more.
pub const PROGRAM: &str = "ttvm-netd";

/// Why the service ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The executor, or its signals.
    #[error("cannot begin")]
    Io(#[from] std::io::Error),
    /// The bus.
    #[error("cannot serve on the system bus; is dbus.service running?")]
    Bus(#[from] zbus::Error),
    /// Another one runs.
    #[error("{NAME} is there already: another ttvm-netd runs (`systemctl status ttvm-netd`)")]
    NameTaken,
    /// The bus is gone.
    #[error("the system bus has closed the connection")]
    Closed,
    /// The network.
    #[error("{0}")]
    Network(String),
}

impl Classify for ServeError {
    fn exit(&self) -> Exit {
        Exit::Failed
    }
}

/// How long the change that is being made may take when the service is to end.
const LAST_CHANGE: Duration = Duration::from_secs(120);

/// How long it may take to say how it went.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Has the allocator give back what it is given. By itself glibc takes the largest block that was ever freed (of up to 32
/// MiB) for the measure of what to keep (mallopt(3), M_MMAP_THRESHOLD), and has a heap for each thread.
#[cfg(target_env = "gnu")]
fn keep_little() {
    use nix::libc;
    // SAFETY: these set numbers of the allocator; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// The program.
pub fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut root = PathBuf::from("/");
    if let [option, directory, ..] = &arguments[..]
        && option == "--root"
    {
        root = PathBuf::from(directory);
        arguments.drain(..2);
    }
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => end("ttvm-netd.service", || serve(&root)),
        ["boot"] => end("ttvm-network.service", || boot(&root)),
        ["rollback", id] => match id.parse() {
            Ok(id) => end("ttvm-netd.service", || rollback(&root, id)),
            Err(_) => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: {PROGRAM} [--root DIR] [rollback ID | boot]");
    Exit::Usage.into()
}

fn end<E: Classify>(unit: &str, work: impl FnOnce() -> Result<(), E>) -> ExitCode {
    log::init(PROGRAM, Some(unit));
    match work() {
        Ok(()) => Exit::Done.into(),
        Err(error) => report(PROGRAM, &error),
    }
}

/// The host is coming up.
fn boot(root: &Path) -> Result<(), network::Error> {
    let network = Network::new(root);
    network.recover()?;
    for done in network.reconcile()? {
        tracing::info!("{done}");
    }
    Ok(())
}

/// The timer of a change has run out. The change may be over, or another be on its way, or the deadline have been moved,
/// and then a later timer is there: what is overdue or half made is undone, and nothing else.
fn rollback(root: &Path, id: u64) -> Result<(), network::Error> {
    let network = Network::new(root);
    network.recover()?;
    // Others were armed for the same change, for as long as it might have taken to be made.
    if network.status()?.pending.is_none_or(|pending| pending.id != id) {
        Backup::new(root).disarm(id);
    }
    Ok(())
}

/// Serves until nobody has called for a while, or SIGTERM.
pub fn serve(root: &Path) -> Result<(), ServeError> {
    #[cfg(target_env = "gnu")]
    keep_little();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(changes::worker::THREADS)
        .build()?;
    let result = runtime.block_on(run(Network::new(root), Backup::new(root)));
    // A program that hangs is not waited for: it has its own deadline, and the next start puts right what it left.
    runtime.shutdown_background();
    result
}

async fn run(network: Network, backup: Backup) -> Result<(), ServeError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let connection = socket::connect().await?;
    let service = Service::new(network, backup, connection.clone());
    service
        .start()
        .await
        .map_err(|error| ServeError::Network(error.to_string()))?;
    let manager = Manager::new(Arc::clone(&service));
    connection.object_server().at(PATH, manager).await?;
    // Last: whoever sees the name can call.
    let reply = connection
        .request_name_with_flags(NAME, RequestNameFlags::DO_NOT_QUEUE)
        .await;
    match reply {
        Ok(RequestNameReply::PrimaryOwner) => {}
        Ok(_) | Err(zbus::Error::NameTaken) => return Err(ServeError::NameTaken),
        Err(error) => return Err(error.into()),
    }
    service.tell_last().await;
    tokio::select! {
        () = service.activity.idle(&connection) => {
            // systemd then starts another one for a call that comes from now on.
            notify::stopping();
            connection.release_name(NAME).await?;
            let _ = timeout(LAST_CHANGE, service.activity.drained(&connection)).await;
        }
        _ = terminate.recv() => {
            notify::stopping();
            connection.release_name(NAME).await?;
            // What waits to be confirmed is left to the timer; what is half made is not left.
            let _ = timeout(LAST_CHANGE, service.worker.own_turn()).await;
            let _ = timeout(LAST_WORDS, idle::quiet(&connection)).await;
        }
        () = connection.closed() => return Err(ServeError::Closed),
    }
    Ok(())
}

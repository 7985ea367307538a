// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running guests: the file for xl or xm, the domain, its supervisor, and what is remembered of a run.
//!
//! ```text
//! unit                       the main process of a guest's unit
//! supervisor restarts        one run on Xen, to its end; whether another follows
//! watch                      what a run waits for: its domain, its turn, the signal to stop
//! preparation record         what was made for this start; what is remembered of the newest
//! toolstack                  xl, TT Xen, qemu: all that differs between them
//! domain mode                the domains that there are; what guests are told of the network
//! obstacles                  what this host lacks for a guest
//! ```

pub mod domain;
mod error;
pub mod mode;
pub mod obstacles;
mod own_memory;
pub mod preparation;
pub mod record;
pub mod restarts;
pub mod supervisor;
pub mod toolstack;
pub mod unit;
pub mod watch;

pub use error::Error;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::base::root::under;
use crate::base::signals;
use crate::config::types::GuestName;
use crate::file;
use crate::file::lock::{self, Attempt, Lock, Waiting};

/// Where a guest's generated file for xl or xm, its preparation and its lock are while it runs.
const DIRECTORY: &str = "/run/ttvm";

/// The file for xl or xm of a guest that runs on the system in the tree that begins at `root`.
pub fn config_file(root: &Path, guest: &GuestName) -> PathBuf {
    under(root, Path::new(DIRECTORY)).join(format!("{guest}.cfg"))
}

/// Writes it, for root's eyes alone.
pub fn write_config(path: &Path, text: &str) -> Result<(), Error> {
    path.parent()
        .map_or(Ok(()), file::directory)
        .and_then(|()| file::replace(path, text.as_bytes(), 0o600))
        .map_err(|source| Error::Write {
            path: path.to_owned(),
            source,
        })
}

/// The lock of whoever builds a domain, or must not be disturbed by one. dom0 has one CPU: domains built side by side are
/// not up earlier, but each takes so long that xl gives up on its hotplug scripts (40 s, LIBXL_HOTPLUG_TIMEOUT in
/// libxl_internal.h).
pub fn building(root: &Path) -> Result<Attempt, Error> {
    // No guest's name begins with a dot: a guest "xl" has a lock of its own beside it.
    let path = under(root, Path::new(DIRECTORY)).join(".xl.lock");
    lock::take(&path).map_err(|source| Error::Write { path, source })
}

/// So long at the most has a lock who only looks whether somebody has it.
pub const LOOK: Duration = Duration::from_millis(200);

/// The guest's lock: its supervisor holds it as long as the run lasts, whoever changes its snapshots by hand as long as
/// that takes.
pub fn claim(guest: &GuestName) -> Result<Attempt, Error> {
    claim_below(Path::new(DIRECTORY), guest)
}

/// The same for a guest of an ordinary user, whose locks are in `directory`.
pub fn claim_below(directory: &Path, guest: &GuestName) -> Result<Attempt, Error> {
    let path = directory.join(format!("{guest}.lock"));
    lock::take(&path).map_err(|source| Error::Write { path, source })
}

/// Where the locks of the guests of whoever calls are: the system's if that is root, else below their `state` directory.
pub fn locks(state: &Path) -> PathBuf {
    match nix::unistd::geteuid().is_root() {
        true => PathBuf::from(DIRECTORY),
        false => state.join("run"),
    }
}

/// Whether somebody has the lock of a guest, which is in `directory`. Whoever claims it at this very moment may have to wait
/// for [`LOOK`].
pub fn is_claimed(directory: &Path, guest: &GuestName) -> bool {
    let file = std::fs::File::open(directory.join(format!("{guest}.lock")));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)))
}

/// The socket at which the console of an emulated guest that runs in a unit is joined. Root's alone.
pub fn console_socket(guest: &GuestName) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{guest}.console"))
}

/// The lock of whoever sits at that console: one at a time.
pub fn claim_console(guest: &GuestName) -> Result<Attempt, Error> {
    // No guest's name begins with a dot: a guest "a.console" has a lock of its own beside it.
    let path = Path::new(DIRECTORY).join(format!(".{guest}.console.lock"));
    lock::take(&path).map_err(|source| Error::Write { path, source })
}

/// The lock that somebody has who only looks, as they do not have it any more; nothing if somebody means to keep it.
pub fn soon(waiting: Waiting) -> Result<Option<Lock>, Error> {
    let limit = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
    let mut fds = [PollFd::new(waiting.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, limit).map_err(|errno| Error::Wait(errno.into()))?;
    if !fds[0].any().unwrap_or_default() {
        return Ok(None);
    }
    waiting.take().map(Some).map_err(Error::Wait)
}

/// [`claim`] for a run, which waits for whoever has it: nothing if we are asked to end meanwhile by a signal that is held back
/// ([`signals::hold`]).
pub fn claim_for_run(guest: &GuestName) -> Result<Option<Lock>, Error> {
    match claim(guest)? {
        Attempt::Taken(lock) => Ok(Some(lock)),
        Attempt::Busy(waiting) => taken(waiting, signals::arrival().map_err(Error::Wait)?.as_fd()),
    }
}

/// The lock that is waited for; nothing if `signals` can be read before it is ours.
fn taken(waiting: Waiting, signals: BorrowedFd<'_>) -> Result<Option<Lock>, Error> {
    let mut fds = [
        PollFd::new(signals, PollFlags::POLLIN),
        PollFd::new(waiting.as_fd(), PollFlags::POLLIN),
    ];
    poll(&mut fds, PollTimeout::NONE).map_err(|errno| Error::Wait(errno.into()))?;
    if fds[0].any().unwrap_or_default() {
        return Ok(None);
    }
    waiting.take().map(Some).map_err(Error::Wait)
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn who_waits_for_a_guest_can_be_ended() {
        let directory = std::env::temp_dir().join(format!("ttvm-claim-{}", std::process::id()));
        let path = directory.join("a.lock");
        let attempt = || lock::take(&path).expect("an attempt");
        let Attempt::Taken(held) = attempt() else {
            panic!("nobody has it");
        };
        let Attempt::Busy(waiting) = attempt() else {
            panic!("it is held");
        };
        // Signals that wait are a thread's own.
        std::thread::spawn(move || {
            signals::hold(watch::AT_ONCE);
            raise(watch::AT_ONCE).expect("a signal");
            assert!(signals::waiting());
            let arrival = signals::arrival().expect("a descriptor");
            assert!(taken(waiting, arrival.as_fd()).expect("a wait").is_none());
        })
        .join()
        .expect("it ends");
        let Attempt::Busy(waiting) = attempt() else {
            panic!("it is held");
        };
        drop(held);
        let quiet = signals::arrival().expect("a descriptor");
        assert!(taken(waiting, quiet.as_fd()).expect("a wait").is_some());
        std::fs::remove_dir_all(directory).expect("it goes");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program that runs beside us for long, as a guest's emulator does: it gets descriptors of ours, its end is something to
//! poll for, and it does not outlive us.

pub mod confinement;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;

use self::confinement::Confinement;
use crate::run::{Error, Program};

/// A running program. Dropped, it is killed.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    exit: OwnedFd,
    ended: Option<ExitStatus>,
}

/// What a program reads and writes.
#[derive(Debug)]
pub struct Streams {
    /// Its standard input.
    pub stdin: OwnedFd,
    /// Its standard output.
    pub stdout: OwnedFd,
    /// Its standard error.
    pub stderr: OwnedFd,
}

/// How a program is started, beside what it reads and writes.
#[derive(Debug, Default)]
pub struct Start<'a> {
    /// Descriptors that it gets, under the numbers they have here.
    pub inherited: &'a [BorrowedFd<'a>],
    /// Further variables of its environment, which has next to nothing else.
    pub environment: Vec<(&'static str, String)>,
    /// The directory that it begins in; ours if there is none.
    pub directory: Option<PathBuf>,
    /// The user and group that it is, without any other; we ourselves if there is none.
    pub identity: Option<(u32, u32)>,
    /// What it cannot get out of.
    pub confinement: Option<Confinement>,
}

impl Child {
    /// Starts `program`.
    pub fn spawn(program: &Program, args: &[String], streams: Streams) -> Result<Self, Error> {
        Self::spawn_as(program.path()?, args, streams, Start::default())
    }

    /// Starts the program at `path`, as `start` says.
    pub fn spawn_as(path: &Path, args: &[String], streams: Streams, start: Start<'_>) -> Result<Self, Error> {
        let failed = |source| Error::Io {
            command: format!("{} {}", path.display(), args.join(" ")),
            source,
        };
        let keep: Vec<i32> = start.inherited.iter().map(AsRawFd::as_raw_fd).collect();
        let us = std::process::id();
        let mut command = Command::new(path);
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .envs(start.environment)
            .stdin(Stdio::from(streams.stdin))
            .stdout(Stdio::from(streams.stdout))
            .stderr(Stdio::from(streams.stderr));
        if let Some(directory) = start.directory {
            command.current_dir(directory);
        }
        if let Some((uid, gid)) = start.identity {
            // Before what follows: the kernel forgets a parent-death signal when the user changes.
            command.uid(uid).gid(gid);
        }
        let confinement = start.confinement;
        // SAFETY: system calls only; nothing is allocated between fork and exec.
        unsafe {
            command.pre_exec(move || {
                SigSet::empty().thread_set_mask()?;
                nix::sys::prctl::set_no_new_privs()?;
                // Whatever it makes is its own.
                nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
                // Whoever supervised it is gone: nobody would write down how it ended.
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
                if libc::getppid() as u32 != us {
                    return Err(Errno::ESRCH.into());
                }
                // What we were handed ourselves is not for it. Before Linux 5.11 it stays open.
                let closed = libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
                if confinement.is_some() {
                    Errno::result(closed)?;
                }
                for fd in &keep {
                    fcntl(BorrowedFd::borrow_raw(*fd), FcntlArg::F_SETFD(FdFlag::empty()))?;
                }
                // At the end: of what is above, little is allowed in it.
                confinement.as_ref().map_or(Ok(()), Confinement::enter)
            });
        }
        let process = command.spawn().map_err(failed)?;
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1; the child is not reaped yet, so its pid
        // is its own.
        let exit = unsafe { libc::syscall(libc::SYS_pidfd_open, process.id(), 0) };
        let exit = Errno::result(exit).map_err(|errno| failed(errno.into()))?;
        Ok(Self {
            process,
            // SAFETY: the descriptor was just made and belongs to nobody else.
            exit: unsafe { OwnedFd::from_raw_fd(exit as i32) },
            ended: None,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// How it ended, as soon as it has.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.process.wait()?;
        self.ended = Some(status);
        Ok(status)
    }

    /// The same, but no longer than `limit`; `None` if it goes on.
    pub fn wait_for(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.exit.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) if left.is_zero() => return Ok(None),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return self.wait().map(Some),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Ends it at once.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        if self.ended.is_none() {
            self.process.kill()?;
        }
        self.wait()
    }
}

/// Polls readable when the program has ended.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.exit.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended.is_none() {
            drop(self.kill());
        }
    }
}

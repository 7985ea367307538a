// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program that runs, up to its end.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a program that was told to end (SIGTERM) may still tidy up before it is killed. LVM must not be
/// killed while it holds devices suspended, which it does for well under this time.
const GRACE: Duration = Duration::from_secs(10);

/// Why a program has ended.
pub(super) enum End {
    Itself,
    Deadline,
    Cancelled,
}

/// A child whose output is drained and whose end is awaited in one poll, so that neither a full pipe nor a
/// program that closes its output early can hang us.
pub(super) struct Watched {
    exit: OwnedFd,
    pipes: [Option<Pipe>; 2],
    read: [Vec<u8>; 2],
}

type Pipe = std::fs::File;

impl Watched {
    pub(super) fn new(child: &mut Child) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1; the child is not
        // reaped yet, so its pid is its own.
        let exit = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, child.id(), 0) };
        let exit = Errno::result(exit)?;
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let exit = unsafe { OwnedFd::from_raw_fd(exit as i32) };
        let pipes = [
            child.stdout.take().map(|p| Pipe::from(OwnedFd::from(p))),
            child.stderr.take().map(|p| Pipe::from(OwnedFd::from(p))),
        ];
        Ok(Self {
            exit,
            pipes,
            read: Default::default(),
        })
    }

    /// Waits for its end; asks for it after `limit`, or as soon as `cancel` can be read.
    pub(super) fn finish(
        mut self,
        child: &mut Child,
        limit: Duration,
        cancel: Option<BorrowedFd<'_>>,
    ) -> io::Result<(ExitStatus, End, Vec<u8>, Vec<u8>)> {
        let mut end = End::Itself;
        let mut until = Instant::now() + limit;
        loop {
            let listening = cancel.filter(|_| matches!(end, End::Itself));
            let ready = self.wait(until, listening)?;
            if ready.exited {
                break;
            }
            let late = Instant::now() >= until;
            if !late && !ready.cancelled {
                continue;
            }
            let pid = Pid::from_raw(child.id() as i32);
            if matches!(end, End::Itself) {
                end = if ready.cancelled { End::Cancelled } else { End::Deadline };
                until = Instant::now() + GRACE;
                let _ = kill(pid, Signal::SIGTERM);
            } else {
                until = Instant::now() + GRACE;
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        // A daemon that the program left behind may hold the pipes open: take what is there, do not wait.
        while self.wait(Instant::now(), None)?.read_something {}
        let status = child.wait()?;
        let [stdout, stderr] = self.read;
        Ok((status, end, stdout, stderr))
    }

    fn wait(&mut self, until: Instant, cancel: Option<BorrowedFd<'_>>) -> io::Result<Ready> {
        let mut fds = vec![PollFd::new(self.exit.as_fd(), PollFlags::POLLIN)];
        let mut owners = Vec::new();
        for (index, pipe) in self.pipes.iter().enumerate() {
            if let Some(pipe) = pipe {
                owners.push(index);
                fds.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
            }
        }
        if let Some(fd) = cancel {
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
        }
        let left = until.saturating_duration_since(Instant::now());
        // Rounded up: a poll that wakes a moment early would spin.
        let timeout = PollTimeout::try_from(left.as_millis() + u128::from(!left.is_zero())).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let active = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let exited = active(&fds[0]);
        let cancelled = cancel.is_some() && fds.last().is_some_and(active);
        let readable: Vec<usize> = owners
            .into_iter()
            .enumerate()
            .filter(|(position, _)| active(&fds[position + 1]))
            .map(|(_, index)| index)
            .collect();
        drop(fds);
        let mut read_something = false;
        for index in readable {
            let mut buffer = [0; 4096];
            let Some(pipe) = &mut self.pipes[index] else {
                continue;
            };
            match pipe.read(&mut buffer)? {
                0 => self.pipes[index] = None,
                length => {
                    read_something = true;
                    self.read[index].extend_from_slice(&buffer[..length]);
                }
            }
        }
        Ok(Ready {
            // Output that is still in the pipe comes first.
            exited: exited && !read_something,
            cancelled,
            read_something,
        })
    }
}

struct Ready {
    exited: bool,
    cancelled: bool,
    read_something: bool,
}

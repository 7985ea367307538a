// SPDX-License-Identifier: MIT OR Apache-2.0
//! News from the kernel: a sign to look again, whatever it is.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Instant;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Error;

/// News of one kind, from now on.
pub(super) struct Events(Socket);

impl Events {
    /// Of a group (RTNLGRP_… in linux/rtnetlink.h).
    pub(super) fn of(group: u32) -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.add_membership(group)?;
        Ok(Self(socket))
    }

    /// Waits for some; false when the time is over.
    pub(super) fn wait(&self, until: Instant) -> Result<bool, Error> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        // SAFETY: the socket is open as long as it is borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) };
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        if poll(&mut fds, timeout).map_err(io::Error::from)? == 0 {
            return Ok(false);
        }
        // That there were too many to be read is a sign as well.
        drop(self.0.recv_from_full());
        Ok(true)
    }
}

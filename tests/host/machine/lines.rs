// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines of JSON over a socket, with deadlines: how both the monitor and the agent talk.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Context, Error, Result};

pub struct Lines {
    socket: UnixStream,
    pending: Vec<u8>,
    searched: usize,
}

impl Lines {
    pub fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            pending: Vec::new(),
            searched: 0,
        }
    }

    /// Sends one message. The empty line before it ends what an interrupted writer may have left.
    pub fn send(&mut self, message: &Value, deadline: Instant) -> Result<()> {
        let text = format!("\n{message}\n");
        self.socket.set_write_timeout(Some(left(deadline)?)).context("socket")?;
        self.socket
            .write_all(text.as_bytes())
            .context("the emulated host does not listen")
    }

    /// The next message. What is not JSON is skipped: after a restore the line may begin in the middle of an old message.
    pub fn next(&mut self, deadline: Instant) -> Result<Value> {
        loop {
            if let Some(end) = self.pending[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=self.searched + end).collect();
                self.searched = 0;
                if let Ok(value @ Value::Object(_)) = serde_json::from_slice(&line) {
                    return Ok(value);
                }
                continue;
            }
            self.searched = self.pending.len();
            let mut chunk = [0; 65536];
            self.socket.set_read_timeout(Some(left(deadline)?)).context("socket")?;
            match self.socket.read(&mut chunk) {
                Ok(0) => return Err(Error::new("the emulated host has ended")),
                Ok(n) => self.pending.extend_from_slice(&chunk[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) => return Err(e).context("the emulated host has ended"),
            }
        }
    }
}

fn left(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(Error::new("no answer in time"))
    } else {
        Ok(left)
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's machine protocol (QMP): one JSON object a line, answers and events.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::base::text;

/// How long QEMU may take for an answer. It answers between two instructions of the guest; a disk may keep it longer.
const LIMIT: Duration = Duration::from_secs(60);

/// A line longer than this is not QEMU's.
const LONGEST: usize = 1 << 20;

/// Why QEMU cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection failed.
    #[error("the connection to QEMU failed")]
    Io(#[from] io::Error),
    /// It does not answer.
    #[error(
        "QEMU did not answer for {seconds} s: it was stopped, or waits for a disk or for a processor. Look at the host (`dmesg`, `top`)"
    )]
    Slow {
        /// How long.
        seconds: u64,
    },
    /// It is gone.
    #[error("QEMU has ended")]
    Ended,
    /// It said something else than QMP.
    #[error("QEMU said something that is not understood: {0}")]
    Strange(String),
    /// It refused a command.
    #[error("QEMU refused {command}: {why}")]
    Refused {
        /// The command.
        command: String,
        /// Its reason.
        why: String,
    },
}

/// What QEMU tells without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The machine has shut down; QEMU's reason (`guest-shutdown`, `guest-reset`, `host-qmp-quit`, …).
    Shutdown(String),
    /// The processor stands still.
    Stopped,
    /// It goes on.
    Resumed,
    /// The guest has reset itself, or its firmware has, and begins again.
    Reset,
}

/// A request of a disk that failed on the host, for which the machine stands still (BLOCK_IO_ERROR in QEMU's
/// qapi/block-core.json). When the machine goes on, the request is made once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The disk.
    pub disk: String,
    /// Whether it was to be read.
    pub is_read: bool,
    /// Whether there was no room for it.
    pub no_space: bool,
    /// The system's reason.
    pub reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.is_read { "read" } else { "written" };
        write!(f, "disk {} cannot be {done}: {}", self.disk, self.reason)
    }
}

/// A connection.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    unread: Vec<u8>,
    events: VecDeque<Event>,
    /// The newest.
    failure: Option<Failure>,
    /// Whether nothing is waited for.
    at_once: bool,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "return")]
    result: Option<Value>,
    error: Option<Refusal>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
}

/// The queue in which a guest asks a disk for something (VirtQueueStatus in QEMU's qapi/virtio.json; the split virtqueue of the
/// virtio specification).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Queue {
    /// Requests that have begun and not ended.
    #[serde(rename = "inuse")]
    pub in_use: u64,
    /// Entries of the queue.
    #[serde(rename = "vring-num")]
    pub size: u64,
    /// The guest's address of the table of descriptors.
    #[serde(rename = "vring-desc")]
    pub descriptors: u64,
    /// That of the ring of requests.
    #[serde(rename = "vring-avail")]
    pub available: u64,
    /// How many requests have begun so far, in 16 bits.
    #[serde(rename = "last-avail-idx", default)]
    pub begun: u16,
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

impl Qmp {
    /// Greets QEMU at the other end.
    pub fn open(stream: UnixStream) -> Result<Self, Error> {
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let mut qmp = Self {
            stream,
            unread: Vec::new(),
            events: VecDeque::new(),
            failure: None,
            at_once: false,
        };
        // {"QMP": …}
        qmp.line()?;
        qmp.execute("qmp_capabilities", Value::Null)?;
        Ok(qmp)
    }

    /// Has QEMU do something and returns its answer.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Error> {
        let mut request = json!({ "execute": command });
        if !arguments.is_null() {
            request["arguments"] = arguments;
        }
        let mut line = request.to_string();
        line.push('\n');
        self.stream.write_all(line.as_bytes()).map_err(ended)?;
        loop {
            let line = self.line()?;
            let message = parse(&line)?;
            if let Some(why) = message.error {
                return Err(Error::Refused {
                    command: command.to_owned(),
                    why: text::line(&why.desc).into_owned(),
                });
            }
            if let Some(result) = message.result {
                return Ok(result);
            }
            self.note(message);
        }
    }

    /// Instructions the guest has executed.
    pub fn instructions(&mut self) -> Result<u64, Error> {
        let info = self.execute("query-replay", Value::Null)?;
        info["icount"].as_u64().ok_or_else(|| Error::Strange(info.to_string()))
    }

    /// Why it stands still, if that is because a disk failed. QEMU says that before it says that it stands still.
    pub fn failure(&mut self) -> Result<Option<Failure>, Error> {
        match self.status()?.as_str() {
            "io-error" => Ok(self.failure.clone()),
            _ => Ok(None),
        }
    }

    /// Whether it stands still because somebody has stopped it, and may go on.
    pub fn is_paused(&mut self) -> Result<bool, Error> {
        Ok(["paused", "prelaunch", "debug"].contains(&self.status()?.as_str()))
    }

    /// What it does, in a word (RunState in QEMU's qapi/run-state.json).
    fn status(&mut self) -> Result<String, Error> {
        let status = self.execute("query-status", Value::Null)?;
        match &status["status"] {
            Value::String(status) => Ok(status.clone()),
            _ => Err(Error::Strange(status.to_string())),
        }
    }

    /// A command of the monitor for people that has nothing to say if it went well.
    pub fn monitor(&mut self, line: &str) -> Result<(), Error> {
        match self.ask(line)?.trim() {
            "" => Ok(()),
            why => Err(Error::Refused {
                command: line.to_owned(),
                why: text::line(why).into_owned(),
            }),
        }
    }

    /// What the monitor for people answers.
    fn ask(&mut self, line: &str) -> Result<String, Error> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        match answer {
            Value::String(text) => Ok(text),
            other => Err(Error::Strange(other.to_string())),
        }
    }

    /// Has a replay stand still when the guest has executed so many instructions: [`Event::Stopped`].
    pub fn stop_at(&mut self, instructions: u64) -> Result<(), Error> {
        self.execute("replay-break", json!({ "icount": instructions }))?;
        Ok(())
    }

    /// Stops the machine between two instructions and returns how many it has executed.
    pub fn stop(&mut self) -> Result<u64, Error> {
        self.execute("stop", Value::Null)?;
        self.instructions()
    }

    /// Lets the machine go on.
    pub fn go_on(&mut self) -> Result<(), Error> {
        self.execute("cont", Value::Null)?;
        Ok(())
    }

    /// What is in the processor, as QEMU writes it for people (`info registers`).
    pub fn registers(&mut self) -> Result<String, Error> {
        self.ask("info registers")
    }

    /// The instruction at `address`, as the processor would read it there now: `movw %di, (%rsi)`.
    pub fn instruction(&mut self, address: u64) -> Result<String, Error> {
        let text = self.ask(&format!("x/1i {address:#x}"))?;
        Ok(mnemonic(&text).unwrap_or_else(|| "what QEMU does not read".to_owned()))
    }

    /// Whether no request of the first `disks` devices, which are disks, has begun and not ended. One that has may have written
    /// to the guest's memory already, or not: only when all is quiet, the same instruction means the same memory.
    pub fn disks_are_quiet(&mut self, disks: usize) -> Result<bool, Error> {
        for disk in 0..disks {
            if self.queue(disk)?.in_use > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a disk was asked for; `disk` is its device's number.
    pub fn queue(&mut self, disk: usize) -> Result<Queue, Error> {
        let path = format!("/machine/peripheral-anon/device[{disk}]/virtio-backend");
        let queue = self.execute("x-query-virtio-queue-status", json!({ "path": path, "queue": 0 }))?;
        Queue::deserialize(&queue).map_err(|_| Error::Strange(queue.to_string()))
    }

    /// Whether a machine's state is kept and loaded without its memory, which is ours.
    pub fn leave_memory_out(&mut self, out: bool) -> Result<(), Error> {
        let capability = json!({ "capability": "x-ignore-shared", "state": out });
        self.execute("migrate-set-capabilities", json!({ "capabilities": [capability] }))?;
        Ok(())
    }

    /// The next event that has come in. Does not wait.
    pub fn event(&mut self) -> Result<Option<Event>, Error> {
        self.stream.set_nonblocking(true)?;
        self.at_once = true;
        let filled = self.fill();
        self.at_once = false;
        self.stream.set_nonblocking(false)?;
        match filled {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            // What it said last is still to be read.
            Err(Error::Ended) if !self.unread.is_empty() || !self.events.is_empty() => {}
            filled => filled?,
        }
        while let Some(line) = self.take_line() {
            let message = parse(&line)?;
            self.note(message);
        }
        Ok(self.events.pop_front())
    }

    fn note(&mut self, message: Message) {
        let event = match message.event.as_deref() {
            Some("BLOCK_IO_ERROR") => {
                self.failure = failure(&message.data).or(self.failure.take());
                return;
            }
            Some("SHUTDOWN") => Event::Shutdown(message.data["reason"].as_str().unwrap_or_default().to_owned()),
            Some("STOP") => Event::Stopped,
            Some("RESUME") => Event::Resumed,
            Some("RESET") if message.data["guest"] == true => Event::Reset,
            _ => return,
        };
        self.events.push_back(event);
    }

    fn line(&mut self) -> Result<Vec<u8>, Error> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(line);
            }
            self.fill()?;
        }
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = self.unread.iter().position(|byte| *byte == b'\n')?;
        Some(self.unread.drain(..=end).collect())
    }

    fn fill(&mut self) -> Result<(), Error> {
        let mut buffer = [0; 4096];
        let length = match self.stream.read(&mut buffer) {
            // The stream waits for LIMIT, unless it was told not to wait at all.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.at_once => {
                let seconds = LIMIT.as_secs();
                return Err(Error::Slow { seconds });
            }
            length => length.map_err(ended)?,
        };
        if length == 0 {
            return Err(Error::Ended);
        }
        if self.unread.len() > LONGEST {
            return Err(Error::Strange("a line without end".to_owned()));
        }
        self.unread.extend_from_slice(&buffer[..length]);
        Ok(())
    }
}

fn parse(line: &[u8]) -> Result<Message, Error> {
    serde_json::from_slice(line).map_err(|_| Error::Strange(text::of_bytes(line.trim_ascii())))
}

/// What failed, if the machine stands still for it; the guest is told of any other.
fn failure(data: &Value) -> Option<Failure> {
    let text = |key: &str| data[key].as_str().unwrap_or_default();
    if text("action") != "stop" {
        return None;
    }
    // `disk-vda` or `replay-vda`.
    let node = text("node-name");
    let (_, disk) = node.split_once('-').unwrap_or(("", node));
    Some(Failure {
        disk: disk.to_owned(),
        is_read: text("operation") == "read",
        no_space: data["nospace"].as_bool().unwrap_or_default(),
        reason: text("reason").to_owned(),
    })
}

/// The instruction in a line of the monitor: `0x000fff0:  66 89 3e                 movw     %di, (%rsi)`.
fn mnemonic(text: &str) -> Option<String> {
    let (_, text) = text.lines().next()?.split_once(':')?;
    let is_byte = |word: &&str| word.len() == 2 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words: Vec<&str> = text.split_whitespace().skip_while(is_byte).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

fn ended(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Error::Ended,
        _ => Error::Io(error),
    }
}

/// Polls readable when there may be an [`event`](Qmp::event).
impl AsFd for Qmp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed() {
        let mut data = json!({
            "device": "", "node-name": "replay-vda", "operation": "write", "action": "stop", "nospace": false,
            "reason": "Input/output error",
        });
        let failed = failure(&data).expect("the machine stands still");
        assert_eq!(failed.to_string(), "disk vda cannot be written: Input/output error");
        assert!(!failed.no_space && !failed.is_read);
        data["action"] = json!("report");
        assert_eq!(failure(&data), None, "the guest is told");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client of Xen's store (`docs/misc/xenstore.txt` in Xen's tree): reading, writing, listing and watching, over
//! xenstored's socket. `xl` would be a process of 2 MB for each question.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::base::root::under;
use crate::file::tree;

/// Where xenstored listens (Debian, upstream), and the way to one that runs in its own domain.
const SOCKETS: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];
const DEVICE: &str = "/dev/xen/xenbus";
/// What this domain may do.
const CAPABILITIES: &str = "/proc/xen/capabilities";

const DIRECTORY: u32 = 1;
const READ: u32 = 2;
const WATCH: u32 = 4;
const WRITE: u32 = 11;
const WATCH_EVENT: u32 = 15;
const ERROR: u32 = 16;
/// The protocol's limit on one message.
const MAX_PAYLOAD: usize = 4096;

/// How long an answer may take, on a host with one busy CPU.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the store could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error("Xen's store does not answer (is this host booted under Xen, and are you root?)")]
    Connect(#[source] io::Error),
    /// The connection broke.
    #[error("the connection to Xen's store broke")]
    Io(#[from] io::Error),
    /// The store said no.
    #[error("Xen's store refuses {path}: {code}")]
    Refused {
        /// What was asked for.
        path: String,
        /// Its error code (`EACCES`).
        code: String,
    },
}

/// A connection to xenstored.
pub struct XenStore {
    stream: File,
    events: VecDeque<String>,
}

/// Whether this host is one that has a store of its domains. Sandboxed services do not see /proc/xen, and a store in a
/// domain of its own has no socket.
pub fn is_here() -> bool {
    SOCKETS.iter().any(|path| Path::new(path).exists()) || is_dom0(Path::new("/"))
}

/// Whether the system in the tree that begins at `root` is the domain that controls the others.
pub fn is_dom0(root: &Path) -> bool {
    tree::text(root, Path::new(CAPABILITIES), tree::SETTINGS).is_ok_and(|text| text.contains("control_d"))
}

impl XenStore {
    /// Connects.
    pub fn connect() -> Result<Self, Error> {
        Self::connect_in(Path::new("/"))
    }

    /// Connects to the one of the system in the tree that begins at `root`.
    pub fn connect_in(root: &Path) -> Result<Self, Error> {
        let real = |path: &str| under(root, Path::new(path));
        let socket = SOCKETS.iter().find_map(|path| UnixStream::connect(real(path)).ok());
        if let Some(socket) = &socket {
            socket.set_read_timeout(Some(PATIENCE))?;
        }
        let stream = match socket {
            Some(socket) => File::from(OwnedFd::from(socket)),
            None => OpenOptions::new()
                .read(true)
                .write(true)
                .open(real(DEVICE))
                .map_err(Error::Connect)?,
        };
        Ok(Self {
            stream,
            events: VecDeque::new(),
        })
    }

    /// The value at `path`, if there is one.
    pub fn read(&mut self, path: &str) -> Result<Option<String>, Error> {
        let value = self.ask(READ, path, &[path])?;
        Ok(value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The names below `path`; none if it is not there.
    pub fn list(&mut self, path: &str) -> Result<Vec<String>, Error> {
        let names = self.ask(DIRECTORY, path, &[path])?.unwrap_or_default();
        let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }

    /// Writes `value` to `path`.
    pub fn write(&mut self, path: &str, value: &str) -> Result<(), Error> {
        // The value is what is left of the message, without a zero behind it.
        let payload: Vec<u8> = path.bytes().chain([0]).chain(value.bytes()).collect();
        self.exchange(WRITE, path, &payload).map(drop)
    }

    /// Watches `path`: the descriptor becomes readable and [`event`](Self::event) returns when something changes
    /// there. The store sends one event at once.
    pub fn watch(&mut self, path: &str) -> Result<(), Error> {
        self.ask(WATCH, path, &[path, "ttvm"]).map(drop)
    }

    /// Takes an event that has already arrived together with an answer.
    pub fn pending(&mut self) -> Option<String> {
        self.events.pop_front()
    }

    /// The path of the next event; waits for it.
    pub fn event(&mut self) -> Result<String, Error> {
        loop {
            if let Some(path) = self.events.pop_front() {
                return Ok(path);
            }
            let (kind, payload) = self.receive()?;
            self.note(kind, &payload);
        }
    }

    fn note(&mut self, kind: u32, payload: &[u8]) {
        if kind == WATCH_EVENT {
            let path = payload.split(|byte| *byte == 0).next().unwrap_or_default();
            self.events.push_back(String::from_utf8_lossy(path).into_owned());
        }
    }

    /// Sends one request and returns its answer; `None` if the store says that there is no such path.
    fn ask(&mut self, kind: u32, path: &str, strings: &[&str]) -> Result<Option<Vec<u8>>, Error> {
        let payload: Vec<u8> = strings.iter().flat_map(|text| text.bytes().chain([0])).collect();
        self.exchange(kind, path, &payload)
    }

    fn exchange(&mut self, kind: u32, path: &str, payload: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let mut message = Vec::with_capacity(16 + payload.len());
        for field in [kind, 0, 0, payload.len() as u32] {
            message.extend(field.to_ne_bytes());
        }
        message.extend(payload);
        self.stream.write_all(&message)?;
        loop {
            let (answer, payload) = self.receive()?;
            if answer == ERROR {
                let code = String::from_utf8_lossy(&payload).trim_end_matches('\0').to_owned();
                return match code.as_str() {
                    "ENOENT" => Ok(None),
                    // A path that two connections ask to watch is still watched.
                    "EEXIST" => Ok(Some(Vec::new())),
                    _ => Err(Error::Refused {
                        path: path.to_owned(),
                        code,
                    }),
                };
            }
            if answer == kind {
                return Ok(Some(payload));
            }
            self.note(answer, &payload);
        }
    }

    fn receive(&mut self) -> Result<(u32, Vec<u8>), Error> {
        let mut header = [0; 16];
        self.stream.read_exact(&mut header)?;
        let field = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&header[at..at + 4]);
            u32::from_ne_bytes(bytes)
        };
        let length = field(12) as usize;
        if length > MAX_PAYLOAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message longer than the protocol allows").into());
        }
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        Ok((field(0), payload))
    }
}

impl AsFd for XenStore {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

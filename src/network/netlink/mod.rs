// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's network (rtnetlink(7)): links, addresses, routes, neighbours. One question at a time, each answered at
//! once; no executor is needed.

mod address;
mod events;
mod link;
mod neighbour;
mod route;
mod saved;

use std::io;

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

pub use address::Address;
pub use link::{Link, NewBridge};
pub use neighbour::Reachability;
pub use route::Route;

/// A listing that changed while it was read is read again, this often at most.
const ATTEMPTS: usize = 10;

/// Why the kernel did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection.
    #[error("cannot talk to the kernel's network")]
    Io(#[from] io::Error),
    /// The kernel said no.
    #[error("the kernel refuses to {action}")]
    Refused {
        /// What was asked for: `add 10.0.0.1/24 to br0`.
        action: String,
        /// Its reason.
        #[source]
        source: io::Error,
    },
    /// What it said cannot be read.
    #[error("cannot read the kernel's answer: {0}")]
    Answer(String),
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::Answer(error.to_string())
    }
}

impl Error {
    /// Whether the kernel gave this reason (`libc::EEXIST`).
    pub fn is(&self, code: i32) -> bool {
        matches!(self, Self::Refused { source, .. } if source.raw_os_error() == Some(code))
    }
}

/// What was to be added may be there already, what was to be removed may be gone.
pub fn unless(code: i32, result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is(code) => Ok(()),
        other => other,
    }
}

/// A connection to the kernel's network, in the network namespace of the thread that opened it.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Connects.
    pub fn open() -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Error> {
        self.sequence += 1;
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;
        Ok(())
    }

    /// The messages of one datagram that answer the last question.
    fn receive(&mut self) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, Error> {
        let (data, _) = self.socket.recv_from_full()?;
        let mut messages = Vec::new();
        let mut rest = data.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)?;
            let length = message.header.length as usize;
            // Each message is padded to four bytes.
            rest = rest.get(length.next_multiple_of(4).max(4)..).unwrap_or_default();
            if message.header.sequence_number == self.sequence {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    /// Asks for a change; `action` completes "the kernel refuses to …".
    fn change(
        &mut self,
        action: impl FnOnce() -> String,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Error> {
        self.send(message, NLM_F_ACK | flags)?;
        loop {
            for message in self.receive()? {
                if let NetlinkPayload::Error(error) = message.payload {
                    return match error.code {
                        None => Ok(()),
                        Some(_) => Err(Error::Refused {
                            action: action(),
                            source: error.to_io(),
                        }),
                    };
                }
            }
        }
    }

    /// Asks for a listing.
    fn dump(&mut self, question: &RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for _ in 0..ATTEMPTS {
            if let Some(list) = self.dump_once(question.clone())? {
                return Ok(list);
            }
        }
        Err(Error::Answer("the listing changes all the time".to_owned()))
    }

    /// `None` if something was changed meanwhile, and may be missing.
    fn dump_once(&mut self, question: RouteNetlinkMessage) -> Result<Option<Vec<RouteNetlinkMessage>>, Error> {
        let mut list = Vec::new();
        let mut interrupted = false;
        self.send(question, NLM_F_DUMP)?;
        loop {
            for message in self.receive()? {
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => list.push(inner),
                    NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(list)),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(Error::Refused {
                            action: "list what there is".to_owned(),
                            source: error.to_io(),
                        });
                    }
                    _ => {}
                }
            }
        }
    }
}

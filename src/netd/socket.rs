// SPDX-License-Identifier: MIT OR Apache-2.0
//! The connection to the bus, on which nobody can send more than the service has room for.
//!
//! The bus lets messages of 32 MiB through (`max_message_size`), and each is in memory several times before anybody has
//! looked at it. Nothing that the service is asked or told has more than [`LIMIT`]: of what is longer only the header is
//! taken in, and the call is answered as one whose arguments are missing.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use zbus::address::Transport;
use zbus::address::transport::UnixSocket;
use zbus::connection::Builder;
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::export::async_trait::async_trait;
use zbus::{Address, Connection, Message};

/// The longest message, in bytes.
const LIMIT: usize = 64 << 10;
/// The part of a header that is always there; it says how long the rest is.
const FIXED: usize = 16;
/// Where it says how long the body is.
const BODY_LENGTH: std::ops::Range<usize> = 4..8;

/// Connects with the system bus.
pub async fn connect() -> zbus::Result<Connection> {
    let address = Address::system()?;
    let Transport::Unix(unix) = address.transport() else {
        return Err(zbus::Error::Unsupported);
    };
    let UnixSocket::File(path) = unix.path() else {
        return Err(zbus::Error::Unsupported);
    };
    let stream = UnixStream::connect(path).await?;
    Builder::socket(Stream(stream)).build().await
}

#[derive(Debug)]
struct Stream(UnixStream);

impl Socket for Stream {
    type ReadHalf = Limited;
    type WriteHalf = Writer;

    fn split(self) -> Split<Limited, Writer> {
        let (read, write) = self.0.into_split();
        Split::new(Limited(Reader(read)), Writer(write))
    }
}

/// Reads what is not too long.
#[derive(Debug)]
struct Limited(Reader);

impl Limited {
    /// Reads until there are that many bytes, and none after them.
    async fn fill(&mut self, bytes: &mut Vec<u8>, length: usize) -> io::Result<()> {
        let mut there = bytes.len();
        if there >= length {
            return Ok(());
        }
        bytes.resize(length, 0);
        while there < length {
            there += self.0.read(&mut bytes[there..]).await?;
        }
        Ok(())
    }

    /// Forgets that many bytes from `from` on; what is not there yet is read first.
    async fn skip(&mut self, bytes: &mut Vec<u8>, from: usize, length: usize) -> io::Result<()> {
        let there = length.min(bytes.len() - from);
        bytes.drain(from..from + there);
        let mut left = length - there;
        let mut nowhere = [0; 4096];
        while left > 0 {
            let most = left.min(nowhere.len());
            left -= self.0.read(&mut nowhere[..most]).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl ReadHalf for Limited {
    async fn receive_message(
        &mut self,
        seq: u64,
        bytes: &mut Vec<u8>,
        fds: &mut Vec<OwnedFd>,
    ) -> zbus::Result<Message> {
        loop {
            self.fill(bytes, FIXED).await?;
            let (header, body) = lengths(bytes);
            if header > LIMIT {
                // Not even who is to be answered can be read.
                tracing::debug!("a message with a header of {header} bytes is not read");
                self.skip(bytes, 0, header + body).await?;
                continue;
            }
            if header + body > LIMIT {
                tracing::debug!("a message of {} bytes is not read", header + body);
                self.fill(bytes, header).await?;
                self.skip(bytes, header, body).await?;
                bytes[BODY_LENGTH].fill(0);
            }
            return self.0.receive_message(seq, bytes, fds).await;
        }
    }

    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        self.0.recvmsg(buffer).await
    }
}

/// How long header and body of a message are that begins like this (D-Bus Specification, "Message Format").
fn lengths(fixed: &[u8]) -> (usize, usize) {
    let number = |at: usize| {
        let bytes = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
        let number = match fixed[0] {
            b'B' => u32::from_be_bytes(bytes),
            _ => u32::from_le_bytes(bytes),
        };
        number as usize
    };
    ((FIXED + number(12)).next_multiple_of(8), number(BODY_LENGTH.start))
}

#[derive(Debug)]
struct Reader(OwnedReadHalf);

impl Reader {
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.0.readable().await?;
            match self.0.try_read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }
}

#[async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        // No files come: neither half says that it can pass them on.
        self.read(buffer).await.map(|length| (length, Vec::new()))
    }
}

#[derive(Debug)]
struct Writer(OwnedWriteHalf);

#[async_trait]
impl WriteHalf for Writer {
    async fn sendmsg(&mut self, buffer: &[u8], _fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        loop {
            self.0.writable().await?;
            match self.0.try_write(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        let socket: &UnixStream = self.0.as_ref();
        nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(socket),
            nix::sys::socket::Shutdown::Both,
        )?;
        Ok(())
    }
}

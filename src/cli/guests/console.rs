// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm console`: the console of a guest that runs.

use std::fs;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{FlushArg, tcflush};
use nix::unistd::geteuid;

use super::lifecycle::{system, unknown};
use super::logs::become_it;
use crate::base::error::Exit;
use crate::cli::terminal::keyboard::Keyboard;
use crate::cli::{Error, guest_name, host_or_defaults};
use crate::config::guests;
use crate::config::places::Given;
use crate::config::types::GuestName;
use crate::file::lock::Attempt;
use crate::guest::domain::{self, Presence};
use crate::guest::{self, toolstack};
use crate::recording::session::Keys;
use crate::xenstore::{self, XenStore};

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The guest
    #[arg(value_parser = guest_name)]
    guest: GuestName,
}

pub(in crate::cli) fn run(given: &Given, arguments: &Arguments) -> Result<Exit, Error> {
    let places = system(given, "console")?;
    let name = &arguments.guest;
    let guest = guests::load(&places, &host_or_defaults(&places), name).map_err(|error| unknown(error, name))?;
    if !geteuid().is_root() {
        return Err(Error::RootOnly(format!("console {name}")));
    }
    let Some(program) = toolstack::console(guest.toolstack) else {
        return join(name, places.state_dir());
    };
    if !xenstore::is_here() {
        return Err(Error::NotRunning(name.clone()));
    }
    let domains = domain::list(&mut XenStore::connect()?)?;
    // By its number: a domain of the same name may be somebody else's.
    match domain::presence(&domains, name, guest.uuid) {
        Presence::Own(domain) => become_it(program.path(), &["console".to_owned(), domain.domid.to_string()]),
        Presence::Absent | Presence::Foreign(_) => Err(Error::NotRunning(name.clone())),
    }
}

/// Joins the console of an emulated guest, at the socket of its unit, until its end or Ctrl-].
fn join(name: &GuestName, state: &Path) -> Result<Exit, Error> {
    // Before a key is read: what is typed while somebody else is there is not for the guest.
    let _turn = match guest::claim_console(name)? {
        Attempt::Taken(turn) => turn,
        Attempt::Busy(waiting) => {
            eprintln!("ttvm: {name}: somebody is at the console; this waits");
            let turn = waiting.take()?;
            // What was typed meanwhile is for nobody.
            if io::stdin().is_terminal() {
                let _ = tcflush(io::stdin(), FlushArg::TCIFLUSH);
            }
            turn
        }
    };
    let path = guest::console_socket(name);
    let is_claimed = || guest::is_claimed(&guest::locks(state), name);
    let mut console = UnixStream::connect(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused if is_claimed() => Error::NoConsole(name.clone()),
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Error::NotRunning(name.clone()),
        _ => error.into(),
    })?;
    let file = || fs::symlink_metadata(&path).map(|data| data.ino()).ok();
    let joined = file();
    match talk(name, &mut console)? {
        // A run that ends removes the socket, and the next one makes another.
        End::Closed if joined.is_some() && file() == joined && is_claimed() => Err(Error::SlowReader),
        End::Closed | End::Left => Ok(Exit::Done),
    }
}

/// Why nobody is at a console any more.
enum End {
    /// The other side has closed it.
    Closed,
    /// Ctrl-].
    Left,
}

/// Types what is typed, and prints what is printed.
fn talk(name: &GuestName, console: &mut UnixStream) -> Result<End, Error> {
    // Who waits until the guest takes what is typed does not read what it prints.
    console.set_nonblocking(true)?;
    let mut keyboard = Keyboard::open();
    if keyboard.is_some() {
        eprint!("ttvm: {name}: Ctrl-] leaves the console\r\n");
    }
    // Without a terminal all of the standard input is typed, and the console goes on.
    let mut typed = keyboard.is_none() && !io::stdin().is_terminal();
    let mut keys = Vec::new();
    loop {
        let stdin = io::stdin();
        let events = match keys.is_empty() {
            true => PollFlags::POLLIN,
            false => PollFlags::POLLIN | PollFlags::POLLOUT,
        };
        let mut fds = vec![PollFd::new(console.as_fd(), events)];
        // On a terminal always: Ctrl-] leaves a guest that takes nothing, too.
        if keyboard.is_some() || typed && keys.is_empty() {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
        let [speaks, types] = [0, 1].map(|at| fds.get(at).is_some_and(|fd| fd.any().unwrap_or_default()));
        if speaks {
            let mut text = [0; 4096];
            match console.read(&mut text) {
                // It is reset if it was closed before it had taken all that was typed.
                Ok(0) => return Ok(End::Closed),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(End::Closed),
                Ok(length) => {
                    let mut out = io::stdout().lock();
                    out.write_all(&text[..length])?;
                    out.flush()?;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if types {
            match &mut keyboard {
                Some(keyboard) => match keyboard.read()? {
                    Some(more) => keys.extend(more),
                    None => return Ok(End::Left),
                },
                None => {
                    let mut more = [0; 256];
                    let length = nix::unistd::read(&stdin, &mut more).map_err(io::Error::from)?;
                    keys.extend(&more[..length]);
                    typed = length > 0;
                }
            }
        }
        if keys.is_empty() {
            continue;
        }
        match console.write(&keys) {
            Ok(length) => drop(keys.drain(..length)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // The guest has ended: what it printed last is still to be read.
            Err(_) => {
                keys.clear();
                typed = false;
            }
        }
    }
}

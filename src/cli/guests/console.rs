// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm console`: the console of a guest that runs.

use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;

use super::lifecycle::{system, unknown};
use super::logs::become_it;
use crate::base::error::Exit;
use crate::cli::terminal::keyboard::Keyboard;
use crate::cli::{Error, guest_name, host_or_defaults};
use crate::config::guests;
use crate::config::places::Given;
use crate::config::types::GuestName;
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
    let mut console = UnixStream::connect(guest::console_socket(name)).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused if guest::is_claimed(&guest::locks(state), name) => {
            Error::NoConsole(name.clone())
        }
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Error::NotRunning(name.clone()),
        _ => error.into(),
    })?;
    let mut keyboard = Keyboard::open();
    if keyboard.is_some() {
        eprint!("ttvm: {name}: Ctrl-] leaves the console\r\n");
    }
    // Without a terminal all of the standard input is typed, and the console goes on.
    let mut typed = keyboard.is_none() && !io::stdin().is_terminal();
    loop {
        let stdin = io::stdin();
        let mut fds = vec![PollFd::new(console.as_fd(), PollFlags::POLLIN)];
        if typed || keyboard.is_some() {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
        let [prints, types] = [0, 1].map(|at| fds.get(at).is_some_and(|fd| fd.any().unwrap_or_default()));
        if prints {
            let mut text = [0; 4096];
            let length = console.read(&mut text)?;
            if length == 0 {
                return Ok(Exit::Done);
            }
            let mut out = io::stdout().lock();
            out.write_all(&text[..length])?;
            out.flush()?;
        }
        if !types {
            continue;
        }
        let keys = match &mut keyboard {
            Some(keyboard) => match keyboard.read()? {
                Some(keys) => keys,
                None => return Ok(Exit::Done),
            },
            None => {
                let mut keys = vec![0; 256];
                let length = nix::unistd::read(io::stdin(), &mut keys).map_err(io::Error::from)?;
                keys.truncate(length);
                typed = length > 0;
                keys
            }
        };
        // The guest has ended: what it printed last is still to be read.
        if console.write_all(&keys).is_err() {
            typed = false;
        }
    }
}

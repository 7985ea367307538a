// SPDX-License-Identifier: MIT OR Apache-2.0
//! A password that somebody types and nobody sees.

use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use crate::base::signals;
use crate::cli::Error;
use crate::initrd::busybox::{NoPassword, Password};

/// Asks for a password, twice; if the standard input is no terminal, its first line is the password.
pub(in crate::cli) fn ask() -> Result<Password, Error> {
    if !io::stdin().is_terminal() {
        return parsed(&line()?);
    }
    let first = hidden("Password for root: ")?;
    match hidden("The same again: ")? == first {
        true => parsed(&first),
        false => Err(Error::Usage("these are two passwords: try again".to_owned())),
    }
}

fn parsed(text: &str) -> Result<Password, Error> {
    text.parse()
        .map_err(|error: NoPassword| Error::Usage(error.to_string()))
}

/// The next line, without its end.
pub(in crate::cli) fn line() -> Result<String, Error> {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.map_err(|error| Error::Usage(format!("there is no password on the standard input: {error}")))?;
    Ok(line.trim_end_matches('\n').to_owned())
}

/// A line that the terminal does not show. A signal to end waits until it shows what is typed again.
fn hidden(question: &str) -> Result<String, Error> {
    let _waiting = signals::defer();
    eprint!("{question}");
    io::stderr().flush()?;
    let stdin = io::stdin();
    let before = tcgetattr(&stdin).map_err(io::Error::from)?;
    let mut quiet = before.clone();
    quiet.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &quiet).map_err(io::Error::from)?;
    let arrived = arrived();
    let read = arrived.and_then(|()| line());
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &before).map_err(io::Error::from)?;
    eprintln!();
    read
}

/// Waits for a line, or for a signal to end.
fn arrived() -> Result<(), Error> {
    let (stdin, signal) = (io::stdin(), signals::arrival()?);
    let mut both = [
        PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
        PollFd::new(signal.as_fd(), PollFlags::POLLIN),
    ];
    match poll(&mut both, PollTimeout::NONE) {
        Ok(_) if both[1].any() != Some(true) => Ok(()),
        _ => Err(Error::Usage("there is no password: nothing was done".to_owned())),
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The terminal as a guest's keyboard: each key goes to the guest at once, Ctrl-C as well, and Ctrl-] is ours.

use std::io::{self, IsTerminal, Stdin};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::guard::Guard;
use crate::recording::session::Keys;

/// Ctrl-], which ends `xl console` and telnet as well.
const END: u8 = 0x1d;

/// A terminal that hands over each key as it is pressed, and shows none, as long as this lives.
pub(in crate::cli) struct Raw {
    stdin: Stdin,
    before: Termios,
    _guard: Option<Guard>,
}

impl Raw {
    /// `None` if there is no terminal to type on. `screen` brings back the screen, should we be killed.
    pub(in crate::cli) fn begin(screen: &'static str) -> Option<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() || !io::stdout().is_terminal() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        let guard = Guard::begin(screen, Some(before.clone()));
        tcsetattr(&stdin, SetArg::TCSADRAIN, &raw).ok()?;
        Some(Self {
            stdin,
            before,
            _guard: guard,
        })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.stdin, SetArg::TCSADRAIN, &self.before);
    }
}

/// A terminal that is a guest's keyboard as long as this lives.
pub(in crate::cli) struct Keyboard(Raw);

impl Keyboard {
    /// `None` if there is no terminal to type on.
    pub(in crate::cli) fn open() -> Option<Self> {
        Raw::begin("").map(Self)
    }
}

impl Keys for Keyboard {
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut keys = vec![0; 256];
        // Not through a buffer: what would stay there nobody polls for.
        let length = nix::unistd::read(&self.0.stdin, &mut keys)?;
        keys.truncate(length);
        Ok((length > 0 && !keys.contains(&END)).then_some(keys))
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.stdin.as_fd()
    }
}

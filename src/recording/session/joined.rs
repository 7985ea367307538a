// SPDX-License-Identifier: MIT OR Apache-2.0
//! The console of a guest that runs in a unit, for whoever joins it (`ttvm console`): a socket that is root's alone. One sits at it
//! at a time, and who comes next waits; who comes sees the last of what was printed before.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use super::Keys;
use crate::config::types::GuestName;
use crate::guest;

/// So much of what was printed is kept, in bytes: a screen of it.
const KEPT: usize = 4096;

/// A console that can be joined as long as this lives.
pub(in crate::recording) struct Joined {
    listener: UnixListener,
    path: PathBuf,
    who: Option<UnixStream>,
    last: VecDeque<u8>,
}

impl Joined {
    /// `None` if it cannot be: the run does not suffer.
    pub(in crate::recording) fn open(guest: &GuestName) -> Option<Self> {
        let path = guest::console_socket(guest);
        match listen(&path) {
            Ok(listener) => Some(Self {
                listener,
                path,
                who: None,
                last: VecDeque::new(),
            }),
            Err(error) => {
                tracing::warn!(ttvm_guest = %guest, "nobody can join the console: {}: {error}", path.display());
                None
            }
        }
    }

    fn greet(&mut self) -> io::Result<()> {
        let (mut who, _) = self.listener.accept()?;
        who.set_nonblocking(true)?;
        who.write_all(self.last.make_contiguous())?;
        self.who = Some(who);
        Ok(())
    }
}

/// Listens at `path`, where an earlier run that was killed may have listened. From its beginning nobody else can connect: that takes
/// the right to write to it (unix(7)).
fn listen(path: &PathBuf) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Keys for Joined {
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut keys = vec![0; 256];
        let length = match &mut self.who {
            // Whoever came may be gone already.
            None => self.greet().map(|()| 0).or(Ok(0)),
            Some(who) => match who.read(&mut keys) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
                Ok(0) | Err(_) => {
                    self.who = None;
                    Ok(0)
                }
                read => read,
            },
        }?;
        keys.truncate(length);
        Ok(Some(keys))
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.who {
            Some(who) => who.as_fd(),
            None => self.listener.as_fd(),
        }
    }

    fn show(&mut self, text: &[u8]) {
        self.last.extend(text);
        self.last.drain(..self.last.len().saturating_sub(KEPT));
        // Who does not read does not hold up the guest.
        if self.who.as_mut().is_some_and(|who| who.write_all(text).is_err()) {
            self.who = None;
        }
    }

    fn end(&mut self) {
        // First, so that who finds the socket as it was knows that the guest goes on.
        drop(fs::remove_file(&self.path));
        self.who = None;
        // Who came just now sees the end.
        while self.greet().is_ok() {}
        self.who = None;
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_seen_by_who_is_there() {
        let path = std::env::temp_dir().join(format!("ttvm-joined-{}", std::process::id()));
        let mut joined = Joined {
            listener: listen(&path).expect("a socket"),
            path: path.clone(),
            who: None,
            last: VecDeque::new(),
        };
        let come = || UnixStream::connect(&path).expect("a console");
        let read = |mut who: UnixStream| {
            let mut text = String::new();
            who.read_to_string(&mut text).map(|_| text).expect("what was printed")
        };
        joined.show(b"begins ");
        let first = come();
        assert_eq!(joined.read().expect("nobody has typed"), Some(Vec::new()));
        joined.show(b"ends");
        let second = come();
        joined.end();
        assert_eq!([read(first), read(second)], ["begins ends", "begins ends"]);
        assert!(!path.exists());
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Somebody who sits at a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::pty::openpty;

/// Runs a command on a terminal, on which somebody answers each text with a line, nothing with one at once, and returns what was on it.
pub fn typed(mut command: Command, answers: &[(&str, &str)]) -> String {
    let terminal = openpty(None, None).expect("a terminal");
    let end = |fd: &std::os::fd::OwnedFd| fd.try_clone().expect("a terminal");
    command.stdin(end(&terminal.slave)).stdout(end(&terminal.slave));
    let mut child = command.spawn().expect("the program");
    drop((command, terminal.slave));
    let mut master = File::from(terminal.master);
    let (mut said, mut from, mut answers) = (String::new(), 0, answers.iter());
    let mut next = answers.next();
    while let Some(("", line)) = next {
        master.write_all(format!("{line}\n").as_bytes()).expect("a line");
        next = answers.next();
    }
    let mut piece = [0; 4096];
    // The last one that has the terminal is gone: an error.
    while let Ok(length @ 1..) = master.read(&mut piece) {
        said += &String::from_utf8_lossy(&piece[..length]);
        if let Some((text, line)) = next
            && let Some(at) = said[from..].find(text)
        {
            from += at + text.len();
            // What is typed while a password is asked for is thrown away, and nothing tells when that is over.
            sleep(Duration::from_secs(1));
            master.write_all(format!("{line}\n").as_bytes()).expect("a line");
            next = answers.next();
        }
    }
    assert!(child.wait().expect("its end").success(), "{said}");
    said
}

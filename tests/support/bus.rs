// SPDX-License-Identifier: MIT OR Apache-2.0
//! A message bus that is no system's.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A message bus for one test; it ends with it.
pub struct Bus {
    daemon: Child,
    /// As D-Bus writes addresses.
    pub address: String,
}

impl Bus {
    /// A bus; `name` is this test's alone.
    pub fn start(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let config = directory.join(format!("bus-{name}.conf"));
        let text = format!(
            "<busconfig><listen>unix:tmpdir={}</listen><policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/>\
             <allow send_destination=\"*\"/><allow receive_sender=\"*\"/></policy></busconfig>",
            directory.display()
        );
        std::fs::write(&config, text).expect("the bus's configuration");
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon, of the package dbus-daemon");
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().expect("its output"))
            .read_line(&mut address)
            .expect("its address");
        Self {
            daemon,
            address: address.trim().to_owned(),
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest is there to do: a script that it runs once, and then powers itself off.

use super::Identity;
use crate::image::create::edits::{Edit, Edits};

/// The script, what starts it, and the unit of that.
const SCRIPT: &str = "etc/ttvm/run";
const START: &str = "etc/ttvm/start";
const UNIT: &str = "etc/systemd/system/ttvm-run.service";
const WANTED: &str = "etc/systemd/system/multi-user.target.wants/ttvm-run.service";

/// It prints to /dev/console, which is not hung up with the terminal behind it when a login begins there (vhangup(2)); and no login
/// begins before it has ended. Whatever comes of it, the guest powers off.
const TEXT: &str = "# Written by `ttvm guest new`.\n\
    [Unit]\nDescription=What this guest is there to run\nWants=network-online.target\nAfter=network-online.target\n\
    Before=getty.target serial-getty@ttyS0.service serial-getty@hvc0.service\n\
    SuccessAction=poweroff\nFailureAction=poweroff\n\n\
    [Service]\nType=oneshot\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/console\nTimeoutStartSec=infinity\n\
    ExecStart=/bin/sh /etc/ttvm/start\n";

impl Identity<'_> {
    pub(super) fn work(&self, edits: &mut Edits) {
        if let Some(script) = self.script {
            let (content, permissions) = (script.to_vec(), 0o755);
            edits.add(SCRIPT, Edit::File { content, permissions });
            edits.file(START, include_str!("start-work"));
            edits.file(UNIT, TEXT);
            edits.add(WANTED, Edit::Symlink("/etc/systemd/system/ttvm-run.service"));
        }
    }
}

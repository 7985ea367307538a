// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host keys of SSH: that the guest makes its own.

use super::{Identity, Keep};
use crate::image::create::edits::{Edit, Edits};

/// Makes those that are missing (ssh-keygen(1)).
pub(super) const MAKE_KEYS: &str = "/usr/bin/ssh-keygen -A";

/// Debian makes keys only when the package is installed. `ssh.socket` is not among what waits: sockets come before all that this
/// service itself waits for, so that systemd would leave some of them out. What the socket starts does wait.
const SERVICE: &str = "# Written by `ttvm image create`: the keys of the host are not those of the guest.\n\
    [Unit]\nDescription=Host keys of SSH\nBefore=ssh.service sshd.service\n\
    ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key\n\n\
    [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/ssh-keygen -A\n\n\
    [Install]\nWantedBy=multi-user.target\n";

impl Identity<'_> {
    pub(super) fn has_ssh(&self) -> bool {
        self.found.has("usr/sbin/sshd") && self.found.has("usr/bin/ssh-keygen")
    }

    /// What makes new keys, if they are gone and nothing that is known here does it.
    pub(in crate::image::create) fn lacks_keys(&self) -> Option<&'static str> {
        let makes = self.has_systemd() || (self.has_ssh() && self.found.text("etc/inittab").is_some());
        if !self.changes(Keep::SshKeys) {
            None
        } else if self.found.has("usr/sbin/sshd") && !makes {
            Some("ssh-keygen -A")
        } else if self.found.has("usr/sbin/dropbear") {
            Some("dropbear -R")
        } else {
            None
        }
    }

    pub(super) fn ssh_keys(&self, edits: &mut Edits) {
        let makes_keys = self.found.has("usr/lib/systemd/system/sshd-keygen.target");
        if self.has_ssh() && !makes_keys && self.has_systemd() {
            edits.file("etc/systemd/system/ttvm-ssh-keys.service", SERVICE);
            let link = "etc/systemd/system/multi-user.target.wants/ttvm-ssh-keys.service";
            edits.add(link, Edit::Symlink("/etc/systemd/system/ttvm-ssh-keys.service"));
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The terminals of a guest, which are Xen's and an emulated machine's.

use super::Identity;
use crate::image::create::edits::{Edit, Edits};

impl Identity<'_> {
    /// systemd offers a login on the kernel's console by itself, Xen's (hvc0) and an emulated machine's (ttyS0), unless
    /// somebody forbade it. A service for a terminal that is not there would be waited for at each boot.
    pub(super) fn console(&self, edits: &mut Edits) {
        // The kernel opens the console for the first process. Where nothing has mounted devtmpfs by then (Debian's kernel does not
        // by itself, and an initial RAM disk without udev neither), it is this one; in a host that runs, it is out of sight.
        for (path, device, permissions) in [("dev/console", (5, 1), 0o600), ("dev/null", (1, 3), 0o666)] {
            edits.add(path, Edit::Device { device, permissions });
        }
        for unit in [
            "etc/systemd/system/serial-getty@.service",
            "etc/systemd/system/serial-getty@hvc0.service",
            "etc/systemd/system/serial-getty@ttyS0.service",
            "etc/systemd/system/getty.target",
        ] {
            // A link, or empty: masked (systemd.unit(5)).
            if self.found.has(unit) && self.found.content(unit).is_none_or(<[u8]>::is_empty) {
                edits.add(unit, Edit::Nothing);
            }
        }
        if let Some(terminals) = self.found.text("etc/securetty") {
            let missing = ["hvc0", "ttyS0"]
                .into_iter()
                .filter(|name| !terminals.lines().any(|line| line == *name));
            let missing: String = missing.map(|name| format!("{name}\n")).collect();
            edits.file("etc/securetty", format!("{}\n{missing}", terminals.trim_end()));
        }
    }

    /// What opens a terminal for a login; those that there are take the same.
    pub(super) fn getty(&self) -> &'static str {
        let known = [
            ("sbin/getty", "/sbin/getty"),
            ("usr/sbin/getty", "/usr/sbin/getty"),
            ("sbin/agetty", "/sbin/agetty"),
            ("usr/sbin/agetty", "/usr/sbin/agetty"),
        ];
        let found = known.into_iter().find(|(path, _)| self.found.has(path));
        found.map_or("/sbin/getty", |(_, program)| program)
    }
}

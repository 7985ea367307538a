// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file of a guest for TT Xen's xm: Python 2, which xm executes. What is written here is the same in Python 3.

use std::path::Path;

use crate::config::guest::{Boot, Disk, DiskSource, Guest};
use crate::guest::mode::GuestNetwork;
use crate::guest::toolstack::xl_config::{File, value, vif};

/// The file's text, with the network mode that is in force; the guest is described by `path`.
pub fn render(guest: &Guest, path: &Path, network: &GuestNetwork) -> String {
    // Python 2 takes nothing but ASCII unless one of the first two lines names the encoding. xm takes only byte strings (no
    // `u"…"`), and hands their bytes on as they are.
    let mut file = File(format!(
        "# -*- coding: utf-8 -*-\n# Written by ttvm from {}; what is changed here is lost at the next start.\n",
        path.display()
    ));
    let memory = guest.memory.bytes() >> 20;
    file.text("name", guest.name.as_str());
    file.text("uuid", &guest.uuid.to_string());
    file.number("memory", memory);
    file.number("vcpus", u64::from(guest.vcpus));
    // The configuration lets nothing else through (config::guest::toolstack).
    if let Boot::Kernel {
        kernel,
        initrd,
        cmdline,
    } = &guest.boot
    {
        file.text("kernel", &kernel.to_string_lossy());
        if let Some(initrd) = initrd {
            file.text("ramdisk", &initrd.to_string_lossy());
        }
        let (root, extra) = split(cmdline.as_deref().unwrap_or_default());
        if let Some(root) = root {
            file.text("root", root);
        }
        if !extra.is_empty() {
            file.text("extra", extra);
        }
    }
    file.list("disk", guest.disks.iter().map(disk));
    let vifs = guest.vifs.iter().map(|it| {
        // vif-nat gives the guest's end of the wire from it, where there is no DHCP.
        let address = it.address.map(|address| address.to_string());
        vif(it, it.ip.as_deref().or(address.as_deref()), network)
    });
    file.list("vif", vifs);
    // xm knows these three. Whoever started the run decides what follows a shutdown, not xend.
    for event in ["on_poweroff", "on_reboot", "on_crash"] {
        file.text(event, "destroy");
    }
    // What a run is comes on xm's command line; the option has to be there.
    file.list("time_travel", Vec::<String>::new());
    // The guest must see the same pages in the original run and in each replay: shadow paging gives it memory of its own.
    file.text("features", "auto_translated_physmap");
    file.number("shadow_memory", shadow_memory(memory));
    for (key, setting) in &guest.xm {
        file.line(key, &value(setting));
    }
    file.0
}

/// The memory for shadow page tables, in MiB, of a guest with `memory` MiB: a page for each MiB and 128 more, of 256 to the MiB,
/// rounded up.
pub(crate) fn shadow_memory(memory: u64) -> u64 {
    (memory + 128).div_ceil(256)
}

/// A kernel's command line as xend puts it together again: "root=", `root`, a space and `extra`. Where the line does not
/// begin with root=, all of it is `extra`.
fn split(cmdline: &str) -> (Option<&str>, &str) {
    let Some(line) = cmdline.strip_prefix("root=") else {
        return (None, cmdline);
    };
    match line.split_once(' ').unwrap_or((line, "")) {
        // xm takes an empty one for none.
        ("", _) => (None, cmdline),
        (root, extra) => (Some(root), extra),
    }
}

/// A disk: three fields, and those that TT Xen has kept from the project before it.
fn disk(disk: &Disk) -> String {
    let (target, writable) = match &disk.source {
        DiskSource::Snapshot(snapshot) => (snapshot.volume.device(), true),
        // No file asks for it (config::guest::toolstack); an origin is never written, whoever asks.
        DiskSource::Overlay(origin) => (origin.path().to_string_lossy().into_owned(), false),
        DiskSource::Path { path, writable, .. } => (path.to_string_lossy().into_owned(), *writable),
    };
    let kind = if target.starts_with("/dev/") { "phy" } else { "file" };
    let access = if writable { "w" } else { "r" };
    let mut fields = format!("{kind}:{target},{},{access}", disk.target);
    if let Some(parameters) = &disk.xm {
        fields.push(',');
        fields.push_str(parameters);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shadow_pages() {
        // As XenTT's file had it, in Python 2, which rounds down: shadow_memory = ((memory + 128 + 255) / 256)
        for (memory, shadow) in [
            (64, 1),
            (96, 1),
            (128, 1),
            (129, 2),
            (256, 2),
            (384, 2),
            (385, 3),
            (1024, 5),
        ] {
            assert_eq!(shadow_memory(memory), shadow, "{memory}");
        }
    }

    #[test]
    fn command_lines() {
        assert_eq!(split("root=/dev/xvda1 ro  quiet"), (Some("/dev/xvda1"), "ro  quiet"));
        assert_eq!(split("root=/dev/xvda1"), (Some("/dev/xvda1"), ""));
        assert_eq!(split("root= ro"), (None, "root= ro"));
        assert_eq!(split("ro root=/dev/xvda1"), (None, "ro root=/dev/xvda1"));
        assert_eq!(split(""), (None, ""));
    }
}

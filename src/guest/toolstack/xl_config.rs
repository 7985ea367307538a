// SPDX-License-Identifier: MIT OR Apache-2.0
//! The xl.cfg(5) of a guest, in the strict part of its grammar: lower-case keys, quoted strings, whole numbers,
//! lists on one line, and of the escapes only `\"` and `\\` (numeric ones are broken in xl's parser).

use std::fmt::Write;
use std::path::Path;

use crate::config::guest::{Boot, Disk, DiskSource, Guest, Vif, XlValue};
use crate::guest::mode::GuestNetwork;

/// The file's text, with the network mode that is in force; the guest is described by `path`.
pub fn render(guest: &Guest, path: &Path, network: &GuestNetwork) -> String {
    let mut file = File(String::new());
    file.0.push_str(&format!(
        "# Written by ttvm from {}; what is changed here is lost at the next start.\n",
        path.display()
    ));
    file.text("name", guest.name.as_str());
    file.text("uuid", &guest.uuid.to_string());
    file.text("type", guest.kind.as_str());
    file.number("memory", guest.memory.bytes() >> 20);
    file.number("vcpus", u64::from(guest.vcpus));
    match &guest.boot {
        Boot::Kernel {
            kernel,
            initrd,
            cmdline,
        } => {
            file.text("kernel", &kernel.to_string_lossy());
            if let Some(initrd) = initrd {
                file.text("ramdisk", &initrd.to_string_lossy());
            }
            if let Some(cmdline) = cmdline {
                file.text("cmdline", cmdline);
            }
        }
        Boot::Bootloader { program, args } => {
            file.text("bootloader", program);
            if !args.is_empty() {
                file.list("bootloader_args", args.clone());
            }
        }
        Boot::Firmware => {}
    }
    file.list("disk", guest.disks.iter().map(disk));
    file.list("vif", guest.vifs.iter().map(|it| vif(it, it.ip.as_deref(), network)));
    // The supervisor decides what follows a shutdown. Left to xl, "restart" would bring the guest back behind
    // systemd's back, on the disk of the run before.
    for event in ["on_poweroff", "on_reboot", "on_crash", "on_watchdog", "on_soft_reset"] {
        file.text(event, "destroy");
    }
    for (key, value) in &guest.xl {
        file.line(key, &self::value(value));
    }
    file.0
}

/// A value as xl.cfg(5) spells it.
pub fn value(value: &XlValue) -> String {
    match value {
        XlValue::Text(text) => quote(text),
        XlValue::Number(number) => number.to_string(),
        XlValue::List(items) => list(items.iter()),
    }
}

/// xl-disk-configuration(5); `target=` takes the rest of the line, so it comes last.
fn disk(disk: &Disk) -> String {
    let (format, access, target) = match &disk.source {
        DiskSource::Snapshot(snapshot) => ("raw", "rw", snapshot.volume.device()),
        // No file asks for it (config::guest::toolstack); an origin is never written, whoever asks.
        DiskSource::Overlay(origin) => ("raw", "ro", origin.path().to_string_lossy().into_owned()),
        DiskSource::Path { path, format, writable } => {
            let access = if *writable { "rw" } else { "ro" };
            (format.as_str(), access, path.to_string_lossy().into_owned())
        }
    };
    format!("format={format},vdev={},access={access},target={target}", disk.target)
}

/// xl-network-configuration(5), of which xm's syntax is a part; `ip` is what the hotplug script is told.
pub(in crate::guest) fn vif(vif: &Vif, ip: Option<&str>, network: &GuestNetwork) -> String {
    let mut line = format!("mac={}", vif.mac);
    let bridge = vif.bridge.as_ref().map(|name| name.as_str());
    let bridge = bridge.or(network.bridge.as_ref().map(|name| name.as_str()));
    let settings = [
        ("bridge", bridge),
        ("ip", ip),
        ("script", vif.script.as_deref()),
        ("vifname", vif.vifname.as_ref().map(|name| name.as_str())),
        ("model", vif.model.as_deref()),
        ("rate", vif.rate.as_deref()),
    ];
    for (key, value) in settings {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = write!(line, ",{key}={value}");
        }
    }
    line
}

/// A file of assignments. This part of xl.cfg(5)'s grammar is Python's as well, for values without control characters: the
/// configuration has none.
pub(in crate::guest) struct File(pub(in crate::guest) String);

impl File {
    pub(in crate::guest) fn line(&mut self, key: &str, value: &str) {
        self.0.push_str(&format!("{key} = {value}\n"));
    }

    pub(in crate::guest) fn text(&mut self, key: &str, text: &str) {
        self.line(key, &quote(text));
    }

    pub(in crate::guest) fn number(&mut self, key: &str, number: u64) {
        self.line(key, &number.to_string());
    }

    pub(in crate::guest) fn list(&mut self, key: &str, items: impl IntoIterator<Item = String>) {
        self.line(key, &list(items));
    }
}

fn list(items: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| quote(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

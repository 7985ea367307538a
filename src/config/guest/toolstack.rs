// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest's toolstack cannot do or does badly, and `[qemu]`.

use toml::de::DeValue;

use super::{Boot, Disk, DiskFormat, DiskSource, Guest, GuestType, QemuConfig, Shift, Toolstack};
use crate::config::host::set;
use crate::config::reader::{FromToml, Table};
use crate::config::types::Size;

impl Default for QemuConfig {
    fn default() -> Self {
        Self {
            machine: None,
            // 8 ns for an instruction: a fixed value replays faster and costs nothing (see README, figures), and this one leaves an
            // emulated machine's clock near the host's.
            icount: Shift::Fixed(3),
        }
    }
}

impl QemuConfig {
    /// Reads `[qemu]`.
    pub(super) fn read(table: &Table<'_>) -> Self {
        let mut config = Self::default();
        if let Some(machine) = table.get::<String>("machine") {
            // pc-i440fx-7.2: what QEMU calls "pc" is another machine with each version.
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            let versioned = machine.value.rsplit('-').next().is_some_and(|last| last.contains('.'));
            if !machine.value.chars().all(allowed) || !versioned {
                table.problem(
                    &machine.span,
                    format!("machine: {:?} is not a versioned machine type such as \"pc-i440fx-7.2\" (see `qemu-system-x86_64 -machine help`)", machine.value),
                );
            }
            config.machine = Some(machine.value);
        }
        set(&mut config.icount, table.value("icount"));
        table.finish();
        config
    }
}

impl FromToml for Shift {
    const EXPECTED: &'static str = "\"auto\" or a number from 0 to 10";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let text = match value.as_str() {
            Some(text) => text.to_owned(),
            None => i64::from_toml(value)?.to_string(),
        };
        text.parse().map_err(|_| format!("expected {}", Self::EXPECTED))
    }
}

/// Notes in `table` what does not go together with the guest's toolstack.
pub(super) fn check(guest: &Guest, table: &Table<'_>) {
    let name = guest.toolstack.as_str();
    let refuse = |key: &'static str, why: &str| {
        if table.has(key) {
            table.problem(&table.span_of(key), format!("{key}: {why}"));
        }
    };
    let whole = |why: &str| table.problem(table.span(), why.to_owned());
    if guest.toolstack != Toolstack::Xm {
        refuse("xm", &format!("this is not for toolstack \"{name}\""));
        for disk in guest.disks.iter().filter(|disk| disk.xm.is_some()) {
            whole(&format!(
                "disk {}: xm: this is not for toolstack \"{name}\"",
                disk.target
            ));
        }
    }
    if guest.toolstack != Toolstack::Xl && guest.vcpus != 1 {
        refuse("vcpus", "what is recorded has one processor");
    }
    match guest.toolstack {
        Toolstack::Qemu => {
            refuse(
                "type",
                "Xen's types are not for toolstack \"qemu\", which emulates the machine",
            );
            refuse("xl", "Xen's keys are not for toolstack \"qemu\"");
            if matches!(guest.boot, Boot::Bootloader { .. }) {
                refuse(
                    "bootloader",
                    "an emulated machine has its own firmware: remove it to boot from the first disk",
                );
            }
            for (index, disk) in guest.disks.iter().enumerate() {
                if disk.target.virtio() != Some(index) {
                    whole(&format!(
                        "disk {}: the disks of toolstack \"qemu\" are \"vda\", \"vdb\" and so on, in this order",
                        disk.target
                    ));
                }
            }
            let xen = guest.vifs.iter().any(|vif| {
                vif.bridge.is_some()
                    || vif.ip.is_some()
                    || vif.script.is_some()
                    || vif.vifname.is_some()
                    || vif.rate.is_some()
            });
            if xen {
                whole(
                    "vif: toolstack \"qemu\" has a network of its own for each guest, with \"mac\" and \"outside\" as the only keys",
                );
            }
        }
        Toolstack::Xl | Toolstack::Xm => {
            if guest.vifs.iter().any(|vif| vif.outside) {
                whole(&format!(
                    "vif: outside: this is not for toolstack \"{name}\", whose guests are on a bridge"
                ));
            }
            refuse("qemu", &format!("this is not for toolstack \"{name}\""));
            for disk in &guest.disks {
                if disk.target.virtio().is_some() {
                    whole(&format!(
                        "disk {}: Xen's disks are called \"xvda\", \"xvdb\"",
                        disk.target
                    ));
                }
                if let DiskSource::Overlay(origin) = &disk.source {
                    whole(&format!(
                        "disk {}: an overlay over {origin} is for toolstack \"qemu\"; Xen's guests have an origin \"VG/LV\"",
                        disk.target
                    ));
                }
            }
        }
    }
    if guest.toolstack == Toolstack::Xm {
        if guest.kind != GuestType::Pv {
            refuse("type", "TT Xen records and replays paravirtual guests, type \"pv\"");
        }
        refuse("xl", "xl's keys are not for toolstack \"xm\": its own are in [xm]");
        if matches!(guest.boot, Boot::Bootloader { .. }) {
            refuse("bootloader", "TT Xen's guests boot a \"kernel\" that was built for it");
        }
        for disk in &guest.disks {
            check_xm_disk(disk, &whole);
        }
    }
}

/// xm's disks are fields between commas, with a program of Xen 3 behind them.
fn check_xm_disk(disk: &Disk, problem: &dyn Fn(&str)) {
    let target = &disk.target;
    if let DiskSource::Path { path, format, .. } = &disk.source {
        if *format != DiskFormat::Raw {
            problem(&format!("disk {target}: format: TT Xen knows raw files only"));
        }
        if path.to_string_lossy().contains(',') {
            problem(&format!(
                "disk {target}: path: a comma cannot be part of it with toolstack \"xm\""
            ));
        }
    }
}

/// What makes a guest of TT Xen slow: it freezes while it boots, the longer the more memory it has.
const SMALL: Size = Size::mib(96);

impl Guest {
    /// What is allowed and hardly meant.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.toolstack == Toolstack::Xm && self.memory > SMALL {
            warnings.push(format!(
                "memory: {} is much for TT Xen, whose shadow paging freezes a guest while it boots, the longer the more memory it has; {SMALL} are fine",
                self.memory
            ));
        }
        warnings
    }
}

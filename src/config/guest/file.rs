// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking a guest's file apart: every key, and every mistake with its place. `ttvm-guest(5)` describes the keys.

use std::path::PathBuf;
use std::str::FromStr;

use super::claims::{Claim, Claims};
use super::disk::read_disks;
use super::vif::read_vifs;
use super::{Boot, Guest, GuestType, OnReboot, QemuConfig, Toolstack, toolstack, verbatim};
use crate::base::root::under;
use crate::config::host::{GuestDefaults, seconds};
use crate::config::reader::{Located, Source, Table, from_toml_str};
use crate::config::types::{GuestName, GuestUuid, Size};

/// Makes an enum of words readable.
macro_rules! words {
    ($type:ty, $expected:literal, $($word:literal => $value:expr),+) => {
        impl FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($value),)+
                    _ => Err(format!("{text:?} is not known here, only {}", $expected)),
                }
            }
        }
        from_toml_str!($type, $expected);
    };
}
pub(in crate::config) use words;
words!(GuestType, "\"pv\", \"pvh\" or \"hvm\"", "pv" => Self::Pv, "pvh" => Self::Pvh, "hvm" => Self::Hvm);
words!(OnReboot, "\"keep\", \"fresh\" or \"stop\"", "keep" => Self::Keep, "fresh" => Self::Fresh, "stop" => Self::Stop);
words!(Toolstack, "\"xl\", \"xm\" or \"qemu\"", "xl" => Self::Xl, "xm" => Self::Xm, "qemu" => Self::Qemu);

/// The number of virtual CPUs at `vcpus`.
pub(in crate::config) fn vcpus(table: &Table<'_>) -> Option<u32> {
    table
        .integer("vcpus", 1..=512)
        .and_then(|count| u32::try_from(count.value).ok())
}

/// What surrounds the guest file that is being read.
pub(in crate::config) struct Context<'a> {
    /// Where files named in it are looked for; `None`: they are not.
    pub root: Option<&'a std::path::Path>,
    pub defaults: &'a GuestDefaults,
    /// The machine's id: the namespace of derived UUIDs.
    pub machine: uuid::Uuid,
    /// What other guests have taken.
    pub claims: &'a Claims,
}

/// Takes a guest file apart. Mistakes are noted in `source`; `None` if there is no guest without the missing part.
pub(in crate::config) fn read(
    name: &GuestName,
    source: &Source,
    table: &Table<'_>,
    context: &Context<'_>,
) -> Option<Guest> {
    let defaults = context.defaults;
    let toolstack = table.get::<Toolstack>("toolstack");
    let toolstack = toolstack.map_or(defaults.toolstack, |toolstack| toolstack.value);
    let kind = table.value("type").unwrap_or(match toolstack {
        Toolstack::Xl | Toolstack::Xm => GuestType::Pv,
        Toolstack::Qemu => GuestType::Hvm,
    });
    let derived = Located {
        value: GuestUuid(uuid::Uuid::new_v5(&context.machine, name.as_str().as_bytes())),
        span: table.span().clone(),
    };
    let uuid = table.get("uuid").unwrap_or(derived);
    context.claims.check(source, &uuid.span, &Claim::Uuid(uuid.value));
    let boot = read_boot(table, kind, context);
    let disks = read_disks(name, source, table, context);
    let bridge = match toolstack {
        Toolstack::Xl | Toolstack::Xm => defaults.bridge.as_ref(),
        // It has a network of its own.
        Toolstack::Qemu => None,
    };
    let vifs = read_vifs(source, table, (context, bridge), uuid.value);
    let xl = table.table("xl").map(|xl| verbatim::XL.read(&xl));
    let xm = table.table("xm").map(|xm| verbatim::XM.read(&xm));
    let qemu = table.table("qemu").map(|table| QemuConfig::read(&table));
    let guest = Guest {
        name: name.clone(),
        uuid: uuid.value,
        toolstack,
        kind,
        memory: read_memory(table).unwrap_or(defaults.memory),
        vcpus: vcpus(table).unwrap_or(match toolstack {
            Toolstack::Xl => defaults.vcpus,
            // What is recorded has one.
            Toolstack::Xm | Toolstack::Qemu => 1,
        }),
        on_reboot: table.value("on_reboot").unwrap_or(defaults.on_reboot),
        start_timeout: seconds(table, "start_timeout").unwrap_or(defaults.start_timeout),
        shutdown_timeout: seconds(table, "shutdown_timeout").unwrap_or(defaults.shutdown_timeout),
        boot: boot?,
        disks,
        vifs,
        xl: xl.unwrap_or_default(),
        xm: xm.unwrap_or_default(),
        qemu: qemu.or_else(|| (toolstack == Toolstack::Qemu).then(QemuConfig::default)),
    };
    toolstack::check(&guest, table);
    Some(guest)
}

pub(in crate::config) fn read_memory(table: &Table<'_>) -> Option<Size> {
    let memory = table.get::<Size>("memory")?;
    // Xen gives memory in MiB; less than 4 no kernel starts with, more than 16 TiB it does not address.
    if !(Size::mib(4)..=Size::mib(16 << 20)).contains(&memory.value) || memory.value.bytes() % (1 << 20) != 0 {
        table.problem(
            &memory.span,
            format!(
                "memory: a guest cannot have {}: whole MiB, from 4M to 16T",
                memory.value
            ),
        );
        return None;
    }
    Some(memory.value)
}

/// A file in dom0 that the guest is built from: noted if it is not there.
fn file(table: &Table<'_>, key: &'static str, context: &Context<'_>) -> Option<Located<PathBuf>> {
    let path = table.get::<PathBuf>(key)?;
    let Some(root) = context.root else {
        return Some(path);
    };
    match std::fs::metadata(under(root, &path.value)) {
        Ok(data) if data.is_file() => {}
        Ok(_) => table.problem(&path.span, format!("{key}: {} is not a file", path.value.display())),
        Err(error) => table.problem(
            &path.span,
            format!(
                "{key}: {}: {}; see that it is there, or name another one",
                path.value.display(),
                crate::base::error::reason(&error)
            ),
        ),
    }
    Some(path)
}

/// The text at `key`, if it can be passed on.
pub(in crate::config) fn text(table: &Table<'_>, key: &'static str) -> Option<Located<String>> {
    let text = table.get::<String>(key)?;
    if text.value.chars().any(char::is_control) {
        table.problem(&text.span, format!("{key}: control characters cannot be passed on"));
        return None;
    }
    Some(text)
}

/// The arguments of the bootloader: as [`text`], each.
fn bootloader_args(table: &Table<'_>) -> Vec<String> {
    let Some(args) = table.get::<Vec<String>>("bootloader_args") else {
        return Vec::new();
    };
    if args.value.iter().any(|arg| arg.chars().any(char::is_control)) {
        table.problem(&args.span, "bootloader_args: control characters cannot be passed on");
    }
    if !table.has("bootloader") {
        table.problem(&args.span, "this is for a bootloader, and there is no \"bootloader\"");
    }
    args.value
}

fn read_boot(table: &Table<'_>, kind: GuestType, context: &Context<'_>) -> Option<Boot> {
    let kernel = file(table, "kernel", context);
    let initrd = file(table, "initrd", context);
    let cmdline = text(table, "cmdline");
    let bootloader = text(table, "bootloader");
    let args = bootloader_args(table);
    match (kernel, bootloader) {
        (Some(_), Some(bootloader)) => {
            table.problem(
                &bootloader.span,
                "a guest boots a kernel or a bootloader, not both: remove one",
            );
            None
        }
        (Some(kernel), None) => Some(Boot::Kernel {
            kernel: kernel.value,
            initrd: initrd.map(|file| file.value),
            cmdline: cmdline.map(|text| text.value),
        }),
        (None, loader) => {
            // A kernel that is there but wrong has been noted already.
            let orphans = [initrd.map(|file| file.span), cmdline.map(|text| text.span)];
            for orphan in orphans.into_iter().flatten().filter(|_| !table.has("kernel")) {
                table.problem(&orphan, "this is for a kernel, and there is no \"kernel\"");
            }
            match loader {
                Some(program) => Some(Boot::Bootloader {
                    program: program.value,
                    args,
                }),
                None if kind == GuestType::Hvm => Some(Boot::Firmware),
                // A key that is there but wrong has been noted already.
                None if table.has("kernel") || table.has("bootloader") => None,
                None => {
                    table.problem(
                        table.span(),
                        format!("a {} guest needs \"kernel\" or \"bootloader\"", kind.as_str()),
                    );
                    None
                }
            }
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest lacks on this host, and why it would boot nothing: each a sentence with what to do.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::unistd::geteuid;

use crate::base::error::{one_line, reason};
use crate::config::guest::{Boot, Disk, DiskFormat, DiskSource, Guest, Origin};
use crate::config::types::{BridgeName, LvmName, Size, Volume};
use crate::file;
use crate::initrd::images;
use crate::lvm2_cmd::{self, Group};

/// Where the kernel tells of interfaces.
const INTERFACES: &str = "/sys/class/net";

/// What the kernel itself needs, at least, before it can unpack anything.
const KERNEL: u64 = 32 << 20;

/// Memory is proposed in such steps.
const STEP: u64 = 64 << 20;

/// An initial RAM disk of more than that fits into no guest.
const LARGEST: Size = Size::mib(16 << 10);

/// Something that a guest lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Obstacle {
    fn new(what: String, remedy: impl Into<String>) -> Self {
        Self {
            what,
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// How a volume group is looked for: `None` if there is none of that name, `Err` says why LVM cannot be asked.
pub type Groups<'a> = &'a dyn Fn(&LvmName) -> Result<Option<Group>, String>;

/// What `guest` lacks on this host, and why it could not boot. Two LVM commands for each of its volumes.
pub fn on_this_host(guest: &Guest) -> Vec<Obstacle> {
    found_with(guest, &|vg| lvm2_cmd::report(vg).map_err(|error| one_line(&error)))
}

/// The same for somebody who knows the volume groups.
pub fn found_with(guest: &Guest, groups: Groups<'_>) -> Vec<Obstacle> {
    let disks = guest.disks.iter();
    let mut found: Vec<Obstacle> = disks.filter_map(|disk| missing(&disk.source, groups)).collect();
    found.extend(
        guest
            .vifs
            .iter()
            .filter_map(|vif| no_bridge(vif.bridge.as_ref()?, Path::new(INTERFACES))),
    );
    found.extend(guest.disks.iter().filter_map(|disk| not_emulated(guest, disk)));
    found.extend(closed(guest));
    found.extend(too_large(guest));
    // What is missing has been said.
    if found.is_empty() {
        found.extend(boots_nothing(guest));
    }
    found
}

/// Why what is behind a disk is not there.
fn missing(source: &DiskSource, groups: Groups<'_>) -> Option<Obstacle> {
    match source {
        DiskSource::Snapshot(snapshot) => no_volume(&snapshot.origin, groups),
        DiskSource::Overlay(Origin::Volume(volume)) => no_volume(volume, groups),
        DiskSource::Overlay(Origin::File(path)) => no_file("origin", path),
        DiskSource::Path { path, .. } => no_file("path", path),
    }
}

/// That `path` is not there, or nothing that a disk can be.
fn no_file(key: &str, path: &Path) -> Option<Obstacle> {
    let (why, remedy) = match std::fs::metadata(path) {
        Ok(found) if found.is_file() || found.file_type().is_block_device() => return None,
        Ok(found) if found.is_dir() => (
            "it is a directory".to_owned(),
            "name a file or a disk; `ttvm image create --from` makes one of a directory",
        ),
        Ok(_) => ("it is neither a regular file nor a disk".to_owned(), "name one that is"),
        Err(error) => (reason(&error), "see that it is there, or make it (`ttvm image create`)"),
    };
    Some(Obstacle::new(format!("{key} {}: {why}", path.display()), remedy))
}

/// Why an emulated machine does not get that disk: each run is to find the disks of the one before, and is begun by whoever calls.
fn not_emulated(guest: &Guest, disk: &Disk) -> Option<Obstacle> {
    if guest.toolstack.is_xen() {
        return None;
    }
    let target = &disk.target;
    match &disk.source {
        DiskSource::Path { writable: true, .. } => Some(Obstacle::new(
            format!("disk {target} is written as it is, so that the next run would find another disk"),
            "give it an \"origin\" in place of \"path\"",
        )),
        DiskSource::Path { format, .. } if *format != DiskFormat::Raw => Some(Obstacle::new(
            format!("disk {target} is a qcow2 file, and an emulated guest has raw images"),
            "convert it with `qemu-img convert -O raw`",
        )),
        source => {
            let path = behind(source);
            let error = file::open_content(&path).err()?;
            // Of what is not there the others tell.
            (error.kind() == io::ErrorKind::PermissionDenied).then(|| {
                let (path, why) = (path.display(), reason(&error));
                Obstacle::new(
                    format!("disk {target}: {path}: {why}"),
                    format!("root lets others read it with `chmod a+r {path}`, or starts the guest"),
                )
            })
        }
    }
}

fn no_volume(volume: &Volume, groups: Groups<'_>) -> Option<Obstacle> {
    let vg = &volume.vg;
    let obstacle = |what: String, remedy: String| Some(Obstacle::new(format!("origin {volume}: {what}"), remedy));
    if !geteuid().is_root() {
        // Only root may ask LVM; a volume that is not active is not seen.
        let device = volume.device();
        return match Path::new(&device).exists() {
            true => None,
            false => obstacle(
                format!("there is no {device}"),
                format!("as root, see what there is (`lvs`), or make it active (`vgchange -ay {vg}`)"),
            ),
        };
    }
    match groups(vg) {
        Err(why) => obstacle(format!("LVM cannot be asked: {why}"), "see what `vgs` says".to_owned()),
        Ok(None) => obstacle(
            format!("there is no volume group {vg} (`vgs`)"),
            "see that its disks are there".to_owned(),
        ),
        Ok(Some(group)) if group.volumes.iter().any(|known| known.name == volume.lv.as_str()) => None,
        Ok(Some(_)) => obstacle(
            format!("there is no such volume in the group (`lvs {vg}`)"),
            format!("`ttvm image create --lv {volume}` makes one"),
        ),
    }
}

/// That there is no such bridge. Of one of Open vSwitch the name ends where its VLAN begins.
fn no_bridge(bridge: &BridgeName, interfaces: &Path) -> Option<Obstacle> {
    let name = bridge.as_str();
    let own = name.split(':').next().unwrap_or(name);
    let short = own.rsplit_once('.').map_or(own, |(short, _)| short);
    let remedy = "make it, or leave \"bridge\" out and the guest is where `ttvm network set` says";
    let mut known = [own, short].into_iter().filter(|name| interfaces.join(name).exists());
    let Some(first) = known.next() else {
        return Some(Obstacle::new(
            format!("vif: there is no bridge {own} (`ip link`)"),
            remedy,
        ));
    };
    // A VLAN of a bridge of Open vSwitch may have an interface of that name beside it.
    let may_be = std::iter::once(first)
        .chain(known)
        .any(|name| !is_no_bridge(&interfaces.join(name)));
    (!may_be).then(|| Obstacle::new(format!("vif: interface {first} is no bridge"), remedy))
}

/// Whether an interface is certainly something else than a bridge (Documentation/ABI/testing/sysfs-class-net). One of Open vSwitch
/// has no sign of its own.
fn is_no_bridge(interface: &Path) -> bool {
    let read = |name: &str| std::fs::read_to_string(interface.join(name)).unwrap_or_default();
    // ARPHRD_LOOPBACK, in linux/if_arp.h.
    let is_loopback = read("type").trim() == "772";
    let is_of_a_kind = read("uevent").lines().any(|line| line.starts_with("DEVTYPE="));
    let is_hardware = interface.join("device").exists();
    !interface.join("bridge").exists() && (is_loopback || is_of_a_kind || is_hardware)
}

/// A kernel or an initial RAM disk that whoever calls may not read.
fn closed(guest: &Guest) -> Option<Obstacle> {
    let Boot::Kernel { kernel, initrd, .. } = &guest.boot else {
        return None;
    };
    let files = std::iter::once(("kernel", kernel)).chain(initrd.iter().map(|path| ("initrd", path)));
    let closed = files.filter_map(|(key, path)| Some((key, path, file::open_content(path).err()?)));
    closed
        .map(|(key, path, error)| {
            let (path, why) = (path.display(), reason(&error));
            Obstacle::new(
                format!("{key} {path}: {why}"),
                format!("root lets others read it with `chmod a+r {path}`"),
            )
        })
        .next()
}

/// Whether a kernel is Linux (Documentation/arch/x86/boot.rst), as far as it says.
fn is_linux(kernel: &Path) -> bool {
    let mut head = Vec::new();
    let read = file::open_content(kernel).and_then(|file| file.take(0x206).read_to_end(&mut head));
    read.is_ok() && head.get(0x202..) == Some(b"HdrS".as_slice())
}

/// That an initial RAM disk does not fit into the guest's memory: Linux has it there as it is, and unpacked.
fn too_large(guest: &Guest) -> Option<Obstacle> {
    let Boot::Kernel {
        kernel,
        initrd: Some(initrd),
        ..
    } = &guest.boot
    else {
        return None;
    };
    // What another kernel takes for one is its own.
    if !is_linux(kernel) {
        return None;
    }
    let packed = std::fs::metadata(initrd).ok()?.len();
    let unpacked: u64 = match images::plan(initrd, LARGEST) {
        Ok(segments) => segments.iter().map(|segment| segment.unpacked).sum(),
        Err(error) => {
            let initrd = initrd.display();
            return Some(Obstacle::new(
                format!("initrd {initrd}: Linux would not take it: {}", one_line(&error)),
                format!("make it again, or name another one (`ttvm initrd inspect {initrd}`)"),
            ));
        }
    };
    let need = packed + unpacked + KERNEL;
    (need > guest.memory.bytes()).then(|| {
        Obstacle::new(
            format!(
                "memory: {} have no room for the initial RAM disk, which takes {} besides the kernel",
                guest.memory,
                Size::from_bytes(packed + unpacked)
            ),
            format!(
                "memory = \"{}\" would do",
                Size::from_bytes(need.next_multiple_of(STEP))
            ),
        )
    })
}

/// Why a machine with firmware boots nothing at all.
pub fn boots_nothing(guest: &Guest) -> Option<Obstacle> {
    // Some of xl's keys say what else there is to boot from.
    let has_else = |key: &String| key == "boot" || key.starts_with("device_model_args");
    if guest.boot != Boot::Firmware || guest.xl.keys().any(has_else) {
        return None;
    }
    match guest.disks.first() {
        None => Some(Obstacle::new(
            "the guest has neither a kernel nor a disk: its machine boots nothing".to_owned(),
            "`ttvm guest new` makes one that does",
        )),
        Some(disk) if !is_bootable(&disk.source) => Some(Obstacle::new(
            format!(
                "the guest has no kernel in its file and no boot loader on disk {}: its machine boots nothing",
                disk.target
            ),
            "give it a kernel",
        )),
        Some(_) => None,
    }
}

/// Why there will be nothing to see of a run.
pub fn prints_nothing(guest: &Guest) -> Option<Obstacle> {
    let Boot::Kernel { kernel, cmdline, .. } = &guest.boot else {
        return None;
    };
    // Another kernel has words of its own.
    if guest.toolstack.is_xen() || !is_linux(kernel) {
        return None;
    }
    let words = cmdline.as_deref().unwrap_or_default();
    let consoles = words
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("console="));
    let is_first = |console: &str| console.split(',').next() == Some("ttyS0") || console.starts_with("uart");
    let is_silent = !consoles.into_iter().any(is_first);
    is_silent.then(|| {
        Obstacle::new(
            "the guest's kernel does not print to the console that is recorded".to_owned(),
            "add console=ttyS0 to its cmdline",
        )
    })
}

fn behind(source: &DiskSource) -> std::path::PathBuf {
    match source {
        DiskSource::Snapshot(snapshot) => snapshot.origin.device().into(),
        DiskSource::Overlay(origin) => origin.path(),
        DiskSource::Path { path, .. } => path.clone(),
    }
}

/// Whether the firmware finds something on a disk, as far as that is seen from here.
fn is_bootable(source: &DiskSource) -> bool {
    if matches!(source, DiskSource::Path { format, .. } if *format != DiskFormat::Raw) {
        return true;
    }
    let mut sector = [0; 512];
    match file::open_content(&behind(source)).and_then(|mut file| file.read_exact(&mut sector)) {
        Ok(()) => sector.ends_with(&[0x55, 0xaa]),
        Err(error) => error.kind() != io::ErrorKind::UnexpectedEof,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges() {
        let interfaces = std::env::temp_dir().join(format!("ttvm-bridges-{}", std::process::id()));
        let interface = |name: &str, directory: &str, uevent: &str, kind: &str| {
            let path = interfaces.join(name);
            std::fs::create_dir_all(path.join(directory)).expect("a directory");
            std::fs::write(path.join("uevent"), uevent).expect("a file");
            std::fs::write(path.join("type"), kind).expect("a file");
        };
        interface("br0", "bridge", "DEVTYPE=bridge\nINTERFACE=br0\n", "1\n");
        interface("ovs", "statistics", "INTERFACE=ovs\n", "1\n");
        interface("eth0", "device", "INTERFACE=eth0\n", "1\n");
        interface("vlan5", "statistics", "DEVTYPE=vlan\n", "1\n");
        interface("ovs.9", "statistics", "DEVTYPE=vlan\n", "1\n");
        interface("lo", "statistics", "INTERFACE=lo\n", "772\n");
        let bridge = |name: &str| no_bridge(&name.parse().expect("a bridge"), &interfaces);
        for name in ["br0", "br0.5:42", "ovs", "ovs.7", "ovs.9"] {
            assert_eq!(bridge(name), None, "{name}");
        }
        let said = bridge("nosuch0").expect("none");
        assert!(said.what.starts_with("vif: there is no bridge nosuch0 "), "{said}");
        for name in ["eth0", "vlan5", "lo"] {
            let said = bridge(name).expect("no bridge");
            assert_eq!(said.what, format!("vif: interface {name} is no bridge"));
        }
        std::fs::remove_dir_all(&interfaces).expect("removed");
    }
}

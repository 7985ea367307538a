// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the root and boot file systems are: for GRUB, the commands that make the boot file system its root; for
//! Linux, the `root=` argument. Both are chosen as grub-mkconfig's own scripts choose them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::environment::Environment;
use super::probe::Probe;
use super::settings::DIRECTORIES;
use super::{place, quote};
use crate::base::root::under;
use crate::boot::Error;

/// The file systems, as grub-mkconfig or grub-probe describes them.
pub struct Layout<'a> {
    root: &'a Path,
    env: &'a Environment,
    probe: &'a dyn Probe,
    /// The devices of the root file system; one, as a rule.
    devices: Vec<String>,
    uuid: String,
    partuuid: String,
    /// GRUB's module for the root file system.
    fs: String,
    boot_devices: Vec<String>,
    boot_uuid: String,
    /// What a btrfs root needs beside `root=`.
    flags: Option<String>,
    /// What grub-probe has answered: no question is asked twice.
    answers: RefCell<BTreeMap<(Vec<String>, &'static str), String>>,
}

impl<'a> Layout<'a> {
    /// From the variables that grub-mkconfig exports; where they are not there, by asking as it asks.
    pub fn find(root: &'a Path, env: &'a Environment, probe: &'a dyn Probe) -> Result<Self, Error> {
        let mut layout = Self {
            root,
            env,
            probe,
            devices: Vec::new(),
            uuid: String::new(),
            partuuid: String::new(),
            fs: String::new(),
            boot_devices: Vec::new(),
            boot_uuid: String::new(),
            flags: None,
            answers: RefCell::default(),
        };
        if !layout.is_exported() {
            layout.ask()?;
        }
        layout.take_settings();
        if let Some(device) = layout.devices.iter().find(|device| device.starts_with("/dev/loop")) {
            return Err(Error::Layout(format!(
                "the root file system is on the loop device {device}"
            )));
        }
        if layout.fs == "zfs" {
            return Err(Error::Layout("the root file system is ZFS".to_owned()));
        }
        if layout.fs == "btrfs" {
            let subvolume = place::relative(root, Path::new("/"), probe)?;
            let subvolume = subvolume.trim_start_matches('/');
            layout.flags = (!subvolume.is_empty()).then(|| format!("rootflags=subvol={subvolume}"));
        }
        Ok(layout)
    }

    /// Whether it is all there, from grub-mkconfig. (It has known the partition's UUID since 2.04 only.)
    fn is_exported(&self) -> bool {
        let set = |name: &&str| self.env.get(name).is_some();
        let there = |name: &str| !self.env.lines(name).is_empty();
        there("GRUB_DEVICE")
            && there("GRUB_DEVICE_BOOT")
            && ["GRUB_DEVICE_UUID", "GRUB_DEVICE_BOOT_UUID", "GRUB_FS"].iter().all(set)
    }

    /// grub-mkconfig finds out first and reads /etc/default/grub then, so that a setting counts; what it has found of the
    /// device before stays as it is, even if that is another one now.
    fn take_settings(&mut self) {
        let env = self.env;
        let devices = |name: &str| Some(env.lines(name)).filter(|lines| !lines.is_empty());
        let text = |name: &str| env.get(name).map(str::to_owned);
        let set = |place: &mut String, name: &str| {
            if let Some(value) = text(name) {
                *place = value;
            }
        };
        if let Some(lines) = devices("GRUB_DEVICE") {
            self.devices = lines;
        }
        if let Some(lines) = devices("GRUB_DEVICE_BOOT") {
            self.boot_devices = lines;
        }
        set(&mut self.uuid, "GRUB_DEVICE_UUID");
        set(&mut self.partuuid, "GRUB_DEVICE_PARTUUID");
        set(&mut self.fs, "GRUB_FS");
        set(&mut self.boot_uuid, "GRUB_DEVICE_BOOT_UUID");
    }

    /// What grub-mkconfig does before it runs its scripts.
    fn ask(&mut self) -> Result<(), Error> {
        let devices_of = |path: &str| {
            let answer = self.probe.devices_of(Path::new(path)).map_err(|source| Error::Probe {
                what: format!("which device holds {path}"),
                source,
            })?;
            Ok(answer.lines().map(str::to_owned).collect::<Vec<_>>())
        };
        self.devices = devices_of("/")?;
        self.boot_devices = devices_of("/boot")?;
        // A file system without a UUID, a partition table without them: no answer, and no error.
        let optional = |devices: &[String], target| self.probe.device(devices, target).unwrap_or_default();
        self.uuid = optional(&self.devices, "fs_uuid");
        self.partuuid = optional(&self.devices, "partuuid");
        self.fs = optional(&self.devices, "fs");
        self.boot_uuid = match self.boot_devices == self.devices {
            true => self.uuid.clone(),
            false => optional(&self.boot_devices, "fs_uuid"),
        };
        Ok(())
    }

    /// The commands, one a line, after which GRUB finds the files of /boot by their plain paths.
    pub fn access(&self) -> Result<Vec<String>, Error> {
        let devices = &self.boot_devices;
        // The hints are written by grub-probe as script, with quotes where they are needed.
        let hints = self.device(devices, "hints_string").unwrap_or_default();
        let maps = match partition_maps(compatibility_hint(&hints)).filter(|_| self.are_plain(devices)) {
            Some(maps) => maps.join(" "),
            // Whoever has read this menu has found its partition: no module is needed for that any more.
            None if self.are_plain(devices) && self.menu_is_on_boot() => String::new(),
            None => self.device(devices, "partmap")?,
        };
        let mut lines = Vec::new();
        for map in maps.split_whitespace() {
            lines.push(match map {
                "netbsd" | "openbsd" => "insmod part_bsd".to_owned(),
                map => format!("insmod {}", quote::word(&format!("part_{map}"))),
            });
        }
        let known = devices == &self.devices && ["ext2", "xfs", "btrfs", "fat", "f2fs"].contains(&self.fs.as_str());
        let fs = match known {
            true => self.fs.clone(),
            false => self.device(devices, "fs")?,
        };
        for module in self
            .abstraction(devices)?
            .split_whitespace()
            .chain(fs.split_whitespace())
        {
            lines.push(format!("insmod {}", quote::word(module)));
        }
        if self.env.text("GRUB_ENABLE_CRYPTODISK") == "y" {
            for uuid in self.device(devices, "cryptodisk_uuid")?.split_whitespace() {
                lines.push(format!("cryptomount -u {}", quote::word(uuid)));
            }
        }
        let hint = match self.are_plain(devices) {
            true => compatibility_hint(&hints).to_owned(),
            false => self.device(devices, "compatibility_hint").unwrap_or_default(),
        };
        if !hint.is_empty() {
            lines.push(format!("set root={}", quote::quoted(&hint)));
        }
        let uuid = quote::word(&self.boot_uuid);
        if self.boot_uuid.is_empty() || self.env.is_true("GRUB_DISABLE_UUID") {
            if hint.is_empty() {
                return Err(Error::Layout(
                    "GRUB has neither a UUID nor a name for the device of /boot".to_owned(),
                ));
            }
            return Ok(lines);
        }
        let hints = quote::options(&hints);
        let plain = format!("search --no-floppy --fs-uuid --set=root {uuid}");
        if hints.is_empty() {
            lines.push(plain);
        } else {
            lines.push("if [ x$feature_platform_search_hint = xy ]; then".to_owned());
            lines.push(format!("\tsearch --no-floppy --fs-uuid --set=root {hints} {uuid}"));
            lines.push("else".to_owned());
            lines.push(format!("\t{plain}"));
            lines.push("fi".to_owned());
        }
        Ok(lines)
    }

    /// The arguments that tell Linux its root file system. Without an initial RAM disk nothing understands
    /// `UUID=`.
    pub fn root_argument(&self, initramfs: bool) -> Result<String, Error> {
        let no_uuid = self.env.is_true("GRUB_DISABLE_LINUX_UUID")
            || (self.env.is_true("GRUB_DISABLE_UUID") && self.env.text("GRUB_DISABLE_LINUX_UUID").is_empty());
        // Off unless the setting is there and is not "true".
        let no_partuuid = self
            .env
            .get("GRUB_DISABLE_LINUX_PARTUUID")
            .is_none_or(|setting| setting == "true")
            || (self.env.is_true("GRUB_DISABLE_UUID") && self.env.text("GRUB_DISABLE_LINUX_PARTUUID").is_empty());
        let partuuid = (!no_partuuid && !self.partuuid.is_empty()).then(|| format!("PARTUUID={}", self.partuuid));
        let node = |kind: &str, id: &str| !id.is_empty() && self.exists(&format!("/dev/disk/{kind}/{id}"));
        let value = if !initramfs {
            partuuid
        } else if !node("by-uuid", &self.uuid) && !node("by-partuuid", &self.partuuid) || self.on_lvm()? {
            None
        } else if !no_uuid && !self.uuid.is_empty() {
            Some(format!("UUID={}", self.uuid))
        } else {
            partuuid
        };
        let value = match (value, &self.devices[..]) {
            (Some(value), _) => value,
            (None, [device]) => device.clone(),
            (None, _) => {
                return Err(Error::Layout(
                    "the root file system has several devices and no UUID".to_owned(),
                ));
            }
        };
        let mut argument = quote::word(&format!("root={value}")).into_owned();
        argument.push_str(" ro");
        if let Some(flags) = &self.flags {
            argument.push(' ');
            argument.push_str(&quote::word(flags));
        }
        Ok(argument)
    }

    fn on_lvm(&self) -> Result<bool, Error> {
        match &self.devices[..] {
            [device] if self.exists(device) => {
                let abstraction = self.abstraction(&self.devices)?;
                Ok(abstraction.split_whitespace().any(|module| module == "lvm"))
            }
            _ => Ok(false),
        }
    }

    /// Whether grub.cfg is on the file system of /boot, as it is if nobody has made it otherwise.
    fn menu_is_on_boot(&self) -> bool {
        let device = |path: &str| {
            fs::metadata(under(self.root, Path::new(path)))
                .map(|data| data.dev())
                .ok()
        };
        let boot = device("/boot");
        boot.is_some() && DIRECTORIES.iter().any(|directory| device(directory) == boot)
    }

    fn exists(&self, path: &str) -> bool {
        under(self.root, Path::new(path)).exists()
    }

    fn device(&self, devices: &[String], target: &'static str) -> Result<String, Error> {
        let question = (devices.to_vec(), target);
        if let Some(answer) = self.answers.borrow().get(&question) {
            return Ok(answer.clone());
        }
        let answer = self.probe.device(devices, target).map_err(|source| Error::Probe {
            what: format!("the {target} of {}", devices.join(" ")),
            source,
        })?;
        self.answers.borrow_mut().insert(question, answer.clone());
        Ok(answer)
    }

    /// GRUB's modules for what lies between the disk and the file system (`lvm`, `mdraid1x`, …).
    fn abstraction(&self, devices: &[String]) -> Result<String, Error> {
        match self.are_plain(devices) {
            true => Ok(String::new()),
            false => self.device(devices, "abstraction"),
        }
    }

    /// Whether `devices` is one partition of a disk that is not made of others (LVM, RAID, loop, …): the kernel
    /// has all of those under /devices/virtual.
    fn are_plain(&self, devices: &[String]) -> bool {
        let [device] = devices else {
            return false;
        };
        let Some(name) = device.strip_prefix("/dev/").filter(|name| !name.contains('/')) else {
            return false;
        };
        let entry = under(self.root, Path::new("/sys/class/block")).join(name);
        fs::canonicalize(entry).is_ok_and(|real| {
            let path = real.to_string_lossy();
            real.join("partition").is_file() && !path.contains("/devices/virtual/")
        })
    }
}

/// What `--target=compatibility_hint` says of a partition of a plain disk, taken from what `hints_string` says: the
/// name in device.map, else the one BIOS is thought to have (grub-probe.c).
fn compatibility_hint(hints: &str) -> &str {
    let value = |option| hints.split_whitespace().find_map(|word| word.strip_prefix(option));
    value("--hint=")
        .or_else(|| value("--hint-bios="))
        .unwrap_or_default()
        .trim_matches('\'')
}

/// The kinds of partition table in GRUB's name of a partition, outermost first: `hd0,msdos1,bsd2`. `None` if it is none.
/// Each question to grub-probe takes as long as all the rest of the generator, so what it has said is not asked again.
fn partition_maps(hint: &str) -> Option<Vec<&'static str>> {
    let (_, partitions) = hint.split_once(',')?;
    let kind = |partition: &str| {
        let kind = partition.trim_end_matches(|c: char| c.is_ascii_digit());
        let known = ["msdos", "gpt", "bsd", "netbsd", "openbsd"];
        known
            .into_iter()
            .find(|known| *known == kind && kind.len() < partition.len())
    };
    partitions.split(',').map(kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps() {
        assert_eq!(partition_maps("hd0,gpt2"), Some(vec!["gpt"]));
        assert_eq!(partition_maps("hd0,msdos1,openbsd5"), Some(vec!["msdos", "openbsd"]));
        for hint in ["", "hd0", "hd0,1", "hd0,apple3", "lvmid/a/b"] {
            assert_eq!(partition_maps(hint), None, "{hint}");
        }
    }

    #[test]
    fn hints() {
        let guessed = "--hint-bios=hd0,gpt2 --hint-efi=hd0,gpt2 --hint-baremetal=ahci0,gpt2 ";
        assert_eq!(compatibility_hint(guessed), "hd0,gpt2");
        let mapped = format!("--hint-ieee1275='ieee1275//disk@0,gpt2' {guessed} --hint='hd3,gpt2' ");
        assert_eq!(compatibility_hint(&mapped), "hd3,gpt2");
        assert_eq!(compatibility_hint("--hint-efi=hd0,gpt2"), "");
        assert_eq!(compatibility_hint(""), "");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's disks.

use super::{Translator, vdev};
use crate::config::guest::Toolstack;
use crate::config::types::{Invalid, Size, Target, Volume};
use crate::import::disk::{Format, Spec};
use crate::import::error::Error;
use crate::import::output::{Entry, Section};
use crate::import::{Asked, Known, parse_disk};

/// Directories below /dev that are not a volume group's, though what is in them may be called like a volume.
const DIRECTORIES: [&str; 35] = [
    "ataraid",
    "block",
    "bsg",
    "bus",
    "cciss",
    "char",
    "cpu",
    "disk",
    "dm",
    "drbd",
    "dri",
    "etherd",
    "fd",
    "gpt",
    "hugepages",
    "i2o",
    "ida",
    "input",
    "loop",
    "md",
    "mqueue",
    "nbd",
    "net",
    "pts",
    "raw",
    "rbd",
    "rd",
    "shm",
    "snd",
    "usb",
    "vfio",
    "vhost",
    "xen",
    "zd",
    "zvol",
];

impl Translator<'_> {
    pub(super) fn disks(&mut self) {
        let Some((specs, line)) = self.list("disk") else {
            return;
        };
        let there = !specs.is_empty();
        for spec in specs {
            let section = parse_disk(&spec, self.source.dialect).and_then(|disk| self.disk(line, &disk));
            match section {
                Ok(section) => self.disks.push(section),
                Err(why) => self.note(line, "disk", format!("{spec:?} is not carried over: {why}")),
            }
        }
        if there && self.disks.is_empty() {
            let why = "none of its disks is carried over: as it is, this guest has NO DISK at all";
            self.note(line, "disk", why);
        }
    }

    /// A disk, or why there cannot be one.
    fn disk(&mut self, line: usize, disk: &Spec) -> Result<Section, String> {
        let path = self.is_carried(disk)?;
        let word = vdev::name(&disk.vdev, self.source.dialect);
        let old: Target = match &word {
            Some(name) => name.parse(),
            None => disk.vdev.parse(),
        }
        .map_err(|why: Invalid| why.to_string())?;
        if old.virtio().is_some() {
            return Err("Xen has no disk of that name".into());
        }
        if self.targets.iter().any(|(target, _)| *target == old) {
            return Err("there is another disk of that name".into());
        }
        let target = match self.toolstack() {
            Toolstack::Qemu => self.next_virtio()?,
            Toolstack::Xl | Toolstack::Xm => old.clone(),
        };
        let name = Entry::text("target", target.as_str());
        let name = match (target == old, &word) {
            (true, None) => name,
            (true, Some(_)) => name.remark(format!("{} in the file", disk.vdev)),
            (false, _) => name.remark(format!("was {}", disk.vdev)),
        };
        let origin = self
            .source
            .origins
            .iter()
            .find(|(wanted, _)| *wanted == old || *wanted == target);
        let volume = Volume::of_device(&path);
        let asked = volume.as_ref().map_or(Asked::Nothing, self.source.lvm);
        let is_likely = |volume: &Volume| !DIRECTORIES.contains(&volume.vg.as_str()) && !is_partition(&path);
        let (volume, known) = match asked {
            Asked::Known(known) => (volume, Some(known)),
            Asked::Nothing => (volume.filter(is_likely), None),
            Asked::Unknown => (None, None),
        };
        let mut section = Section {
            title: Some("[[disk]]"),
            ..Section::default()
        };
        if let Some((_, origin)) = origin {
            section.entries.push(
                Entry::text("origin", &origin.to_string()).remark(format!("as asked for; line {line} has {path}")),
            );
            section.entries.push(name);
            section.entries.push(snapshot(origin, volume.as_ref(), known.as_ref()));
            if !disk.writable {
                let why = format!("{old}: it was read-only, and the guest may write to the snapshot of {origin}");
                self.note(line, "disk", why);
            }
            if disk.format == Format::Qcow2 {
                let why = format!("{old}: it was qcow2, and the snapshot of {origin} is raw, as that is");
                self.note(line, "disk", why);
            }
        } else {
            section.entries.push(Entry::text("path", &path).on_line(line));
            if disk.writable {
                section.entries.push(Entry::text("access", "rw"));
            }
            if disk.format == Format::Qcow2 {
                section.entries.push(Entry::text("format", "qcow2"));
            }
            section.entries.push(name);
        }
        for why in self.left_over(disk, &mut section) {
            self.note(line, "disk", format!("{old}: {why}"));
        }
        if let Some(volume) = &volume
            && disk.writable
            && disk.format == Format::Raw
            && origin.is_none()
        {
            self.propose(&mut section, line, &old, volume, known.as_ref());
        }
        self.targets.push((old, target));
        Ok(section)
    }

    /// The path of a disk that can be carried over.
    fn is_carried(&self, disk: &Spec) -> Result<String, String> {
        let mut path = disk.target.clone().unwrap_or_default();
        if disk.device && !path.starts_with('/') {
            // So xend and Xen's block script find it.
            path.insert_str(0, "/dev/");
        }
        let xm = self.toolstack() == Toolstack::Xm;
        let why = match disk.format {
            _ if disk.cdrom => "guests have disks, and no CD-ROM drives",
            _ if disk.script.is_some() => "what it is, a script finds out",
            _ if disk.is_foreign() => "it comes from another domain",
            Format::Qcow2 if xm => "TT Xen knows raw files only",
            Format::Raw | Format::Qcow2 if !path.starts_with('/') => "it has no absolute path",
            Format::Raw | Format::Qcow2 if path.chars().any(char::is_control) => "its path has control characters",
            Format::Raw | Format::Qcow2 if xm && path.contains(',') => "TT Xen's xm takes no comma in a path",
            Format::Raw | Format::Qcow2 => return Ok(path),
            other => {
                return Err(format!(
                    "a disk is \"raw\" or \"qcow2\", and this one is {}",
                    other.as_str()
                ));
            }
        };
        Err(why.to_owned())
    }

    fn next_virtio(&self) -> Result<Target, String> {
        let letter = u8::try_from(self.targets.len()).ok().filter(|index| *index < 26);
        let letter = letter.ok_or("an emulated machine has 26 disks at the most")?;
        format!("vd{}", char::from(b'a' + letter))
            .parse()
            .map_err(|why: Invalid| why.to_string())
    }

    /// How a disk would become a fresh snapshot before each run. That is for its owner to say: what is written to the volume
    /// would not last any more. That a volume be removed is only said of one that LVM knows to be a snapshot: of any other,
    /// what is in it may be all there is.
    fn propose(&mut self, section: &mut Section, line: usize, target: &Target, volume: &Volume, known: Option<&Known>) {
        let parent = known.and_then(|known| known.origin.as_ref());
        let origin = parent.unwrap_or(volume);
        section.remarks.extend(match parent {
            Some(origin) => [
                format!("{volume} is a snapshot of {origin}. The guest gets it as it is, with all that earlier runs wrote."),
                format!(
                    "For a fresh snapshot before each run: remove {volume}, with what is in it, and put these in the place of \"path\" and \"access\"."
                ),
            ],
            None => [
                format!("The guest gets {volume} as it is, with all that earlier runs wrote."),
                format!(
                    "For a fresh snapshot of it before each run, put these in the place of \"path\" and \"access\": {volume} stays as it is then."
                ),
            ],
        });
        if known.is_none() {
            section.remarks.push(format!(
                "(LVM was not asked. If {volume} is a snapshot itself, \"origin\" is the volume that it is one of.)"
            ));
        }
        section.entries.push(Entry::text("origin", &origin.to_string()).off());
        section.entries.push(snapshot(origin, Some(volume), known).off());
        self.note(
            line,
            "disk",
            format!("{target}: {volume} is given to the guest as it is, and not made anew before each run: --origin {target}={origin} or the guest's file can say so"),
        );
    }

    /// What is not carried over of a disk that is.
    fn left_over(&self, disk: &Spec, section: &mut Section) -> Vec<String> {
        let mut notes: Vec<String> = disk
            .rest
            .iter()
            .map(|word| format!("{word} has no counterpart"))
            .collect();
        if disk.shared {
            notes.push(
                "w!: what others write to at the same time is not guarded, and Xen is not told to let it pass".into(),
            );
        }
        match &disk.parameters {
            Some(parameters) if self.toolstack() == Toolstack::Xm && !parameters.chars().any(char::is_control) => {
                section.entries.push(Entry::text("xm", parameters));
            }
            Some(parameters) => notes.push(format!("{parameters:?} is for toolstack \"xm\"")),
            None => {}
        }
        notes
    }

    /// Each `--origin` is for a disk that is there, and no disk has two.
    pub(super) fn every_origin_has_its_disk(&self) -> Result<(), Error> {
        let is = |(old, new): &(Target, Target), target: &Target| old == target || new == target;
        for disk in &self.targets {
            let origins = self.source.origins.iter();
            if origins.filter(|(target, _)| is(disk, target)).count() > 1 {
                return Err(Error::TwoOrigins {
                    target: disk.0.to_string(),
                });
            }
        }
        let used = |target: &Target| self.targets.iter().any(|disk| is(disk, target));
        match self.source.origins.iter().find(|(target, _)| !used(target)) {
            None => Ok(()),
            Some((target, _)) => {
                let there: Vec<&str> = self.targets.iter().map(|(old, _)| old.as_str()).collect();
                Err(Error::NoSuchDisk {
                    path: self.source.path.to_owned(),
                    target: target.to_string(),
                    there: match there.is_empty() {
                        true => "none".to_owned(),
                        false => there.join(", "),
                    },
                })
            }
        }
    }
}

/// Whether a device has the name of a partition of what is no volume: of multipath's `mpathb-part1`, `lun-0p1` (kpartx(8)).
fn is_partition(path: &str) -> bool {
    let Some(name) = path.strip_prefix("/dev/mapper/") else {
        return false;
    };
    let disk = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let numbered = disk.len() < name.len();
    let after_digit = |disk: &str| disk.ends_with(|c: char| c.is_ascii_digit() || c == '-');
    numbered && (disk.ends_with("-part") || disk.strip_suffix('p').is_some_and(after_digit))
}

/// `snapshot` of a disk: named as the volume that the file has, if that can be.
fn snapshot(origin: &Volume, volume: Option<&Volume>, known: Option<&Known>) -> Entry {
    let name = volume.filter(|volume| volume.vg == origin.vg && volume.lv != origin.lv);
    let room = known.and_then(|known| known.room).unwrap_or(Size::mib(1024));
    let name = name.map_or_else(String::new, |volume| format!("name = \"{}\", ", volume.lv));
    Entry::raw("snapshot", format!("{{ {name}size = \"{room}\" }}")).remark("size only counts if the origin is thick")
}

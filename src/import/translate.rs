// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a file of xm or xl says, in the words of a guest's file. Whatever has no counterpart there is noted.

use std::collections::BTreeMap;
use std::path::Path;

use super::disk::{Format, Spec};
use super::error::Error;
use super::output::{Entry, Section};
use super::value::{Document, Note, Setting, Value};
use super::{Dialect, Known, vif, xl_disk, xm_disk};
use crate::config::guest::{GuestType, OnReboot, Toolstack, XlValue};
use crate::config::host::HostConfig;
use crate::config::types::{GuestUuid, Size, Target, Volume};
use crate::config::verbatim;
use crate::guest::xm_config::shadow_memory;

/// The file, and what is to become of it.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) dialect: Dialect,
    pub(super) toolstack: Toolstack,
    pub(super) host: &'a HostConfig,
    pub(super) origins: &'a [(Target, Volume)],
    pub(super) lvm: &'a dyn Fn(&Volume) -> Option<Known>,
}

/// A guest's file, and what is not in it.
pub(super) struct Translated {
    pub(super) sections: Vec<Section>,
    /// In the order of the file.
    pub(super) notes: Vec<Note>,
}

/// Translates a file.
pub(super) fn translate(document: Document, source: &Source<'_>) -> Result<Translated, Error> {
    let settings = document
        .settings
        .into_iter()
        .map(|setting| (setting.key.clone(), setting))
        .collect();
    let mut translator = Translator {
        source,
        settings,
        notes: document.notes,
        top: Vec::new(),
        memory: None,
        disks: Vec::new(),
        targets: Vec::new(),
    };
    // The guest's name is its file's.
    translator.take("name");
    translator.top.push(Entry::text("toolstack", source.toolstack.as_str()));
    let kind = translator.kind()?;
    translator.memory();
    translator.vcpus();
    translator.disks();
    translator.boot(kind);
    translator.uuid();
    translator.endings();
    translator.time_travel();
    let vifs = translator.vifs();
    let further = translator.further();
    translator.every_origin_was_used()?;
    let mut sections = vec![Section {
        entries: translator.top,
        ..Section::default()
    }];
    sections.extend(translator.disks);
    sections.extend(vifs);
    sections.extend(further);
    let mut notes = translator.notes;
    // Those of one line stay in their order.
    notes.sort_by_key(|note| note.line);
    Ok(Translated { sections, notes })
}

struct Translator<'a> {
    source: &'a Source<'a>,
    /// What has not been translated yet.
    settings: BTreeMap<String, Setting>,
    notes: Vec<Note>,
    top: Vec<Entry>,
    /// In MiB, if it is known.
    memory: Option<u64>,
    disks: Vec<Section>,
    /// The disks' names in the file and in the guest's own.
    targets: Vec<(Target, Target)>,
}

/// What xm makes part of the kernel's command line by itself.
const COMMAND_LINE: [&str; 8] = [
    "dhcp",
    "ip",
    "netmask",
    "gateway",
    "hostname",
    "interface",
    "nfs_server",
    "nfs_root",
];

impl Translator<'_> {
    fn take(&mut self, key: &str) -> Option<Setting> {
        self.settings.remove(key)
    }

    fn note(&mut self, line: usize, key: &str, why: impl Into<String>) {
        self.notes.push(Note::of(line, key, why));
    }

    fn toolstack(&self) -> Toolstack {
        self.source.toolstack
    }

    /// The text of `key`: a number is one as well.
    fn text(&mut self, key: &str) -> Option<(String, usize)> {
        let setting = self.take(key)?;
        let why = match setting.value {
            Value::Number(number) => return Some((number.to_string(), setting.line)),
            Value::Text(text) if !text.chars().any(char::is_control) => return Some((text, setting.line)),
            Value::Text(_) => "control characters can not be carried over".to_owned(),
            other => format!("this should be a string, and is {}", other.kind()),
        };
        self.note(setting.line, key, why);
        None
    }

    /// The number of `key`, within `range`.
    fn number(&mut self, key: &str, range: std::ops::RangeInclusive<i64>) -> Option<(i64, usize)> {
        let setting = self.take(key)?;
        match setting.value.number().filter(|_| !setting.added) {
            Some(number) if range.contains(&number) => return Some((number, setting.line)),
            Some(number) => {
                let why = format!("{number} is out of range (from {} to {})", range.start(), range.end());
                self.note(setting.line, key, why);
            }
            None if setting.added => self.note(setting.line, key, "xl takes no number that is put together with +="),
            None => self.note(
                setting.line,
                key,
                format!("this should be a number, and is {}", setting.value.kind()),
            ),
        }
        None
    }

    /// The strings of the list `key`, and its line.
    fn list(&mut self, key: &str) -> Option<(Vec<String>, usize)> {
        let setting = self.take(key)?;
        let Value::List(items) = setting.value else {
            let why = format!("this should be a list, and is {}", setting.value.kind());
            self.note(setting.line, key, why);
            return None;
        };
        let mut list = Vec::new();
        for item in items {
            match item {
                Value::Text(text) => list.push(text),
                other => self.note(
                    setting.line,
                    key,
                    format!("there is {} in the list, which is for strings", other.kind()),
                ),
            }
        }
        Some((list, setting.line))
    }

    fn kind(&mut self) -> Result<GuestType, Error> {
        let builder = self.text("builder");
        let kind = self.text("type").filter(|_| self.source.dialect == Dialect::Xl);
        let (kind, line) = match (kind, builder) {
            (Some((word, line)), _) => match word.as_str() {
                "pv" => (GuestType::Pv, line),
                "pvh" => (GuestType::Pvh, line),
                "hvm" => (GuestType::Hvm, line),
                _ => {
                    self.note(line, "type", format!("{word:?} is no type of guest: taken for \"pv\""));
                    (GuestType::Pv, line)
                }
            },
            (None, Some((word, line))) => match word.as_str() {
                "hvm" => (GuestType::Hvm, line),
                "" | "linux" | "generic" => (GuestType::Pv, line),
                _ => {
                    self.note(
                        line,
                        "builder",
                        format!("{word:?} is not known here: taken for \"linux\""),
                    );
                    (GuestType::Pv, line)
                }
            },
            (None, None) => (GuestType::Pv, 0),
        };
        match self.toolstack() {
            Toolstack::Xm if kind != GuestType::Pv => {
                return Err(Error::Kind {
                    path: self.source.path.to_owned(),
                    line,
                });
            }
            Toolstack::Xl if kind != GuestType::Pv => self.top.push(Entry::text("type", kind.as_str()).from_line(line)),
            _ => {}
        }
        Ok(kind)
    }

    fn memory(&mut self) {
        let (program, default) = match self.source.dialect {
            Dialect::Xm => ("xm", 128),
            Dialect::Xl => {
                let most = self.settings.get("maxmem").filter(|setting| !setting.added);
                ("xl", most.and_then(|setting| setting.value.number()).unwrap_or(32))
            }
        };
        let absent = !self.settings.contains_key("memory");
        // In MiB, as a guest may have it (ttvm-guest(5)).
        let range = 4..=16 << 20;
        match self.number("memory", range.clone()) {
            Some((memory, line)) => {
                self.memory = u64::try_from(memory).ok();
                self.top
                    .push(Entry::text("memory", &format!("{memory}M")).from_line(line));
            }
            None if absent && range.contains(&default) => {
                self.memory = u64::try_from(default).ok();
                let entry = Entry::text("memory", &format!("{default}M")).remark(format!("{program}'s default"));
                self.top.push(entry);
            }
            None => {}
        }
    }

    fn vcpus(&mut self) {
        let absent = !self.settings.contains_key("vcpus");
        match self.number("vcpus", 1..=512) {
            Some((1, line)) => self.top.push(Entry::raw("vcpus", "1").from_line(line)),
            Some((_, line)) if self.toolstack() != Toolstack::Xl => {
                self.note(
                    line,
                    "vcpus",
                    "what is recorded has one processor, and so has this guest",
                );
            }
            Some((count, line)) => self.top.push(Entry::raw("vcpus", count.to_string()).from_line(line)),
            None if absent && self.source.host.guest.vcpus != 1 && self.toolstack() == Toolstack::Xl => {
                self.top.push(Entry::raw("vcpus", "1").remark("Xen's default"));
            }
            None => {}
        }
    }

    fn boot(&mut self, kind: GuestType) {
        let bootloader = self.text("bootloader").filter(|(program, _)| !program.is_empty());
        let arguments = self.bootloader_arguments();
        let kernel = self.path("kernel");
        let initrd = self.path("ramdisk");
        let cmdline = self.command_line();
        if let Some((program, line)) = &bootloader {
            if self.toolstack() == Toolstack::Xl {
                self.top.push(Entry::text("bootloader", program).from_line(*line));
                if let Some((arguments, line)) = &arguments
                    && !arguments.is_empty()
                {
                    self.top
                        .push(Entry::list("bootloader_args", arguments).from_line(*line));
                }
                for (key, line) in [
                    ("kernel", kernel.map(|it| it.1)),
                    ("ramdisk", initrd.map(|it| it.1)),
                    ("cmdline", cmdline.map(|it| it.1)),
                ] {
                    if let Some(line) = line {
                        self.note(line, key, format!("{program} finds what the guest boots"));
                    }
                }
                return;
            }
            let why = match self.toolstack() {
                Toolstack::Qemu => "an emulated machine has its own firmware, which boots from the first disk",
                _ => {
                    "TT Xen's guests boot a kernel among the host's files: take it out of the guest, and name it with \"kernel\""
                }
            };
            self.note(*line, "bootloader", why);
        }
        if let Some((_, line)) = arguments {
            self.note(line, "bootloader_args", "there is no bootloader");
        }
        let firmware = |path: &str| path.rsplit('/').next() == Some("hvmloader");
        let kernel = match kernel {
            Some((path, _)) if kind == GuestType::Hvm && firmware(&path) => None,
            Some((path, _)) if path.is_empty() => None,
            other => other,
        };
        let Some((path, line)) = kernel else {
            for (key, line) in [("ramdisk", initrd.map(|it| it.1)), ("cmdline", cmdline.map(|it| it.1))] {
                if let Some(line) = line {
                    self.note(line, key, "this is for a kernel, and there is none");
                }
            }
            return;
        };
        self.top.push(Entry::text("kernel", &path).from_line(line));
        if self.toolstack() == Toolstack::Qemu && kind == GuestType::Pv {
            self.note(
                line,
                "kernel",
                "one that was built for Xen alone does not start in an emulated machine: if it is, name another",
            );
        }
        if let Some((path, line)) = initrd.filter(|(path, _)| !path.is_empty()) {
            self.top.push(Entry::text("initrd", &path).from_line(line));
        }
        if let Some((cmdline, line)) = cmdline {
            let cmdline = self.with_new_root(&cmdline, line);
            if !cmdline.is_empty() {
                self.top.push(Entry::text("cmdline", &cmdline).from_line(line));
            }
        }
    }

    /// The path at `key`.
    fn path(&mut self, key: &str) -> Option<(String, usize)> {
        let (path, line) = self.text(key)?;
        if path.is_empty() || path.starts_with('/') || path == "hvmloader" {
            return Some((path, line));
        }
        self.note(line, key, format!("{path:?} is not an absolute path"));
        None
    }

    /// A list, or the words of a string.
    fn bootloader_arguments(&mut self) -> Option<(Vec<String>, usize)> {
        if let Some((_, line)) = self.text("bootentry") {
            self.note(line, "bootentry", "it has no counterpart: see bootloader_args");
        }
        let key = match self.source.dialect {
            Dialect::Xm => "bootargs",
            Dialect::Xl => "bootloader_args",
        };
        let setting = self.settings.get(key)?;
        if matches!(setting.value, Value::List(_)) {
            return self.list(key);
        }
        let (text, line) = self.text(key)?;
        Some((
            text.split([' ', '\t', '\n'])
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect(),
            line,
        ))
    }

    /// The kernel's command line, put together as the file's program does.
    fn command_line(&mut self) -> Option<(String, usize)> {
        let (root, extra, cmdline) = (self.text("root"), self.text("extra"), self.text("cmdline"));
        let xl = self.source.dialect == Dialect::Xl;
        // xm takes an empty one for none, and "root=" in front of it for nothing.
        let root = root.filter(|(root, _)| xl || !root.is_empty());
        let root = root.map(|(root, line)| match root.strip_prefix("root=").filter(|_| !xl) {
            Some(rest) => (rest.to_owned(), line),
            None => (root, line),
        });
        match cmdline {
            Some(cmdline) if xl || root.is_none() && extra.is_none() => {
                for (key, other) in [("root", root), ("extra", extra)] {
                    if let Some((_, line)) = other {
                        self.note(line, key, "there is a cmdline, and it counts");
                    }
                }
                return Some(cmdline);
            }
            Some((_, line)) => self.note(line, "cmdline", "xm does not know it, and takes root and extra"),
            None => {}
        }
        match (root, extra) {
            (Some((root, line)), Some((extra, _))) if xl || !extra.is_empty() => {
                Some((format!("root={root} {extra}"), line))
            }
            (Some((root, line)), _) => Some((format!("root={root}"), line)),
            (None, extra) => extra,
        }
    }

    /// In an emulated machine, disks have other names.
    fn with_new_root(&mut self, cmdline: &str, line: usize) -> String {
        let renamed = self.targets.iter().find_map(|(old, new)| {
            let word = format!("root=/dev/{old}");
            (old != new && cmdline.split(' ').any(|it| it == word)).then(|| (word, format!("root=/dev/{new}")))
        });
        let Some((old, new)) = renamed else {
            return cmdline.to_owned();
        };
        self.note(line, "root", format!("{old} is {new} in an emulated machine"));
        let words: Vec<&str> = cmdline
            .split(' ')
            .map(|word| if word == old { new.as_str() } else { word })
            .collect();
        words.join(" ")
    }

    fn uuid(&mut self) {
        if let Some((uuid, line)) = self.text("uuid") {
            match uuid.parse::<GuestUuid>() {
                Ok(uuid) => self.top.push(Entry::text("uuid", &uuid.to_string()).from_line(line)),
                Err(why) => self.note(line, "uuid", format!("{why}; one is derived from the guest's name")),
            }
        }
    }

    /// What follows a shutdown.
    fn endings(&mut self) {
        match self.text("on_reboot") {
            Some((word, line)) => match word.as_str() {
                "restart" => self.top.push(Entry::text("on_reboot", "keep").from_line(line)),
                "destroy" => self.top.push(Entry::text("on_reboot", "stop").from_line(line)),
                _ => self.note(
                    line,
                    "on_reboot",
                    format!("{word:?} has no counterpart: see on_reboot in ttvm-guest(5)"),
                ),
            },
            None if self.source.host.guest.on_reboot != OnReboot::Keep => {
                self.top.push(Entry::text("on_reboot", "keep").remark("Xen's default"));
            }
            None => {}
        }
        for (key, same, why) in [
            (
                "on_poweroff",
                "destroy",
                "a guest that switches itself off is gone, and its unit stops",
            ),
            (
                "on_crash",
                "restart",
                "after a crash, systemd starts the guest's unit again (see ttvm@.service(8))",
            ),
            ("on_watchdog", "destroy", "the guest's unit decides what follows"),
            ("on_soft_reset", "soft-reset", "the guest's unit decides what follows"),
        ] {
            if let Some((word, line)) = self.text(key)
                && word != same
            {
                self.note(line, key, format!("{word:?} is not carried over: {why}"));
            }
        }
        if let Some((_, line)) = self.text("restart") {
            self.note(
                line,
                "restart",
                "the guest's unit decides what follows a shutdown: see on_reboot in ttvm-guest(5)",
            );
        }
    }

    /// What TT Xen needs, which ttvm writes by itself for toolstack xm.
    fn time_travel(&mut self) {
        let xm = self.toolstack() == Toolstack::Xm;
        if let Some(setting) = self.take("time_travel")
            && !matches!(&setting.value, Value::List(items) if items.is_empty())
        {
            self.note(
                setting.line,
                "time_travel",
                "`ttvm record` and `ttvm replay` say what a run is",
            );
        }
        if let Some((features, line)) = self.text("features") {
            match features.as_str() {
                "auto_translated_physmap" if xm => {}
                "" => {}
                _ if xm => self.note(
                    line,
                    "features",
                    "ttvm writes \"auto_translated_physmap\", which a replay needs",
                ),
                _ => self.note(
                    line,
                    "features",
                    format!("{features:?} is for TT Xen, toolstack \"xm\""),
                ),
            }
        }
        if !xm {
            return;
        }
        let Some(setting) = self.take("shadow_memory") else {
            return;
        };
        match (setting.value.number(), self.memory) {
            (Some(found), Some(memory)) if u64::try_from(found) == Ok(shadow_memory(memory)) => {}
            _ => self.note(
                setting.line,
                "shadow_memory",
                "ttvm writes it by itself: (memory + 128 + 255) / 256",
            ),
        }
    }

    fn vifs(&mut self) -> Vec<Section> {
        let Some((specs, line)) = self.list("vif") else {
            return Vec::new();
        };
        let mut sections = Vec::new();
        for spec in specs {
            let vif = vif::read(&spec, self.toolstack());
            for why in vif.notes {
                self.note(line, "vif", why);
            }
            let mut entries = vif.entries;
            if let Some(first) = entries.first_mut() {
                *first = first.clone().from_line(line);
            }
            sections.push(Section {
                title: Some("[[vif]]"),
                entries,
                ..Section::default()
            });
        }
        sections
    }

    fn disks(&mut self) {
        let Some((specs, line)) = self.list("disk") else {
            return;
        };
        for spec in specs {
            let parsed = match self.source.dialect {
                Dialect::Xm => xm_disk::parse(&spec),
                Dialect::Xl => xl_disk::parse(&spec),
            };
            let section = parsed.and_then(|disk| self.disk(line, &disk));
            match section {
                Ok(section) => self.disks.push(section),
                Err(why) => self.note(line, "disk", format!("{spec:?} is not carried over: {why}")),
            }
        }
    }

    /// A disk, or why there can not be one.
    fn disk(&mut self, line: usize, disk: &Spec) -> Result<Section, String> {
        let path = self.is_carried(disk)?;
        let old: Target = disk
            .vdev
            .parse()
            .map_err(|why: crate::config::types::Invalid| why.to_string())?;
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
        let name = if target == old {
            name
        } else {
            name.remark(format!("was {old}"))
        };
        let origin = self
            .source
            .origins
            .iter()
            .find(|(wanted, _)| *wanted == old || *wanted == target);
        let volume = path
            .parse::<Volume>()
            .ok()
            .filter(|volume| path == volume.device() && volume.vg.as_str() != "mapper");
        let known = volume.as_ref().and_then(self.source.lvm);
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
        } else {
            section.entries.push(Entry::text("path", &path).from_line(line));
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
            _ if disk.backend.is_some() => "it comes from another domain",
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
            .map_err(|why: crate::config::types::Invalid| why.to_string())
    }

    /// How a volume would become a fresh snapshot before each run. That is for its owner to say: what is in it now would not be
    /// what the guest sees, and it would have to go.
    fn propose(&mut self, section: &mut Section, line: usize, target: &Target, volume: &Volume, known: Option<&Known>) {
        let origin = known.and_then(|known| known.origin.as_ref());
        let shown = origin.map_or_else(|| format!("{}/…", volume.vg), ToString::to_string);
        section.remarks.push(match origin {
            Some(origin) => format!(
                "{volume} is a snapshot of {origin}. The guest gets it as it is, with all that earlier runs wrote."
            ),
            None => format!("The guest gets {volume} as it is, with all that earlier runs wrote."),
        });
        section.remarks.push(format!(
            "For a fresh snapshot before each run: remove {volume}, and put these in the place of \"path\" and \"access\"."
        ));
        section.entries.push(Entry::text("origin", &shown).off());
        section.entries.push(match origin {
            Some(origin) => snapshot(origin, Some(volume), known).off(),
            None => Entry::raw("snapshot", format!("{{ name = \"{}\", size = \"1G\" }}", volume.lv)).off(),
        });
        self.note(
            line,
            "disk",
            format!("{target}: {volume} is given to the guest as it is, and not made anew before each run: --origin {target}={shown} or the guest's file can say so"),
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

    fn every_origin_was_used(&self) -> Result<(), Error> {
        let there = || {
            let targets: Vec<&str> = self.targets.iter().map(|(old, _)| old.as_str()).collect();
            if targets.is_empty() {
                "none".to_owned()
            } else {
                targets.join(", ")
            }
        };
        let used = |target: &Target| self.targets.iter().any(|(old, new)| old == target || new == target);
        match self.source.origins.iter().find(|(target, _)| !used(target)) {
            None => Ok(()),
            Some((target, _)) => Err(Error::NoSuchDisk {
                path: self.source.path.to_owned(),
                target: target.to_string(),
                there: there(),
            }),
        }
    }

    /// Everything else is the toolstack's, as it stands, where that takes it.
    fn further(&mut self) -> Option<Section> {
        let toolstack = self.toolstack();
        let table = match toolstack {
            Toolstack::Xl => Some(("[xl]", verbatim::XL)),
            Toolstack::Xm => Some(("[xm]", verbatim::XM)),
            Toolstack::Qemu => None,
        };
        let mut settings: Vec<Setting> = std::mem::take(&mut self.settings).into_values().collect();
        settings.sort_by_key(|setting| setting.line);
        let mut entries = Vec::new();
        for setting in settings {
            let Setting { key, line, used, .. } = &setting;
            if toolstack != Toolstack::Xm && self.source.dialect == Dialect::Xm && COMMAND_LINE.contains(&key.as_str())
            {
                let nothing = setting.value == Value::Text("off".into()) || setting.value == Value::Text(String::new());
                if !nothing {
                    self.note(
                        *line,
                        key,
                        "xm puts it on the kernel's command line: write it into \"cmdline\"",
                    );
                }
                continue;
            }
            let taken = match &table {
                Some((_, dialect)) => self
                    .verbatim(&setting)
                    .and_then(|value| match dialect.refuses(key, &value) {
                        Some(why) => Err(why),
                        None => Ok(Entry::value(key, &value).from_line(*line)),
                    }),
                None => Err("it is Xen's, and not for toolstack \"qemu\"".to_owned()),
            };
            match taken {
                Ok(entry) => entries.push(entry),
                // Other lines made use of it, and have its value.
                Err(_) if *used => {}
                Err(why) => self.note(*line, key, why),
            }
        }
        let title = table.map(|(title, _)| title).filter(|_| !entries.is_empty());
        title.map(|title| Section {
            title: Some(title),
            entries,
            ..Section::default()
        })
    }

    /// A value for xl or xm, as it stands.
    fn verbatim(&self, setting: &Setting) -> Result<XlValue, String> {
        let xl = self.source.dialect == Dialect::Xl;
        let text = |value: &Value| match value {
            Value::Text(text) if text.chars().any(char::is_control) => {
                Err("control characters can not be carried over".to_owned())
            }
            Value::Text(text) => Ok(text.clone()),
            // xl does not tell numbers from strings.
            Value::Number(number) if xl => Ok(number.to_string()),
            other => Err(format!(
                "there is {} in the list, which can not be carried over",
                other.kind()
            )),
        };
        match &setting.value {
            Value::List(items) => items.iter().map(text).collect::<Result<_, _>>().map(XlValue::List),
            Value::Number(number) => u64::try_from(*number)
                .map(XlValue::Number)
                .map_err(|_| format!("{number} is negative, which can not be carried over")),
            Value::Flag(flag) => Err(format!(
                "xm takes no True or False, and passed it over: write {} if it is meant",
                u8::from(*flag)
            )),
            value @ Value::Text(_) => text(value).map(XlValue::Text),
            other => Err(format!("this is {}, which can not be carried over", other.kind())),
        }
    }
}

/// `snapshot` of a disk: named as the volume that the file has, if that can be.
fn snapshot(origin: &Volume, volume: Option<&Volume>, known: Option<&Known>) -> Entry {
    let name = volume.filter(|volume| volume.vg == origin.vg && volume.lv != origin.lv);
    let room = known.and_then(|known| known.room).unwrap_or(Size::mib(1024));
    let name = name.map_or_else(String::new, |volume| format!("name = \"{}\", ", volume.lv));
    Entry::raw("snapshot", format!("{{ {name}size = \"{room}\" }}")).remark("size only counts if the origin is thick")
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a file of xm or xl says, in the words of a guest's file. Whatever has no counterpart there is noted.

mod boot;
mod disks;
mod further;
mod kind;
mod vdev;
mod vfb;
mod xl_keys;

use std::collections::BTreeMap;
use std::path::Path;

use super::error::Error;
use super::output::{Entry, Section};
use super::value::{Document, Note, Setting, Value};
use super::{Asked, Dialect, vif};
use crate::config::guest::GuestType;
use crate::config::guest::{OnReboot, Toolstack};
use crate::config::host::HostConfig;
use crate::config::types::{GuestUuid, Target, Volume};
use crate::guest::toolstack::tt_xen::xm_config::shadow_memory;

/// The file, and what is to become of it.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) dialect: Dialect,
    pub(super) toolstack: Toolstack,
    pub(super) host: &'a HostConfig,
    pub(super) origins: &'a [(Target, Volume)],
    pub(super) lvm: &'a dyn Fn(&Volume) -> Asked,
}

/// A guest's file, and what is not in it.
pub(super) struct Translated {
    pub(super) sections: Vec<Section>,
    /// In the order of the file.
    pub(super) notes: Vec<Note>,
}

/// So many disks, and so many interfaces, no guest has.
const MOST: usize = 256;
/// So many lines that cannot be carried over make no guest.
const NOTES: usize = 1000;

/// Translates a file.
pub(super) fn translate(document: Document, source: &Source<'_>) -> Result<Translated, Error> {
    let many = document.settings.iter().find(|setting| {
        ["disk", "vif"].contains(&setting.key.as_str())
            && matches!(&setting.value, Value::List(items) if items.len() > MOST)
    });
    if let Some(Setting { key, line, .. }) = many {
        return Err(Error::TooMany {
            path: source.path.to_owned(),
            line: *line,
            key: key.clone(),
            most: MOST,
        });
    }
    let settings = document
        .settings
        .into_iter()
        .map(|setting| (setting.key.clone(), setting))
        .collect();
    let mut translator = Translator {
        source,
        settings,
        unknown: document.unknown,
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
    let vifs = translator.vifs(kind);
    let further = translator.further();
    translator.every_origin_has_its_disk()?;
    let mut sections = vec![Section {
        entries: translator.top,
        ..Section::default()
    }];
    sections.extend(translator.disks);
    sections.extend(vifs);
    sections.extend(further);
    let mut notes = translator.notes;
    if notes.len() > NOTES {
        return Err(Error::TooMuch {
            path: source.path.to_owned(),
            count: notes.len(),
        });
    }
    // Those of one line stay in their order.
    notes.sort_by_key(|note| note.line);
    notes.iter_mut().for_each(Note::shorten);
    Ok(Translated { sections, notes })
}

struct Translator<'a> {
    source: &'a Source<'a>,
    /// What has not been translated yet.
    settings: BTreeMap<String, Setting>,
    /// What a line sets, or may, that cannot be followed.
    unknown: BTreeMap<String, usize>,
    notes: Vec<Note>,
    top: Vec<Entry>,
    /// In MiB, if it is known.
    memory: Option<u64>,
    disks: Vec<Section>,
    /// The disks' names in the file and in the guest's own.
    targets: Vec<(Target, Target)>,
}

impl Translator<'_> {
    fn take(&mut self, key: &str) -> Option<Setting> {
        self.settings.remove(key)
    }

    fn note(&mut self, line: usize, key: &str, why: impl Into<String>) {
        self.notes.push(Note::of(line, key, why));
    }

    /// Notes what becomes of `key` whose value cannot be followed, and for which therefore no default may stand.
    fn note_unknown(&mut self, key: &str, why: &str) -> bool {
        let Some(line) = self.unknown.get(key).copied() else {
            return false;
        };
        self.note(line, key, format!("its value cannot be followed: {why}"));
        true
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
            Value::Text(_) => "control characters cannot be carried over".to_owned(),
            other => format!("this should be a string, and is {}", other.kind()),
        };
        self.note(setting.line, key, why);
        None
    }

    /// The number of `key`, within `range`.
    fn number(&mut self, key: &str, range: std::ops::RangeInclusive<i64>) -> Option<(i64, usize)> {
        let setting = self.take(key)?;
        match setting.value.number(self.source.dialect).filter(|_| !setting.added) {
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

    fn memory(&mut self) {
        let (program, default) = match self.source.dialect {
            Dialect::Xm => ("xm", 128),
            Dialect::Xl => {
                let most = self.settings.get("maxmem").filter(|setting| !setting.added);
                (
                    "xl",
                    most.and_then(|setting| setting.value.number(Dialect::Xl)).unwrap_or(32),
                )
            }
        };
        let why = "the guest has what ttvm.toml gives all guests until its own file says it";
        let absent = !self.settings.contains_key("memory") && !self.note_unknown("memory", why);
        // In MiB, as a guest may have it (ttvm-guest(5)).
        let range = 4..=16 << 20;
        match self.number("memory", range.clone()) {
            Some((memory, line)) => {
                self.memory = u64::try_from(memory).ok();
                self.top
                    .push(Entry::text("memory", &format!("{memory}M")).on_line(line));
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
        let why = "the guest has as many as ttvm.toml gives all guests until its own file says it";
        let absent = !self.settings.contains_key("vcpus") && !self.note_unknown("vcpus", why);
        match self.number("vcpus", 1..=512) {
            Some((1, line)) => self.top.push(Entry::raw("vcpus", "1").on_line(line)),
            Some((_, line)) if self.toolstack() != Toolstack::Xl => {
                self.note(
                    line,
                    "vcpus",
                    "what is recorded has one processor, and so has this guest",
                );
            }
            Some((count, line)) => self.top.push(Entry::raw("vcpus", count.to_string()).on_line(line)),
            None if absent && self.source.host.guest.vcpus != 1 && self.toolstack() == Toolstack::Xl => {
                self.top.push(Entry::raw("vcpus", "1").remark("Xen's default"));
            }
            None => {}
        }
    }

    fn uuid(&mut self) {
        if let Some((uuid, line)) = self.text("uuid") {
            // xm takes out all hyphens and reads 32 digits (xend/uuid.py); to xl, one that is not as usual is an error.
            let digits: String = uuid.chars().filter(|c| *c != '-').collect();
            let usual = match (self.source.dialect, digits.get(..32)) {
                (Dialect::Xm, Some(digits)) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                    let at = [0, 8, 12, 16, 20, 32];
                    at.windows(2)
                        .map(|at| &digits[at[0]..at[1]])
                        .collect::<Vec<_>>()
                        .join("-")
                }
                _ => uuid,
            };
            match usual.parse::<GuestUuid>() {
                Ok(uuid) => self.top.push(Entry::text("uuid", &uuid.to_string()).on_line(line)),
                Err(why) => self.note(line, "uuid", format!("{why}; one is derived from the guest's name")),
            }
        }
    }

    /// What follows a shutdown.
    fn endings(&mut self) {
        let absent = !self.note_unknown("on_reboot", "see on_reboot in ttvm-guest(5)");
        match self.text("on_reboot") {
            Some((word, line)) => match word.as_str() {
                "restart" => self.top.push(Entry::text("on_reboot", "keep").on_line(line)),
                "destroy" => self.top.push(Entry::text("on_reboot", "stop").on_line(line)),
                _ => self.note(
                    line,
                    "on_reboot",
                    format!("{word:?} has no counterpart: see on_reboot in ttvm-guest(5)"),
                ),
            },
            None if absent && self.source.host.guest.on_reboot != OnReboot::Keep => {
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
        match (setting.value.number(self.source.dialect), self.memory) {
            (Some(found), Some(memory)) if u64::try_from(found) == Ok(shadow_memory(memory)) => {}
            _ => self.note(
                setting.line,
                "shadow_memory",
                "ttvm writes it by itself: (memory + 128 + 255) / 256",
            ),
        }
    }

    fn vifs(&mut self, kind: GuestType) -> Vec<Section> {
        let nics = match self.source.dialect {
            Dialect::Xm => self.number("nics", 0..=MOST as i64),
            Dialect::Xl => None,
        };
        let (mut specs, line) = match (self.list("vif"), nics) {
            (Some((specs, line)), _) => (specs, line),
            (None, Some((_, line))) => (Vec::new(), line),
            (None, None) => return Vec::new(),
        };
        // xm fills up with interfaces of which nothing is said.
        if let Some((count, _)) = nics {
            specs.resize(specs.len().max(usize::try_from(count).unwrap_or(0)), String::new());
        }
        let mut sections = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            let vif = vif::read(spec, self.source.dialect, self.toolstack(), kind);
            let which = vif.which(index);
            for why in vif.notes {
                self.note(line, "vif", format!("{which}: {why}"));
            }
            let mut entries = vif.entries;
            if let Some(first) = entries.first_mut() {
                *first = first.clone().on_line(line);
            }
            sections.push(Section {
                title: Some("[[vif]]"),
                entries,
                ..Section::default()
            });
        }
        sections
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recordings as somebody would make them to do harm: each is a good one with one thing changed, and sealed anew, so that every
//! digest in it is right. The same number makes the same one of the same recording.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::ops::Range;
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use toml::{Table, Value};
use ttvm::base::text;
use ttvm::config::guest::Shift;
use ttvm::file::digest;
use ttvm::qemu::machine::{Backing, Drive, Machine};
use ttvm::recording::library::manifest::{FileDigest, Manifest};
use ttvm::recording::library::sealed;
use ttvm::recording::session::recorded_machine;

const GUEST_FILE: &str = "guest.toml";
const CONSOLE: &str = "console.log";
pub const LOG: &str = "replay.log";

/// The kind of event that a character is written with.
const WRITTEN: u8 = 22;

/// Before the first event of a log.
const HEADER: usize = 12;

/// A recording that was exported with its disks.
#[derive(Clone)]
pub struct Good {
    manifest: Table,
    files: Vec<(String, Vec<u8>)>,
}

/// One that was changed.
pub struct Mutant {
    /// What was changed.
    pub what: String,
    /// The file to import.
    pub archive: Vec<u8>,
    /// Whether a replay of it may still be the run that its manifest describes.
    pub may_be_identical: bool,
}

/// The numbers of those to try: so `few` if nobody says, else as `TTVM_HOSTILE` says.
pub fn numbers(few: u64) -> Range<u64> {
    let Ok(text) = std::env::var("TTVM_HOSTILE") else {
        return 0..few;
    };
    let number = |text: &str| text.parse().expect("TTVM_HOSTILE is a number, or two as in 5..9");
    match text.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => 0..number(&text),
    }
}

/// Numbers by chance, the same ones for the same beginning (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Less than `below`.
    fn number(&mut self, below: usize) -> usize {
        usize::try_from(self.next() % below as u64).expect("a small number")
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.number(all.len())]
    }
}

impl Good {
    /// What is in an exported file.
    pub fn read(archive: &[u8]) -> Self {
        let mut archive = tar::Archive::new(GzDecoder::new(archive));
        let members = archive.entries().expect("members").map(|entry| {
            let mut entry = entry.expect("a member");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("its content");
            (entry.path().expect("its name").display().to_string(), content)
        });
        let mut files: Vec<_> = members.collect();
        let (name, text) = files.remove(0);
        assert_eq!(name, sealed::NAME);
        let manifest = String::from_utf8(text).expect("text").parse().expect("TOML");
        let good = Self { manifest, files };
        // What fits the digest of the machine to another manifest does so to this one.
        let mut same = good.clone();
        same.fit_machine();
        assert_eq!(same.manifest, good.manifest);
        good
    }

    /// Itself, packed as everything else here.
    pub fn archive(&self) -> Vec<u8> {
        packed(&self.members())
    }

    /// With what `change` makes of its manifest; with `disks`, as all of its disks are in it.
    pub fn with(&self, disks: bool, change: impl FnOnce(&mut Table)) -> Vec<u8> {
        let mut good = self.clone();
        change(&mut good.manifest);
        good.fit_machine();
        good.files.retain(|file| disks || !file.0.starts_with("disks/"));
        good.archive()
    }

    /// With what `change` makes of one of its files.
    pub fn with_file(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut good = self.clone();
        change(good.file(name));
        good.fit_files();
        good.archive()
    }

    /// One of its files.
    #[allow(dead_code, reason = "not everybody who uses this looks into them")]
    pub fn content(&self, name: &str) -> &[u8] {
        let found = self.files.iter().find(|file| file.0 == name);
        &found.expect("a member").1
    }

    /// With what `change` makes of its first disk.
    #[allow(dead_code, reason = "not everybody who uses this changes disks by hand")]
    pub fn with_disk(&self, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut good = self.clone();
        let at = good.disk_member().expect("a disk");
        change(&mut good.files[at].1);
        good.fit_disk();
        good.archive()
    }

    /// With another event, behind the first one of its log.
    #[allow(dead_code, reason = "not everybody who uses this changes logs by hand")]
    pub fn with_event(&self, event: &[u8]) -> Vec<u8> {
        self.with_file(LOG, |log| {
            let behind = events(log)[0].end;
            log.splice(behind..behind, event.iter().copied());
        })
    }

    /// Without the last character that was written.
    pub fn without_last_character(&self) -> Vec<u8> {
        self.with_file(LOG, |log| {
            let events = events(log);
            let last = events.into_iter().rfind(|event| log[event.start] == WRITTEN);
            log.drain(last.expect("a character"));
        })
    }

    fn file(&mut self, name: &str) -> &mut Vec<u8> {
        let found = self.files.iter_mut().find(|file| file.0 == name);
        &mut found.expect("a member").1
    }

    fn members(&self) -> Vec<(String, Vec<u8>)> {
        let mut text = toml::to_string(&self.manifest).expect("TOML");
        let seal = digest::of_bytes(text.as_bytes());
        writeln!(text, "# digest of the lines above: {seal}").expect("text");
        let mut members = vec![(sealed::NAME.to_owned(), text.into_bytes())];
        members.extend(self.files.iter().cloned());
        members
    }

    /// Makes the manifest's digests those of the files.
    fn fit_files(&mut self) {
        for (name, section) in [
            (GUEST_FILE, &["guest_file"][..]),
            (LOG, &["result", "log"]),
            (CONSOLE, &["result", "console"]),
            ("kernel", &["kernel"]),
            ("initrd", &["initrd"]),
        ] {
            if !self.files.iter().any(|file| file.0 == name) {
                continue;
            }
            let content = self.file(name).clone();
            let mut table = &mut self.manifest;
            for key in section {
                table = table[*key].as_table_mut().expect("a table");
            }
            let size = i64::try_from(content.len()).expect("a small file");
            table.insert("size".to_owned(), size.into());
            table.insert("digest".to_owned(), digest::of_bytes(&content).to_string().into());
        }
    }

    /// The same of the first disk, whose member has its digest as a name.
    fn fit_disk(&mut self) {
        let at = self.disk_member().expect("a disk");
        let content = digest::of_bytes(&self.files[at].1);
        self.files[at].0 = format!("disks/{}.img", content.hex());
        let disk = self.manifest["disk"][0].as_table_mut().expect("a disk");
        disk.insert("digest".to_owned(), content.to_string().into());
    }

    fn disk_member(&self) -> Option<usize> {
        self.files.iter().position(|file| file.0.starts_with("disks/"))
    }

    /// Makes `config` the digest of the machine that the manifest describes, if it describes one.
    fn fit_machine(&mut self) {
        let (_, text) = &self.members()[0];
        let text = String::from_utf8_lossy(text);
        let Ok(manifest) = Manifest::from_text(&text) else {
            return;
        };
        if manifest.engine.icount.parse::<Shift>().is_err() {
            return;
        }
        let drives = manifest.disks.iter().map(|disk| Drive {
            target: disk.target.clone(),
            backing: Backing::Raw {
                path: disk.origin.path(),
                writable: true,
            },
        });
        let path = |file: &Option<FileDigest>| file.as_ref().map(|file| file.path.clone());
        let machine = Machine {
            drives: drives.collect(),
            ..recorded_machine(&manifest, path(&manifest.kernel), path(&manifest.initrd))
        };
        let engine = self.manifest["engine"].as_table_mut().expect("a table");
        engine.insert("config".to_owned(), machine.digest().to_string().into());
    }

    /// The one with this number. `bait` is a directory with what a manifest may name and nobody may open: `secret`, `pipe`,
    /// `link`.
    pub fn mutant(&self, number: u64, bait: &Path) -> Mutant {
        let mut chance = Chance(number.wrapping_mul(0x2545_F491_4F6C_DD1D));
        let good = self.clone();
        match chance.number(20) {
            0..=9 => good.another_log(&mut chance),
            10..=16 => good.another_manifest(&mut chance, bait),
            17 | 18 => good.another_file(&mut chance),
            _ => good.another_archive(&mut chance),
        }
    }

    fn finished(&self, what: String, may_be_identical: bool) -> Mutant {
        Mutant {
            what: text::line(&what).into_owned(),
            archive: self.archive(),
            may_be_identical,
        }
    }

    fn another_log(mut self, chance: &mut Chance) -> Mutant {
        let log = self.file(LOG);
        let before = log.clone();
        let mut changes = Vec::new();
        for _ in 0..=*chance.of(&[0, 0, 0, 1, 4]) {
            changes.push(change_log(log, chance));
        }
        let harmless = essence(log) == essence(&before);
        self.fit_files();
        self.finished(format!("replay.log: {}", changes.join(", ")), harmless)
    }

    fn another_file(mut self, chance: &mut Chance) -> Mutant {
        let name = *chance.of(&[GUEST_FILE, CONSOLE, CONSOLE, "kernel", "disk"]);
        if name == "disk" {
            let at = self.disk_member().expect("a disk");
            let content = &mut self.files[at].1;
            let before = content.clone();
            let what = change_bytes(content, 0, chance);
            // The second 64 KiB are written before they are read.
            let is_seen =
                |content: &[u8]| [content.get(..1 << 16), content.get(1 << 17..)].map(|part| part.map(<[u8]>::to_vec));
            let harmless = before.len() == content.len() && is_seen(content) == is_seen(&before);
            let size = i64::try_from(content.len()).expect("a small disk");
            let disk = self.manifest["disk"][0].as_table_mut().expect("a disk");
            disk.insert("size".to_owned(), size.into());
            self.fit_disk();
            return self.finished(format!("the disk: {what}"), harmless);
        }
        let content = self.file(name);
        let before = content.clone();
        let what = match chance.number(3) {
            0 if name == CONSOLE => {
                content.extend_from_slice(b"\x1b]0;pwned\x07\x1b[2J\nIDENTICAL: all is well\n");
                "escapes at its end".to_owned()
            }
            _ => change_bytes(content, 0, chance),
        };
        let same = *content == before;
        self.fit_files();
        // The guest's file is kept for people. A kernel has bytes that do nothing.
        self.finished(format!("{name}: {what}"), same || name != CONSOLE)
    }

    /// Two manifests out of three with one value changed, else with another shape.
    fn another_manifest(mut self, chance: &mut Chance, bait: &Path) -> Mutant {
        let mut what = match chance.number(3) {
            0 => self.reshape(chance),
            _ => self.change_value(chance, bait),
        };
        if chance.number(2) == 0 {
            self.fit_machine();
            what.0.push_str(", and the machine's digest");
        }
        // Without the disk, what its origin says is what there is.
        if chance.number(3) == 0
            && let Some(at) = self.disk_member()
        {
            self.files.remove(at);
            what = (format!("{}, without its disk", what.0), false);
        }
        self.finished(format!("manifest: {}", what.0), what.1)
    }

    fn change_value(&mut self, chance: &mut Chance, bait: &Path) -> (String, bool) {
        let mut paths = Vec::new();
        let mut all = Value::Table(self.manifest.clone());
        leaves(&all, &mut Vec::new(), &mut paths);
        let path = chance.of(&paths).clone();
        let name = path.join(".");
        let strings: Vec<Value> = paths.iter().map(|path| at(&mut all, path).clone()).collect();
        let value = at(&mut all, &path);
        let before = value.clone();
        *value = match &*value {
            // What another value of it is, is as right as what nobody would write.
            Value::String(_) if chance.number(3) == 0 => chance.of(&strings).clone(),
            Value::String(text) => strange_text(text, &name, bait, chance).into(),
            Value::Integer(number) => strange_number(*number, chance).into(),
            Value::Boolean(it) => (!*it).into(),
            other => other.clone(),
        };
        let same = *value == before;
        let version = |value: &Value| value.as_str()?.split_whitespace().next().map(str::to_owned);
        // Who has packed a QEMU is not its version.
        let same = same || name == "engine.version" && version(value) == version(&before);
        let shown: String = value.to_string().chars().take(60).collect();
        self.manifest = match all {
            Value::Table(table) => table,
            _ => unreachable!("it was one"),
        };
        (format!("{name} is {shown}"), same || is_nothing(&name))
    }

    fn reshape(&mut self, chance: &mut Chance) -> (String, bool) {
        let mut paths = Vec::new();
        let mut all = Value::Table(self.manifest.clone());
        leaves(&all, &mut Vec::new(), &mut paths);
        let made = match chance.number(6) {
            0..=2 => {
                let mut path = chance.of(&paths).clone();
                // Sometimes all of a section.
                let depth = chance.number(path.len()) + 1;
                path.truncate(depth.max(1));
                let last = path.pop().expect("a key");
                match at(&mut all, &path) {
                    Value::Table(table) => drop(table.remove(&last)),
                    Value::Array(array) => drop(array.remove(last.parse().expect("a number"))),
                    _ => unreachable!("only these have something in them"),
                }
                (format!("no {}.{last}", path.join(".")), false)
            }
            3 => {
                let count = *chance.of(&[1, 2, 26, 200]);
                let disks = all["disk"].as_array_mut().expect("disks");
                let other = chance.number(2) == 0;
                for number in 0..count {
                    let mut disk = disks[0].clone();
                    if other {
                        let letter = char::from(b'b' + u8::try_from(number % 25).expect("a letter"));
                        disk["target"] = format!("vd{letter}").into();
                    }
                    disks.push(disk);
                }
                (format!("{count} disks more, other names: {other}"), false)
            }
            4 => {
                let count = *chance.of(&[1, 8, 40, 1000]);
                let vifs = all["vif"].as_array_mut().expect("interfaces");
                let first = vifs[0].clone();
                vifs.extend((0..count).map(|_| first.clone()));
                (format!("{count} interfaces more"), false)
            }
            _ => {
                let path = chance.of(&paths);
                let above = &path[..path.len() - 1];
                if let Value::Table(table) = at(&mut all, above) {
                    table.insert("and\u{1b}more".to_owned(), "x".into());
                }
                (format!("a key more in {:?}", above.join(".")), true)
            }
        };
        self.manifest = match all {
            Value::Table(table) => table,
            _ => unreachable!("it was one"),
        };
        made
    }

    fn another_archive(self, chance: &mut Chance) -> Mutant {
        let mut members = self.members();
        let at = chance.number(members.len());
        let (what, archive, harmless) = match chance.number(6) {
            0 => {
                let to = chance.number(members.len());
                members.swap(at, to);
                // The order of what comes after the manifest is not looked at.
                (
                    format!("members {at} and {to} swapped"),
                    packed(&members),
                    at > 0 && to > 0 || at == to,
                )
            }
            1 => {
                let (name, _) = members.remove(at);
                (format!("no {name}"), packed(&members), false)
            }
            2 => {
                let name = *chance.of(&[
                    "../x",
                    "/tmp/x",
                    "lock",
                    "replay.json",
                    "pinned",
                    "disks/../../x",
                    "kernel",
                ]);
                members.insert(at, (name.to_owned(), b"x".to_vec()));
                (format!("{name} at {at}"), packed(&members), false)
            }
            3 => {
                let mut bytes = packed(&members);
                bytes.truncate(chance.number(bytes.len()));
                (format!("cut off at {}", bytes.len()), bytes, false)
            }
            4 => {
                let mut bytes = packed(&members);
                let place = chance.number(bytes.len());
                bytes[place] ^= 1 << chance.number(8);
                // What has another content is not taken: it was of a head, or of what fills up.
                (format!("bit of byte {place} of the packed file"), bytes, true)
            }
            _ => {
                let mut bytes = packed(&members);
                bytes.extend_from_slice(b"and more");
                ("more behind the end".to_owned(), bytes, true)
            }
        };
        Mutant {
            what: format!("archive: {what}"),
            archive,
            may_be_identical: harmless,
        }
    }
}

/// Whether no replay of this guest depends on a value of the manifest: it is there for people to read, or for guests that reset
/// themselves.
fn is_nothing(name: &str) -> bool {
    name.starts_with("run.")
        || [
            "guest",
            "result.ended",
            "disk.0.origin",
            "disk.0.sealed",
            "engine.reset_ends",
            "engine.hpet",
            // The guest does not look at it.
            "vif.0.mac",
        ]
        .contains(&name)
        || name.ends_with(".path")
}

/// Where there are values that have nothing in them.
fn leaves(value: &Value, above: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let mut below = |key: String, value: &Value| {
        above.push(key);
        leaves(value, above, found);
        above.pop();
    };
    match value {
        Value::Table(table) => table.iter().for_each(|(key, value)| below(key.clone(), value)),
        Value::Array(array) => (array.iter().enumerate()).for_each(|(at, value)| below(at.to_string(), value)),
        _ => found.push(above.clone()),
    }
}

fn at<'a>(value: &'a mut Value, path: &[String]) -> &'a mut Value {
    path.iter().fold(value, |value, key| match value {
        Value::Array(array) => &mut array[key.parse::<usize>().expect("a number")],
        value => &mut value[key.as_str()],
    })
}

fn strange_text(text: &str, name: &str, bait: &Path, chance: &mut Chance) -> String {
    let bait = |name: &str| bait.join(name).display().to_string();
    let names = name.ends_with("path") || name.ends_with("origin");
    match chance.number(if names { 20 } else { 10 }) {
        0 => String::new(),
        1 => format!("{text}\u{1b}]0;pwned\u{7}\u{1b}[2J\nstate: complete\r\u{202e}"),
        2 => "\u{9b}31m".repeat(2000),
        3 => format!("{text},file=/etc/passwd"),
        4 => "../../../../etc".to_owned(),
        5 => format!("-{text}"),
        6 => format!("{text} "),
        7 => text.chars().rev().collect(),
        8 => "none".to_owned(),
        9 => "blake3:0000000000000000000000000000000000000000000000000000000000000000".to_owned(),
        10 => "//dev/ttvm-watchdog".to_owned(),
        11 => "//dev/zero".to_owned(),
        12 => "/srv/../dev/zero".to_owned(),
        13 => "/proc/self/mem".to_owned(),
        14 => "/proc/self/fd/0".to_owned(),
        15 => bait("pipe"),
        16 => bait("link"),
        17 => bait("../base.img"),
        18 => bait(""),
        _ => bait("secret"),
    }
}

fn strange_number(number: i64, chance: &mut Chance) -> i64 {
    *chance.of(&[
        0,
        1,
        -1,
        number ^ 1,
        number + 1,
        number / 2,
        number.saturating_mul(2),
        i64::MAX,
        i64::MIN,
        1 << 53,
        1 << 40,
        250_000_000_000,
        9_000_000_000_000_000_000,
    ])
}

/// Changes some bytes from `first` on.
fn change_bytes(content: &mut Vec<u8>, first: usize, chance: &mut Chance) -> String {
    if content.len() <= first {
        content.push(b'x');
        return "a byte more".to_owned();
    }
    let at = first + chance.number(content.len() - first);
    match chance.number(5) {
        0 => {
            content.truncate(at);
            format!("cut off at {at}")
        }
        1 => {
            content.insert(at, b'x');
            format!("a byte more at {at}")
        }
        2 => {
            content.remove(at);
            format!("a byte less at {at}")
        }
        _ => {
            content[at] ^= 1 << chance.number(8);
            format!("a bit of byte {at}")
        }
    }
}

/// Where the events of a log are; up to what is no event.
pub fn events(log: &[u8]) -> Vec<Range<usize>> {
    let mut events = Vec::new();
    let mut at = HEADER;
    while let Some(&kind) = log.get(at) {
        let text = |before: usize| {
            let length = log.get(at + 1 + before..at + 5 + before)?;
            let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
            Some(before + 4 + usize::try_from(length).expect("64 bits"))
        };
        let length = match kind {
            0 | 24 => Some(4),
            3 | 4 | 8 | 22 | 28 | 29 => Some(8),
            7 => text(1),
            9 => text(5),
            23 => text(0),
            1 | 2 | 6 | 10..=21 | 30..=39 => Some(0),
            _ => None,
        };
        let Some(end) = length.map(|length| at + 1 + length).filter(|end| *end <= log.len()) else {
            break;
        };
        events.push(at..end);
        at = end;
    }
    events
}

/// What of a log makes the run what it is: its events, each after so many instructions. The others are clocks, which QEMU itself
/// asks, too, and checkpoints, which are where it looks and not what it does, so that it is one whether there are 3 and then 5
/// instructions around one or 5 and then 3; and what follows the last character that is written: this guest then does nothing
/// but end. Nor is it another run if it is told to end a little earlier: QEMU stops within so many instructions, and what was
/// printed until then is compared.
fn essence(log: &[u8]) -> Vec<(u64, &[u8])> {
    let events = events(log);
    let last = events.iter().rposition(|event| log[event.start] == WRITTEN);
    let head = log.get(..4).unwrap_or_default();
    const A_LITTLE: u64 = 1 << 20;
    let mut instructions = 0;
    let mut of_the_run = vec![(0, head)];
    for event in events.into_iter().take(last.map_or(0, |last| last + 1)) {
        let event = &log[event];
        match event {
            [0, count @ ..] => instructions += count.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
            [28..=38, ..] => {}
            _ => of_the_run.push((instructions, event)),
        }
    }
    of_the_run.retain(|(at, event)| !matches!(event, [11..=20, ..]) || at + A_LITTLE < instructions);
    of_the_run
}

/// Changes one thing.
fn change_log(log: &mut Vec<u8>, chance: &mut Chance) -> String {
    let there = events(log);
    if there.is_empty() || chance.number(8) == 0 {
        let at = match chance.number(2) {
            0 => 0,
            _ => HEADER,
        };
        return change_bytes(log, at, chance);
    }
    let number = chance.number(there.len());
    let event = there[number].clone();
    let kind = log[event.start];
    let shown = format!("event {number} (kind {kind})");
    match chance.number(8) {
        0 => {
            log.drain(event);
            format!("{shown} gone")
        }
        1 => {
            let copy = log[event.clone()].to_vec();
            log.splice(event.start..event.start, copy);
            format!("{shown} twice")
        }
        2 => {
            let other = there[chance.number(there.len())].clone();
            let copy = log[other.clone()].to_vec();
            let (first, second) = if event.start < other.start {
                (event, other)
            } else {
                (other, event)
            };
            let (a, b) = (log[first.clone()].to_vec(), log[second.clone()].to_vec());
            log.splice(second, a);
            log.splice(first, b);
            format!("{shown} swapped with one of kind {}", copy[0])
        }
        3 | 4 => {
            let (name, bytes) = another_event(chance);
            log.splice(event.start..event.start, bytes);
            format!("{name} before {shown}")
        }
        5 => {
            log.truncate(event.start);
            format!("cut off before {shown}")
        }
        6 if event.len() > 4 => {
            // The last number of it.
            let width = if event.len() > 8 { 8 } else { 4 };
            let field = event.end - width..event.end;
            let mut bytes = [0; 8];
            bytes[8 - width..].copy_from_slice(&log[field.clone()]);
            let before = i64::from_be_bytes(bytes);
            let after = *chance.of(&[
                0,
                1,
                -1,
                before + 1,
                before - 1,
                before + 1000,
                before / 2,
                i64::from(i32::MAX),
                i64::from(i32::MIN),
                i64::MAX,
                i64::MIN,
            ]);
            log.splice(field, after.to_be_bytes()[8 - width..].iter().copied());
            format!("{shown} with {after} for {before}")
        }
        _ => {
            let at = event.start + chance.number(event.len());
            let bit = chance.number(8);
            log[at] ^= 1 << bit;
            format!("bit {bit} of byte {} of {shown}", at - event.start)
        }
    }
}

/// An event that may or may not be one of this machine.
fn another_event(chance: &mut Chance) -> (String, Vec<u8>) {
    let number = |chance: &mut Chance| {
        let numbers = [
            0,
            1,
            2,
            1000,
            u64::from(u32::MAX),
            1 << 31,
            1 << 62,
            u64::MAX,
            chance.next(),
        ];
        chance.of(&numbers).to_be_bytes()
    };
    let text = |chance: &mut Chance| {
        let said = *chance.of(&[0, 1, 14, 60, 64, 1514, 4096, 4097, 69_632, 69_633, u32::MAX]);
        let there = if chance.number(4) == 0 { 5 } else { said.min(70_000) };
        let mut text = said.to_be_bytes().to_vec();
        text.resize(4 + usize::try_from(there).expect("64 bits"), b'A');
        text
    };
    let kind = u8::try_from(chance.number(44)).expect("a byte");
    let content = match kind {
        0 | 24 => number(chance)[4..].to_vec(),
        3 | 4 | 8 | 22 | 28 | 29 => number(chance).to_vec(),
        7 => [vec![*chance.of(&[0, 0, 1, 0xc8])], text(chance)].concat(),
        9 => [
            vec![*chance.of(&[0, 0, 1, 5])],
            number(chance)[4..].to_vec(),
            text(chance),
        ]
        .concat(),
        23 => text(chance),
        27 => [vec![0; 4], text(chance)].concat(),
        25 | 26 => number(chance).to_vec(),
        _ => Vec::new(),
    };
    let shown = format!("an event of kind {kind} with {} bytes", content.len());
    (shown, [vec![kind], content].concat())
}

fn packed(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        // As it stands: the crate would refuse some.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_cksum();
        encoder.write_all(header.as_bytes()).expect("memory");
        encoder.write_all(content).expect("memory");
        let padding = content.len().next_multiple_of(512) - content.len();
        encoder.write_all(&vec![0; padding]).expect("memory");
    }
    encoder.write_all(&[0; 1024]).expect("memory");
    encoder.finish().expect("memory")
}

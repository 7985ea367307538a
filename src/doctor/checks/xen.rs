// SPDX-License-Identifier: MIT OR Apache-2.0
//! Xen, what it was told at boot, and the programs around it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::host::rough;
use crate::boot::grub::assignments;
use crate::boot::xen_options::limits;
use crate::boot::{EntryId, Firmware, RunningXen};
use crate::config::guest::Guest;
use crate::doctor::answers::{Answers, Asked};
use crate::doctor::check::{Area, Check};
use crate::doctor::facts::Facts;
use crate::doctor::fix::Fix;
use crate::doctor::purpose::{Need, has_xen};
use crate::guest::toolstack::tt_xen::deviced::require_debugfs;
use crate::xenstore;

const AREA: Area = Area::Xen;

/// Where xendomains is told what to do, on Debian and on Fedora.
const XENDOMAINS: [&str; 2] = ["/etc/default/xendomains", "/etc/sysconfig/xendomains"];

/// What xendomains starts when the host boots.
const AUTO: &str = "/etc/xen/auto";

/// How to see what Xen's own programs say, by Debian's name and by Fedora's.
const RESTART: &str = "`systemctl restart xen` (Debian) or `systemctl restart xenstored xenconsoled` (Fedora)";

pub(in crate::doctor) fn check(facts: &Facts, answers: &Answers) -> Vec<Check> {
    let need = facts.purpose.xen;
    if let Need::No(why) = need {
        return vec![Check::skipped(AREA, "xen", format!("not needed: {why}"))];
    }
    let mut checks = Vec::new();
    match xenstore::is_dom0(facts.root()) {
        true => running(facts, answers, need, &mut checks),
        false => checks.push(not_running(facts, need)),
    }
    checks.extend(toolstacks(facts, need));
    checks.extend(xendomains(facts, answers));
    if facts.purpose.tt_xen {
        checks.push(debugfs(facts));
    }
    checks
}

fn not_running(facts: &Facts, need: Need) -> Check {
    let is_guest = facts.text("/sys/hypervisor/type").trim() == "xen";
    if is_guest {
        let sentence = "this machine is itself a guest of Xen, and cannot start guests of Xen";
        return need.wrong(AREA, "xen", sentence, "set toolstack = \"qemu\" in the guests' files");
    }
    let boot = match Firmware::of(facts.root()).without_xen() {
        Some(_) => "what is said of the firmware first, `ttvm boot once --keep ttvm-ttxen-linux`, and reboot",
        None => "`ttvm boot once --keep ttvm-ttxen-linux`, and reboot",
    };
    match has_xen(facts.root()) {
        true => need.wrong(
            AREA,
            "xen",
            "Xen is installed and not running: plain Linux was booted",
            boot,
        ),
        false => need.wrong(
            AREA,
            "xen",
            "Xen is not installed",
            format!(
                "install xen-system-amd64 (Debian) or xen (Fedora), run {}, then {boot}",
                facts.update_grub()
            ),
        ),
    }
}

/// What can be looked at only while it runs.
fn running(facts: &Facts, answers: &Answers, need: Need, checks: &mut Vec<Check>) {
    let booted = facts.text("/proc/cmdline");
    let booted = EntryId::ALL
        .into_iter()
        .find(|id| booted.contains(&format!("ttvm.entry={id}")));
    match &answers.xen {
        Asked::Answer(xen) => {
            let by = booted.map_or_else(
                || "booted through an entry that is none of ttvm's".to_owned(),
                |id| format!("booted through {id}"),
            );
            checks.push(Check::ok(AREA, "xen", format!("Xen {} runs, {by}", xen.version)));
            checks.extend(options(facts, xen, booted.unwrap_or(EntryId::TtXenLinux)));
            checks.extend(memory(facts, xen, need));
        }
        Asked::Failed(why) => checks.push(need.wrong(AREA, "xen", format!("Xen does not answer: {why}"), RESTART)),
        Asked::Denied => checks.push(Check::warn(
            AREA,
            "xen",
            "Xen runs, and answers root only",
            "`sudo ttvm doctor`",
        )),
        Asked::Elsewhere | Asked::Nobody => {
            checks.push(Check::skipped(AREA, "xen", "the Xen of another system cannot be asked"));
        }
    }
    match &answers.store {
        Asked::Answer(_) => checks.push(Check::ok(AREA, "xenstored", "xenstored answers")),
        Asked::Failed(why) => {
            checks.push(need.wrong(AREA, "xenstored", format!("no guest can be started: {why}"), RESTART))
        }
        _ => {}
    }
    checks.push(match runs(facts, "xenconsoled") {
        true => Check::ok(AREA, "xenconsoled", "xenconsoled runs"),
        false => need.wrong(
            AREA,
            "xenconsoled",
            "xenconsoled does not run: guests on Xen have no console, and some do not boot without",
            RESTART,
        ),
    });
}

/// Whether a process of that name runs.
fn runs(facts: &Facts, name: &str) -> bool {
    let entries = fs::read_dir(facts.real("/proc"));
    let mut names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.any(|process| {
        let comm = facts.text(&format!("/proc/{}/comm", process.to_string_lossy()));
        comm.trim_end() == name
    })
}

/// What `[boot]` says of dom0's limits, the watchdog and the console: one check for each of the three.
fn options(facts: &Facts, xen: &RunningXen, entry: EntryId) -> Vec<Check> {
    let Some(line) = &xen.command_line else {
        return vec![Check::skipped(
            AREA,
            "dom0-limits",
            "this Xen does not say what it was told at boot",
        )];
    };
    let limits = limits(&facts.config.boot, line);
    let subjects = [
        ("dom0-limits", "dom0_", "dom0 may take what guests are to have"),
        ("watchdog", "watchdog", "a CPU that is stuck stays stuck"),
        ("console", "sync_console", "the last words before a crash may be lost"),
    ];
    let look = |(id, key, harm): (&'static str, &str, &str)| {
        let of = |in_force: bool| {
            let options = limits
                .iter()
                .filter(|(option, is)| option.starts_with(key) && *is == in_force);
            options.map(|(option, _)| option.clone()).collect::<Vec<_>>().join(" ")
        };
        let (there, missing) = (of(true), of(false));
        match (there.is_empty(), missing.is_empty()) {
            (_, false) => Check::warn(
                AREA,
                id,
                format!("Xen was not booted with {missing}: {harm}"),
                format!(
                    "run {}, then `ttvm boot once --keep {entry}`, and reboot",
                    facts.update_grub()
                ),
            ),
            (false, true) => Check::ok(AREA, id, format!("Xen was booted with {there}")),
            (true, true) => Check::skipped(AREA, id, "ttvm.toml asks for nothing of the kind"),
        }
    };
    subjects.map(look).into()
}

/// What Xen has for guests, beside what dom0 has.
fn memory(facts: &Facts, xen: &RunningXen, need: Need) -> Option<Check> {
    let dom0 = facts.text("/proc/meminfo");
    let dom0 = dom0.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let dom0: u64 = dom0.trim().strip_suffix(" kB")?.parse().ok()?;
    let guests = xen.memory?.bytes().saturating_sub(dom0 << 10);
    let shown = rough(guests);
    let on_xen = facts.right().filter(|guest| guest.toolstack.is_xen());
    let largest = on_xen.max_by_key(|guest: &&Guest| guest.memory)?;
    Some(match largest.memory.bytes() > guests {
        true => need.wrong(
            AREA,
            "xen-memory",
            format!(
                "guest {} has {} of memory, and Xen has {shown} beside dom0",
                largest.name, largest.memory
            ),
            format!(
                "lower \"memory\" in {}, or dom0_mem in ttvm.toml",
                crate::config::guests::path(&facts.places, &largest.name).display()
            ),
        ),
        false => Check::ok(
            AREA,
            "xen-memory",
            format!("Xen has {shown} beside dom0, the largest guest has {}", largest.memory),
        ),
    })
}

fn toolstacks(facts: &Facts, need: Need) -> Vec<Check> {
    let wanted = [
        (
            facts.purpose.xl,
            "xl",
            "install xen-utils (Debian: xen-system-amd64) or xen-runtime (Fedora)",
        ),
        (facts.purpose.tt_xen, "xm", "install TT Xen's tools, see ttvm-tt(7)"),
    ];
    let wanted = wanted.into_iter().filter(|(wanted, ..)| *wanted);
    let look = |(_, name, remedy): (bool, &'static str, &str)| match facts.has(name) {
        true => Check::ok(AREA, "toolstack", format!("{name} is there")),
        false => need.wrong(
            AREA,
            "toolstack",
            format!("{name}, which starts guests, is not installed"),
            remedy,
        ),
    };
    wanted.map(look).collect()
}

fn debugfs(facts: &Facts) -> Check {
    match require_debugfs(facts.root()) {
        Ok(()) => Check::ok(AREA, "debugfs", "debugfs is mounted, through which TT Xen records"),
        Err(_) => Check::fail(
            AREA,
            "debugfs",
            "debugfs is not mounted: TT Xen can neither record nor replay",
            "`systemctl start sys-kernel-debug.mount`; if that fails, the kernel that runs is none of TT Xen's",
        )
        .with_fix(Fix::MountDebugfs),
    }
}

/// xendomains saves the memory of domains that run when it is stopped, and restores it when it is started: over a snapshot that was
/// made anew meanwhile, which the memory knows nothing of.
fn xendomains(facts: &Facts, answers: &Answers) -> Vec<Check> {
    let Some(file) = XENDOMAINS.into_iter().find(|path| facts.real(path).exists()) else {
        return vec![Check::ok(
            AREA,
            "xendomains",
            "there is no xendomains, which would save and restore guests",
        )];
    };
    let text = facts.text(file);
    let settings = match Settings::of(&text) {
        Settings::Known(settings) => settings,
        Settings::Shell(why) => {
            return vec![Check::warn(
                AREA,
                "xendomains",
                format!("whether xendomains saves guests is not known: {file}{why}"),
                format!("write XENDOMAINS_SAVE= into {file}"),
            )];
        }
    };
    let save = settings
        .get("XENDOMAINS_SAVE")
        .map(String::as_str)
        .filter(|value| !value.is_empty());
    let mut checks = Vec::new();
    for (name, _) in &facts.guests {
        // Without a directory it restores nothing.
        let saved = save.map(|directory| Path::new(directory).join(name.as_str()).display().to_string());
        if let Some(saved) = saved.filter(|saved| facts.real(saved).exists()) {
            checks.push(Check::fail(
                AREA,
                "xendomains",
                format!("the memory of guest {name} was saved in {saved}, and would be restored over a new snapshot when the host boots"),
                format!("`rm {saved}`"),
            ));
        }
        if let Some(auto) = automatic(facts, name.as_str()) {
            let auto = auto.display();
            checks.push(Check::fail(
                AREA,
                "xendomains",
                format!("xendomains starts guest {name} without a fresh snapshot when the host boots: {auto}"),
                format!("`rm {auto}`, and `systemctl enable ttvm@{name}`"),
            ));
        }
    }
    match save {
        Some(directory) if checks.is_empty() => checks.push(saves(facts, answers, file, directory)),
        None if checks.is_empty() => {
            checks.push(Check::ok(
                AREA,
                "xendomains",
                "xendomains neither saves guests nor starts them",
            ));
        }
        _ => {}
    }
    checks
}

/// It would save a guest. When the host goes down, ttvm's units have ended theirs before; but it may be stopped at other times,
/// and a guest may be started without its unit.
fn saves(facts: &Facts, answers: &Answers, file: &'static str, directory: &str) -> Check {
    let sentence = format!(
        "xendomains saves to {directory} each domain that runs when it is stopped, and restores it later: if that is a guest of \
         ttvm's, over a new snapshot"
    );
    let write = format!("write XENDOMAINS_SAVE= into {file}");
    match others(facts, answers, directory) {
        // It may be what somebody counts on.
        Some(other) => Check::warn(
            AREA,
            "xendomains",
            sentence,
            format!("if no domain of this host is to be saved, {write}; it holds for all of them, and {other}"),
        ),
        None => Check::warn(
            AREA,
            "xendomains",
            sentence,
            format!("{write}; it holds for every domain of this host"),
        )
        .with_fix(Fix::SaveNothing(file)),
    }
}

/// What xendomains does for others than ttvm, or may do.
fn others(facts: &Facts, answers: &Answers, save: &str) -> Option<String> {
    let names = match &answers.store {
        Asked::Answer(names) => &names[..],
        Asked::Failed(_) => return Some("which ones run is not known".to_owned()),
        // Where Xen does not run there are none; whoever is not root is not offered to change anything.
        Asked::Nobody | Asked::Elsewhere | Asked::Denied => &[],
    };
    let is_own = |name: &str| facts.guests.iter().any(|(guest, _)| guest.as_str() == name);
    if let Some(other) = names.iter().find(|name| !is_own(name)) {
        return Some(format!("the domain {other} is none of ttvm's"));
    }
    let entry = [save, AUTO]
        .into_iter()
        .find_map(|directory| first_in(facts, directory))?;
    Some(format!("there is {}", entry.display()))
}

/// Something that xendomains finds in a directory: it does not look at hidden files.
fn first_in(facts: &Facts, directory: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(facts.real(directory));
    let mut names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
    let name = names.find(|name| !name.to_string_lossy().starts_with('.'))?;
    Some(Path::new(directory).join(name))
}

/// The file by which xendomains starts a guest, if there is one.
fn automatic(facts: &Facts, guest: &str) -> Option<PathBuf> {
    let names = [guest.to_owned(), format!("{guest}.cfg")];
    let paths = names.map(|name| Path::new(AUTO).join(name));
    // A link to nothing as well: what it leads to may be made later.
    let is_there = |path: &PathBuf| fs::symlink_metadata(facts.real(&path.to_string_lossy())).is_ok();
    paths.into_iter().find(is_there)
}

/// What the settings of xendomains say.
enum Settings {
    /// The last value of each.
    Known(BTreeMap<String, String>),
    /// Only a shell knows what is saved, for this reason.
    Shell(String),
}

impl Settings {
    fn of(text: &str) -> Self {
        let (mut variables, mut notes) = (BTreeMap::new(), Vec::new());
        assignments::read(text, "", &mut variables, &mut notes);
        let hides_it = |note: &String| note.contains("XENDOMAINS_SAVE") || note.contains("is a program");
        match notes.into_iter().find(hides_it) {
            Some(note) => Self::Shell(note),
            None => Self::Known(variables),
        }
    }
}

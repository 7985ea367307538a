// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boot entries, as far as somebody boots Xen.

use std::path::Path;

use crate::base::error::one_line;
use crate::boot::grub::grubenv;
use crate::boot::{BootMenu, EntryId, Firmware, Stage, System, TT_DIRECTORY};
use crate::doctor::answers::{Answers, Asked};
use crate::doctor::check::{Area, Check};
use crate::doctor::facts::Facts;
use crate::doctor::fix::Fix;
use crate::doctor::purpose::Need;
use crate::xenstore;

const AREA: Area = Area::Boot;

pub(in crate::doctor) fn check(facts: &Facts, answers: &Answers) -> Vec<Check> {
    let need = facts.purpose.xen;
    if let Need::No(why) = need {
        return vec![Check::skipped(AREA, "entries", format!("not needed: {why}"))];
    }
    // Where Xen runs, somebody has booted it, by whatever: what is missing here is missed the next time.
    let next = match xenstore::is_dom0(facts.root()) {
        true => Need::Wanted,
        false => need,
    };
    let mut checks = vec![firmware(facts, next)];
    // Nothing of GRUB's is run to read the menu.
    let menu = match BootMenu::read(facts.root(), &System) {
        Ok(menu) => menu,
        Err(error) => {
            checks.push(next.wrong(
                AREA,
                "entries",
                one_line(&error),
                format!(
                    "install GRUB (Debian: grub-pc or grub-efi-amd64; Fedora: grub2-pc or grub2-efi-x64) and run {}",
                    facts.update_grub()
                ),
            ));
            return checks;
        }
    };
    checks.extend(entries(facts, &menu, (need, next)));
    checks.push(environment(facts, &menu, answers, next));
    if let Some((trial, Stage::Failed(why))) = menu.trial() {
        let entry = trial.entry;
        checks.push(Check::warn(
            AREA,
            "last-try",
            format!("the last try of {entry} failed: {why}"),
            format!("see what its console said, and try it once more (`ttvm boot once {entry}`)"),
        ));
    }
    checks
}

fn firmware(facts: &Facts, need: Need) -> Check {
    let firmware = Firmware::of(facts.root());
    let (sentence, remedy) = match firmware {
        Firmware::Bios | Firmware::Uefi => {
            return Check::ok(
                AREA,
                "firmware",
                format!("GRUB can start Xen on this firmware ({firmware})"),
            );
        }
        Firmware::SecureBoot => (
            "Secure Boot is on, and GRUB then starts no Xen",
            "switch it off in the firmware's setup",
        ),
        Firmware::NoMultiboot2 => (
            "GRUB's module multiboot2 is in neither /boot/grub/x86_64-efi nor /boot/grub2/x86_64-efi, and without it GRUB starts no Xen on UEFI",
            "install GRUB's EFI modules and put them there (Debian: grub-efi-amd64-bin and `grub-install`; Fedora: grub2-efi-x64-modules, \
             from /usr/lib/grub/x86_64-efi into /boot/grub2/x86_64-efi)",
        ),
    };
    need.wrong(AREA, "firmware", sentence, remedy)
}

/// The entries that there have to be, and the files that they load: without those, the host itself may not come up again.
fn entries(facts: &Facts, menu: &BootMenu<'_>, (need, next): (Need, Need)) -> Vec<Check> {
    let has_tt_linux = facts.config.boot.tt_linux.is_some() || has_tt_linux(facts);
    let wanted = EntryId::ALL
        .into_iter()
        .filter(|id| *id != EntryId::TtXenTtLinux || has_tt_linux);
    let (mut checks, mut complete) = (Vec::new(), Vec::new());
    for id in wanted {
        let Some(entry) = menu.entry(id) else {
            checks.push(next.wrong(
                AREA,
                "entries",
                format!("there is no entry {id} in the boot menu"),
                format!(
                    "run {}; if it is still not there, `ttvm boot list` says why",
                    facts.update_grub()
                ),
            ));
            continue;
        };
        match entry.missing_files(facts.root())[..] {
            [] => complete.push(id.as_str()),
            [file, ..] => checks.push(need.wrong(
                AREA,
                "boot-files",
                format!("the entry {id} loads {file}, which is not there"),
                format!(
                    "run {}; if there is no kernel left, install one (Debian: linux-image-amd64; Fedora: kernel-core)",
                    facts.update_grub()
                ),
            )),
        }
    }
    if checks.is_empty() {
        checks.push(Check::ok(
            AREA,
            "entries",
            format!("the boot menu has {}, with their files", complete.join(", ")),
        ));
    }
    checks
}

fn has_tt_linux(facts: &Facts) -> bool {
    let entries = std::fs::read_dir(facts.real(TT_DIRECTORY));
    let mut names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.any(|name| name.to_string_lossy().starts_with("vmlinu"))
}

/// Whether GRUB forgets an entry that is to be booted once.
fn environment(facts: &Facts, menu: &BootMenu<'_>, answers: &Answers, need: Need) -> Check {
    const ID: &str = "grubenv";
    if let Some(problem) = menu.env_problem() {
        let remedy = match &problem {
            grubenv::Error::Dangling(_) => "mount the file system that has it, or remove the link".to_owned(),
            _ => format!("`{} - create` makes a new one", facts.grub_editenv()),
        };
        let check = need.wrong(
            AREA,
            ID,
            match &problem {
                grubenv::Error::Missing(path) => {
                    format!("{} does not exist: no entry can be tried with a way back", shown(path))
                }
                grubenv::Error::Dangling(path) => format!(
                    "{} is a link to nothing: no entry can be tried with a way back",
                    shown(path)
                ),
                grubenv::Error::Damaged { path, why } => {
                    format!("{} is no environment block of GRUB: {why}", shown(path))
                }
                _ => one_line(&problem),
            },
            remedy,
        );
        return match problem {
            grubenv::Error::Missing(path) => check.with_fix(Fix::CreateGrubenv(path)),
            _ => check,
        };
    }
    match &answers.grub_writes {
        Asked::Answer(()) => Check::ok(
            AREA,
            ID,
            "GRUB can write to its environment block: an entry can be tried",
        ),
        Asked::Failed(why) => {
            let why = why.trim_start_matches("refused: ");
            let (why, remedy) = why.rsplit_once("; ").unwrap_or((why, "see `ttvm boot status`"));
            need.wrong(
                AREA,
                ID,
                format!("no entry can be tried with a way back: {why}"),
                remedy,
            )
        }
        Asked::Denied => Check::warn(
            AREA,
            ID,
            "whether GRUB can write to its environment block only root can find out",
            "`sudo ttvm doctor`",
        ),
        Asked::Elsewhere | Asked::Nobody => {
            Check::skipped(AREA, ID, "whether GRUB can write to it only the system itself can say")
        }
    }
}

fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}

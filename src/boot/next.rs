// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this machine boots next, and changing it: once, for good, or back. Nothing is left to a person standing before
//! the machine: an entry is tried only if GRUB forgets it before it boots it, and if what comes after a failure is plain
//! Linux.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::entry::{BOOTED, EntryId, TRIAL};
use super::grub_cfg::{DefaultRule, GrubCfg, MenuEntry};
use super::grubenv::{self, GrubEnv};
use super::probe::Probe;
use super::trial::{Memory, Trial, Verdict, fingerprint};
use crate::config::boot::BootConfig;
use crate::config::under;
use crate::error::{Classify, Exit};
use crate::file;
use crate::run;

/// GRUB's directory by Debian's and by Fedora's name.
const DIRECTORIES: [&str; 2] = ["/boot/grub", "/boot/grub2"];

/// What makes GRUB boot the default that is remembered, on Debian. It comes after Xen's own file there, which names Xen's
/// entry.
pub const DROP_IN: &str = "/etc/default/grub.d/zz-ttvm.cfg";

const DROP_IN_TEXT: &str = "# Written by `ttvm boot default`: the entry that is booted is the one that command has chosen.\n\
     # Without this file it is again what /etc/default/grub says.\n\
     GRUB_DEFAULT=saved\n";

/// File systems that GRUB does not write to (its own list in 00_header.in).
const NOT_WRITTEN: [&str; 8] = ["btrfs", "cpiofs", "newc", "odc", "romfs", "squash4", "tarfs", "zfs"];

/// What can not be done with the boot menu.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no menu of GRUB.
    #[error("there is no grub.cfg in {}; this needs GRUB as the boot loader", DIRECTORIES.join(" or "))]
    NoGrub,
    /// A file can not be read or written.
    #[error("can not use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The environment block is not usable.
    #[error(transparent)]
    GrubEnv(#[from] grubenv::Error),
    /// A program of GRUB, or systemd's, failed.
    #[error("can not {what}")]
    Run {
        /// What it was to do.
        what: &'static str,
        /// How it failed.
        #[source]
        source: run::Error,
    },
    /// It would not be safe.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// Nothing is being tried.
    #[error("this boot is no try: there is nothing to confirm")]
    NotOnTrial,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such entry.
    #[error("there is no entry {0} in the boot menu; `ttvm boot list` says why")]
    NoEntry(EntryId),
    /// The menu ignores `next_entry`.
    #[error("{} does not look for an entry for one boot only; write it anew with update-grub", .0.display())]
    MenuIgnoresOnce(PathBuf),
    /// GRUB can not write its environment.
    #[error(
        "GRUB can not write to {} ({why}), so it would boot {entry} again and again; put /boot on a plain partition with ext4",
        path.display()
    )]
    NotWritable {
        /// The environment block.
        path: PathBuf,
        /// What it is on.
        why: String,
        /// What was to be booted once.
        entry: EntryId,
    },
    /// The boot after a failed one would be of Xen, too.
    #[error(
        "after a boot that fails, \"{title}\" would be booted, and that is not plain Linux; `ttvm boot default {}` first",
        EntryId::Linux
    )]
    NoWayBack {
        /// The default's title.
        title: String,
    },
    /// Xen would stand still after a panic.
    #[error(
        "xen_options in /etc/ttvm/ttvm.toml, or GRUB_CMDLINE_XEN, has \"noreboot\": Xen would stand still after a panic"
    )]
    NoReboot,
    /// It has not been tried.
    #[error(
        "{0} has not been booted successfully as it is now; `ttvm boot once --keep {0}` tries it and then makes it the default"
    )]
    NotProved(EntryId),
    /// GRUB does not use what is remembered, and there is no place for a setting.
    #[error(
        "GRUB boots \"{0}\" whatever is chosen; set GRUB_DEFAULT=saved in /etc/default/grub and run grub2-mkconfig -o /boot/grub2/grub.cfg"
    )]
    DefaultIsFixed(String),
    /// Somebody else's file is in the place of ours.
    #[error("{DROP_IN} is not as ttvm writes it; remove it, or set GRUB_DEFAULT=saved in it")]
    ForeignDropIn,
    /// Another boot is on its way.
    #[error(
        "\"{0}\" is already set to be booted once, and not by ttvm; `grub-editenv - unset next_entry` takes it back"
    )]
    ForeignOnce(String),
}

impl From<Refusal> for Error {
    fn from(why: Refusal) -> Self {
        Self::Refused(why)
    }
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Refused(_) => Exit::Refused,
            _ => Exit::Failed,
        }
    }
}

/// Where the last try stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "why", rename_all = "kebab-case")]
pub enum Stage {
    /// It comes with the next boot.
    Waiting,
    /// It was taken back, by hand or by a program other than ttvm.
    Withdrawn,
    /// It is running now and has yet to prove itself.
    Running,
    /// It was well.
    Well,
    /// It was not.
    Failed(String),
}

/// The boot menu of this system, and what is known of this boot.
pub struct BootMenu<'a> {
    root: &'a Path,
    probe: &'a dyn Probe,
    grub_cfg: PathBuf,
    cfg: GrubCfg,
    env: Option<GrubEnv>,
    memory: Memory,
    boot_id: String,
    command_line: String,
}

impl<'a> BootMenu<'a> {
    /// Reads it, from the tree that begins at `root`.
    pub fn read(root: &'a Path, probe: &'a dyn Probe) -> Result<Self, Error> {
        let grub_cfg = DIRECTORIES
            .iter()
            .map(|directory| Path::new(directory).join("grub.cfg"))
            .find(|path| under(root, path).exists())
            .ok_or(Error::NoGrub)?;
        let text = |path: &Path| {
            fs::read_to_string(under(root, path)).map_err(|source| Error::Io {
                path: path.to_owned(),
                source,
            })
        };
        Ok(Self {
            cfg: GrubCfg::parse(&text(&grub_cfg)?),
            env: GrubEnv::read(&under(root, &grub_cfg.with_file_name("grubenv"))).ok(),
            memory: Memory::load(root),
            boot_id: text(Path::new("/proc/sys/kernel/random/boot_id"))?.trim().to_owned(),
            command_line: text(Path::new("/proc/cmdline"))?,
            grub_cfg,
            root,
            probe,
        })
    }

    /// The menu's entry of this id.
    pub fn entry(&self, id: EntryId) -> Option<&MenuEntry> {
        self.cfg.entry(id.as_str())
    }

    /// The entry that this system was booted through; `None` if it was none of ttvm's.
    pub fn booted(&self) -> Option<EntryId> {
        let id = |word: &str| word.strip_prefix(BOOTED)?.parse().ok();
        self.command_line.split_whitespace().find_map(id)
    }

    /// Whether this boot is of an entry that is tried.
    pub fn is_trial(&self) -> bool {
        self.command_line.split_whitespace().any(|word| word == TRIAL)
    }

    /// What GRUB was told to boot the next time only.
    pub fn once(&self) -> Option<String> {
        self.env.as_ref()?.get("next_entry")
    }

    /// What is wrong with GRUB's environment block, if something is.
    pub fn env_problem(&self) -> Option<grubenv::Error> {
        GrubEnv::read(&self.env_path()).err()
    }

    /// The entry that GRUB boots by itself.
    pub fn default(&self) -> Option<&MenuEntry> {
        self.cfg.resolve(&self.default_choice())
    }

    /// Why that one: what GRUB's configuration says.
    pub fn default_choice(&self) -> String {
        match &self.cfg.default {
            DefaultRule::Fixed(choice) => choice.clone(),
            DefaultRule::Saved => {
                let saved = self.env.as_ref().and_then(|env| env.get("saved_entry"));
                saved.unwrap_or_default()
            }
        }
    }

    /// Whether the default is what the environment block remembers.
    pub fn default_is_saved(&self) -> bool {
        self.cfg.default == DefaultRule::Saved
    }

    /// The entry that is booted next.
    pub fn next(&self) -> Option<&MenuEntry> {
        match self.once() {
            Some(once) => self.cfg.resolve(&once),
            None => self.default(),
        }
    }

    /// Whether `id` has been well as it is now.
    pub fn has_proved(&self, id: EntryId) -> bool {
        self.entry(id).is_some_and(|entry| self.memory.has_proved(id, entry))
    }

    /// The last try, and where it stands.
    pub fn trial(&self) -> Option<(&Trial, Stage)> {
        let trial = self.memory.trial.as_ref()?;
        let stage = match &trial.verdict {
            Some(Verdict::Well) => Stage::Well,
            Some(Verdict::Failed(why)) => Stage::Failed(why.clone()),
            None if trial.asked_in == self.boot_id => match self.once() {
                Some(once) if once == trial.entry.as_str() => Stage::Waiting,
                _ => Stage::Withdrawn,
            },
            None if self.is_trial() && self.booted() == Some(trial.entry) => Stage::Running,
            None => Stage::Failed(
                "it never came to be well: it could not be loaded, Xen or Linux panicked or hung, or the machine was reset"
                    .to_owned(),
            ),
        };
        Some((trial, stage))
    }

    /// Lets GRUB boot `id` the next time only.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if GRUB would boot it again and again, or if something else than plain Linux would follow.
    pub fn set_once(&mut self, id: EntryId, keep: bool, dry_run: bool) -> Result<(), Error> {
        let entry = self.entry(id).ok_or(Refusal::NoEntry(id))?;
        if entry.script.split_whitespace().any(|word| word == "noreboot") {
            return Err(Refusal::NoReboot.into());
        }
        if !self.cfg.knows_once {
            return Err(Refusal::MenuIgnoresOnce(self.grub_cfg.clone()).into());
        }
        if let Some(other) = self.once().filter(|once| once.parse::<EntryId>().is_err()) {
            return Err(Refusal::ForeignOnce(other).into());
        }
        if id.is_xen()
            && let Some(default) = self.default().filter(|default| default.is_xen())
        {
            return Err(Refusal::NoWayBack {
                title: default.title.clone(),
            }
            .into());
        }
        self.grub_can_write(id)?;
        if dry_run {
            return Ok(());
        }
        // Known before it is set: what happens afterwards, somebody wants to know.
        self.memory.trial = Some(Trial::begin(id, keep, &self.boot_id));
        self.remember()?;
        self.env()?.change(&[("next_entry", Some(id.as_str()))])?;
        Ok(())
    }

    /// Takes back what [`set_once`](Self::set_once) has set. `false` if there was nothing.
    pub fn cancel(&mut self, dry_run: bool) -> Result<bool, Error> {
        match self.once() {
            None => return Ok(false),
            Some(other) if other.parse::<EntryId>().is_err() => return Err(Refusal::ForeignOnce(other).into()),
            Some(_) if dry_run => return Ok(true),
            Some(_) => {}
        }
        self.env()?.change(&[("next_entry", None)])?;
        self.memory.trial = None;
        self.remember()?;
        Ok(true)
    }

    /// What [`set_default`](Self::set_default) has to do beside remembering: whether GRUB's settings must change.
    pub fn needs_drop_in(&self, id: EntryId) -> Result<bool, Error> {
        let entry = self.entry(id).ok_or(Refusal::NoEntry(id))?;
        if id.is_xen() && !self.memory.has_proved(id, entry) {
            return Err(Refusal::NotProved(id).into());
        }
        if let Some(problem) = self.env_problem()
            && !matches!(problem, grubenv::Error::Missing(_))
        {
            return Err(problem.into());
        }
        if self.default_is_saved() {
            return Ok(false);
        }
        let directory = under(self.root, Path::new(DROP_IN).parent().unwrap_or(Path::new("/")));
        if !directory.is_dir() {
            return Err(Refusal::DefaultIsFixed(self.default_choice()).into());
        }
        match fs::read_to_string(under(self.root, Path::new(DROP_IN))) {
            Ok(text) if text != DROP_IN_TEXT => Err(Refusal::ForeignDropIn.into()),
            _ => Ok(true),
        }
    }

    /// Makes `id` what GRUB boots by itself; `write_menu` is called when the menu has to be written anew for it.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if an entry with Xen has not proved itself, or if there is no way to say it to GRUB.
    pub fn set_default(
        &mut self,
        id: EntryId,
        write_menu: impl FnOnce(&Path) -> Result<(), run::Error>,
    ) -> Result<(), Error> {
        let drop_in = self.needs_drop_in(id)?;
        GrubEnv::create(&self.env_path())?;
        // First the choice, then the setting that makes it count: no boot in between has a default that nobody chose.
        self.env()?
            .change(&[("saved_entry", Some(id.as_str())), ("prev_saved_entry", None)])?;
        if !drop_in {
            return Ok(());
        }
        let path = under(self.root, Path::new(DROP_IN));
        file::replace(&path, DROP_IN_TEXT.as_bytes(), 0o644).map_err(|source| Error::Io {
            path: path.clone(),
            source,
        })?;
        let written = write_menu(&self.grub_cfg).map_err(|source| Error::Run {
            what: "write the boot menu anew",
            source,
        });
        if written.is_err() {
            // Else the next kernel upgrade would do what could not be done now.
            drop(fs::remove_file(path));
        }
        written
    }

    /// This boot of an entry that is tried is well.
    pub fn confirm(&mut self) -> Result<EntryId, Error> {
        let id = self.judged()?;
        if let Some(entry) = self.entry(id) {
            let print = fingerprint(entry);
            self.memory.proved.insert(id, print);
        }
        self.note(id, Verdict::Well)?;
        Ok(id)
    }

    /// This boot of an entry that is tried is not well, for this reason.
    pub fn fail(&mut self, why: String) -> Result<EntryId, Error> {
        let id = self.judged()?;
        self.note(id, Verdict::Failed(why))?;
        Ok(id)
    }

    /// Whether the entry that was tried becomes the default when it is well.
    pub fn keeps(&self) -> bool {
        self.memory.trial.as_ref().is_some_and(|trial| trial.keep)
    }

    /// Whether this boot was found to be well before.
    pub fn is_confirmed(&self) -> bool {
        self.is_trial() && matches!(self.trial(), Some((_, Stage::Well)))
    }

    fn judged(&self) -> Result<EntryId, Error> {
        self.booted().filter(|_| self.is_trial()).ok_or(Error::NotOnTrial)
    }

    fn note(&mut self, id: EntryId, verdict: Verdict) -> Result<(), Error> {
        // An entry chosen at the menu in place of the one that was to be tried is a try as well.
        let trial = self.memory.trial.take().filter(|trial| trial.entry == id);
        let mut trial = trial.unwrap_or_else(|| Trial::begin(id, false, ""));
        trial.verdict = Some(verdict);
        self.memory.trial = Some(trial);
        self.remember()
    }

    fn remember(&self) -> Result<(), Error> {
        self.memory
            .save(self.root)
            .map_err(|(path, source)| Error::Io { path, source })
    }

    fn env_path(&self) -> PathBuf {
        under(self.root, &self.grub_cfg.with_file_name("grubenv"))
    }

    fn env(&mut self) -> Result<&mut GrubEnv, Error> {
        let path = self.env_path();
        Ok(match &mut self.env {
            Some(env) => env,
            none => none.insert(GrubEnv::read(&path)?),
        })
    }

    /// `Ok` if GRUB forgets `next_entry` before it boots it: a block that it can not write to would make "once" for ever.
    fn grub_can_write(&mut self, entry: EntryId) -> Result<(), Error> {
        self.env()?.is_whole()?;
        let path = self.grub_cfg.with_file_name("grubenv");
        let ask = |source| Error::Run {
            what: "find out what the boot file system is on",
            source,
        };
        let devices = self.probe.devices_of(&path).map_err(ask)?;
        let devices: Vec<String> = devices.lines().map(str::to_owned).collect();
        let layers = self.probe.device(&devices, "abstraction").map_err(ask)?;
        let layers: Vec<&str> = layers.split_whitespace().collect();
        let fs = self.probe.device(&devices, "fs").map_err(ask)?;
        let why = if !layers.is_empty() {
            format!("it is on {}", layers.join(" "))
        } else if NOT_WRITTEN.iter().any(|name| fs.starts_with(name)) {
            format!("its file system is {fs}")
        } else {
            return Ok(());
        };
        Err(Refusal::NotWritable { path, why, entry }.into())
    }
}

/// What Xen was told, beside what it should be told: `(option, in force)`.
pub fn limits(config: &BootConfig, xen_command_line: &str) -> Vec<(String, bool)> {
    let mut wanted = vec![
        format!("dom0_mem={},max:{}", config.dom0_mem, config.dom0_mem),
        format!("dom0_max_vcpus={}", config.dom0_max_vcpus),
    ];
    wanted.extend(config.watchdog.then(|| "watchdog".to_owned()));
    wanted.extend(config.sync_console.then(|| "sync_console".to_owned()));
    let words: Vec<&str> = xen_command_line.split_whitespace().collect();
    wanted
        .into_iter()
        .map(|option| {
            let in_force = words.contains(&option.as_str());
            (option, in_force)
        })
        .collect()
}

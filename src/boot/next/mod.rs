// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this machine boots next, and changing it: once, for good, or back. Nothing is left to a person standing before
//! the machine: an entry is tried only if GRUB forgets it before it boots it, and if what comes after a failure is plain
//! Linux.

mod generator;
pub mod judge;
pub mod refusal;
pub(super) mod trial;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use uuid::Uuid;

use self::generator::masked;
use self::refusal::{Error, Refusal};
use self::trial::{Memory, Trial, Verdict, fingerprint};
use super::entry_id::{BOOTED, EntryId, TRIAL};
use super::grub::grub_cfg::{DefaultRule, GrubCfg, MenuEntry};
use super::grub::grubenv::{self, GrubEnv};
use super::grub::probe::Probe;
use super::grub::settings::{DIRECTORIES, DROP_IN};
use super::xen_options::stands_still;
use crate::base::root::under;
use crate::file::{self, tree};
use crate::run;

/// What is in [`DROP_IN`].
const DROP_IN_TEXT: &str = "# Written by `ttvm boot default`: the entry that is booted is the one that command has chosen.\n\
     # Without this file it is again what /etc/default/grub says.\n\
     GRUB_DEFAULT=saved\n";

/// File systems that GRUB does not write to (its own list in 00_header.in).
const NOT_WRITTEN: [&str; 8] = ["btrfs", "cpiofs", "newc", "odc", "romfs", "squash4", "tarfs", "zfs"];

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
            tree::text(root, path, tree::WRITTEN).map_err(|source| Error::Io {
                path: path.to_owned(),
                source,
            })
        };
        Ok(Self {
            cfg: GrubCfg::parse(&text(&grub_cfg)?),
            env: GrubEnv::read(root, &grub_cfg.with_file_name("grubenv")).ok(),
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
        GrubEnv::read(self.root, &self.env_inside()).err()
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

    /// Whether `id` has been well as it is now, and has not failed since.
    pub fn has_proved(&self, id: EntryId) -> bool {
        let has_failed = matches!(self.trial(), Some((trial, Stage::Failed(_))) if trial.entry == id);
        let now = self.entry(id).map(|entry| fingerprint(self.root, entry));
        now.is_some() && self.memory.proved.get(&id) == now.as_ref() && !has_failed
    }

    /// The last try, and where it stands.
    pub fn trial(&self) -> Option<(&Trial, Stage)> {
        let trial = self.memory.trial.as_ref()?;
        let stage = match &trial.verdict {
            Some((Verdict::Well, _)) => Stage::Well,
            Some((Verdict::Failed(why), _)) => Stage::Failed(why.clone()),
            None if self.once().is_some_and(|once| once == trial.entry.as_str()) => Stage::Waiting,
            None if trial.asked_in == self.boot_id => Stage::Withdrawn,
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
        if let Some(option) = entry.script.split_whitespace().find(|word| stands_still(word)) {
            return Err(Refusal::NoReboot(option.to_owned()).into());
        }
        if let Some(path) = masked(self.root).filter(|_| id != EntryId::Linux) {
            return Err(Refusal::NoDeadline(path).into());
        }
        let print = fingerprint(self.root, entry);
        if !self.cfg.knows_once {
            return Err(Refusal::MenuIgnoresOnce(self.grub_cfg.clone()).into());
        }
        if let Some(other) = self.once().filter(|once| once.parse::<EntryId>().is_err()) {
            return Err(Refusal::ForeignOnce(other).into());
        }
        if id.is_xen() {
            if let Some(default) = self.default().filter(|default| !default.is_plain_linux()) {
                return Err(Refusal::NoWayBack {
                    title: default.title.clone(),
                }
                .into());
            }
            if self.cfg.waits {
                return Err(Refusal::Waits.into());
            }
        } else if keep {
            return Err(Refusal::NothingToProve.into());
        }
        if keep {
            self.default_can_change()?;
        }
        self.grub_can_write(id)?;
        if dry_run {
            return Ok(());
        }
        if id.is_xen() {
            if let Some((failed, Stage::Failed(_))) = self.trial() {
                let failed = failed.entry;
                self.memory.proved.remove(&failed);
            }
            // Known before it is set: what happens afterwards, somebody wants to know.
            self.memory.trial = Some(Trial::begin(id, keep, &self.boot_id, print));
            self.remember()?;
        }
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
        let waits = matches!(self.trial(), Some((_, Stage::Waiting)));
        self.env()?.change(&[("next_entry", None)])?;
        if waits {
            self.memory.trial = None;
            self.remember()?;
        }
        Ok(true)
    }

    /// What [`set_default`](Self::set_default) has to do beside remembering: whether GRUB's settings must change.
    pub fn needs_drop_in(&self, id: EntryId) -> Result<bool, Error> {
        self.entry(id).ok_or(Refusal::NoEntry(id))?;
        if id.is_xen() && !self.has_proved(id) {
            return Err(Refusal::NotProved(id).into());
        }
        self.default_can_change()
    }

    /// Whether GRUB's settings must change before its default is the saved one.
    fn default_can_change(&self) -> Result<bool, Error> {
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
        match tree::text(self.root, Path::new(DROP_IN), tree::SETTINGS) {
            Ok(text) if text == DROP_IN_TEXT => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            _ => Err(Refusal::ForeignDropIn.into()),
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
        written?;
        // A file that comes after ours may say otherwise, or nobody may read that directory.
        *self = Self::read(self.root, self.probe)?;
        match self.default_is_saved() {
            true => Ok(()),
            false => Err(Refusal::DefaultIsFixed(self.default_choice()).into()),
        }
    }

    /// This boot of an entry that is tried is well. It proves the entry if that is still what was booted.
    pub fn confirm(&mut self) -> Result<EntryId, Error> {
        let id = self.judged()?;
        let now = self.entry(id).map(|entry| fingerprint(self.root, entry));
        let tried = self.memory.trial.as_ref().filter(|trial| trial.entry == id);
        if let (Some(now), Some(trial)) = (now, tried)
            && now == trial.fingerprint
        {
            self.memory.proved.insert(id, now);
        }
        self.note(id, Verdict::Well)?;
        Ok(id)
    }

    /// This boot of an entry that is tried is not well, for this reason.
    pub fn fail(&mut self, why: String) -> Result<EntryId, Error> {
        let id = self.judged()?;
        self.memory.proved.remove(&id);
        self.note(id, Verdict::Failed(why))?;
        Ok(id)
    }

    /// Whether the entry that was tried becomes the default when it is well.
    pub fn keeps(&self) -> bool {
        let tried = self.memory.trial.as_ref();
        tried.is_some_and(|trial| trial.keep && self.booted() == Some(trial.entry))
    }

    /// Whether this very boot was found to be well before.
    pub fn is_confirmed(&self) -> bool {
        let verdict = self.memory.trial.as_ref().and_then(|trial| trial.verdict.as_ref());
        matches!(verdict, Some((Verdict::Well, boot)) if *boot == self.boot_id)
    }

    fn judged(&self) -> Result<EntryId, Error> {
        self.booted().filter(|_| self.is_trial()).ok_or(Error::NotOnTrial)
    }

    fn note(&mut self, id: EntryId, verdict: Verdict) -> Result<(), Error> {
        // An entry chosen at the menu in place of the one that was to be tried is a try as well.
        let trial = self.memory.trial.take().filter(|trial| trial.entry == id);
        let mut trial = trial.unwrap_or_else(|| Trial::begin(id, false, &self.boot_id, Uuid::nil()));
        trial.verdict = Some((verdict, self.boot_id.clone()));
        self.memory.trial = Some(trial);
        self.remember()
    }

    fn remember(&self) -> Result<(), Error> {
        self.memory
            .save(self.root)
            .map_err(|(path, source)| Error::Io { path, source })
    }

    fn env_inside(&self) -> PathBuf {
        self.grub_cfg.with_file_name("grubenv")
    }

    fn env_path(&self) -> PathBuf {
        under(self.root, &self.env_inside())
    }

    fn env(&mut self) -> Result<&mut GrubEnv, Error> {
        let inside = self.env_inside();
        Ok(match &mut self.env {
            Some(env) => env,
            none => none.insert(GrubEnv::read(self.root, &inside)?),
        })
    }

    /// `Ok` if GRUB forgets `next_entry`, here `entry`, before it boots it: a block that it cannot write to would make "once" for
    /// ever. Three of GRUB's programs are asked.
    ///
    /// # Errors
    ///
    /// What is wrong with the block, or [`Error::Refused`] if it lies where GRUB does not write.
    pub fn grub_can_write(&self, entry: EntryId) -> Result<(), Error> {
        let path = self.env_inside();
        GrubEnv::read(self.root, &path)?.is_whole()?;
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Switching a host with xend from one network to the other, and back.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{EditError, Error, SCRIPTS, Scripts, State, Step, Xend, XendConfig};
use crate::base::error::one_line;
use crate::base::root::under;
use crate::file::{self, Seen};
use crate::run::{self, Command, Program};

static SYSTEMD_RUN: Program = Program::new(&["systemd-run"]);

/// network-bridge alone waits up to 10 s for the link, and xend runs it when it starts.
const LIMIT: Duration = Duration::from_secs(90);

/// What was switched: all that [`Xend::revert`] needs, also in another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switched {
    /// What it was before, if that was one of the two.
    pub from: Option<Scripts>,
    /// What it is now.
    pub to: Scripts,
    /// The file before; `None` if there was none.
    before: Option<Vec<u8>>,
    after: Vec<u8>,
}

impl Switched {
    /// Whether anything was done.
    pub fn is_change(&self) -> bool {
        self.before.as_ref() != Some(&self.after)
    }

    /// The same switch, undone together with the `first` one before it.
    pub fn after(&self, first: Option<&Self>) -> Self {
        let first = first.unwrap_or(self);
        Self {
            from: first.from,
            before: first.before.clone(),
            to: self.to,
            after: self.after.clone(),
        }
    }
}

impl Xend {
    /// What [`switch`](Self::switch) would do, a sentence for each step; nothing if there is nothing to do.
    pub fn plan(&self, to: Scripts, force: bool, attached: usize) -> Result<Vec<String>, Error> {
        let (seen, config) = self.read()?;
        let switched = self.decide(&seen, &config, to, force, attached)?;
        if !switched.is_change() {
            return Ok(Vec::new());
        }
        let path = self.path();
        let edits = config.plan(to, force).map_err(|source| self.left(source))?;
        let stop = self.script(&config, "stop").map(|command| format!("run `{command}`"));
        let keep =
            (seen.content().is_some()).then(|| format!("copy {} to {}", path.display(), self.backup().display()));
        let edits = edits.into_iter().map(|edit| format!("{}: {edit}", path.display()));
        let restart = [format!("run `{}`", self.xend().map_err(Error::Undone)?)];
        Ok(keep.into_iter().chain(stop).chain(edits).chain(restart).collect())
    }

    /// What [`switch`](Self::switch) would return. Kept before it is called, it undoes a switch that was interrupted.
    pub fn prepare(&self, to: Scripts, force: bool, attached: usize) -> Result<Switched, Error> {
        let (seen, config) = self.read()?;
        self.decide(&seen, &config, to, force, attached)
    }

    /// Switches to `to`: stops the script of the old network, rewrites the file, restarts xend. If a step fails,
    /// everything is put back. `attached` is the number of guests' interfaces on the bridge.
    pub fn switch(&self, to: Scripts, force: bool, attached: usize) -> Result<Switched, Error> {
        let (seen, config) = self.read()?;
        let switched = self.decide(&seen, &config, to, force, attached)?;
        if !switched.is_change() {
            return Ok(switched);
        }
        // What can be known to fail later is not begun.
        self.xend().map_err(Error::Undone)?;
        self.keep(&seen)?;
        let stopped = self.run_script(&config, "stop").map_err(Step::Stop);
        if let Err(failed) = stopped.and_then(|()| self.write(Some(&switched.after), &seen)) {
            // The file is as it was, and xend still runs: its network is all that there is to put back.
            let back = self.run_script(&config, "start");
            return Err(self.undone(failed, back.map_err(|error| Error::Revert(Step::Start(error)))));
        }
        match self.restart() {
            Ok(()) => Ok(switched),
            Err(failed) => Err(self.undone(failed, self.back(&switched))),
        }
    }

    /// Undoes a switch, also one that was interrupted at any point, and also a second time.
    pub fn revert(&self, switched: &Switched) -> Result<(), Error> {
        match switched.is_change() {
            true => self.back(switched),
            false => Ok(()),
        }
    }

    fn decide(
        &self,
        seen: &Seen,
        config: &XendConfig,
        to: Scripts,
        force: bool,
        attached: usize,
    ) -> Result<Switched, Error> {
        let from = match self.judge(config) {
            State::Is(scripts) => Some(scripts),
            State::Foreign(_) if force => None,
            State::Foreign(reasons) => return Err(self.left(EditError::Foreign { reasons })),
        };
        if from == Some(Scripts::Bridge) && to == Scripts::Nat && attached > 0 && !force {
            return Err(Error::Attached { count: attached });
        }
        Ok(Switched {
            from,
            to,
            before: seen.content().map(<[u8]>::to_vec),
            after: config.switch(to, force).map_err(|source| self.left(source))?,
        })
    }
}

/// The steps.
impl Xend {
    /// The way back, from wherever a switch or an earlier way back has come to.
    fn back(&self, switched: &Switched) -> Result<(), Error> {
        let (seen, config) = self.read()?;
        let new = match (seen.content(), switched.from) {
            (content, _) if content == switched.before.as_deref() => None,
            (Some(content), _) if content == switched.after => Some(switched.before.clone()),
            // Somebody has worked on it since, which is to be kept.
            (Some(_), Some(from)) => Some(Some(config.switch(from, false).map_err(|source| self.left(source))?)),
            _ => {
                let (path, backup) = (self.path(), self.backup());
                return Err(Error::Changed { path, backup });
            }
        };
        if let Some(new) = new {
            // It may never have been started, and then has nothing to stop.
            if let Err(error) = self.run_script(&config, "stop") {
                tracing::warn!("{}", one_line(&error));
            }
            self.write(new.as_deref(), &seen).map_err(Error::Revert)?;
        }
        self.restart().map_err(Error::Revert)
    }

    /// The error for a `failed` step, by how the way back went.
    fn undone(&self, failed: Step, back: Result<(), Error>) -> Error {
        match back {
            Ok(()) => Error::Undone(failed),
            Err(second) => Error::Stuck {
                first: Box::new(failed),
                second: Box::new(second),
                path: self.path(),
                backup: self.backup(),
            },
        }
    }

    pub(super) fn left(&self, source: EditError) -> Error {
        let path = self.path();
        Error::Left { path, source }
    }

    /// Keeps a copy of the file, outside of /etc/xen, where people look for configuration.
    fn keep(&self, seen: &Seen) -> Result<(), Error> {
        let Some(content) = seen.content() else {
            return Ok(());
        };
        let path = self.backup();
        let directory = path.parent().map_or(Ok(()), fs::create_dir_all);
        let kept = directory.and_then(|()| file::replace(&path, content, 0o600));
        kept.map_err(|source| Error::Backup { path, source })
    }

    /// Writes the file, or removes it, if it is still what was `seen`.
    fn write(&self, content: Option<&[u8]>, seen: &Seen) -> Result<(), Step> {
        let path = self.path();
        let written = match content {
            Some(content) => file::replace_seen(&path, content, 0o644, seen),
            None => seen.check(&path).and_then(|()| fs::remove_file(&path)),
        };
        written.map_err(|source| Step::Write { path, source })
    }

    /// The network script that `config` names, as xend would run it.
    fn script(&self, config: &XendConfig, action: &str) -> Option<Command<'static>> {
        let script = config.network_script()?;
        // An absolute path stays one.
        let path = Path::new(SCRIPTS).join(OsStr::from_bytes(&script.file));
        let path = under(&self.root, &path);
        if !path.exists() {
            tracing::warn!("{} does not exist: it is not run with {action}", path.display());
            return None;
        }
        // They are names of interfaces and such: ASCII.
        let parameters = script
            .parameters
            .iter()
            .map(|parameter| String::from_utf8_lossy(parameter));
        Some(self.on_its_own(path).arg(action).args(parameters))
    }

    /// A command that may do all that it does on its own: xend stays in memory and would end with the service that has
    /// restarted it, and its scripts write where a sandbox does not let them. systemd runs it beside us, where there is one.
    fn on_its_own(&self, path: PathBuf) -> Command<'static> {
        let command = if self.root == Path::new("/") && Path::new("/run/systemd/system").exists() {
            // It waits for a oneshot unit to be up, and fails with it.
            Command::new(&SYSTEMD_RUN)
                .args(["--quiet", "--collect", "--property=Type=oneshot"])
                .args(["--property=KillMode=process", "--"])
                .arg(path.to_string_lossy())
        } else {
            Command::file(path)
        };
        command.deadline(LIMIT)
    }

    fn run_script(&self, config: &XendConfig, action: &str) -> Result<(), run::Error> {
        self.script(config, action)
            .map_or(Ok(()), |command| command.run().map(drop))
    }

    fn xend(&self) -> Result<Command<'static>, Step> {
        let missing = run::Error::NotInstalled { program: "xend" };
        let path = run::find(&self.root, "xend").ok_or(Step::Restart(missing))?;
        Ok(self.on_its_own(path).arg("restart"))
    }

    fn restart(&self) -> Result<(), Step> {
        self.xend()?.run().map(drop).map_err(Step::Restart)
    }
}

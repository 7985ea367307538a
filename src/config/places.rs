// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where configuration and state are: the system's for root, a user's own for everybody else, or what the command line says.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::Error;
use super::guest::Toolstack;
use crate::base::root::under;

/// The system's configuration.
const CONFIG: &str = "/etc/ttvm";
/// The system's state.
const STATE: &str = "/var/lib/ttvm";

/// What is there if systemd runs the system.
const SYSTEMD: &str = "/run/systemd/system";

/// What the command line says of them.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// `--root`: the tree that the system's places are in.
    pub root: Option<PathBuf>,
    /// `--config-dir`.
    pub config_dir: Option<PathBuf>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
}

/// Where everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    root: PathBuf,
    config: PathBuf,
    state: PathBuf,
    own: bool,
}

impl Places {
    /// The system's, in the tree that begins at `root`.
    pub fn system(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            config: CONFIG.into(),
            state: under(root, Path::new(STATE)),
            own: false,
        }
    }

    /// Those of whoever calls: the system's for root and with `--root`, else a user's own.
    pub fn of_caller(given: &Given) -> Result<Self, Error> {
        let own = given.root.is_none() && !geteuid().is_root();
        Self::resolve(given, own, &|name| env::var_os(name))
    }

    /// Those of the machine, whoever calls: what is booted is the same for everybody.
    pub fn of_machine(given: &Given) -> Result<Self, Error> {
        Self::resolve(given, false, &|name| env::var_os(name))
    }

    fn resolve(given: &Given, own: bool, variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let mut places = Self::system(given.root.as_deref().unwrap_or(Path::new("/")));
        match &given.config_dir {
            Some(directory) => places.config = absolute(directory)?,
            None if own => places.config = home("XDG_CONFIG_HOME", ".config", "--config-dir", variable)?,
            None => {}
        }
        match &given.state_dir {
            Some(directory) => places.state = absolute(directory)?,
            None if own => places.state = home("XDG_STATE_HOME", ".local/state", "--state-dir", variable)?,
            None => {}
        }
        places.own = places.config != Path::new(CONFIG);
        Ok(places)
    }

    /// The tree that the system's own files are read in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of `ttvm.toml` and `guests`, as messages call it. The system's is in the tree at [`root`](Self::root).
    pub fn config_dir(&self) -> &Path {
        &self.config
    }

    /// The directory of everything that ttvm keeps.
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// Whether they are a user's own, or those that the command line says, and not the system's.
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// Whether systemd's units run the guests of these places, for whoever calls: root's, where everything is the system's. In a
    /// container there may be no systemd (sd_booted(3)).
    pub fn has_units(&self) -> bool {
        geteuid().is_root() && *self == Self::system(Path::new("/")) && Path::new(SYSTEMD).is_dir()
    }

    /// Where the file at `path`, below [`config_dir`](Self::config_dir), is opened.
    pub fn real(&self, path: &Path) -> PathBuf {
        under(self.tree(), path)
    }

    /// The tree that the configuration is in.
    pub(super) fn tree(&self) -> &Path {
        if self.own { Path::new("/") } else { &self.root }
    }

    /// What starts a guest whose file does not say: Xen is the system's alone.
    pub fn toolstack(&self) -> Toolstack {
        if self.own { Toolstack::Qemu } else { Toolstack::Xl }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source: io::Error| Error::Place {
        path: path.to_owned(),
        source,
    })
}

/// `ttvm` in the directory that `name` says, else in `fallback` of the home directory (XDG Base Directory Specification).
fn home(
    name: &'static str,
    fallback: &str,
    option: &'static str,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, Error> {
    // What is not absolute does not count, says the specification.
    let path = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = path(name).or_else(|| path("HOME").map(|home| home.join(fallback)));
    let base = base.ok_or(Error::NoHome { name, option })?;
    Ok(base.join("ttvm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(given: &Given, own: bool, variables: &[(&str, &str)]) -> (PathBuf, PathBuf, Toolstack) {
        let variable = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name)?;
            Some(OsString::from(found.1))
        };
        let places = Places::resolve(given, own, &variable).expect("places");
        (places.config.clone(), places.state.clone(), places.toolstack())
    }

    #[test]
    fn the_systems_and_ones_own() {
        let none = Given::default();
        let expect = |config: &str, state: &str, toolstack| (config.into(), state.into(), toolstack);
        assert_eq!(
            resolve(&none, false, &[("XDG_CONFIG_HOME", "/x")]),
            expect("/etc/ttvm", "/var/lib/ttvm", Toolstack::Xl)
        );
        assert_eq!(
            resolve(&none, true, &[("HOME", "/home/u")]),
            expect("/home/u/.config/ttvm", "/home/u/.local/state/ttvm", Toolstack::Qemu)
        );
        let xdg = [
            ("HOME", "/home/u"),
            ("XDG_CONFIG_HOME", "/c"),
            ("XDG_STATE_HOME", "relative"),
        ];
        assert_eq!(
            resolve(&none, true, &xdg),
            expect("/c/ttvm", "/home/u/.local/state/ttvm", Toolstack::Qemu)
        );
    }

    #[test]
    fn what_the_command_line_says() {
        let given = Given {
            root: Some("/t".into()),
            config_dir: None,
            state_dir: Some("/s".into()),
        };
        let expect = |config: &str, state: &str, toolstack| (config.into(), state.into(), toolstack);
        assert_eq!(resolve(&given, false, &[]), expect("/etc/ttvm", "/s", Toolstack::Xl));
        let places = Places::resolve(&given, false, &|_| None).expect("places");
        assert_eq!(
            places.real(&places.config_dir().join("ttvm.toml")),
            Path::new("/t/etc/ttvm/ttvm.toml")
        );
        let given = Given {
            config_dir: Some("/c".into()),
            ..given
        };
        let places = Places::resolve(&given, false, &|_| None).expect("places");
        assert_eq!(
            (places.real(Path::new("/c/ttvm.toml")), places.toolstack()),
            ("/c/ttvm.toml".into(), Toolstack::Qemu)
        );
        // The same by its name.
        let given = Given {
            root: None,
            config_dir: Some("/etc/ttvm".into()),
            state_dir: None,
        };
        let variables = [("HOME", "/h")];
        assert_eq!(
            resolve(&given, true, &variables),
            expect("/etc/ttvm", "/h/.local/state/ttvm", Toolstack::Xl)
        );
    }

    #[test]
    fn without_a_home() {
        let error = Places::resolve(&Given::default(), true, &|_| None).expect_err("no place");
        assert_eq!(
            error.to_string(),
            "neither XDG_CONFIG_HOME nor HOME says where your configuration is: set one, or use --config-dir"
        );
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The network of a host whose Xen has xend (up to 4.4), as the time-travelling Xen does.
//!
//! xend runs the script of `(network-script …)` when it starts, and never stops it: who only changes the file and
//! restarts xend has the old bridge, or the old masquerading, as well as the new one. So a switch is: stop the old
//! script, rewrite the file, restart xend.

pub mod config;
mod edit;
mod error;
mod switch;
pub mod sxp;

use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

pub use config::{Scripts, State, XendConfig};
pub use edit::Error as EditError;
pub use error::{Error, Step};
pub use switch::Switched;

use crate::base::root::under;
use crate::config::types::{InterfaceName, Mac};
use crate::file::Seen;
use crate::run;

/// Where xend has its configuration, unless its environment says otherwise.
const CONFIG: &str = "/etc/xen/xend-config.sxp";

/// What the configuration was before the last switch.
const BACKUP: &str = "/var/lib/ttvm/xend-config.sxp.before";

/// What the network scripts' names are relative to.
const SCRIPTS: &str = "/etc/xen/scripts";

/// The xend of the system in the tree that begins at `root`.
#[derive(Debug, Clone)]
pub struct Xend {
    root: PathBuf,
    /// `XEND_CONFIG` of our own environment: xend's may have it, too, and then reads another file.
    elsewhere: Option<OsString>,
}

impl Xend {
    /// xend, or its configuration, if there is one.
    pub fn find(root: impl Into<PathBuf>) -> Option<Self> {
        let root = root.into();
        let is_there = under(&root, Path::new(CONFIG)).is_file() || run::find(&root, "xend").is_some();
        let elsewhere = std::env::var_os("XEND_CONFIG").filter(|path| path != CONFIG);
        is_there.then_some(Self { root, elsewhere })
    }

    /// xend, if it is installed: a configuration that it has left behind makes no network.
    pub fn installed(root: &Path) -> Option<Self> {
        run::find(root, "xend").and_then(|_| Self::find(root))
    }

    /// xend, if it makes the network of this host. Where its configuration names no network script, as Debian's since
    /// squeeze, the host has made that itself, and xend's script for guests' interfaces puts them on its bridge.
    pub fn in_charge(root: &Path) -> Option<Self> {
        Self::installed(root).filter(|xend| match xend.read() {
            Ok((_, config)) => xend.elsewhere.is_some() || config.makes_the_network(),
            // Who wants to change it hears why not.
            Err(_) => true,
        })
    }

    /// How the network is set.
    pub fn state(&self) -> Result<State, Error> {
        let (_, config) = self.read()?;
        Ok(self.judge(&config))
    }

    fn judge(&self, config: &XendConfig) -> State {
        let state = config.state();
        let Some(elsewhere) = &self.elsewhere else {
            return state;
        };
        let reason = format!(
            "XEND_CONFIG is {}: a xend that is started with it does not read {CONFIG}",
            elsewhere.display()
        );
        State::Foreign(match state {
            State::Is(_) => vec![reason],
            State::Foreign(reasons) => reasons.into_iter().chain([reason]).collect(),
        })
    }

    /// The file, links followed.
    fn path(&self) -> PathBuf {
        let path = under(&self.root, Path::new(CONFIG));
        path.canonicalize().unwrap_or(path)
    }

    fn backup(&self) -> PathBuf {
        under(&self.root, Path::new(BACKUP))
    }

    /// The file as it is; without one, xend has its defaults, as with an empty one.
    fn read(&self) -> Result<(Seen, XendConfig), Error> {
        let path = self.path();
        let seen = Seen::read(&path).map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        if seen.content().is_none() && path.is_symlink() {
            let source = io::Error::other("it is a link to a file that does not exist");
            return Err(Error::Read { path, source });
        }
        let config = self.parse(seen.content().unwrap_or_default())?;
        Ok((seen, config))
    }

    fn parse(&self, content: &[u8]) -> Result<XendConfig, Error> {
        XendConfig::parse(content.to_vec()).map_err(|source| Error::Syntax {
            path: self.path(),
            source,
        })
    }
}

/// The line of a guest's configuration for xm that gives it its interface: on `bridge`, or with `ip` behind NAT.
pub fn vif_line(to: Scripts, mac: Mac, bridge: Option<&InterfaceName>, ip: Option<Ipv4Addr>) -> Result<String, Error> {
    let mut vif = format!("mac={mac}");
    match to {
        Scripts::Nat => {
            let ip = ip.ok_or(Error::Missing(
                "with vif-nat a guest's interface needs an address of its own",
            ))?;
            if !(1..=127).contains(&ip.octets()[3]) {
                return Err(Error::Address(ip));
            }
            vif.push_str(&format!(",ip={ip}"));
        }
        // Without a name the script takes the first bridge it finds. With an address the script lets only that through.
        Scripts::Bridge => {
            vif.extend(bridge.map(|bridge| format!(",bridge={bridge}")));
            vif.extend(ip.map(|ip| format!(",ip={ip}")));
        }
    }
    Ok(format!("vif = ['{vif},script={}']", to.vif()))
}

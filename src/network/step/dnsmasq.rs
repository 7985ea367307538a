// SPDX-License-Identifier: MIT OR Apache-2.0
//! DHCP and DNS for guests behind the NAT bridge: dnsmasq, as `ttvm-dnsmasq.service`, on that bridge alone.

use std::fmt;
use std::fs;
use std::io::ErrorKind;

use serde::{Deserialize, Serialize};

use super::{Change, Context};
use crate::config::guests;
use crate::config::network::Subnet;
use crate::config::places::Places;
use crate::config::types::InterfaceName;
use crate::file;
use crate::guest::mode;
use crate::network::Error;
use crate::run::{Command, Program};

static DNSMASQ: Program = Program::new(&["dnsmasq"]);
static SYSTEMCTL: Program = Program::new(&["systemctl"]);

const UNIT: &str = "ttvm-dnsmasq.service";
const CONFIG: &str = "/run/ttvm/network/dnsmasq.conf";
const LEASES: &str = "/var/lib/ttvm/network/dnsmasq.leases";

/// How long an address is a guest's. dnsmasq gives none for less than two minutes; a guest that is moved to another
/// network asks again after half of it.
const LEASE: &str = "5m";

/// dnsmasq on one bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dnsmasq {
    /// The guests' bridge.
    pub bridge: InterfaceName,
    /// The guests' network.
    pub subnet: Subnet,
}

impl Dnsmasq {
    fn config(&self, context: &Context<'_>) -> String {
        let gateway = self.subnet.gateway();
        let mut lines = vec![
            "# Written by ttvm; what is changed here is lost at the next switch.".to_owned(),
            format!("interface={}", self.bridge),
            "except-interface=lo".to_owned(),
            "bind-interfaces".to_owned(),
            "no-hosts".to_owned(),
            "domain-needed".to_owned(),
            "bogus-priv".to_owned(),
            "dhcp-authoritative".to_owned(),
            format!("dhcp-option=option:router,{gateway}"),
            format!(
                "dhcp-hostsdir={}",
                context.path(&mode::hosts_directory().to_string_lossy()).display()
            ),
            format!("dhcp-leasefile={}", context.path(LEASES).display()),
            "pid-file=/run/ttvm/network/dnsmasq.pid".to_owned(),
        ];
        lines.extend(
            self.ranges()
                .map(|(from, to)| format!("dhcp-range={from},{to},{},{LEASE}", self.subnet.net().netmask())),
        );
        lines.join("\n") + "\n"
    }

    /// What is left of the network without the host's own addresses.
    fn ranges(&self) -> impl Iterator<Item = (std::net::Ipv4Addr, std::net::Ipv4Addr)> {
        let first = u32::from(self.subnet.net().network()) + 1;
        let last = u32::from(self.subnet.gateway()) - 1;
        let ranges = match self.subnet.old_gateway().map(u32::from) {
            Some(hole) => vec![(first, hole - 1), (hole + 1, last)],
            None => vec![(first, last)],
        };
        ranges
            .into_iter()
            .filter(|(from, to)| from <= to)
            .map(|(from, to)| (from.into(), to.into()))
    }
}

/// Whether the program is there.
pub fn check() -> Result<(), Error> {
    DNSMASQ.path().map(drop).map_err(|_| Error::BackendMissing {
        what:
            "dnsmasq is not installed, which gives guests their addresses: install dnsmasq-base, or set dhcp = false \
               in [network.nat] of ttvm.toml"
                .to_owned(),
    })
}

fn systemctl(action: &str) -> Result<(), Error> {
    let command = Command::new(&SYSTEMCTL).args(["-q", action, UNIT]);
    Ok(command.run().map(drop)?)
}

impl Change for Dnsmasq {
    fn apply(&self, context: &mut Context<'_>) -> Result<(), Error> {
        let directory = context.path(&mode::hosts_directory().to_string_lossy());
        let path = context.path(CONFIG);
        let written = fs::create_dir_all(&directory)
            .and_then(|()| match context.path(LEASES).parent() {
                Some(leases) => fs::create_dir_all(leases),
                None => Ok(()),
            })
            .and_then(|()| file::replace(&path, self.config(context).as_bytes(), 0o644));
        written.map_err(|source| Error::File {
            action: "write",
            path,
            source,
        })?;
        for guest in guests::all(&Places::system(context.root), context.config)? {
            mode::announce(context.root, &guest).map_err(|source| Error::File {
                action: "write",
                path: directory.clone(),
                source,
            })?;
        }
        systemctl("restart")
    }

    fn undo(&self, context: &mut Context<'_>) -> Result<(), Error> {
        let path = context.path(CONFIG);
        // Its unit needs the file: without the file it was never started.
        if !path.exists() {
            return Ok(());
        }
        systemctl("stop")?;
        let directory = context.path(&mode::hosts_directory().to_string_lossy());
        for removed in [
            fs::remove_dir_all(&directory),
            fs::remove_file(context.path(LEASES)),
            fs::remove_file(&path),
        ] {
            match removed {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(Error::File {
                        action: "remove",
                        path,
                        source,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn missing(&self, _: &mut Context<'_>) -> Result<Option<String>, Error> {
        let running = systemctl("is-active").is_ok();
        Ok((!running).then(|| format!("{UNIT} is not running (systemctl status {UNIT} says why)")))
    }

    fn undoing(&self) -> String {
        "stop giving guests addresses".to_owned()
    }
}

impl fmt::Display for Dnsmasq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "give guests on {} addresses (dnsmasq)", self.bridge)
    }
}

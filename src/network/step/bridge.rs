// SPDX-License-Identifier: MIT OR Apache-2.0
//! A bridge that ttvm makes and removes.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{Change, Context, sysctl};
use crate::config::types::{InterfaceName, Mac};
use crate::network::Error;
use crate::network::netlink::{self, Address, Link, NewBridge};

/// What is written to our bridges, for whoever looks (`ip link`).
const ALIAS: &str = "made by ttvm";

/// A bridge of our own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Its name.
    pub name: InterfaceName,
    /// Its address; with the name the proof that it is ours.
    pub mac: Mac,
    /// The largest packet, in bytes; the kernel's choice if there is none.
    pub mtu: Option<u32>,
    /// The host's addresses on it, with their prefixes.
    pub addresses: Vec<(Ipv4Addr, u8)>,
    /// Settings that go with it: `ipv4`, `forwarding`, `1`.
    pub settings: Vec<(String, String, String)>,
}

impl Bridge {
    /// The bridge that is there, if it is the one that this step makes.
    fn own(&self, context: &mut Context<'_>) -> Result<Option<Link>, Error> {
        let link = context.kernel.link(self.name.as_str())?;
        Ok(link.filter(|link| {
            let alias = link.alias.as_deref();
            // Without an alias it is ours only if it was made just now, and nobody has come further with it.
            let is_new = alias.is_none() && !link.is_up;
            link.is_bridge && link.mac == Some(self.mac) && (is_new || alias == Some(ALIAS))
        }))
    }

    fn setting(&self, (family, key, _): &(String, String, String)) -> String {
        format!("net/{family}/conf/{}/{key}", self.name)
    }
}

impl Change for Bridge {
    fn apply(&self, context: &mut Context<'_>) -> Result<(), Error> {
        if self.own(context)?.is_none() {
            let made = context.kernel.create_bridge(&NewBridge {
                name: self.name.as_str(),
                mac: self.mac,
                mtu: self.mtu,
            });
            if made.as_ref().is_err_and(|error| error.is(nix::libc::EEXIST)) {
                return Err(Error::Foreign {
                    what: format!("there is an interface {} that ttvm has not made", self.name),
                    remedy: "remove it, or choose another name for the bridge".to_owned(),
                });
            }
            made?;
        }
        let Some(link) = self.own(context)? else {
            return Err(netlink::Error::Answer(format!("{} is gone", self.name)).into());
        };
        context.kernel.set_alias(&link, ALIAS)?;
        // Before it is on: with IPv6 the kernel would give it an address, and listen to guests' router advertisements.
        for setting in &self.settings {
            sysctl::write(&self.setting(setting), &setting.2)?;
        }
        for (address, prefix) in &self.addresses {
            context.kernel.add_address(&link, &Address::new(*address, *prefix))?;
        }
        Ok(context.kernel.set_up(&link)?)
    }

    fn undo(&self, context: &mut Context<'_>) -> Result<(), Error> {
        match self.own(context)? {
            Some(link) => Ok(netlink::unless(nix::libc::ENODEV, context.kernel.delete_link(&link))?),
            None => Ok(()),
        }
    }

    fn missing(&self, context: &mut Context<'_>) -> Result<Option<String>, Error> {
        let Some(link) = self.own(context)? else {
            return Ok(Some(format!("there is no bridge {} of ttvm", self.name)));
        };
        if !link.is_up {
            return Ok(Some(format!("{} is switched off", self.name)));
        }
        for setting in &self.settings {
            let value = sysctl::read(&self.setting(setting))?;
            if let Some(value) = value.filter(|value| *value != setting.2) {
                return Ok(Some(format!("{} is {value}", self.setting(setting))));
            }
        }
        let there = context.kernel.addresses()?;
        let lacks = self.addresses.iter().find(|(address, prefix)| {
            let wanted = Address::new(*address, *prefix);
            !there.iter().any(|one| one.link() == link.index && one.is_same(&wanted))
        });
        Ok(lacks.map(|(address, prefix)| format!("{} has not the address {address}/{prefix}", self.name)))
    }

    fn undoing(&self) -> String {
        format!("remove the bridge {}", self.name)
    }
}

impl fmt::Display for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "make the bridge {}", self.name)?;
        for (position, (address, prefix)) in self.addresses.iter().enumerate() {
            write!(f, "{} {address}/{prefix}", if position == 0 { " with" } else { " and" })?;
        }
        Ok(())
    }
}

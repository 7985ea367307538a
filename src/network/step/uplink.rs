// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's own way out, through a bridge: the uplink becomes a port, its addresses and routes move to the bridge. The
//! kernel moves neither by itself.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Change, Context, sysctl};
use crate::config::types::InterfaceName;
use crate::network::Error;
use crate::network::netlink::{self, Address, Link, Reachability, Route};

/// How long a router may take to answer. A link that has just been switched may need a second or two.
const ANSWER: Duration = Duration::from_secs(10);

/// How long the kernel may take to make sure that an IPv6 address is nobody else's; usually a second.
const SETTLE: Duration = Duration::from_secs(5);

/// An uplink on a bridge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Uplink {
    /// The interface.
    pub uplink: InterfaceName,
    /// The bridge.
    pub bridge: InterfaceName,
    /// The number of the interface that `routes` were seen on.
    pub seen_on: u32,
    /// What moves. The kernel's own (link-local ones, those of router advertisements) comes by itself.
    pub addresses: Vec<Address>,
    /// What moves. The kernel's own comes with the addresses.
    pub routes: Vec<Route>,
    /// The uplink's IPv6 is switched off while it is a port, or it would keep the addresses that routers gave it; this is
    /// how it was.
    pub disable_ipv6: Option<String>,
    /// Routers that answered before: they have to afterwards.
    pub routers: Vec<IpAddr>,
}

impl Uplink {
    fn links(&self, context: &mut Context<'_>) -> Result<(Option<Link>, Option<Link>), Error> {
        let links = context.kernel.links()?;
        let find = |name: &InterfaceName| links.iter().find(|link| link.name == name.as_str()).cloned();
        Ok((find(&self.uplink), find(&self.bridge)))
    }

    fn ipv6_key(&self) -> String {
        format!("net/ipv6/conf/{}/disable_ipv6", self.uplink)
    }

    /// Moves what is on `from`. New comes before old: an address is at no time on neither. `at_once` ends at the first
    /// thing that fails; else everything is tried, as on a way back.
    fn carry(&self, context: &mut Context<'_>, from: Option<&Link>, to: &Link, at_once: bool) -> Result<(), Error> {
        let kernel = &mut context.kernel;
        let mut failed = None;
        let mut note = |result: Result<(), netlink::Error>| match result {
            Err(error) if at_once => Err(error),
            Err(error) => {
                tracing::error!("{error}");
                failed.get_or_insert(error);
                Ok(())
            }
            Ok(()) => Ok(()),
        };
        for address in &self.addresses {
            note(kernel.add_address(to, address))?;
        }
        if let Some(from) = from {
            for address in &self.addresses {
                note(kernel.remove_address(from, address))?;
            }
            // Those that do not depend on an address.
            for route in &self.routes {
                note(kernel.remove_route(route, self.seen_on, from))?;
            }
        }
        let mut later = Vec::new();
        for route in &self.routes {
            if kernel.add_route(route, self.seen_on, to).is_err() {
                later.push(route);
            }
        }
        if !later.is_empty() {
            // An IPv6 address is no source of a route before the kernel has made sure that it is nobody else's.
            note(kernel.settle(to, SETTLE))?;
        }
        for route in later {
            note(kernel.add_route(route, self.seen_on, to))?;
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    fn lacks(&self, context: &mut Context<'_>, link: &Link) -> Result<Option<String>, Error> {
        let addresses = context.kernel.addresses()?;
        let on_it = |address: &Address| addresses.iter().any(|a| a.link() == link.index && a.is_same(address));
        if let Some(address) = self.addresses.iter().find(|address| !on_it(address)) {
            return Ok(Some(format!("{} has not the address {address}", link.name)));
        }
        let routes = context.kernel.routes()?;
        let through_it = |route: &Route| {
            let same = |other: &&Route| other.is_same(route);
            routes
                .iter()
                .filter(same)
                .any(|other| other.links().any(|index| index == link.index))
        };
        if let Some(route) = self.routes.iter().find(|route| !through_it(route)) {
            return Ok(Some(format!("the route {route} does not lead through {}", link.name)));
        }
        for router in &self.routers {
            if context.kernel.probe(link, *router, ANSWER)? != Reachability::Answers {
                return Ok(Some(format!("the router {router} does not answer on {}", link.name)));
            }
        }
        Ok(None)
    }

    /// What is missing of the way back: a sentence, or `None` if everything is on the uplink again.
    pub fn missing_undone(&self, context: &mut Context<'_>) -> Result<Option<String>, Error> {
        match self.links(context)?.0 {
            None => Ok(None),
            Some(uplink) => self.lacks(context, &uplink),
        }
    }
}

impl Change for Uplink {
    fn apply(&self, context: &mut Context<'_>) -> Result<(), Error> {
        let (uplink, bridge) = self.links(context)?;
        let (Some(uplink), Some(bridge)) = (uplink, bridge) else {
            return Err(Error::UplinkUnsuitable {
                interface: self.uplink.to_string(),
                why: format!("it or {} is gone", self.bridge),
            });
        };
        if uplink.controller != Some(bridge.index) {
            context.kernel.set_controller(&uplink, Some(&bridge))?;
        }
        self.carry(context, Some(&uplink), &bridge, true)?;
        if self.disable_ipv6.is_some() {
            sysctl::write(&self.ipv6_key(), "1")?;
        }
        Ok(())
    }

    fn undo(&self, context: &mut Context<'_>) -> Result<(), Error> {
        let (uplink, bridge) = self.links(context)?;
        let Some(uplink) = uplink else {
            // Pulled out: what was on it went with it.
            return Ok(());
        };
        if let Some(before) = &self.disable_ipv6 {
            sysctl::write(&self.ipv6_key(), before)?;
        }
        if bridge
            .as_ref()
            .is_some_and(|bridge| uplink.controller == Some(bridge.index))
        {
            context.kernel.set_controller(&uplink, None)?;
        }
        self.carry(context, bridge.as_ref(), &uplink, false)
    }

    fn missing(&self, context: &mut Context<'_>) -> Result<Option<String>, Error> {
        let (uplink, bridge) = self.links(context)?;
        let (Some(uplink), Some(bridge)) = (uplink, bridge) else {
            return Ok(Some(format!("{} or {} is gone", self.uplink, self.bridge)));
        };
        if uplink.controller != Some(bridge.index) {
            return Ok(Some(format!("{} is no port of {}", self.uplink, self.bridge)));
        }
        if uplink.has_carrier && !bridge.has_carrier {
            return Ok(Some(format!("{} has no carrier", self.bridge)));
        }
        self.lacks(context, &bridge)
    }

    fn undoing(&self) -> String {
        format!("move the host's addresses and routes back to {}", self.uplink)
    }
}

impl fmt::Display for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "make {} a port of {} and move its addresses and routes there",
            self.uplink, self.bridge
        )?;
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        match addresses.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", addresses.join(", ")),
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guests' side of a switch: those that run are moved to the bridge as they are, those that are started join it.

use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use super::{Change, Context};
use crate::config::types::InterfaceName;
use crate::file::lock::{Attempt, Lock};
use crate::guest;
use crate::guest::mode::GuestNetwork;
use crate::network::netlink::{self, Link};
use crate::network::{Attachment, Error, attachments};
use crate::xenstore::XenStore;

/// The time xl gives its hotplug scripts, and some.
const BUILDING: Duration = Duration::from_secs(60);

/// Guests from one bridge to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guests {
    /// The bridge before.
    pub from: Option<InterfaceName>,
    /// The bridge after.
    pub to: Option<InterfaceName>,
    /// The bridge that guests join which are started after.
    pub told: Option<InterfaceName>,
    /// Those that are elsewhere before: the name of their interface, and of its bridge.
    pub elsewhere: Vec<(String, String)>,
}

impl Guests {
    /// Gives the guests `to`; `back` says for an interface where it was.
    fn join(
        &self,
        context: &mut Context<'_>,
        to: Option<&InterfaceName>,
        told: Option<&InterfaceName>,
        back: impl Fn(&Attachment) -> Option<String>,
    ) -> Result<(), Error> {
        let network = GuestNetwork { bridge: told.cloned() };
        let astray = |vif: &Attachment| {
            let bridge = back(vif).or_else(|| to.map(ToString::to_string));
            vif.stays.is_none() && vif.bridge != bridge.unwrap_or_default()
        };
        // A way back does not wait for anybody if there is nothing to go back from.
        if GuestNetwork::load(context.root) == network
            && !attachments::list(context.root, context.config, &mut context.kernel)?
                .iter()
                .any(astray)
        {
            return Ok(());
        }
        // No domain is built meanwhile: it would join the one bridge or the other, and nobody would know which.
        let _still = nobody_builds(context.root)?;
        network.save(context.root).map_err(|source| Error::File {
            action: "write",
            path: guest::mode::DIRECTORY.into(),
            source,
        })?;
        let attached = attachments::list(context.root, context.config, &mut context.kernel)?;
        if attached.is_empty() {
            return Ok(());
        }
        let links = context.kernel.links()?;
        let find = |name: &str| links.iter().find(|link| link.name == name);
        let mut store = XenStore::connect()?;
        for vif in attached.iter().filter(|vif| vif.stays.is_none()) {
            let bridge = back(vif).or_else(|| to.map(ToString::to_string));
            let target = bridge.as_deref().and_then(find);
            let domid = vif.domid;
            if bridge.as_deref().unwrap_or_default() != vif.bridge {
                for link in links.iter().filter(|link| vif.is_called(&link.name)) {
                    moved(context, link, target)?;
                }
                tracing::info!(
                    ttvm_guest = vif.guest,
                    ttvm_domid = domid,
                    "{} of {}: {} → {}",
                    vif.vif,
                    vif.guest.as_deref().unwrap_or("a guest"),
                    named(Some(vif.bridge.as_str()).filter(|name| !name.is_empty())),
                    named(bridge.as_deref()),
                );
            }
            // What Xen's scripts read when the guest goes.
            let backend = format!("/local/domain/0/backend/vif/{domid}/{}", vif.devid);
            if let Some(bridge) = &bridge
                && store.read(&backend)?.is_some()
            {
                store.write(&format!("{backend}/bridge"), bridge)?;
            }
        }
        Ok(())
    }
}

fn named(bridge: Option<&str>) -> &str {
    bridge.unwrap_or("no bridge")
}

/// A guest may end at any moment, and its interface with it.
fn moved(context: &mut Context<'_>, link: &Link, bridge: Option<&Link>) -> Result<(), Error> {
    let result = context.kernel.set_controller(link, bridge);
    Ok(netlink::unless(nix::libc::ENODEV, result)?)
}

fn nobody_builds(root: &Path) -> Result<Lock, Error> {
    let wait = |source| Error::File {
        action: "lock",
        path: "/run/ttvm/.xl.lock".into(),
        source,
    };
    match guest::building(root).map_err(|error| Error::NotSupported(crate::base::error::one_line(&error)))? {
        Attempt::Taken(lock) => Ok(lock),
        Attempt::Busy(waiting) => {
            let timeout = PollTimeout::try_from(BUILDING).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(waiting.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout).map_err(|errno| wait(errno.into()))? {
                0 => Err(Error::DomainInTheMaking(BUILDING)),
                _ => waiting.take().map_err(wait),
            }
        }
    }
}

impl Change for Guests {
    fn apply(&self, context: &mut Context<'_>) -> Result<(), Error> {
        self.join(context, self.to.as_ref(), self.told.as_ref(), |_| None)
    }

    fn undo(&self, context: &mut Context<'_>) -> Result<(), Error> {
        self.join(context, self.from.as_ref(), self.from.as_ref(), |vif| {
            let before = self.elsewhere.iter().find(|(name, _)| *name == vif.vif);
            before.map(|(_, bridge)| bridge.clone())
        })
    }

    fn missing(&self, context: &mut Context<'_>) -> Result<Option<String>, Error> {
        if GuestNetwork::load(context.root).bridge != self.told {
            return Ok(Some("new guests do not know the mode".to_owned()));
        }
        let wanted = self.to.as_ref().map_or("", InterfaceName::as_str);
        let attached = attachments::list(context.root, context.config, &mut context.kernel)?;
        let astray = attached.iter().find(|vif| vif.stays.is_none() && vif.bridge != wanted);
        Ok(astray.map(|vif| {
            format!(
                "{} is on {}",
                vif.vif,
                named(Some(vif.bridge.as_str()).filter(|b| !b.is_empty()))
            )
        }))
    }

    fn undoing(&self) -> String {
        format!(
            "move guests back to {}",
            named(self.from.as_ref().map(InterfaceName::as_str))
        )
    }
}

impl fmt::Display for Guests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "move guests to {}",
            named(self.to.as_ref().map(InterfaceName::as_str))
        )
    }
}

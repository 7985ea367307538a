// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which interfaces guests have, and where these are attached.

use std::path::Path;

use super::netlink::Netlink;
use super::{Attachment, Error};
use crate::config::guest::Guest;
use crate::config::guests;
use crate::config::host::HostConfig;
use crate::config::places::Places;
use crate::guest::domain::{self, Domain};
use crate::xenstore::{self, XenStore};

/// Xen's own script, which joins a vif to a bridge.
const VIF_BRIDGE: &str = "vif-bridge";

/// All guests' interfaces; none on a host that does not run Xen.
pub fn list(root: &Path, config: &HostConfig, kernel: &mut Netlink) -> Result<Vec<Attachment>, Error> {
    if !xenstore::is_here() {
        return Ok(Vec::new());
    }
    let mut store = XenStore::connect()?;
    let domains = domain::list(&mut store)?;
    if domains.is_empty() {
        return Ok(Vec::new());
    }
    let guests = guests::all(&Places::system(root), config)?;
    let links = kernel.links()?;
    let mut list = Vec::new();
    for domain in domains.values() {
        let guest = guests.iter().find(|guest| domain.uuid == Some(guest.uuid));
        let backends = format!("/local/domain/0/backend/vif/{}", domain.domid);
        let mut devices: Vec<u32> = store.list(&backends)?.iter().filter_map(|id| id.parse().ok()).collect();
        devices.sort_unstable();
        for devid in devices {
            let mut read = |key: &str| store.read(&format!("{backends}/{devid}/{key}"));
            // xl writes it down if it was asked for another name than the usual one.
            let named = read("vifname")?.filter(|name| !name.is_empty());
            let vif = named.unwrap_or_else(|| format!("vif{}.{devid}", domain.domid));
            let script = read("script")?.unwrap_or_default();
            // A domain on its way out has lost it already.
            let Some(link) = links.iter().find(|link| link.name == vif) else {
                continue;
            };
            let bridge = links.iter().find(|other| Some(other.index) == link.controller);
            list.push(Attachment {
                domid: domain.domid,
                devid,
                guest: guest.map(|guest| guest.name.to_string()),
                stays: why_it_stays(domain, guest, devid, &script),
                vif,
                bridge: bridge.map_or_else(String::new, |bridge| bridge.name.clone()),
                script,
            });
        }
    }
    Ok(list)
}

fn why_it_stays(domain: &Domain, guest: Option<&Guest>, devid: u32, script: &str) -> Option<String> {
    let Some(guest) = guest else {
        return Some(format!("\"{}\" is no guest of ttvm", domain.name));
    };
    let Some(vif) = guest.vifs.get(devid as usize) else {
        return Some(format!("the file of {} does not tell of it any more", guest.name));
    };
    if let Some(bridge) = &vif.bridge {
        return Some(format!("{} pins it to {bridge}", guest.name));
    }
    let name = Path::new(script).file_name().unwrap_or_default();
    (name != VIF_BRIDGE).then(|| format!("it has a script of its own ({script})"))
}

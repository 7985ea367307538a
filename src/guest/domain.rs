// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding a guest's domain in Xen's store.

use std::collections::BTreeMap;

use crate::config::types::{GuestName, GuestUuid};
use crate::xenstore::{Error, XenStore};

/// A domain that exists, running or shut down but not yet destroyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its id.
    pub domid: u32,
    /// Its name.
    pub name: String,
    /// Its UUID; none for dom0 and for domains that are still being built.
    pub uuid: Option<GuestUuid>,
    /// Its memory in bytes.
    pub memory: u64,
}

/// All domains but dom0, by id.
pub fn list(store: &mut XenStore) -> Result<BTreeMap<u32, Domain>, Error> {
    let mut domains = BTreeMap::new();
    for directory in store.list("/local/domain")? {
        let path = format!("/local/domain/{directory}");
        let Ok(domid @ 1..) = directory.parse::<u32>() else {
            continue;
        };
        let vm = store.read(&format!("{path}/vm"))?;
        let memory = store.read(&format!("{path}/memory/target"))?;
        let domain = Domain {
            domid,
            name: store.read(&format!("{path}/name"))?.unwrap_or_default(),
            uuid: vm.and_then(|vm| vm.strip_prefix("/vm/")?.parse().ok()),
            memory: memory.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10,
        };
        domains.insert(domid, domain);
    }
    Ok(domains)
}

/// What stands where a guest's domain would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// Nothing.
    Absent,
    /// The guest's own domain.
    Own(Domain),
    /// A domain of the same name and another UUID.
    Foreign(Domain),
}

/// Looks for the guest among `domains`.
pub fn presence(domains: &BTreeMap<u32, Domain>, name: &GuestName, uuid: GuestUuid) -> Presence {
    if let Some(own) = domains.values().find(|domain| domain.uuid == Some(uuid)) {
        return Presence::Own(own.clone());
    }
    match domains.values().find(|domain| domain.name == name.as_str()) {
        Some(foreign) => Presence::Foreign(foreign.clone()),
        None => Presence::Absent,
    }
}

/// Whether the store still knows the domain.
pub fn exists(store: &mut XenStore, domid: u32) -> Result<bool, Error> {
    Ok(store.read(&format!("/local/domain/{domid}/domid"))?.is_some())
}

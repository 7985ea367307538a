// SPDX-License-Identifier: MIT OR Apache-2.0
//! `org.ttvm.Network1.Manager`: who calls it, with what, and what they are told.

use std::sync::Arc;

use serde::Serialize;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, ObjectPath};

use super::authority;
use super::changes::{Last, Service};
use super::error::Error;
use super::options::{self, Settings};
use super::proxy::AttachmentRow;
use super::view::{self, or_empty};
use crate::network::{Network, Status};

/// The networks of this host.
pub struct Manager {
    service: Arc<Service>,
}

impl Manager {
    /// Of this service.
    pub fn new(service: Arc<Service>) -> Self {
        Self { service }
    }
}

/// All of it.
#[derive(Serialize)]
struct Description {
    #[serde(flatten)]
    status: Status,
    conflicts: Vec<String>,
    version: &'static str,
    last: Option<Last>,
}

/// The networks of guests on this host. `org.ttvm.Network1.xml` is written from this.
#[zbus::interface(name = "org.ttvm.Network1.Manager")]
impl Manager {
    /// Everything there is to know, as JSON.
    #[zbus(out_args("json"))]
    async fn describe(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        let _running = self.service.activity.begin();
        let uid = authority::sender(connection, &header).await?;
        let description = Description {
            conflicts: self.service.conflicts(uid).await?,
            status: self.service.status()?,
            version: env!("CARGO_PKG_VERSION"),
            last: self.service.last(),
        };
        serde_json::to_string(&description).map_err(|error| Error::failed(error.to_string()))
    }

    /// What a switch would do, in sentences. Changes nothing. mode: nat, bridge or none. options: bridge (s), uplink (s),
    /// manage_uplink (b), subnet (s), dhcp (b), in place of what is configured. flags: 1 force.
    #[zbus(out_args("from", "to", "steps", "afterwards", "warnings", "moves_uplink"))]
    async fn plan(
        &self,
        mode: &str,
        options: Settings,
        flags: u64,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(String, String, Vec<String>, Vec<String>, Vec<String>, bool), Error> {
        let _running = self.service.activity.begin();
        let request = options::request(mode, options, 0, flags)?;
        let uid = authority::sender(connection, &header).await?;
        let plan = move |network: &Network| network.plan(&request);
        let preview = self.service.worker.look(uid, plan).await?;
        Ok((
            preview.from.to_string(),
            preview.to.to_string(),
            preview.steps,
            preview.afterwards,
            preview.warnings,
            preview.moves_uplink,
        ))
    }

    /// Begins a switch and returns the object of the change, "/" if there is nothing to do. TransactionFinished tells how
    /// it ends. confirm_s: how long it waits to be confirmed before it is undone, 10 to 3600, or 0: it is kept once it
    /// works.
    #[zbus(out_args("transaction"))]
    async fn switch_mode(
        &self,
        mode: &str,
        options: Settings,
        confirm_s: u32,
        flags: u64,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<ObjectPath<'static>, Error> {
        let _running = self.service.activity.begin();
        let request = options::request(mode, options, confirm_s, flags)?;
        let uplink = or_empty(request.options.uplink.as_ref());
        let details = [("mode", request.mode.as_str()), ("uplink", &uplink)];
        self.service.authority.check(connection, &header, &details).await?;
        let id = self.service.switch(request).await?;
        Ok(id.map_or(view::NO_PATH, view::path_of))
    }

    /// Keeps a change that waits for that.
    async fn confirm(
        &self,
        transaction: ObjectPath<'_>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        let _running = self.service.activity.begin();
        let id = options::id_of(&transaction)?;
        self.service.authority.check(connection, &header, &[]).await?;
        self.service.confirm(id).await
    }

    /// Undoes a change that waits to be confirmed.
    async fn rollback(
        &self,
        transaction: ObjectPath<'_>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        let _running = self.service.activity.begin();
        let id = options::id_of(&transaction)?;
        self.service.authority.check(connection, &header, &[]).await?;
        self.service.rollback(id).await
    }

    /// Lets a change wait for that many seconds (10 to 3600) from now; returns its deadline in µs since 1970.
    #[zbus(out_args("deadline_usec"))]
    async fn extend(
        &self,
        transaction: ObjectPath<'_>,
        confirm_s: u32,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<u64, Error> {
        let _running = self.service.activity.begin();
        let id = options::id_of(&transaction)?;
        let time = options::confirm(confirm_s)?;
        self.service.authority.check(connection, &header, &[]).await?;
        self.service.extend(id, time).await
    }

    /// Makes again what is missing of the mode that was chosen; returns what was done, in sentences. flags: 0.
    #[zbus(out_args("done"))]
    async fn reconcile(
        &self,
        flags: u64,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<String>, Error> {
        let _running = self.service.activity.begin();
        options::known(flags, 0)?;
        self.service.authority.check(connection, &header, &[]).await?;
        self.service.reconcile().await
    }

    /// The guests' interfaces: domain, number, guest, name in dom0, bridge, script, why it stays where it is when the mode
    /// changes; what is not known is empty.
    #[zbus(out_args("attachments"))]
    async fn list_attachments(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Vec<AttachmentRow>, Error> {
        let _running = self.service.activity.begin();
        let uid = authority::sender(connection, &header).await?;
        let attachments = self.service.worker.look(uid, Network::attachments).await?;
        Ok(attachments
            .into_iter()
            .map(|one| {
                let (guest, stays) = (one.guest.unwrap_or_default(), one.stays.unwrap_or_default());
                (one.domid, one.devid, guest, one.vif, one.bridge, one.script, stays)
            })
            .collect())
    }

    /// The mode in force: nat, bridge or none.
    #[zbus(property)]
    fn mode(&self) -> Result<String, Error> {
        Ok(self.service.status()?.mode.to_string())
    }

    /// The mode that was chosen last and kept.
    #[zbus(property)]
    fn desired_mode(&self) -> Result<String, Error> {
        Ok(self.service.status()?.desired.to_string())
    }

    /// idle, applying, awaiting-confirm, rolling-back or degraded.
    #[zbus(property)]
    fn state(&self) -> Result<String, Error> {
        Ok(self.service.status()?.state.as_str().to_owned())
    }

    /// What makes the guests' networks: xl or xend.
    #[zbus(property)]
    fn backend(&self) -> Result<String, Error> {
        Ok(self.service.status()?.backend.as_str().to_owned())
    }

    /// The bridge that guests join, or empty.
    #[zbus(property)]
    fn bridge(&self) -> Result<String, Error> {
        Ok(or_empty(self.service.status()?.bridge.as_ref()))
    }

    /// The interface that was moved to the bridge, or empty.
    #[zbus(property)]
    fn uplink(&self) -> Result<String, Error> {
        Ok(or_empty(self.service.status()?.uplink.as_ref()))
    }

    /// The guests' network in mode nat, or empty.
    #[zbus(property)]
    fn subnet(&self) -> Result<String, Error> {
        Ok(or_empty(self.service.status()?.subnet.as_ref()))
    }

    /// The object of the change on its way, or "/".
    #[zbus(property)]
    fn pending_transaction(&self) -> Result<ObjectPath<'static>, Error> {
        Ok(view::pending(&self.service.status()?))
    }

    /// When it is undone, in µs since 1970; 0 if there is none, or that is not known yet.
    #[zbus(property, name = "RollbackDeadlineUSec")]
    fn rollback_deadline_usec(&self) -> Result<u64, Error> {
        Ok(view::deadline_usec(&self.service.status()?))
    }

    /// What else on this host stops guests' packets, in sentences.
    #[zbus(property)]
    async fn conflicts(&self) -> Vec<String> {
        self.service.known_conflicts()
    }

    /// The service's version.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    /// A change is on its way.
    #[zbus(signal)]
    async fn transaction_started(
        emitter: &SignalEmitter<'_>,
        transaction: ObjectPath<'_>,
        from: &str,
        to: &str,
        deadline_usec: u64,
    ) -> zbus::Result<()>;

    /// It is over: kept, rolled-back or failed, and why. Its object is gone.
    #[zbus(signal)]
    async fn transaction_finished(
        emitter: &SignalEmitter<'_>,
        transaction: ObjectPath<'_>,
        result: &str,
        error: &str,
    ) -> zbus::Result<()>;
}

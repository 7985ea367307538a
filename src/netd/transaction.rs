// SPDX-License-Identifier: MIT OR Apache-2.0
//! `org.ttvm.Network1.Transaction`: the object of a change on its way.

use std::sync::Arc;

use zbus::Connection;
use zbus::message::Header;

use super::changes::Service;
use super::error::Error;
use super::{options, view};

/// A change on its way.
pub struct Transaction {
    service: Arc<Service>,
    id: u64,
    from: &'static str,
    to: &'static str,
}

impl Transaction {
    /// The change `id`.
    pub fn new(service: Arc<Service>, id: u64, from: &'static str, to: &'static str) -> Self {
        Self { service, id, from, to }
    }
}

/// A change on its way. Its object is gone once it is over, which TransactionFinished of the manager tells.
#[zbus::interface(name = "org.ttvm.Network1.Transaction")]
impl Transaction {
    /// Keeps it.
    async fn confirm(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        let _running = self.service.activity.begin();
        self.service.authority.check(connection, &header, &[]).await?;
        self.service.confirm(self.id).await
    }

    /// Undoes it.
    async fn rollback(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        let _running = self.service.activity.begin();
        self.service.authority.check(connection, &header, &[]).await?;
        self.service.rollback(self.id).await
    }

    /// Lets it wait for that many seconds (10 to 3600) from now; returns its deadline in µs since 1970.
    #[zbus(out_args("deadline_usec"))]
    async fn extend(
        &self,
        confirm_s: u32,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<u64, Error> {
        let _running = self.service.activity.begin();
        let time = options::confirm(confirm_s)?;
        self.service.authority.check(connection, &header, &[]).await?;
        self.service.extend(self.id, time).await
    }

    /// Its number.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> u64 {
        self.id
    }

    /// The mode before.
    #[zbus(property(emits_changed_signal = "const"))]
    fn from(&self) -> &str {
        self.from
    }

    /// The mode after.
    #[zbus(property(emits_changed_signal = "const"))]
    fn to(&self) -> &str {
        self.to
    }

    /// As the manager's.
    #[zbus(property)]
    fn state(&self) -> Result<String, Error> {
        Ok(self.service.status()?.state.as_str().to_owned())
    }

    /// When it is undone, in µs since 1970; 0 as long as that is not known.
    #[zbus(property, name = "DeadlineUSec")]
    fn deadline_usec(&self) -> Result<u64, Error> {
        Ok(view::deadline_usec(&self.service.status()?))
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may change the network: root, and whom polkit says yes to. Whatever goes wrong on the way is a no.
//!
//! The one method of polkit that is needed is called as it is (CheckAuthorization in
//! <https://www.freedesktop.org/software/polkit/docs/latest/eggdbus-interface-org.freedesktop.PolicyKit1.Authority.html>).
//! The caller is named by its connection, not by its process, whose number may be another's by then (CVE-2013-4288).

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::fdo::DBusProxy;
use zbus::message::{Flags, Header};
use zbus::names::{BusName, UniqueName};
use zbus::{Connection, Variant};

use super::error::Error;
use super::users::{ROOT, Users};

/// The action in `org.ttvm.network.policy`.
const ACTION: &str = "org.ttvm.network.switch";
const POLKIT: &str = "org.freedesktop.PolicyKit1";
const POLKIT_PATH: &str = "/org/freedesktop/PolicyKit1/Authority";
const POLKIT_INTERFACE: &str = "org.freedesktop.PolicyKit1.Authority";
const ALLOW_USER_INTERACTION: u32 = 1;
/// polkit answers at once unless somebody is asked; it may have to be started first.
const ANSWER: Duration = Duration::from_secs(15);
/// Somebody who is asked.
const ASKED: Duration = Duration::from_secs(300);
/// Checks at the same time for one user.
const PER_USER: u32 = 4;

/// Asks polkit.
pub struct Authority {
    checks: Users,
    serial: AtomicU64,
}

impl Default for Authority {
    fn default() -> Self {
        Self {
            checks: Users::new(PER_USER),
            serial: AtomicU64::default(),
        }
    }
}

/// The user who sent this message.
pub async fn sender(connection: &Connection, header: &Header<'_>) -> Result<u32, Error> {
    let Some(sender) = header.sender() else {
        return Err(Error::denied("a caller without a name"));
    };
    let bus = DBusProxy::new(connection).await.map_err(denied)?;
    let caller = BusName::from(sender.to_owned());
    bus.get_connection_unix_user(caller).await.map_err(denied)
}

impl Authority {
    /// Whether who sent this message may change the network. `details` are for polkit's rules.
    pub async fn check(
        &self,
        connection: &Connection,
        header: &Header<'_>,
        details: &[(&str, &str)],
    ) -> Result<(), Error> {
        let Some(sender) = header.sender() else {
            return Err(Error::denied("a caller without a name"));
        };
        let interactive = header.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH);
        let bus = DBusProxy::new(connection).await.map_err(denied)?;
        let caller = BusName::from(sender.to_owned());
        let uid = bus.get_connection_unix_user(caller.clone()).await.map_err(denied)?;
        if uid == ROOT {
            return Ok(());
        }
        let _counted = (self.checks.count(uid))
            .ok_or_else(|| Error::limits("too many calls of this user wait for polkit's answer"))?;
        if !interactive {
            return self.ask(connection, sender, details, 0, ANSWER).await;
        }
        // Somebody who is gone needs no answer, and the user's dialogue goes with them.
        let name = sender.as_str();
        let gone = bus
            .receive_name_owner_changed_with_args(&[(0, name), (2, "")])
            .await
            .map_err(denied)?;
        // Gone before that was listened to?
        bus.get_connection_unix_user(caller).await.map_err(denied)?;
        let mut gone = pin!(gone);
        tokio::select! {
            result = self.ask(connection, sender, details, ALLOW_USER_INTERACTION, ASKED) => result,
            _ = gone.next() => Err(Error::denied("the caller is gone")),
        }
    }

    async fn ask(
        &self,
        connection: &Connection,
        sender: &UniqueName<'_>,
        details: &[(&str, &str)],
        flags: u32,
        limit: Duration,
    ) -> Result<(), Error> {
        let cancellation = Cancellation {
            connection,
            id: format!("ttvm-{}", self.serial.fetch_add(1, Ordering::Relaxed)),
            armed: true,
        };
        let subject = (
            "system-bus-name",
            HashMap::from([("name", Variant::from(sender.as_str()))]),
        );
        let details: HashMap<&str, &str> = details.iter().copied().collect();
        let body = (subject, ACTION, details, flags, cancellation.id.as_str());
        let call = connection.call_method(
            Some(POLKIT),
            POLKIT_PATH,
            Some(POLKIT_INTERFACE),
            "CheckAuthorization",
            &body,
        );
        let reply = tokio::time::timeout(limit, call)
            .await
            .map_err(|_| Error::denied("polkit did not answer in time"))?;
        cancellation.not_needed();
        let reply = reply.map_err(denied)?;
        let (authorized, challenge, _details): (bool, bool, HashMap<String, String>) =
            reply.body().deserialize().map_err(denied)?;
        match (authorized, challenge) {
            (true, _) => Ok(()),
            (false, true) if flags == 0 => Err(Error::interaction_required()),
            (false, _) => Err(Error::denied(format!("polkit does not allow {ACTION}"))),
        }
    }
}

fn denied(error: impl std::fmt::Display) -> Error {
    Error::denied(format!("who calls, or what polkit says, is not known: {error}"))
}

/// Takes a question back that nobody waits for any more.
struct Cancellation<'a> {
    connection: &'a Connection,
    id: String,
    armed: bool,
}

impl Cancellation<'_> {
    fn not_needed(mut self) {
        self.armed = false;
    }
}

impl Drop for Cancellation<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let connection = self.connection.clone();
        let id = std::mem::take(&mut self.id);
        tokio::spawn(async move {
            let call = connection.call_method(
                Some(POLKIT),
                POLKIT_PATH,
                Some(POLKIT_INTERFACE),
                "CancelCheckAuthorization",
                &id,
            );
            // It may hang as the question did.
            let _ = tokio::time::timeout(ANSWER, call).await;
        });
    }
}

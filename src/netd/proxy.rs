// SPDX-License-Identifier: MIT OR Apache-2.0
//! `org.ttvm.Network1` as its clients see it.
//!
//! Methods that change something carry `ALLOW_INTERACTIVE_AUTH`, as systemctl's do: where an agent runs, the user is
//! asked. Who must not be asked calls them through `proxy.inner().call(…)`, which sets no flag.

use std::collections::HashMap;

use zbus::{ObjectPath, OwnedObjectPath, Variant};

/// The service's name on the system bus, and the beginning of the names of its errors.
pub const NAME: &str = "org.ttvm.Network1";
/// The object of its manager.
pub const PATH: &str = "/org/ttvm/Network1";
/// What stands before the name of an error ([`crate::network::Error::name`]).
pub const ERROR_PREFIX: &str = "org.ttvm.Network1.Error.";
/// `flags`: do what can be done although something speaks against it.
pub const FLAG_FORCE: u64 = 1;

/// `options`: `bridge` s, `uplink` s, `manage_uplink` b, `subnet` s, `dhcp` b; what is not given is as configured.
pub type Settings<'a> = HashMap<&'a str, Variant<'a>>;

/// What a switch would do: from, to, steps, what is done once it is confirmed, warnings, and whether the host's own
/// addresses move ([`crate::network::Preview`]).
pub type Plan = (String, String, Vec<String>, Vec<String>, Vec<String>, bool);

/// A guest's interface: domain, number, guest, name in dom0, bridge, script, why it stays
/// ([`crate::network::Attachment`]; what is not known is empty).
pub type AttachmentRow = (u32, u32, String, String, String, String, String);

/// The networks of this host.
#[zbus::proxy(
    interface = "org.ttvm.Network1.Manager",
    default_service = "org.ttvm.Network1",
    default_path = "/org/ttvm/Network1"
)]
pub trait Manager {
    /// Everything there is to know, as JSON: [`crate::network::Status`] with `conflicts`, `version` and `last`
    /// (`{id, result, error}` of the change that ended last since the service started, or null).
    fn describe(&self) -> zbus::Result<String>;

    /// What a switch would do; changes nothing.
    fn plan(&self, mode: &str, options: &Settings<'_>, flags: u64) -> zbus::Result<Plan>;

    /// Begins a switch and returns the object of the change, `/` if there is nothing to do. How it ends is told by
    /// `TransactionFinished`. `confirm_s` is 0 (it is kept once it works) or 10 to 3600.
    #[zbus(allow_interactive_auth)]
    fn switch_mode(
        &self,
        mode: &str,
        options: &Settings<'_>,
        confirm_s: u32,
        flags: u64,
    ) -> zbus::Result<OwnedObjectPath>;

    /// Keeps a change that waits for that.
    #[zbus(allow_interactive_auth)]
    fn confirm(&self, transaction: &ObjectPath<'_>) -> zbus::Result<()>;

    /// Undoes a change that waits to be confirmed.
    #[zbus(allow_interactive_auth)]
    fn rollback(&self, transaction: &ObjectPath<'_>) -> zbus::Result<()>;

    /// Lets a change wait for that many seconds from now; returns its deadline in µs since 1970.
    #[zbus(allow_interactive_auth)]
    fn extend(&self, transaction: &ObjectPath<'_>, confirm_s: u32) -> zbus::Result<u64>;

    /// Makes again what is missing of the mode that was chosen; returns what was done, in sentences.
    #[zbus(allow_interactive_auth)]
    fn reconcile(&self, flags: u64) -> zbus::Result<Vec<String>>;

    /// The guests' interfaces.
    fn list_attachments(&self) -> zbus::Result<Vec<AttachmentRow>>;

    /// The mode in force: `nat`, `bridge` or `none`.
    #[zbus(property)]
    fn mode(&self) -> zbus::Result<String>;

    /// The mode that was chosen last and kept.
    #[zbus(property)]
    fn desired_mode(&self) -> zbus::Result<String>;

    /// `idle`, `applying`, `awaiting-confirm`, `rolling-back` or `degraded`.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// What makes the guests' networks: `xl` or `xend`.
    #[zbus(property)]
    fn backend(&self) -> zbus::Result<String>;

    /// The bridge that guests join, or empty.
    #[zbus(property)]
    fn bridge(&self) -> zbus::Result<String>;

    /// The interface that was moved to the bridge, or empty.
    #[zbus(property)]
    fn uplink(&self) -> zbus::Result<String>;

    /// The guests' network in mode `nat`, or empty.
    #[zbus(property)]
    fn subnet(&self) -> zbus::Result<String>;

    /// The object of the change on its way, or `/`.
    #[zbus(property)]
    fn pending_transaction(&self) -> zbus::Result<OwnedObjectPath>;

    /// When it is undone, in µs since 1970; 0 if there is none, or that is not known yet.
    #[zbus(property, name = "RollbackDeadlineUSec")]
    fn rollback_deadline_usec(&self) -> zbus::Result<u64>;

    /// What else on this host stops guests' packets, in sentences.
    #[zbus(property)]
    fn conflicts(&self) -> zbus::Result<Vec<String>>;

    /// The service's version.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;

    /// A change is on its way.
    #[zbus(signal)]
    fn transaction_started(
        &self,
        transaction: ObjectPath<'_>,
        from: &str,
        to: &str,
        deadline_usec: u64,
    ) -> zbus::Result<()>;

    /// It is over: `kept`, `rolled-back` or `failed`, and why; its object is gone.
    #[zbus(signal)]
    fn transaction_finished(&self, transaction: ObjectPath<'_>, result: &str, error: &str) -> zbus::Result<()>;
}

/// A change on its way. Its object is gone once it is over.
#[zbus::proxy(interface = "org.ttvm.Network1.Transaction", default_service = "org.ttvm.Network1")]
pub trait Transaction {
    /// Keeps it.
    #[zbus(allow_interactive_auth)]
    fn confirm(&self) -> zbus::Result<()>;

    /// Undoes it.
    #[zbus(allow_interactive_auth)]
    fn rollback(&self) -> zbus::Result<()>;

    /// Lets it wait for that many seconds from now; returns its deadline in µs since 1970.
    #[zbus(allow_interactive_auth)]
    fn extend(&self, confirm_s: u32) -> zbus::Result<u64>;

    /// Its number.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> zbus::Result<u64>;

    /// The mode before.
    #[zbus(property(emits_changed_signal = "const"))]
    fn from(&self) -> zbus::Result<String>;

    /// The mode after.
    #[zbus(property(emits_changed_signal = "const"))]
    fn to(&self) -> zbus::Result<String>;

    /// As the manager's.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// When it is undone, in µs since 1970; 0 as long as that is not known.
    #[zbus(property, name = "DeadlineUSec")]
    fn deadline_usec(&self) -> zbus::Result<u64>;
}

/// The name and the text of an error that a call was answered with; `None` if it is not an answer. The name is the last
/// word of one of this service's, and whole if it is another's (`org.freedesktop.DBus.Error.AccessDenied`).
pub fn answer(error: &zbus::Error) -> Option<(String, String)> {
    use zbus::DBusError;
    let (name, text) = match error {
        zbus::Error::MethodError(name, text, _) => (name.to_string(), text.clone()),
        zbus::Error::FDO(error) if !matches!(**error, zbus::fdo::Error::ZBus(_)) => {
            (error.name().to_string(), error.description().map(str::to_owned))
        }
        _ => return None,
    };
    let short = name.strip_prefix(ERROR_PREFIX).map(str::to_owned);
    Some((short.unwrap_or(name), text.unwrap_or_default()))
}

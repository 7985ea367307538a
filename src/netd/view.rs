// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is shown of the network: the properties' values, and which of them have changed.

use std::collections::HashMap;

use zbus::{ObjectPath, Variant};

use super::proxy::PATH;
use crate::network::Status;

/// The object of the change `id`.
pub fn path_of(id: u64) -> ObjectPath<'static> {
    // Made of what an object's path may be made of.
    ObjectPath::try_from(format!("{PATH}/transaction/{id}")).unwrap_or(NO_PATH)
}

/// No change.
pub const NO_PATH: ObjectPath<'static> = ObjectPath::from_static_str_unchecked("/");

/// The manager's properties that change.
pub fn properties(status: &Status, conflicts: &[String]) -> HashMap<&'static str, Variant<'static>> {
    let text = |text: String| Variant::from(text);
    HashMap::from([
        ("Mode", text(status.mode.to_string())),
        ("DesiredMode", text(status.desired.to_string())),
        ("State", text(status.state.as_str().to_owned())),
        ("Backend", text(status.backend.as_str().to_owned())),
        ("Bridge", text(or_empty(status.bridge.as_ref()))),
        ("Uplink", text(or_empty(status.uplink.as_ref()))),
        ("Subnet", text(or_empty(status.subnet.as_ref()))),
        ("PendingTransaction", Variant::from(pending(status))),
        ("RollbackDeadlineUSec", Variant::from(deadline_usec(status))),
        ("Conflicts", Variant::from(conflicts.to_vec())),
    ])
}

/// A change's properties that change.
pub fn transaction_properties(status: &Status) -> HashMap<&'static str, Variant<'static>> {
    HashMap::from([
        ("State", Variant::from(status.state.as_str().to_owned())),
        ("DeadlineUSec", Variant::from(deadline_usec(status))),
    ])
}

/// What D-Bus has in place of none.
pub fn or_empty<T: ToString>(value: Option<&T>) -> String {
    value.map(T::to_string).unwrap_or_default()
}

/// The object of the change on its way.
pub fn pending(status: &Status) -> ObjectPath<'static> {
    status.pending.as_ref().map_or(NO_PATH, |pending| path_of(pending.id))
}

/// When it is undone.
pub fn deadline_usec(status: &Status) -> u64 {
    status.pending.as_ref().map_or(0, |pending| pending.deadline_usec)
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values that come from outside, each checked once, here; the rest of the code cannot hold a wrong one.

mod guest;
mod lvm;
mod network;
mod quantity;
mod target;

pub use guest::{GuestName, GuestUuid};
pub use lvm::{LvmName, Volume};
pub use network::{BridgeName, InterfaceName, Mac};
pub use quantity::{Seconds, Size};
pub use target::Target;

/// Why a name or value was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub(super) String);

fn invalid<T>(message: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(message.into()))
}

/// Makes types with `as_str` print as their text.
macro_rules! display_as_str {
    ($($type:ty),*) => {$(
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}
use display_as_str;

/// Makes types serialize as the text they print as.
macro_rules! serialize_as_text {
    ($($type:ty),*) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}
use serialize_as_text;

/// What was written as text is read as text, with the same rules.
macro_rules! deserialize_from_text {
    ($($type:ty),*) => {$(
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
pub(super) use deserialize_from_text;

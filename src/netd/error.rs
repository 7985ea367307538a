// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a call is answered with when it is not done.

use zbus::DBusError;
use zbus::message::{Header, Message};
use zbus::names::ErrorName;

use super::proxy::ERROR_PREFIX;
use crate::network;

/// What the callers' libraries know, too.
const STANDARD_PREFIX: &str = "org.freedesktop.DBus.Error.";

/// Longer texts are cut: they go to everybody who listens.
const TEXT_MAX: usize = 2000;

/// A named error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct Error {
    short: &'static str,
    no_such_transaction: bool,
    full: String,
    text: String,
}

impl Error {
    fn new(prefix: &'static str, short: &'static str, text: impl Into<String>) -> Self {
        let mut text = text.into();
        // `floor_char_boundary` is younger than the oldest Rust that builds this.
        let end = (0..=TEXT_MAX).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        Self {
            short,
            no_such_transaction: false,
            full: format!("{prefix}{short}"),
            text,
        }
    }

    /// The caller may not do that.
    pub fn denied(text: impl Into<String>) -> Self {
        Self::new(STANDARD_PREFIX, "AccessDenied", text)
    }

    /// The caller may do it once the user has been asked, and has not allowed that.
    pub fn interaction_required() -> Self {
        Self::new(
            STANDARD_PREFIX,
            "InteractiveAuthorizationRequired",
            "the user has to be asked first, and the call does not allow that",
        )
    }

    /// Too much at once.
    pub fn limits(text: impl Into<String>) -> Self {
        Self::new(STANDARD_PREFIX, "LimitsExceeded", text)
    }

    /// A call that makes no sense.
    pub fn invalid(text: impl Into<String>) -> Self {
        network::Error::InvalidArgument(text.into()).into()
    }

    /// Something of our own.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::new(ERROR_PREFIX, "Failed", text)
    }

    /// The last word of its name.
    pub fn short(&self) -> &'static str {
        self.short
    }

    /// Whether it says that there is no such change.
    pub fn is_no_such_transaction(&self) -> bool {
        self.no_such_transaction
    }
}

impl From<network::Error> for Error {
    fn from(error: network::Error) -> Self {
        Self {
            no_such_transaction: matches!(error, network::Error::NoSuchTransaction(_)),
            ..Self::new(ERROR_PREFIX, error.name(), error.text())
        }
    }
}

impl DBusError for Error {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&(self.text.as_str(),))
    }

    fn name(&self) -> ErrorName<'_> {
        // Made of letters and dots.
        ErrorName::try_from(self.full.as_str()).unwrap_or(ErrorName::from_static_str_unchecked(
            "org.freedesktop.DBus.Error.Failed",
        ))
    }

    fn description(&self) -> Option<&str> {
        Some(&self.text)
    }
}

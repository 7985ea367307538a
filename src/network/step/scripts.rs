// SPDX-License-Identifier: MIT OR Apache-2.0
//! xend's network scripts (TT Xen).
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Change, Context};
use crate::network::Error;

/// xend's network scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scripts {}

impl Change for Scripts {
    fn apply(&self, _: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
    fn undo(&self, _: &mut Context<'_>) -> Result<(), Error> {
        Ok(())
    }
    fn missing(&self, _: &mut Context<'_>) -> Result<Option<String>, Error> {
        Ok(None)
    }
    fn undoing(&self) -> String {
        String::new()
    }
}

impl fmt::Display for Scripts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("")
    }
}

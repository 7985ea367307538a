// SPDX-License-Identifier: MIT OR Apache-2.0
//! xend's network scripts (TT Xen).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Change, Context};
use crate::network::Error;
use crate::network::xend::{self, State, Switched, Xend};

/// The other pair of scripts in xend's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scripts {
    /// What is changed there.
    pub switched: Switched,
    /// Also if something in the file is not ours to change.
    pub force: bool,
    /// How many guests' interfaces are on a bridge that may go.
    pub attached: usize,
}

fn xend(context: &Context<'_>) -> Result<Xend, Error> {
    Xend::installed(context.root).ok_or_else(|| Error::BackendMissing {
        what: "xend is gone, and with it its network scripts".to_owned(),
    })
}

impl Change for Scripts {
    fn apply(&self, context: &mut Context<'_>) -> Result<(), Error> {
        let xend = xend(context)?;
        if xend.state()? == State::Is(self.switched.to) {
            return Ok(());
        }
        xend.switch(self.switched.to, self.force, self.attached)?;
        Ok(())
    }

    fn undo(&self, context: &mut Context<'_>) -> Result<(), Error> {
        Ok(xend(context)?.revert(&self.switched)?)
    }

    fn missing(&self, context: &mut Context<'_>) -> Result<Option<String>, Error> {
        let state = xend(context)?.state()?;
        Ok(
            (state != State::Is(self.switched.to))
                .then(|| format!("xend has not the scripts for {}", self.switched.to)),
        )
    }

    fn undoing(&self) -> String {
        "give xend its network scripts of before".to_owned()
    }
}

impl fmt::Display for Scripts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stop xend's network script, write ({}) and ({}) into xend-config.sxp and restart xend",
            self.switched.to.network(),
            self.switched.to.vif()
        )
    }
}

/// Errors of xend's configuration are classified there already.
impl From<xend::Error> for Error {
    fn from(error: xend::Error) -> Self {
        Self::Xend(Box::new(error))
    }
}

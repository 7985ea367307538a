// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bridge in a zone of firewalld, which else drops what guests send.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Change, Context};
use crate::config::network::Zone;
use crate::config::types::InterfaceName;
use crate::network::{Error, firewalld};

/// A bridge in a zone, until firewalld is restarted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zoned {
    /// The zone.
    pub zone: Zone,
    /// The bridge.
    pub bridge: InterfaceName,
}

impl Change for Zoned {
    fn apply(&self, _: &mut Context<'_>) -> Result<(), Error> {
        Ok(firewalld::add(self.zone.as_str(), &self.bridge)?)
    }

    fn undo(&self, _: &mut Context<'_>) -> Result<(), Error> {
        // Without firewalld there is no zone to be in.
        match firewalld::is_running()? {
            true => Ok(firewalld::remove(self.zone.as_str(), &self.bridge)?),
            false => Ok(()),
        }
    }

    fn missing(&self, _: &mut Context<'_>) -> Result<Option<String>, Error> {
        Ok(match firewalld::zone_of(&self.bridge)? {
            Some(zone) if zone == self.zone.as_str() => None,
            Some(zone) => Some(format!("{} is in the zone {zone} of firewalld", self.bridge)),
            None => Some(format!("{} is in no zone of firewalld", self.bridge)),
        })
    }

    fn undoing(&self) -> String {
        format!(
            "take {} out of the zone {} of firewalld",
            self.bridge,
            self.zone.as_str()
        )
    }
}

impl fmt::Display for Zoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "put {} into the zone {} of firewalld",
            self.bridge,
            self.zone.as_str()
        )
    }
}

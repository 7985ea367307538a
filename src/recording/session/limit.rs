// SPDX-License-Identifier: MIT OR Apache-2.0
//! When a recorded run is to end, if the guest does not end it before.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::config::guest::Shift;
use crate::config::types::{GuestName, Seconds};
use crate::recording::library::manifest::Manifest;
use crate::recording::log::point::Point;

/// What a moment of the guest's own begins with.
const GUEST: &str = "guest:";

/// Fewer instructions than that are taken for seconds whose unit was forgotten.
const FEWEST: u64 = 10_000;

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// After this time of the host: at another instruction each time.
    Host(Duration),
    /// After this time of the guest.
    Guest(Duration),
    /// After so many instructions.
    Instructions(u64),
}

/// Why a text says no such time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoLimit {
    /// None of the host.
    #[error("{0}; or, by the guest's own clock or instructions, \"guest:12s\" or \"guest:1_000_000\"")]
    Host(String),
    /// A number that is rather one of seconds.
    #[error("\"guest:{0}\" would be {0} instructions, which is no time at all: write \"guest:{0}s\" for seconds")]
    Few(u64),
    /// None of the guest.
    #[error("{0:?} is no time of a guest: write \"guest:12s\", or \"guest:1_000_000\" for instructions")]
    Guest(String),
}

impl FromStr for Limit {
    type Err = NoLimit;
    fn from_str(text: &str) -> Result<Self, NoLimit> {
        let Some(moment) = text.strip_prefix(GUEST) else {
            let time = text
                .parse::<Seconds>()
                .map_err(|error| NoLimit::Host(error.to_string()))?;
            return Ok(Self::Host(time.0));
        };
        match moment.parse() {
            Ok(Point::Instructions(count @ FEWEST..)) => Ok(Self::Instructions(count)),
            Ok(Point::Instructions(count @ 1..)) => Err(NoLimit::Few(count)),
            Ok(Point::Time(time)) if !time.is_zero() => Ok(Self::Guest(time)),
            // In the units that a time of the host has.
            _ => match moment.parse::<Seconds>() {
                Ok(Seconds(time)) if !time.is_zero() => Ok(Self::Guest(time)),
                _ => Err(NoLimit::Guest(text.to_owned())),
            },
        }
    }
}

impl Limit {
    /// The time of the host, if it is one.
    pub fn host(self) -> Option<Duration> {
        match self {
            Self::Host(time) => Some(time),
            Self::Guest(_) | Self::Instructions(_) => None,
        }
    }

    /// Whether the run of `manifest` came as far, as its instructions tell.
    pub fn is_reached(self, manifest: &Manifest) -> bool {
        let shift = manifest.engine.icount.parse().ok();
        let wanted = self.instructions(&manifest.guest, shift).ok().flatten();
        let done = manifest.result.as_ref().and_then(|result| result.instructions);
        wanted.is_some_and(|wanted| done >= Some(wanted))
    }

    /// How many instructions of `guest` that are, whose clock has this `shift` if it is one of QEMU's; `None` if nobody knows before.
    pub(in crate::recording) fn instructions(
        self,
        guest: &GuestName,
        shift: Option<Shift>,
    ) -> Result<Option<u64>, Error> {
        let uncountable = || Error::Uncountable { guest: guest.clone() };
        match (self, shift) {
            (Self::Host(_), _) => Ok(None),
            (_, None) => Err(uncountable()),
            (Self::Instructions(count), Some(_)) => Ok(Some(count)),
            (Self::Guest(time), Some(Shift::Fixed(shift))) => {
                let count = u64::try_from(time.as_nanos() >> shift).map_err(|_| uncountable())?;
                Ok(Some(count.max(1)))
            }
            (Self::Guest(_), Some(Shift::Auto)) => Err(uncountable()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        for (text, limit) in [
            ("30s", Limit::Host(Duration::from_secs(30))),
            ("300", Limit::Host(Duration::from_secs(300))),
            ("guest:12.5s", Limit::Guest(Duration::from_millis(12_500))),
            ("guest:2min", Limit::Guest(Duration::from_secs(120))),
            ("guest:1_000_000", Limit::Instructions(1_000_000)),
        ] {
            assert_eq!(text.parse(), Ok(limit), "{text}");
        }
        for bad in [
            "",
            "x",
            "12.5s",
            "guest:",
            "guest:0",
            "guest:0s",
            "guest:12",
            "guest:40%",
            "guest:end",
            "guest:login:",
        ] {
            assert!(bad.parse::<Limit>().is_err(), "{bad}");
        }
    }
}

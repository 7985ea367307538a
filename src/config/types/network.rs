// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses and names of network interfaces.

use std::fmt;
use std::str::FromStr;

use super::{Invalid, deserialize_from_text, display_as_str, invalid, serialize_as_text};
use crate::config::reader::from_toml_str;

/// A unicast Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parts: Vec<Option<u8>> = text
            .split(':')
            .map(|part| {
                u8::from_str_radix(part, 16)
                    .ok()
                    .filter(|_| part.len() == 2 && !part.starts_with('+'))
            })
            .collect();
        match parts[..] {
            [Some(a), Some(b), Some(c), Some(d), Some(e), Some(f)] if a & 1 == 0 => Ok(Self([a, b, c, d, e, f])),
            [Some(_), Some(_), Some(_), Some(_), Some(_), Some(_)] => invalid(format!(
                "{text:?} is a multicast address; a guest needs a unicast one, such as 00:16:3e:…"
            )),
            _ => invalid(format!(
                "{text:?} is not an Ethernet address such as \"00:16:3e:12:34:56\""
            )),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A network interface's name as the kernel takes it (1 to 15 bytes), without what scripts trip over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// One that is known to be valid.
    pub(in crate::config) fn fixed(name: &'static str) -> Self {
        Self(name.to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if text.is_empty() || text.len() > 15 || text.starts_with(['-', '.']) || !text.chars().all(allowed) {
            return invalid(format!(
                "{text:?} is not an interface name: 1 to 15 letters, digits, \"_\", \".\" or \"-\""
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The bridge of a guest's interface: a bridge's name, with Open vSwitch also `BRIDGE[.VLAN][:TRUNK…]`
/// (xl-network-configuration(5)), which its hotplug script takes apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BridgeName(String);

impl BridgeName {
    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<InterfaceName> for BridgeName {
    fn from(name: InterfaceName) -> Self {
        Self(name.0)
    }
}

impl FromStr for BridgeName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_vlan = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits && text.parse::<u16>().is_ok_and(|number| number < 4096)
        };
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let has_trunks = text.len() > name.len();
        let bridge = name.rsplit_once('.').filter(|(_, vlan)| is_vlan(vlan));
        let named = name.parse::<InterfaceName>();
        let is_named = named.is_ok() || bridge.is_some_and(|(bridge, _)| bridge.parse::<InterfaceName>().is_ok());
        if is_named && parts.all(is_vlan) {
            return Ok(Self(text.to_owned()));
        }
        match (has_trunks, named) {
            (false, Err(why)) => Err(why),
            _ => invalid(format!(
                "{text:?} is no bridge: its name (1 to 15 letters, digits, \"_\", \".\" or \"-\"), for Open vSwitch with a VLAN and trunks, such as \"ovsbr0.5:42:43\""
            )),
        }
    }
}

display_as_str!(InterfaceName, BridgeName);
serialize_as_text!(InterfaceName, BridgeName, Mac);
deserialize_from_text!(InterfaceName, BridgeName, Mac);
from_toml_str!(Mac, "an Ethernet address");
from_toml_str!(InterfaceName, "an interface name");
from_toml_str!(BridgeName, "a bridge's name");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges() {
        for good in [
            "xenbr0",
            "ovsbr0.5",
            "ovsbr0:42:43",
            "ovsbr0.5:42",
            "fifteen-letters.4094",
        ] {
            assert!(good.parse::<BridgeName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ":42",
            "ovsbr0:",
            "ovsbr0:a",
            "ovsbr0:42,43",
            "ovsbr0:4096",
            "a b",
            "sixteen-letters-x",
            "sixteen-letters-x.5",
        ] {
            assert!(bad.parse::<BridgeName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(
            "00:16:3E:0a:0b:0c".parse::<Mac>().map(|mac| mac.to_string()),
            Ok("00:16:3e:0a:0b:0c".into())
        );
        for bad in [
            "01:16:3e:0a:0b:0c",
            "00:16:3e:0a:0b",
            "00-16-3e-0a-0b-0c",
            "+0:16:3e:0a:0b:0c",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `[[vif]]` of a guest's file.

use std::collections::HashSet;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::ops::Range;

use toml::de::DeValue;

use super::Vif;
use super::claims::Claim;
use super::file::{Context, text};
use crate::config::reader::{FromToml, Located, Source, Table};
use crate::config::types::{BridgeName, GuestUuid, InterfaceName, Mac};

/// The guest's interfaces. Mistakes are noted in `source`.
pub(super) fn read_vifs(
    source: &Source,
    table: &Table<'_>,
    (context, default_bridge): (&Context<'_>, Option<&InterfaceName>),
    uuid: GuestUuid,
) -> Vec<Vif> {
    let mut vifs = Vec::new();
    let mut own: HashSet<Claim> = HashSet::new();
    let mut take = |claim: Claim, span: &Range<usize>, address: &dyn Display| {
        context.claims.check(source, span, &claim);
        if !own.insert(claim) {
            source.problem(span, format!("two interfaces have the address {address}"));
        }
    };
    for (index, table) in table.tables("vif").iter().enumerate() {
        let mac = table.get::<Mac>("mac").unwrap_or_else(|| Located {
            value: derived_mac(uuid, index),
            span: table.span().clone(),
        });
        take(Claim::Mac(mac.value), &mac.span, &mac.value);
        let bridge = table.value("bridge");
        let address = table.get::<Ipv4Addr>("address");
        if let Some(address) = &address {
            take(Claim::Address(address.value), &address.span, &address.value);
        }
        // xl splits the line at commas; a comma in a value would begin another setting.
        let field = |key| {
            let field = text(table, key)?;
            if field.value.contains(',') {
                table.problem(&field.span, format!("{key}: a comma cannot be part of it"));
            }
            Some(field.value)
        };
        vifs.push(Vif {
            mac: mac.value,
            bridge: bridge.or_else(|| default_bridge.cloned().map(BridgeName::from)),
            address: address.map(|address| address.value),
            ip: field("ip"),
            script: field("script"),
            vifname: table.value("vifname"),
            model: field("model"),
            rate: field("rate"),
            outside: table.value("outside").unwrap_or(false),
        });
        table.finish();
    }
    vifs
}

/// Xen's own prefix and three bytes that are the same every time for this guest and position.
fn derived_mac(uuid: GuestUuid, index: usize) -> Mac {
    let hash = uuid::Uuid::new_v5(&uuid.0, format!("vif{index}").as_bytes());
    let [a, b, c, ..] = *hash.as_bytes();
    Mac([0x00, 0x16, 0x3e, a & 0x7f, b, c])
}

/// An address that a host can have. Which network it is in is not asked here: a guest may be pinned to a bridge that
/// ttvm knows nothing about.
impl FromToml for Ipv4Addr {
    const EXPECTED: &'static str = "an IPv4 address such as \"10.0.0.1\"";
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let text = value.as_str().ok_or_else(String::new)?;
        let address: Self = text
            .parse()
            .map_err(|_| format!("{text:?} is not an IPv4 address such as \"10.0.0.1\""))?;
        // 0 is "this network" (RFC 1122), from 224 on there are groups and what is reserved.
        match address.octets()[0] {
            0 | 127 | 224.. => Err(format!("{address} is not an address that a guest can have")),
            _ => Ok(address),
        }
    }
}

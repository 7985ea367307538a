// SPDX-License-Identifier: MIT OR Apache-2.0
//! Network interfaces.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};

use super::{Error, Netlink};
use crate::config::types::Mac;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Its number, never used again while the host runs.
    pub index: u32,
    /// Its name, which may change.
    pub name: String,
    /// What somebody wrote to it (`ip link set … alias`).
    pub alias: Option<String>,
    /// Its address, if it is an Ethernet one.
    pub mac: Option<Mac>,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// The bridge, bond, … it is a port of.
    pub controller: Option<u32>,
    /// It is a bridge.
    pub is_bridge: bool,
    /// It is a device of the machine, not one of the kernel's own.
    pub is_device: bool,
    /// It is the loopback interface.
    pub is_loopback: bool,
    /// Somebody has switched it on.
    pub is_up: bool,
    /// It is on and has a carrier.
    pub has_carrier: bool,
}

/// A bridge to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewBridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address; ports that come and go do not change one that was set.
    pub mac: Mac,
    /// The largest packet, in bytes; the kernel's choice if there is none.
    pub mtu: Option<u32>,
}

impl Link {
    fn of(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let ether = message.header.link_layer_type == LinkLayerType::Ether;
        let mut link = Self {
            index: message.header.index,
            is_loopback: flags.contains(LinkFlags::Loopback),
            is_up: flags.contains(LinkFlags::Up),
            has_carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            ..Self::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(index) => link.controller = Some(*index),
                LinkAttribute::Address(address) if ether => {
                    link.mac = <[u8; 6]>::try_from(address.as_slice()).ok().map(Mac);
                }
                LinkAttribute::ParentDevName(_) => link.is_device = true,
                LinkAttribute::LinkInfo(infos) => {
                    link.is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                }
                _ => {}
            }
        }
        link
    }
}

impl Netlink {
    /// All interfaces.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let answer = self.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let links = answer.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(message) => Some(Link::of(message)),
            _ => None,
        });
        Ok(links.collect())
    }

    /// The interface of this name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// Makes a bridge, switched off. It does not learn the hard way (no spanning tree, no forward delay): a vif that
    /// joins can talk at once.
    pub fn create_bridge(&mut self, bridge: &NewBridge<'_>) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(bridge.name.to_owned()),
            LinkAttribute::Address(bridge.mac.0.to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::ForwardDelay(0)])),
            ]),
        ];
        message.attributes.extend(bridge.mtu.map(LinkAttribute::Mtu));
        self.change(
            || format!("make the bridge {}", bridge.name),
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Switches an interface on.
    pub fn set_up(&mut self, link: &Link) -> Result<(), Error> {
        let mut message = of(link);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(
            || format!("switch {} on", link.name),
            RouteNetlinkMessage::SetLink(message),
            0,
        )
    }

    /// Writes to an interface whose it is.
    pub fn set_alias(&mut self, link: &Link, alias: &str) -> Result<(), Error> {
        let mut message = of(link);
        message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
        self.change(
            || format!("give {} an alias", link.name),
            RouteNetlinkMessage::SetLink(message),
            0,
        )
    }

    /// Makes an interface a port of `bridge`, or of none.
    pub fn set_controller(&mut self, link: &Link, bridge: Option<&Link>) -> Result<(), Error> {
        let mut message = of(link);
        let index = bridge.map_or(0, |bridge| bridge.index);
        message.attributes.push(LinkAttribute::Controller(index));
        self.change(
            || match bridge {
                Some(bridge) => format!("make {} a port of {}", link.name, bridge.name),
                None => format!("take {} out of its bridge", link.name),
            },
            RouteNetlinkMessage::SetLink(message),
            0,
        )
    }

    /// Removes an interface.
    pub fn delete_link(&mut self, link: &Link) -> Result<(), Error> {
        self.change(
            || format!("remove {}", link.name),
            RouteNetlinkMessage::DelLink(of(link)),
            0,
        )
    }
}

fn of(link: &Link) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a guest gets its addresses: by DHCP, from what configures the network of the host.

use super::{Identity, Keep};
use crate::image::create::edits::{Edit, Edits};

const LOOPBACK: &str = "# Written by `ttvm image create`.\nauto lo\niface lo inet loopback\n";
const INTERFACES: &str = "# Written by `ttvm image create`. Which of these there is depends on what starts the guest.\n\
    auto lo\niface lo inet loopback\n";
/// As Xen's is called by older and by newer systems, and that of an emulated machine.
const CARDS: [&str; 5] = ["eth0", "enX0", "ens2", "ens3", "enp0s3"];

const NETWORKD: &str = "# Written by `ttvm image create`.\n[Match]\nType=ether\n\n[Network]\nDHCP=yes\n";

/// For all network cards (3: multiple, nm-settings-nmcli(5)). By itself NetworkManager makes such connections only where
/// `no-auto-default` does not forbid it, as it does on servers of Red Hat.
const MANAGER: &str = "# Written by `ttvm image create`.\n[connection]\nid=ttvm-guest\ntype=ethernet\nmulti-connect=3\n\n\
    [ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n";

const SCRIPTS: &str = "# Written by `ttvm image create`.\nDEVICE=eth0\nBOOTPROTO=dhcp\nONBOOT=yes\n";
const WICKED: &str = "# Written by `ttvm image create`.\nBOOTPROTO='dhcp'\nSTARTMODE='auto'\n";

const WANTS: &str = "etc/systemd/system/multi-user.target.wants";

/// What configures the network by files in `/etc/network`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ifupdown {
    /// Debian's, which udev tells of cards as they come.
    Hotplug,
    /// That of busybox, by whose name it is a link: it does not know the word, and reads no further.
    Plain,
}

/// What else does. The first one that a host has counts.
#[derive(Clone, Copy)]
enum Means {
    Netplan,
    Networkd,
    Manager,
    Wicked,
    Scripts,
}

impl Identity<'_> {
    pub(super) fn network(&self, edits: &mut Edits) {
        if self.found.has("etc/network/interfaces") {
            let content = match self.ifupdown() {
                Some(Ifupdown::Hotplug) => {
                    let cards = CARDS.map(|card| format!("allow-hotplug {card}\niface {card} inet dhcp\n"));
                    format!("{INTERFACES}{}", cards.concat())
                }
                Some(Ifupdown::Plain) => format!("{LOOPBACK}auto eth0\niface eth0 inet dhcp\n"),
                // Debian's NetworkManager leaves cards alone that it names.
                None => LOOPBACK.to_owned(),
            };
            edits.file("etc/network/interfaces", content);
        }
        // Some complain of files that all can read, or do not take them.
        let mut private = |path: &str, content: String| {
            let (content, permissions) = (content.into_bytes(), 0o600);
            edits.add(path, Edit::File { content, permissions });
        };
        match self.means() {
            // It enables networkd, or tells NetworkManager, from what is there at boot.
            Some(Means::Netplan) => {
                let renderer = match self.has_manager() {
                    true => "NetworkManager",
                    false => "networkd",
                };
                private("etc/netplan/80-ttvm-guest.yaml", netplan(renderer));
            }
            Some(Means::Networkd) => edits.file("etc/systemd/network/80-ttvm-guest.network", NETWORKD),
            Some(Means::Manager) => private(
                "etc/NetworkManager/system-connections/ttvm-guest.nmconnection",
                MANAGER.to_owned(),
            ),
            Some(Means::Wicked) => edits.file("etc/sysconfig/network/ifcfg-eth0", WICKED),
            Some(Means::Scripts) => edits.file("etc/sysconfig/network-scripts/ifcfg-eth0", SCRIPTS),
            None => {}
        }
    }

    /// Its file may be there without it.
    fn ifupdown(&self) -> Option<Ifupdown> {
        let programs = ["sbin/ifup", "usr/sbin/ifup"];
        let found = programs.into_iter().filter(|program| self.found.has(program));
        let kinds = found.map(|program| match self.found.content(program) {
            Some(_) => Ifupdown::Hotplug,
            None => Ifupdown::Plain,
        });
        kinds.max().filter(|_| self.found.has("etc/network/interfaces"))
    }

    fn means(&self) -> Option<Means> {
        let enabled = |service: &str| self.found.has(&format!("{WANTS}/{service}.service"));
        // Of Red Hat's, it is a file.
        let is_directory = |path: &str| self.found.has(path) && self.found.content(path).is_none();
        if self.found.has("etc/netplan") {
            Some(Means::Netplan)
        } else if enabled("systemd-networkd") {
            Some(Means::Networkd)
        } else if self.has_manager() {
            Some(Means::Manager)
        } else if is_directory("etc/sysconfig/network")
            && (enabled("wicked") || self.found.has("etc/systemd/system/network.service"))
        {
            Some(Means::Wicked)
        } else if self.found.has("etc/sysconfig/network-scripts") {
            Some(Means::Scripts)
        } else {
            None
        }
    }

    fn has_manager(&self) -> bool {
        self.found.has(&format!("{WANTS}/NetworkManager.service"))
    }

    /// What is done about the network, in a few words; `None` if nothing.
    pub(in crate::image::create) fn network_in_words(&self) -> Option<&'static str> {
        if !self.changes(Keep::Network) {
            return None;
        }
        Some(match (self.ifupdown(), self.means()) {
            (Some(Ifupdown::Hotplug), _) => "ifupdown, with DHCP on the first network card",
            (Some(Ifupdown::Plain), _) => "ifupdown, with DHCP on eth0",
            (None, Some(Means::Netplan)) => "netplan, with DHCP on all network cards",
            (None, Some(Means::Networkd)) => "systemd-networkd, with DHCP on all network cards",
            (None, Some(Means::Manager)) => "NetworkManager, with DHCP on all network cards",
            (None, Some(Means::Wicked)) => "wicked, with DHCP on eth0",
            (None, Some(Means::Scripts)) => "network-scripts, with DHCP on eth0",
            (None, None) => return None,
        })
    }

    /// Whether something was to be done, and nothing that is known here configures the network.
    pub(in crate::image::create) fn lacks_network(&self) -> bool {
        self.changes(Keep::Network) && self.network_in_words().is_none()
    }
}

/// Every name of a network card of a guest begins so (<https://netplan.readthedocs.io/en/stable/netplan-yaml/>).
fn netplan(renderer: &str) -> String {
    format!(
        "# Written by `ttvm image create`.\nnetwork:\n  version: 2\n  renderer: {renderer}\n  ethernets:\n    guest:\n      \
         match:\n        name: \"e*\"\n      dhcp4: true\n"
    )
}

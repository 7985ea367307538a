// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a guest gets its addresses: by DHCP, from what configures the network of the host.

use super::{Identity, Keep};
use crate::image::create::edits::{Edit, Edits};

const INTERFACES: &str = "# Written by `ttvm image create`. Which of these there is depends on what starts the guest.\n\
    auto lo\niface lo inet loopback\n";
/// As Xen's is called by older and by newer systems, and that of an emulated machine.
const CARDS: [&str; 5] = ["eth0", "enX0", "ens2", "ens3", "enp0s3"];
const ONE_CARD: &str = "# Written by `ttvm image create`.\n\
    auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n";

const NETWORKD: &str = "# Written by `ttvm image create`.\n[Match]\nType=ether\n\n[Network]\nDHCP=yes\n";

const WANTS: &str = "etc/systemd/system/multi-user.target.wants";

impl Identity<'_> {
    pub(super) fn network(&self, edits: &mut Edits) {
        if self.found.has("etc/network/interfaces") {
            let content = match self.has_hotplug() {
                true => {
                    let cards = CARDS.map(|card| format!("allow-hotplug {card}\niface {card} inet dhcp\n"));
                    format!("{INTERFACES}{}", cards.concat())
                }
                false => ONE_CARD.to_owned(),
            };
            edits.file("etc/network/interfaces", content);
        }
        if self.has_netplan() {
            // It enables networkd, or tells NetworkManager, from what is there at boot, and complains of files that all can read.
            let content = netplan(if self.has_manager() {
                "NetworkManager"
            } else {
                "networkd"
            });
            let (content, permissions) = (content.into_bytes(), 0o600);
            edits.add("etc/netplan/80-ttvm-guest.yaml", Edit::File { content, permissions });
        } else if self.has_networkd() {
            edits.file("etc/systemd/network/80-ttvm-guest.network", NETWORKD);
        }
    }

    /// Whether ifupdown is Debian's, which udev tells of cards as they come. That of busybox, by whose name it is a link, does
    /// not know the word, and reads no further.
    fn has_hotplug(&self) -> bool {
        let mut programs = ["sbin/ifup", "usr/sbin/ifup"].into_iter();
        !programs.any(|program| self.found.has(program) && self.found.content(program).is_none())
    }

    fn has_netplan(&self) -> bool {
        self.found.has("etc/netplan")
    }

    fn has_networkd(&self) -> bool {
        self.found.has(&format!("{WANTS}/systemd-networkd.service"))
    }

    fn has_manager(&self) -> bool {
        self.found.has(&format!("{WANTS}/NetworkManager.service"))
    }

    /// What was done about the network, in a few words; `None` if nothing.
    pub(in crate::image::create) fn network_in_words(&self) -> Option<&'static str> {
        if !self.changes(Keep::Network) {
            return None;
        }
        if self.found.has("etc/network/interfaces") {
            Some(match self.has_hotplug() {
                true => "ifupdown, with DHCP on the first network card",
                false => "ifupdown, with DHCP on eth0",
            })
        } else if self.has_netplan() {
            Some("netplan, with DHCP on all network cards")
        } else if self.has_networkd() {
            Some("systemd-networkd, with DHCP on all network cards")
        } else if self.has_manager() {
            Some("NetworkManager, with DHCP on all network cards")
        } else {
            None
        }
    }
}

/// Every name of a network card of a guest begins so (<https://netplan.readthedocs.io/en/stable/netplan-yaml/>).
fn netplan(renderer: &str) -> String {
    format!(
        "# Written by `ttvm image create`.\nnetwork:\n  version: 2\n  renderer: {renderer}\n  ethernets:\n    guest:\n      \
         match:\n        name: \"e*\"\n      dhcp4: true\n"
    )
}

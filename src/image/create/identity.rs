// SPDX-License-Identifier: MIT OR Apache-2.0
//! What makes a guest of a copy of a host: its own name, root, console and network, and nothing by which one is taken for the
//! other. Each part can be left as it is in the source ([`Keep`]).

mod console;
mod hosts;
mod inittab;
mod keep;
mod login;
mod network;
mod ssh;
mod work;

use ext4_fill::Kind;
use uuid::Uuid;

use self::inittab::Table;
pub use self::keep::Keep;
pub(super) use self::keep::keeps;

use super::edits::{Edit, Edits};
use super::exclude::{Exclusions, Reason};
use super::survey::Found;
use crate::config::types::GuestName;

/// Files that are looked at before.
pub(super) const LOOKED_AT: [&str; 34] = [
    "etc/shadow",
    "etc/hostname",
    "etc/hosts",
    "etc/inittab",
    "etc/securetty",
    "etc/crypttab",
    "etc/initramfs-tools/conf.d/resume",
    "etc/network/interfaces",
    "etc/netplan",
    "etc/systemd/network",
    "etc/systemd/system/multi-user.target.wants/NetworkManager.service",
    "etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
    "etc/systemd/system/multi-user.target.wants/wicked.service",
    "etc/systemd/system/network.service",
    "etc/sysconfig/network",
    "etc/sysconfig/network-scripts",
    "etc/systemd/system/serial-getty@.service",
    "etc/systemd/system/serial-getty@hvc0.service",
    "etc/systemd/system/serial-getty@ttyS0.service",
    "etc/systemd/system/getty.target",
    "etc/machine-id",
    "usr/lib/systemd/systemd",
    "lib/systemd/systemd",
    "usr/bin/ssh-keygen",
    "usr/sbin/sshd",
    "usr/sbin/dropbear",
    "usr/lib/systemd/system/sshd-keygen.target",
    "var/lib/dbus/machine-id",
    "sbin/getty",
    "usr/sbin/getty",
    "sbin/agetty",
    "usr/sbin/agetty",
    "sbin/ifup",
    "usr/sbin/ifup",
];

/// The guest that is made.
pub(super) struct Identity<'a> {
    pub(super) name: &'a GuestName,
    pub(super) keep: &'a [Keep],
    pub(super) kind: Kind,
    /// What it is there to run.
    pub(super) script: Option<&'a [u8]>,
    /// Root's password, as shadow(5) has it.
    pub(super) password: Option<&'a str>,
    /// What /etc/fstab calls the root.
    pub(super) root: String,
    pub(super) found: &'a Found,
}

/// The name of a file system as fstab(5) has it.
pub(super) fn by_uuid(uuid: [u8; 16]) -> String {
    format!("UUID={}", Uuid::from_bytes(uuid))
}

impl Identity<'_> {
    fn changes(&self, what: Keep) -> bool {
        !keeps(self.keep, what)
    }

    pub(super) fn has_systemd(&self) -> bool {
        self.found.has("usr/lib/systemd/systemd") || self.found.has("lib/systemd/systemd")
    }

    /// What will be otherwise, in words.
    pub(super) fn plan(&self) -> Vec<String> {
        let own = self.own_in_words();
        let own = own.map(|own| format!("make it the guest {}, by its own {own}", self.name));
        let network = match self.network_in_words() {
            Some(network) => Some(format!("configure the network: {network}")),
            None if self.lacks_network() => {
                Some("leave the network as it is in the source: nothing that is known here configures it".to_owned())
            }
            None => None,
        };
        let script = self
            .script
            .map(|_| "have it run the script, and power itself off".to_owned());
        let password = self.password.map(|_| "set root's password".to_owned());
        own.into_iter().chain(network).chain(script).chain(password).collect()
    }

    /// What it has of its own by which it is known, in words; `None` if all of that is the source's.
    fn own_in_words(&self) -> Option<String> {
        let parts = [(Keep::Hostname, "name"), (Keep::Fstab, "root"), (Keep::Id, "ids")];
        let parts = parts.into_iter().filter(|(what, _)| self.changes(*what));
        let mut own: Vec<&str> = parts.map(|(_, word)| word).collect();
        let last = own.pop()?;
        Some(match own.is_empty() {
            true => last.to_owned(),
            false => format!("{} and {last}", own.join(", ")),
        })
    }

    /// What is otherwise in the guest.
    pub(super) fn edits(&self) -> Edits {
        let mut edits = Edits::default();
        for (path, permissions) in [
            ("proc", 0o555),
            ("sys", 0o555),
            ("dev", 0o755),
            ("run", 0o755),
            ("tmp", 0o1777),
            ("mnt", 0o755),
        ] {
            edits.add(path, Edit::Directory { permissions });
        }
        if self.changes(Keep::Fstab) {
            let options = if self.kind == Kind::Ext2 {
                "defaults"
            } else {
                "errors=remount-ro"
            };
            let line = format!("{} / {} {options} 0 1", self.root, self.kind.as_str());
            edits.file("etc/fstab", format!("# Written by `ttvm image create`.\n{line}\n"));
        }
        if self.changes(Keep::Hostname) {
            self.hostname(&mut edits);
        }
        if self.changes(Keep::Console) {
            self.console(&mut edits);
        }
        if self.changes(Keep::Id) {
            if self.found.has("etc/machine-id") || self.has_systemd() {
                let permissions = 0o444;
                let content = Vec::new();
                edits.add("etc/machine-id", Edit::File { content, permissions });
            }
            // Else D-Bus would have the old one.
            if self.found.text("var/lib/dbus/machine-id").is_some() {
                edits.add("var/lib/dbus/machine-id", Edit::Nothing);
            }
        }
        if self.changes(Keep::SshKeys) {
            self.ssh_keys(&mut edits);
        }
        if let Some(text) = self.found.text("etc/inittab") {
            let mut table = Table::of(&text);
            if self.changes(Keep::Console) {
                table.logins(self.getty());
            }
            if self.changes(Keep::SshKeys) && self.has_ssh() && !self.has_systemd() {
                table.at_boot("sshk", ssh::MAKE_KEYS);
            }
            if table != Table::of(&text) {
                edits.file("etc/inittab", table.text);
            }
        }
        if self.changes(Keep::Swap) {
            if self.found.has("etc/crypttab") {
                edits.file("etc/crypttab", "# Emptied by `ttvm image create`.\n");
            }
            if self.found.has("etc/initramfs-tools/conf.d/resume") {
                edits.file("etc/initramfs-tools/conf.d/resume", "RESUME=none\n");
            }
        }
        if self.changes(Keep::Network) {
            self.network(&mut edits);
        }
        self.work(&mut edits);
        self.root_password(&mut edits);
        edits
    }
}

/// What of a host does not go into a guest.
pub(super) fn exclude(keep: &[Keep], exclusions: &mut Exclusions) {
    let parts: [(Keep, Reason, &[&str]); 5] = [
        (
            Keep::Id,
            Reason::Identity,
            &[
                "/etc/iscsi/initiatorname.iscsi",
                "/etc/nvme/host*",
                "/var/lib/systemd/credential.secret",
                // Keys by which others know a member of their network.
                "/etc/wireguard/*",
                "/var/lib/tailscale/*",
                "/var/lib/zerotier-one/identity.*",
            ],
        ),
        (
            Keep::SshKeys,
            Reason::Identity,
            &["/etc/ssh/ssh_host_*", "/etc/dropbear/*_host_key*"],
        ),
        (
            Keep::State,
            Reason::Identity,
            &[
                "/var/lib/systemd/random-seed",
                "/var/lib/urandom/random-seed",
                "/var/lib/random-seed",
                "/var/lib/dhcp/*",
                "/var/lib/dhclient/*",
                "/var/lib/dhcpcd/*",
                "/etc/dhcpcd.duid",
                "/etc/dhcpcd.secret",
                "/var/lib/wicked/*",
                "/var/lib/NetworkManager/*",
                "/etc/udev/rules.d/70-persistent-net.rules",
                "/etc/udev/rules.d/75-persistent-net-generator.rules",
                "/etc/systemd/network/*.link",
            ],
        ),
        (
            Keep::Network,
            Reason::Network,
            &[
                "/etc/network/interfaces.d/*",
                "/etc/netplan/*",
                "/etc/systemd/network/*.network",
                "/etc/systemd/network/*.netdev",
                "/etc/NetworkManager/system-connections/*",
                "/etc/sysconfig/network-scripts/ifcfg-[!l]*",
                "/etc/sysconfig/network-scripts/route-*",
                "/etc/sysconfig/network/ifcfg-[!l]*",
                "/etc/sysconfig/network/ifroute-*",
                "/etc/sysconfig/network/routes",
            ],
        ),
        (
            Keep::Services,
            Reason::Services,
            &[
                "/etc/systemd/system/*.wants/ttvm[-@.]*",
                "/etc/systemd/system/*.requires/ttvm[-@.]*",
                "/etc/systemd/system/*.wants/xen*",
                "/etc/systemd/system/*.requires/xen*",
                "/etc/rc?.d/[SK]??xen*",
                "/etc/ttvm/guests/*",
            ],
        ),
    ];
    for (what, reason, patterns) in parts {
        if !keeps(keep, what) {
            exclusions.fixed(patterns, reason);
        }
    }
}

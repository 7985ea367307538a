// SPDX-License-Identifier: MIT OR Apache-2.0
//! What makes a guest of a copy of a host: its own name, root, console and network, and nothing by which one is taken for the
//! other. Each part can be left as it is in the source ([`Keep`]).

use std::str::FromStr;

use uuid::Uuid;

use super::edits::{Edit, Edits};
use super::exclude::{Exclusions, Reason};
use super::survey::Found;
use crate::config::types::GuestName;
use crate::ext4::Kind;

/// What is kept as it is in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Everything.
    All,
    /// `/etc/fstab`.
    Fstab,
    /// `/etc/hostname`, and the name in `/etc/hosts`.
    Hostname,
    /// Which terminals a login is offered on.
    Console,
    /// The machine's id, and other ids.
    Id,
    /// The host keys of SSH.
    SshKeys,
    /// Seeds of random numbers, leases of addresses, names of network cards.
    State,
    /// What is resumed from and decrypted at boot, and swap files.
    Swap,
    /// How the network is configured.
    Network,
    /// Services of Xen and ttvm, which serve guests.
    Services,
    /// Caches, temporary files and the journal.
    Caches,
}

impl Keep {
    /// Each with its name on the command line.
    pub const NAMES: [(&str, Self); 11] = [
        ("all", Self::All),
        ("fstab", Self::Fstab),
        ("hostname", Self::Hostname),
        ("console", Self::Console),
        ("id", Self::Id),
        ("ssh-keys", Self::SshKeys),
        ("state", Self::State),
        ("swap", Self::Swap),
        ("network", Self::Network),
        ("services", Self::Services),
        ("caches", Self::Caches),
    ];
}

/// Why a text names nothing that is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is nothing that is otherwise in the guest")]
pub struct NothingToKeep(String);

impl FromStr for Keep {
    type Err = NothingToKeep;
    fn from_str(text: &str) -> Result<Self, NothingToKeep> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found
            .map(|(_, keep)| *keep)
            .ok_or_else(|| NothingToKeep(text.to_owned()))
    }
}

/// Files that are looked at before.
pub(super) const LOOKED_AT: [&str; 24] = [
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
    "usr/lib/systemd/system/sshd-keygen.target",
    "var/lib/dbus/machine-id",
    "sbin/getty",
];

/// The guest that is made.
pub(super) struct Identity<'a> {
    pub(super) name: &'a GuestName,
    pub(super) keep: &'a [Keep],
    pub(super) kind: Kind,
    /// What /etc/fstab calls the root.
    pub(super) root: String,
    pub(super) found: &'a Found,
}

/// The name of a file system as fstab(5) has it.
pub(super) fn by_uuid(uuid: [u8; 16]) -> String {
    format!("UUID={}", Uuid::from_bytes(uuid))
}

const INTERFACES: &str = "# Written by `ttvm image create`. Which of these there is depends on what starts the guest.\n\
    auto lo\niface lo inet loopback\n";
/// As Xen's is called by older and by newer systems, and that of an emulated machine.
const CARDS: [&str; 5] = ["eth0", "enX0", "ens2", "ens3", "enp0s3"];

const NETWORKD: &str = "# Written by `ttvm image create`.\n[Match]\nType=ether\n\n[Network]\nDHCP=yes\n";

/// Debian makes keys only when the package is installed.
const SSH_KEYS: &str = "# Written by `ttvm image create`: the keys of the host are not those of the guest.\n\
    [Unit]\nDescription=Host keys of SSH\nBefore=ssh.service ssh.socket sshd.service\n\
    ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key\n\n\
    [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/ssh-keygen -A\n\n\
    [Install]\nWantedBy=multi-user.target\n";

impl Identity<'_> {
    fn changes(&self, what: Keep) -> bool {
        !keeps(self.keep, what)
    }

    fn has_systemd(&self) -> bool {
        self.found.has("usr/lib/systemd/systemd") || self.found.has("lib/systemd/systemd")
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
        let has_ssh = self.found.has("usr/sbin/sshd") && self.found.has("usr/bin/ssh-keygen");
        let makes_keys = self.found.has("usr/lib/systemd/system/sshd-keygen.target");
        if self.changes(Keep::SshKeys) && has_ssh && !makes_keys && self.has_systemd() {
            edits.file("etc/systemd/system/ttvm-ssh-keys.service", SSH_KEYS);
            let link = "etc/systemd/system/multi-user.target.wants/ttvm-ssh-keys.service";
            edits.add(link, Edit::Symlink("/etc/systemd/system/ttvm-ssh-keys.service"));
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
        edits
    }

    fn hostname(&self, edits: &mut Edits) {
        edits.file("etc/hostname", format!("{}\n", self.name));
        let old = self.found.text("etc/hostname").unwrap_or_default();
        let (old, Some(hosts)) = (old.trim(), self.found.text("etc/hosts")) else {
            return;
        };
        if !old.is_empty() {
            edits.file("etc/hosts", renamed(&hosts, old, self.name.as_str()));
        }
    }

    /// systemd offers a login on the kernel's console by itself, Xen's (hvc0) and an emulated machine's (ttyS0), unless
    /// somebody forbade it. A service for a terminal that is not there would be waited for at each boot.
    fn console(&self, edits: &mut Edits) {
        // The kernel opens the console for the first process. Where nothing has mounted devtmpfs by then (Debian's kernel does not
        // by itself, and an initial RAM disk without udev neither), it is this one; in a host that runs, it is out of sight.
        for (path, device, permissions) in [("dev/console", (5, 1), 0o600), ("dev/null", (1, 3), 0o666)] {
            edits.add(path, Edit::Device { device, permissions });
        }
        for unit in [
            "etc/systemd/system/serial-getty@.service",
            "etc/systemd/system/serial-getty@hvc0.service",
            "etc/systemd/system/serial-getty@ttyS0.service",
            "etc/systemd/system/getty.target",
        ] {
            // A link: masked.
            if self.found.has(unit) && self.found.text(unit).is_none() {
                edits.add(unit, Edit::Nothing);
            }
        }
        if let Some(table) = self.found.text("etc/inittab") {
            edits.file("etc/inittab", with_gettys(&table));
        }
        if let Some(terminals) = self.found.text("etc/securetty") {
            let missing = ["hvc0", "ttyS0"]
                .into_iter()
                .filter(|name| !terminals.lines().any(|line| line == *name));
            let missing: String = missing.map(|name| format!("{name}\n")).collect();
            edits.file("etc/securetty", format!("{}\n{missing}", terminals.trim_end()));
        }
    }

    fn network(&self, edits: &mut Edits) {
        if self.found.has("etc/network/interfaces") {
            let cards = CARDS.map(|card| format!("allow-hotplug {card}\niface {card} inet dhcp\n"));
            edits.file("etc/network/interfaces", format!("{INTERFACES}{}", cards.concat()));
        }
        if self.uses_networkd() {
            edits.file("etc/systemd/network/80-ttvm-guest.network", NETWORKD);
        }
    }

    fn uses_networkd(&self) -> bool {
        let unit = "etc/systemd/system/multi-user.target.wants/systemd-networkd.service";
        self.found.has(unit) || self.found.has("etc/netplan")
    }

    /// What was done about the network, in a few words; `None` if nothing.
    pub(super) fn network_in_words(&self) -> Option<&'static str> {
        if !self.changes(Keep::Network) {
            return None;
        }
        let manager = "etc/systemd/system/multi-user.target.wants/NetworkManager.service";
        if self.found.has("etc/network/interfaces") {
            Some("ifupdown, with DHCP on the first network card")
        } else if self.uses_networkd() {
            Some("systemd-networkd, with DHCP on all network cards")
        } else if self.found.has(manager) {
            Some("NetworkManager, with DHCP on all network cards")
        } else {
            None
        }
    }
}

/// Whether `keep` says that this is kept.
pub(super) fn keeps(keep: &[Keep], what: Keep) -> bool {
    keep.contains(&what) || keep.contains(&Keep::All)
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
            ],
        ),
        (Keep::SshKeys, Reason::Identity, &["/etc/ssh/ssh_host_*"]),
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

/// `/etc/hosts` with another name in place of the old one, which may have a domain.
fn renamed(hosts: &str, old: &str, new: &str) -> String {
    let word = |word: &str| match word.strip_prefix(old) {
        Some("") => new.to_owned(),
        Some(domain) if domain.starts_with('.') => format!("{new}{domain}"),
        _ => word.to_owned(),
    };
    let line = |line: &str| {
        let is_own = line
            .split_whitespace()
            .skip(1)
            .any(|name| name == old || name.starts_with(&format!("{old}.")));
        match is_own && !line.starts_with('#') {
            true => line
                .split_inclusive(char::is_whitespace)
                .map(|part| {
                    let name = part.trim_end();
                    word(name) + &part[name.len()..]
                })
                .collect(),
            false => line.to_owned(),
        }
    };
    hosts.lines().map(|text| line(text) + "\n").collect()
}

/// The table of a System V init with a login on both consoles, each only where it is.
fn with_gettys(table: &str) -> String {
    let mut text = table.trim_end().to_owned() + "\n";
    for (id, terminal) in [("h0", "hvc0"), ("T0", "ttyS0")] {
        let named = |line: &str| !line.starts_with('#') && line.contains(terminal);
        if !table.lines().any(named) {
            text.push_str(&format!(
                "{id}:2345:respawn:/bin/sh -c '[ -c /dev/{terminal} ] || exec sleep 100000; exec /sbin/getty 115200 {terminal} linux'\n"
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_gets_another_name() {
        let hosts = "127.0.0.1\tlocalhost\n127.0.1.1\told.example.org old\n# old\n10.0.0.1 older\n";
        let expected = "127.0.0.1\tlocalhost\n127.0.1.1\tclientA.example.org clientA\n# old\n10.0.0.1 older\n";
        assert_eq!(renamed(hosts, "old", "clientA"), expected);
    }

    #[test]
    fn a_login_on_each_console_once() {
        let once = with_gettys("id:2:initdefault:\n#T0:23:respawn:/sbin/getty ttyS0\n");
        assert_eq!(once.matches("respawn:/bin/sh").count(), 2);
        assert_eq!(with_gettys(&once), once);
    }
}

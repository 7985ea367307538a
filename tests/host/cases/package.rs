// SPDX-License-Identifier: MIT OR Apache-2.0
//! The package: installed, upgraded under a running guest, removed, purged.

use super::{THICK, cases, guest, nothing_left, only_our_entries, property};
use crate::From;
use crate::machine::Host;

/// The cases of this file: some start from a machine without the package.
pub(super) fn cases() -> Vec<crate::Case> {
    let mut cases = on_xen();
    cases.push(crate::Case {
        name: concat!(module_path!(), "::install_remove_purge"),
        from: From::Plain,
        test: install_remove_purge,
    });
    cases
}

mod xen {
    use super::{remove_with_a_running_guest, upgrade_under_a_running_guest};
    super::cases!(Xen: upgrade_under_a_running_guest, remove_with_a_running_guest);
    pub(super) fn all() -> Vec<crate::Case> {
        cases()
    }
}
use xen::all as on_xen;

fn install_remove_purge(host: &mut Host) {
    let failed = "systemctl list-units --failed --no-legend --plain | grep ttvm; true";
    only_our_entries(host);
    host.run(&format!("dpkg -i {} 2>&1", Host::DEB)).unwrap();
    assert!(
        host.run("systemctl cat ttvm@x.service ttvm.target")
            .unwrap()
            .contains("ttvm-guest run")
    );
    // Nothing started; enabled is only what brings back a network mode that somebody has chosen.
    assert_eq!(
        host.run("systemctl list-units --all --no-legend 'ttvm*' | grep -v -e not-found -e ttvm-agent -e 'inactive *dead'; true")
            .unwrap(),
        ""
    );
    assert_eq!(
        host.run(
            "systemctl list-unit-files --no-legend 'ttvm*' | awk '$2 == \"enabled\" {print $1}' | grep -v agent | xargs"
        )
        .unwrap(),
        "ttvm-network-again.service ttvm-network.service"
    );
    assert_eq!(
        host.run("grep -c \"menuentry .*'ttvm-\" /boot/grub/grub.cfg").unwrap(),
        "2"
    );
    host.run("ttvm status && man -w ttvm 2>/dev/null || true; ttvm --version")
        .unwrap();
    // A person's own settings survive everything but a purge, their guests that as well.
    host.run("echo '# mine' >> /etc/ttvm/ttvm.toml; echo 'kernel = \"/boot/none\"' > /etc/ttvm/guests/mine.toml")
        .unwrap();
    host.run(&format!(
        "dpkg -i {} 2>&1 && grep -q '# mine' /etc/ttvm/ttvm.toml",
        Host::DEB
    ))
    .unwrap();
    // Its network goes with it, also a change that nobody has confirmed.
    host.run(
        "ttvm network set nat && ttvm network set nat --subnet 10.9.0.0/24 --confirm-within 60s && ip link show ttbr0",
    )
    .unwrap();
    host.run("dpkg -r ttvm 2>&1").unwrap();
    let left = "ip -o link show ttbr0 2>/dev/null; nft list tables; pgrep -a dnsmasq; systemctl list-units --no-legend 'ttvm-n*'; true";
    assert_eq!(host.run(left).unwrap(), "");
    assert_eq!(
        host.run("grep -c \"'ttvm-\" /boot/grub/grub.cfg; true").unwrap(),
        "0",
        "entries are gone"
    );
    host.run("test -e /etc/grub.d/21_ttvm && grep -q '# mine' /etc/ttvm/ttvm.toml && ! test -e /usr/bin/ttvm")
        .unwrap();
    assert_ne!(
        host.sh("systemctl cat ttvm@x.service").unwrap().status,
        0,
        "units are gone"
    );
    host.run("dpkg -P ttvm 2>&1").unwrap();
    host.run("! test -e /etc/grub.d/21_ttvm && ! test -e /etc/ttvm/ttvm.toml && test -e /etc/ttvm/guests/mine.toml && ! test -e /var/lib/ttvm").unwrap();
    assert_eq!(host.run(failed).unwrap(), "");
    let known = host.run("dpkg-query -W -f '${db:Status-Status}' ttvm 2>/dev/null; true");
    assert!(["", "not-installed"].contains(&known.unwrap().as_str()));
}

/// Packs the installed package anew under a higher version.
fn newer_package(host: &mut Host) {
    host.push(&crate::package(), "/root/ttvm.deb", 0o644).unwrap();
    host.run("dpkg-deb -R /root/ttvm.deb /root/newer && sed -i 's/^Version: .*/Version: 9.0/' /root/newer/DEBIAN/control && dpkg-deb -Zgzip -z1 -b /root/newer /root/newer.deb").unwrap();
}

fn upgrade_under_a_running_guest(host: &mut Host) {
    guest(host, "clientA", THICK, "", "");
    host.run("systemctl start ttvm@clientA").unwrap();
    let look = "xl domid clientA; systemctl show -P MainPID ttvm@clientA";
    let before = host.run(look).unwrap();
    newer_package(host);
    only_our_entries(host);
    host.run("dpkg -i /root/newer.deb 2>&1").unwrap();
    assert_eq!(host.run(look).unwrap(), before, "the guest kept running");
    assert_eq!(property(host, "clientA", "ActiveState"), "active");
    host.run("systemctl restart ttvm@clientA && systemctl stop ttvm@clientA")
        .unwrap();
    nothing_left(host, "clientA");
}

fn remove_with_a_running_guest(host: &mut Host) {
    guest(host, "clientA", THICK, "", "");
    only_our_entries(host);
    host.run("systemctl start ttvm@clientA && dpkg -r ttvm 2>&1").unwrap();
    nothing_left(host, "clientA");
}

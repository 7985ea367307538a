// SPDX-License-Identifier: MIT OR Apache-2.0
//! The package: installed, upgraded under a running guest, removed, purged.

use std::path::Path;
use std::process::Command;

use super::{cases, nothing_left, only_our_entries, until};
use crate::machine::Host;

cases! {
    Plain {
        Trixie: install_remove_purge;
    }
    Guest {
        LaterBookworm: upgrade_under_a_running_guest;
        Both: remove_with_a_running_guest;
    }
}

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

/// The package under test as it was at version 0.1.0, in the host as /root/old.deb (tests/fixtures/package).
fn older_package(host: &mut Host) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/package/old.sh");
    let old = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("old.{}.deb", host.suite().name()));
    let made = Command::new(script).arg(crate::package()).arg(&old).status();
    assert!(made.unwrap().success());
    host.push(&old, "/root/old.deb", 0o644).unwrap();
    std::fs::remove_file(old).unwrap();
}

/// A guest runs and a change of the network waits while another version is put in the place of this one, and this one back.
fn upgrade_under_a_running_guest(host: &mut Host) {
    let look = "xl domid clientA; systemctl show -P MainPID,ActiveState ttvm@clientA";
    let before = host.run(look).unwrap();
    older_package(host);
    only_our_entries(host);
    host.run("dpkg -i /root/old.deb 2>&1").unwrap();
    assert_eq!(host.run(look).unwrap(), before, "the guest kept running");
    assert_eq!(host.run("dpkg-query -W -f '${Version}' ttvm").unwrap(), "0.1.0-1");
    host.run("systemctl cat ttvm@x.service ttvm-netd.service >/dev/null")
        .unwrap();
    host.run("ttvm network set nat && ttvm network set nat --subnet 10.9.0.0/24 --confirm-within 600s")
        .unwrap();
    host.push(&crate::package(), Host::DEB, 0o644).unwrap();
    host.run(&format!("dpkg -i {} 2>&1", Host::DEB)).unwrap();
    assert_eq!(host.run(look).unwrap(), before, "the guest kept running");
    let status = host.run("ttvm network status").unwrap();
    assert!(status.contains("waits to be confirmed"), "{status}");
    host.run("ttvm network confirm && ip -o address show ttbr0 | grep -q 10.9.0.254")
        .unwrap();
    // The units are those of this version, each in one place.
    host.run(
        "systemctl cat ttvm@x.service ttvm-netd.service >/dev/null && test -e /usr/lib/systemd/system/ttvm@.service",
    )
    .unwrap();
    assert_eq!(
        host.run("systemctl is-enabled ttvm-network.service ttvm-network-again.service")
            .unwrap(),
        "enabled\nenabled"
    );
    host.run("systemctl restart ttvm@clientA && systemctl stop ttvm@clientA")
        .unwrap();
    // The network's service ends by itself when it is idle.
    until(host, "! systemctl is-active -q ttvm-netd");
    nothing_left(host, "clientA");
}

/// What runs is stopped, and what waits is undone, before the programs go that could do it.
fn remove_with_a_running_guest(host: &mut Host) {
    only_our_entries(host);
    host.run("ttvm network set nat && ttvm network set nat --subnet 10.9.0.0/24 --confirm-within 600s")
        .unwrap();
    host.run("dpkg -r ttvm 2>&1").unwrap();
    nothing_left(host, "clientA");
    let left = "ip -o link show ttbr0 2>/dev/null; nft list tables; pgrep -a dnsmasq; systemctl list-units --no-legend 'ttvm-n*'; true";
    assert_eq!(host.run(left).unwrap(), "");
    host.run("dpkg -P ttvm 2>&1 && ! test -e /var/lib/ttvm && test -e /etc/ttvm/guests/clientA.toml")
        .unwrap();
}

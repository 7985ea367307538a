// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boot entries, the machine that was booted through one of them, and the units.

use super::{cases, only_our_entries};
use crate::machine::Host;

cases! {
    Installed {
        Bookworm: entries_are_right, units_are_sound;
    }
    Xen {
        Trixie: booted_through_our_entry;
    }
}

fn booted_through_our_entry(host: &mut Host) {
    let xen = host.run("xl info").unwrap();
    let field = |name: &str| {
        xen.lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default()
            .to_owned()
    };
    for option in ["watchdog", "sync_console", "dom0_max_vcpus=1", "dom0_mem=500M,max:500M"] {
        assert!(field("xen_commandline").contains(option), "{xen}");
    }
    // The limits hold: Xen counts dom0's memory in whole pages, a little may be missing.
    let list = host.run("xl list | awk '$1 == \"Domain-0\" {print $3, $4}'").unwrap();
    let (memory, vcpus) = list.split_once(' ').unwrap();
    assert!((490..=500).contains(&memory.parse::<u32>().unwrap()), "{list}");
    assert_eq!(vcpus, "1");
    assert_eq!(host.run("nproc").unwrap(), "1");
    assert!(
        host.run("grub-editenv list")
            .unwrap()
            .contains("saved_entry=ttvm-ttxen-linux")
    );
}

fn entries_are_right(host: &mut Host) {
    // By hand, with the settings that grub-mkconfig reads, as from grub-mkconfig.
    let entries = host.run("ttvm boot render").unwrap();
    let ours = host
        .run("sed -n '/BEGIN .*21_ttvm/,/END .*21_ttvm/p' /boot/grub/grub.cfg | sed '1d;$d'")
        .unwrap();
    assert_eq!(entries.trim(), ours.trim());
    for id in ["ttvm-ttxen-linux", "ttvm-linux"] {
        assert_eq!(ours.matches(&format!("'{id}'")).count(), 1, "{ours}");
    }
    assert_eq!(
        host.sh("printf 'x = [' >> /etc/ttvm/ttvm.toml; /usr/libexec/ttvm/ttvm-grub")
            .unwrap()
            .text(),
        ""
    );
    only_our_entries(host);
    host.run("update-grub 2>/root/out; ! grep -q ttvm-linux /boot/grub/grub.cfg && grep -q ttvm.toml /root/out")
        .unwrap();
}

fn units_are_sound(host: &mut Host) {
    let complaints = host
        .run("systemd-analyze verify ttvm@clientA.service ttvm.target ttvm-boot-ok.service ttvm-boot-deadline.service ttvm-boot-deadline@60.timer ttvm-netd.service ttvm-network.service ttvm-network-again.service ttvm-dnsmasq.service ttvm-metrics.service ttvm-metrics.timer 2>&1; true")
        .unwrap();
    assert_eq!(complaints, "");
    let exposure = host
        .run("systemd-analyze security --no-pager ttvm@clientA.service | tail -n1")
        .unwrap();
    assert!(
        ["MEDIUM", "OK", "SAFE"].iter().any(|level| exposure.contains(level)),
        "{exposure}"
    );
}

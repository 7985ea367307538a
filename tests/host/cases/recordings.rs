// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs that are recorded from LVM snapshots and replayed, by their units, with a QEMU within the emulated host.

use super::{THICK, cases, emulated_guest, until};
use crate::machine::Host;

cases! {
    Installed {
        Bookworm: from_lvm;
        Trixie: ends;
        Later: from_lvm_ten_times;
    }
}

/// Everything the guest does is emulated twice here. Linux as a guest is recorded and replayed by tests/replay, where it is
/// emulated once.
fn prepare(host: &mut Host, cmdline: &str) {
    emulated_guest(host, &THICK.replace("32M", "64M"), cmdline);
}

fn from_lvm(host: &mut Host) {
    recorded_from_lvm(host, 3);
}

fn from_lvm_ten_times(host: &mut Host) {
    recorded_from_lvm(host, 10);
}

fn recorded_from_lvm(host: &mut Host, replays: u32) {
    prepare(host, "once");
    host.run("ttvm image seal xenvg/base").unwrap();
    let recorded = host.run("ttvm record clientA --for 2min 2>&1").unwrap();
    assert!(recorded.contains("powered itself off after"), "{recorded}");
    for _ in 0..replays {
        let replayed = host.run("ttvm replay --verify clientA 2>&1").unwrap();
        assert!(replayed.contains("IDENTICAL"), "{replayed}");
    }
    let list = host.run("ttvm recordings list clientA").unwrap();
    assert!(list.contains(&format!("identical ×{replays}")), "{list}");
    // A snapshot that is not fresh: somebody writes to it between its making and the guest's start.
    host.run(
        "mkdir -p /etc/systemd/system/ttvm-replay@.service.d && printf '[Service]\\nExecStartPre=/bin/dd if=/dev/urandom \
         of=/dev/xenvg/snap1 bs=1 seek=4096 count=16 conv=notrunc,fsync\\n' > /etc/systemd/system/ttvm-replay@.service.d/stale.conf \
         && systemctl daemon-reload",
    )
    .unwrap();
    let stale = host.sh("ttvm replay --verify clientA").unwrap();
    assert_eq!(stale.status, 5, "{} {}", stale.text(), stale.errors());
    assert!(
        stale.text().contains("DIVERGED") && stale.text().contains("disk "),
        "{}",
        stale.text()
    );
    host.run("rm -r /etc/systemd/system/ttvm-replay@.service.d && systemctl daemon-reload")
        .unwrap();
    // One byte of the origin.
    host.run("ttvm image unseal xenvg/base && printf x | dd of=/dev/xenvg/base bs=1 seek=9999 conv=notrunc,fsync 2>/dev/null")
        .unwrap();
    let changed = host.sh("ttvm replay --verify clientA").unwrap();
    assert_eq!(changed.status, 4, "{} {}", changed.text(), changed.errors());
    assert!(
        changed
            .errors()
            .contains("disk vda: the content of xenvg/base has changed"),
        "{}",
        changed.errors()
    );
    until(host, "test -z \"$(lvs --noheadings @ttvm)\"");
}

/// Starts a recording that goes on until it is ended, and waits until the guest does something.
fn record_on(host: &mut Host) {
    host.run("systemctl start ttvm-record@clientA").unwrap();
    until(
        host,
        "tail -n 1 $(ls -td /var/lib/ttvm/recordings/clientA/*/ | head -n 1)console.log | grep -q '^[0-9]'",
    );
}

/// What the list says of the newest recording.
fn newest(host: &mut Host) -> String {
    host.run("ttvm recordings list clientA | grep ^clientA | tail -n 1")
        .unwrap()
}

fn killed(host: &mut Host, what: &str) {
    record_on(host);
    host.run(what).unwrap();
    until(host, "systemctl is-failed ttvm-record@clientA");
    until(host, "! pgrep -f '[q]emu-system'");
    until(host, "test -z \"$(lvs --noheadings @ttvm)\"");
    assert!(newest(host).contains("incomplete"), "{}", newest(host));
}

fn ends(host: &mut Host) {
    prepare(host, "loop");
    killed(host, "kill -9 $(systemctl show -P MainPID ttvm-record@clientA)");
    killed(host, "pkill -9 -f '[q]emu-system'");
    // The space is accounted for, and given back.
    let size = host.run("du -sk /var/lib/ttvm/recordings | cut -f 1").unwrap();
    assert!(size.parse::<u32>().unwrap() >= 16, "{size}");
    host.run("ttvm recordings rm clientA --incomplete").unwrap();
    let list = host.run("ttvm recordings list clientA").unwrap();
    assert!(!list.contains("incomplete"), "{list}");
    record_on(host);
    // One run of a guest at a time.
    for other in ["record clientA --for 5s", "replay clientA"] {
        let refused = host.sh(&format!("ttvm {other}")).unwrap();
        assert!(refused.status != 0, "{}", refused.text());
    }
    let status = host.run("ttvm status").unwrap();
    assert!(status.contains("recording"), "{status}");
    // The power.
    host.run("sync").unwrap();
    host.power_cut_and_boot().unwrap();
    assert!(newest(host).contains("incomplete"), "{}", newest(host));
    // Another unit of the guest ends this one in good order: it is whole.
    record_on(host);
    host.run("systemctl start ttvm@clientA").unwrap();
    assert!(
        newest(host).contains("complete") && !newest(host).contains("incomplete"),
        "{}",
        newest(host)
    );
    host.run(
        "systemctl is-active ttvm@clientA && ! systemctl is-active ttvm-record@clientA && systemctl stop ttvm@clientA",
    )
    .unwrap();
    let replayed = host.run("ttvm replay --verify clientA 2>&1").unwrap();
    assert!(replayed.contains("IDENTICAL"), "{replayed}");
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests of the other two types: what their unit promises holds for them as well.

use super::kills::ONCE;
use super::{
    THICK, cases, console, first_block, guest, journal, nothing_left, other_volumes, property, tell, wait_for,
};
use crate::machine::Host;

cases! {
    Xen {
        LaterBookworm: pvh;
        // Its firmware loads the kernel through a device model, byte by byte, on an emulated processor: minutes.
        Both: hvm;
    }
}

/// The guest whose file is there: start, fresh disk, shutdown, crash.
fn lives(host: &mut Host) {
    let golden = first_block(host, "/dev/xenvg/base");
    let others = other_volumes(host);
    host.run(ONCE).unwrap();
    host.run("ttvm guest check clientA && systemctl start ttvm@clientA")
        .unwrap();
    assert!(console(host, "clientA", "first block", 1).ends_with(&golden));
    let status = host.run("ttvm status clientA").unwrap();
    assert!(status.contains("running"), "{status}");
    tell(host, "clientA", "write");
    tell(host, "clientA", "read");
    let written = console(host, "clientA", "first block", 2);
    assert!(!written.ends_with(&golden), "{written}");
    assert!(written.ends_with(&first_block(host, "/dev/xenvg/snap1")), "{written}");
    // It shuts down when it is asked to, and is not destroyed.
    host.run("systemctl stop ttvm@clientA").unwrap();
    console(host, "clientA", "poweroff asked for", 1);
    let log = host.run("journalctl -o cat -u ttvm@clientA").unwrap();
    assert!(!log.contains("destroy"), "{log}");
    nothing_left(host, "clientA");
    host.run("systemctl start ttvm@clientA").unwrap();
    assert!(console(host, "clientA", "first block", 3).ends_with(&golden));
    // A crash is one, too; here it is not followed by another start.
    tell(host, "clientA", "crash");
    journal(host, "clientA", "crashed: its kernel panicked", 1);
    wait_for(host, "clientA", "failed");
    assert_eq!(property(host, "clientA", "ExecMainStatus"), "1");
    assert_eq!(other_volumes(host), others);
    nothing_left(host, "clientA");
}

fn pvh(host: &mut Host) {
    host.run("xl info | grep -w hvm").unwrap();
    guest(host, "clientA", THICK, "ttvm.do=read", "type = \"pvh\"");
    lives(host);
}

fn hvm(host: &mut Host) {
    host.run("xl info | grep -w hvm").unwrap();
    // A whole disk: there is firmware, and it has a kernel to load that is as packed as any. After a panic that kernel resets its
    // machine, which Xen takes for a reboot, unless it is told to tell Xen at once.
    let disk = THICK.replace("xvda1", "xvda");
    guest(
        host,
        "clientA",
        &disk,
        "xen_legacy_crash ttvm.do=read",
        "type = \"hvm\"\nstart_timeout = \"600s\"",
    );
    host.run(
        "sed -i \"s#^kernel.*#kernel = \\\"$(ls /boot/vmlinuz-* | head -n 1)\\\"#; s/96M/256M/\" /etc/ttvm/guests/clientA.toml",
    )
    .unwrap();
    lives(host);
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is not provably ours stays: each trap lies where the snapshot would be, and must be there afterwards, unchanged.

use super::{THICK, THIN, cases, emulated_guest, guest, other_volumes, property, tried_again, wait_for};
use crate::machine::Host;

cases! {
    Installed {
        Bookworm: foreign_snapshot_and_its_handover, open_by_a_process;
        Trixie: mounted_snapshot, not_lvm;
        LaterBookworm: ordinary_volume_with_our_tag, snapshot_of_another_origin, other_guests_snapshot, names_with_dashes;
        LaterTrixie: held_by_another_device;
        Both: ordinary_volume, origin_of_other_snapshots, symlink_in_its_place;
    }
    Xen {
        Both: in_use_by_another_domain;
    }
}

/// People's commands are refused with the reason.
fn commands_refuse(host: &mut Host, reason: &str) {
    host.run("sed -i 's/# busy_timeout.*/busy_timeout = \"1s\"/' /etc/ttvm/ttvm.toml")
        .unwrap();
    for command in ["reset --dry-run", "reset", "discard"] {
        let output = host.sh(&format!("ttvm snapshot {command} clientA")).unwrap();
        assert_eq!(output.status, 4, "{command}: {}", output.errors());
        assert!(output.errors().contains(reason), "{command}: {}", output.errors());
    }
}

/// Both ways in are refused with the reason, and the volume is what it was.
fn refused(host: &mut Host, volume: &str, reason: &str) {
    let look = format!("lvs --noheadings -o lv_uuid,lv_tags,origin {volume}; sha256sum /dev/{volume}");
    let before = host.run(&look).unwrap();
    let others = other_volumes(host);
    commands_refuse(host, reason);
    assert_ne!(host.sh("systemctl start ttvm@clientA").unwrap().status, 0);
    let log = host.run("journalctl -o cat -u ttvm@clientA").unwrap();
    assert!(log.contains(reason), "{log}");
    // Only a person can put it right: it is not tried again, and `systemctl status` says why.
    wait_for(host, "clientA", "failed");
    assert_eq!(property(host, "clientA", "ExecMainStatus"), "4");
    assert_eq!(property(host, "clientA", "NRestarts"), "0");
    assert!(property(host, "clientA", "StatusText").contains(reason));
    assert_eq!(host.run(&look).unwrap(), before, "the volume is untouched");
    assert_eq!(other_volumes(host), others);
    assert_eq!(host.run("xl list | tail -n +3 | grep -vc foreign; true").unwrap(), "0");
}

fn ordinary_volume(host: &mut Host) {
    emulated_guest(host, THICK, "loop");
    host.run("lvcreate -q -y -L 16M -n snap1 xenvg && yes precious | dd of=/dev/xenvg/snap1 bs=1M count=4 iflag=fullblock 2>/dev/null").unwrap();
    refused(host, "xenvg/snap1", "foreign volume (linear), not made by ttvm");
}

fn ordinary_volume_with_our_tag(host: &mut Host) {
    emulated_guest(host, THICK, "loop");
    host.run("lvcreate -q -y -L 16M -n snap1 --addtag ttvm.guest=clientA xenvg")
        .unwrap();
    refused(host, "xenvg/snap1", "it is an ordinary volume, not a snapshot of base");
}

fn foreign_snapshot_and_its_handover(host: &mut Host) {
    emulated_guest(host, THICK, "loop");
    host.run("lvcreate -q -s -L 16M -n snap1 xenvg/base").unwrap();
    refused(
        host,
        "xenvg/snap1",
        "lvchange --addtag ttvm.guest=clientA --addtag ttvm.origin=base xenvg/snap1",
    );
    // The command it names does what it says.
    host.run(
        "lvchange -q --addtag ttvm.guest=clientA --addtag ttvm.origin=base xenvg/snap1 && ttvm snapshot reset clientA",
    )
    .unwrap();
}

fn snapshot_of_another_origin(host: &mut Host) {
    emulated_guest(host, THICK, "loop");
    host.run("lvcreate -q -s -L 16M -n snap1 --addtag ttvm.guest=clientA --addtag ttvm.origin=base xenvg/other")
        .unwrap();
    refused(
        host,
        "xenvg/snap1",
        "it is a snapshot of other, and the guest's file says base",
    );
}

fn other_guests_snapshot(host: &mut Host) {
    emulated_guest(host, THICK, "loop");
    host.run("lvcreate -q -s -L 16M -n snap1 --addtag ttvm.guest=clientAB xenvg/base")
        .unwrap();
    refused(host, "xenvg/snap1", "it belongs to guest \"clientAB\"");
}

fn origin_of_other_snapshots(host: &mut Host) {
    emulated_guest(host, THIN, "loop");
    host.run("ttvm snapshot reset clientA 2>/dev/null && lvcreate -q -s -kn -n child xenvg/snap1")
        .unwrap();
    refused(host, "xenvg/snap1", "it is itself the origin of other snapshots");
    host.run("lvs xenvg/child").unwrap();
}

fn mounted_snapshot(host: &mut Host) {
    emulated_guest(host, THICK, "loop");
    host.run("ttvm snapshot reset clientA 2>/dev/null && mkfs.ext4 -q -F /dev/xenvg/snap1 && mount -o ro,noload /dev/xenvg/snap1 /mnt").unwrap();
    refused(host, "xenvg/snap1", "in use by the mount /mnt");
    host.run("umount /mnt && ttvm snapshot reset clientA").unwrap();
}

fn open_by_a_process(host: &mut Host) {
    emulated_guest(host, THICK, "loop");
    host.run(
        "ttvm snapshot reset clientA 2>/dev/null; sleep 1000 </dev/xenvg/snap1 >/dev/null 2>&1 & echo $! >/root/pid",
    )
    .unwrap();
    commands_refuse(host, "in use by the process sleep (pid");
    // A program may let go: the guest is started again until it has.
    assert_ne!(host.sh("systemctl start ttvm@clientA").unwrap().status, 0);
    assert!(property(host, "clientA", "StatusText").contains("in use by the process sleep (pid"));
    tried_again(host, "clientA");
    host.run("kill $(cat /root/pid)").unwrap();
    wait_for(host, "clientA", "active");
    host.run("systemctl stop ttvm@clientA").unwrap();
    // Who lets go in time is waited for.
    host.run("sed -i 's/busy_timeout.*/busy_timeout = \"30s\"/' /etc/ttvm/ttvm.toml; ttvm snapshot reset clientA 2>/dev/null; \
              sleep 1000 </dev/xenvg/snap1 >/dev/null 2>&1 & pid=$!; (sleep 2; kill $pid) & ttvm snapshot reset clientA").unwrap();
}

fn held_by_another_device(host: &mut Host) {
    emulated_guest(host, THIN, "loop");
    host.run(
        "ttvm snapshot reset clientA 2>/dev/null && echo \"0 1024 linear /dev/xenvg/snap1 0\" | dmsetup create holder",
    )
    .unwrap();
    refused(host, "xenvg/snap1", "in use by the device-mapper device holder");
}

fn in_use_by_another_domain(host: &mut Host) {
    guest(host, "clientA", THICK, "", "");
    host.run("ttvm snapshot reset clientA 2>/dev/null && ttvm guest config clientA | sed 's/clientA\"/foreign\"/; s/^uuid.*//' > /root/foreign.cfg && xl create -q -e /root/foreign.cfg").unwrap();
    refused(host, "xenvg/snap1", "in use by the domain foreign (id 1)");
    assert_eq!(host.run("xl list | grep -c foreign").unwrap(), "1");
}

fn symlink_in_its_place(host: &mut Host) {
    emulated_guest(host, THICK, "loop");
    host.run("vgscan --mknodes >/dev/null 2>&1; ln -s /dev/xenvg/other /dev/xenvg/snap1")
        .unwrap();
    let others = other_volumes(host);
    let output = host.sh("ttvm snapshot reset clientA").unwrap();
    assert_eq!(output.status, 4, "{}", output.errors());
    assert!(
        output.errors().contains("/dev/xenvg/snap1 leads to something else"),
        "{}",
        output.errors()
    );
    assert_ne!(host.sh("systemctl start ttvm@clientA").unwrap().status, 0);
    assert_eq!(host.run("readlink /dev/xenvg/snap1").unwrap(), "/dev/xenvg/other");
    // The same in place of a snapshot that is there.
    host.run("rm /dev/xenvg/snap1; ttvm snapshot reset clientA 2>/dev/null; ln -sf /dev/xenvg/other /dev/xenvg/snap1")
        .unwrap();
    for action in ["reset", "discard"] {
        assert_eq!(host.sh(&format!("ttvm snapshot {action} clientA")).unwrap().status, 4);
    }
    assert_eq!(host.run("dmsetup ls | grep -c xenvg-snap1").unwrap(), "2");
    assert_eq!(other_volumes(host), others);
}

fn names_with_dashes(host: &mut Host) {
    let disk = THICK.replace("snap1", "snap-1");
    emulated_guest(host, &disk, "loop");
    // device-mapper doubles dashes: a volume whose name only looks the same there is another one.
    host.run("lvcreate -q -y -Wn -L 8M -n snap--1 xenvg; lvcreate -q -y -Wn -L 8M -n snap xenvg")
        .unwrap();
    host.run("systemctl start ttvm@clientA && systemctl stop ttvm@clientA && lvs xenvg/snap--1 xenvg/snap")
        .unwrap();
    host.run("lvcreate -q -y -L 16M -n snap-1 xenvg").unwrap();
    refused(host, "xenvg/snap-1", "foreign volume");
}

fn not_lvm(host: &mut Host) {
    emulated_guest(host, THICK, "loop");
    host.run("dmsetup create xenvg-snap1 --table '0 1024 zero' && mkdir -p /dev/xenvg && ln -s /dev/mapper/xenvg-snap1 /dev/xenvg/snap1").unwrap();
    let output = host.sh("ttvm snapshot reset clientA").unwrap();
    assert_eq!(output.status, 4, "{}", output.errors());
    assert!(
        output.errors().contains("is not a logical volume"),
        "{}",
        output.errors()
    );
    host.run("dmsetup info xenvg-snap1").unwrap();
}

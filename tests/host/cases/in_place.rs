// SPDX-License-Identifier: MIT OR Apache-2.0
//! A thick snapshot is made fresh in its place, and by LVM where anything is unusual: nothing of the run before is on it either way.

use super::kills::is_fresh;
use super::{THICK, cases, emulated_guest, other_volumes};
use crate::machine::Host;

cases! {
    Installed {
        Bookworm: without_lvm;
        Trixie: kept_by_lvm;
        LaterBookworm: lost, in_other_hands, opened_meanwhile;
        Both: size_of_the_guests_file, table_loaded, many_times;
    }
}

pub(super) const RESET: &str = "/usr/libexec/ttvm/ttvm-snapshot reset -- clientA 2>&1";
/// What is left to udev of it is over.
pub(super) const WRITE: &str =
    "dd if=/dev/urandom of=/dev/xenvg/snap1 bs=1M count=5 oflag=direct 2>/dev/null; udevadm settle";
/// All that LVM and the kernel know of it, but for how full it is.
const KNOWN: &str = "lvs --noheadings -o lv_uuid,lv_attr,lv_size,lv_tags,origin,seg_monitor,vg_seqno xenvg/snap1; \
    dmsetup table; dmsetup info -c --noheadings -o name,uuid,major,minor,suspended; for link in /dev/xenvg/* /dev/mapper/xenvg*; do echo $link $(readlink $link); done";

pub(super) fn reset(host: &mut Host, commands: u32) -> String {
    let said = host.run(RESET).unwrap();
    assert!(said.contains(&format!("({commands} commands run)")), "{said}");
    is_fresh(host);
    said
}

fn without_lvm(host: &mut Host) {
    let others = other_volumes(host);
    emulated_guest(host, THICK, "loop");
    reset(host, 1);
    // Another one of the same origin keeps what is on it.
    host.run("lvcreate -q -y -s -L 32M -n plain1 xenvg/base && dd if=/dev/urandom of=/dev/xenvg/plain1 bs=1M count=5 oflag=direct 2>/dev/null")
        .unwrap();
    let plain = host.run("cksum /dev/xenvg/plain1").unwrap();
    let before = host.run(KNOWN).unwrap();
    for _ in 0..3 {
        host.run(WRITE).unwrap();
        reset(host, 0);
        assert_eq!(host.run(KNOWN).unwrap(), before);
    }
    let filled = host.run("dmsetup status xenvg-snap1").unwrap();
    assert!(filled.ends_with(" snapshot 16/65536 16"), "{filled}");
    let whole = host.run("cksum </dev/xenvg/snap1; cksum </dev/xenvg/base").unwrap();
    assert_eq!(whole.lines().next(), whole.lines().last());
    assert_eq!(host.run("cksum /dev/xenvg/plain1").unwrap(), plain);
    let plan = host.run("ttvm snapshot reset --dry-run clientA").unwrap();
    assert!(plan.contains("fresh in its place"), "{plan}");
    // It is what LVM believes it is: it can be extended, and removed.
    host.run("lvextend -q -L +4M xenvg/snap1 && lvremove -q -y xenvg/plain1 xenvg/snap1")
        .unwrap();
    assert_eq!(other_volumes(host), others);
}

fn many_times(host: &mut Host) {
    let others = other_volumes(host);
    emulated_guest(host, THICK, "loop");
    reset(host, 1);
    for _ in 0..100 {
        host.run(WRITE).unwrap();
        reset(host, 0);
    }
    assert_eq!(host.run("dmesg | grep -c 'I/O error'; true").unwrap(), "0");
    assert_eq!(other_volumes(host), others);
}

fn size_of_the_guests_file(host: &mut Host) {
    emulated_guest(host, THICK, "loop");
    reset(host, 1);
    for (size, extents) in [("48M", "48.00m"), ("30M", "32.00m"), ("1G", "68.00m")] {
        host.run(WRITE).unwrap();
        emulated_guest(host, &THICK.replace("32M", size), "loop");
        let said = reset(host, 2);
        assert!(said.contains("the guest's file wants another size"), "{said}");
        assert_eq!(
            host.run("lvs --noheadings -o lv_size xenvg/snap1 | xargs").unwrap(),
            extents
        );
        host.run(WRITE).unwrap();
        reset(host, 0);
    }
}

/// It overflows.
fn lost(host: &mut Host) {
    emulated_guest(host, THICK, "loop");
    reset(host, 1);
    host.run("dd if=/dev/urandom of=/dev/xenvg/snap1 bs=1M count=40 conv=fsync 2>/dev/null; dmsetup status xenvg-snap1 | grep -qE 'Invalid|Overflow'")
        .unwrap();
    reset(host, 2);
    // dmeventd has seen this one, and would be silent until it is fuller still.
    host.run("dd if=/dev/urandom of=/dev/xenvg/snap1 bs=1M count=20 oflag=direct 2>/dev/null; udevadm settle")
        .unwrap();
    let said = reset(host, 2);
    assert!(said.contains("dmeventd has seen it"), "{said}");
}

/// Somebody has taken it over, or has its origin open; its whole group is another host's.
fn in_other_hands(host: &mut Host) {
    emulated_guest(host, THICK, "loop");
    reset(host, 1);
    host.run(WRITE).unwrap();
    let written = host.run("cksum /dev/xenvg/snap1").unwrap();
    host.run("lvchange -q --deltag ttvm.guest=clientA xenvg/snap1").unwrap();
    let refused = host.sh(RESET).unwrap();
    assert!(
        refused.status == 4 && refused.text().contains("foreign snapshot of base"),
        "{}",
        refused.text()
    );
    assert_eq!(host.run("cksum /dev/xenvg/snap1").unwrap(), written);
    host.run("lvchange -q --addtag ttvm.guest=clientA xenvg/snap1").unwrap();
    reset(host, 0);
    host.run(WRITE).unwrap();
    host.run("sleep 1000 </dev/xenvg/base >/dev/null 2>&1 & echo $! >/root/pid")
        .unwrap();
    let said = reset(host, 2);
    assert!(said.contains("its origin is in use"), "{said}");
    host.run("kill $(cat /root/pid)").unwrap();
    host.run(WRITE).unwrap();
    let written = host.run("cksum /dev/xenvg/snap1").unwrap();
    // vgchange wants it inactive.
    let give_away = r#"vgcfgbackup -q -f /root/vg xenvg && sed -i '0,/seqno = /s//system_id = "another"\n\tseqno = /' /root/vg && vgcfgrestore -q -y --force -f /root/vg xenvg"#;
    host.run(give_away).unwrap();
    let failed = host.sh(RESET).unwrap();
    let said = failed.text();
    assert!(
        failed.status != 0 && said.contains("its group is another host's"),
        "{said}"
    );
    assert_eq!(host.run("cksum /dev/xenvg/snap1").unwrap(), written);
}

/// Somebody opens it just after it was seen that nobody has, or after its table was changed, and reads. A process may end by itself,
/// so that it is status 1, and not that of a refusal.
fn opened_meanwhile(host: &mut Host) {
    emulated_guest(host, THICK, "loop");
    host.run("sed -i 's/# busy_timeout.*/busy_timeout = \"1s\"/' /etc/ttvm/ttvm.toml")
        .unwrap();
    reset(host, 1);
    host.run(WRITE).unwrap();
    let written = "dd if=/dev/xenvg/snap1 bs=1M iflag=direct status=none | cksum";
    let before = host.run(written).unwrap();
    let table = host.run("dmsetup table").unwrap();
    for point in ["emptying", "closed"] {
        let script = format!(
            "TTVM_FAIL_POINT=snapshot.{point}:stop /usr/libexec/ttvm/ttvm-snapshot reset -- clientA >/root/out 2>&1 & reset=$!
             timeout 600 sh -c \"until grep -q '^State:.*stopped' /proc/$reset/status; do sleep 0.1; done\" || exit
             exec 3</dev/xenvg/snap1; head -c 4096 <&3 >/dev/null
             kill -CONT $reset; wait $reset; echo status $?
             cat /dev/xenvg/snap1 | cksum; exec 3<&-; cat /root/out"
        );
        let said = host.run(&script).unwrap();
        let refused = said.contains("status 1\n") && said.contains("is in use by");
        assert!(refused && said.contains(&before), "{point}: {said}");
        assert_eq!(host.run(written).unwrap(), before, "{point}");
        assert_eq!(host.run("dmsetup table").unwrap(), table, "{point}");
    }
    reset(host, 0);
}

/// What is on the disks is read as LVM reports it, also of a group of two disks.
fn kept_by_lvm(host: &mut Host) {
    let others = other_volumes(host);
    emulated_guest(host, THICK, "loop");
    host.run("truncate -s 64M /root/disk && losetup /dev/loop7 /root/disk && pvcreate -q -y /dev/loop7 && vgextend -q xenvg /dev/loop7")
        .unwrap();
    reset(host, 1);
    host.run(WRITE).unwrap();
    reset(host, 0);
    // Metadata that one of the disks does not have: a copy of it comes back from elsewhere.
    host.run(
        "dd if=/dev/loop7 of=/root/old bs=1M count=1 2>/dev/null && lvcreate -q -y -Wn -l1 -n more xenvg && sync && \
              dd if=/root/old of=/dev/loop7 bs=1M count=1 oflag=direct conv=notrunc 2>/dev/null",
    )
    .unwrap();
    host.run(WRITE).unwrap();
    let said = host.sh(RESET).unwrap().text();
    assert!(said.contains("its metadata is not that of the other disks"), "{said}");
    is_fresh(host);
    assert_eq!(other_volumes(host), others);
}

/// What one who is killed between loading a table and using it leaves: with the first table, or with the second.
fn table_loaded(host: &mut Host) {
    let others = other_volumes(host);
    emulated_guest(host, THICK, "loop");
    reset(host, 1);
    let nothing = "echo 0 $(blockdev --getsz /dev/xenvg/snap1) zero";
    let first = format!("{nothing} | dmsetup load xenvg-snap1");
    let second = format!(
        "own=$(dmsetup table xenvg-snap1); {first}; dmsetup resume xenvg-snap1; echo $own | dmsetup load xenvg-snap1"
    );
    for left in [first, second] {
        host.run(WRITE).unwrap();
        host.run(&left).unwrap();
        // LVM does not succeed at once.
        let said = host.run(RESET).unwrap();
        assert!(said.contains("a change of a device of it was begun"), "{said}");
        is_fresh(host);
        let odd = host.run("dmsetup info | grep -E 'SUSPENDED|INACTIVE'; true").unwrap();
        assert_eq!(odd, "");
        host.run(WRITE).unwrap();
        reset(host, 0);
    }
    assert_eq!(other_volumes(host), others);
}

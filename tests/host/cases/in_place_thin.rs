// SPDX-License-Identifier: MIT OR Apache-2.0
//! A thin snapshot is made fresh in its place, and by LVM where anything is unusual.

use super::in_place::{RESET, WRITE, reset};
use super::kills::is_fresh;
use super::{THIN, cases, emulated_guest, other_volumes};
use crate::machine::Host;

cases! {
    Installed {
        Trixie: thin_without_lvm;
        LaterBookworm: thin_left_to_lvm;
        Both: thin_opened_meanwhile, thin_many_times, two_of_one_pool;
    }
}

/// All that LVM and the kernel know of it, but for how full it is.
const KNOWN: &str = "lvs --noheadings -o lv_uuid,lv_attr,lv_size,lv_tags,origin,thin_id,seg_monitor,vg_seqno xenvg/snap1; \
    lvs -a --noheadings -o transaction_id,thin_count xenvg/pool; blockdev --getra /dev/xenvg/snap1; dmsetup table; \
    dmsetup info -c --noheadings -o name,uuid,major,minor,suspended; for link in /dev/xenvg/* /dev/mapper/xenvg*; do echo $link $(readlink $link); done";
/// The kernel's own numbers of the pool: each is LVM's, and LVM's are all of them; none is damaged.
pub(super) const AGREED: &str = "rm -f /root/kernels; vgck xenvg && vgchange -q -an xenvg && lvchange -q -y -ay xenvg/pool_tmeta && thin_check -q /dev/xenvg/pool_tmeta && \
    thin_dump /dev/xenvg/pool_tmeta | sed -n 's/.*<device dev_id=\"\\([0-9]*\\)\".*/\\1/p' | sort -n | xargs >/root/kernels; \
    lvchange -q -an xenvg/pool_tmeta; lvs --noheadings -o thin_id -S 'thin_id>0' xenvg | xargs -n1 | sort -n | xargs >/root/lvms; \
    vgchange -q -ay xenvg; udevadm settle; diff /root/kernels /root/lvms";

fn thin_without_lvm(host: &mut Host) {
    let others = other_volumes(host);
    emulated_guest(host, THIN, "loop");
    reset(host, 1);
    // Another one of the same origin keeps what is on it.
    host.run("lvcreate -q -y -s -kn -ay -n plain1 xenvg/tbase && dd if=/dev/urandom of=/dev/xenvg/plain1 bs=1M count=5 oflag=direct 2>/dev/null; udevadm settle")
        .unwrap();
    let plain = host.run("cksum /dev/xenvg/plain1").unwrap();
    let before = host.run(KNOWN).unwrap();
    for _ in 0..3 {
        host.run(WRITE).unwrap();
        reset(host, 0);
        assert_eq!(host.run(KNOWN).unwrap(), before);
    }
    // What it says cannot be written: that is no reason to end.
    host.run(WRITE).unwrap();
    host.run("ttvm snapshot reset clientA 2>/dev/full").unwrap();
    is_fresh(host);
    assert_eq!(host.run(KNOWN).unwrap(), before);
    let whole = host.run("cksum </dev/xenvg/snap1; cksum </dev/xenvg/tbase").unwrap();
    assert_eq!(whole.lines().next(), whole.lines().last());
    assert_eq!(host.run("cksum /dev/xenvg/plain1").unwrap(), plain);
    let plan = host.run("ttvm snapshot reset --dry-run clientA").unwrap();
    assert!(plan.contains("fresh in its place"), "{plan}");
    // The same where the origin has no device, as the kernel and LVM see it after that.
    host.run(WRITE).unwrap();
    host.run("lvchange -q -an xenvg/tbase").unwrap();
    let said = host.run(RESET).unwrap();
    assert!(said.contains("(0 commands run)"), "{said}");
    host.run("lvchange -q -ay xenvg/tbase; udevadm settle").unwrap();
    is_fresh(host);
    host.run(AGREED).unwrap();
    is_fresh(host);
    reset(host, 0);
    host.run("lvremove -q -y xenvg/plain1 xenvg/snap1").unwrap();
    assert_eq!(other_volumes(host), others);
}

fn thin_many_times(host: &mut Host) {
    let others = other_volumes(host);
    emulated_guest(host, THIN, "loop");
    reset(host, 1);
    for _ in 0..100 {
        host.run(WRITE).unwrap();
        reset(host, 0);
    }
    host.run(AGREED).unwrap();
    assert_eq!(host.run("dmesg | grep -c 'I/O error'; true").unwrap(), "0");
    assert_eq!(other_volumes(host), others);
}

/// Each is unusual in one thing, and made anew.
fn thin_left_to_lvm(host: &mut Host) {
    let others = other_volumes(host);
    emulated_guest(host, THIN, "loop");
    reset(host, 1);
    let is_left = |host: &mut Host, change: &str, back: &str, why: &str| {
        host.run(WRITE).unwrap();
        host.run(change).unwrap();
        let said = host.sh(RESET).unwrap().text();
        assert!(said.contains(why), "{why}: {said}");
        host.run(back).unwrap();
        host.run(RESET).unwrap();
        is_fresh(host);
    };
    is_left(
        host,
        "lvextend -q -L +4M xenvg/snap1",
        "true",
        "its origin has another size",
    );
    is_left(
        host,
        "sleep 1000 </dev/xenvg/tbase >/dev/null 2>&1 & echo $! >/root/pid",
        "kill $(cat /root/pid)",
        "its origin is in use",
    );
    is_left(
        host,
        "lvcreate -q -y -s -L 8M -n thick xenvg/tbase",
        "lvremove -q -y xenvg/thick",
        "its origin is an origin otherwise, too",
    );
    // One who was killed has left the origin suspended: this is put right.
    host.run(WRITE).unwrap();
    host.run("dmsetup suspend xenvg-tbase").unwrap();
    reset(host, 0);
    // A program that looks at the kernel's metadata of the pool.
    is_left(
        host,
        "dmsetup message xenvg-pool-tpool 0 reserve_metadata_snap",
        "dmsetup message xenvg-pool-tpool 0 release_metadata_snap",
        "its pool wants to be looked at",
    );
    // A number that another device has, by hand: LVM would fail in the middle of removing it.
    host.run(WRITE).unwrap();
    let written = "dd if=/dev/xenvg/snap1 bs=1M iflag=direct status=none | cksum";
    let before = host.run(written).unwrap();
    host.run("dmsetup table xenvg-snap1 | dmsetup create second").unwrap();
    let refused = host.sh("ttvm snapshot reset clientA 2>&1").unwrap();
    let said = refused.text();
    assert!(refused.status == 4 && said.contains("is in use by something"), "{said}");
    assert_eq!(host.run(written).unwrap(), before);
    host.run("dmsetup remove second; udevadm settle").unwrap();
    reset(host, 0);
    host.run(AGREED).unwrap();
    assert_eq!(other_volumes(host), others);
}

/// Somebody opens it just after it was seen that nobody has, or after its table was changed, and reads.
fn thin_opened_meanwhile(host: &mut Host) {
    emulated_guest(host, THIN, "loop");
    host.run("sed -i 's/# busy_timeout.*/busy_timeout = \"1s\"/' /etc/ttvm/ttvm.toml")
        .unwrap();
    reset(host, 1);
    host.run(WRITE).unwrap();
    let written = "dd if=/dev/xenvg/snap1 bs=1M iflag=direct status=none | cksum";
    let before = host.run(written).unwrap();
    let table = host.run("dmsetup table").unwrap();
    let stopped = |point: &str, then: &str| {
        format!(
            "TTVM_FAIL_POINT=snapshot.{point}:stop /usr/libexec/ttvm/ttvm-snapshot reset -- clientA >/root/out 2>&1 & reset=$!
             timeout 600 sh -c \"until grep -q '^State:.*stopped' /proc/$reset/status; do sleep 0.1; done\" || exit
             {then}; cat /root/out"
        )
    };
    for point in ["emptying", "closed"] {
        let script = stopped(
            point,
            "exec 3</dev/xenvg/snap1; head -c 4096 <&3 >/dev/null
             kill -CONT $reset; wait $reset; echo status $?; cat /dev/xenvg/snap1 | cksum; exec 3<&-",
        );
        let said = host.run(&script).unwrap();
        let refused = said.contains("status 1\n") && said.contains("is in use by");
        assert!(refused && said.contains(&before), "{point}: {said}");
        assert_eq!(host.run(written).unwrap(), before, "{point}");
        assert_eq!(host.run("dmsetup table").unwrap(), table, "{point}");
    }
    // Whoever has written to it before it had its table back, and closes it after that, has written to nothing that stays.
    let script = stopped(
        "emptied",
        "(exec 3>/dev/xenvg/snap1; echo written >&3; kill -CONT $reset; sleep 0.5); wait $reset; echo status $?",
    );
    let said = host.run(&script).unwrap();
    assert!(said.contains("status 0\n"), "{said}");
    is_fresh(host);
    // What is asked of LVM meanwhile waits, and finds it as it was.
    host.run(WRITE).unwrap();
    let script = stopped(
        "deleted",
        "(lvs --noheadings -o thin_id xenvg/snap1 >/root/lvs 2>&1; echo ended >>/root/lvs) & sleep 2; cat /root/lvs; \
         kill -CONT $reset; wait; grep -c ended /root/lvs",
    );
    let said = host.run(&script).unwrap();
    assert!(said.contains("(0 commands run)") && said.starts_with("1\n"), "{said}");
    is_fresh(host);
    host.run(AGREED).unwrap();
}

/// Two guests are started at once, again and again, from one origin.
fn two_of_one_pool(host: &mut Host) {
    let others = other_volumes(host);
    emulated_guest(host, THIN, "loop");
    host.run("sed -e s/snap1/snap2/ /etc/ttvm/guests/clientA.toml >/etc/ttvm/guests/b.toml")
        .unwrap();
    let both = "for guest in clientA b; do /usr/libexec/ttvm/ttvm-snapshot reset -- $guest >/root/$guest 2>&1 & done; wait; cat /root/clientA /root/b";
    host.run(both).unwrap();
    for _ in 0..5 {
        host.run(WRITE).unwrap();
        let said = host.run(both).unwrap();
        assert_eq!(said.matches("(0 commands run)").count(), 2, "{said}");
        is_fresh(host);
    }
    host.run(AGREED).unwrap();
    assert_eq!(other_volumes(host), others);
}

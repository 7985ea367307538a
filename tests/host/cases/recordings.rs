// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs that are recorded from LVM snapshots and replayed, by their units, with a QEMU within the emulated host.

use super::{cases, until};
use crate::machine::Host;

cases!(Installed:
    from_lvm,
);

/// A guest that draws random numbers, reads clocks, and reads and writes its disk; small, since everything it does is emulated
/// twice.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
exec >/dev/console 2>&1
for m in /m/*.ko; do $b insmod $m; done
echo "random $($b head -c 16 /dev/urandom | $b md5sum) $($b date +%s) $($b cat /proc/uptime)"
echo "disk $($b md5sum < /dev/vda)"
$b dd if=/dev/urandom of=/dev/vda bs=4k count=16 seek=10 conv=fsync 2>/dev/null
echo "written $($b md5sum < /dev/vda)"
case $($b cat /proc/cmdline) in *ttvm.loop*) n=0; while :; do n=$((n+1)); echo $n; $b sleep 1; done;; esac
echo "end $($b cat /proc/uptime)"
$b poweroff -f
"#;

const GUEST: &str = r#"
set -e
d=/root/guest; rm -rf $d; mkdir -p $d/bin $d/m $d/proc $d/dev; cp /bin/busybox $d/bin
n=0
for m in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
    f=$(find /lib/modules/$(uname -r) -name $m.ko | head -n 1)
    [ -z "$f" ] || { n=$((n+1)); cp "$f" $d/m/$n-$m.ko; }
done
cp /root/init $d/init; chmod 755 $d/init
cd $d; find . | cpio -o -H newc 2>/dev/null | gzip -1 > /boot/guest.img
"#;

fn prepare(host: &mut Host, more: &str) {
    host.write("/root/init", INIT.as_bytes(), 0o755).unwrap();
    host.run(GUEST).unwrap();
    let kernel = "/usr/lib/ttvm-host/vmlinux";
    let file = format!(
        "toolstack = \"qemu\"\nmemory = \"96M\"\nkernel = \"{kernel}\"\ninitrd = \"/boot/guest.img\"\n\
         cmdline = \"console=ttyS0 quiet panic=-1 {more}\"\n\
         [[disk]]\ntarget = \"vda\"\norigin = \"xenvg/base\"\nsnapshot = {{ name = \"snap1\", size = \"64M\" }}\n"
    );
    host.write("/etc/ttvm/guests/clientA.toml", file.as_bytes(), 0o644)
        .unwrap();
}

fn from_lvm(host: &mut Host) {
    prepare(host, "");
    let begun = std::time::Instant::now();
    let recorded = host.run("ttvm record clientA --for 10min 2>&1").unwrap();
    println!("{recorded} ({:.0?})", begun.elapsed());
    assert!(recorded.contains("powered itself off after"), "{recorded}");
    for _ in 0..10 {
        let begun = std::time::Instant::now();
        let replayed = host.run("ttvm replay --verify clientA 2>&1").unwrap();
        println!("{replayed} ({:.0?})", begun.elapsed());
        assert!(replayed.contains("IDENTICAL"), "{replayed}");
    }
    until(host, "test -z \"$(lvs --noheadings @ttvm)\"");
}

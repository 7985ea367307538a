#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Builds the guest that is recorded and replayed in tests, demo and figures, once, and prints the directory that holds it:
#
#   vmlinuz   Debian's kernel for virtual machines
#   initrd    busybox, the drivers of virtio, and init
#   system    what `ttvm initrd busybox` makes a guest from: the same kernel's modules, and busybox
#
# Both are taken out of the disk of the emulated host (tests/host/image.sh): no root, no mount, nothing else to install. The
# same disk gives the same bytes.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

here=$(cd "$(dirname "$0")" && pwd)
image=$("$here/../host/image.sh")
hash=$(cd "$here" && cat build.sh init | sha256sum | cut -c1-16)
done_dir=$image/guest-$hash

# The lock of whoever makes or removes something there (tests/host/machine/layers.rs).
exec 9>"$image/lock"
flock 9
if [ ! -e "$done_dir" ]; then
    work=$(mktemp -d "$image/guest.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # Those of other versions of this.
    find "$image" -maxdepth 1 -name 'guest-*' -exec rm -rf {} +
    cd "$work"
    take() { debugfs -R "dump $1 $2" "$image/root.raw?offset=1048576" 2>/dev/null; }
    take /usr/bin/busybox busybox
    chmod 755 busybox
    take /usr/lib/ttvm-host/second-kernel.deb kernel.deb
    dpkg-deb --fsys-tarfile kernel.deb | tar -x --wildcards --no-same-owner \
        './boot/vmlinuz-*' '*/modules.builtin' '*/virtio/*' '*/virtio_net.ko' '*failover.ko' '*/virtio_blk.ko' \
        '*/xen-blkfront.ko' '*/xen-netfront.ko' '*/input/evdev.ko' '*/acpi/button.ko'
    mkdir -p guest/{bin,dev,proc,sys,modules}
    cp busybox guest/bin/
    cp "$here/init" guest/init
    chmod 755 guest/init
    for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk failover net_failover virtio_net; do
        # Some kernels have one or another built in.
        file=$(find . -path ./guest -prune -o -name "$module.ko" -print)
        [ -n "$file" ] || continue
        cp "$file" guest/modules/
        echo "$module.ko" >>guest/modules/order
    done
    find guest -exec touch -h -d @0 {} +
    mkdir result
    (cd guest && find . | sort | ../busybox cpio -o -H newc -R 0:0 --ignore-devno --renumber-inodes 2>/dev/null) >result/initrd
    cp boot/vmlinuz-* result/vmlinuz
    mkdir -p result/system/usr/bin
    cp busybox result/system/usr/bin/
    mv lib result/system/
    ./busybox depmod -b result/system "$(ls result/system/lib/modules)"
    # Whoever records them may be another user than whoever built them.
    chmod -R u=rwX,go=rX result
    mv result "$done_dir"
fi
touch "$done_dir"
echo "$done_dir"

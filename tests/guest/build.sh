#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Builds the guest that is recorded and replayed in tests, demo and figures, once, and prints the directory that holds it:
#
#   vmlinuz   Debian's kernel for virtual machines
#   initrd    busybox, the drivers of virtio, and init
#   system    what `ttvm initrd busybox` makes a guest from: the same kernel's modules, and busybox
#
# Both are packages of this Debian, unpacked and not installed: no root, no mount, seconds in place of the minutes that the
# emulated host takes.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

here=$(cd "$(dirname "$0")" && pwd)
cache=${TTVM_HOST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ttvm/host}
hash=$(cd "$here" && cat build.sh init | sha256sum | cut -c1-16)
done_dir=$cache/guest-$hash
mkdir -p "$cache"

fetch() {
    local kernel
    kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-\)/\1/p')
    [ -n "$kernel" ] && apt-get -qq download "$kernel" busybox-static >/dev/null 2>&1
}

exec 9>"$cache/guest.lock"
flock 9
if [ ! -e "$done_dir" ]; then
    work=$(mktemp -d "$cache/guest.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # Those of other versions of this.
    find "$cache" -maxdepth 1 -name 'guest-*' -exec rm -rf {} +
    cd "$work"
    # The package lists are often there and good enough. Where they are not, root gets others, and another user asks root.
    if ! fetch && ! { [ "$(id -u)" = 0 ] && apt-get -qq update && fetch; }; then
        echo "ttvm guest: Debian's packages linux-image-cloud-amd64 and busybox-static cannot be downloaded; try \`apt-get update\` first" >&2
        exit 1
    fi
    dpkg-deb --fsys-tarfile busybox-static_*.deb | tar -xO --wildcards '*/bin/busybox' >busybox
    chmod 755 busybox
    dpkg-deb --fsys-tarfile linux-image-*.deb | tar -x --wildcards --no-same-owner --transform 's:^\./usr/lib/:./lib/:' \
        './boot/vmlinuz-*' '*/modules.builtin' '*/virtio/*' '*/virtio_net.ko*' '*failover.ko*' '*/virtio_blk.ko*' \
        '*/xen-blkfront.ko*' '*/xen-netfront.ko*' '*/input/evdev.ko*' '*/acpi/button.ko*' 2>unpacked || [ -e boot ]
    find . -name '*.ko.xz' -exec xz -d {} +
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

#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# container.sh SUITE DEB SCRIPT [FILE]: runs a shell script as an ordinary user in a container in which the package DEB was installed: a
# Debian with QEMU and without systemd, whose files are this machine's (bookworm, if it is one) or those of tests/on-trixie.sh. What is
# written there is gone afterwards. A kernel that may be read is in /boot, as Debian's is, and FILE is where the script begins.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")/../.." && pwd)
suite=$1
CONTAINER_DEB=$2 CONTAINER_SCRIPT=$3 CONTAINER_FILE=${4:-} CONTAINER_KERNEL=$("$here/tests/guest/build.sh")
case $suite in
    bookworm)
        grep -qs '^VERSION_CODENAME=bookworm$' /etc/os-release || { echo "container: this is no Debian 12" >&2; exit 77; }
        CONTAINER_LOWER=/
        ;;
    trixie)
        "$here/tests/on-trixie.sh" true
        cache=${TTVM_HOST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ttvm/host}
        CONTAINER_LOWER=$(ls -d "$cache"/trixie-root-*)
        ;;
    *) echo "container: no such Debian: $suite" >&2; exit 2 ;;
esac
export CONTAINER_DEB CONTAINER_SCRIPT CONTAINER_FILE CONTAINER_KERNEL CONTAINER_LOWER
exec unshare --mount --propagation private -- bash -ec '
    place=$(mktemp -d)
    mount -t tmpfs container "$place"
    mkdir "$place"/{upper,work,root}
    root=$place/root
    mount -t overlay overlay -o "lowerdir=$CONTAINER_LOWER,upperdir=$place/upper,workdir=$place/work" "$root"
    for from in /proc /sys /dev; do mount --rbind "$from" "$root$from"; done
    for empty in tmp run home; do mount -t tmpfs -o mode=1777 "$empty" "$root/$empty"; done
    mkdir -p "$root"/boot "$root"/usr/lib/modules "$root"/home/you
    cp -R "$CONTAINER_KERNEL"/system/lib/modules/. "$root"/usr/lib/modules/
    cp "$CONTAINER_KERNEL"/vmlinuz "$root/boot/vmlinuz-$(ls "$CONTAINER_KERNEL"/system/lib/modules)"
    cp "$CONTAINER_DEB" "$root"/ttvm.deb
    chown -R 65534:65534 "$root"/home/you
    if [ -n "$CONTAINER_FILE" ]; then
        file=$root/home/you/${CONTAINER_FILE##*/}
        touch "$file"
        mount --bind "$CONTAINER_FILE" "$file"
        mount -o remount,bind,ro "$file"
    fi
    chroot "$root" dpkg -i --force-depends /ttvm.deb >"$place/log" 2>&1 || { cat "$place/log" >&2; exit 1; }
    exec chroot "$root" setpriv --reuid 65534 --regid 65534 --clear-groups \
        env -i HOME=/home/you PATH=/usr/bin:/bin TERM=dumb sh -ec "cd; $CONTAINER_SCRIPT"'

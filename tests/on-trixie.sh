#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# on-trixie.sh COMMAND…: runs a command in a Debian 13 that is a directory, with that Debian's QEMU, libraries and tools, and
# this checkout and the cache where they are. For tests of what does not need to be booted. The directory is made once, as
# root, by mmdebstrap; the mounts are in a namespace of the command's own and end with it.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")/.." && pwd)
cache=${TTVM_HOST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ttvm/host}
# seabios and ipxe come with QEMU; gdb, debugfs and bzip2 are what the tests run.
packages=qemu-system-x86,qemu-utils,gdb,e2fsprogs,busybox-static,xz-utils
root=$cache/trixie-root-$(echo "$packages" | sha256sum | cut -c1-8)

[ "$(id -u)" = 0 ] || { echo "on-trixie: only root can change the root directory" >&2; exit 1; }
"$here/packaging/need.sh" mmdebstrap:mmdebstrap unshare:util-linux flock:util-linux
mkdir -p "$cache"
exec 9>"$cache/trixie-root.lock"
flock 9
if [ ! -e "$root" ]; then
    echo "on-trixie: unpacking Debian 13 (once; half a minute)" >&2
    rm -rf "$cache"/trixie-root-*
    work=$(mktemp -d "$cache/tmp.trixie-root.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mmdebstrap --quiet --variant=apt --include="$packages" trixie "$work/root.tar" >"$work/log" 2>&1 ||
        { tail -n 20 "$work/log" >&2; exit 1; }
    mkdir "$work/root"
    tar -C "$work/root" -x --numeric-owner -f "$work/root.tar"
    chmod 755 "$work/root"
    mv "$work/root" "$root"
    rm -rf "$work"
    trap - EXIT
fi
exec 9>&-

export ON_TRIXIE_ROOT=$root ON_TRIXIE_HERE=$here ON_TRIXIE_CACHE=$cache
exec unshare --mount --propagation private -- bash -ec '
    root=$ON_TRIXIE_ROOT
    # A root directory that is a mount of its own, as everywhere else.
    mount --bind "$root" "$root"
    for from in /proc /sys /dev; do mount --rbind "$from" "$root$from"; done
    mount -t tmpfs -o mode=1777 tmp "$root/tmp"
    mount -t tmpfs run "$root/run"
    # A directory within the other one is mounted over it.
    for directory in "$ON_TRIXIE_HERE" "$ON_TRIXIE_CACHE"; do
        mkdir -p "$root$directory"
        mount --bind "$directory" "$root$directory"
    done
    unset ON_TRIXIE_ROOT
    export TTVM_HOST_CACHE=$ON_TRIXIE_CACHE HOME=/root
    exec chroot "$root" env --chdir="$ON_TRIXIE_HERE" "$@"' on-trixie "$@"

#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# `make demo`: first what needs neither Xen nor root, as soon as it is compiled; then the emulated Xen host, whose disks are
# made meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
make=${MAKE:-make}
started=$SECONDS
say() { printf '[%d:%02d] %s\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) "$*" >&2; }

packaging/need.sh cc:gcc qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils xz:xz-utils dh:debhelper \
    dpkg-shlibdeps:dpkg-dev flock:util-linux
tests/guest/build.sh >/dev/null
mkdir -p target
log=target/demo-host.log
say "making the disks of the emulated Xen host meanwhile (once; see $log)"
nice tests/host/image.sh >/dev/null 2>"$log" &
image=$!
trap 'kill "$image" 2>/dev/null || :' EXIT

say "compiling ttvm, as for tests (a minute or two the first time)"
$cargo build -q --locked --features host-tests --bin ttvm --example replay_demo
say "recording and replaying, without Xen"
target/debug/examples/replay_demo target/debug/ttvm

say "compiling ttvm as it is shipped, and packing it (two to four minutes the first time)"
$make -s --no-print-directory deb >&2
$cargo build -q --locked --features host-tests --example demo
if kill -0 "$image" 2>/dev/null; then say "waiting for the disks of the emulated host"; fi
wait "$image" || { cat "$log" >&2; exit 1; }
trap - EXIT
say "on to the Xen host"
target/debug/examples/demo "$($make -s --no-print-directory package-name)"
say "that was all of it"

#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# root.sh SUITE: makes small Debian root file systems, once, and prints the directory that holds them:
#
#   bare.tar      what a container has: the essential packages, apt and its lists; no systemd, no GRUB, no LVM, no Xen
#   systemd.tar   the same with systemd, which nobody runs
#
# The directory is named after the suite and the content of this script.
set -eu
export LC_ALL=C

suite=$1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ttvm/packaging
self=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")

say() { echo "root of $suite: $*" >&2; }

mkdir -p "$cache"
hash=$(sha256sum <"$self")
done_dir=$cache/$suite-$(printf %.16s "$hash")

exec 9>"$cache/$suite.lock"
flock 9
if [ -e "$done_dir/systemd.tar" ]; then
    touch "$done_dir"
    echo "$done_dir"
    exit 0
fi

# We hold the lock: what other builds left unfinished is rubbish, and so is what was made by another content of this script.
rm -rf "$cache/tmp.$suite".* "$cache/$suite"-*
work=$(mktemp -d "$cache/tmp.$suite.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "unpacking it (once; a minute or two)"
# Without hooks: whatever of them runs apt outside the new root would install on this machine.
unpack() {
    archive=$1
    shift
    if ! mmdebstrap --quiet --variant=minbase "$@" "$suite" "$work/$archive" >"$work/log" 2>&1 </dev/null; then
        tail -n 40 "$work/log" >&2
        say "mmdebstrap failed"
        exit 1
    fi
}
# The lists stay, so that what a package depends on can be looked for without a network.
unpack bare.tar --skip=cleanup/apt/lists
unpack systemd.tar --include=systemd
rm "$work/log"
chmod 755 "$work"
mv "$work" "$done_dir"
trap - EXIT
say "$(du -sh "$done_dir" | cut -f1)"
echo "$done_dir"

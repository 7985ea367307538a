#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# debian.sh SUITE: makes an archive of a Debian with systemd and a kernel, once, as README.md has a user make it, and prints its name.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
suite=$1
cache=${TTVM_HOST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ttvm/host}
archive=$cache/debian-$(sha256sum <"$here/debian.sh" | cut -c1-8)/$suite.tar
"$here/../../packaging/need.sh" mmdebstrap:mmdebstrap flock:util-linux
mkdir -p "$cache"

exec 9>"$cache/debian.lock"
flock 9
if [ ! -e "$archive" ]; then
    # Those of other versions of this.
    find "$cache" -maxdepth 1 -name 'debian-*' ! -path "${archive%/*}" -exec rm -rf {} +
    mkdir -p "${archive%/*}"
    work=$(mktemp -d "${archive%/*}/tmp.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mmdebstrap --quiet --variant=apt --include=systemd-sysv,linux-image-amd64 "$suite" "$work/$suite.tar" >"$work/log" 2>&1 ||
        { tail -n 20 "$work/log" >&2; exit 1; }
    chmod 644 "$work/$suite.tar"
    mv "$work/$suite.tar" "$archive"
fi
echo "$archive"

#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# need.sh PROGRAM:PACKAGE…: installs the packages whose programs are missing (Debian, as root), or says which to install.
set -eu

missing=
for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "ttvm: please install$missing" >&2
    exit 1
fi
echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
install() {
    # shellcheck disable=SC2086 # a list of names
    apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=600 install $missing </dev/null
}
# The package lists are often there and good enough.
install >/dev/null 2>&1 || { apt-get -qq update && install >/dev/null; }

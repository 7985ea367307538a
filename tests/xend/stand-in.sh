#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# Stands for xend and for its network scripts, by the name it is called with: writes down what it is called with, and
# which network script the configuration has at that moment. It fails if there is a file fail/NAME-ACTION, and if there
# is a file edit/NAME-ACTION, it does what is in there.
set -eu
name=${0##*/}
root=${0%/etc/xen/scripts/*}
root=${root%/usr/sbin/*}
config=$root/etc/xen/xend-config.sxp
now=$(grep -o '^(network-script [^)]*' "$config" 2>/dev/null | head -n1)
echo "$name${*:+ $*} [${now#(network-script }]" >>"$root/log"
if [ -e "$root/edit/$name-$1" ]; then . "$root/edit/$name-$1"; fi
if [ -e "$root/fail/$name-$1" ]; then echo "no $name today" >&2; exit 3; fi

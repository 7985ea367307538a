#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# `make fuzz`: gives each parser, or that of TARGET, TIME seconds of libFuzzer. What it ends with is a table; the exit status is
# 1 if anything was found, and what was read then is in target/fuzz/found. New inputs that reach something are in
# target/fuzz/corpus. With --minimise, fuzz/corpus becomes the least that reaches as much as both, of files that are not large.
set -uo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

cargo=${CARGO:-cargo}
time=${TIME:-60}
out=target/fuzz
# What a stable compiler has of what cargo-fuzz asks for: edges are counted, and comparisons are told. There is no sanitizer;
# what is not safe is in libraries.
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
# The most that an input has, and a file of the corpus that is kept.
longest=100000
kept=16384

packaging/need.sh c++:g++ mke2fs:e2fsprogs || exit 1
names=$(sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"$/\1/p' fuzz/Cargo.toml)
if [ -n "${TARGET:-}" ]; then
    if ! grep -qx -- "$TARGET" <<<"$names"; then
        echo "ttvm: there is no target $TARGET: TARGET is one of" $names >&2
        exit 1
    fi
    names=$TARGET
fi

# For a named host, programs that only take part in the build have no counters.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="${RUSTFLAGS:-} $coverage" CARGO_INCREMENTAL=0 $cargo build -q --release --locked --manifest-path fuzz/Cargo.toml \
    --target "$host" --target-dir "$out/build" ${TARGET:+--bin "$TARGET"} || exit 1

# A target's program, with what all runs of it have in common.
run() {
    local name=$1
    shift
    # Time and memory of a parser are limited by the program itself, closer than libFuzzer can: here is what it would hang in, and
    # libFuzzer's own memory.
    "$out/build/$host/release/$name" -timeout=30 -rss_limit_mb=2048 -max_len=$longest -artifact_prefix="$out/found/$name-" \
        -print_final_stats=1 "$@"
}

minimise() {
    local name=$1 from=$out/minimise/$1
    rm -rf "$from" "$from.new"
    mkdir -p "$from" "$from.new"
    find fuzz/corpus/"$name" "$out/corpus/$name" -type f -size -"${kept}"c -exec cp -t "$from" {} + 2>/dev/null
    # Which edges are reached counts, and not how often: else the corpus would be several times as large.
    run "$name" -use_counters=0 -merge=1 "$from.new" "$from" >"$out/$name.log" 2>&1 || return 1
    rm -rf fuzz/corpus/"$name"
    mv "$from.new" fuzz/corpus/"$name"
    echo "$name: $(find fuzz/corpus/"$name" -type f | wc -l) files"
}

mkdir -p "$out/found"
found=
table="TARGET                   RUNS  SECONDS  OF A PROCESSOR  CORPUS  PARSER'S PEAK  PROGRAM'S PEAK"
for name in $names; do
    mkdir -p "$out/corpus/$name" fuzz/corpus/"$name"
    if [ "${1:-}" = --minimise ]; then
        minimise "$name" || { found=1; tail -n 5 "$out/$name.log" >&2; }
        continue
    fi
    echo "$name: $time s"
    words=fuzz/dict/$name.dict
    [ -e "$words" ] || words=
    start=$SECONDS
    if ! run "$name" -max_total_time="$time" ${words:+-dict="$words"} "$out/corpus/$name" fuzz/corpus/"$name" >"$out/$name.log" 2>&1; then
        found="$found $name"
        grep -hE "panicked|^a hang|too much memory|overflowed its stack|ERROR: libFuzzer|Test unit written" -A 1 "$out/$name.log" >&2
    fi
    stat() { sed -n "s/^stat::$1: *//p" "$out/$name.log" | tail -n 1; }
    table+=$'\n'$(printf '%-20s %8s %8d %15s %7d %10s KiB %11s MiB' "$name" "$(stat number_of_executed_units)" $((SECONDS - start)) \
        "$(stat processor_seconds)" \
        "$(find "$out/corpus/$name" fuzz/corpus/"$name" -type f | wc -l)" "$(stat parser_peak_kib)" "$(stat peak_rss_mb)")
done
rm -rf "$out/place" "$out/minimise"
[ "${1:-}" = --minimise ] || echo "$table"
if [ -n "$found" ]; then
    [ "${1:-}" = --minimise ] || echo "found something in:$found; see $out/found, and $out/TARGET.log" >&2
    exit 1
fi

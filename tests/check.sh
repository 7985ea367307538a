#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# `make check`; with --all `make check-all`, with --both `make check-both`: one stage after the other, also after one that failed. Each leaves what it
# printed in target/check/STAGE.log. At the end stand the time by stage and by subject, the slowest cases, and one line with
# how many passed and failed.
set -uo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C
# For what is built once and thrown away, notes for a next build cost a quarter of the time.
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}

more=${1:-}
both=
[ "$more" != --both ] || both=1
make=${MAKE:-make}
# Tests send SIGINT, of which what a shell starts in the background takes no notice.
heeding="env --default-signal=INT,QUIT"
# clippy's compiler compiles what is tested and says meanwhile what it has to say (`lint`): nothing is read twice. The package is
# made by rustc.
cargo="$heeding RUSTC_WORKSPACE_WRAPPER=clippy-driver ${CARGO:-cargo}"
logs=target/check
rm -rf "$logs"
mkdir -p "$logs"
stages=()

# What the processors have done so far, of which nothing, in ticks (proc_stat(5)).
processors() {
    awk '$1 == "cpu" { for (i = 2; i <= 9; i++) all += $i; print all, $5 + $6; exit }' /proc/stat
}

# Runs a command as the stage of that name, and writes down its seconds, how many of its tests passed, how many failed, and how much
# of the processors nobody had meanwhile, in hundredths. A test program's own counts are taken from what it prints; a command without any is one test. It is shown at descriptor 3.
counted() {
    local name=$1 start=$SECONDS status=0 counts before after
    shift
    before=$(processors)
    "$@" </dev/null 2>&1 | tee "$logs/$name.log" >&3 || status=${PIPESTATUS[0]}
    counts=$(awk '
        /^test result: / { for (i = 1; i < NF; i++) { if ($(i + 1) == "passed;") p += $i; if ($(i + 1) == "failed;") f += $i }; n = 1 }
        /^[0-9]+ passed, [0-9]+ failed/ { p += $1; f += $3; n = 1 }
        END { if (n) print p + 0, f + 0 }' "$logs/$name.log")
    # A test program that was killed, or did not compile, counts none of its own.
    case "$status ${counts:-none}" in
        "0 none") counts="1 0" ;;
        "0 "*) ;;
        *" none") counts="0 1" ;;
        *" 0") counts="${counts% *} 1" ;;
    esac
    after=$(processors)
    echo "$name $((SECONDS - start)) $counts $(echo "$before $after" | awk '{ print int(100 * ($4 - $2) / ($3 > $1 ? $3 - $1 : 1)) }')" \
        >"$logs/$name.counts"
}

# A stage of its own, shown while it runs.
stage() {
    echo "=== $1"
    counted "$@" 3>&1
    ended "$1"
}

# How a stage ended; one that was killed has failed.
ended() {
    local seconds passed failed
    [ -s "$logs/$1.counts" ] || echo "$1 0 0 1 0" >"$logs/$1.counts"
    read -r _ seconds passed failed _ <"$logs/$1.counts"
    stages+=("$1")
    echo "=== $1: $seconds s, $passed passed, $failed failed"
}

# Everything that is tested but the package. The disks of the emulated hosts are made meanwhile: each is one process after the
# other. The guest is first, which sees to apt's package lists.
build() {
    local status=0 suite job jobs=()
    # Where it cannot be installed, batch::slurm says that it is skipped.
    [ -z "$both" ] || packaging/need.sh slurmctld:slurm-wlm munged:munge unshare:util-linux || true
    # So do the page in a browser, and the play of Ansible.
    if [ -n "$more" ]; then
        packaging/need.sh chromium:chromium ansible-playbook:ansible-core || true
        # Its service is not wanted where systemd would start it.
        [ -d /run/systemd/system ] || packaging/need.sh promtool:prometheus || true
    fi
    tests/guest/build.sh >/dev/null || status=$?
    for suite in bookworm trixie; do
        SUITE=$suite tests/host/image.sh >/dev/null &
        jobs+=($!)
    done
    $cargo test -q --locked --features host-tests --no-run --all-targets || status=$?
    for job in "${jobs[@]}"; do wait "$job" || status=$?; done
    return "$status"
}

# What is compiled already has its warnings said once more: whatever is said is too much.
lint() {
    local status=0
    ${CARGO:-cargo} fmt --all --check || status=$?
    $cargo test -q --locked --features host-tests --no-run --all-targets 2>&1 | { ! grep .; } || status=1
    return "$status"
}

# Those of the networks wait for the kernel and for deadlines most of the time: they leave the processors to the others.
quick() {
    local status=0 waiting others
    waiting=$($make -s quick-tests | grep -oE -- '--test (netd|network)( |$)')
    others=$($make -s quick-tests | sed -E 's/--test (netd|network|packaging)( |$)//g')
    $cargo test --locked --no-fail-fast --features host-tests $waiting >"$logs/waiting" 2>&1 &
    $cargo test --locked --no-fail-fast --features host-tests --lib --bins $others || status=$?
    wait $! || status=$?
    cat "$logs/waiting"
    return "$status"
}

# The packages by themselves: what is in them, and their lives in containers.
packages() {
    ${both:+env TTVM_DEBIAN=1} $cargo test --locked --features host-tests --test packaging
}

# Whether the package was made.
packaged_now() {
    grep -q ' 1 0 [0-9]*$' "$logs/deb.counts" || { echo "failed: there is no package"; return 1; }
}

# The test program of that name. What runs for minutes is started without cargo, which may keep others from its cache meanwhile.
program() {
    $cargo test -q --locked --features host-tests --test "$1" --no-run --message-format json |
        sed -n 's/.*"name":"'"$1"'".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

# With the program of the package, which is what is shipped, and quicker than one compiled for tests. Without a package, an older one
# is nothing to be tested.
replay() {
    packaged_now || return 1
    TTVM_PROGRAM=target/release/ttvm ${both:+env TTVM_REPLAYS=10} $heeding "$(program replay)" $more
}

# The same programs with the other QEMU: all cases, or what the two differ in.
replay_on_trixie() {
    local cases=(time::from time::core debugger refusals ends::rebooted hostile branch::refused branch::careful)
    packaged_now || return 1
    [ -z "$more" ] || cases+=(time::points time::packets)
    [ -z "$both" ] || cases=(--both)
    TTVM_PROGRAM=target/release/ttvm $heeding tests/on-trixie.sh "$(program replay)" "${cases[@]}"
}

host() {
    $cargo test -q --locked --features host-tests --test host -- $more
}

# The package is made by one compiler after the other, which leaves a processor to those of the tests. Nothing else is done beside
# another stage that works: more emulators than processors take twice the time of as many one after the other.
packaged() {
    local name
    for name in deb rpm lint-packages; do counted "$name" $make -s --no-print-directory "$name"; done
}
packaged 3>/dev/null &
beside=$!
# Who interrupts this does not interrupt what is in the background.
trap 'pkill -TERM -P "$beside" 2>/dev/null; kill "$beside" 2>/dev/null' EXIT
stage build build
stage lint lint
stage quick quick
wait $beside
trap - EXIT
for name in deb rpm lint-packages; do
    echo "=== $name"
    cat "$logs/$name.log"
    ended "$name"
done
stage packages packages
stage replay replay
stage replay-trixie replay_on_trixie
stage host host

echo
echo "STAGE            SECONDS  PASSED  FAILED  IDLE"
passed=0 failed=0
for name in "${stages[@]}"; do
    read -r _ seconds p f idle <"$logs/$name.counts"
    printf '%-16s %7d %7d %7d %4d%%\n' "$name" "$seconds" "$p" "$f" "$idle"
    passed=$((passed + p)) failed=$((failed + f))
done
printf '%-16s %7d\n' "in all" "$SECONDS"

echo
echo "SUBJECT                          SECONDS"
# What cargo says it runs, and how long that took.
awk '/^ *Running / { name = $2 == "unittests" ? $3 : $2 }
    /^test result: / { sub("s$", "", $NF); printf "%-30s %9.1f\n", name, $NF }' "$logs/quick.log"
awk '/^SUBJECT/ { in_table = 1; next } /^$/ { in_table = 0 } in_table { printf "host %-16s %-9s %9.1f\n", $1, $2, $NF }' "$logs/host.log"

echo
echo "the ten slowest cases:"
sed -n 's/^test \(.*\) \.\.\. [a-zA-Z]* (\([0-9.]*\) s.*/\2 s  \1/p' "$logs"/replay*.log "$logs/host.log" | sort -rn | head -n 10

echo
# A stage without tests of its own says only here why it failed.
for name in "${stages[@]}"; do
    read -r _ _ _ f _ <"$logs/$name.counts"
    [ "$f" = 0 ] || grep -q '^test ' "$logs/$name.log" || { echo "the end of $name.log:"; tail -n 20 "$logs/$name.log"; echo; }
done
for log in "$logs"/*.log; do
    grep -h '^failed: \|^test .* \.\.\. FAILED' "$log" | sed "s|^|$(basename "$log" .log): |"
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]

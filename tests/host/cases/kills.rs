// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whatever dies at whatever moment, the next start works by itself, and no other volume has changed.

use std::collections::HashMap;

use super::in_place_thin::AGREED;
use super::{
    THICK, THIN, cases, console, emulated_guest, guest, journal, nothing_left, other_volumes, tell, tried_again,
    wait_for,
};
use crate::machine::Host;

cases! {
    Installed {
        Bookworm: killed_at_every_step_in_place, lock_holder_dies;
        Trixie: half_made_volume;
        Both: killed_at_every_step_in_place_thin, power_cut_in_place, snapshot_program_killed_at_every_step_thick,
            snapshot_program_killed_at_every_step_thin, power_cuts_at_every_step_in_place,
            power_cuts_at_every_step_in_place_thin, power_cut_after_removal,
            lvm_killed_in_lvremove, power_cut_within_lvcreate, lvm_killed_in_lvcreate;
    }
    Xen {
        LaterBookworm: xl_killed;
        Both: supervisor_killed_around_create, stop_while_starting;
    }
    Guest {
        LaterBookworm: supervisor_killed;
    }
}

/// Starts of the unit are not repeated by systemd.
pub(super) const ONCE: &str = "mkdir -p /run/systemd/system/ttvm@clientA.service.d && \
    printf '[Service]\\nRestart=no\\n' > /run/systemd/system/ttvm@clientA.service.d/once.conf && systemctl daemon-reload";

/// An old snapshot that has been written to. Programs of udev's that still look at the origin would have it left to LVM.
const WRITTEN: &str = "ttvm snapshot reset clientA 2>/dev/null && dd if=/dev/urandom of=/dev/xenvg/snap1 bs=1M count=3 oflag=direct 2>/dev/null && udevadm settle";

/// One that is larger than it should be, and so has to be removed.
const TOO_LARGE: &str = "lvextend -q -L +4M xenvg/snap1 >/dev/null";

/// Its beginning is that of its origin, and LVM finds nothing to complain of.
pub(super) fn is_fresh(host: &mut Host) {
    let known = host
        .run("vgck xenvg && lvs --noheadings -o lv_active,origin xenvg/snap1 2>&1 | xargs")
        .unwrap();
    let origin = known.strip_prefix("active ").expect(&known);
    let first = "bs=1M count=4 iflag=direct status=none | cksum";
    let sums = host
        .run(&format!(
            "for lv in snap1 {origin}; do dd if=/dev/xenvg/$lv {first}; done"
        ))
        .unwrap();
    assert_eq!(sums.lines().next(), sums.lines().nth(1), "{sums}");
}

/// Starts the guest with the fail point set, then without, then stops it; other volumes stay as they were. `before` is what is done
/// to the old snapshot.
fn survives(host: &mut Host, before: &str, points: &[&str]) {
    let others = other_volumes(host);
    host.run(ONCE).unwrap();
    for point in points {
        host.run(WRITTEN).unwrap();
        host.run(before).unwrap();
        host.run(&format!("systemctl set-environment TTVM_FAIL_POINT={point}"))
            .unwrap();
        assert_ne!(host.sh("systemctl start ttvm@clientA").unwrap().status, 0, "{point}");
        wait_for(host, "clientA", "failed");
        host.run("systemctl unset-environment TTVM_FAIL_POINT && systemctl start ttvm@clientA")
            .unwrap();
        host.run("systemctl is-active -q ttvm@clientA").unwrap();
        is_fresh(host);
        host.run("systemctl stop ttvm@clientA").unwrap();
        drop(host.sh("systemctl reset-failed ttvm@clientA").unwrap());
        nothing_left(host, "clientA");
    }
    assert_eq!(other_volumes(host), others);
}

const STEPS: [&str; 5] = [
    "snapshot.locked",
    "snapshot.removing",
    "snapshot.removed",
    "snapshot.creating",
    "snapshot.created",
];

fn snapshot_program_killed_at_every_step_thick(host: &mut Host) {
    emulated_guest(host, THICK, "loop");
    survives(host, TOO_LARGE, &STEPS);
}

const STEPS_IN_PLACE: [&str; 4] = [
    "snapshot.emptying",
    "snapshot.closed",
    "snapshot.emptied",
    "snapshot.created",
];

fn killed_at_every_step_in_place(host: &mut Host) {
    emulated_guest(host, THICK, "loop");
    survives(host, "true", &STEPS_IN_PLACE);
}

fn snapshot_program_killed_at_every_step_thin(host: &mut Host) {
    emulated_guest(host, THIN, "loop");
    survives(host, TOO_LARGE, &STEPS);
}

const STEPS_IN_PLACE_THIN: [&str; 7] = [
    "snapshot.emptying",
    "snapshot.closed",
    "snapshot.deleted",
    "snapshot.suspended",
    "snapshot.snapped",
    "snapshot.emptied",
    "snapshot.created",
];

/// The next start by its unit, for which the end of this one has tidied up; and a reset that finds all as it was left.
fn killed_at_every_step_in_place_thin(host: &mut Host) {
    emulated_guest(host, THIN, "loop");
    survives(host, "true", &STEPS_IN_PLACE_THIN);
    for point in STEPS_IN_PLACE_THIN {
        host.run(WRITTEN).unwrap();
        let killed = host
            .sh(&format!("TTVM_FAIL_POINT={point} ttvm snapshot reset clientA 2>&1"))
            .unwrap();
        let said = killed.text();
        // One that is left to LVM comes to other points.
        let is_killed = matches!(killed.status, -9 | 137);
        assert!(
            is_killed && !said.contains("not emptied in its place"),
            "{point}: {} {said}",
            killed.status
        );
        host.run("ttvm snapshot reset clientA").unwrap();
        let odd = host.run("dmsetup info | grep -E 'SUSPENDED|INACTIVE'; true").unwrap();
        assert_eq!(odd, "", "{point}");
        is_fresh(host);
    }
    host.run(AGREED).unwrap();
}

fn supervisor_killed_around_create(host: &mut Host) {
    guest(host, "clientA", THICK, "", "");
    survives(host, "true", &["guest.creating", "guest.created"]);
}

fn supervisor_killed(host: &mut Host) {
    let others = other_volumes(host);
    tell(host, "clientA", "write");
    console(host, "clientA", "write: 0", 1);
    host.run("kill -9 $(systemctl show -P MainPID ttvm@clientA)").unwrap();
    // Its domain is not left running on a disk that is about to be removed, and it comes back by itself.
    journal(host, "clientA", "that an earlier run left behind", 1);
    journal(host, "clientA", "guest is up as domain", 2);
    wait_for(host, "clientA", "active");
    assert_eq!(host.run("xl list | grep -c clientA").unwrap(), "1");
    host.run("systemctl stop ttvm@clientA").unwrap();
    assert_eq!(other_volumes(host), others);
    nothing_left(host, "clientA");
}

fn xl_killed(host: &mut Host) {
    guest(host, "clientA", THICK, "", "");
    host.run("systemctl start --no-block ttvm@clientA && timeout 600 sh -c 'until pgrep -x xl >/dev/null; do sleep 0.1; done; sleep 1; pkill -9 -x xl'").unwrap();
    journal(host, "clientA", "Xen could not start guest", 1);
    journal(host, "clientA", "guest is up as domain", 1);
    wait_for(host, "clientA", "active");
    assert_eq!(host.run("xl list | tail -n +3 | wc -l").unwrap(), "1");
}

fn stop_while_starting(host: &mut Host) {
    guest(host, "clientA", THICK, "", "");
    host.run("systemctl start --no-block ttvm@clientA && timeout 600 sh -c 'until pgrep -f \"xl create\" >/dev/null; do sleep 0.1; done'").unwrap();
    host.run("systemctl stop ttvm@clientA").unwrap();
    wait_for(host, "clientA", "inactive");
    nothing_left(host, "clientA");
}

/// What `lvcreate --snapshot` leaves when it is interrupted between its two commits.
fn half_made_volume(host: &mut Host) {
    let others = other_volumes(host);
    emulated_guest(host, THICK, "loop");
    for active in ["y", "n"] {
        host.run(&format!(
            "lvcreate -q -y -Wn -Zn -a {active} -L 32M -n snap1 --addtag ttvm --addtag ttvm.guest=clientA --addtag ttvm.origin=base xenvg"
        ))
        .unwrap();
        host.run("systemctl start ttvm@clientA").unwrap();
        assert_eq!(
            host.run("lvs --noheadings -o origin xenvg/snap1 | xargs").unwrap(),
            "base"
        );
        host.run("systemctl stop ttvm@clientA").unwrap();
    }
    assert_eq!(other_volumes(host), others);
    nothing_left(host, "clientA");
}

fn lock_holder_dies(host: &mut Host) {
    emulated_guest(host, THICK, "loop");
    host.run("mkdir -p /run/lock/ttvm && sed -i 's/# lock_timeout.*/lock_timeout = \"1s\"/' /etc/ttvm/ttvm.toml")
        .unwrap();
    let refused = host
        .run("flock /run/lock/ttvm/xenvg.lock sh -c 'ttvm snapshot reset clientA 2>&1; echo $?'")
        .unwrap();
    assert!(
        refused.contains("has been working on volume group xenvg") && refused.ends_with('4'),
        "{refused}"
    );
    // A start that came too early is tried again, until the lock is free: the kernel lets a dead process's go.
    host.run(
        "flock -o /run/lock/ttvm/xenvg.lock sleep 1000 & echo $! >/root/holder; \
         until ! flock -n /run/lock/ttvm/xenvg.lock true; do :; done; ! systemctl start ttvm@clientA",
    )
    .unwrap();
    tried_again(host, "clientA");
    host.run("kill -9 $(cat /root/holder)").unwrap();
    wait_for(host, "clientA", "active");
    host.run("systemctl stop ttvm@clientA").unwrap();
}

/// How often the process that makes most of them made `call`, by strace's record of several processes.
fn most_calls(trace: &str, call: &str) -> u32 {
    let mut calls: HashMap<&str, u32> = HashMap::new();
    for (process, rest) in trace.lines().filter_map(|line| line.split_once(' ')) {
        if rest.trim_start().starts_with(&format!("{call}(")) {
            *calls.entry(process).or_default() += 1;
        }
    }
    calls.into_values().max().unwrap_or(0)
}

/// LVM itself is killed during `ttvm snapshot ACTION`, at this percentage of its system calls of a kind: other versions make
/// other numbers of them. Then a start works unaided.
fn lvm_killed(host: &mut Host, prepare: &str, action: &str, moments: &[(&str, u32)]) {
    let others = other_volumes(host);
    emulated_guest(host, THICK, "loop");
    host.run("sed -i 's/# busy_timeout.*/busy_timeout = \"1s\"/' /etc/ttvm/ttvm.toml")
        .unwrap();
    let trace = host
        .run(&format!(
            "ttvm snapshot {prepare} clientA 2>/dev/null; strace -qq -f -o /root/trace -e trace=ioctl,io_submit \
             ttvm snapshot {action} clientA 2>/dev/null; cat /root/trace"
        ))
        .unwrap();
    for (call, percent) in moments {
        let when = most_calls(&trace, call) * percent / 100;
        host.run(&format!("ttvm snapshot {prepare} clientA 2>/dev/null"))
            .unwrap();
        let traced = format!(
            "strace -qq -f -o /root/trace -e trace={call} -e inject={call}:signal=KILL:when={when} \
             ttvm snapshot {action} clientA 2>&1; grep -c 'killed by SIGKILL' /root/trace"
        );
        let said = host.sh(&traced).unwrap().text();
        assert!(!said.ends_with("\n0"), "{call} {when}: LVM was not killed: {said}");
        host.run("ttvm snapshot reset clientA").unwrap();
        let suspended = host.run("dmsetup info -c --noheadings -o suspended | grep -c Suspended; true");
        assert_eq!(suspended.unwrap(), "0", "{call} {when}");
        assert_eq!(
            host.run("lvs --noheadings -o origin xenvg/snap1 | xargs").unwrap(),
            "base"
        );
    }
    host.run("systemctl start ttvm@clientA && systemctl stop ttvm@clientA")
        .unwrap();
    assert_eq!(other_volumes(host), others);
    nothing_left(host, "clientA");
}

/// Before the origin is suspended, while it is, after its table was changed, when only the mapping of the
/// copy-on-write area is left; in the middle of writing metadata.
fn lvm_killed_in_lvremove(host: &mut Host) {
    let moments = [
        ("ioctl", 38),
        ("ioctl", 56),
        ("ioctl", 68),
        ("ioctl", 85),
        ("io_submit", 75),
    ];
    lvm_killed(host, "reset", "discard", &moments);
    // A discard alone, too, lets no origin stay suspended.
    host.run("ttvm snapshot reset clientA 2>/dev/null; strace -qq -f -o /dev/null -e trace=ioctl -e inject=ioctl:signal=KILL:when=66 ttvm snapshot discard clientA; ttvm snapshot discard clientA").unwrap();
    let suspended = host.run("dmsetup info -c --noheadings -o suspended | grep -c Suspended; true");
    assert_eq!(suspended.unwrap(), "0");
}

fn lvm_killed_in_lvcreate(host: &mut Host) {
    let moments = [
        ("ioctl", 30),
        ("ioctl", 52),
        ("ioctl", 68),
        ("ioctl", 86),
        ("io_submit", 70),
    ];
    lvm_killed(host, "discard", "reset", &moments);
}

fn after_power_cut(host: &mut Host, others: &str) {
    host.power_cut_and_boot().unwrap();
    host.run("systemctl start ttvm@clientA").unwrap();
    is_fresh(host);
    assert_eq!(other_volumes(host), others);
    host.run("systemctl stop ttvm@clientA").unwrap();
    nothing_left(host, "clientA");
}

/// The power goes at a point of a reset.
fn power_cut(host: &mut Host, before: &str, point: &str) {
    host.run(&format!("{WRITTEN}; {before}; sync")).unwrap();
    host.run(&format!(
        "rm -f /root/out; TTVM_FAIL_POINT={point}:hang setsid ttvm snapshot reset clientA >/root/out 2>&1 & \
         timeout 600 sh -c 'tail -F /root/out 2>/dev/null | grep -m1 standing'"
    ))
    .unwrap();
}

fn power_cut_after_removal(host: &mut Host) {
    let others = other_volumes(host);
    emulated_guest(host, THICK, "loop");
    power_cut(host, TOO_LARGE, "snapshot.removed");
    after_power_cut(host, &others);
}

fn power_cut_in_place(host: &mut Host) {
    let others = other_volumes(host);
    emulated_guest(host, THICK, "loop");
    power_cut(host, "true", "snapshot.emptied");
    after_power_cut(host, &others);
}

fn power_cuts_at_every_step_in_place(host: &mut Host) {
    let others = other_volumes(host);
    emulated_guest(host, THICK, "loop");
    for point in STEPS_IN_PLACE {
        power_cut(host, "true", point);
        after_power_cut(host, &others);
    }
}

fn power_cuts_at_every_step_in_place_thin(host: &mut Host) {
    let others = other_volumes(host);
    emulated_guest(host, THIN, "loop");
    for point in STEPS_IN_PLACE_THIN {
        power_cut(host, "true", point);
        after_power_cut(host, &others);
        host.run(AGREED).unwrap();
    }
}

fn power_cut_within_lvcreate(host: &mut Host) {
    let others = other_volumes(host);
    emulated_guest(host, THICK, "loop");
    host.run("ttvm snapshot reset clientA 2>/dev/null; sync").unwrap();
    // Not a hang of ours: LVM itself is at work when the power goes.
    host.run("setsid ttvm snapshot reset clientA >/root/out 2>&1 & timeout 600 sh -c 'tail -F /root/out 2>/dev/null | grep -m1 \"creating\"'; sleep 0.5").unwrap();
    after_power_cut(host, &others);
}

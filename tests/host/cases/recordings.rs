// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs that are recorded from LVM snapshots and replayed, by their units, with a QEMU within the emulated host.

use std::collections::BTreeMap;
use std::path::Path;

use super::mutants::{Good, numbers};
use super::{THICK, cases, emulated_guest, until};
use crate::machine::Host;

cases! {
    Installed {
        LaterBookworm: from_lvm;
        Trixie: no_room;
        Both: ends, from_lvm_ten_times, hostile, mutants;
    }
}

/// Everything the guest does is emulated twice here. Linux as a guest is recorded and replayed by tests/replay, where it is
/// emulated once.
fn prepare(host: &mut Host, cmdline: &str) {
    emulated_guest(host, &THICK.replace("32M", "64M"), cmdline);
}

fn from_lvm(host: &mut Host) {
    recorded_from_lvm(host, 2);
}

fn from_lvm_ten_times(host: &mut Host) {
    recorded_from_lvm(host, 10);
}

fn recorded_from_lvm(host: &mut Host, replays: u32) {
    prepare(host, "once");
    host.run("ttvm image seal xenvg/base").unwrap();
    let recorded = host.run("ttvm record clientA --for 2min 2>&1").unwrap();
    assert!(recorded.contains("powered itself off after"), "{recorded}");
    for _ in 0..replays {
        let replayed = host.run("ttvm replay --verify clientA 2>&1").unwrap();
        assert!(replayed.contains("IDENTICAL"), "{replayed}");
    }
    let list = host.run("ttvm recordings list clientA").unwrap();
    assert!(list.contains(&format!("identical ×{replays}")), "{list}");
    // A snapshot that is not fresh: somebody writes to it between its making and the guest's start.
    host.run(
        "mkdir -p /etc/systemd/system/ttvm-replay@.service.d && printf '[Service]\\nExecStartPre=/bin/dd if=/dev/urandom \
         of=/dev/xenvg/snap1 bs=1 seek=4096 count=16 conv=notrunc,fsync\\n' > /etc/systemd/system/ttvm-replay@.service.d/stale.conf \
         && systemctl daemon-reload",
    )
    .unwrap();
    let stale = host.sh("ttvm replay --verify clientA").unwrap();
    assert_eq!(stale.status, 5, "{} {}", stale.text(), stale.errors());
    assert!(
        stale.text().contains("DIVERGED") && stale.text().contains("disk "),
        "{}",
        stale.text()
    );
    host.run("rm -r /etc/systemd/system/ttvm-replay@.service.d && systemctl daemon-reload")
        .unwrap();
    // One byte of the origin.
    host.run("ttvm image unseal xenvg/base && printf x | dd of=/dev/xenvg/base bs=1 seek=9999 conv=notrunc,fsync 2>/dev/null")
        .unwrap();
    let changed = host.sh("ttvm replay --verify clientA").unwrap();
    assert_eq!(changed.status, 4, "{} {}", changed.text(), changed.errors());
    assert!(
        changed
            .errors()
            .contains("disk vda: the content of xenvg/base has changed"),
        "{}",
        changed.errors()
    );
    until(host, "test -z \"$(lvs --noheadings @ttvm)\"");
}

/// Starts a recording that goes on until it is ended, and waits until the guest does something.
fn record_on(host: &mut Host) {
    host.run("systemctl start ttvm-record@clientA").unwrap();
    until(
        host,
        "tail -n 1 $(ls -td /var/lib/ttvm/recordings/clientA/*/ | head -n 1)console.log | grep -q '^[0-9]'",
    );
}

/// What the list says of the newest recording.
fn newest(host: &mut Host) -> String {
    host.run("ttvm recordings list clientA | grep ^clientA | tail -n 1")
        .unwrap()
}

/// A guest whose disk is a file: small, and with an overlay in place of a snapshot.
fn prepare_file(host: &mut Host, cmdline: &str) {
    host.run("[ -e /root/base.img ] || head -c 262144 /dev/urandom >/root/base.img")
        .unwrap();
    emulated_guest(
        host,
        "[[disk]]\norigin = \"/root/base.img\"\ntarget = \"xvda1\"",
        cmdline,
    );
}

/// Every file with its mode, size, time and number, but those of the recording and what is remembered of each run.
fn traces(host: &mut Host, own: &str) -> String {
    host.run(&format!(
        "find /etc /root /home /srv /usr/local /var/lib/ttvm \\( -path /var/lib/ttvm/guests -o -path '{own}' -o -path /root/hostile.ttvm \\) \
         -prune -o ! -type d -printf '%p %m %U %s %T@ %i\\n' | sort"
    ))
    .unwrap()
}

/// Recordings that somebody made to do harm, replayed by root's unit.
fn hostile(host: &mut Host) {
    prepare_file(host, "loop");
    record_on(host);
    let status = host
        .run("cat /proc/$(pgrep -f '[q]emu-system')/status && id -u ttvm-qemu")
        .unwrap();
    let user = status.lines().last().unwrap();
    let all = format!("Uid:\t{user}\t{user}\t{user}\t{user}");
    for line in [
        all.as_str(),
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "no {line} in\n{status}");
    }
    host.run("systemctl stop ttvm-record@clientA").unwrap();
    let replayed = host.run("ttvm replay --verify clientA").unwrap();
    assert!(replayed.contains("IDENTICAL"), "{replayed}");
    // One that is stopped is not what the one before it was.
    let stopped = host
        .sh(
            "ttvm replay --verify clientA & until systemctl is-active -q ttvm-replay@clientA; do sleep 0.2; done; \
             systemctl stop ttvm-replay@clientA; wait $!",
        )
        .unwrap();
    assert!(
        stopped.status == 1 && !stopped.text().contains("IDENTICAL"),
        "{} {}",
        stopped.text(),
        stopped.errors()
    );

    prepare_file(host, "once");
    host.run("ttvm record clientA --for 2min && ttvm recordings export clientA --with-disks -o /root/good.ttvm && mkfifo /root/pipe")
        .unwrap();
    let good = Good::read(&host.read("/root/good.ttvm").unwrap());
    let manifest = |change: &dyn Fn(&mut toml::Table)| good.with(true, |table| change(table));
    let cases: [(&str, Vec<u8>, i32, &str); 8] = [
        ("nothing", good.archive(), 0, "IDENTICAL"),
        (
            "a serial port that is not there",
            good.with_event(b"\x07\xc8\0\0\0\x01A"),
            4,
            "an event of serial port 200",
        ),
        (
            "a log that is cut off",
            good.with_file("replay.log", |log| log.truncate(log.len() - 1)),
            4,
            "it is cut off",
        ),
        ("a character less", good.without_last_character(), 5, "DIVERGED"),
        (
            "another console",
            good.with_file("console.log", |console| console[3] ^= 1),
            5,
            "DIVERGED",
        ),
        (
            "more memory than there is",
            manifest(&|table| table["engine"]["memory"] = (1_i64 << 53).into()),
            4,
            "memory: it was 8192T, now it is 32M",
        ),
        (
            "a version that is more than that",
            manifest(&|table| table["engine"]["version"] = "7\u{1b}]0;pwned\u{7}\nIDENTICAL: all is well".into()),
            4,
            // systemd leaves out backslashes.
            "QEMU: it was 7",
        ),
        (
            "a pipe for a disk",
            good.with(false, |table| table["disk"][0]["origin"] = "/root/pipe".into()),
            4,
            "disk vda: what it was made from did not come with the recording",
        ),
    ];
    let imported = |host: &mut Host| {
        let said = host
            .run("ttvm recordings import --as clientA /root/hostile.ttvm")
            .unwrap();
        let words = said
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("imported clientA "));
        words.unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    // The good one itself would be there already.
    host.run("ttvm recordings rm clientA --keep 0").unwrap();
    let before = traces(host, "/var/lib/ttvm/bases");
    for (what, archive, status, words) in cases {
        host.write("/root/hostile.ttvm", &archive, 0o600).unwrap();
        let id = imported(host);
        let replayed = host.sh(&format!("ttvm replay --verify clientA {id} 2>&1")).unwrap();
        let said = replayed.text();
        assert!(
            replayed.status == status && said.contains(words),
            "{what}: {} {said}",
            replayed.status
        );
        assert!(
            !said.contains(|c: char| c.is_control() && c != '\n'),
            "{what}: {said:?}"
        );
        let left = host
            .run("pgrep -af '[q]emu-system'; cd /var/lib/ttvm && ls -A overlays; ls recordings/clientA/*")
            .unwrap();
        let verdict = left.contains("replay.json");
        assert!(!left.contains("qemu") && verdict == (status != 4), "{what}: {left}");
        let own = format!("/var/lib/ttvm/recordings/clientA/{id}");
        let now = traces(host, &own);
        let now: Vec<&str> = now
            .lines()
            .filter(|line| !line.starts_with("/var/lib/ttvm/bases/"))
            .collect();
        assert_eq!(now.join("\n"), before.trim_end(), "{what}");
        host.run(&format!(
            "ttvm recordings show clientA && ttvm recordings list && ttvm recordings rm clientA {id}"
        ))
        .unwrap();
    }
}

/// How many of them are tried if nobody says: a replay takes seconds here.
const FEW: u64 = 12;

/// The same, each with one change by chance (tests/replay, hostile::recordings); `TTVM_HOSTILE` says which.
fn mutants(host: &mut Host) {
    prepare_file(host, "once");
    host.run(
        "ttvm record clientA --for 2min && ttvm recordings export clientA --with-disks -o /root/good.ttvm && \
         mkdir /root/bait && cd /root/bait && echo secret >secret && ln -s secret link && mkfifo pipe",
    )
    .unwrap();
    let good = Good::read(&host.read("/root/good.ttvm").unwrap());
    // What is made once and stays: the copy of the disk, the lock.
    host.write("/root/hostile.ttvm", &good.archive(), 0o600).unwrap();
    let replayed = host
        .run("ttvm recordings import --as hostile /root/hostile.ttvm && ttvm replay --verify hostile 2>&1")
        .unwrap();
    assert!(replayed.contains("IDENTICAL"), "{replayed}");
    host.run("ttvm recordings rm hostile --keep 0").unwrap();
    let own = "/var/lib/ttvm/recordings/hostile";
    let before = traces(host, own);
    let secret = ttvm::file::digest::of_bytes(b"secret\n").to_string();
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    for number in numbers(FEW) {
        let mutant = good.mutant(number, Path::new("/root/bait"));
        host.write("/root/hostile.ttvm", &mutant.archive, 0o600).unwrap();
        let tried = host
            .sh(
                "cd /root; ttvm recordings import --as hostile hostile.ttvm 2>&1 || exit 100
                 timeout -s INT 20 ttvm replay --verify hostile 2>&1; ended=$?
                 ttvm recordings show hostile 2>&1; ttvm recordings list 2>&1; ls /var/lib/ttvm/recordings/hostile/*
                 exit $ended",
            )
            .unwrap();
        let (status, said) = (tried.status, tried.text());
        let end = match status {
            0 => "identical",
            1 => "failed",
            3 | 4 => "refused",
            5 => "diverged",
            100 => "not imported",
            // Whoever waited for it has ended it.
            124 | 130 => "stood still",
            _ => panic!("{number}, {}: {status}: {said}", mutant.what),
        };
        *ends.entry(end).or_default() += 1;
        let require = |is_so: bool, what: &str| assert!(is_so, "{number}, {}: {what}: {end}: {said}", mutant.what);
        require(status != 0 || mutant.may_be_identical, "it cannot be IDENTICAL");
        require(
            said.contains("replay.json") == [0, 5].contains(&status),
            "what is stored",
        );
        require(
            !said.contains(|c: char| c != '\n' && !ttvm::base::text::is_plain(c)),
            "what a terminal would do",
        );
        require(!said.contains(&secret), "it has read the secret");
        let left = host
            .run("pgrep -af '[q]emu-system'; ls -A /var/lib/ttvm/overlays; systemctl is-active ttvm-replay@hostile; true")
            .unwrap();
        require(["inactive\n", "failed\n"].contains(&left.as_str()), &left);
        host.run("ttvm recordings rm hostile --keep 0 2>&1 || ! ls /var/lib/ttvm/recordings/hostile/*")
            .unwrap();
        let now = traces(host, own);
        require(now == before, &now);
    }
    println!("hostile recordings {:?} as root's unit: {ends:?}", numbers(FEW));
}

/// A guest that runs as its unit stands still while there is no room for what it writes, and says so.
fn no_room(host: &mut Host) {
    prepare_file(host, "loop");
    host.run("systemctl start ttvm@clientA").unwrap();
    host.run("fallocate -l $(($(stat -f -c '%a * %S' /var/lib/ttvm) - (16 << 20))) /var/lib/ttvm/ballast")
        .unwrap();
    until(
        host,
        "ttvm status clientA | grep -q \"stands still: there is no room in /var/lib/ttvm/overlays\"",
    );
    host.run("rm /var/lib/ttvm/ballast").unwrap();
    until(host, "! ttvm status clientA | grep -q \"stands still\"");
    host.run("systemctl is-active ttvm@clientA && journalctl -b -u ttvm@clientA | grep 'there is room again: the guest goes on'")
        .unwrap();
}

fn killed(host: &mut Host, what: &str) {
    record_on(host);
    host.run(what).unwrap();
    until(host, "systemctl is-failed ttvm-record@clientA");
    until(host, "! pgrep -f '[q]emu-system'");
    until(host, "test -z \"$(lvs --noheadings @ttvm)\"");
    assert!(newest(host).contains("incomplete"), "{}", newest(host));
}

fn ends(host: &mut Host) {
    prepare(host, "loop");
    killed(host, "kill -9 $(systemctl show -P MainPID ttvm-record@clientA)");
    killed(host, "pkill -9 -f '[q]emu-system'");
    // The space is accounted for, and given back.
    let size = host.run("du -sk /var/lib/ttvm/recordings | cut -f 1").unwrap();
    assert!(size.parse::<u32>().unwrap() >= 16, "{size}");
    host.run("ttvm recordings rm clientA --incomplete").unwrap();
    let list = host.run("ttvm recordings list clientA").unwrap();
    assert!(!list.contains("incomplete"), "{list}");
    record_on(host);
    // One run of a guest at a time.
    for other in ["record clientA --for 5s", "replay clientA"] {
        let refused = host.sh(&format!("ttvm {other}")).unwrap();
        assert!(refused.status != 0, "{}", refused.text());
    }
    let status = host.run("ttvm status").unwrap();
    assert!(status.contains("recording"), "{status}");
    // The power.
    host.run("sync").unwrap();
    host.power_cut_and_boot().unwrap();
    assert!(newest(host).contains("incomplete"), "{}", newest(host));
    // Another unit of the guest ends this one in good order: it is whole.
    record_on(host);
    host.run("systemctl start ttvm@clientA").unwrap();
    assert!(
        newest(host).contains("complete") && !newest(host).contains("incomplete"),
        "{}",
        newest(host)
    );
    host.run(
        "systemctl is-active ttvm@clientA && ! systemctl is-active ttvm-record@clientA && systemctl stop ttvm@clientA",
    )
    .unwrap();
    let replayed = host.run("ttvm replay --verify clientA 2>&1").unwrap();
    assert!(replayed.contains("IDENTICAL"), "{replayed}");
}

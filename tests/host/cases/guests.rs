// SPDX-License-Identifier: MIT OR Apache-2.0
//! The life of guests: fresh disks, endings, several at once.

use super::{
    THICK, THIN, cases, console, emulated_guest, first_block, guest, journal, nothing_left, other_volumes, property,
    tell, wait_for,
};
use crate::machine::Host;

cases! {
    Installed {
        LaterBookworm: given_up;
    }
    Xen {
        Trixie: not_restarted_for_a_wrong_file;
        LaterBookworm: reboot_stop, ram_only_on_a_bridge, thin_is_fresh;
        Both: four_guests_at_once, reboot_fresh, deaf_guest_is_destroyed, foreign_domain, overflow_is_noticed, several_disks,
            thick_is_fresh_five_times, thin_is_fresh_five_times, reboots_at_once;
    }
    Guest {
        Bookworm: thick_is_fresh, poweroff, status_shows_it_all, hands_off_a_running_guest;
        LaterBookworm: reboot_keeps_the_disk, crash, file_changed_under_a_running_guest;
        LaterTrixie: destroyed_from_outside;
    }
}

/// Every run begins on the origin's content, whatever the one before has written. The guest itself says what it found.
fn fresh(host: &mut Host, disk: &str, origin: &str, runs: u32) {
    let golden = first_block(host, origin);
    let others = other_volumes(host);
    guest(host, "clientA", disk, "ttvm.do=read,write,read", "");
    let log = "/var/log/xen/console/guest-clientA.log";
    let before: u32 = host
        .run(&format!("grep -ac 'first block' {log} 2>/dev/null || true"))
        .unwrap()
        .parse()
        .unwrap_or(0);
    host.run("systemctl restart ttvm@clientA").unwrap();
    for run in 1..=runs {
        // First the origin's block, then its own.
        let written = console(host, "clientA", "first block", before + 2 * run);
        assert!(!written.ends_with(&golden), "run {run} wrote nothing");
        let first = host.run(&format!(
            "grep -a 'first block' {log} | tail -n2 | head -n1 | tr -d '\r'"
        ));
        assert!(first.unwrap().ends_with(&golden), "run {run} started on a used disk");
        assert!(
            written.ends_with(&first_block(host, "/dev/xenvg/snap1")),
            "the write is in the snapshot"
        );
        if run < runs {
            host.run("systemctl restart ttvm@clientA").unwrap();
        }
    }
    host.run("systemctl stop ttvm@clientA").unwrap();
    assert_eq!(other_volumes(host), others);
    nothing_left(host, "clientA");
}

fn thick_is_fresh(host: &mut Host) {
    fresh(host, THICK, "/dev/xenvg/base", 2);
}

fn thick_is_fresh_five_times(host: &mut Host) {
    fresh(host, THICK, "/dev/xenvg/base", 5);
}

fn thin_is_fresh(host: &mut Host) {
    fresh(host, THIN, "/dev/xenvg/tbase", 2);
}

fn thin_is_fresh_five_times(host: &mut Host) {
    fresh(host, THIN, "/dev/xenvg/tbase", 5);
}

fn four_guests_at_once(host: &mut Host) {
    for (name, origin) in [("xl", "base"), ("b", "base"), ("c", "tbase"), ("d", "tbase")] {
        let disk =
            format!("[[disk]]\norigin = \"xenvg/{origin}\"\ntarget = \"xvda1\"\nsnapshot = {{ size = \"16M\" }}");
        guest(host, name, &disk, "ttvm.do=write", "");
    }
    host.run("systemctl enable -q ttvm@xl ttvm@b ttvm@c ttvm@d && systemctl start ttvm.target")
        .unwrap();
    for name in ["xl", "b", "c", "d"] {
        wait_for(host, name, "active");
        assert_eq!(property(host, name, "NRestarts"), "0", "{name}");
    }
    assert_eq!(
        host.run("xl list | tail -n +3 | awk '{print $1}' | sort | xargs")
            .unwrap(),
        "b c d xl"
    );
    assert_eq!(host.run("lvs --noheadings @ttvm | wc -l").unwrap(), "4");
    host.run("systemctl stop ttvm.target").unwrap();
    for name in ["xl", "b", "c", "d"] {
        wait_for(host, name, "inactive");
    }
    for name in ["xl", "b", "c", "d"] {
        nothing_left(host, name);
    }
}

fn poweroff(host: &mut Host) {
    tell(host, "clientA", "poweroff");
    wait_for(host, "clientA", "inactive");
    assert_eq!(property(host, "clientA", "Result"), "success");
    assert_eq!(last_exit(host), "powered itself off");
    nothing_left(host, "clientA");
}

/// How the guest's last run ended, by `ttvm status`: systemd forgets the status of a unit that stopped well.
fn last_exit(host: &mut Host) -> String {
    host.run("ttvm status --json clientA | sed -n 's/.*\"last_exit\": \"\\(.*\\)\".*/\\1/p'")
        .unwrap()
}

fn reboot_keeps_the_disk(host: &mut Host) {
    tell(host, "clientA", "write");
    tell(host, "clientA", "read");
    let written = console(host, "clientA", "first block", 2);
    assert!(!written.ends_with(&first_block(host, "/dev/xenvg/base")), "{written}");
    host.run("xl reboot clientA").unwrap();
    assert_eq!(console(host, "clientA", "first block", 3), written);
    assert_eq!(property(host, "clientA", "ActiveState"), "active");
    assert_eq!(property(host, "clientA", "NRestarts"), "0");
    assert!(
        host.run("ttvm status --json clientA")
            .unwrap()
            .contains("\"reboots\": 1")
    );
    host.run("systemctl stop ttvm@clientA").unwrap();
    nothing_left(host, "clientA");
}

fn reboot_fresh(host: &mut Host) {
    guest(
        host,
        "clientA",
        THIN,
        "ttvm.do=read,write,read",
        "on_reboot = \"fresh\"",
    );
    host.run("systemctl start ttvm@clientA").unwrap();
    console(host, "clientA", "first block", 2);
    let golden = first_block(host, "/dev/xenvg/tbase");
    host.run("xl reboot clientA").unwrap();
    let found = console(host, "clientA", "first block", 3);
    assert!(found.ends_with(&golden), "{found}");
    wait_for(host, "clientA", "active");
    assert_eq!(property(host, "clientA", "NRestarts"), "1");
}

fn reboot_stop(host: &mut Host) {
    guest(host, "clientA", THICK, "ttvm.do=sleep:1,reboot", "on_reboot = \"stop\"");
    host.run("systemctl start ttvm@clientA").unwrap();
    wait_for(host, "clientA", "inactive");
    assert_eq!(last_exit(host), "rebooted");
    nothing_left(host, "clientA");
}

fn crash(host: &mut Host) {
    tell(host, "clientA", "crash");
    journal(host, "clientA", "crashed: its kernel panicked", 1);
    // A crash is a failure, and so followed by a start on a fresh disk.
    journal(host, "clientA", "guest is up as domain", 2);
    assert_ne!(property(host, "clientA", "NRestarts"), "0");
    console(host, "clientA", "read: 0", 2);
    host.run("mkdir -p /run/systemd/system/ttvm@clientA.service.d && printf '[Service]\\nRestart=no\\n' > /run/systemd/system/ttvm@clientA.service.d/no.conf && systemctl daemon-reload").unwrap();
    tell(host, "clientA", "crash");
    wait_for(host, "clientA", "failed");
    assert_eq!(property(host, "clientA", "Result"), "exit-code");
    assert_eq!(property(host, "clientA", "ExecMainStatus"), "1");
    let status = host.sh("systemctl status --no-pager ttvm@clientA").unwrap().text();
    assert!(status.contains("Status: \"ended: crashed\""), "{status}");
    assert!(host.run("ttvm status clientA").unwrap().contains("crashed"));
    nothing_left(host, "clientA");
}

/// What fails each time it is started is given up after five times, and counts anew when it is started by hand.
fn given_up(host: &mut Host) {
    emulated_guest(host, THIN, "loop");
    host.run(
        "head -c 100 /dev/zero >/root/tiny; mkdir -p /run/systemd/system/ttvm@clientA.service.d; \
         printf '[Service]\\nRestartSec=10ms\\n' >/run/systemd/system/ttvm@clientA.service.d/soon.conf; systemctl daemon-reload",
    )
    .unwrap();
    assert_ne!(host.sh("systemctl start ttvm@clientA").unwrap().status, 0);
    wait_for(host, "clientA", "failed");
    assert_eq!(property(host, "clientA", "ExecMainStatus"), "4");
    assert_eq!(property(host, "clientA", "NRestarts"), "4");
    let text = property(host, "clientA", "StatusText");
    assert!(text.contains("is not started again: 5 times in a row"), "{text}");
    let log = host.run("journalctl -o cat -u ttvm@clientA").unwrap();
    for pause in [5, 10, 20] {
        assert!(log.contains(&format!("started again in {pause} s")), "{log}");
    }
    host.run("systemctl reset-failed ttvm@clientA").unwrap();
    assert_ne!(host.sh("systemctl start ttvm@clientA").unwrap().status, 0);
    assert_ne!(property(host, "clientA", "ExecMainStatus"), "4");
    // Nobody has to wait for the end of a pause, and stopped is not failed.
    journal(host, "clientA", "started again in 5 s", 2);
    host.run("systemctl stop ttvm@clientA").unwrap();
    wait_for(host, "clientA", "inactive");
    nothing_left(host, "clientA");
}

/// A guest that reboots at once is built again more and more slowly, and then not any more.
fn reboots_at_once(host: &mut Host) {
    guest(host, "clientA", THICK, "ttvm.do=reboot", "on_reboot = \"keep\"");
    host.run("systemctl start ttvm@clientA").unwrap();
    wait_for(host, "clientA", "failed");
    assert_eq!(property(host, "clientA", "ExecMainStatus"), "4");
    assert_eq!(property(host, "clientA", "NRestarts"), "0");
    let text = property(host, "clientA", "StatusText");
    assert!(text.contains("5 times in a row it rebooted within a minute"), "{text}");
    let log = host.run("journalctl -o cat -u ttvm@clientA").unwrap();
    for pause in [5, 10, 20] {
        assert!(log.contains(&format!("started again in {pause} s")), "{log}");
    }
    nothing_left(host, "clientA");
    // Nobody has to wait for the end of a pause.
    host.run("systemctl start ttvm@clientA").unwrap();
    journal(host, "clientA", "started again in 20 s", 2);
    host.run("systemctl stop ttvm@clientA").unwrap();
    assert_eq!(last_exit(host), "stopped");
    nothing_left(host, "clientA");
}

fn deaf_guest_is_destroyed(host: &mut Host) {
    guest(host, "clientA", THICK, "ttvm.deaf", "");
    host.run("sed -i 's/shutdown_timeout = .*/shutdown_timeout = \"3s\"/' /etc/ttvm/guests/clientA.toml")
        .unwrap();
    host.run("systemctl start ttvm@clientA").unwrap();
    console(host, "clientA", "ttvm guest up", 1);
    host.run("systemctl stop ttvm@clientA").unwrap();
    assert_eq!(last_exit(host), "did not shut down in time, destroyed");
    assert_eq!(property(host, "clientA", "ActiveState"), "inactive");
    nothing_left(host, "clientA");
}

fn destroyed_from_outside(host: &mut Host) {
    host.run("xl destroy clientA").unwrap();
    wait_for(host, "clientA", "inactive");
    assert_eq!(last_exit(host), "destroyed from outside");
    nothing_left(host, "clientA");
}

fn foreign_domain(host: &mut Host) {
    guest(host, "clientA", THICK, "", "");
    host.run("ttvm guest config clientA | sed '/^disk/d; s/^uuid.*//' > /root/foreign.cfg && xl create -q -e /root/foreign.cfg").unwrap();
    assert_ne!(host.sh("systemctl start ttvm@clientA").unwrap().status, 0);
    assert_eq!(property(host, "clientA", "ExecMainStatus"), "4");
    assert!(host.run("ttvm status clientA").unwrap().contains("foreign domain"));
    let log = host.run("journalctl -o cat -u ttvm@clientA").unwrap();
    assert!(
        log.contains("a domain named \"clientA\" (id 1) is running that ttvm did not start"),
        "{log}"
    );
    assert_eq!(host.run("xl list | grep -c clientA").unwrap(), "1");
    // Refused is not tried again.
    wait_for(host, "clientA", "failed");
}

fn overflow_is_noticed(host: &mut Host) {
    let small = THICK.replace("32M", "4M");
    guest(host, "clientA", &small, "ttvm.do=sleep:1,fill", "");
    host.run("systemctl start ttvm@clientA").unwrap();
    journal(host, "clientA", "xenvg/snap1 overflowed", 1);
    let status = host.run("ttvm status clientA").unwrap();
    assert!(status.contains("OVERFLOWED"), "{status}");
    assert_eq!(property(host, "clientA", "ActiveState"), "active");
    let text = property(host, "clientA", "StatusText");
    assert!(text.contains("this run is void"), "{text}");
    host.run("systemctl stop ttvm@clientA").unwrap();
    let status = host.run("ttvm status clientA").unwrap();
    assert!(status.contains("last run OVERFLOWED"), "{status}");
    // Thin: the pool fills up.
    host.run("sed -i 's/# thin_pool_limit.*/thin_pool_limit = 100/' /etc/ttvm/ttvm.toml; lvcreate -q -y -V 480M --thinpool xenvg/pool -n filler 2>/dev/null; dd if=/dev/zero of=/dev/xenvg/filler bs=1M count=430 oflag=direct 2>/dev/null").unwrap();
    guest(host, "clientA", THIN, "ttvm.do=fill", "");
    host.run("systemctl start ttvm@clientA").unwrap();
    journal(host, "clientA", "xenvg/snap1 overflowed", 2);
    assert!(host.run("ttvm status clientA").unwrap().contains("POOL FULL"));
}

/// Without a disk there is nothing to make or remove. Under the unit's sandbox, Xen's hotplug script puts the guest's
/// interface into the bridge.
fn ram_only_on_a_bridge(host: &mut Host) {
    host.run("ip link add xenbr0 type bridge && ip link set xenbr0 up")
        .unwrap();
    guest(host, "ram", "[[vif]]\nbridge = \"xenbr0\"", "", "");
    host.run("systemctl start ttvm@ram").unwrap();
    assert_eq!(host.run("ls /sys/class/net/xenbr0/brif").unwrap(), "vif1.0");
    let mac = host.run("xenstore-read /local/domain/0/backend/vif/1/0/mac").unwrap();
    assert!(
        host.run("ttvm guest show ram").unwrap().contains(&mac),
        "the address is the same every time"
    );
    console(host, "ram", "ttvm guest up", 1);
    assert_eq!(
        host.run("ttvm snapshot reset ram").unwrap(),
        "guest \"ram\" has no snapshots"
    );
    host.run("systemctl stop ttvm@ram").unwrap();
    assert_eq!(host.run("ls /sys/class/net/xenbr0/brif").unwrap(), "");
    nothing_left(host, "ram");
}

fn several_disks(host: &mut Host) {
    host.run("truncate -s 8M /root/image.raw").unwrap();
    let disks = format!(
        "{THICK}\n[[disk]]\norigin = \"xenvg/tbase\"\ntarget = \"xvdb\"\n[[disk]]\npath = \"/dev/xenvg/other\"\ntarget = \"xvdc\"\n\
         [[disk]]\npath = \"/root/image.raw\"\naccess = \"rw\"\ntarget = \"xvdd\""
    );
    guest(host, "clientA", &disks, "ttvm.do=write", "type = \"pv\"\nvcpus = 2");
    host.run("systemctl start ttvm@clientA").unwrap();
    assert_eq!(host.run("xl block-list clientA | tail -n +2 | wc -l").unwrap(), "4");
    assert_eq!(
        host.run("xenstore-ls /local/domain/0/backend/vbd/1 | grep -c 'mode = \"r\"'")
            .unwrap(),
        "1"
    );
    assert_eq!(
        host.run("lvs --noheadings -o lv_name @ttvm | xargs").unwrap(),
        "snap1 ttvm-clientA-xvdb"
    );
    host.run("systemctl stop ttvm@clientA").unwrap();
    nothing_left(host, "clientA");
}

fn status_shows_it_all(host: &mut Host) {
    guest(host, "idle", "", "", "");
    host.write("/etc/ttvm/guests/wrong.toml", b"memory = 3\n", 0o644)
        .unwrap();
    tell(host, "clientA", "write");
    console(host, "clientA", "write: 0", 1);
    let status = host.run("ttvm status").unwrap();
    let lines: Vec<Vec<&str>> = status.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines[0],
        [
            "GUEST", "STATE", "DOMID", "MEMORY", "SNAPSHOT", "UPTIME", "LAST", "EXIT"
        ]
    );
    assert_eq!(lines[1][..4], ["clientA", "running", "1", "96M"], "{status}");
    assert!(
        lines[1][4].ends_with('%') && lines[1][5..7] == ["of", "32M"],
        "{status}"
    );
    assert_eq!(lines[2][..2], ["idle", "stopped"]);
    assert_eq!(lines[3][..2], ["wrong", "invalid"]);
    // What was done to which volume is in the journal, with fields.
    let steps = host.run("journalctl -o verbose TTVM_LV=xenvg/snap1 TTVM_GUEST=clientA _SYSTEMD_UNIT=ttvm@clientA.service + OBJECT_SYSTEMD_UNIT=ttvm@clientA.service | grep TTVM_STEP | sed 's/.*=//' | xargs");
    assert_eq!(steps.unwrap(), "locked creating created");
    let unit = host.run("journalctl -o cat -u ttvm@clientA").unwrap();
    for message in [
        "creating xenvg/snap1 (snapshot of xenvg/base)",
        "snapshots are fresh",
        "guest is up as domain 1",
    ] {
        assert!(unit.contains(message), "{unit}");
    }
}

fn not_restarted_for_a_wrong_file(host: &mut Host) {
    guest(host, "clientA", THICK, "", "memroy = \"1G\"");
    assert_ne!(host.sh("systemctl start ttvm@clientA").unwrap().status, 0);
    let status = host.sh("systemctl status --no-pager ttvm@clientA").unwrap().text();
    assert!(status.contains("did you mean \"memory\"?"), "{status}");
    host.run("sed -i /memroy/d /etc/ttvm/guests/clientA.toml && systemctl start ttvm@clientA")
        .unwrap();
}

/// What was made for a run is tidied up, whatever has become of the guest's file.
fn file_changed_under_a_running_guest(host: &mut Host) {
    // Another snapshot of another origin, from the next start on.
    let other = THICK.replace("snap1", "snap2").replace("base", "other");
    guest(host, "clientA", &other, "", "");
    host.run("systemctl restart ttvm@clientA").unwrap();
    assert_eq!(
        host.run("lvs --noheadings -o lv_name,origin @ttvm | xargs").unwrap(),
        "snap2 other"
    );
    // Broken, and the supervisor gone.
    host.run("echo 'x = [' >> /etc/ttvm/guests/clientA.toml").unwrap();
    let status = host.run("ttvm status").unwrap();
    assert!(status.contains("running, file invalid  2"), "{status}");
    host.run("kill -9 $(systemctl show -P MainPID ttvm@clientA)").unwrap();
    wait_for(host, "clientA", "failed");
    assert_eq!(property(host, "clientA", "ExecMainStatus"), "3");
    nothing_left(host, "clientA");
    // Removed.
    guest(host, "clientA", THICK, "", "");
    host.run("systemctl start ttvm@clientA && rm /etc/ttvm/guests/clientA.toml && systemctl stop ttvm@clientA")
        .unwrap();
    nothing_left(host, "clientA");
}

fn hands_off_a_running_guest(host: &mut Host) {
    for action in ["reset", "discard"] {
        let output = host.sh(&format!("ttvm snapshot {action} clientA")).unwrap();
        assert_eq!(output.status, 4, "{}", output.errors());
        assert!(
            output
                .errors()
                .contains("is running: its snapshots cannot be changed now")
        );
    }
    // Somebody gives the domain another name; its end is seen all the same.
    host.run("xl rename clientA 'b c' && xl shutdown 'b c'").unwrap();
    wait_for(host, "clientA", "inactive");
    assert_eq!(last_exit(host), "powered itself off");
    nothing_left(host, "clientA");
}

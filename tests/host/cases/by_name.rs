// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests by their names: `ttvm start`, `stop`, `restart`, `kill`, `logs`, `list`, `status --watch`; what the journal explains, and
//! figures; and the page that teaches it (man/ttvm.7).

use super::{THIN, cases, emulated_guest, nothing_left, promtool, until};
use crate::machine::Host;
use crate::tutorial;

cases! {
    Plain {
        Both: as_the_tutorial;
    }
    Installed {
        Trixie: several_at_once;
    }
    Guest {
        LaterTrixie: killed;
    }
}

/// What root types in the tutorial, on a fresh host. (What a user types is run in tests/replay.)
fn as_the_tutorial(host: &mut Host) {
    host.run(&format!("cp {} /root/ttvm_0.2.0_amd64.deb", Host::DEB))
        .unwrap();
    for command in tutorial::commands().iter().filter(|command| command.prompt == '#') {
        let said = host.run(&format!("cd /root && {} 2>&1", command.line)).unwrap();
        command.expect(&said);
    }
    let explained = host.run("man -P cat 7 ttvm | head -n 1").unwrap();
    assert!(explained.starts_with("TTVM(7)"), "{explained}");
}

fn several_at_once(host: &mut Host) {
    emulated_guest(host, THIN, "loop");
    host.run("cd /etc/ttvm/guests && printf 'toolstack = \"qemu\"\\nmemory = \"32M\"\\nkernel = \"/root/tiny\"\\ncmdline = \"loop\"\\nshutdown_timeout = \"1s\"\\n' >b.toml")
        .unwrap();
    // In the place of its snapshot is somebody else's volume, which only a person can put right.
    let bad = "toolstack = \"qemu\"\nmemory = \"32M\"\nkernel = \"/root/tiny\"\n\n[[disk]]\ntarget = \"vda\"\norigin = \"xenvg/base\"\nsnapshot = { name = \"other\", size = \"16M\" }\n";
    host.write("/etc/ttvm/guests/bad.toml", bad.as_bytes(), 0o644).unwrap();
    host.run("(ttvm status --watch clientA >/root/watch 2>&1; echo ended >>/root/watch) &")
        .unwrap();
    until(host, "grep -q \"clientA *stopped\" /root/watch");
    // One that cannot be started does not keep the others from it.
    let some = host.sh("ttvm start clientA bad b 2>&1").unwrap();
    let said = some.text();
    assert_ne!(some.status, 0, "{said}");
    for words in [
        "clientA: running, 32M of memory",
        "b: running, 32M of memory",
        "ttvm: guest \"bad\" did not start: ",
        "more: `ttvm logs bad`",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
    // The lines of the journal, without the time.
    assert!(
        said.lines()
            .any(|line| line.starts_with("    ") && line.contains("xenvg/other")),
        "{said}"
    );
    until(host, "grep -q \"clientA *running\" /root/watch");
    let said = host.run("ttvm start clientA b").unwrap();
    assert_eq!(said, "clientA is running already\nb is running already");
    let list = host.run("ttvm list").unwrap();
    assert!(list.contains("xenvg/tbase"), "{list}");
    let refused = host.sh("ttvm start nobody").unwrap();
    assert_eq!(refused.status, 3, "{}", refused.text());
    // What happened is explained.
    let explained = host.run("ttvm logs -x bad | cat").unwrap();
    assert!(
        explained.contains("Subject: Guest bad could not be started"),
        "{explained}"
    );
    let explained = host
        .run("journalctl -o cat MESSAGE_ID=ebc7a6c278fc435a86e9f3e79246c049 TTVM_GUEST=bad")
        .unwrap();
    assert!(explained.contains("xenvg/other"), "{explained}");
    host.run("mkdir -p /var/lib/prometheus/node-exporter && systemctl start ttvm-metrics.service")
        .unwrap();
    let figures = host.run("cat /var/lib/prometheus/node-exporter/ttvm.prom").unwrap();
    promtool::approves(&(figures.clone() + "\n"));
    for line in [
        "ttvm_guests 3",
        "ttvm_guest_state{guest=\"b\",state=\"running\"} 1",
        "ttvm_guest_failed_starts_total{guest=\"bad\"} 1",
        "ttvm_guest_memory_bytes{guest=\"clientA\"} 33554432",
    ] {
        assert!(figures.lines().any(|it| it == line), "{line:?} is not in\n{figures}");
    }
    assert!(
        figures.contains("ttvm_snapshot_used_ratio{guest=\"clientA\",snapshot=\"xenvg/"),
        "{figures}"
    );
    let said = host.run("ttvm kill clientA").unwrap();
    assert_eq!(said, "clientA: killed by `ttvm kill`");
    until(
        host,
        "tail -n 1 /root/watch | grep -q \"clientA *stopped .*killed by .ttvm kill.\"",
    );
    assert_eq!(
        host.run("systemctl show -P ActiveState,Result,NRestarts ttvm@clientA | xargs")
            .unwrap(),
        "success 0 inactive"
    );
    // As the tiny guest does not answer its power button, it is destroyed a second later.
    let said = host.run("ttvm restart b && ttvm stop b clientA").unwrap();
    assert_eq!(
        said,
        "b: running, 32M of memory\nclientA does not run\nb: did not shut down in time, destroyed"
    );
    // A terminal or not, it ends when it is told to.
    host.run("pkill -INT -f '^ttvm status --watch'").unwrap();
    until(host, "grep -q ended /root/watch");
    nothing_left(host, "clientA");
}

/// A guest of Xen's that nobody asks.
fn killed(host: &mut Host) {
    assert_eq!(host.run("ttvm kill clientA").unwrap(), "clientA: killed by `ttvm kill`");
    assert_eq!(
        host.run("systemctl show -P ActiveState,Result,NRestarts ttvm@clientA | xargs")
            .unwrap(),
        "success 0 inactive"
    );
    nothing_left(host, "clientA");
    let said = host.run("ttvm start clientA").unwrap();
    assert!(said.starts_with("clientA: running as domain "), "{said}");
    let console = host
        .sh("timeout 10 ttvm console clientA </dev/null; ttvm list")
        .unwrap();
    assert!(console.text().contains("clientA"), "{}", console.text());
    host.run("ttvm stop clientA").unwrap();
    let refused = host.sh("ttvm console clientA").unwrap();
    assert_eq!(refused.status, 4, "{}", refused.text());
    nothing_left(host, "clientA");
}

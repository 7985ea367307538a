// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm-deviced@.service` in a systemd of its own, in namespaces: however a run ends, its ttd-deviced ends after it, and no
//! other's. The units of the runs, and ttd-deviced, are stand-ins.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SYSTEMD: &str = "/usr/lib/systemd/systemd";
const UNIT: &str = include_str!("../units/ttvm-deviced@.service");

/// What the supervisor of a run does: it starts ttd-deviced while its own unit starts, takes a while to stop its guest, and
/// ends ttd-deviced before it reads the log (src/guest/toolstack/tt_xen/deviced.rs).
const RUN: &str = r#"
instance=$1@$2
finish() {
    echo "guest $instance gone" >> $log
    timeout 15 systemctl stop --job-mode=ignore-dependencies "ttvm-deviced@$instance" || echo "no end: $?" >> $log
    echo "log of $instance complete" >> $log
    exit 0
}
trap 'sleep 0.5; finish' TERM
mkdir -p /run/ttvm
echo "TTVM_RUN_DIR=/run/$2" > "/run/ttvm/$instance.deviced"
systemctl start "ttvm-deviced@$instance" || exit 1
systemd-notify --ready
while [ ! -e "/run/poweroff-$2" ]; do sleep 0.1; done
finish
"#;

const DEVICED: &str = r#"
trap 'echo "deviced $2 ended" >> $log; exit 0' TERM
while :; do sleep 0.1; done
"#;

const SCENARIO: &str = r#"
state() { echo "$1: $(for i in record@a.b-C_1 record@other replay@a.b-C_1; do systemctl is-active "ttvm-deviced@$i"; done | xargs)" >> $log; }
ended() { for i in $(seq 100); do [ "$(systemctl is-active "ttvm-deviced@$1")" = inactive ] && return; sleep 0.1; done; }
systemctl start ttvm-record@a.b-C_1 ttvm-record@other
state started
systemctl stop ttvm-record@a.b-C_1; ended record@a.b-C_1
state stopped
systemctl kill -s KILL ttvm-record@other; ended record@other
state killed
systemctl start ttvm-replay@a.b-C_1
state replay
touch /run/poweroff-a.b-C_1; ended replay@a.b-C_1
state 'powered off'
"#;

const EXPECTED: &str = "\
started: active active inactive
guest record@a.b-C_1 gone
deviced /run/a.b-C_1/ttd.log ended
log of record@a.b-C_1 complete
stopped: inactive active inactive
deviced /run/other/ttd.log ended
killed: inactive inactive inactive
replay: inactive inactive active
guest replay@a.b-C_1 gone
deviced /run/a.b-C_1/ttd.log ended
log of replay@a.b-C_1 complete
powered off: inactive inactive inactive
";

fn script(path: &Path, log: &Path, text: &str) {
    fs::write(path, format!("#!/bin/bash\nlog={}\n{text}", log.display())).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A group of processes for a systemd that must not take anybody else's.
struct Group(PathBuf);

impl Group {
    fn new() -> Option<Self> {
        let hierarchy = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup"].map(Path::new);
        let hierarchy = hierarchy.into_iter().find(|path| path.join("cgroup.procs").exists())?;
        let path = hierarchy.join(format!("ttvm-test-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o755).create(&path).ok()?;
        Some(Self(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // systemd leaves the groups of its units, all empty.
        let mut find = Command::new("find");
        find.stderr(Stdio::null());
        drop(
            find.arg(&self.0)
                .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"])
                .status(),
        );
    }
}

#[test]
fn ends_with_the_run() {
    let group = Group::new();
    let (Some(group), false, true) = (
        group,
        Path::new("/run/systemd/system").exists(),
        Path::new(SYSTEMD).exists(),
    ) else {
        eprintln!("not tested: it takes root, and a machine whose own systemd does not run");
        return;
    };
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("xm-unit");
    drop(fs::remove_dir_all(&directory));
    let units = directory.join("units");
    fs::create_dir_all(&units).unwrap();
    let log = directory.join("log");
    for (name, text) in [("run", RUN), ("ttd-deviced", DEVICED), ("scenario", SCENARIO)] {
        script(&directory.join(name), &log, text);
    }
    let here = directory.display().to_string();
    let unit = |name: &str, text: &str| fs::write(units.join(name), text).unwrap();
    // The unit as it stands, but for the program and for debugfs, which namespaces cannot mount.
    let program = format!("{here}/ttd-deviced");
    let own = UNIT
        .replace("/usr/sbin/ttd-deviced", &program)
        .replace("/sys/kernel/debug", "/run/debug");
    unit("ttvm-deviced@.service", &own);
    for kind in ["record", "replay"] {
        let text =
            format!("[Service]\nType=notify\nNotifyAccess=all\nExecStart={here}/run {kind} %i\nKillMode=mixed\n");
        unit(&format!("ttvm-{kind}@.service"), &text);
    }
    for target in ["sysinit", "basic", "shutdown"] {
        unit(&format!("{target}.target"), "[Unit]\nDefaultDependencies=no\n");
    }
    let scenario = format!(
        "[Unit]\nSuccessAction=exit-force\nFailureAction=exit-force\n[Service]\nType=oneshot\nExecStart={here}/scenario\nTimeoutStartSec=100\n"
    );
    unit("scenario.service", &scenario);
    let boot = format!(
        "echo $$ > {}/cgroup.procs\nmount -t tmpfs tmpfs /run\nmkdir /run/debug /run/lock\nmount -t tmpfs tmpfs /run/debug\n\
         export container=other SYSTEMD_UNIT_PATH={here}/units\n\
         exec {SYSTEMD} --system --log-target=console --show-status=0 --unit=scenario.service\n",
        group.0.display()
    );
    script(&directory.join("boot"), &log, &boot);
    let output = Command::new("unshare")
        .args([
            "--pid",
            "--fork",
            "--kill-child",
            "--mount",
            "--ipc",
            "--uts",
            "--mount-proc",
        ])
        .arg(directory.join("boot"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let found = fs::read_to_string(&log).unwrap_or_default();
    assert_eq!(found, EXPECTED, "{}", String::from_utf8_lossy(&output.stderr));
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests of TT Xen, which is not to be had: their files are executed by Python, as xm does, and looked at as it does; xm,
//! systemctl and ttd-deviced are stand-ins that write down how they are called.

#[path = "support/script.rs"]
mod script;

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use ttvm::base::error::{Classify, Exit, chain};
use ttvm::config::types::GuestName;
use ttvm::guest::toolstack::tt_xen::deviced::{self, Deviced, RunDirectory, require_debugfs};
use ttvm::guest::toolstack::tt_xen::xm::{Mode, Xm};
use ttvm::run;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/config/07-xm/root");
const UNIT: &str = include_str!("../units/ttvm-deviced@.service");
const LIMIT: Duration = Duration::from_secs(20);

/// As xm loads a file: it is executed, and of its variables the strings, lists and numbers are taken over.
const PYTHON_3: &str = "
import json, sys
found = {}
exec(compile(open(sys.argv[1], 'rb').read(), sys.argv[1], 'exec'), {}, found)
print(json.dumps({k: v for k, v in found.items() if type(v) in (str, list, int, float)}))
";

/// The same in xm's own language. Its strings are bytes.
const PYTHON_2: &str = "
import json, sys, types
found = {}
execfile(sys.argv[1], {}, found)
taken = [types.StringType, types.ListType, types.IntType, types.FloatType]
assert all(type(w) is types.StringType for v in found.values() if type(v) is list for w in v)
print json.dumps(dict((k, v) for k, v in found.items() if type(v) in taken), encoding='utf-8')
";

fn python(program: &str, script: &str, file: &Path) -> io::Result<Value> {
    let output = Command::new(program).args(["-c", script]).arg(file).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Whether there is a Python 2. (pyenv has a program of that name that only says where one is.)
fn has_python_2() -> bool {
    let mut command = Command::new("python2");
    command.args(["-c", "import json"]).stderr(Stdio::null());
    let found = command.status().is_ok_and(|status| status.success());
    if !found {
        eprintln!("not tested with Python 2: there is none");
    }
    found
}

#[test]
fn files_are_python() {
    let directory = empty("files");
    let python_2 = has_python_2();
    for (name, cmdline, expected) in guests() {
        let output = Command::new(env!("CARGO_BIN_EXE_ttvm"))
            .args(["--root", FIXTURE, "guest", "config", name])
            .output()
            .unwrap();
        let file = directory.join(name);
        fs::write(&file, output.stdout).unwrap();
        let found = python("python3", PYTHON_3, &file).unwrap();
        assert_eq!(found, expected, "{name}");
        if python_2 {
            assert_eq!(
                python("python2", PYTHON_2, &file).unwrap(),
                expected,
                "{name}, Python 2"
            );
        }
        // xend puts the kernel's command line together again.
        let part = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        let root = Some(part("root")).filter(|root| !root.is_empty());
        let root = root.map_or_else(String::new, |root| format!("root={root} "));
        assert_eq!((root + &part("extra")).trim_end(), cmdline, "{name}");
    }
}

/// The guests of the fixture, their kernels' command lines, and what xm has to find in their files.
fn guests() -> [(&'static str, &'static str, Value); 3] {
    let same = |mut own: Value| {
        let same = json!({
            "vcpus": 1, "on_poweroff": "destroy", "on_reboot": "destroy", "on_crash": "destroy",
            "time_travel": [], "features": "auto_translated_physmap",
        });
        let own_keys = own.as_object_mut().unwrap();
        own_keys.extend(same.as_object().unwrap().clone());
        own
    };
    let client_a = json!({
        "name": "clientA",
        "uuid": "4aa9dc9e-cf95-57be-b6be-1c69d0565e93",
        "memory": 96,
        "shadow_memory": 1,
        "kernel": "/boot/vmlinuz-2.6.18-xenU",
        "root": "/dev/xvda1",
        "extra": "ro console=hvc0 selinux=0",
        "disk": ["phy:/dev/xenvg/snap1,xvda1,w,xenvg,/dev/sdb/lvm_1,3G"],
        "vif": ["mac=00:16:3e:2c:e8:66,ip=10.0.0.1"],
    });
    let ram = json!({
        "name": "ram",
        "uuid": "f65eeef5-1624-5980-9dfc-d054ed58fd7c",
        "memory": 64,
        "shadow_memory": 1,
        "kernel": "/boot/vmlinuz-2.6.18-xenU",
        "ramdisk": "/boot/initrd-busybox-based-ram-linux.img",
        "disk": [],
        "vif": [],
    });
    let odd_line = r#"quiet root=/dev/xvdb say='it"s' back\slash\ \n %s \u00e9 # é 漢 🕰"#;
    let odd = json!({
        "name": "odd",
        "uuid": "6f1c0c1e-7a3b-4c55-9d1e-0123456789ab",
        "memory": 1024,
        "shadow_memory": 5,
        "kernel": r#"/boot/vmlinuz "né\w""#,
        "extra": odd_line,
        "disk": [r#"file:/srv/é 'images'/a"b\c.img,xvdb,r"#, r#"phy:/dev/xenvg/scratch,sda2,w,'"\é"#],
        "vif": [
            "mac=00:16:3e:40:bd:a8",
            "mac=00:16:3e:11:22:33,bridge=xenbr1,ip=10.0.0.3,script=vif-bridge,vifname=odd-1,rate=10Mb/s",
        ],
        "_Note": r#"kept \ 'as' "it" stands: é\"#,
        "cpus": "0",
        "localtime": 1,
        "rtc_timeoffset": 2_147_483_647,
        "vfb": ["type=vnc,vncunused=1", r#"type="é\""#],
    });
    [
        ("clientA", "root=/dev/xvda1 ro console=hvc0 selinux=0", same(client_a)),
        ("ram", "", same(ram)),
        ("odd", odd_line, same(odd)),
    ]
}

/// A directory of the test's own, empty.
fn empty(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("xm").join(name);
    drop(fs::remove_dir_all(&path));
    fs::create_dir_all(&path).unwrap();
    path
}

/// A system with stand-ins. Each writes its arguments to `log`, between bars.
struct System(PathBuf);

impl System {
    fn new(name: &str) -> Self {
        let system = Self(empty(name));
        for directory in ["usr/sbin", "proc", "run-1"] {
            fs::create_dir_all(system.0.join(directory)).unwrap();
        }
        system.write(
            "list",
            "Name                 ID Mem(MiB) VCPUs State  Time(s)\nDomain-0 0 500 1 r----- 1.0\n",
        );
        system.write(
            "proc/mounts",
            "sysfs /sys sysfs rw 0 0\ndebugfs /sys/kernel/debug debugfs rw,nosuid 0 0\n",
        );
        system.program(
            "xm",
            "case $1 in
                 list) cat $root/list ;;
                 create) echo 'clientA 12 96 1 -b---- 0.1' >> $root/list ;;
                 destroy) [ ! -e $root/stuck ] && grep -q \"^$2 \" $root/list && sed -i \"/^$2 /d\" $root/list ;;
             esac",
        );
        // What systemd does with the unit's ExecStart= and EnvironmentFile=.
        let line = |key: &str| UNIT.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
        let environment = line("EnvironmentFile=").replace("%i", "$instance");
        system.program(
            "systemctl",
            &format!(
                "unit=${{!#}}; instance=${{unit#ttvm-deviced@}}; instance=${{instance%.service}}
                 case $1 in
                     start) . $root{environment}; $root{} >/dev/null 2>&1 & echo $! > $root/pid ;;
                     is-active) grep -qs '^State:.[RSD]' /proc/$(cat $root/pid)/status || exit 3 ;;
                     stop) kill $(cat $root/pid) ;;
                 esac",
                line("ExecStart=")
            ),
        );
        system.program("ttd-deviced", ": > $2; exec sleep 60");
        system
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.0.join(path), text).unwrap();
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.0.join("usr/sbin").join(name);
        let root = self.0.display();
        let text = format!("#!/bin/bash\nroot={root}\n(IFS='|'; echo \"{name}|$*\") >> $root/log\n{text}\n");
        script::write(&path, &text);
    }

    /// How programs were called since the last question.
    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.join("log")).unwrap_or_default();
        self.write("log", "");
        text.lines().map(str::to_owned).collect()
    }

    fn directory(&self) -> RunDirectory {
        RunDirectory::new(&self.0.join("run-1")).unwrap()
    }

    fn xm(&self) -> Xm {
        Xm::find(&self.0).unwrap()
    }

    fn deviced(&self, mode: Mode<'_>) -> Deviced {
        Deviced::of(&self.0, &client_a(), mode).unwrap()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // A ttd-deviced that is still there.
        if let Ok(pid) = fs::read_to_string(self.0.join("pid")) {
            let mut kill = Command::new("kill");
            drop(kill.arg(pid.trim()).stderr(Stdio::null()).status());
        }
    }
}

fn client_a() -> GuestName {
    "clientA".parse().unwrap()
}

#[test]
fn commands() {
    let system = System::new("commands");
    let (xm, guest, directory) = (system.xm(), client_a(), system.directory());
    let config = Path::new("/run/ttvm/clientA.xm");
    let dir = system.0.join("run-1").display().to_string();
    assert_eq!(xm.domid(&guest).unwrap(), None);
    xm.create(config, Mode::Plain, false, LIMIT, None).unwrap();
    assert_eq!(xm.domid(&guest).unwrap(), Some(12));
    xm.create(config, Mode::Record(&directory), false, LIMIT, None).unwrap();
    xm.create(config, Mode::Replay(&directory), true, LIMIT, None).unwrap();
    xm.shutdown(&guest).unwrap();
    xm.destroy(&guest).unwrap();
    assert_eq!(
        system.log(),
        [
            "xm|list",
            "xm|create|/run/ttvm/clientA.xm",
            "xm|list",
            &format!("xm|create|/run/ttvm/clientA.xm|time_travel=ttd_flag=1,tt_dir={dir}"),
            &format!("xm|create|/run/ttvm/clientA.xm|time_travel=ttd_flag=1,tt_dir={dir},tt_replay_flag=1|-p"),
            "xm|shutdown|clientA",
            "xm|destroy|clientA",
        ]
    );
    // It is gone already: it is asked after, and that is all.
    xm.destroy(&guest).unwrap();
    assert_eq!(system.log(), ["xm|destroy|clientA", "xm|list"]);
    // It is not, and xm could not end it.
    xm.create(config, Mode::Plain, false, LIMIT, None).unwrap();
    system.write("stuck", "");
    let error = xm.destroy(&guest).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("xm destroy clientA` failed with exit status 1"),
        "{error}"
    );
}

#[test]
fn a_start_that_takes_too_long() {
    let system = System::new("late");
    system.program("xm", "exec sleep 60");
    let config = Path::new("/run/ttvm/clientA.xm");
    let create = |limit, cancel| system.xm().create(config, Mode::Plain, false, limit, cancel);
    let late = create(Duration::from_millis(100), None).unwrap_err();
    assert!(matches!(late, run::Error::Deadline { .. }), "{late}");
    let (reader, writer) = io::pipe().unwrap();
    drop(writer);
    let stopped = create(LIMIT, Some(reader.as_fd())).unwrap_err();
    assert!(matches!(stopped, run::Error::Cancelled { .. }), "{stopped}");
}

#[test]
fn not_installed() {
    let error = Xm::find(&empty("nothing")).unwrap_err();
    assert!(error.to_string().starts_with("xm is not installed"), "{error}");
}

#[test]
fn deviced_of_a_run() {
    let system = System::new("deviced");
    let directory = system.directory();
    assert!(Deviced::of(&system.0, &client_a(), Mode::Plain).is_none());
    for (mode, kind) in [
        (Mode::Record(&directory), "record"),
        (Mode::Replay(&directory), "replay"),
    ] {
        let deviced = system.deviced(mode);
        let unit = format!("ttvm-deviced@{kind}@clientA.service");
        assert_eq!(deviced.unit(), unit);
        deviced.start().unwrap();
        // It had opened the log when `start` returned: the guest can be created.
        assert!(directory.log().exists());
        assert!(deviced.is_active().unwrap());
        deviced.stop().unwrap();
        let log = system.log();
        let log_file = directory.log().display().to_string();
        assert_eq!(
            log,
            [
                format!("systemctl|start|--|{unit}"),
                format!("ttd-deviced|-f|{log_file}"),
                format!("systemctl|is-active|--quiet|--|{unit}"),
                format!("systemctl|is-active|--quiet|--|{unit}"),
                format!("systemctl|stop|--job-mode=ignore-dependencies|--|{unit}"),
            ]
        );
        assert!(!system.0.join(format!("run/ttvm/{kind}@clientA.deviced")).exists());
    }
}

#[test]
fn deviced_that_is_slow_or_ends() {
    let system = System::new("slow");
    let directory = system.directory();
    let deviced = system.deviced(Mode::Record(&directory));
    // It opens the log when the guest is there: that is not waited for for ever.
    system.program("ttd-deviced", "exec sleep 60");
    deviced.start().unwrap();
    deviced.stop().unwrap();
    system.program("ttd-deviced", "exit 1");
    let error = deviced.start().unwrap_err();
    assert!(matches!(error, deviced::Error::Ended { .. }), "{error}");
    assert_eq!(error.exit(), Exit::Failed);
    assert_eq!(
        error.to_string(),
        "ttd-deviced for guest \"clientA\" ended at once: `journalctl -u ttvm-deviced@record@clientA.service` has what it said"
    );
    system.program("systemctl", "echo no such unit >&2; exit 5");
    let error = deviced.start().unwrap_err();
    assert!(
        chain(&error).contains("cannot start ttd-deviced for guest \"clientA\"\n  because: "),
        "{error}"
    );
}

#[test]
fn without_debugfs() {
    let system = System::new("debugfs");
    require_debugfs(&system.0).unwrap();
    for mounts in [
        "",
        "debugfs /sys/kernel/debug/x debugfs rw 0 0\n",
        "tmpfs /sys/kernel/debug tmpfs rw 0 0\n",
    ] {
        system.write("proc/mounts", mounts);
        let error = system.deviced(Mode::Record(&system.directory())).start().unwrap_err();
        assert_eq!(error.exit(), Exit::Refused);
        let text = error.to_string();
        assert!(text.contains("systemctl start sys-kernel-debug.mount"), "{text}");
        assert!(text.contains("mount -t debugfs none /sys/kernel/debug"), "{text}");
    }
    assert!(system.log().is_empty(), "nothing was started");
}

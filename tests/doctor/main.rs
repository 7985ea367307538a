// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm doctor` on hosts that are broken in one place each. `tests/fixtures/doctor/expected` has the lines of each that are not
//! ok; with TTVM_UPDATE=1 they are written there anew, and read before they are committed. That the good host is what a Debian
//! with Xen is, and that programs answer as here, is tested with the emulated one (tests/host/cases/doctor.rs).

mod good;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use good::Host;
use ttvm::doctor::{Asked, Check, Socket, State};

/// What is wrong with a host.
type Break = fn(&mut Host);

/// Each host, and what is wrong with it.
const BROKEN: &[(&str, Break)] = &[
    ("settings with a mistake", |host| {
        host.write("etc/ttvm/ttvm.toml", "[boot]\nwachdog = true\n")
    }),
    ("settings with two mistakes", |host| {
        host.write("etc/ttvm/ttvm.toml", "[bot]\n[guest]\nmemory = 5\n")
    }),
    ("clock of 1970", |host| host.now = 86_400),
    ("clock behind a recording", |host| {
        host.write("var/lib/ttvm/recordings/emu/20270101-000000/x", "")
    }),
    ("too little memory", |host| {
        host.replace("proc/meminfo", "MemAvailable:     400000", "MemAvailable:      60000")
    }),
    ("plain Linux booted", |host| host.remove("proc/xen/capabilities")),
    ("no Xen at all", |host| {
        host.remove("proc/xen/capabilities");
        host.remove("boot/xen-4.17-amd64.gz");
    }),
    ("a guest of Xen", |host| {
        host.write("proc/xen/capabilities", "");
        host.write("sys/hypervisor/type", "xen\n");
    }),
    ("xl does not answer", |host| {
        host.answers = |answers| answers.xen = Asked::Failed("`xl info` failed with exit status 1".into())
    }),
    ("booted through the distribution's entry", |host| {
        host.xl = host
            .xl
            .replace(" watchdog sync_console dom0_max_vcpus=1 dom0_mem=500M,max:500M", "");
        host.replace("proc/cmdline", " ttvm.entry=ttvm-ttxen-linux", "");
    }),
    ("no watchdog", |host| host.xl = host.xl.replace(" watchdog", "")),
    ("dom0's memory not limited", |host| {
        host.xl = host.xl.replace("dom0_mem=500M,max:500M", "dom0_mem=500M")
    }),
    ("console not synchronous", |host| {
        host.xl = host.xl.replace("sync_console", "sync_console no-sync_console")
    }),
    ("xenstored is dead", |host| {
        host.answers = |answers| {
            answers.store =
                Asked::Failed("Xen's store does not answer (is this host booted under Xen, and are you root?)".into());
        };
    }),
    ("xenconsoled is dead", |host| host.remove("proc/812/comm")),
    ("no systemd", |host| host.remove("run/systemd/system/x")),
    ("a guest larger than Xen's memory", |host| {
        host.replace("etc/ttvm/guests/clientA.toml", "96M", "8G")
    }),
    ("no xl", |host| host.remove("usr/sbin/xl")),
    ("no xm", |host| host.remove("usr/sbin/xm")),
    ("xendomains saves", |host| {
        host.write("etc/default/xendomains", "XENDOMAINS_SAVE=/var/lib/xen/save\n")
    }),
    ("xendomains saves, and a domain is another's", |host| {
        host.write("etc/default/xendomains", "XENDOMAINS_SAVE=/var/lib/xen/save\n");
        host.answers = |answers| answers.store = Asked::Answer(vec!["clientA".to_owned(), "web".to_owned()]);
    }),
    ("xendomains saves, and has saved another's", |host| {
        host.write("etc/default/xendomains", "XENDOMAINS_SAVE=/var/lib/xen/save\n");
        host.write("var/lib/xen/save/web", "memory");
    }),
    ("xendomains saves, and starts another's", |host| {
        host.write("etc/default/xendomains", "XENDOMAINS_SAVE=/var/lib/xen/save\n");
        host.write("etc/xen/auto/.keep", "");
        host.link("etc/xen/auto/web.cfg", "../web.cfg");
    }),
    ("xendomains has saved", |host| {
        host.write("etc/default/xendomains", "XENDOMAINS_SAVE=/var/lib/xen/save\n");
        host.write("var/lib/xen/save/clientA", "memory");
    }),
    ("xendomains starts", |host| {
        host.link("etc/xen/auto/clientA.cfg", "../clientA.cfg")
    }),
    ("no debugfs", |host| {
        host.write("proc/mounts", "proc /proc proc rw 0 0\n")
    }),
    ("Secure Boot", |host| {
        host.remove("proc/xen/capabilities");
        host.write(
            "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
            "\u{6}\0\0\0\u{1}",
        );
    }),
    ("UEFI without multiboot2", |host| {
        host.remove("proc/xen/capabilities");
        host.write("sys/firmware/efi/runtime", "");
    }),
    ("no GRUB", |host| host.remove("boot/grub/grub.cfg")),
    ("no entry with Xen", |host| {
        host.replace("boot/grub/grub.cfg", "'ttvm-ttxen-linux'", "'other'")
    }),
    ("no kernel left", |host| host.remove("boot/vmlinuz-6.1.0-56-amd64")),
    ("no initial RAM disk left", |host| {
        host.remove("boot/initrd.img-6.1.0-56-amd64")
    }),
    ("no environment block", |host| host.remove("boot/grub/grubenv")),
    ("a damaged environment block", |host| {
        host.write("boot/grub/grubenv", "saved_entry=x\n")
    }),
    ("a link to no environment block", |host| {
        host.remove("boot/grub/grubenv");
        host.link("boot/grub/grubenv", "../efi/EFI/fedora/grubenv");
    }),
    ("Fedora's GRUB", |host| {
        host.rename("boot/grub/grub.cfg", "boot/grub2/grub.cfg");
        host.rename("boot/grub/grubenv", "boot/grub2/grubenv");
        host.replace("boot/grub2/grub.cfg", "'ttvm-ttxen-linux'", "'other'");
        host.write("boot/grub2/grubenv", "");
        host.xl = host.xl.replace(" watchdog", "");
    }),
    ("GRUB on LVM", |host| {
        host.answers = |answers| {
            answers.grub_writes = Asked::Failed(
                "refused: GRUB cannot write to /boot/grub/grubenv (it is on lvm), so it would boot ttvm-ttxen-linux again and again; \
                 put /boot on a plain partition with ext4"
                    .into(),
            );
        };
    }),
    ("a try that failed", |host| {
        host.write(
            "var/lib/ttvm/boot.json",
            r#"{"trial":{"entry":"ttvm-ttxen-linux","keep":false,"asked":1,"asked_in":"x","fingerprint":"00000000-0000-0000-0000-000000000000"}}"#,
        );
    }),
    ("no LVM", |host| host.remove("usr/sbin/lvm")),
    ("LVM fails", |host| {
        host.answers = |answers| answers.lvm = Asked::Failed("`lvm /dev/stdin` failed with exit status 5".into())
    }),
    ("no group", |host| {
        host.lvm = host.lvm.replace("\"vg_name\":\"xenvg\"", "\"vg_name\":\"other\"")
    }),
    ("a shared group", |host| {
        host.lvm = host
            .lvm
            .replace("\"vg_lock_type\":\"\"", "\"vg_lock_type\":\"sanlock\"")
    }),
    ("a group without a disk", |host| {
        host.lvm = host
            .lvm
            .replace("\"vg_missing_pv_count\":\"0\"", "\"vg_missing_pv_count\":\"1\"")
    }),
    ("a full group", |host| {
        host.lvm = host
            .lvm
            .replace("\"vg_free\":\"8589934592\"", "\"vg_free\":\"4194304\"")
    }),
    ("a full thin pool", |host| {
        host.lvm = host.lvm.replace("\"12.34\"", "\"96.10\"")
    }),
    ("a thin pool whose metadata is nearly full", |host| {
        host.lvm = host.lvm.replace("\"10.02\"", "\"85.00\"")
    }),
    ("a broken thin pool", |host| {
        host.lvm = host.lvm.replace(
            "\"lv_health_status\":\"\",\"seg_monitor\":\"m",
            "\"lv_health_status\":\"failed\",\"seg_monitor\":\"m",
        );
    }),
    ("a thin pool that is not watched", |host| {
        host.lvm = host.lvm.replace("\"monitored\"", "\"not monitored\"")
    }),
    ("no autoextend", |host| {
        host.lvm = host.lvm.replace("autoextend_threshold=70", "autoextend_threshold=100")
    }),
    ("no dmeventd", |host| host.remove("usr/sbin/dmeventd")),
    ("dmeventd not enabled", |host| {
        host.remove("etc/systemd/system/sockets.target.wants/dm-event.socket");
        host.answers =
            |answers| answers.dm_event = Asked::Answer(Socket::parse("LoadState=loaded\nActiveState=inactive\n"));
    }),
    ("dmeventd not enabled, and active", |host| {
        host.remove("etc/systemd/system/sockets.target.wants/dm-event.socket")
    }),
    ("dmeventd enabled, and not active", |host| {
        host.answers =
            |answers| answers.dm_event = Asked::Answer(Socket::parse("LoadState=loaded\nActiveState=failed\n"));
    }),
    ("dmeventd masked", |host| {
        host.answers =
            |answers| answers.dm_event = Asked::Answer(Socket::parse("LoadState=masked\nActiveState=inactive\n"));
    }),
    ("systemd says nothing of dmeventd", |host| {
        host.answers = |answers| answers.dm_event = Asked::Failed("`systemctl show` failed with exit status 1".into());
    }),
    ("a snapshot that is not watched", |host| {
        host.lvm = host
            .lvm
            .replace("\"lv_name\":\"base\"", "\"lv_name\":\"snap1\"")
            .replacen("\"seg_monitor\":\"\"", "\"seg_monitor\":\"not monitored\"", 1);
    }),
    ("LVM does not monitor", |host| {
        host.lvm = host.lvm.replace("monitoring=1", "monitoring=0")
    }),
    ("a network that was not made", |host| host.boot = "another boot".into()),
    ("a bridge that is gone", |host| {
        host.remove("sys/class/net/ttbr0/ifindex")
    }),
    ("no network mode", |host| host.remove("var/lib/ttvm/network/state.json")),
    ("no nft", |host| host.remove("usr/sbin/nft")),
    ("no dnsmasq", |host| host.remove("usr/sbin/dnsmasq")),
    ("Docker in the way", |host| {
        host.answers = |answers| {
            answers.conflicts = Asked::Answer(vec![
                "Docker drops what is forwarded; remedy: iptables -I DOCKER-USER -i ttbr0 -j ACCEPT".into(),
            ]);
        };
    }),
    ("no QEMU", |host| {
        host.answers = |answers| {
            answers.qemu = Asked::Failed(
                ttvm::qemu::engine::Error::NotInstalled {
                    program: "qemu-system-x86_64",
                }
                .to_string(),
            );
        };
    }),
    ("an old QEMU", |host| {
        host.answers = |answers| {
            answers.qemu = Asked::Failed(ttvm::qemu::engine::Error::TooOld { found: "5.2.0".into() }.to_string());
        };
    }),
    ("QEMU 8.2", |host| {
        host.qemu = "QEMU emulator version 8.2.2 (Debian 1:8.2.2+ds-0ubuntu1)"
    }),
    ("QEMU 9.1", |host| host.qemu = "QEMU emulator version 9.1.0"),
    ("a full disk", |host| {
        host.answers = |answers| answers.free_space = Asked::Answer(100 << 20)
    }),
    ("a disk with little room", |host| {
        host.answers = |answers| answers.free_space = Asked::Answer(1 << 30)
    }),
    ("a guest's file with a mistake", |host| {
        host.replace("etc/ttvm/guests/clientA.toml", "memory", "memroy")
    }),
    ("a guest without its kernel", |host| host.remove("boot/guest")),
];

fn is_wrong(check: &&Check) -> bool {
    matches!(check.state, State::Warn | State::Fail)
}

/// The lines of a host.
fn lines<'a>(checks: impl Iterator<Item = &'a Check>) -> String {
    let mut text = String::new();
    for check in checks {
        let _ = writeln!(text, "{} {} {}: {}", check.state, check.area, check.id, check.sentence);
        if let Some(remedy) = &check.remedy {
            let by_itself = check.fix.as_ref().map_or("", |_| " (--fix does it)");
            let _ = writeln!(text, "    {remedy}{by_itself}");
        }
    }
    text
}

#[test]
fn broken_hosts() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/doctor/expected");
    let mut found = String::new();
    for (number, (name, damage)) in BROKEN.iter().enumerate() {
        let mut host = Host::good();
        damage(&mut host);
        let checks = host.examine(&format!("broken-{number}"));
        let wrong: Vec<&Check> = checks.iter().filter(is_wrong).collect();
        assert!(!wrong.is_empty(), "{name}: nothing was found");
        for check in &wrong {
            assert!(
                check.remedy.as_ref().is_some_and(|remedy| !remedy.is_empty()),
                "{name}: {check:?}"
            );
            assert!(
                !check.sentence.contains('\n') && !check.sentence.ends_with('.'),
                "{name}: {check:?}"
            );
        }
        let _ = writeln!(found, "# {name}\n{}", lines(wrong.into_iter()));
    }
    if std::env::var_os("TTVM_UPDATE").is_some() {
        fs::write(&file, &found).expect("the lines are written");
    }
    let expected = fs::read_to_string(&file).expect("what is expected");
    for (expected, found) in expected.split("# ").zip(found.split("# ")) {
        assert_eq!(expected, found);
    }
    assert_eq!(expected, found);
}

/// Nothing but ok, and nothing that is not looked at.
#[test]
fn a_good_host() {
    let checks = Host::good().examine("good");
    let other: Vec<&Check> = checks.iter().filter(|check| check.state != State::Ok).collect();
    assert_eq!(lines(other.into_iter()), "");
    assert!(
        checks.is_sorted_by_key(|check| check.area as u8),
        "{}",
        lines(checks.iter())
    );
}

/// A host without Xen, whose user only records: nothing of Xen's is asked for.
#[test]
fn a_host_that_only_records() {
    let mut host = Host::good();
    for guest in ["clientA", "thin", "old"] {
        host.remove(&format!("etc/ttvm/guests/{guest}.toml"));
    }
    for file in [
        "proc/xen/capabilities",
        "boot/xen-4.17-amd64.gz",
        "var/lib/ttvm/network/state.json",
        "usr/sbin/lvm",
    ] {
        host.remove(file);
    }
    let checks = host.examine("records");
    assert!(checks.iter().filter(is_wrong).count() == 0, "{}", lines(checks.iter()));
    let skipped = checks.iter().filter(|check| check.state == State::Skipped);
    assert_eq!(
        lines(skipped),
        "- xen xen: not needed: no guest here runs on Xen\n\
         - boot entries: not needed: no guest here runs on Xen\n\
         - snapshots lvm: not needed: no guest here has a disk on a volume of LVM\n\
         - network mode: not needed: no guest here has a network interface that follows the network mode\n"
    );
}

/// What a person sees, and how it ends. Of another tree no program is asked.
#[test]
fn as_a_command() {
    let run = |host: Host, name: &str, arguments: &[&str]| {
        let root = host.plant(name);
        let output = Command::new(env!("CARGO_BIN_EXE_ttvm"))
            .arg("--root")
            .arg(root)
            .arg("doctor")
            .args(arguments)
            .output();
        let output = output.expect("ttvm runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (text, output.status.code())
    };
    let (text, code) = run(Host::good(), "command", &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("\n-     recordings  the QEMU of another system is not run\n"),
        "{text}"
    );
    let mut host = Host::good();
    host.write("etc/ttvm/ttvm.toml", "[bot\u{1b}]\n");
    let (text, code) = run(host, "mistake", &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.starts_with("FAIL  host        /etc/ttvm/ttvm.toml:1:"), "{text}");
    assert!(
        text.contains("\n                  -> correct /etc/ttvm/ttvm.toml\n"),
        "{text}"
    );
    assert!(text.contains("doctor: 1 failure") && !text.contains('\u{1b}'), "{text}");
    let mut host = Host::good();
    host.remove("proc/812/comm");
    let (text, code) = run(host, "json", &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (code, &json["ready"]),
        (Some(1), &serde_json::Value::Bool(false)),
        "{text}"
    );
    let checks = json["checks"].as_array().expect("checks");
    let failed: Vec<_> = checks.iter().filter(|check| check["state"] == "fail").collect();
    assert_eq!((failed.len(), &failed[0]["id"]), (1, &"xenconsoled".into()), "{text}");
    let (text, code) = run(Host::good(), "fix", &["--fix"]);
    assert_eq!(code, Some(4), "{text}");
}

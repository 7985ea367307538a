// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm initrd busybox` on trees of each test's own, with the real busybox of this machine and modules that are none. That
//! its guests boot is tested with real ones (tests/replay, tests/host).

mod modules;
mod output;
mod password;
mod place;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::stat::{Mode, umask};
use place::{IMAGE, KERNEL, ORDER, Place, gunzip, installed, module, pipe};

#[test]
fn what_is_in_it() {
    let Some(place) = Place::new("content") else { return };
    let said = place.session("");
    assert!(
        said.starts_with("made DIR/boot/initrd-busybox-based-ram-linux.img: kernel 6.1.0-9-amd64, 12 modules, ")
            && said.ends_with(" KiB\nthis kernel does not have: evdev\n[0]"),
        "{said}"
    );
    let tree = place.unpacked();
    let read = |name: &str| fs::read_to_string(tree.join(name)).expect(name);
    let busybox = fs::read(place.path("usr/bin/busybox")).expect("busybox");
    assert!(fs::read(tree.join("bin/busybox")).expect("busybox") == busybox);
    for (link, target) in [
        ("bin/sh", "busybox"),
        ("sbin", "bin"),
        ("usr/sbin", "../bin"),
        ("var/run", "../run"),
    ] {
        assert_eq!(fs::read_link(tree.join(link)).expect(link), Path::new(target), "{link}");
    }
    assert_eq!(read("etc/ttvm/modules"), ORDER);
    for path in ORDER
        .lines()
        .chain(["/lib/modules/6.1.0-9-amd64/kernel/fs/ext4/ext4.ko"])
    {
        let expected = module(path.strip_prefix("/lib/modules/6.1.0-9-amd64/").expect("a module"));
        assert_eq!(read(&path[1..]).as_bytes(), expected, "{path}");
    }
    assert!(
        !tree
            .join("lib/modules/6.1.0-9-amd64/kernel/drivers/net/veth.ko")
            .exists()
    );
    // modprobe finds what is there, and nothing else.
    let dep = read("lib/modules/6.1.0-9-amd64/modules.dep");
    assert_eq!(dep.lines().count(), 12, "{dep}");
    assert!(
        dep.contains("kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko\n"),
        "{dep}"
    );
    assert_eq!(
        read("lib/modules/6.1.0-9-amd64/modules.alias"),
        "alias fs-ext4 ext4\nalias crypto-crc32c crc32c_generic\nalias crc32c crc32c_generic\nalias xen:vif xen_netfront\n"
    );
    for script in ["init", "etc/ttvm/network", "etc/ttvm/dhcp", "etc/ttvm/power-button"] {
        let mut check = Command::new(place.path("usr/bin/busybox"));
        let checked = check.args(["sh", "-n"]).arg(tree.join(script)).output().expect("sh");
        assert!(
            checked.status.success() && checked.stderr.is_empty(),
            "{script}: {checked:?}"
        );
        let mode = fs::metadata(tree.join(script)).expect(script).permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "{script}");
    }
    // Another one that reads archives sees the same, with owners and permissions.
    if !installed("cpio") {
        return eprintln!("in part only: cpio is not installed");
    }
    let mut cpio = Command::new("cpio");
    cpio.args(["-itvn", "--quiet"]);
    let listed = pipe(cpio, &gunzip(&place.path(IMAGE)));
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    let entry = |name: &str| {
        let found = lines.iter().find(|words| words.contains(&name));
        found.map(|words| words[..4].join(" ")).unwrap_or_default()
    };
    assert_eq!(entry("init"), "-rwxr-xr-x 1 0 0");
    assert_eq!(entry("etc/shadow"), "-rw------- 1 0 0");
    assert_eq!(entry("root"), "drwx------ 1 0 0");
    assert_eq!(entry("dev/console"), "crw------- 1 0 0");
    assert_eq!(lines[0].last(), Some(&".ttvm-initrd"));
    let name = |line: &'_ str| {
        line.split(" -> ")
            .next()
            .and_then(|line| line.split(' ').next_back())
            .map(str::to_owned)
    };
    let names: Vec<String> = listed.lines().filter_map(name).collect();
    assert!(names.is_sorted(), "{names:?}");
}

#[test]
fn the_same_bytes_each_time() {
    let Some(place) = Place::new("same") else { return };
    let first = place.make("");
    assert_eq!(first[3..8], [0; 5], "no name and no time");
    place.says(
        "",
        &format!(
            "nothing to do for DIR/{IMAGE}: kernel {KERNEL}, 12 modules, {} KiB\nthis kernel does not have: evdev\n[0]",
            first.len().div_ceil(1024)
        ),
    );
    // Another tree of the same files, with other times, made under another umask.
    let Some(other) = Place::new("the-same-elsewhere") else {
        return;
    };
    for path in [
        format!("lib/modules/{KERNEL}/kernel/fs/ext4/ext4.ko"),
        "usr/bin/busybox".to_owned(),
    ] {
        let file = File::open(other.path(&path)).expect("a file");
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000))
            .expect("its time");
    }
    let mut command = other.command("");
    // SAFETY: umask is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            umask(Mode::from_bits_truncate(0o077));
            Ok(())
        });
    }
    assert!(command.output().expect("ttvm runs").status.success());
    assert!(fs::read(other.path(IMAGE)).expect("the image") == first);
    assert_eq!(other.mode(), 0o644, "whatever the umask");
    // The time of all files is what is asked for; the content alone decides the rest.
    let output = place
        .command("")
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output()
        .expect("ttvm runs");
    assert!(output.status.success(), "{output:?}");
    let archive = gunzip(&place.path(IMAGE));
    assert_eq!(&archive[46..54], format!("{:08x}", 1_700_000_000).as_bytes());
    let output = place
        .command("")
        .env("SOURCE_DATE_EPOCH", "yesterday")
        .output()
        .expect("ttvm runs");
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
        (
            Some(2),
            "ttvm: SOURCE_DATE_EPOCH is no number of seconds that an archive can hold: unset it\n"
        )
    );
    assert!(place.make("--modules veth") != first && place.make("--autologin") != first);
    assert!(place.make("") == first);
}

#[test]
fn a_dry_run_writes_nothing() {
    let Some(place) = Place::new("dry") else { return };
    let said = place.session("--dry-run");
    for words in [
        "would make DIR/boot/initrd-busybox-based-ram-linux.img: kernel 6.1.0-9-amd64, 12 modules, ",
        "\nbusybox: DIR/usr/bin/busybox, ",
        "\nloaded when needed: crc32c_generic jbd2 ext4\n",
        "\n100755 ",
        " /init\n",
        "\n100600 ",
        " /etc/shadow\n",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
    let there = fs::read_dir(place.path("boot")).expect("a directory").count();
    assert_eq!(there, 0);
}

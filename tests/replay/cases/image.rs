// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest that boots from a disk that `ttvm image create` has made, of an archive of a Debian, as an ordinary user.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use super::super::Outcome;
use super::super::lab::{FILE, GUEST, Lab, Place, console_says};

/// What of Debian a login needs.
const PARTS: [&str; 9] = [
    "/etc",
    "/var",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib64",
    "/usr/lib/systemd",
    "/usr/lib/udev",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/share/dbus-1",
];

/// Takes files out of the disk of the emulated host, without mounting it.
fn debugfs(lab: &Lab, request: &str) -> String {
    let disk = format!("{}?offset=1048576", lab.host_disk().display());
    let output = Command::new("/usr/sbin/debugfs")
        .args(["-R", request, &disk])
        .stderr(Stdio::null())
        .output()
        .expect("debugfs");
    assert!(output.status.success(), "{request}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The Debian of the emulated host as an archive, and beside it the kernel and the initial RAM disk it boots with.
fn archive(lab: &Lab, place: &Place) {
    let root = place.path("debian");
    for part in PARTS {
        let above = root.join(&part[1..]);
        let above = above.parent().expect("a directory");
        fs::create_dir_all(above).expect("a directory");
        debugfs(lab, &format!("rdump {part} {}", above.display()));
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name)).expect("a link");
    }
    let boot = debugfs(lab, "ls -p /boot");
    for (begins, to) in [("vmlinuz-", "vmlinuz"), ("initrd.img-", "initrd")] {
        let name = boot.split('/').find(|name| name.starts_with(begins)).expect(begins);
        debugfs(lab, &format!("dump /boot/{name} {}", place.path(to).display()));
    }
    let packed = Command::new("tar")
        .args(["--owner=0", "--group=0", "-cf"])
        .arg(place.path("debian.tar"))
        .arg("-C")
        .arg(&root)
        .arg(".")
        .status();
    assert!(packed.expect("tar").success());
    fs::remove_dir_all(root).expect("rm");
    place.give();
}

pub fn boots_to_a_login(lab: &Lab) -> Outcome {
    let place = lab.place();
    archive(lab, &place);
    // Its own getty asks nobody; programs that are large and of no use to the guest.
    let args = "image create demo --size 1G --file disk.img --from debian.tar --exclude qemu* --exclude python3* \
                --exclude /etc/systemd/system/serial-getty@.service.d";
    let made = place.run(&args.split_whitespace().collect::<Vec<_>>());
    made.expect(0, &["disk.img is made: 1G, ext4, with ", "toolstack = \"qemu\""]);
    place.describe("", "");
    place.edit(FILE, "base.img", "disk.img");
    place.edit(FILE, "128M", "256M");
    place.edit(FILE, "console=ttyS0", "root=/dev/vda ro console=ttyS0");
    let running = place.start(&["record", GUEST], "recording as");
    console_says(&place, "demo login:");
    running.signal(Signal::SIGINT);
    running.end().expect(0, &["recorded demo "]);
    Ok(())
}

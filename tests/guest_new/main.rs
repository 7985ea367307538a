// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm guest new` and `ttvm guest check`: what is made and what is refused. That the guests boot, and that their runs can be
//! replayed, is tested with real ones (tests/replay).

#[path = "../initrd_busybox/place.rs"]
#[allow(dead_code, reason = "it is another test's")]
mod place;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use place::{KERNEL, Place};

const FILE: &str = "config/guests/hello.toml";

/// What a kernel for PCs begins with, as far as it is looked at.
fn kernel(version: &str) -> Vec<u8> {
    let mut content = vec![0; 0x400];
    content[0x202..0x206].copy_from_slice(b"HdrS");
    content[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    content[0x300..0x300 + version.len()].copy_from_slice(version.as_bytes());
    content
}

/// A system with a kernel.
fn system(name: &str) -> Option<Place> {
    let place = Place::new(&format!("new-{name}"))?;
    place.write(&format!("boot/vmlinuz-{KERNEL}"), kernel(KERNEL));
    Some(place)
}

/// `ttvm LINE` with places of its own, in which `DIR` is this directory, in the system that is there.
fn command(place: &Place, line: &str) -> Command {
    let directory = place.0.to_str().expect("a path");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ttvm"));
    command
        .args(["--root", directory, "--config-dir"])
        .arg(place.path("config"))
        .arg("--state-dir")
        .arg(place.path("state"))
        .args(line.split_whitespace().map(|word| word.replace("DIR", directory)))
        .stdin(Stdio::null());
    command
}

/// What it prints, and how it ends.
fn session(place: &Place, line: &str) -> String {
    let output = command(place, line).output().expect("ttvm runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    let text = format!("{}{}[{code}]", text(&output.stdout), text(&output.stderr));
    text.replace(place.0.to_str().expect("a path"), "DIR")
}

/// The files that are kept.
fn kept(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(place.path("state/images")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_whole_guest() {
    let Some(place) = system("whole") else { return };
    let plan = session(&place, "guest new hello --dry-run");
    assert!(
        plan.starts_with("would keep DIR/state/images/vmlinuz-6.1.0-9-amd64."),
        "{plan}"
    );
    assert!(
        !place.path("config").exists() && !place.path("state").exists(),
        "nothing is made"
    );
    let said = session(&place, "guest new hello");
    assert!(
        said.starts_with("made hello: kernel 6.1.0-9-amd64, ") && said.ends_with("[0]"),
        "{said}"
    );
    let names = kept(&place);
    let [initrd, kernel] = &names[..] else {
        panic!("{names:?}")
    };
    let text = fs::read_to_string(place.path(FILE)).expect("its file");
    let images = place.path("state/images");
    assert_eq!(
        text,
        format!(
            "toolstack = \"qemu\"\nmemory    = \"128M\"\non_reboot = \"stop\"\nkernel    = \"{0}/{kernel}\"\ninitrd    = \"{0}/{initrd}\"\n\
             cmdline   = \"console=ttyS0 panic=-1 no_timer_check nolapic_timer quiet ttvm.guest=hello\"\n\n[[vif]]\n",
            images.display()
        )
    );
    assert!(
        plan.contains(&text.replace(place.0.to_str().expect("a path"), "DIR")),
        "{plan}"
    );
    // Another one has the same kernel and the same initial RAM disk; this one is not replaced.
    let said = session(&place, "guest new other --toolstack xl");
    assert!(said.contains("\nttvm start other\n"), "{said}");
    assert_eq!(kept(&place), names);
    let said = session(&place, "guest new hello");
    assert_eq!(
        said,
        "ttvm: DIR/config/guests/hello.toml exists, and is not replaced: choose another name, or remove it\n[4]"
    );
}

/// Whatever ends it, there is no guest, and the next attempt makes one.
#[test]
fn killed() {
    let Some(place) = system("killed") else { return };
    let killed = command(&place, "guest new hello")
        .env("TTVM_FAIL_POINT", "making.kept")
        .status();
    assert!(!killed.expect("ttvm runs").success() && !place.path(FILE).exists());
    assert!(session(&place, "guest new hello").ends_with("[0]"));
    // What was made for one that cannot be is gone.
    fs::remove_dir_all(place.path("state")).expect("a directory");
    fs::remove_dir_all(place.path("config/guests")).expect("a directory");
    place.write("config/guests", "no directory");
    let said = session(&place, "guest new hello");
    assert!(said.ends_with("]") && !said.ends_with("[0]"), "{said}");
    assert_eq!(kept(&place), Vec::<String>::new(), "{said}");
}

#[test]
fn no_kernel() {
    let Some(place) = Place::new("new-no-kernel") else {
        return;
    };
    let said = session(&place, "guest new hello");
    assert!(
        said.starts_with("ttvm: there is no kernel in DIR/boot: `apt-get install linux-image-amd64`"),
        "{said}"
    );
    place.write("text", "something else");
    let said = session(&place, "guest new hello --kernel DIR/text");
    assert!(
        said.starts_with("ttvm: DIR/text is no kernel for PCs") && said.ends_with("[2]"),
        "{said}"
    );
    place.write(
        "meta.deb",
        "!<arch>\ndebian-binary   0           0     0     100644  4         `\n2.0\n",
    );
    let said = session(&place, "guest new hello --kernel DIR/meta.deb");
    assert!(said.starts_with("ttvm: DIR/meta.deb is no kernel for PCs"), "{said}");
    assert!(!place.path("config").exists() && !place.path("state").exists());
}

#[test]
fn what_a_guest_of_a_system_needs() {
    let Some(place) = system("from") else { return };
    place.write("src/etc/hostname", "old\n");
    place.write("script", "echo hello\n");
    let new = |more: &str| {
        session(
            &place,
            &format!("guest new hello --from DIR/src --file DIR/image {more}"),
        )
    };
    assert!(new("").starts_with("ttvm: there is no kernel in DIR/src (boot/vmlinuz-VERSION): install one there"));
    assert!(new("--run DIR/script").contains("nothing says what runs it: let it begin with a line such as #!/bin/sh"));
    place.write("script", "#!/bin/sh\necho hello\n");
    let said = new("--run DIR/script");
    assert!(
        said.starts_with("ttvm: there is no systemd in DIR/src") && said.ends_with("[4]"),
        "{said}"
    );
    assert!(new("--toolstack xl").contains("Xen's guests have their disks on volumes: name one with --lv VG/LV"));
    assert!(!place.path("image").exists() && !place.path("config").exists());
}

#[test]
fn work_and_a_password() {
    let Some(place) = system("work") else { return };
    for (name, content) in [
        ("src/etc/shadow", "root:*:1:0:99999:7:::\ndaemon:*:1:0:99999:7:::\n"),
        ("src/usr/lib/systemd/systemd", ""),
        ("src/boot/vmlinuz-6.1", "a kernel"),
        ("script", "#!/bin/sh\necho hello\n"),
    ] {
        place.write(name, content);
    }
    let new = |guest: &str, more: &str| {
        let line = format!("guest new {guest} --from DIR/src --size 64M --file DIR/{guest} {more}");
        session(&place, &line)
    };
    let said = new("hello", "--run DIR/script");
    assert!(
        said.contains("nobody can log in: no account has a password that is not locked"),
        "{said}"
    );
    assert!(
        said.contains("\nttvm record hello              # ends with DIR/script\n"),
        "{said}"
    );
    let content = |image: &str, path: &str| {
        let debugfs = Command::new("/usr/sbin/debugfs")
            .args(["-R", &format!("cat {path}")])
            .arg(place.path(image))
            .output();
        String::from_utf8_lossy(&debugfs.expect("debugfs").stdout).into_owned()
    };
    assert_eq!(content("hello", "/etc/ttvm/run"), "#!/bin/sh\necho hello\n");
    let wanted = "/etc/systemd/system/multi-user.target.wants/ttvm-run.service";
    assert!(content("hello", wanted).is_empty(), "a link");
    assert!(content("hello", "/etc/systemd/system/ttvm-run.service").contains("\nSuccessAction=poweroff\n"));
    // A password from the standard input.
    let line = "guest new other --from DIR/src --size 64M --file DIR/other --password";
    fs::write(place.path("password"), "secret\n").expect("a password");
    let mut command = command(&place, line);
    let output = command
        .stdin(fs::File::open(place.path("password")).expect("a password"))
        .output();
    let said = String::from_utf8_lossy(&output.expect("ttvm runs").stdout).into_owned();
    assert!(
        said.contains("\nmade other: kernel 6.1, ") && !said.contains("nobody can log in"),
        "{said}"
    );
    let shadow = content("other", "/etc/shadow");
    assert!(
        shadow.starts_with("root:$6$") && shadow.ends_with(":1:0:99999:7:::\ndaemon:*:1:0:99999:7:::\n"),
        "{shadow}"
    );
}

/// `ttvm guest check` on this host.
#[test]
fn what_this_host_lacks() {
    let place = Place::empty("new-check");
    let check = |text: &str| {
        place.write("config/guests/g.toml", text);
        let output = Command::new(env!("CARGO_BIN_EXE_ttvm"))
            .arg("--config-dir")
            .arg(place.path("config"))
            .args(["guest", "check"])
            .output()
            .expect("ttvm runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = format!(
            "{}{}[{}]",
            text(&output.stdout),
            text(&output.stderr),
            output.status.code().unwrap_or(-1)
        );
        said.replace(place.0.to_str().expect("a path"), "DIR")
    };
    let disk = |origin: &str| format!("[[disk]]\norigin = \"{origin}\"\ntarget = \"vda\"\n");
    let here = place.0.display().to_string();
    let said = check(&disk("nosuch/base"));
    assert!(
        said.starts_with("g: origin nosuch/base: ") && said.ends_with("[3]"),
        "{said}"
    );
    let said = check(&disk(&format!("{here}/none.img")));
    assert!(said.starts_with("g: origin DIR/none.img: no such file"), "{said}");
    place.write("empty.img", vec![0; 1 << 20]);
    let said = check(&disk(&format!("{here}/empty.img")));
    assert!(
        said.starts_with("g: the guest has no kernel in its file and no boot loader on disk vda"),
        "{said}"
    );
    let mut sector = vec![0; 512];
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    place.write("boots.img", sector);
    assert_eq!(check(&disk(&format!("{here}/boots.img"))), "g: ok\n[0]");
    assert!(check("").starts_with("g: the guest has neither a kernel nor a disk"));
    place.write("vmlinuz", kernel(KERNEL));
    let kernel = format!("kernel = \"{here}/vmlinuz\"\n");
    let said = check(&kernel);
    assert!(
        said.starts_with("g: ok\ng: warning: the guest's kernel does not print to the console"),
        "{said}"
    );
    // 60 MB that are packed well.
    place.write("tree/file", vec![0; 60 << 20]);
    let packed = Command::new(env!("CARGO_BIN_EXE_ttvm"))
        .args(["initrd", "pack"])
        .args([place.path("tree"), place.path("initrd")])
        .status();
    assert!(packed.expect("ttvm runs").success());
    let guest = |memory: &str| {
        format!("{kernel}initrd = \"{here}/initrd\"\ncmdline = \"console=ttyS0\"\nmemory = \"{memory}\"\n")
    };
    let said = check(&guest("64M"));
    assert!(
        said.starts_with("g: memory: 64M have no room for the initial RAM disk") && said.ends_with("[3]"),
        "{said}"
    );
    assert_eq!(check(&guest("128M")), "g: ok\n[0]");
    place.write("initrd", "no initial RAM disk");
    let said = check(&guest("128M"));
    assert!(
        said.starts_with("g: initrd DIR/initrd: Linux would not take it: "),
        "{said}"
    );
    let xen = format!("toolstack = \"xl\"\n{kernel}[[vif]]\nbridge = \"nosuch0\"\n");
    let said = check(&xen);
    assert!(said.starts_with("g: vif: there is no bridge nosuch0 "), "{said}");
    assert!(Path::new("/sys/class/net/lo").exists());
    let said = check(&xen.replace("nosuch0", "lo"));
    assert!(said.starts_with("g: vif: interface lo is no bridge; "), "{said}");
    disks_that_are_none(&place, &check);
    let said = check(&format!("{kernel}cmdline = \"console=ttyS1 console=tty0\"\n"));
    assert!(said.contains("does not print to the console"), "{said}");
    assert_eq!(
        check(&format!("{kernel}cmdline = \"console=tty0 console=ttyS0,115200n8\"\n")),
        "g: ok\n[0]"
    );
}

/// Files of guests that are right, with disks that no machine can have.
fn disks_that_are_none(place: &Place, check: &dyn Fn(&str) -> String) {
    let here = place.0.display().to_string();
    let disk = |key: &str, path: &str, more: &str| {
        format!(
            "kernel = \"{here}/vmlinuz\"\ncmdline = \"console=ttyS0\"\n[[disk]]\n{key} = \"{path}\"\ntarget = \"vda\"\n{more}"
        )
    };
    let boots = format!("{here}/boots.img");
    for (file, said) in [
        (disk("origin", "/tmp", ""), "g: origin /tmp: it is a directory; "),
        (
            disk("path", &boots, "access = \"rw\"\n"),
            "g: disk vda is written as it is, so that the next run would find another disk; give it an \"origin\"",
        ),
        (
            disk("path", &boots, "format = \"qcow2\"\naccess = \"ro\"\n"),
            "g: disk vda is a qcow2 file, and an emulated guest has raw images; ",
        ),
    ] {
        let found = check(&file);
        assert!(found.starts_with(said) && found.ends_with("[3]"), "{found}");
    }
    let said = check(&format!(
        "toolstack = \"xl\"\ntype = \"hvm\"\n[[disk]]\npath = \"{here}/empty.img\"\ntarget = \"xvda\"\n"
    ));
    assert!(
        said.starts_with("g: the guest has no kernel in its file and no boot loader on disk xvda"),
        "{said}"
    );
}

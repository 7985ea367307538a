// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests made by `ttvm guest new`, as an ordinary user: made, recorded, replayed, each with one command.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use super::super::lab::{Lab, Place, Running};
use super::super::terminal::typed;
use super::super::{Outcome, Skipped, tutorial};

/// A place with a directory that a kernel can be taken from, as a system has it; the version of that kernel.
fn with_kernel(lab: &Lab) -> Result<(Place, String), Skipped> {
    let busybox = ttvm::run::find("/".as_ref(), "busybox").and_then(|path| fs::read(path).ok());
    let is_static = |elf: &Vec<u8>| !elf.windows(15).any(|bytes| bytes == b"/ld-linux-x86-6");
    busybox.filter(is_static).ok_or(Skipped("busybox-static"))?;
    let place = lab.place();
    lab.copy_system(&place.path("system"));
    let mut modules = fs::read_dir(place.path("system/lib/modules")).expect("modules");
    let version = modules.next().expect("a kernel").expect("a kernel").file_name();
    let version = version.into_string().expect("a version");
    fs::create_dir(place.path("system/boot")).expect("a directory");
    let kernel = place.path(&format!("system/boot/vmlinuz-{version}"));
    fs::copy(place.path("vmlinuz"), kernel).expect("the kernel");
    place.give();
    Ok((place, version))
}

/// What man/ttvm.7 has a user type.
pub fn tutorial(lab: &Lab) -> Outcome {
    let (place, _) = with_kernel(lab)?;
    for command in tutorial::commands().iter().filter(|command| command.prompt == '$') {
        let line = &command.line;
        if line.ends_with(" --console") {
            // A branch begins behind the first prompt.
            let prompts = ["hello login: ", "Password: ", "root@hello:~# "];
            let at_once = line
                .starts_with("ttvm branch ")
                .then(|| ("", command.shown[0].as_str()));
            let answers = command.shown.iter().filter_map(|shown| {
                let prompt = prompts.into_iter().find(|prompt| shown.starts_with(prompt))?;
                // The last of it: what is before that has the name of a directory in the shell's prompt.
                let end = if prompt.ends_with("# ") { "~# " } else { prompt };
                Some((end, &shown[prompt.len()..]))
            });
            let answers: Vec<(&str, &str)> = at_once.into_iter().chain(answers).collect();
            assert_eq!(answers.len(), 4, "{command:?}");
            let (args, guest) = match at_once {
                Some(_) => (
                    &["branch", "hello", "--at", "hello login:", "--as", "other", "--console"][..],
                    "other",
                ),
                None => (&["record", "hello", "--console"][..], "hello"),
            };
            let said = typed(place.command(args), &answers);
            assert!(said.contains(&format!("recorded {guest} ")), "{said}");
            assert!(said.contains(": powered itself off after "), "{said}");
            continue;
        }
        // The page's host has its kernel in /boot.
        let kernel = if line == "ttvm guest new hello" {
            " --kernel system"
        } else {
            ""
        };
        let ran = place.shell(&format!("{line}{kernel}"));
        ran.expect(0, &[]);
        command.expect(&ran.out);
    }
    // Nothing is replaced.
    place
        .run(&["guest", "new", "hello", "--kernel", "system"])
        .expect(4, &["hello.toml exists, and is not replaced"]);
    Ok(())
}

/// What a package says of its modules is what depmod finds.
pub fn from_a_package(lab: &Lab) -> Outcome {
    let (place, version) = with_kernel(lab)?;
    let packed = Command::new("sh")
        .args(["-ec", "cd system && tar -cJf ../data.tar.xz --exclude modules.dep* --exclude modules.alias* --exclude modules.softdep ./boot ./lib && cd .. && echo 2.0 >debian-binary && ar rc kernel.deb debian-binary data.tar.xz"])
        .current_dir(place.path(""))
        .status();
    if !packed.is_ok_and(|status| status.success()) {
        return Err(Skipped("ar, tar or xz"));
    }
    place.give();
    for (guest, kernel) in [("one", "kernel.deb"), ("two", "system")] {
        let made = place.run(&["guest", "new", guest, "--kernel", kernel]);
        made.expect(0, &[&format!("made {guest}: kernel {version}, ")]);
        let text = fs::read_to_string(place.path(&format!(".config/ttvm/guests/{guest}.toml"))).expect("a file");
        let initrd = text
            .lines()
            .find_map(|line| line.strip_prefix("initrd    = \"")?.strip_suffix('"'));
        let unpacked = place.run(&["initrd", "unpack", initrd.expect("an initrd"), guest]);
        unpacked.expect(0, &["unpacked to "]);
    }
    let words = |guest: &str, name: &str| {
        let text = fs::read_to_string(place.path(&format!("{guest}/{name}"))).expect(name);
        let mut lines: Vec<Vec<String>> = text
            .lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect();
        lines.iter_mut().for_each(|words| words[1..].sort());
        lines.sort();
        lines
    };
    let modules = format!("lib/modules/{version}");
    for name in [
        "etc/ttvm/modules",
        &format!("{modules}/modules.dep"),
        &format!("{modules}/modules.alias"),
    ] {
        assert_eq!(words("one", name), words("two", name), "{name}");
    }
    Ok(())
}

/// A system in a directory: a busybox whose init prints, writes to the disk and powers off.
fn system(place: &Place) {
    let root = place.path("root");
    for directory in ["bin", "sbin", "etc"] {
        fs::create_dir_all(root.join(directory)).expect("a directory");
    }
    fs::copy(place.path("system/usr/bin/busybox"), root.join("bin/busybox")).expect("busybox");
    symlink("busybox", root.join("bin/sh")).expect("a link");
    let init = "#!/bin/sh\nset -e\nb=/bin/busybox\n$b mount -t proc proc /proc\n$b mount -o remount,rw /\n\
        echo \"this is $($b cat /etc/hostname), kernel $($b uname -r)\"\n\
        $b dd if=/dev/urandom of=/random bs=64k count=4 2>/dev/null\n$b md5sum /random\n$b sync\n$b poweroff -f\n";
    fs::write(root.join("sbin/init"), init).expect("init");
    fs::set_permissions(root.join("sbin/init"), PermissionsExt::from_mode(0o755)).expect("init");
    place.give();
}

/// A system in a directory, which has no kernel of its own: it is mounted by the drivers of another one.
pub fn from_a_directory(lab: &Lab) -> Outcome {
    let (place, version) = with_kernel(lab)?;
    system(&place);
    let made = place.run(&[
        "guest", "new", "box", "--from", "root", "--kernel", "system", "--size", "32M",
    ]);
    made.expect(
        0,
        &[&format!("made box: kernel {version}, "), "box.img is made: 32M, ext4"],
    );
    place.run(&["guest", "check", "box"]).expect(0, &["box: ok\n"]);
    let mut recording = Running::start(place.command(&["record", "box"]));
    recording.wait_for("recording as");
    recording.end().expect(0, &["recorded box ", "powered itself off"]);
    let entry = place
        .library()
        .find(&"box".parse().expect("a name"), None)
        .expect("a recording");
    let console = fs::read_to_string(entry.directory().join("console.log")).expect("its console");
    assert!(
        console.contains(&format!("this is box, kernel {version}\r\n")),
        "{console}"
    );
    place
        .run(&["replay", "box", "--verify"])
        .expect(0, &["IDENTICAL: box ", "disk"]);
    Ok(())
}

/// As root of a container, in places of its own: nobody asks for a unit.
pub fn as_root_without_systemd(lab: &Lab) -> Outcome {
    if !geteuid().is_root() {
        return Err(Skipped("root"));
    }
    let (place, _) = with_kernel(lab)?;
    system(&place);
    let script = "cp -a /etc own-etc && mkdir -p own-etc/ttvm own-lib
        mount --bind own-etc /etc && mount --bind own-lib /var/lib && mount -t tmpfs run /run
        $TTVM guest new box --from root --kernel system --size 32M
        $TTVM guest check box
        $TTVM record box
        $TTVM replay box --verify";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-ec", script])
        .env("TTVM", place.program())
        .current_dir(place.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let words = ["box: ok", "recorded box ", "powered itself off", "IDENTICAL: box "];
    Running::start(command).end().expect(0, &words);
    Ok(())
}

/// A user's own guest, in the table of all: nobody but whoever runs it knows what it does.
pub fn what_it_does(lab: &Lab) -> Outcome {
    let (place, _) = with_kernel(lab)?;
    place
        .run(&["guest", "new", "hello", "--kernel", "system"])
        .expect(0, &["made hello: "]);
    let says = |state: &str| {
        place.run(&["list"]).expect(0, &[&format!("hello  qemu       {state}")]);
        place.run(&["status"]).expect(0, &[&format!("hello  {state}")]);
    };
    says("stopped");
    let recording = place.start(&["record", "hello"], "recording as");
    says("recording");
    recording.signal(Signal::SIGINT);
    recording.end().expect(0, &["recorded hello "]);
    says("stopped");
    // It stands still until somebody comes.
    let replay = place.start(&["replay", "hello", "--gdb", "--paused"], "replaying");
    says("replaying");
    replay.signal(Signal::SIGINT);
    replay.end();
    says("stopped");
    Ok(())
}

/// The console of a guest that a unit runs, and then records, joined and left by typing; what was typed is in the recording.
pub fn joined(lab: &Lab) -> Outcome {
    if !geteuid().is_root() {
        return Err(Skipped("root"));
    }
    let (place, _) = with_kernel(lab)?;
    let script = "cp -a /etc own-etc && mkdir -p own-etc/ttvm own-lib
        mount --bind own-etc /etc && mount --bind own-lib /var/lib && mount -t tmpfs run /run
        ttvm guest new hello --kernel system
        export INVOCATION_ID=5d1f1b0c6a1c4d8c9f1e2d3c4b5a6978
        for what in run record; do
            $SNAPSHOT reset -- hello
            (exec -a ttvm-run ttvm $what -- hello) &
            until [ -S /run/ttvm/hello.console ]; do sleep 0.1; done
            ttvm console hello
            wait
            $SNAPSHOT discard -- hello
        done
        ttvm console hello || echo \"status $?\"
        ttvm replay hello --verify";
    let programs = place.program().parent().expect("its directory").display();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "bash", "-ec", script])
        .env("TERM", "dumb")
        .env("PATH", format!("{programs}:{path}"))
        .env("SNAPSHOT", env!("CARGO_BIN_EXE_ttvm-snapshot"))
        .stderr(Stdio::null())
        .current_dir(place.path(""));
    let typing = [
        ("hello login: ", "root"),
        ("Password: ", "root"),
        ("~# ", "echo it is $((6 * 7)); poweroff"),
    ];
    let said = typed(command, &[typing, typing].concat());
    assert_eq!(said.matches("it is 42").count(), 2, "{said}");
    assert!(said.contains("status 4"), "{said}");
    assert!(said.contains("IDENTICAL: hello "), "{said}");
    Ok(())
}

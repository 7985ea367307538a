// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where it goes, and what is not made.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::unistd::geteuid;

use super::place::{DEP, IMAGE, KERNEL, Place, gunzip};

#[test]
fn busybox_that_will_not_do() {
    let place = Place::empty("no-busybox");
    place.kernel(KERNEL, DEP);
    let packages = "`apt-get install busybox-static`, or `dnf install busybox`";
    place.says("", &format!("ttvm: there is no busybox in DIR: {packages}\n[1]"));
    place.write("usr/bin/busybox", "#!/bin/sh\n");
    place.says(
        "",
        &format!("ttvm: DIR/usr/bin/busybox is no program for 64-bit PCs: {packages}\n[1]"),
    );
    // This test needs libraries.
    fs::copy(std::env::current_exe().expect("a path"), place.path("usr/bin/busybox")).expect("a program");
    place.says(
        "",
        &format!(
            "ttvm: DIR/usr/bin/busybox needs libraries, which are not in the guest: {packages} for one that does not\n[1]"
        ),
    );
    assert!(!place.path(IMAGE).exists());
}

/// A tree that is looked at may be anybody's: its busybox is read, and not run.
#[test]
fn nothing_of_another_tree_is_run() {
    let place = Place::empty("not-run");
    place.kernel(KERNEL, DEP);
    let mark = place.path("mark");
    // open(mark, O_CREAT, 0600)
    let source = format!(
        "void _start(void) {{ long made; __asm__ volatile(\"syscall\" : \"=a\"(made) : \"a\"(2), \"D\"(\"{}\"), \"S\"(0100), \"d\"(0600) \
         : \"rcx\", \"r11\", \"memory\"); __asm__ volatile(\"syscall\" : : \"a\"(60), \"D\"(0)); }}",
        mark.display()
    );
    place.write("mark.c", source);
    let program = place.path("usr/bin/busybox");
    let compiled = Command::new("cc")
        .args(["-O1", "-nostdlib", "-static", "-fno-pie", "-no-pie", "-o"])
        .args([&program, &place.path("mark.c")])
        .status();
    assert!(compiled.expect("cc").success());
    let said = place.session("");
    assert!(said.contains("busybox lacks ") && !mark.exists(), "{said}");
    // By hand, it does what it is for.
    assert!(Command::new(program).status().expect("it runs").success() && mark.exists());
}

#[test]
fn what_is_there_is_not_lost() {
    let Some(place) = Place::new("foreign") else { return };
    let image = place.path(IMAGE);
    let refused = "ttvm: DIR/boot/initrd-busybox-based-ram-linux.img was not made by `ttvm initrd busybox`, or somebody has changed it since, so it is not replaced: choose another file with -o, or say --force\n[4]";
    let mine = place.make("");
    let mut archive = gunzip(&image);
    let at = archive.windows(4).position(|bytes| bytes == b"PATH").expect("a script");
    archive[at] = b'p';
    let mut gzip = Command::new("gzip");
    gzip.arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = gzip.spawn().expect("gzip");
    let mut stdin = child.stdin.take().expect("a pipe");
    let changed = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(&archive).expect("input"));
        child.wait_with_output().expect("its output").stdout
    });
    let with_more = [mine.as_slice(), b"070701"].concat();
    for content in [
        b"somebody's own".as_slice(),
        b"",
        &changed,
        &with_more,
        &mine[..mine.len() / 2],
    ] {
        fs::write(&image, content).expect("a file");
        place.says("", refused);
        place.says("--dry-run", refused);
        assert!(fs::read(&image).expect("a file") == content);
    }
    // Nor is it read into memory: it may be as large as a disk.
    fs::File::create(&image)
        .and_then(|file| file.set_len(900 << 20))
        .expect("a large file");
    let inner = place.command("");
    let mut limited = Command::new("prlimit");
    limited
        .arg("--as=600000000")
        .arg(inner.get_program())
        .args(inner.get_args());
    limited.current_dir(inner.get_current_dir().unwrap_or("/".as_ref()));
    let output = limited.output().expect("prlimit runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(4) && said.contains("was not made by `ttvm initrd busybox`"),
        "{output:?}"
    );
    fs::remove_file(&image).expect("it goes");
    assert!(place.make("") == mine);
    // What was made for another kernel is replaced without a question, and keeps its permissions.
    fs::set_permissions(&image, fs::Permissions::from_mode(0o640)).expect("its mode");
    assert!(place.session("--modules veth").starts_with("made "));
    assert_eq!(place.mode(), 0o640);
    fs::remove_file(&image).expect("it goes");
    let no_file =
        "ttvm: DIR/boot/initrd-busybox-based-ram-linux.img is no ordinary file: choose another one with -o\n[4]";
    symlink("elsewhere", &image).expect("a link");
    place.says("--force", no_file);
    fs::remove_file(&image).expect("it goes");
    fs::create_dir(&image).expect("a directory");
    place.says("--force", no_file);
    place.says(
        "-o /dev/null --force",
        "ttvm: /dev/null is no ordinary file: choose another one with -o\n[4]",
    );
}

#[test]
fn where_it_can_not_be_written() {
    let Some(place) = Place::new("unwritable") else { return };
    place.says(
        "-o DIR/none/image",
        "ttvm: cannot write DIR/none/image: choose another file with -o\n  because: No such file or directory (os error 2)\n[1]",
    );
    if geteuid().is_root() {
        return eprintln!("in part only: root may write everywhere");
    }
    fs::set_permissions(place.path("boot"), fs::Permissions::from_mode(0o555)).expect("its mode");
    place.says(
        "",
        "ttvm: cannot write DIR/boot/initrd-busybox-based-ram-linux.img: only root may; choose another file with -o\n  because: Permission denied (os error 13)\n[1]",
    );
    fs::set_permissions(place.path("boot"), fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// Its name is that of a whole file, whenever the machine stops.
#[test]
fn killed_before_it_has_its_name() {
    let Some(place) = Place::new("killed") else { return };
    let killed = || {
        let status = place.command("").env("TTVM_FAIL_POINT", "file.written").status();
        assert_eq!(status.expect("ttvm runs").signal(), Some(9));
    };
    let files = || fs::read_dir(place.path("boot")).expect("a directory").count();
    killed();
    assert_eq!(files(), 0, "nothing half-made");
    let first = place.make("");
    let status = place
        .command("--modules veth")
        .env("TTVM_FAIL_POINT", "file.written")
        .status();
    assert_eq!(status.expect("ttvm runs").signal(), Some(9));
    assert!(
        fs::read(place.path(IMAGE)).expect("the image") == first,
        "the old one is whole"
    );
    assert_eq!(files(), 1, "nothing half-made");
    assert!(place.session("--modules veth").starts_with("made "));
}

/// Somebody else puts a file there while it is made.
#[test]
fn somebody_else_was_faster() {
    let Some(place) = Place::new("race") else { return };
    let child = place
        .command("")
        .env("TTVM_FAIL_POINT", "file.written:stop")
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("ttvm runs");
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let stopped = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WUNTRACED)).expect("it stands still");
    assert!(
        matches!(stopped, nix::sys::wait::WaitStatus::Stopped(..)),
        "{stopped:?}"
    );
    place.write(IMAGE, "somebody's own");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).expect("it goes on");
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("somebody else has changed it meanwhile"), "{errors}");
    assert_eq!(fs::read(place.path(IMAGE)).expect("the file"), b"somebody's own");
    let left = fs::read_dir(place.path("boot")).expect("a directory").count();
    assert_eq!(left, 1, "nothing half-made");
}

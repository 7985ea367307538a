// SPDX-License-Identifier: MIT OR Apache-2.0
//! To another host in one file, and there the same.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid, pipe, write};
use ttvm::recording::library::import::Imported;
use ttvm::recording::{Library, Recording};

use super::{START, World, goes_on};

fn import(library: &Library, file: &Path) -> Recording {
    let mut input = File::open(file).expect("a file");
    match library.import(&mut input, "a file", None, &mut goes_on) {
        Ok(Imported::New(recording)) => recording,
        other => panic!("{other:?}"),
    }
}

#[test]
fn there_and_back() {
    let world = World::new("export");
    let recording = world.record(START);
    let said = world.ttvm("export clientA --with-disks");
    assert_eq!(
        said,
        "exported clientA 20261125-130700 to clientA-20261125-130700.ttvm SIZE\n"
    );
    let file = world.directory.join("clientA-20261125-130700.ttvm");
    let bytes = fs::read(&file).expect("a file");
    // Nothing is overwritten unasked.
    assert_eq!(
        world.exact("export clientA"),
        "ttvm: clientA-20261125-130700.ttvm is there already: choose another name with -o, or --force to replace it\n[4]\n"
    );
    // The same recording gives the same file.
    assert!(world.ttvm("export clientA --with-disks --force").ends_with("SIZE\n"));
    assert_eq!(fs::read(&file).expect("a file"), bytes);
    let output = world
        .command()
        .args(["recordings", "export", "clientA", "--with-disks", "-o", "-"])
        .output()
        .expect("ttvm runs");
    assert_eq!(output.stdout, bytes);

    // Another host, which has nothing of what it was recorded from.
    let other = World::new("import");
    for name in ["vmlinuz", "initrd.img", "base.img"] {
        fs::remove_file(world.directory.join(name)).expect("it goes");
    }
    let line = format!("import {}", file.display());
    assert_eq!(other.exact(&line), "imported clientA 20261125-130700\n");
    let there = other.library.find(&other.guest, None).expect("a recording");
    assert_eq!(there.manifest(), recording.manifest());
    assert_eq!(there.check(&mut goes_on).expect("a check"), []);
    for name in ["manifest.toml", "guest.toml", "replay.log", "console.log"] {
        let read = |recording: &Recording| fs::read(recording.directory().join(name)).expect("a file");
        assert!(read(&there) == read(&recording), "{name}");
    }
    assert_eq!(there.kernel_path(), Some(there.directory().join("kernel")));
    assert_eq!(there.initrd_path(), Some(there.directory().join("initrd")));
    let disk = &there.manifest().disks[0];
    let base = other
        .library
        .state_directory()
        .join(format!("bases/{}.img", disk.digest.hex()));
    assert_eq!(there.base_path(disk, None), Some(base.clone()));
    let data = fs::metadata(&base).expect("a copy");
    assert_eq!((data.len(), data.permissions().mode() & 0o777), (3 << 20, 0o400));
    // Holes stay holes.
    assert!(data.blocks() * 512 < 1 << 20, "{} blocks", data.blocks());
    assert_eq!(other.exact(&line), "clientA 20261125-130700 is already there\n");
    assert_eq!(
        other.exact(&format!("{line} --as clientB")),
        "imported clientB 20261125-130700\n"
    );
    assert!(other.exact("show clientB").contains("     recorded as: clientA\n"));
    // And from there the same file again.
    assert!(
        other
            .ttvm("export clientB --with-disks -o again.ttvm")
            .ends_with("SIZE\n")
    );
    assert_eq!(fs::read(other.directory.join("again.ttvm")).expect("a file"), bytes);

    // Damage to what came along is found.
    fs::set_permissions(&base, fs::Permissions::from_mode(0o600)).expect("a mode");
    fs::write(&base, "x").expect("a file");
    assert_eq!(
        other.exact("verify clientB"),
        format!(
            "clientB 20261125-130700: the base of disk vda, DIR/state/bases/{}.img, was truncated: 1 bytes, recorded 3145728\n[1]\n",
            disk.digest.hex()
        )
    );
    // It is shared, and goes with the last.
    fs::write(other.directory.join("state/bases/notes"), "a person's").expect("a file");
    assert!(other.ttvm("rm clientA 2026").starts_with("removed "));
    assert!(base.exists());
    assert!(other.ttvm("rm clientB 2026").starts_with("removed "));
    assert_eq!(other.tree(), ["bases", "bases/notes", "recordings", "recordings/.lock"]);
    assert_eq!(other.ttvm("list"), "there are no recordings in DIR/state\n");
}

#[test]
fn without_disks() {
    let world = World::new("export-small");
    let recording = world.record(START);
    assert!(world.ttvm("export clientA -o small.ttvm").starts_with("exported "));
    let other = World::new("import-small");
    let small = world.directory.join("small.ttvm");
    let there = import(&other.library, &small);
    // The original is where it was recorded; there, that is nobody's word. Here, somebody else chose the name.
    let disk = &there.manifest().disks[0];
    let original = world.directory.join("base.img");
    assert_eq!(recording.base_path(disk, None), Some(original.clone()));
    assert_eq!(there.base_path(disk, None), None);
    let again = format!("import {}", small.display());
    let said = other.exact(&again);
    assert!(
        said.starts_with(
            "clientA 20261125-130700 is already there\nnote: a replay needs what disk vda was made from, "
        ) && said.contains("import it with --disk FILE"),
        "{said}"
    );
    let said = other.exact("export clientA -o again.ttvm --with-disks");
    assert!(
        said.starts_with("ttvm: what disk vda was made from did not come with the recording: "),
        "{said}"
    );
    // Until the user says where it is.
    let foreign = world.directory.join("vmlinuz");
    let said = other.exact(&format!("{again} --disk {}", foreign.display()));
    assert!(said.contains("no disk of the recording was made from "), "{said}");
    let said = other.exact(&format!("{again} --disk {}", original.display()));
    assert_eq!(said, "clientA 20261125-130700 is already there\n");
    let copy = there.base_path(disk, None).expect("a copy");
    assert!(copy.starts_with(other.directory.join("state/bases")));
    assert_eq!(
        fs::read(&copy).expect("a copy"),
        fs::read(&original).expect("the original")
    );
    fs::remove_file(original).expect("it goes");
    assert_eq!(recording.base_path(disk, None), None);
    assert_eq!(there.base_path(disk, None), Some(copy));
    // Nor is the host's kernel taken in place of one that came along.
    fs::rename(there.directory().join("kernel"), there.directory().join("away")).expect("it goes");
    assert_eq!(
        other.exact("verify clientA"),
        "clientA 20261125-130700: kernel is missing\n[1]\n"
    );
    fs::rename(there.directory().join("away"), there.directory().join("kernel")).expect("it is back");
    // What is not what was recorded is not exported as if it were.
    let mut kernel = fs::read(world.directory.join("vmlinuz")).expect("a kernel");
    kernel[0] ^= 1;
    fs::write(world.directory.join("vmlinuz"), &kernel).expect("a kernel");
    let expected = "ttvm: kernel is not what was recorded: DIR/vmlinuz has blake3:";
    assert!(world.exact("export clientA -o other.ttvm").starts_with(expected));
    kernel.push(0);
    kernel[0] ^= 1;
    fs::write(world.directory.join("vmlinuz"), &kernel).expect("a kernel");
    assert!(world.exact("export clientA -o other.ttvm").starts_with(expected));
    let no_disk = world.exact("export clientA -o other.ttvm --with-disks");
    assert!(no_disk.starts_with("ttvm: cannot open DIR/base.img"), "{no_disk}");
    let mut left = fs::read_dir(&world.directory).expect("a directory").flatten();
    assert!(!left.any(|entry| entry.file_name().to_string_lossy().contains("other")));
    // A damaged one does not hide behind "already there".
    fs::write(there.console(), "").expect("a file");
    assert_eq!(import(&other.library, &small).id().to_string(), "20261125-130700-2");
    drop(recording);
}

#[test]
fn through_a_pipe() {
    let world = World::new("pipe");
    world.record(START);
    let other = World::new("pipe-end");
    let mut export = world
        .command()
        .args(["recordings", "export", "clientA", "-o", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("ttvm runs");
    let status = other
        .command()
        .args(["recordings", "import", "-"])
        .stdin(export.stdout.take().expect("a pipe"))
        .stdout(Stdio::null())
        .status()
        .expect("ttvm runs");
    assert!(status.success() && export.wait().expect("it ends").success());
    assert!(other.ttvm("verify clientA").ends_with("is as it was recorded\n"));
}

#[test]
fn killed_while_it_is_being_imported() {
    let world = World::new("importing-from");
    world.record(START);
    assert!(
        world
            .ttvm("export clientA -o a.ttvm --with-disks")
            .starts_with("exported ")
    );
    let other = World::new("importing");
    let line = format!("recordings import {}", world.directory.join("a.ttvm").display());
    let status = other
        .command()
        .args(line.split_whitespace())
        .env("TTVM_FAIL_POINT", "recording.importing")
        .status()
        .expect("ttvm runs");
    assert_eq!(status.signal(), Some(9));
    assert_eq!(other.exact("list"), "there are no recordings in DIR/state\n");
    assert!(other.tree().iter().any(|path| path.contains(".importing-")));
    // The next import tidies up.
    import(&other.library, &world.directory.join("a.ttvm"));
    assert!(!other.tree().iter().any(|path| path.contains(".importing-")));
    assert!(other.ttvm("rm clientA 2026").starts_with("removed "));
    assert_eq!(other.tree(), ["bases", "recordings", "recordings/.lock"]);
}

#[test]
fn where_there_is_no_room() {
    if !geteuid().is_root() {
        eprintln!("where_there_is_no_room: skipped, it needs root to mount a file system");
        return;
    }
    let world = World::new("room");
    // A disk that compresses well and is no hole.
    fs::write(world.directory.join("base.img"), vec![7; 12 << 20]).expect("an image");
    world.record(START);
    assert!(
        world
            .ttvm("export clientA -o a.ttvm --with-disks")
            .starts_with("exported ")
    );
    let mount = world.directory.join("mount");
    fs::create_dir(&mount).expect("a directory");
    // The second is too small for the disk only.
    for size in ["1m", "70m"] {
        let script = "mount -t tmpfs -o size=\"$1\" none mount; \"$2\" --state-dir mount/s recordings import a.ttvm || code=$?; \
                      find mount -mindepth 2 | sort; exit $code";
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-ec", script, "sh", size, env!("CARGO_BIN_EXE_ttvm")])
            .current_dir(&world.directory)
            .output()
            .expect("unshare");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            error.starts_with("ttvm: there is no room for it at "),
            "{size}: {error}"
        );
        assert!(
            error.contains(" are free and 64M of them are left alone; see `ttvm recordings rm`"),
            "{error}"
        );
        assert_eq!(output.status.code(), Some(4));
        let left = String::from_utf8_lossy(&output.stdout);
        let left: Vec<&str> = left.lines().filter(|path| !path.ends_with("bases")).collect();
        assert_eq!(left, ["mount/s/recordings", "mount/s/recordings/.lock"]);
    }
}

/// Waits until a process waits for something itself, and goes on doing so.
fn sleeps(process: &Child) {
    let mut seen = 0;
    while seen < 5 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).expect("it runs");
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        seen = if state == Some('S') { seen + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A pipe on whose other end nothing happens keeps nobody from ending the program.
#[test]
fn a_pipe_that_stands_still() {
    let world = World::new("pipe-still");
    world.record(START);
    let (idle, open) = pipe().expect("a pipe");
    let (unread, full) = pipe().expect("a pipe");
    fcntl(&full, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("it waits for nothing");
    while write(&full, &[0; 4096]).is_ok() {}
    while write(&full, &[0; 1]).is_ok() {}
    fcntl(&full, FcntlArg::F_SETFL(OFlag::empty())).expect("it waits");
    let import = |command: &mut Command| {
        command
            .args(["recordings", "import", "-"])
            .stdin(idle.try_clone().expect("another"));
    };
    let export = |command: &mut Command| {
        command
            .args(["recordings", "export", "clientA", "-o", "-"])
            .stdout(full.try_clone().expect("another"));
    };
    let cases: [&dyn Fn(&mut Command); 2] = [&import, &export];
    for case in cases {
        let mut command = world.command();
        case(&mut command);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("ttvm runs");
        sleeps(&child);
        let started = Instant::now();
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("it is told to end");
        let status = child.wait().expect("ttvm ends");
        assert!(started.elapsed() < Duration::from_secs(5), "{status}");
        assert!(!status.success());
    }
    drop((open, unread));
    assert_eq!(world.library.list(None).expect("a list").len(), 1);
}

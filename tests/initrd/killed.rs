// SPDX-License-Identifier: MIT OR Apache-2.0
//! Killed, interrupted, out of space: nothing half-made has a name, and what is left is known and goes away.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Place, said, sample, tree};

/// Runs `line` and kills it at `point`.
fn killed(place: &Place, line: &str, point: &str) {
    let status = place
        .command(line)
        .env("TTVM_FAIL_POINT", point)
        .stderr(Stdio::null())
        .status();
    assert_eq!(status.expect("ttvm runs").signal(), Some(9), "{point}");
}

#[test]
fn what_a_killed_program_leaves_goes_away() {
    let place = Place::new("killed");
    place.put("i", &sample());
    for point in ["initrd.entry", "initrd.unpacked"] {
        killed(&place, "unpack i u", point);
        let left: Vec<String> = place
            .names()
            .into_iter()
            .filter(|name| name.starts_with(".u.unpacking-"))
            .collect();
        assert_eq!(left.len(), 1, "{point}");
        assert!(!place.path("u").exists());
        assert!(place.session("unpack i u").ends_with("[0]"), "{point}");
        assert_eq!(place.names(), ["i", "u"], "{point}");
        fs::remove_dir_all(place.path("u")).expect("it goes");
    }
    place.session("unpack i u");
    killed(&place, "pack u p", "initrd.packed");
    assert!(!place.path("p").exists() && place.names().iter().any(|name| name.starts_with(".p.packing-")));
    assert!(place.session("pack u p").ends_with("[0]"));
    assert_eq!(place.names(), ["i", "p", "u"]);
    // In place of another: that is there until the new one is.
    let before = fs::read(place.path("p")).expect("the image");
    fs::write(place.path("u/2/new"), b"new").expect("a file");
    killed(&place, "pack --force u p", "initrd.packed");
    assert!(before == fs::read(place.path("p")).expect("the image"));
    assert!(place.session("pack --force u p").ends_with("[0]"));
    assert_eq!(place.names(), ["i", "p", "u"]);
}

#[test]
fn what_is_not_ours_stays() {
    let place = Place::new("foreign");
    place.put("i", &sample());
    for name in [".u.unpacking-1", ".u.unpacking-x", ".v.unpacking-1"] {
        fs::create_dir(place.path(name)).expect("a directory");
        place.put(&format!("{name}/precious"), b"");
    }
    place.put(".u.unpacking-2", b"a file");
    place.put(".p.packing-x", b"another file");
    // Somebody is at it.
    let mut busy = place
        .command("unpack i u")
        .env("TTVM_FAIL_POINT", "initrd.entry:stop")
        .spawn()
        .expect("ttvm runs");
    let pid = Pid::from_raw(i32::try_from(busy.id()).expect("a pid"));
    assert!(matches!(
        waitpid(pid, Some(WaitPidFlag::WUNTRACED)),
        Ok(WaitStatus::Stopped(..))
    ));
    let before = place.names();
    assert!(place.session("unpack i u").ends_with("[0]"));
    let mut expected = before;
    expected.push("u".to_owned());
    assert_eq!(place.names(), expected);
    busy.kill().and_then(|()| busy.wait()).expect("it ends");
    fs::remove_dir_all(place.path("u")).expect("it goes");
    place.session("unpack i u");
    place.session("pack u p");
    assert_eq!(
        place.names(),
        [
            ".p.packing-x",
            ".u.unpacking-1",
            ".u.unpacking-2",
            ".u.unpacking-x",
            ".v.unpacking-1",
            "i",
            "p",
            "u"
        ]
    );
}

#[test]
fn interrupted_it_leaves_nothing() {
    let place = Place::new("interrupted");
    place.put("i", &sample());
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut child = place
            .command("unpack i u")
            .env("TTVM_FAIL_POINT", "initrd.entry:stop")
            .stderr(Stdio::null())
            .spawn()
            .expect("ttvm runs");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        assert!(matches!(
            waitpid(pid, Some(WaitPidFlag::WUNTRACED)),
            Ok(WaitStatus::Stopped(..))
        ));
        kill(pid, signal).expect("a signal");
        kill(pid, Signal::SIGCONT).expect("a signal");
        let status = child.wait().expect("it ends");
        assert_eq!(status.signal(), Some(signal as i32));
        assert_eq!(place.names(), ["i"]);
    }
}

/// It waits for a pipe that nobody writes to, and yet ends when it is told to.
#[test]
fn interrupted_while_it_waits() {
    let place = Place::new("waiting");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut child = place
            .command("unpack - u")
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("ttvm runs");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(&sample()[..600]).expect("a part");
        // It is at work as soon as there is something.
        while place.names().is_empty() {
            std::thread::yield_now();
        }
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        kill(pid, signal).expect("a signal");
        assert_eq!(child.wait().expect("it ends").signal(), Some(signal as i32));
        assert!(place.names().is_empty());
        drop(input);
    }
}

/// On a file system that is too small, in a mount namespace of this thread alone.
#[test]
fn no_space_left() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use nix::sched::{CloneFlags, unshare};
    let place = Place::new("space");
    let noise: Vec<u8> = (0u32..2_000_000)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    place.put("i", &super::Archive::new().file("noise", 0o644, &noise).end(4));
    fs::create_dir(place.path("small")).expect("a directory");
    std::thread::scope(|scope| {
        let alone = scope.spawn(|| {
            if unshare(CloneFlags::CLONE_NEWNS).is_err() {
                eprintln!("skipped: no mount namespace can be made");
                return;
            }
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
            let small = place.path("small");
            mount(Some("tmpfs"), &small, Some("tmpfs"), MsFlags::empty(), Some("size=1m"))
                .expect("a small file system");
            place.says(
                "unpack i small/u",
                "ttvm: cannot write small/u/1/noise\n  because: No space left on device (os error 28)\n[1]",
            );
            assert!(tree(&small).is_empty());
            let said = said(&mut place.command("unpack i u"));
            assert!(said.ends_with("[0]"), "{said}");
            place.says(
                "pack u small/p",
                "ttvm: cannot write small/p\n  because: No space left on device (os error 28)\n[1]",
            );
            assert!(tree(&small).is_empty());
            umount2(&small, MntFlags::MNT_DETACH).expect("it is unmounted");
        });
        alone.join().expect("the thread ends");
    });
    assert!(tree(Path::new(&place.path("small"))).is_empty());
}

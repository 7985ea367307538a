// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whatever ends it, nothing is left: no file, no mount, no loop device; and the next one works.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Place, is_root, sound};

/// Mounts and loop devices of this machine.
fn machine() -> (String, Vec<String>) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files = devices.filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok());
    // Those of tests beside this one come and go.
    (mounts, files.filter(|file| file.contains("create-killed")).collect())
}

fn files(place: &Place) {
    for number in 0..300 {
        place.file(&format!("d{}/{number}", number % 7), vec![number as u8; 20_000]);
    }
}

const LINE: &str = "--file DIR/image --size 64M --from DIR/src";

#[test]
fn killed_at_every_step() {
    let place = Place::new("killed");
    files(&place);
    let before = machine();
    for point in ["create.file-system", "create.copying", "create.copied", "create.filled"] {
        let status = place.command(LINE).env("TTVM_FAIL_POINT", point).status();
        assert_eq!(status.expect("ttvm runs").signal(), Some(9), "{point}");
        assert_eq!(place.rest(), [""; 0], "{point}");
        assert_eq!(machine(), before, "{point}");
    }
    // At any other time, too: none of these may have come to its end, or all.
    for number in 0..8 {
        let mut child = place.command(LINE).stdout(Stdio::null()).spawn().expect("ttvm runs");
        std::thread::sleep(Duration::from_millis(5 + 17 * number));
        child.kill().and_then(|()| child.wait()).expect("it ends");
        if place.path("image").exists() {
            sound(&place.path("image"));
            fs::remove_file(place.path("image")).expect("the image goes");
        }
        assert_eq!(place.rest(), [""; 0]);
        assert_eq!(machine(), before);
    }
    let status = place.command(LINE).env("TTVM_FAIL_POINT", "create.named").status();
    assert_eq!(status.expect("ttvm runs").signal(), Some(9));
    sound(&place.path("image"));
    fs::remove_file(place.path("image")).expect("the image goes");
    place.made("--size 64M --from DIR/src");
    assert_eq!(place.rest(), ["image"]);
}

/// Starts it, and comes back when it stands still at the point.
pub(super) fn stopped_at(place: &Place, line: &str, point: &str) -> (std::process::Child, Pid) {
    let mut command = place.command(line);
    command.env("TTVM_FAIL_POINT", format!("{point}:stop"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("ttvm runs");
    let pid = Pid::from_raw(child.id() as i32);
    let status = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).expect("it stops");
    assert_eq!(status, WaitStatus::Stopped(pid, Signal::SIGSTOP));
    (child, pid)
}

#[test]
fn told_to_end() {
    let place = Place::new("killed-softly");
    files(&place);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (child, pid) = stopped_at(&place, LINE, "create.copying");
        kill(pid, signal).expect("a signal");
        kill(pid, Signal::SIGCONT).expect("a signal");
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.signal(), Some(signal as i32), "{}", place.said(&output));
        assert_eq!(place.rest(), [""; 0]);
    }
}

#[test]
fn somebody_else_is_first() {
    let place = Place::new("killed-second");
    files(&place);
    let (child, pid) = stopped_at(&place, LINE, "create.filled");
    fs::write(place.path("image"), "foreign").expect("a file");
    kill(pid, Signal::SIGCONT).expect("a signal");
    let said = place.said(&child.wait_with_output().expect("it ends"));
    assert_eq!(
        said,
        "ttvm: DIR/image is there already: nothing was done; remove it, or choose another name\n[4]"
    );
    assert_eq!(fs::read(place.path("image")).expect("the file"), b"foreign");
}

/// The disk that the image is on becomes full.
#[test]
fn no_space() {
    if !is_root() {
        return;
    }
    let place = Place::new("killed-full");
    files(&place);
    // 6 MB of files: it is seen before.
    let make = "\"$TTVM\" --root \"$DIR\" image create clientA --file small/image --size 64M --from src";
    let full =
        format!("mkdir -p small && mount -t tmpfs -o size=4M small small && {make}; code=$?; ls -A small; exit $code");
    let said = place.said(&place.privately(&full));
    assert!(said.starts_with("ttvm: DIR/small is full: the image needs "), "{said}");
    assert!(
        said.ends_with(" more there than it has; make room there, or put it elsewhere\n[4]"),
        "{said}"
    );
    // Or somebody else takes what was there.
    let taken = format!(
        "mkdir -p small && mount -t tmpfs -o size=16M small small
        TTVM_FAIL_POINT=create.copying:stop {make} & pid=$!
        until grep -q '^State:.T' /proc/$pid/status; do sleep 0.05; done
        head -c 20M /dev/zero >small/taken 2>/dev/null; kill -CONT $pid; wait $pid; code=$?
        rm small/taken; ls -A small; df --output=used small | tail -n 1 >used; exit $code"
    );
    let said = place.said(&place.privately(&taken));
    assert!(
        said.starts_with("ttvm: ") && said.ends_with("because: No space left on device (os error 28)\n[1]"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(place.path("used")).expect("a number").trim(), "0");
}

#[test]
fn files_come_and_go_meanwhile() {
    let place = Place::new("killed-live");
    files(&place);
    let late: Vec<_> = (0..3000)
        .map(|number| place.file(&format!("late/{number:04}"), "x"))
        .collect();
    let (child, pid) = stopped_at(&place, LINE, "create.copying");
    // It has not come to the last ones: they are behind all the others.
    let last = fs::read_dir(place.path("src/late")).expect("a directory").flatten();
    let mut last: Vec<_> = last
        .map(|entry| (std::os::unix::fs::DirEntryExt::ino(&entry), entry.path()))
        .collect();
    last.sort();
    assert_eq!(last.len(), late.len());
    for (_, path) in &last[2990..] {
        fs::remove_file(path).expect("a file goes");
    }
    kill(pid, Signal::SIGCONT).expect("a signal");
    let said = place.said(&child.wait_with_output().expect("it ends"));
    // Or they were gone before it looked for their names.
    assert!(said.contains("DIR/image is made: ") && said.ends_with("[0]"), "{said}");
    if said.contains("vanished") {
        assert!(said.contains("vanished while it was copied: 10 (/late/"), "{said}");
    }
    sound(&place.path("image"));
}

/// A file with two names goes while it is copied, and another one gets its number: it has its own content.
#[test]
fn a_number_is_given_again() {
    let place = Place::new("killed-number");
    let first = place.file("a/first", "the first one");
    let number = fs::metadata(&first).expect("the file").ino();
    let other = place.path("other");
    fs::hard_link(&first, &other).expect("a link");
    for file in 0..400 {
        place.file(&format!("a/{file}"), vec![1; 60_000]);
    }
    fs::create_dir(place.path("src/z")).expect("a directory");
    let (child, pid) = stopped_at(&place, LINE, "create.copying");
    kill(pid, Signal::SIGCONT).expect("a signal");
    // As long as it is open its number is taken.
    let is_open = || {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut targets = descriptors.filter_map(|one| fs::read_link(one.path()).ok());
        targets.any(|target| target == first)
    };
    while is_open() {}
    kill(pid, Signal::SIGSTOP).expect("a signal");
    fs::remove_file(&first)
        .and_then(|()| fs::remove_file(&other))
        .expect("it goes");
    let second = place.path("src/z/second");
    let got_it = (0..3000).any(|attempt| {
        // Beside it: numbers near the directory are given first.
        let new = place.file("a/new", "the second");
        fs::rename(new, &second).expect("a name");
        let same = fs::metadata(&second).expect("the file").ino() == number;
        if !same {
            fs::rename(&second, place.path(&format!("kept-{attempt}"))).expect("a name");
        }
        same
    });
    kill(pid, Signal::SIGCONT).expect("a signal");
    let said = place.said(&child.wait_with_output().expect("it ends"));
    sound(&place.path("image"));
    if !got_it {
        return eprintln!("skipped: numbers are not given again here");
    }
    // Or it was gone before, or had been there already.
    for (path, own) in [("/a/first", "the first one"), ("/z/second", "the second")] {
        let content = place.content(path);
        assert!(content.is_empty() || content == own, "{path}: {content}: {said}");
    }
}

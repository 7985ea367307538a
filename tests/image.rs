// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm image` on files: real ones, in a directory of each test's own. Volumes are tested on the emulated host.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use ttvm::file::digest::{self, Digest};

/// What the tests' image is filled with.
const CONTENT: &[u8] = b"golden content\n";

/// A directory of one test, with the image `base.img` in it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("image-{name}"));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).expect("a directory");
        let place = Self(place.canonicalize().expect("a directory"));
        fs::write(place.image(), CONTENT).expect("an image");
        fs::set_permissions(place.image(), fs::Permissions::from_mode(0o664)).expect("its mode");
        place
    }

    fn image(&self) -> PathBuf {
        self.0.join("base.img")
    }

    fn seal(&self) -> PathBuf {
        self.0.join("base.img.ttvm-seal")
    }

    fn mode(&self) -> u32 {
        let data = fs::metadata(self.image()).expect("the image");
        data.permissions().mode() & 0o777
    }

    fn set_mode(&self, mode: u32) {
        fs::set_permissions(self.image(), fs::Permissions::from_mode(mode)).expect("its mode");
    }

    /// `ttvm image LINE`, in which `DIR` is this directory.
    fn command(&self, line: &str) -> Command {
        let directory = self.0.to_str().expect("a path");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ttvm"));
        command
            .args(["--root", directory, "image"])
            .args(line.split_whitespace().map(|word| word.replace("DIR", directory)))
            .stdin(Stdio::null());
        command
    }

    /// What that prints, and how it ends.
    fn session(&self, line: &str) -> String {
        let output = self.command(line).output().expect("ttvm runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        let text = format!("{}{}[{code}]", text(&output.stdout), text(&output.stderr));
        let text = text.replace(self.0.to_str().expect("a path"), "DIR");
        // A table's columns are as wide as the path: one space in place of many.
        let line = |line: &str| match line.starts_with("ORIGIN ") || line.starts_with("DIR/") {
            true => line.split_whitespace().collect::<Vec<_>>().join(" "),
            false => line.to_owned(),
        };
        text.lines().map(line).collect::<Vec<_>>().join("\n")
    }

    fn says(&self, line: &str, expected: &str) {
        let digest = digest_of(CONTENT);
        assert_eq!(self.session(line), expected.replace("B3SUM", &digest), "{line}");
    }
}

fn digest_of(mut bytes: &[u8]) -> String {
    let total = bytes.len() as u64;
    let digest = digest::of_reader(&mut bytes, total, &mut |_, _| ControlFlow::Continue(()));
    digest.expect("a digest").to_string()
}

#[test]
fn from_seal_to_unseal() {
    let place = Place::new("life");
    place.says(
        "status DIR/base.img",
        "ORIGIN STATE DIGEST\nDIR/base.img not sealed -\n[0]",
    );
    place.says("seal DIR/base.img", "DIR/base.img is sealed: B3SUM\n[0]");
    assert_eq!(place.mode(), 0o444);
    place.says("seal DIR/base.img", "DIR/base.img was sealed already: B3SUM\n[0]");
    place.says(
        "seal --deep DIR/base.img",
        "DIR/base.img was sealed already, and its content matches: B3SUM\n[0]",
    );
    place.says("seal --dry-run DIR/base.img", "nothing to do\n[0]");
    place.says(
        "status DIR/base.img --json",
        "[\n  {\n    \"origin\": \"DIR/base.img\",\n    \"state\": \"sealed\",\n    \"digest\": \"B3SUM\"\n  }\n]\n[0]",
    );
    let deep = place.session("status --deep DIR/base.img");
    assert!(deep.contains(" sealed matches blake3:"), "{deep}");
    place.says("unseal DIR/base.img", "DIR/base.img is writable again\n[0]");
    assert_eq!(place.mode(), 0o664, "as it was before");
    assert!(!place.seal().exists());
    place.says("unseal DIR/base.img", "DIR/base.img is not sealed\n[0]");
}

#[test]
fn a_dry_run_does_nothing() {
    let place = Place::new("dry");
    place.says(
        "seal --dry-run DIR/base.img",
        "would make DIR/base.img read-only\nwould read DIR/base.img (0.0M) and keep the digest in DIR/base.img.ttvm-seal\n[0]",
    );
    assert!(place.mode() == 0o664 && !place.seal().exists());
    place.session("seal DIR/base.img");
    place.says(
        "unseal --dry-run DIR/base.img",
        "would remove DIR/base.img.ttvm-seal\nwould make DIR/base.img writable\n[0]",
    );
    assert!(place.mode() == 0o444 && place.seal().exists());
}

/// Each is noticed without reading the image, and sealing anew heals it.
#[test]
fn what_breaks_a_seal() {
    let place = Place::new("broken");
    let write = |content: &[u8]| {
        let before = fs::metadata(place.image()).and_then(|data| data.modified());
        place.set_mode(0o644);
        fs::write(place.image(), content).expect("the image is written");
        place.set_mode(0o444);
        before.expect("a time")
    };
    let overwrite = |content: &[u8]| {
        write(content);
    };
    let forge = |content: &[u8]| {
        let before = write(content);
        let file = File::open(place.image()).expect("the image");
        file.set_modified(before).expect("its time goes back");
    };
    let breaks: [(&str, &dyn Fn()); 6] = [
        ("somebody made it writable", &|| place.set_mode(0o644)),
        ("it was written", &|| overwrite(&CONTENT.to_ascii_uppercase())),
        (
            "it was renamed, linked, or changed in a way that could hide a write",
            &|| forge(&CONTENT.to_ascii_lowercase()),
        ),
        ("its size has changed", &|| overwrite(b"longer than it was before\n")),
        ("it is another file than the one that was sealed", &|| {
            let copy = place.0.join("copy");
            let before = fs::metadata(place.image()).and_then(|data| data.modified());
            fs::copy(place.image(), &copy).expect("a copy");
            let file = File::open(&copy).expect("the copy");
            file.set_modified(before.expect("a time")).expect("its time");
            fs::rename(copy, place.image()).expect("another file");
        }),
        ("its seal cannot be read", &|| {
            fs::remove_file(place.seal()).expect("the seal goes");
            fs::write(place.seal(), "digest = 1\n").expect("another seal");
        }),
    ];
    for (why, happens) in breaks {
        let sealed = place.session("seal DIR/base.img");
        assert!(sealed.starts_with("DIR/base.img is sealed: "), "{why}: {sealed}");
        happens();
        let status = place.session("status --deep DIR/base.img");
        assert!(
            status.contains(&format!("DIR/base.img not sealed ({why}) - -")),
            "{status}"
        );
        let plan = place.session("seal --dry-run DIR/base.img");
        assert!(
            plan.starts_with("would remove the old DIR/base.img.ttvm-seal\n"),
            "{plan}"
        );
    }
    place.says("unseal DIR/base.img", "DIR/base.img is writable again\n[0]");
    assert!(!place.seal().exists());
}

#[test]
fn another_content_is_found_by_reading() {
    let place = Place::new("deep");
    place.session("seal DIR/base.img");
    let other = digest_of(b"other");
    let seal = fs::read_to_string(place.seal()).expect("the seal");
    fs::remove_file(place.seal()).expect("the seal goes");
    fs::write(place.seal(), seal.replace(&digest_of(CONTENT), &other)).expect("another seal");
    let differs = format!(
        "ttvm: the content of DIR/base.img is not what was sealed: it was {other} and is B3SUM, so no recording made from it can be replayed; bring the old content back, or `ttvm image unseal DIR/base.img` and seal it as it is\n[1]"
    );
    place.says("seal --deep DIR/base.img", &differs);
    place.says(
        "status --deep --json DIR/base.img",
        &format!(
            "[\n  {{\n    \"origin\": \"DIR/base.img\",\n    \"state\": \"sealed\",\n    \"digest\": \"{other}\",\n    \"content\": \"differs\"\n  }}\n]\n{differs}"
        ),
    );
    let table = place.session("status --deep DIR/base.img");
    assert!(table.contains("sealed DIFFERS blake3:"), "{table}");
}

#[test]
fn somebody_writes_to_it() {
    let place = Place::new("used");
    let image = OpenOptions::new().append(true).open(place.image()).expect("the image");
    let mut writer = Command::new("sleep").arg("1000").stdout(image).spawn().expect("sleep");
    let refused = format!(
        "ttvm: DIR/base.img is in use by the process sleep (pid {}), and could be written while it is sealed: end that use and try again\n[4]",
        writer.id()
    );
    place.says("seal DIR/base.img", &refused);
    place.says("seal --dry-run DIR/base.img", &refused);
    assert_eq!(place.mode(), 0o664);
    writer.kill().and_then(|()| writer.wait()).expect("it ends");
    // A reader does no harm.
    let _reader = File::open(place.image()).expect("the image");
    place.says("seal DIR/base.img", "DIR/base.img is sealed: B3SUM\n[0]");
}

#[test]
fn what_can_not_be_sealed() {
    let place = Place::new("refused");
    let usage = "\n\nFor more information, try '--help'.\n[2]";
    place.says(
        "seal base.img",
        &format!(
            "error: invalid value 'base.img' for '<ORIGIN>': \"base.img\" is neither a volume, written VG/LV, nor a file, written with its whole path{usage}"
        ),
    );
    place.says(
        "seal DIR/none",
        "ttvm: there is no DIR/none: see that it is there, or make it (`ttvm image create`)\n[1]",
    );
    place.says(
        "seal DIR",
        "ttvm: DIR is not a file that can be sealed: it is no regular file; a volume is written VG/LV\n[4]",
    );
    let qcow2 = |version: u8, backing: u8, features: u8| {
        let mut header = [0; 104];
        header[..4].copy_from_slice(b"QFI\xfb");
        (header[7], header[15], header[79]) = (version, backing, features);
        let image = OpenOptions::new().write(true).open(place.image()).expect("the image");
        image.write_all_at(&header, 0).expect("a header");
    };
    for (version, backing, features, what) in [
        (2, 200, 0, "another image, on top of which it was made"),
        (3, 0, 4, "a file with its data"),
    ] {
        qcow2(version, backing, features);
        place.says(
            "seal DIR/base.img",
            &format!(
                "ttvm: DIR/base.img is not all of its image, which needs {what}: seal that one, or make it one file (`qemu-img convert`)\n[4]"
            ),
        );
    }
    assert_eq!(place.mode(), 0o664);
    qcow2(2, 0, 4);
    assert!(place.session("seal DIR/base.img").ends_with("[0]"));
    // No guests, no origins; and one that cannot be looked at does not hide another.
    place.says("status", "no guest has an origin\n[0]");
    let status = place.session("status DIR/none DIR/base.img");
    assert!(
        status.contains("DIR/base.img sealed ")
            && status.ends_with("there is no DIR/none: see that it is there, or make it (`ttvm image create`)\n[1]"),
        "{status}"
    );
}

#[test]
fn the_seal_lies_beside_the_file_itself() {
    let place = Place::new("link");
    let links = place.0.join("links");
    fs::create_dir(&links).expect("a directory");
    symlink("../base.img", links.join("link")).expect("a link");
    place.says("seal DIR/links/link", "DIR/base.img is sealed: B3SUM\n[0]");
    assert!(place.seal().exists());
    let status = place.session("status DIR/links/link");
    assert!(status.contains("DIR/links/link sealed"), "{status}");
}

/// Wherever it dies, what is left is never taken for sealed unless it is, and the next try works.
#[test]
fn killed_at_every_step() {
    let place = Place::new("killed");
    let killed = |line: &str, point: &str| {
        let status = place.command(line).env("TTVM_FAIL_POINT", point).status();
        assert_eq!(status.expect("ttvm runs").signal(), Some(9), "{point}");
        place.session("status DIR/base.img")
    };
    for point in ["image.read-only", "image.digested"] {
        let status = killed("seal DIR/base.img", point);
        assert!(status.contains("DIR/base.img not sealed -"), "{point}: {status}");
        place.says("seal DIR/base.img", "DIR/base.img is sealed: B3SUM\n[0]");
        let status = killed("unseal DIR/base.img", "image.untagged");
        assert!(status.contains("DIR/base.img not sealed -"), "{point}: {status}");
        place.says("unseal DIR/base.img", "DIR/base.img is writable again\n[0]");
    }
    let status = killed("seal DIR/base.img", "image.sealed");
    assert!(status.contains("DIR/base.img sealed "), "{status}");
}

/// Sends signals to one who seals zeros for minutes, and who was told what to do on SIGINT. Returns what ended it.
fn signalled(place: &Place, on_interrupt: SigHandler, signals: &[Signal]) -> Option<i32> {
    let image = OpenOptions::new().write(true).open(place.image()).expect("the image");
    image.set_len(1 << 42).expect("a large image");
    // Nobody seals what somebody has open to write.
    drop(image);
    let mut command = place.command("seal DIR/base.img");
    let told = move || {
        // SAFETY: it is no handler of ours.
        unsafe { signal(Signal::SIGINT, on_interrupt) }?;
        Ok(())
    };
    // SAFETY: a system call only.
    unsafe { command.pre_exec(told) };
    let mut child = command.stderr(Stdio::piped()).spawn().expect("ttvm runs");
    while place.mode() != 0o444 {
        assert!(child.try_wait().expect("a child").is_none(), "it has ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    for signal in signals {
        kill(pid, *signal).expect("a signal");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it is there");
        let is_ignored = *signal == Signal::SIGINT && matches!(on_interrupt, SigHandler::SigIgn);
        assert!(
            !is_ignored || status.contains("ShdPnd:\t0000000000000000\n"),
            "{status}"
        );
    }
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    // On a busy machine it has said how far it was.
    let errors: String = errors
        .split_inclusive('\n')
        .filter(|line| !line.contains("%"))
        .collect();
    assert_eq!(errors, format!("ttvm: {} is writable again\n", place.image().display()));
    assert!(place.mode() == 0o664 && !place.seal().exists());
    output.status.signal()
}

#[test]
fn interrupted_it_is_writable_again() {
    let place = Place::new("interrupted");
    let ended = signalled(&place, SigHandler::SigDfl, &[Signal::SIGINT]);
    assert_eq!(ended, Some(Signal::SIGINT as i32));
}

/// A job in the background of a shell is not meant when somebody presses ^C.
#[test]
fn an_ignored_signal_does_not_interrupt() {
    let place = Place::new("ignored");
    let ended = signalled(&place, SigHandler::SigIgn, &[Signal::SIGINT, Signal::SIGTERM]);
    assert_eq!(ended, Some(Signal::SIGTERM as i32));
}

/// Holes count as the zeros they stand for, wherever they are.
#[test]
fn holes_are_zeros() {
    let place = Place::new("holes");
    let content = |pieces: &[(u64, u64)], size: u64| {
        let file = File::create(place.image()).expect("an image");
        file.set_len(size).expect("its size");
        let mut whole = vec![0; size as usize];
        for (at, length) in pieces {
            let part = &mut whole[*at as usize..(at + length) as usize];
            part.fill(0xa5);
            file.write_all_at(part, *at).expect("data");
        }
        let found = digest::of_path(&place.image(), &mut |_, _| ControlFlow::Continue(()));
        assert_eq!(found.expect("a digest").to_string(), digest_of(&whole), "{pieces:?}");
    };
    let mib = 1 << 20;
    content(&[], 0);
    content(&[], 5 * mib + 1);
    content(&[(0, 10)], 3 * mib);
    content(&[(2 * mib, 4096)], 2 * mib + 4096);
    content(&[(mib, 2 * mib), (6 * mib + 512, 100)], 9 * mib + 77);
}

#[test]
fn a_digest_is_called_off_between_pieces() {
    let place = Place::new("off");
    let mut file = File::create(place.image()).expect("an image");
    file.write_all(&[1; 3 << 20]).expect("data");
    let mut pieces = Vec::new();
    let stopped: Result<Digest, _> = digest::of_path(&place.image(), &mut |done, total| {
        pieces.push((done, total));
        ControlFlow::Break(())
    });
    assert!(matches!(stopped, Err(digest::Error::Interrupted)));
    assert_eq!(pieces, [(1 << 20, 3 << 20)]);
}

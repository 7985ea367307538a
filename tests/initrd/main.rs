// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm initrd` on images that each test makes in a directory of its own.

mod archive;
mod formats;
mod hostile;
mod killed;
mod linux;
mod others;
mod roundtrip;
mod unusual;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use archive::Archive;

/// A directory of one test.
pub struct Place(PathBuf);

impl Place {
    pub fn new(name: &str) -> Self {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("initrd-{name}"));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).expect("a directory");
        Self(place.canonicalize().expect("a directory"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn put(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("a file");
        path
    }

    /// `ttvm initrd LINE`.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ttvm"));
        command
            .current_dir(&self.0)
            .arg("initrd")
            .args(line.split_whitespace())
            .env("TZ", "UTC")
            .env_remove("SOURCE_DATE_EPOCH")
            .stdin(Stdio::null());
        command
    }

    /// What that prints, and how it ends.
    pub fn session(&self, line: &str) -> String {
        said(&mut self.command(line))
    }

    /// What `list` prints, without what it says of Linux.
    pub fn listed(&self, image: &str) -> String {
        let said = self.session(&format!("list {image}"));
        let lines = said.lines().filter(|line| !line.starts_with("segment "));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[track_caller]
    pub fn says(&self, line: &str, expected: &str) {
        assert_eq!(self.session(line), expected, "{line}");
    }

    /// The same of an ordinary user, if it is possible to become one.
    pub fn of_user(&self, line: &str) -> Option<Command> {
        if !nix::unistd::geteuid().is_root() {
            return Some(self.command(line));
        }
        fs::set_permissions(&self.0, fs::Permissions::from_mode(0o777)).expect("a mode");
        let mut command = Command::new("setpriv");
        command
            .current_dir(&self.0)
            .args(["--reuid=4242", "--regid=4242", "--clear-groups", "--inh-caps=-all"])
            .arg(self.path("ttvm"))
            .arg("initrd")
            .args(line.split_whitespace())
            .stdin(Stdio::null());
        // The directories of a build may be closed to others, but this one can be reached from nowhere else then.
        let reachable = Command::new("setpriv")
            .args(["--reuid=4242", "--regid=4242", "--clear-groups", "test", "-w"])
            .arg(&self.0)
            .status()
            .is_ok_and(|status| status.success());
        if !reachable {
            eprintln!("skipped: no ordinary user can work in {}", self.0.display());
            return None;
        }
        if !self.path("ttvm").exists() {
            // Not by this process: another test's child would have it open for writing, and it could not be run.
            let copied = Command::new("cp")
                .arg(env!("CARGO_BIN_EXE_ttvm"))
                .arg(self.path("ttvm"))
                .status();
            assert!(copied.is_ok_and(|status| status.success()), "a copy of ttvm");
        }
        Some(command)
    }

    /// Names of everything in the directory, in their order.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("a directory");
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<String> = entries
            .map(|entry| name(entry).to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

pub fn said(command: &mut Command) -> String {
    let output = command.output().expect("ttvm runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    format!("{}{}[{code}]", text(&output.stdout), text(&output.stderr))
}

/// Everything that is known of the files below a directory, but of the directory itself.
pub fn tree(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut ahead = vec![directory.to_owned()];
    while let Some(path) = ahead.pop() {
        let data = fs::symlink_metadata(&path).expect("a file");
        let name = path.strip_prefix(directory).expect("a file below it").to_owned();
        let content = match data.file_type() {
            kind if kind.is_file() => format!("{:x?}", fs::read(&path).expect("its content")),
            kind if kind.is_symlink() => format!("{:?}", fs::read_link(&path).expect("its target")),
            kind if kind.is_dir() => {
                ahead.extend(
                    fs::read_dir(&path)
                        .expect("its files")
                        .map(|entry| entry.expect("a file").path()),
                );
                String::new()
            }
            _ => format!("{:x}", data.rdev()),
        };
        let links = if data.is_dir() { 0 } else { data.nlink() };
        let line = format!(
            "{name:?} {:o} {}:{} {links} {}.{} {content}",
            data.mode(),
            data.uid(),
            data.gid(),
            data.mtime(),
            data.mtime_nsec()
        );
        if path != directory && name != Path::new("ttvm-initrd.jsonl") {
            lines.push(line);
        }
    }
    lines.sort();
    lines
}

/// Microcode, then a root file system.
fn sample() -> Vec<u8> {
    let micro = Archive::new()
        .directory("kernel", 0o755)
        .directory("kernel/x86", 0o755)
        .directory("kernel/x86/microcode", 0o755)
        .file("kernel/x86/microcode/GenuineIntel.bin", 0o644, &[7; 1000])
        .end(512);
    let root = Archive::new()
        .directory(".", 0o755)
        .file("init", 0o4755, b"#!/bin/sh\n")
        .link("lib", "usr/lib")
        .node("null", 0o020_666, (1, 3))
        .file("a\nb\u{1b}[2J", 0o600, b"")
        .end(512);
    [micro, zstd::encode_all(&root[..], 3).expect("zstd")].concat()
}

#[test]
fn what_is_in_an_image() {
    let place = Place::new("show");
    let image = sample();
    let (micro, packed) = (1648, image.len() - 2048);
    place.put("i", &image);
    place.says(
        "inspect i",
        &format!(
            "SEGMENT  OFFSET  SIZE  COMPRESSION  UNPACKED  FILES  CONTENT\n\
             1        0       {micro}  none         {micro}      4      microcode of Intel\n\
             2        2048    {packed}   zstd         1024      5      init\n[0]"
        ),
    );
    place.says(
        "list i",
        "kernel\nkernel/x86\nkernel/x86/microcode\nkernel/x86/microcode/GenuineIntel.bin\n.\ninit\nlib\nnull\na\\nb\\x1b[2J\n[0]",
    );
    place.says(
        "list -z i",
        "kernel\0kernel/x86\0kernel/x86/microcode\0kernel/x86/microcode/GenuineIntel.bin\0.\0init\0lib\0null\0a\nb\u{1b}[2J\0[0]",
    );
    let long = place.session("list -l i");
    let lines: Vec<&str> = long.lines().skip(3).collect();
    assert_eq!(
        lines,
        [
            "-rw-r--r--   1     0     0      1000 2001-09-09 01:46:40 kernel/x86/microcode/GenuineIntel.bin",
            "drwxr-xr-x   2     0     0         0 2001-09-09 01:46:40 .",
            "-rwsr-xr-x   1     0     0        10 2001-09-09 01:46:40 init",
            "lrwxrwxrwx   1     0     0         7 2001-09-09 01:46:40 lib -> usr/lib",
            "crw-rw-rw-   1     0     0      1, 3 2001-09-09 01:46:40 null",
            "-rw-------   1     0     0         0 2001-09-09 01:46:40 a\\nb\\x1b[2J",
            "[0]"
        ]
    );
    let json = place.session("inspect --json i");
    let first = "[\n  {\n    \"segment\": 1,\n    \"offset\": 0,\n    \"size\": 1648,\n    \"compression\": \"none\",\n    \"unpacked\": 1648,\n    \"archives\": 1,\n    \"entries\": 4,\n    \"padding\": 400,\n    \"content\": [\n      \"microcode of Intel\"\n    ]\n  },\n";
    assert!(json.starts_with(first), "{json}");
    let json = place.session("list --json i");
    for part in [
        "    \"segment\": 2,\n    \"name\": \"lib\",\n    \"kind\": \"l\",\n    \"mode\": \"0777\",\n",
        "    \"target\": \"usr/lib\"\n",
        "    \"device\": [\n      1,\n      3\n    ]\n",
        "\"a\\\\nb\\\\x1b[2J\"",
    ] {
        assert!(json.contains(part), "{part}: {json}");
    }
    // The same from a pipe.
    let mut command = place.command("list -");
    command.stdin(fs::File::open(place.path("i")).expect("the image"));
    assert_eq!(said(&mut command), place.session("list i"));
}

#[test]
fn a_dry_run_does_nothing() {
    let place = Place::new("dry");
    place.put("i", &sample());
    place.says(
        "unpack --dry-run i u",
        "would unpack segment 1 (none): 4 entries\nwould unpack segment 2 (zstd): 5 entries\nwould put that in u\n[0]",
    );
    assert_eq!(place.names(), ["i"]);
    place.session("unpack i u");
    place.says(
        "pack --dry-run u p",
        "would pack segment 1 (none): 4 entries\nwould pack segment 2 (zstd at level 9): 5 entries\nwould put that in p\n[0]",
    );
    assert_eq!(place.names(), ["i", "u"]);
}

#[test]
fn what_is_refused() {
    let place = Place::new("refused");
    place.put("i", &sample());
    fs::create_dir(place.path("full")).expect("a directory");
    place.put("full/x", b"");
    let taken = "is there already, and is not an empty directory: name one that is not there, or remove it\n[4]";
    place.says("unpack i full", &format!("ttvm: full {taken}"));
    place.says("unpack i i", &format!("ttvm: i {taken}"));
    place.says("unpack --dry-run i i", &format!("ttvm: i {taken}"));
    place.says(
        "unpack i none/u",
        "ttvm: cannot read none\n  because: No such file or directory (os error 2)\n[1]",
    );
    place.says(
        "unpack none u",
        "ttvm: cannot open none\n  because: No such file or directory (os error 2)\n[1]",
    );
    place.says("inspect full", "ttvm: full is not an image: it is a directory\n[1]");
    place.says("pack full i", "ttvm: i is there already; `--force` replaces it\n[4]");
    place.says("pack i p", "ttvm: i is not a directory\n[1]");
    place.says(
        "pack none p",
        "ttvm: cannot open none\n  because: No such file or directory (os error 2)\n[1]",
    );
    place.says(
        "pack --level 20 full p",
        "ttvm: zstd has no level 20: it has 1 to 19\n[2]",
    );
    place.says(
        "pack --compression lzo --level 1 full p",
        "ttvm: lzo has no level 1: it has but one\n[2]",
    );
    let mut command = place.command("pack full p");
    assert_eq!(
        said(command.env("SOURCE_DATE_EPOCH", "now")),
        "ttvm: SOURCE_DATE_EPOCH is \"now\", which is no number of seconds since 1970\n[2]"
    );
    place.session("unpack i u");
    place.says(
        "pack --compression xz u p",
        "ttvm: u was unpacked from an image, and each of its segments stays compressed as it was: leave `--compression` out\n[2]",
    );
    place.put("u/x", b"");
    place.says(
        "pack u p",
        "ttvm: u/x belongs to no segment: move it into one of the directories beside it, which are the segments\n[4]",
    );
    fs::remove_file(place.path("u/x")).expect("it goes");
    let list = place.path("u/ttvm-initrd.jsonl");
    let text = fs::read_to_string(&list).expect("the list");
    fs::write(&list, text.replacen("\"kernel\"", "\"../kernel\"", 1)).expect("another list");
    place.says(
        "pack u p",
        "ttvm: u/ttvm-initrd.jsonl:4: its name has .. in it, which leads out of the directory; unpack the image again, or remove this file to pack u as one archive\n[1]",
    );
    assert_eq!(place.names(), ["full", "i", "u"]);
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm image create` with real file systems: as root compared with their source by rsync, on a mount that only the
//! comparison sees; as anybody by what e2fsprogs says of them.

mod archives;
mod attributes;
mod damaged;
mod guest;
mod killed;
mod links;
mod live;
mod members;
mod odd;
mod refused;
mod sources;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::unistd::geteuid;

/// A directory of one test.
struct Place(PathBuf);

/// `ttvm: reading DIR: 40%`, and not something damaged that happens to have such a character.
fn is_progress(line: &str) -> bool {
    let before = line.strip_prefix("ttvm: ").and_then(|line| line.split_once('%'));
    before.is_some_and(|(before, _)| {
        let number = before.rsplit(": ").next().unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

impl Place {
    fn new(name: &str) -> Self {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("create-{name}"));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(place.join("src")).expect("a directory");
        Self(place.canonicalize().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file of the source, with the directories it is in.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path("src").join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(&path, content).expect("a file");
        path
    }

    /// `ttvm image create clientA LINE`, in which `DIR` is this directory.
    fn command(&self, line: &str) -> Command {
        let directory = self.0.to_str().expect("a path");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ttvm"));
        command
            .args(["--root", directory, "image", "create", "clientA"])
            .args(line.split_whitespace().map(|word| word.replace("DIR", directory)))
            .stdin(Stdio::null());
        command
    }

    /// What that prints, and how it ends. How long it took is left out.
    fn session(&self, line: &str) -> String {
        self.said(&self.command(line).output().expect("ttvm runs"))
    }

    fn said(&self, output: &Output) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        let text = format!("{}{}[{code}]", text(&output.stdout), text(&output.stderr));
        let text = text.replace(self.0.to_str().expect("a path"), "DIR");
        // On a busy machine it has said how far it was.
        let lines = text.lines().filter(|line| !is_progress(line));
        let lines = lines.map(|line| match line.split_once(" MB) in ") {
            Some((before, _)) => format!("{before} MB)"),
            None => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn says(&self, line: &str, expected: &str) {
        assert_eq!(self.session(line), expected, "{line}");
    }

    /// The image is made of `src`, and sound.
    fn made(&self, line: &str) -> String {
        let said = self.session(&format!("--file DIR/image {line}"));
        assert!(said.contains("DIR/image is made: ") && said.ends_with("[0]"), "{said}");
        sound(&self.path("image"));
        said
    }

    /// What is in a file of the image; empty if there is none.
    fn content(&self, path: &str) -> String {
        debugfs(&self.path("image"), &format!("cat {path}"))
    }

    /// Whether there is such a file in the image.
    fn has(&self, path: &str) -> bool {
        debugfs(&self.path("image"), &format!("stat {path}")).contains("Inode: ")
    }

    /// What differs between the source and the image, by rsync.
    fn differences(&self) -> String {
        let script = "set -e; mkdir -p mnt; mount -o loop,ro image mnt
            rsync -aHAXxni --checksum --delete --numeric-ids --exclude=/lost+found src/ mnt/";
        let output = self.privately(script);
        assert!(output.status.success(), "{}", self.said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A script in this directory, with mounts that nobody else sees.
    fn privately(&self, script: &str) -> Output {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .env("TTVM", env!("CARGO_BIN_EXE_ttvm"))
            .env("DIR", &self.0)
            .current_dir(&self.0);
        command.output().expect("unshare runs")
    }

    /// What is in the directory, without the source.
    fn rest(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the directory").flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name != "src").collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// Nothing is wrong with a file system.
fn sound(image: &Path) {
    let output = Command::new("/usr/sbin/e2fsck").arg("-fn").arg(image).output();
    let output = output.expect("e2fsck runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
}

fn debugfs(image: &Path, request: &str) -> String {
    let output = Command::new("/usr/sbin/debugfs")
        .args(["-R", request])
        .arg(image)
        .output();
    String::from_utf8_lossy(&output.expect("debugfs runs").stdout).into_owned()
}

/// Says why a test does nothing where only root can do it.
fn is_root() -> bool {
    let root = geteuid().is_root() && Path::new("/dev/loop-control").exists();
    if !root {
        eprintln!("skipped: only root can mount what is to be compared");
    }
    root
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

fn sh(script: &str, directory: &Path) {
    let status = Command::new("sh").args(["-ec", script]).current_dir(directory).status();
    assert!(status.expect("sh runs").success(), "{script}");
}

/// Of an empty file in an archive.
fn header() -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    for number in [
        tar::Header::set_size,
        tar::Header::set_uid,
        tar::Header::set_gid,
        tar::Header::set_mtime,
    ] {
        number(&mut header, 0);
    }
    header
}

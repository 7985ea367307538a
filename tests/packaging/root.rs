// SPDX-License-Identifier: MIT OR Apache-2.0
//! A root file system of a test's own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What of Debian is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As in a container: no systemd, no GRUB, no LVM, no Xen.
    Bare,
    /// The same with apt's lists.
    Lists,
    /// With systemd, which does not run.
    Systemd,
}

pub(crate) struct Root {
    pub(crate) path: PathBuf,
}

/// A file of this project.
pub(crate) fn project(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// What a command printed; a failure is a failure of the test.
pub(crate) fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = text(&output);
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// The standard output, and what was complained about.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

impl Root {
    pub(crate) fn new(suite: &str, kind: Kind, name: &str) -> Self {
        let script = Command::new(project("tests/packaging/root.sh"))
            .arg(suite)
            .stderr(std::process::Stdio::inherit())
            .output()
            .expect("root.sh runs");
        assert!(script.status.success(), "root.sh {suite}: {}", script.status);
        let archives = PathBuf::from(String::from_utf8_lossy(&script.stdout).trim());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("packaging-{name}-{suite}-{kind:?}"));
        // A run that was killed has left it.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("dev")).expect("a directory");
        let archive = archives.join(match kind {
            Kind::Bare | Kind::Lists => "bare.tar",
            Kind::Systemd => "systemd.tar",
        });
        let mut tar = Command::new("tar");
        tar.args(["--numeric-owner", "--exclude=./dev/*"]);
        // Thousands of files that nobody here looks at.
        for unused in ["doc/*", "locale/*", "man/*/*", "zoneinfo/*"] {
            tar.arg(format!("--exclude=./usr/share/{unused}"));
        }
        if kind != Kind::Lists {
            tar.arg("--exclude=./var/lib/apt/lists/*");
        }
        succeeds(tar.arg("-xpf").arg(archive).arg("-C").arg(&path));
        let root = Self { path };
        // Nobody needs it after a power cut: on a busy disk, waiting for it is most of the time.
        root.write("etc/dpkg/dpkg.cfg.d/unsafe-io", "force-unsafe-io\n");
        succeeds(
            Command::new("mknod")
                .args(["-m", "666"])
                .arg(root.at("dev/null"))
                .args(["c", "1", "3"]),
        );
        root
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.at(path).symlink_metadata().is_ok()
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, content).expect("a file");
    }

    /// A stand-in for a program.
    pub(crate) fn program(&self, path: &str, script: &str) {
        // Not through a link: what is there belongs to somebody else.
        let _ = fs::remove_file(self.at(path));
        self.write(path, &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o755)).expect("it is executable");
    }

    /// A program that writes down that it was called, and how.
    pub(crate) fn recorder(&self, path: &str) {
        let name = path.rsplit('/').next().unwrap_or_default();
        self.program(path, &format!("echo \"{name} $*\" >> /calls"));
    }

    /// What was called since the last time.
    pub(crate) fn calls(&self) -> String {
        let calls = self.read("calls");
        let _ = fs::remove_file(self.at("calls"));
        calls
    }

    /// Without this machine's processes, mounts and network, so that a script that reaches for them fails here.
    pub(crate) fn apart(&self) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--net", "--fork", "--kill-child"])
            .arg(format!("--mount-proc={}", self.at("proc").display()))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    pub(crate) fn sh(&self, script: &str) -> Output {
        let mut command = self.apart();
        command.arg("chroot").arg(&self.path).args(["/bin/sh", "-ec", script]);
        command.output().expect("unshare runs")
    }

    pub(crate) fn run(&self, script: &str) -> String {
        let output = self.sh(script);
        let text = text(&output);
        assert!(output.status.success(), "{script}: {}\n{text}", output.status);
        text
    }

    /// Everything there is: name, kind, mode, owner, size, and where a link leads. Not what dpkg, rpm and loggers write about it.
    pub(crate) fn everything(&self) -> BTreeSet<String> {
        // The user that QEMU is stays, so that nobody else gets its number (`has_user`).
        let find = "find . -xdev \\( -path ./var/lib/dpkg -o -path ./var/log -o -path ./root/.rpmdb -o -path ./dev \
                    -o -path ./etc/.pwd.lock -o -regex './etc/g?\\(passwd\\|shadow\\|group\\)-?' \\) -prune -o -type d -printf '%p %M %U:%G\\n' -o -printf '%p %M %U:%G %s %l\\n'";
        let list = succeeds(Command::new("sh").args(["-c", find]).current_dir(&self.path));
        list.lines().map(str::to_owned).collect()
    }

    /// Whether there is the user that QEMU is where ttvm is root.
    pub(crate) fn has_user(&self) -> bool {
        self.read("etc/passwd")
            .lines()
            .any(|line| line.starts_with("ttvm-qemu:"))
    }

    /// The units that are enabled, by the links that do it.
    pub(crate) fn enabled(&self) -> Vec<String> {
        let find = "find etc/systemd/system -name 'ttvm*' ! -type d -printf '%P\\n' 2>/dev/null | LC_ALL=C sort";
        let list = succeeds(Command::new("sh").args(["-c", find]).current_dir(&self.path));
        list.lines().map(str::to_owned).collect()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // What failed is looked at afterwards.
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// What an installation enables, and nothing else: both do nothing until a network mode is chosen.
pub(crate) const ENABLED: [&str; 3] = [
    "firewalld.service.wants/ttvm-network-again.service",
    "multi-user.target.wants/ttvm-network.service",
    "nftables.service.wants/ttvm-network-again.service",
];

/// What differs, as the message of a failure.
pub(crate) fn difference(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let gone = before.difference(after).map(|line| format!("- {line}"));
    let new = after.difference(before).map(|line| format!("+ {line}"));
    gone.chain(new).collect()
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The library of recordings on real files, through the library and through `ttvm recordings`: made, killed at each step,
//! tampered with, salvaged, removed, taken to another host, with the engine that recorded them, shown in a browser.

mod browser;
mod capsule;
mod damage;
mod hostile;
mod killed;
mod library;
mod report;
mod salvage;
mod transfer;

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ttvm::config::guest::{Origin, Toolstack};
use ttvm::config::types::GuestName;
use ttvm::file::digest;
use ttvm::recording::library::draft::file_digest;
use ttvm::recording::library::manifest::{
    DiskDigest, Engine, FORMAT, FileDigest, Interface, Manifest, Outcome, Run, RunExit,
};
use ttvm::recording::{Draft, Library, Recording};

/// 2026-11-25 13:07:00 UTC.
const START: u64 = 1_795_612_020;
const GUEST_FILE: &str = "toolstack = \"qemu\"\n";

fn goes_on(_: u64, _: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Bytes that do not compress, always the same.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(step).collect()
}

/// A host with a state directory of its own, a kernel, and a disk image with a hole.
struct World {
    directory: PathBuf,
    guest: GuestName,
    library: Library,
}

impl World {
    fn new(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recordings").join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join("vmlinuz"), noise(70_000)).expect("a kernel");
        fs::write(directory.join("initrd.img"), noise(5000)).expect("an initrd");
        let image = File::create(directory.join("base.img")).expect("an image");
        image.set_len(3 << 20).expect("a hole");
        fs::write(directory.join("data"), noise(100_000)).expect("data");
        std::os::unix::fs::FileExt::write_all_at(&image, &noise(100_000), 1 << 20).expect("data");
        Self {
            library: Library::open(&directory.join("state")),
            guest: "clientA".parse().expect("a name"),
            directory,
        }
    }

    fn file(&self, name: &str) -> FileDigest {
        let path = self.directory.join(name);
        file_digest(&path, &path, &mut goes_on).expect("a digest")
    }

    /// What is known of a run that began at `started`.
    fn manifest(&self, started: u64) -> Manifest {
        let image = self.file("base.img");
        Manifest {
            format: FORMAT,
            guest: self.guest.clone(),
            run: Run {
                ttvm: "0.1.0".to_owned(),
                started,
                boot: "8b1c2d3e-0000-4000-8000-000000000000".to_owned(),
                network: "user".to_owned(),
            },
            engine: Engine {
                toolstack: Toolstack::Qemu,
                version: "7.2.22".to_owned(),
                machine: "pc-i440fx-7.2".to_owned(),
                cpu: "qemu64".to_owned(),
                icount: "3".to_owned(),
                began: None,
                memory: 96 << 20,
                cmdline: Some("console=ttyS0".to_owned()),
                reset_ends: false,
                hpet: false,
                config: digest::of_bytes(b"configuration"),
                firmware: Vec::new(),
            },
            guest_file: FileDigest::of_bytes(Path::new("/etc/ttvm/guests/clientA.toml"), GUEST_FILE.as_bytes()),
            kernel: Some(self.file("vmlinuz")),
            initrd: Some(self.file("initrd.img")),
            disks: vec![DiskDigest {
                target: "vda".parse().expect("a target"),
                origin: Origin::File(image.path),
                size: image.size,
                digest: image.digest,
                sealed: false,
                writable: true,
                end: None,
            }],
            vifs: vec![Interface {
                mac: "00:16:3e:00:00:01".parse().expect("an address"),
            }],
            parent: None,
            result: None,
        }
    }

    fn draft(&self, started: u64) -> Draft {
        let manifest = self.manifest(started);
        self.library
            .create(&self.guest, &manifest, GUEST_FILE)
            .expect("a draft")
    }

    /// Lets a guest run and come to its end.
    fn run(&self, draft: Draft, started: u64) -> Recording {
        let console = "Linux version 6.1\nwelcome\n".repeat(100);
        let (log, manifest) = (noise(300_000), self.manifest(started));
        Self::ran(draft, manifest, &log, console.as_bytes(), Some(123_456_789))
    }

    /// A guest has run: what `manifest` says of it before its end, its log, what it printed, and how many instructions it executed.
    fn ran(draft: Draft, mut manifest: Manifest, log: &[u8], console: &[u8], instructions: Option<u64>) -> Recording {
        fs::write(draft.log(), log).expect("a log");
        fs::write(draft.console(), console).expect("a console");
        let (log, console) = draft.digests(&mut goes_on).expect("digests");
        manifest.result = Some(Outcome {
            ended: manifest.run.started + 72,
            exit: RunExit::PoweredOff,
            instructions,
            console_complete: true,
            log,
            console,
            moments: Vec::new(),
        });
        draft.finish(&manifest).expect("a recording")
    }

    fn record(&self, started: u64) -> Recording {
        self.run(self.draft(started), started)
    }

    /// `ttvm` with this host's state directory.
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ttvm"));
        command
            .arg("--state-dir")
            .arg(self.library.state_directory())
            .env("TZ", "UTC")
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        command
    }

    /// What `ttvm recordings` prints and how it ends.
    fn exact(&self, line: &str) -> String {
        let output = self
            .command()
            .arg("recordings")
            .args(line.split_whitespace())
            .output()
            .expect("ttvm runs");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        // On a busy machine this takes so long that ttvm says how far it is.
        let is_progress = |line: &&str| {
            let works = ["ttvm: exporting ", "ttvm: importing ", "ttvm: reading "];
            works.iter().any(|work| line.starts_with(work)) && line.contains('%')
        };
        let error = String::from_utf8_lossy(&output.stderr);
        text.extend(error.split_inclusive('\n').filter(|line| !is_progress(line)));
        if let Some(code) = output.status.code().filter(|code| *code != 0) {
            text += &format!("[{code}]\n");
        }
        text.replace(&self.directory.display().to_string(), "DIR")
    }

    /// The same with columns one space apart, and without what file systems differ in: sizes on the disk.
    fn ttvm(&self, line: &str) -> String {
        let is_size = |word: &str| {
            let number = word.trim_matches(['(', ')', ';', ',']).strip_suffix(['K', 'M']);
            number.is_some_and(|number| number.contains('.') && number.parse::<f64>().is_ok())
        };
        let words = |line: &str| {
            let words = line.split_whitespace();
            let words = words.map(|word| if is_size(word) { "SIZE" } else { word });
            words.collect::<Vec<_>>().join(" ") + "\n"
        };
        self.exact(line).lines().map(words).collect()
    }

    fn recordings(&self) -> PathBuf {
        self.library.state_directory().join("recordings")
    }

    /// Every file and directory below the state directory, sorted.
    fn tree(&self) -> Vec<String> {
        fn walk(path: &Path, base: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = path.strip_prefix(base).expect("below");
                found.push(name.display().to_string());
                if path.is_dir() {
                    walk(&path, base, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(
            self.library.state_directory(),
            self.library.state_directory(),
            &mut found,
        );
        found.sort();
        found
    }
}

/// This program again, to do what the test `name` does for whoever sets TTVM_TEST_STATE.
fn again(name: &str, state: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", name, "--nocapture"])
        .env("TTVM_TEST_STATE", state)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

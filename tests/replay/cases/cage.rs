// SPDX-License-Identifier: MIT OR Apache-2.0
//! What QEMU may do, and what it is shown.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use ttvm::file::digest;
use ttvm::recording::library::manifest::{FileDigest, Manifest};
use ttvm::recording::library::sealed;

use super::super::Outcome;
use super::super::lab::{FILE, GUEST, Lab, Place, Running, STATE, console_says, contents};
use super::super::mutants::events;
use super::describe_tiny;

/// QEMU starts no program and gains no right, whoever runs it.
pub fn sandbox(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("loop", "");
    let running = place.start(&["record", GUEST], "recording as");
    console_says(&place, "turn 1 ");
    let status = fs::read_to_string(format!("/proc/{}/status", running.emulator())).expect("its status");
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
        assert!(status.contains(line), "no {line} in\n{status}");
    }
    running.signal(Signal::SIGINT);
    running.end().expect(0, &["recorded demo "]);
    Ok(())
}

/// A guest reaches what its file says, and not the host's own services by itself.
pub fn host_out_of_reach(lab: &Lab) -> Outcome {
    let place = lab.place();
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for connection in server.incoming() {
            drop(connection.and_then(|mut connection| connection.write_all(b"secret")));
        }
    });
    place.describe(&format!("net,tcp:{port}"), "");
    place.record(&[]);
    let console = contents(&place.recording().console());
    let nothing = "fetched d41d8cd98f00b204e9800998ecf8427e";
    assert!(console.contains(nothing), "the guest reached the host:\n{console}");
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    Ok(())
}

/// What lies where somebody happens to be is not the machine's firmware.
pub fn firmware_lying_about(lab: &Lab) -> Outcome {
    let place = lab.place();
    describe_tiny(&place, "");
    place.write("bios-256k.bin", b"no BIOS");
    place.write("multiboot_dma.bin", b"no loader");
    place.record(&[]);
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    Ok(())
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o777
}

/// Nobody else reads the guest's memory or disks, or speaks to its debugger, whatever the umask.
pub fn modes(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("loop", "");
    let open = |args: &[&str]| {
        let mut command = place.command(args);
        // SAFETY: one system call.
        unsafe {
            command.pre_exec(|| {
                nix::sys::stat::umask(nix::sys::stat::Mode::empty());
                Ok(())
            });
        }
        command
    };
    let overlays = place.path(STATE).join("overlays");
    let mut running = Running::start(open(&["record", GUEST]));
    running.wait_for("recording as");
    console_says(&place, "turn 1 ");
    assert_eq!(
        (mode(&overlays), mode(&overlays.join("demo-vda.qcow2"))),
        (0o700, 0o600)
    );
    let directory = place.entry().directory;
    assert_eq!((mode(&directory), mode(&directory.join("replay.log"))), (0o700, 0o600));
    running.signal(Signal::SIGINT);
    running.end().expect(0, &["recorded demo "]);

    // As an older ttvm left it.
    fs::set_permissions(&overlays, PermissionsExt::from_mode(0o755)).expect("a mode");
    let mut running = Running::start(open(&["replay", GUEST, "--gdb", "--paused"]));
    running.wait_for("replaying");
    assert_eq!(mode(&overlays), 0o700);
    let socket = overlays.join("demo.gdb");
    assert!(fs::metadata(&socket).expect("a socket").file_type().is_socket());
    assert_eq!(
        (mode(&socket), mode(&overlays.join("demo-state.qcow2"))),
        (0o600, 0o600)
    );

    // The debugger's protocol has QEMU's monitor in it, which starts programs where it may.
    let target = place.path("pwned");
    let mut debugger = UnixStream::connect(&socket).expect("the debugger's socket");
    debugger
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a limit");
    let words = format!("migrate \"exec:id > {}\"", target.display());
    let hex: String = words.bytes().map(|byte| format!("{byte:02x}")).collect();
    let packet = format!("qRcmd,{hex}");
    let sum = packet.bytes().fold(0u8, u8::wrapping_add);
    debugger
        .write_all(format!("${packet}#{sum:02x}").as_bytes())
        .expect("it is sent");
    let _ = debugger.read(&mut [0; 4096]);
    std::thread::sleep(Duration::from_secs(2));
    assert!(!target.exists(), "QEMU started a program");
    running.signal(Signal::SIGINT);
    running.end();
    assert!(!socket.exists() && !overlays.join("demo-state.qcow2").exists());
    Ok(())
}

/// The newest recording with another log and what `change` makes of its manifest, sealed as if that were right.
fn forge(place: &Place, log: Option<&[u8]>, change: impl FnOnce(&mut Manifest)) {
    let recording = place.recording();
    let mut manifest = recording.manifest().clone();
    if let Some(log) = log {
        fs::write(recording.log(), log).expect("a log");
        let result = manifest.result.as_mut().expect("a result");
        result.log = FileDigest {
            path: result.log.path.clone(),
            size: log.len() as u64,
            digest: digest::of_bytes(log),
        };
    }
    change(&mut manifest);
    let text = manifest.to_text().expect("text");
    fs::write(recording.directory().join(sealed::NAME), text).expect("a manifest");
    place.give();
}

/// QEMU takes numbers in a log for indexes. It is not shown such a log.
pub fn hostile_logs(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random", "");
    place.record(&[]);
    let good = fs::read(place.recording().log()).expect("a log");
    let refused = |log: &[u8], words: &[&str]| {
        forge(&place, Some(log), |_| {});
        let ran = place.replay(&["--verify"]);
        ran.expect(
            4,
            &[
                "nothing of demo ",
                "replay.log is not what its machine can have written",
            ],
        )
        .expect(4, words);
        assert_eq!(place.recording().replays(), None);
    };
    // QEMU 7.2 begins with a clock, later ones do not.
    let behind = events(&good)[0].end;
    let with = |event: &[u8]| [&good[..behind], event, &good[behind..]].concat();
    refused(&with(b"\x07\xc8\0\0\0\x01A"), &["an event of serial port 200"]);
    refused(&with(b"\x09\x05\0\0\0\0\0\0\0\x40"), &["an event of network 5"]);
    refused(&with(b"\x17\0\0\xff\xff"), &["an event of kind 23"]);
    refused(&good[..good.len() - 1], &["it is cut off"]);
    refused(&[&good[..], b"\0"].concat(), &["more behind the end"]);
    refused(b"\0\xe0\x20\x0d and more", &["it is no log of a QEMU"]);
    forge(&place, Some(&good), |_| {});
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    Ok(())
}

/// A machine that the host cannot hold is not begun.
pub fn too_much_memory(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random", "");
    place.record(&[]);
    fs::remove_file(place.path(super::super::lab::FILE)).expect("the guest's file");
    forge(&place, None, |manifest| manifest.engine.memory = 1 << 53);
    place
        .replay(&["--verify"])
        .expect(4, &["the machine has 8192T of memory, and this host has "]);
    Ok(())
}

/// What is made for a replay has the name that is locked, not the one that the sender chose.
pub fn two_names(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,sleep:15,disk", "");
    place.record(&[]);
    let out = ["recordings", "export", GUEST, "--with-disks", "-o", "demo.ttvm"];
    place.run(&out).expect(0, &[]);
    let file = place.path("demo.ttvm").display().to_string();
    place
        .run(&["recordings", "import", "--as", "other", &file])
        .expect(0, &["imported other "]);
    let first = place.start(&["replay", GUEST, "--verify"], "replaying");
    let second = place.start(&["replay", "other", "--verify"], "replaying");
    let overlays = place.path(STATE).join("overlays");
    assert!(overlays.join("demo-vda.qcow2").exists() && overlays.join("other-vda.qcow2").exists());
    second.end().expect(0, &["IDENTICAL: other "]);
    first.end().expect(0, &["IDENTICAL: demo "]);
    Ok(())
}

/// Nor does a run that is recorded lose its disk to the replay of a recording that had the same name elsewhere.
pub fn record_beside_replay(lab: &Lab) -> Outcome {
    let place = lab.place();
    describe_tiny(&place, "");
    place.record(&[]);
    let first = place.entry();
    let out = ["recordings", "export", GUEST, "--with-disks", "-o", "demo.ttvm"];
    place.run(&out).expect(0, &[]);
    place
        .run(&["recordings", "import", "--as", "other", "demo.ttvm"])
        .expect(0, &["imported other "]);
    place.edit(FILE, "console=ttyS0 ", "console=ttyS0 loop");
    let recording = place.start(&["record", GUEST], "recording as");
    let overlay = place.path(STATE).join("overlays/demo-vda.qcow2");
    let number = |path: &Path| fs::metadata(path).expect("an overlay").ino();
    let before = number(&overlay);
    place
        .run(&["replay", "other", "--verify"])
        .expect(0, &["IDENTICAL: other "]);
    assert_eq!(number(&overlay), before);
    recording.signal(Signal::SIGINT);
    recording.end().expect(0, &["recorded demo ", "stopped after"]);
    assert_ne!(place.recording().id(), &first.id);
    place.replay(&["--verify"]).expect(0, &["IDENTICAL: demo "]);
    Ok(())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A recording that brings the engine that recorded it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::geteuid;
use ttvm::recording::Recording;

use super::super::lab::{FILE, GUEST, Lab, Place, Running, STATE, put_over, with_own_mounts};
use super::super::{Outcome, Skipped};
use super::describe_tiny;
use super::explain::{KERNEL_TEXT, LINUX};

/// The recording of `place`, with all that there is, in another place.
fn taken_along(lab: &Lab, place: &Place) -> Place {
    let other = lab.place();
    place
        .run(&[
            "recordings",
            "export",
            GUEST,
            "--with-disks",
            "--with-engine",
            "-o",
            "demo.ttvm",
        ])
        .expect(0, &["exported demo "]);
    let file = place.path("demo.ttvm").display().to_string();
    other
        .run(&["recordings", "import", &file])
        .expect(0, &["imported demo "]);
    other
}

fn digest(recording: &Recording) -> String {
    let capsule = recording.capsule().expect("its list").expect("a capsule");
    capsule.digest().to_string()
}

fn trust(place: &Place) {
    let digest = digest(&place.recording());
    place
        .run(&["recordings", "trust-engine", &digest])
        .expect(0, &["may be run"]);
}

/// Where no QEMU is installed, the same run; and what runs it is shut in from outside before it shuts itself in.
pub fn no_engine_installed(lab: &Lab) -> Outcome {
    if !geteuid().is_root() {
        return Err(Skipped("hiding a program takes root"));
    }
    let place = lab.place();
    place.describe("random,disk", "");
    place.record(&[]);
    let other = taken_along(lab, &place);
    trust(&other);
    let qemu = ttvm::run::find("/".as_ref(), "qemu-system-x86_64").expect("QEMU");
    with_own_mounts(|| {
        put_over(&qemu, Path::new("/dev/null"));
        other.replay(&["--verify"]).expect(1, &["QEMU is not installed"]);
        let running = other.start(&["replay", GUEST, "--verify", "--engine", "capsule"], "replaying");
        let status = fs::read_to_string(format!("/proc/{}/status", running.emulator())).expect("its status");
        for line in ["NoNewPrivs:\t1", "Seccomp_filters:\t2", "CapEff:\t0000000000000000"] {
            assert!(status.contains(line), "no {line} in\n{status}");
        }
        running.end().expect(0, &["IDENTICAL: demo "]);
    });
    let recording = other.recording();
    let version = &recording.manifest().engine.version;
    let line = format!("    identical on: {version} in its capsule\n");
    other
        .run(&["recordings", "show", GUEST])
        .expect(0, &[&line, ", trusted\n"]);
    Ok(())
}

/// All that a replay can do: checkpoints, points, packets, memory, a debugger, and finding a difference.
pub fn points_and_packets(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,disk", "");
    place.record(&[]);
    let other = taken_along(lab, &place);
    trust(&other);
    let replay = |args: &[&str]| other.replay(&[&["--engine", "capsule"], args].concat());
    replay(&["--verify", "--pcap", "packets"]).expect(0, &["IDENTICAL: demo "]);
    assert!(fs::metadata(other.path("packets")).expect("packets").len() >= 24);
    // It leaves nothing that another engine would load.
    replay(&["--at", "80%"]).expect(
        0,
        &["there are no checkpoints", "IDENTICAL: demo ", " is the same run: "],
    );
    replay(&["--at", "80%", "--dump-memory", "theirs"]).expect(0, &["are in theirs"]);
    other
        .replay(&["--at", "80%", "--dump-memory", "ours"])
        .expect(0, &["are in ours"]);
    let read = |name: &str| fs::read(other.path(name)).expect(name);
    assert!(read("theirs") == read("ours"), "another memory");
    replay(&["--gdb"]).expect(2, &["gdb does what the program at the other end asks"]);
    let flip = LINUX + 123_456_789;
    let mut command = other.command(&["replay", GUEST, "--engine", "capsule", "--verify", "--explain"]);
    command.env("TTVM_FLIP", format!("{flip}:{KERNEL_TEXT:#x}"));
    let behind = format!("behind it, the byte at {KERNEL_TEXT:#x} of the memory was ");
    Running::start(command).end().expect(5, &["DIVERGED: demo ", &behind]);
    Ok(())
}

/// What is somebody else's is not run unasked, nor what is not whole.
pub fn refused(lab: &Lab) -> Outcome {
    let place = lab.place();
    describe_tiny(&place, "");
    place.record(&[]);
    let capsule = ["--verify", "--engine", "capsule"];
    place.replay(&capsule).expect(
        4,
        &["no engine came with the recording", "export it with --with-engine"],
    );
    place
        .replay(&[&capsule[..], &["--any-engine"]].concat())
        .expect(2, &["cannot be used with"]);
    let other = taken_along(lab, &place);
    let digest = digest(&other.recording());
    let remedy = format!("`ttvm recordings trust-engine {digest}`");
    other.replay(&capsule).expect(4, &["is not run unasked", &remedy]);
    let dry = [&capsule[..], &["--dry-run"]].concat();
    other.replay(&dry).expect(4, &[&remedy]);
    trust(&other);
    other.replay(&dry).expect(0, &["replay demo "]);
    other.replay(&capsule).expect(0, &["IDENTICAL: demo "]);
    // The one that is installed is the same here, and needs no word of anybody.
    other.replay(&["--verify"]).expect(0, &["IDENTICAL: demo "]);
    let files = other
        .path(STATE)
        .join("engines")
        .join(&digest["blake3:".len()..])
        .join("files");
    let program = files.join("qemu-system-x86_64");
    fs::remove_file(&program).expect("it goes");
    fs::write(&program, "another").expect("another");
    other
        .replay(&capsule)
        .expect(1, &["is damaged: the engine's ", "import them once more"]);
    Ok(())
}

/// Done on Debian 13: the recording on the standard input is replayed, another is made, and goes to the standard output.
const ON_13: &str = r#"
    set -e
    exec 3>&1 >&2
    mkdir /tmp/home
    cp "$1" /tmp/home/ttvm
    cd /tmp/home
    cp "$2/vmlinuz" "$2/initrd" .
    head -c 4M /dev/zero >base.img
    mkdir -p .config/ttvm/guests
    printf %s "$4" >.config/ttvm/guests/demo.toml
    cat >twelve.ttvm
    chown -R 65534:65534 .
    as() { setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/tmp/home ./ttvm "$@"; }
    as recordings import twelve.ttvm --as twelve
    as replay twelve --verify && exit 1
    as recordings trust-engine "$3"
    as replay twelve --verify --engine capsule
    as record demo
    as recordings export demo --with-disks --with-engine -o - >&3
"#;

fn is_debian_12() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.lines().any(|line| line == "VERSION_CODENAME=bookworm")
}

/// A recording of either is the same run on the other, whose QEMU is another version.
pub fn debian_12_and_13(lab: &Lab) -> Outcome {
    if !geteuid().is_root() || !is_debian_12() {
        return Err(Skipped("a Debian 13 beside a Debian 12 takes root, and a Debian 12"));
    }
    let (place, other) = (lab.place(), lab.place());
    place.describe("random,disk", "");
    place.record(&[]);
    let twelve = taken_along(lab, &place);
    let guest = fs::read_to_string(place.path(FILE)).expect("the guest's file");
    let guest = guest.replace(&place.path("").display().to_string(), "/tmp/home/");
    let archive = File::open(place.path("demo.ttvm")).expect("an archive");
    let thirteen = File::create(other.path("thirteen.ttvm")).expect("a file");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ran = Command::new(here.join("tests/on-trixie.sh"))
        .args(["bash", "-c", ON_13, "on-13", env!("CARGO_BIN_EXE_ttvm")])
        .arg(lab.guest())
        .args([digest(&twelve.recording()), guest])
        .stdin(archive)
        .stdout(Stdio::from(thirteen))
        .output()
        .expect("Debian 13");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(
        ran.status.success() && said.contains("IDENTICAL: twelve "),
        "{}:\n{said}",
        ran.status
    );
    other.give();
    other
        .run(&["recordings", "import", "thirteen.ttvm"])
        .expect(0, &["imported demo "]);
    other
        .replay(&["--verify"])
        .expect(4, &["QEMU: it was ", "`--engine capsule` replays it"]);
    // What has no such option says which command has.
    other
        .run(&["ask", GUEST, "first execution of 0x1234567"])
        .expect(4, &["`ttvm replay --engine capsule` replays it", "install that"]);
    trust(&other);
    other
        .replay(&["--verify", "--engine", "capsule"])
        .expect(0, &["IDENTICAL: demo "]);
    Ok(())
}

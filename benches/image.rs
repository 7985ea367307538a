// SPDX-License-Identifier: MIT OR Apache-2.0
//! `make bench PART=image`: making a guest's disk, against the commands one would type: `truncate`, `losetup`, `mkfs`, `mount`,
//! `cp -ax`, `umount`. Both in turns, each from a cold cache where that is allowed, and with the same root: 800 MB of this
//! machine's own /usr. Needs root.

mod peak;
mod table;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::unistd::geteuid;
use table::{Table, is_wanted, median};

const RUNS: usize = 5;
/// Bytes of the root.
const ROOT: u64 = 800_000_000;
const SIZE: &str = "1536M";

fn main() {
    if !is_wanted("image") {
        return;
    }
    if !geteuid().is_root() {
        return println!("image create: only root can compare it with mount");
    }
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-image");
    drop(fs::remove_dir_all(&place));
    let root = place.join("root");
    fs::create_dir_all(&root).expect("a directory");
    let bytes = fill(&root);
    let (mut ours, mut theirs, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..RUNS {
        let mut measure: [&mut dyn FnMut(); 2] = [
            &mut || {
                let (seconds, peak) = created(&place, &root);
                ours.push(seconds);
                memory.push(peak);
            },
            &mut || theirs.push(by_hand(&place, &root)),
        ];
        // Neither is always the first.
        measure.rotate_left(run % 2);
        measure.into_iter().for_each(|measure| measure());
    }
    let mut table = Table::default();
    table.ratio(
        "ttvm image create ÷ truncate, losetup, mkfs, mount, cp -ax, umount",
        &ours,
        &theirs,
        "0.9",
    );
    let speed = format!("{:.0} MB/s", bytes as f64 / 1e6 / median(&ours));
    table.value("what that copies", format!("{:.0} MB", bytes as f64 / 1e6), speed, "");
    let peak = memory.iter().copied().fold(0.0, f64::max);
    table.value(
        "its memory, at the most",
        String::new(),
        format!("{peak:.1} MB"),
        "64 MB",
    );
    table.print();
    drop(fs::remove_dir_all(&place));
}

/// Copies directories of /usr until there is enough. Returns how much that is.
fn fill(root: &Path) -> u64 {
    let mut bytes = 0;
    for part in ["usr/bin", "usr/share", "usr/lib", "usr/include"] {
        let mut entries: Vec<PathBuf> = fs::read_dir(Path::new("/").join(part))
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        entries.sort();
        fs::create_dir_all(root.join(part)).expect("a directory");
        for entry in entries {
            let size = size(&entry);
            if bytes + size <= ROOT {
                bytes += size;
                run(
                    "cp",
                    [OsStr::new("-ax"), entry.as_os_str(), root.join(part).as_os_str()],
                );
            }
        }
    }
    bytes
}

fn size(path: &Path) -> u64 {
    let Ok(data) = fs::symlink_metadata(path) else { return 0 };
    if !data.is_dir() {
        return data.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size(&entry.path())).sum()
}

/// What was written is on the disk, and what was read is not in memory.
fn cold() {
    nix::unistd::sync();
    drop(fs::write("/proc/sys/vm/drop_caches", "3"));
}

/// Seconds, and MB of memory.
fn created(place: &Path, root: &Path) -> (f64, f64) {
    let image = place.join("ours.img");
    cold();
    let started = Instant::now();
    let memory = peak::run(
        Command::new(env!("CARGO_BIN_EXE_ttvm"))
            .args(["image", "create", "bench", "--size", SIZE, "--from"])
            .arg(root)
            .arg("--file")
            .arg(&image),
    );
    let seconds = started.elapsed().as_secs_f64();
    fs::remove_file(image).expect("the image goes");
    (seconds, memory / 1e6)
}

/// Seconds.
fn by_hand(place: &Path, root: &Path) -> f64 {
    let image = place.join("theirs.img");
    let mount = place.join("mnt");
    fs::create_dir_all(&mount).expect("a directory");
    cold();
    let script = "set -e
        truncate -s $SIZE $IMAGE
        loop=$(losetup --find --show $IMAGE)
        mkfs.ext4 -q $loop
        mount $loop $MOUNT
        cp -ax $ROOT/. $MOUNT
        umount $MOUNT
        losetup -d $loop";
    let mut shell = Command::new("unshare");
    shell
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .env("SIZE", SIZE)
        .env("IMAGE", &image)
        .env("MOUNT", &mount)
        .env("ROOT", root);
    let started = Instant::now();
    assert!(shell.status().expect("sh runs").success(), "{script}");
    let seconds = started.elapsed().as_secs_f64();
    fs::remove_file(image).expect("the image goes");
    seconds
}

fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a OsStr>) {
    let status = Command::new(program).args(arguments).status();
    assert!(status.is_ok_and(|status| status.success()), "{program}");
}

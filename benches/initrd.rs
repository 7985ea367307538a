// SPDX-License-Identifier: MIT OR Apache-2.0
//! `make bench PART=initrd`: unpacking and packing an initial RAM disk of about 30 MB, as ratios of medians measured in turns
//! in one run, and the most memory each has needed.
//!
//! 3cpio is looked for on PATH and in `$THREECPIO`; what is not installed is left out.

mod peak;
mod table;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use peak::run;
use table::{Table, is_wanted};

/// Of unpacking: a quarter of a second, in which what the disk does meanwhile counts.
const RUNS: usize = 21;
/// Packing has a run in as many turns.
const PACKED_EVERY: usize = 3;
/// The first of a turn unpack.
const UNPACKING: usize = 3;
/// The level of both sides.
const LEVEL: &str = "9";
/// What is copied: as much as a large image has, unpacked.
const CONTENT: u64 = 95 << 20;
/// Files of this host that are like those of an image: programs, libraries, modules.
const SOURCES: [&str; 4] = ["/lib/modules", "/usr/lib/x86_64-linux-gnu", "/usr/bin", "/usr/sbin"];
/// An image has no larger file.
const LARGEST: u64 = 8 << 20;

fn main() {
    if !is_wanted("initrd") {
        return;
    }
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-initrd");
    drop(fs::remove_dir_all(&place));
    fs::create_dir_all(&place).expect("a directory");
    measure(&place);
    fs::remove_dir_all(&place).expect("it goes");
}

fn measure(place: &Path) {
    let root = place.join("root");
    let (files, bytes) = collect(&root);
    let path = |name: &str| place.join(name);
    let ttvm = PathBuf::from(env!("CARGO_BIN_EXE_ttvm"));
    // An image as distributions make them: microcode, then everything else.
    fs::create_dir_all(path("micro/kernel/x86/microcode")).expect("a directory");
    fs::write(path("micro/kernel/x86/microcode/AuthenticAMD.bin"), vec![7; 100_000]).expect("a file");
    let mut image = File::create(path("image")).expect("the image");
    for (directory, compression) in [("micro", "none"), ("root", "zstd")] {
        let mut pack = Command::new(&ttvm);
        pack.args(["initrd", "pack", "--force", "--compression", compression])
            .arg(path(directory))
            .arg(path("part"));
        run(&mut pack);
        io::copy(&mut File::open(path("part")).expect("a part"), &mut image).expect("the image");
    }
    let size = image.metadata().expect("the image").len();
    println!(
        "{files} files, {:.1} MB, as an image {:.1} MB",
        bytes as f64 / 1e6,
        size as f64 / 1e6
    );

    let threecpio = threecpio();
    let unmkinitramfs = find("unmkinitramfs");
    let cpio = find("cpio").filter(|_| find("zstd").is_some());
    let (mut ours, mut three, mut unmk) = (Cost::default(), Cost::default(), Cost::default());
    let (mut pack, mut pipe) = (Cost::default(), Cost::default());
    run(Command::new(&ttvm)
        .args(["initrd", "unpack"])
        .arg(path("image"))
        .arg(path("unpacked")));
    for turn in 0..RUNS {
        let mut turns: Vec<Box<dyn FnMut()>> = vec![
            Box::new(|| {
                drop(fs::remove_dir_all(path("ours")));
                ours.take(
                    Command::new(&ttvm)
                        .args(["initrd", "unpack"])
                        .arg(path("image"))
                        .arg(path("ours")),
                );
            }),
            Box::new(|| {
                let Some(threecpio) = &threecpio else { return };
                drop(fs::remove_dir_all(path("three")));
                fs::create_dir(path("three")).expect("a directory");
                three.take(
                    Command::new(threecpio)
                        .args(["-x", "-p", "-C"])
                        .arg(path("three"))
                        .arg(path("image")),
                );
            }),
            Box::new(|| {
                let Some(unmkinitramfs) = &unmkinitramfs else { return };
                drop(fs::remove_dir_all(path("unmk")));
                unmk.take(Command::new(unmkinitramfs).arg(path("image")).arg(path("unmk")));
            }),
            Box::new(|| {
                pack.take(
                    Command::new(&ttvm)
                        .args(["initrd", "pack", "--force", "--level", LEVEL])
                        .arg(path("unpacked"))
                        .arg(path("packed")),
                );
            }),
            Box::new(|| {
                if cpio.is_none() {
                    return;
                }
                // What one would type; without a wait for the disk.
                let line = format!("cpio -o -H newc --quiet < ../list | zstd -q -{LEVEL} > ../piped");
                let line = format!("find . | LC_ALL=C sort > ../list && {line}");
                pipe.take(Command::new("sh").args(["-c", &line]).current_dir(&root));
            }),
        ];
        let count = match turn % PACKED_EVERY {
            0 => turns.len(),
            _ => UNPACKING,
        };
        turns.truncate(count);
        turns.rotate_left(turn % count);
        turns.iter_mut().for_each(|turn| turn());
    }
    let mut table = Table::default();
    let mut ratio = |what: &str, ours: &Cost, theirs: &Cost, limit: &str| match theirs.seconds.is_empty() {
        true => println!("{what}: not measured, it is not installed"),
        false => table.ratio(what, &ours.seconds, &theirs.seconds, limit),
    };
    ratio("ttvm initrd unpack ÷ 3cpio -x", &ours, &three, "1.0");
    ratio("ttvm initrd unpack ÷ unmkinitramfs", &ours, &unmk, "0.6");
    ratio(
        &format!("ttvm initrd pack ÷ find | cpio | zstd -{LEVEL}"),
        &pack,
        &pipe,
        "1.0",
    );
    let memory = |cost: &Cost| format!("{:.1} MB", cost.memory.iter().copied().fold(0.0, f64::max) / 1e6);
    table.value(
        "memory of unpack, at most",
        format!("{} runs", ours.memory.len()),
        memory(&ours),
        "64 MB",
    );
    table.value(
        "memory of pack, at most",
        format!("{} runs", pack.memory.len()),
        memory(&pack),
        "64 MB",
    );
    if !pipe.seconds.is_empty() {
        let size = |name: &str| fs::metadata(path(name)).map_or(0.0, |data| data.len() as f64 / 1e6);
        let detail = format!("{:.2} MB ÷ {:.2} MB", size("packed"), size("piped"));
        table.value(
            "size of the packed image ÷ zstd's",
            detail,
            format!("{:.3}", size("packed") / size("piped")),
            "",
        );
    }
    table.print();
}

/// Copies files of this host, as much as is wanted. Returns how many, and their bytes.
fn collect(root: &Path) -> (usize, u64) {
    let (mut files, mut bytes) = (0, 0);
    for (at, source) in SOURCES.iter().enumerate() {
        // Of each a part, whatever there is.
        let until = CONTENT * (at as u64 + 1) / SOURCES.len() as u64;
        let mut ahead = vec![PathBuf::from(source)];
        while let Some(directory) = ahead.pop() {
            let Ok(entries) = fs::read_dir(&directory) else {
                continue;
            };
            let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            paths.sort();
            for path in paths {
                let Ok(data) = fs::symlink_metadata(&path) else {
                    continue;
                };
                let to = root.join(path.strip_prefix("/").unwrap_or(&path));
                if data.is_dir() {
                    ahead.push(path);
                } else if bytes < until && data.len() <= LARGEST {
                    fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
                    match data.is_symlink() {
                        true => drop(std::os::unix::fs::symlink(fs::read_link(&path).expect("a target"), &to)),
                        false if data.is_file() => bytes += fs::copy(&path, &to).unwrap_or(0),
                        false => {}
                    }
                    files += 1;
                }
            }
        }
    }
    (files, bytes)
}

/// What runs have cost.
#[derive(Default)]
struct Cost {
    seconds: Vec<f64>,
    /// Bytes that were in memory at once.
    memory: Vec<f64>,
}

impl Cost {
    fn take(&mut self, command: &mut Command) {
        // What others have written is not for us to wait for.
        nix::unistd::sync();
        let started = Instant::now();
        let memory = run(command);
        self.seconds.push(started.elapsed().as_secs_f64());
        self.memory.push(memory);
    }
}

/// Where a program is.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

fn threecpio() -> Option<PathBuf> {
    let named = std::env::var_os("THREECPIO").map(PathBuf::from);
    let threecpio = named.filter(|path| path.is_file()).or_else(|| find("3cpio"));
    if threecpio.is_none() {
        drop(writeln!(
            io::stderr(),
            "3cpio is not installed: `cargo install threecpio`, or name it in $THREECPIO"
        ));
    }
    threecpio
}

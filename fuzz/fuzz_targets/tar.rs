// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tar archive as it becomes an image: looked through, and laid down in a file system that is in memory. mke2fs is run once,
//! when the program begins, and nothing else ever: what other programs would have to unpack is passed over.

#![no_main]

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::LazyLock;

use libfuzzer_sys::{Corpus, fuzz_target};
use ttvm::config::types::Size;
use ext4_fill::{BLOCK, Kind, mke2fs_arguments};
use ttvm::image::Origin;
use ttvm::image::create::{Creation, Request};
use ttvm_fuzz::place::{Place, Sheet};
use ttvm_fuzz::{IMAGE, MIB, watch};

/// Of an image: room for a file system and a journal, and little else.
const SIZE: usize = 16 * MIB;
const INODES: u64 = 2048;

/// What was made once and is used again and again.
struct Bench {
    place: Place,
    archive: Sheet,
    image: Sheet,
    /// The blocks of a fresh file system that are not zeros, with the byte they begin at.
    fresh: Vec<(u64, Vec<u8>)>,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let image = Sheet::new().expect("a file");
    image.file().set_len(SIZE as u64).expect("room");
    let made = Command::new("mke2fs")
        .args(mke2fs_arguments(Kind::Ext4, INODES, true))
        .arg(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            std::os::fd::AsRawFd::as_raw_fd(image.file())
        ))
        .status();
    assert!(made.is_ok_and(|status| status.success()), "mke2fs makes a file system");
    Bench {
        place: Place::new("tar").expect("a directory"),
        archive: Sheet::new().expect("a file"),
        fresh: blocks(image.file()),
        image,
    }
});

fn blocks(file: &File) -> Vec<(u64, Vec<u8>)> {
    let mut whole = vec![0; SIZE];
    file.read_exact_at(&mut whole, 0).expect("a file system");
    let blocks = whole.chunks(BLOCK).enumerate();
    blocks
        .filter(|(_, block)| block.iter().any(|byte| *byte != 0))
        .map(|(at, block)| ((at * BLOCK) as u64, block.to_vec()))
        .collect()
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let others: [&[u8]; 3] = [b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"];
    let is_skippable = matches!(data, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
    if is_skippable || others.iter().any(|other| data.starts_with(other)) {
        return Corpus::Reject;
    }
    let bench = &*BENCH;
    bench.archive.write(data).expect("a file");
    bench.image.write(&[]).expect("a file");
    bench.image.file().set_len(SIZE as u64).expect("room");
    for (at, block) in &bench.fresh {
        bench.image.file().write_all_at(block, *at).expect("room");
    }
    let request = Request {
        name: "clientA".parse().expect("a name"),
        size: Size::from_bytes(SIZE as u64),
        place: Origin::File(bench.place.path().join("image")),
        pool: None,
        source: bench.archive.path().to_owned(),
        exclude: Vec::new(),
        keep: Vec::new(),
        kind: Kind::Ext4,
        root: None,
        state: "/var/lib/ttvm".into(),
        guests: Vec::new(),
        script: None,
        password: None,
        thin_pool_limit: 95,
        lock_timeout: std::time::Duration::ZERO,
    };
    watch(data, IMAGE, || {
        let mut on = |_, _| ControlFlow::Continue(());
        let image = bench.image.file().try_clone().expect("a file");
        match Creation::prepare(request, &mut on).and_then(|creation| creation.fill(image, true, &mut on)) {
            Ok(report) => drop(report),
            Err(error) => drop(error.to_string()),
        }
    });
    Corpus::Keep
});

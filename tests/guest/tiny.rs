// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest without an operating system (tiny.c), for whoever needs a run that is over at once.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use ttvm::file::digest;

/// It as a Multiboot image.
pub fn image() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    let options = "-m32 -fno-pic -static -Wl,-N,-Ttext=0x100000,-e,start,--no-warn-rwx-segments";
    IMAGE.get_or_init(|| compiled("tiny", options))
}

/// What cc makes of a guest's source. It is made once, and kept for where there is no compiler.
pub fn compiled(name: &str, options: &str) -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/guest/{name}.c"));
    let text = std::fs::read(&source).expect("its source");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let kept = directory.join(format!("{name}-{}", digest::of_bytes(&text).hex()));
    if let Ok(image) = std::fs::read(&kept) {
        return image;
    }
    let image = directory.join(format!("{name}.{}", std::process::id()));
    let always = "-O1 -ffreestanding -fno-stack-protector -nostdlib -Wall -Werror -Wl,--build-id=none -o";
    let compiled = Command::new("cc")
        .args(options.split_whitespace())
        .args(always.split_whitespace())
        .args([&image, &source])
        .status();
    assert!(compiled.expect("cc").success());
    std::fs::rename(image, &kept).expect("its name");
    std::fs::read(kept).expect("what cc has made")
}

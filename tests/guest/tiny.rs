// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest without an operating system (tiny.c), for whoever needs a run that is over at once.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use ttvm::digest;

/// It as a Multiboot image.
pub fn image() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(compile)
}

/// Compiles it, once: it is kept for where there is no compiler.
fn compile() -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/tiny.c");
    let text = std::fs::read(&source).expect("its source");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let kept = directory.join(format!("tiny-{}", digest::of_bytes(&text).hex()));
    if let Ok(image) = std::fs::read(&kept) {
        return image;
    }
    let image = directory.join(format!("tiny.{}", std::process::id()));
    let options = "-m32 -O1 -ffreestanding -fno-pic -fno-stack-protector -nostdlib -static -Wall -Werror \
                   -Wl,-N,-Ttext=0x100000,-e,start,--build-id=none,--no-warn-rwx-segments -o";
    let compiled = Command::new("cc")
        .args(options.split_whitespace())
        .args([&image, &source])
        .status();
    assert!(compiled.expect("cc").success());
    std::fs::rename(image, &kept).expect("its name");
    std::fs::read(kept).expect("what cc has made")
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! grub.cfg: the entries of its menu, and which of them is booted. Behind a NUL, what GRUB is told to boot.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ttvm::boot::EntryId;
use ttvm::boot::grub::grub_cfg::GrubCfg;
use ttvm_fuzz::{PARSER, watch};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (text, choice) = text.split_once('\0').unwrap_or((&text, "1>0"));
    watch(data, PARSER, || {
        let cfg = GrubCfg::parse(text);
        let found = [cfg.resolve(choice), cfg.resolve(""), cfg.entry(EntryId::Linux.as_str())];
        for entry in found.into_iter().flatten() {
            entry.is_plain_linux();
        }
    });
});

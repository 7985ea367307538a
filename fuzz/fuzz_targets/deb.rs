// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel, or a package of Debian with one, and the modules in it.

#![no_main]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ttvm::initrd::kernel::Kernel;
use ttvm_fuzz::place::{Place, Sheet};
use ttvm_fuzz::{DECODER, watch};

static ROOT: LazyLock<Place> = LazyLock::new(|| Place::new("deb").expect("a directory"));
static SHEET: LazyLock<Sheet> = LazyLock::new(|| Sheet::new().expect("a file"));

fn read(root: &Path) {
    match Kernel::find(root, Some(SHEET.path())) {
        Ok(kernel) => {
            let chosen = |_: &_| vec!["virtio_blk".to_owned()];
            let modules = kernel.modules(&chosen, &mut |_, _| ControlFlow::Continue(()));
            drop(modules.map_err(|error| error.to_string()));
        }
        Err(error) => drop(error.to_string()),
    }
}

fuzz_target!(|data: &[u8]| {
    SHEET.write(data).expect("a file");
    let root = ROOT.path();
    watch(data, DECODER, || read(root));
});

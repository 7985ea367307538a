// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest's file, and what is made of it for xl and xm: each must be read by our own reader of that language.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ttvm::config::guest::Toolstack;
use ttvm::config::guests::check;
use ttvm::config::host::HostConfig;
use ttvm::config::places::Places;
use ttvm::config::types::GuestName;
use ttvm::guest::toolstack;
use ttvm::guest::mode::GuestNetwork;
use ttvm::import::{self, Dialect};
use ttvm_fuzz::place::Place;
use ttvm_fuzz::{PARSER, watch};

/// A host with nothing but the files that the fixtures' guests boot.
static PLACES: LazyLock<Places> = LazyLock::new(|| {
    let place = Place::new("guest").expect("a directory");
    for file in ["boot/vmlinuz-6.1", "boot/initrd.img"] {
        place.write(file, b"").expect("a file");
    }
    Places::system(place.path())
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let host = HostConfig::default();
    let name: GuestName = "clientA".parse().expect("a name");
    watch(data, PARSER, || {
        for files in [false, true] {
            match check(&PLACES, &host, &name, text, files) {
                Err(error) => drop(error.to_string()),
                Ok(guest) => {
                    let network = GuestNetwork::default();
                    let dialect = match guest.toolstack {
                        Toolstack::Xl => Dialect::Xl,
                        Toolstack::Xm => Dialect::Xm,
                        Toolstack::Qemu => continue,
                    };
                    let text = toolstack::render(&guest, Path::new("/x"), &network);
                    import::parse(text.as_bytes(), dialect).expect("what was written can be read");
                }
            }
        }
    });
});

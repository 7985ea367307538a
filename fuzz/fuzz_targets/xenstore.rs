// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Xen's store answers.

#![no_main]

use std::fs::File;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ttvm::xenstore::XenStore;
use ttvm_fuzz::place::Place;
use ttvm_fuzz::{PARSER, watch};

/// What a socket takes before anybody reads.
const ROOM: usize = 64_000;

/// Where a store would listen, with the tree that it is in. Names of sockets are short, so the tree is called by its number.
static STORE: LazyLock<(PathBuf, UnixListener)> = LazyLock::new(|| {
    let place = Place::new("xenstore").expect("a directory");
    place.write("run/xenstored/notes", b"").expect("a directory");
    let directory = File::open(place.path()).expect("a directory");
    let root = PathBuf::from(format!("/proc/self/fd/{}", directory.into_raw_fd()));
    let listener = UnixListener::bind(root.join("run/xenstored/socket")).expect("a socket");
    (root, listener)
});

fuzz_target!(|data: &[u8]| {
    let data = &data[..data.len().min(ROOM)];
    let (root, listener) = &*STORE;
    let mut store = XenStore::connect_in(root).expect("a connection");
    let (mut other, _) = listener.accept().expect("a connection");
    other.write_all(data).expect("room");
    other.shutdown(Shutdown::Write).expect("an end");
    watch(data, PARSER, || {
        while store.read("/a").is_ok() && store.list("/b").is_ok() && store.watch("/c").is_ok() {
            drop(store.write("/d", "e"));
            if store.pending().is_none() && store.event().is_err() {
                break;
            }
        }
    });
});

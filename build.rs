// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the programs are linked: those of a release, as small as may be.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("PROFILE").is_some_and(|profile| profile == "release") {
        // One bit for an address that moves with the program, not 24 bytes (glibc 2.36 and later: Debian 12, Fedora 37).
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        // They abort when they panic (Cargo.toml): nobody unwinds, and nobody looks for the tables of that.
        println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    }
}

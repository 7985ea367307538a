// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first three commands that README has, typed by an ordinary user into a container without systemd, in which nothing but the package
//! was installed.

use std::process::Command;

use crate::deb::package;
use crate::root::project;
use crate::terminal::typed;

/// What is typed, with the kernel that such a container does not have. Each says how long it took.
const COMMANDS: &str = "time_of() { begun=$(date +%s%N); \"$@\"; echo \"took $(( ($(date +%s%N) - begun) / 1000000 )) ms\"; }; \
    time_of ttvm guest new hello --kernel /kernel; time_of ttvm record hello --console; time_of ttvm replay hello --verify; \
    ttvm list; ttvm doctor";

fn first_use(suite: &str) {
    let mut command = Command::new(project("tests/packaging/container.sh"));
    command.arg(suite).arg(package()).arg(COMMANDS);
    let answers = [
        ("hello login: ", "root"),
        ("Password: ", "root"),
        ("~# ", "head -c 8 /dev/urandom | md5sum"),
        ("~# ", "poweroff"),
    ];
    let said = typed(command, &answers);
    for words in [
        "made hello: kernel ",
        "recorded hello ",
        ": powered itself off after ",
        "IDENTICAL: hello ",
        "hello  qemu ",
        "doctor: all ok",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
    for line in said.lines().filter(|line| line.starts_with("took ")) {
        println!("{suite}: {}", line.trim());
    }
}

#[test]
fn on_debian_12() {
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    match system.contains("VERSION_CODENAME=bookworm") {
        true => first_use("bookworm"),
        false => println!("skipped: this machine is no Debian 12"),
    }
}

#[test]
fn on_debian_13() {
    first_use("trixie");
}

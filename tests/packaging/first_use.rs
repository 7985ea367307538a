// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first three commands that README has, and the three for a whole Debian, typed by an ordinary user into a container without
//! systemd, in which nothing but the package was installed. The Debian takes minutes: `make check-both` has it, and `TTVM_DEBIAN=1`.

use std::path::PathBuf;
use std::process::Command;

use crate::deb::package;
use crate::root::project;
use crate::terminal::typed;

/// Says how long each command took.
const TIMED: &str =
    "time_of() { begun=$(date +%s%N); \"$@\"; echo \"took $(( ($(date +%s%N) - begun) / 1000000 )) ms\"; }; ";

/// What is typed.
const HELLO: &str = "time_of ttvm guest new hello; time_of ttvm record hello --console; \
    time_of ttvm replay hello --verify; ttvm list; ttvm doctor";

/// What is typed with an archive of a Debian, and the page of its run.
const DEBIAN: &str = "echo '#!/bin/sh\nset -e; head -c 1M /dev/urandom >/random; sync; md5sum /random; grep PRETTY /etc/os-release; exit 1' \
    >work.sh; time_of ttvm guest new deb --from SUITE.tar --run work.sh; time_of ttvm record deb; time_of ttvm replay deb --verify; \
    ttvm report deb -o report.html; echo \"page $(wc -c <report.html) bytes\"; \
    grep -a 'ttvm: the script' .local/state/ttvm/recordings/deb/*/console.log";

/// How large a page may be, in bytes.
const PAGE: u64 = 5_000_000;

/// Types `commands` in a container of that Debian, with `file` at hand, and returns what was on the terminal.
fn in_container(
    suite: &str,
    commands: &str,
    file: Option<PathBuf>,
    answers: &[(&str, &str)],
    words: &[&str],
) -> String {
    let mut command = Command::new(project("tests/packaging/container.sh"));
    command.arg(suite).arg(package()).arg(format!("{TIMED}{commands}"));
    command.args(file);
    let said = typed(command, answers);
    for words in words {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
    for line in said.lines().filter(|line| line.starts_with("took ")) {
        println!("{suite}: {}", line.trim());
    }
    said
}

fn hello(suite: &str) {
    let answers = [
        ("hello login: ", "root"),
        ("Password: ", "root"),
        ("~# ", "head -c 8 /dev/urandom | md5sum"),
        ("~# ", "poweroff"),
    ];
    let words = [
        "made hello: kernel ",
        "recorded hello ",
        ": powered itself off after ",
        "IDENTICAL: hello ",
        "hello  qemu ",
        "doctor: all ok",
    ];
    in_container(suite, HELLO, None, &answers, &words);
}

fn debian(suite: &str) {
    if std::env::var_os("TTVM_DEBIAN").is_none() {
        println!("skipped: it takes minutes; TTVM_DEBIAN=1 does it");
        return;
    }
    let made = Command::new(project("tests/guest/debian.sh")).arg(suite).output();
    let made = made.expect("a shell");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let archive = PathBuf::from(String::from_utf8_lossy(&made.stdout).trim());
    let words = [
        "made deb: kernel ",
        "recorded deb ",
        ": powered itself off after ",
        "IDENTICAL: deb ",
        "console, disk",
        "ttvm: the script has ended with exit status 1",
    ];
    let said = in_container(suite, &DEBIAN.replace("SUITE", suite), Some(archive), &[], &words);
    let page = said
        .lines()
        .find_map(|line| line.strip_prefix("page ")?.strip_suffix(" bytes"));
    let page: u64 = page.and_then(|size| size.parse().ok()).expect("the size of the page");
    assert!(page < PAGE, "{page}");
    println!("{suite}: its page has {page} bytes");
}

/// The files of a container with Debian 12 are those of this machine.
fn is_debian_12() -> bool {
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let is = system.contains("VERSION_CODENAME=bookworm");
    if !is {
        println!("skipped: this machine is no Debian 12");
    }
    is
}

#[test]
fn on_debian_12() {
    if is_debian_12() {
        hello("bookworm");
    }
}

#[test]
fn on_debian_13() {
    hello("trixie");
}

#[test]
fn a_debian_on_debian_12() {
    if is_debian_12() {
        debian("bookworm");
    }
}

#[test]
fn a_debian_on_debian_13() {
    debian("trixie");
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What people get wrong at first: each mistake, wherever it is noticed, ends in one sentence that says what to do.

#[path = "../initrd_busybox/place.rs"]
#[allow(dead_code, reason = "it is another test's")]
mod place;

use std::fs;
use std::process::{Command, Output, Stdio};

use place::{KERNEL, Place};

/// What a kernel for PCs begins with, as far as it is looked at.
fn kernel() -> Vec<u8> {
    let mut content = vec![0; 0x400];
    content[0x202..0x206].copy_from_slice(b"HdrS");
    content[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    content[0x300..0x300 + KERNEL.len()].copy_from_slice(KERNEL.as_bytes());
    content
}

/// The command line of `ttvm LINE` with places of its own, in which `DIR` is this directory.
fn arguments(place: &Place, line: &str) -> Vec<String> {
    let directory = place.0.to_str().expect("a path");
    let places = ["--config-dir", "DIR/config", "--state-dir", "DIR/state"];
    let words = places.into_iter().chain(line.split_whitespace());
    words.map(|word| word.replace("DIR", directory)).collect()
}

fn said(place: &Place, output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(place.0.to_str().expect("a path"), "DIR");
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// It must fail, with a sentence that has `what` and then `remedy`.
fn ends_in(place: &Place, line: &str, output: &Output, what: &str, remedy: &str) {
    let text = said(place, output);
    assert!(!output.status.success(), "{line}: {text}");
    let mut sentences = text.lines().filter(|line| !line.contains("warning: "));
    let sentence = sentences.find(|line| line.contains(what));
    let sentence = sentence.unwrap_or_else(|| panic!("{line}: no \"{what}\" in\n{text}"));
    // The remedy may be that of the cause.
    let after = text.split(what).nth(1).unwrap_or_default();
    assert!(
        after.contains(remedy),
        "{line}: no \"{remedy}\" behind \"{what}\" in\n{text}"
    );
    assert!(!sentence.contains("os error"), "{line}: {text}");
}

fn fails(place: &Place, line: &str, what: &str, remedy: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ttvm"));
    let output = command
        .args(arguments(place, line))
        .stdin(Stdio::null())
        .output()
        .expect("ttvm runs");
    ends_in(place, line, &output, what, remedy);
}

/// A guest of QEMU with these lines more in its file.
fn guest(place: &Place, name: &str, more: &str) {
    let directory = place.0.to_str().expect("a path");
    let text = format!("toolstack = \"qemu\"\nkernel = \"DIR/vmlinuz\"\ncmdline = \"console=ttyS0\"\n{more}");
    place.write(&format!("config/guests/{name}.toml"), text.replace("DIR", directory));
}

fn place(name: &str) -> Place {
    let place = Place::empty(&format!("mistake-{name}"));
    place.write("vmlinuz", kernel());
    place
}

#[test]
fn a_wrong_name_of_a_disk() {
    let place = place("disk");
    guest(&place, "path", "[[disk]]\npath = \"DIR/disk.img\"\ntarget = \"vda\"\n");
    guest(
        &place,
        "origin",
        "[[disk]]\norigin = \"DIR/disk.img\"\ntarget = \"vda\"\n",
    );
    guest(
        &place,
        "target",
        "[[disk]]\norigin = \"DIR/vmlinuz\"\ntarget = \"xvda1\"\n",
    );
    for name in ["path", "origin"] {
        fails(
            &place,
            &format!("guest check {name}"),
            "DIR/disk.img: no such file or directory",
            "`ttvm image create`",
        );
        fails(
            &place,
            &format!("record {name}"),
            "there is no DIR/disk.img",
            "`ttvm image create`",
        );
    }
    for command in ["guest check", "record"] {
        let target = "target.toml:6:10: disk xvda1: the disks of toolstack \"qemu\" are";
        let target = target.split(": ").nth(1).expect("a part");
        fails(
            &place,
            &format!("{command} target"),
            target,
            "\"vda\", \"vdb\" and so on",
        );
    }
    fails(
        &place,
        "guest new new --from DIR/no.tar --size 64M",
        "cannot read the source DIR/no.tar",
        "see that it is there",
    );
}

#[test]
fn no_kernel() {
    let place = place("kernel");
    guest(&place, "gone", "");
    guest(&place, "nothing", "");
    place.write("config/guests/nothing.toml", "toolstack = \"qemu\"\n");
    fs::remove_file(place.path("vmlinuz")).expect("it goes");
    for command in ["guest check", "record"] {
        fails(
            &place,
            &format!("{command} gone"),
            "kernel: DIR/vmlinuz: no such file or directory",
            "see that it is there, or name another one",
        );
    }
    fails(
        &place,
        "guest check nothing",
        "the guest has neither a kernel nor a disk",
        "`ttvm guest new`",
    );
    fails(
        &place,
        "--root DIR guest new new",
        "there is no kernel in DIR/boot",
        "apt-get install linux-image-amd64",
    );
    fails(
        &place,
        "guest new new --kernel DIR/none",
        "there is no DIR/none",
        "name a kernel that is there",
    );
    fails(
        &place,
        "guest new new --kernel DIR/config/guests/gone.toml",
        "is no kernel for PCs",
        "--kernel takes a vmlinuz",
    );
}

#[test]
fn no_group() {
    let place = place("group");
    guest(
        &place,
        "group",
        "[[disk]]\norigin = \"no-such-group/base\"\ntarget = \"vda\"\n",
    );
    // Root asks LVM, which may not be there; nobody else can.
    fails(&place, "guest check group", "origin no-such-group/base: ", "`vg");
    fails(&place, "record group", "no-such-group", "");
    fails(
        &place,
        "guest new new --from DIR --lv no-such-group",
        "names no volume",
        "it has no \"/\"",
    );
    fails(
        &place,
        "guest check gruop",
        "there is no guest \"gruop\"",
        "did you mean \"group\"?",
    );
    fails(
        &place,
        "record other",
        "there is no guest \"other\"",
        "`ttvm guest list`",
    );
}

/// A disk with a megabyte, where the recordings and images are to be.
#[test]
fn a_full_disk() {
    let Some(place) = Place::new("mistake-full") else {
        return;
    };
    place.write(&format!("boot/vmlinuz-{KERNEL}"), [kernel(), vec![0; 2 << 20]].concat());
    place.write("vmlinuz", kernel());
    place.write("source/file", vec![1; 4 << 20]);
    guest(&place, "full", "");
    fs::create_dir_all(place.path("state")).expect("a directory");
    let run = |line: &str| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c"]);
        command.arg("mount -t tmpfs -o size=1m none \"$0\" || exit 99; exec \"$@\"");
        command.arg(place.path("state")).arg(env!("CARGO_BIN_EXE_ttvm"));
        command
            .args(arguments(&place, line))
            .stdin(Stdio::null())
            .output()
            .expect("unshare runs")
    };
    for (line, what, remedy) in [
        (
            "record full",
            "there are 1 MiB free in DIR/state, and a recording needs 256 MiB",
            "`ttvm recordings rm`",
        ),
        (
            "--root DIR guest new new",
            "cannot write DIR/state/images/",
            "make room",
        ),
        (
            "guest new new --from DIR/source --size 64M --kernel DIR/boot/vmlinuz-6.1.0-9-amd64",
            "is full",
            "make room there",
        ),
    ] {
        let output = run(line);
        if output.status.code() == Some(99) {
            eprintln!("skipped: no file system may be mounted here");
            return;
        }
        ends_in(&place, line, &output, what, remedy);
    }
    assert!(
        !place.path("config/guests/new.toml").exists(),
        "nothing is left of the guest"
    );
}

/// The keys that a table takes, as the answer to an unknown one names them.
fn keys(place: &Place, file: &str, before: &str) -> Vec<String> {
    let answer = with(place, file, &format!("{before}zzzzzzzzzzzzzzzzzzzzzzzzz = 1\n"));
    let list = answer
        .lines()
        .find_map(|line| line.split_once("; valid here: "))
        .expect(&answer)
        .1;
    list.split(", ").map(str::to_owned).collect()
}

/// What `guest check` says of a file with this text.
fn with(place: &Place, file: &str, text: &str) -> String {
    place.write(&format!("config/{file}"), text);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ttvm"));
    let output = command
        .args(arguments(place, "guest check x"))
        .output()
        .expect("ttvm runs");
    fs::remove_file(place.path(&format!("config/{file}"))).expect("it goes");
    assert_eq!(output.status.code(), Some(3), "{text}");
    said(place, &output)
}

/// Two letters the wrong way round, one too many, one missing: of every key of both files.
#[test]
fn a_typo_in_every_key() {
    let place = place("typo");
    let tables = [
        ("guests/x.toml", ""),
        ("guests/x.toml", "[[disk]]\n"),
        ("guests/x.toml", "[[vif]]\n"),
        ("guests/x.toml", "toolstack = \"qemu\"\n[qemu]\n"),
        ("ttvm.toml", ""),
        ("ttvm.toml", "[guest]\n"),
        ("ttvm.toml", "[snapshot]\n"),
        ("ttvm.toml", "[boot]\n"),
        ("ttvm.toml", "[boot.serial]\n"),
        ("ttvm.toml", "[boot.ok]\n"),
        ("ttvm.toml", "[network]\n"),
        ("ttvm.toml", "[network.nat]\n"),
        ("ttvm.toml", "[network.bridge]\n"),
    ];
    for (file, before) in tables {
        let all = keys(&place, file, before);
        // All of one kind at once: each has its own line.
        let kinds: [fn(&str) -> String; 3] = [
            |key| {
                let (head, last) = key.split_at(key.len() - 2);
                format!("{head}{}", last.chars().rev().collect::<String>())
            },
            |key| format!("{key}s"),
            |key| key[..key.len() - 1].to_owned(),
        ];
        for typo in kinds {
            let wrong: Vec<(&String, String)> = all.iter().map(|key| (key, typo(key))).collect();
            // What is another key, or the typo of another one as well, is none of this one.
            let is_typo = |(at, (_, typo)): &(usize, &(&String, String))| {
                !all.contains(typo) && !wrong[..*at].iter().any(|(_, other)| other == typo)
            };
            let wrong: Vec<_> = wrong.iter().enumerate().filter(is_typo).map(|(_, pair)| pair).collect();
            let text: String = wrong.iter().map(|(_, typo)| format!("{typo} = 1\n")).collect();
            let answer = with(&place, file, &format!("{before}{text}"));
            for (key, typo) in wrong {
                let line = answer.lines().find(|line| line.contains(&format!("no key \"{typo}\"")));
                let line = line.unwrap_or_else(|| panic!("{before}{typo}: nothing in\n{answer}"));
                let meant = line.split_once("did you mean \"").map(|(_, rest)| rest);
                let is_near = meant.is_some_and(|meant| all.iter().any(|key| meant.starts_with(&format!("{key}\"?"))));
                assert!(
                    is_near || line.contains("; valid here: "),
                    "{before}{typo} for {key}: {line}"
                );
                assert!(line.contains(&format!("{file}:")), "{line}");
            }
        }
    }
    let twice = with(&place, "guests/x.toml", "memory = \"1M\"\nmemory = \"2M\"\n");
    let expected =
        "DIR/config/guests/x.toml:2:1: memory stands above already, in the same table: keep one of the two\n";
    assert_eq!(twice, expected);
}

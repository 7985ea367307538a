// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our reader of xl's files against xl's own: the same files taken, with the same values; and what ttvm writes for a guest that it
//! imported means to xl what the file meant.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value as Json, json};
use ttvm::import::{Dialect, Setting, Value, parse, parse_disk};

use crate::random::Random;
use crate::sessions::fixtures;
use crate::xlu;

const KEYS: [&str; 12] = [
    "a", "b", "memory", "name", "disk", "vif", "vcpus", "extra", "a.b", "x_1", "abc", "f",
];
const FILES: usize = 4000;
const DISKS: usize = 6000;
/// What xl's grammar is made of, and what it trips over.
const ALPHABET: &str = "ab1x0=+[],;'\"\\#\n\r\t .-_():%Aé\u{b}";

/// A value as it comes out of the library.
fn shown(setting: &Setting) -> Json {
    match &setting.value {
        Value::List(_) => items(&setting.value),
        value => {
            let number = if setting.added { None } else { number(value) };
            json!({ "text": atom(value), "number": number })
        }
    }
}

fn items(value: &Value) -> Json {
    match value {
        Value::List(list) => list.iter().map(items).collect(),
        atom_of => json!(atom(atom_of)),
    }
}

fn atom(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => panic!("{other:?} in a file of xl's"),
    }
}

/// As C's strtol() would, by other means than the reader's.
fn number(value: &Value) -> Option<i64> {
    let text = atom(value);
    let text = text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let digits = text.trim_start_matches(['+', '-']);
    if text.len() - digits.len() > 1 || digits.is_empty() {
        return None;
    }
    let sign = if text.starts_with('-') { "-" } else { "" };
    let (radix, digits) = match digits.to_ascii_lowercase().strip_prefix("0x") {
        Some(digits) => (16, digits.to_owned()),
        None if digits.starts_with('0') => (8, digits.to_owned()),
        None => (10, digits.to_owned()),
    };
    let plain = digits.chars().all(|c| c.is_ascii_hexdigit());
    i64::from_str_radix(&format!("{sign}{digits}"), radix)
        .ok()
        .filter(|_| plain)
}

/// The library's answer with its bytes as text.
fn decoded(answer: &Json) -> Json {
    match answer {
        Json::String(text) => json!(xlu::utf_8(text)),
        Json::Array(items) => items.iter().map(decoded).collect(),
        Json::Object(entries) => entries
            .iter()
            .map(|(key, value)| (key.clone(), decoded(value)))
            .collect(),
        other => other.clone(),
    }
}

/// What we make of a file, in the form of the library's answer.
fn ours(bytes: &[u8], keys: &[&str]) -> Json {
    let Ok(document) = parse(bytes, Dialect::Xl) else {
        return Json::Null;
    };
    let asked = document
        .settings
        .iter()
        .filter(|setting| keys.contains(&setting.key.as_str()));
    asked.map(|setting| (setting.key.clone(), shown(setting))).collect()
}

fn string(random: &mut Random) -> String {
    let quote = random.of(&["'", "\""]);
    let mut text = String::from(quote);
    for _ in 0..random.below(5) {
        text += random.of(&[
            "a",
            "/dev/x",
            "é",
            " ",
            ",",
            "#",
            "10",
            "0x1f",
            "-7",
            r"\n",
            r"\\",
            r"\'",
            "\\\"",
            r"\t",
            r"\101",
            r"\7",
            r"\0 1",
            r"\x41",
            r"\q",
            "\t",
            "010",
            "99999999999999999999",
        ]);
    }
    text + quote
}

fn value(random: &mut Random, depth: usize) -> String {
    match random.below(if depth > 3 { 5 } else { 8 }) {
        0 | 1 => random
            .of(&[
                "0",
                "1",
                "256",
                "010",
                "0x10",
                "0128",
                "1f",
                "9223372036854775807",
                "9223372036854775808",
            ])
            .into(),
        2..=4 => string(random),
        _ => {
            let mut list = String::from("[");
            let newline = |random: &mut Random| random.of(&["", "", "", " ", "\n", "\n# one, ]\n", "\n\n"]);
            list += newline(random);
            for index in 0..random.below(4) {
                if index > 0 {
                    list += ",";
                    list += newline(random);
                }
                list += &value(random, depth + 1);
                list += newline(random);
            }
            list += random.of(&["", "", "", ",", ",\n"]);
            list + "]"
        }
    }
}

fn file(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..=random.below(5) {
        text += random.of(&["", "", "", " ", "\n", "# a comment\n", ";", "\t"]);
        text += random.of(&KEYS);
        text += random.of(&["=", " = ", "= ", "=", "+=", " += "]);
        text += &value(random, 0);
        text += random.of(&["\n", "\n", "\n", ";", " ; ", " # why\n", "\n\n"]);
    }
    if random.below(4) == 0 {
        text.pop();
    }
    text += random.of(&["", "", "", "#", "# no end", "# an end\n", "\"", " ", "-", "b = 2", "é"]);
    if random.below(2) == 0 {
        random.spoil(&text, ALPHABET)
    } else {
        text
    }
}

/// Every file of `files` is taken by both or by neither, and is the same to both.
fn compare(files: &[Vec<u8>], keys: &[&str]) {
    let questions: Vec<Json> = files.iter().map(|file| xlu::config(file, keys)).collect();
    let Some(answers) = xlu::ask(&questions) else {
        return;
    };
    let mut taken = 0;
    for (file, answer) in files.iter().zip(&answers) {
        let text = String::from_utf8_lossy(file);
        assert_eq!(
            ours(file, keys),
            decoded(answer),
            "{text}\n{text:?}\n{:?}",
            parse(file, Dialect::Xl)
        );
        taken += usize::from(!answer.is_null());
    }
    println!("{} files, {taken} of them taken", files.len());
}

#[test]
fn files_are_taken_or_not_as_xl_takes_them() {
    let mut random = Random::new(17);
    let files: Vec<Vec<u8>> = (0..FILES).map(|_| file(&mut random).into_bytes()).collect();
    compare(&files, &KEYS);
}

/// What the random ones may miss.
#[test]
fn odd_files() {
    let odd: [&[u8]; 27] = [
        b"",
        b"\n",
        b"#",
        b"a=1\n#",
        b"a=1\n# ",
        b"a=1-",
        b"a=1 -",
        b"-",
        b"a=[]\n\"",
        b"a=1\r\n",
        b"\xef\xbb\xbfa=1\n",
        b"a=1\x0c",
        b"a='\\1+2\\1-2\\1 34'",
        b"a='\\1  '",
        b"a='\\177'",
        b"a='\\8'",
        b"a='x\\",
        b"a='\\x41'",
        b"a=\n1",
        b"a\n=1",
        b"a+=1;a+=2",
        b"a=[1];a+='2'",
        b"a=[1];a='2'",
        b"a=[1] a=2",
        b"a='b' 'c'",
        b"# \xe9 in a comment\na=1\n",
        b"a=[[[[[['deep']]]]]]",
    ];
    let files: Vec<Vec<u8>> = odd.iter().map(|file| file.to_vec()).collect();
    compare(&files, &["a", "b"]);
}

#[test]
fn the_fixtures() {
    let mut files = Vec::new();
    for fixture in fixtures() {
        for entry in fs::read_dir(fixture).expect("a directory").flatten() {
            if entry.path().extension().is_some() {
                files.push(fs::read(entry.path()).expect("a file"));
            }
        }
    }
    let keys = [
        "name",
        "memory",
        "disk",
        "vif",
        "kernel",
        "extra",
        "maxvcpus",
        "cpus_soft",
        "serial",
        "pci",
        "note_",
        "cmdline",
    ];
    compare(&files, &keys);
}

/// One of a disk's specifications, as people write them and as nobody does. (Not "trusted" and "untrusted", which are documented,
/// and which the library of Debian 12 does not know: its scanner was not made anew from the rules.)
fn specification(random: &mut Random) -> String {
    let prefixes = [
        "",
        "",
        "",
        "phy:",
        "file:",
        "tap:",
        "tap:aio:",
        "tap2:qcow:",
        "qcow2:",
        "raw:",
        "vhd:",
        "drbd:",
        "ioemu:",
        "nope:",
    ];
    let mut fields = Vec::new();
    for _ in 0..=random.below(5) {
        let prefix = random.of(&prefixes);
        let field = random.of(&[
            "/dev/xenvg/snap1",
            "xenvg/snap1",
            "raw",
            "qcow2",
            "xvda1",
            "hda",
            "hdc:cdrom",
            "hdc:disk",
            "hdc:tape",
            "w",
            "rw",
            "r",
            "ro",
            "",
            "",
            "w!",
            "format=raw",
            "format=qcow2",
            "format=",
            "format=x",
            "vdev=xvdb",
            "vdev=",
            "access=ro",
            "access=rw",
            "access=",
            "cdrom",
            "devtype=cdrom",
            "devtype=disk",
            "devtype=x",
            "target=/dev/a,b",
            "target=",
            "script=block-x",
            "backend=dom",
            "backendtype=phy",
            "backendtype=qdisk",
            "discard",
            "no-discard",
            "direct-io-safe",
            "colo",
            "colo-host=x",
            "colo-port=12",
            "colo-port=x",
            "unknown=1",
            "Unknown=1",
            "/a=b",
            "phy",
            "a b",
        ]);
        let white = random.of(&["", "", "", "", " ", "\t"]);
        fields.push(format!("{white}{prefix}{field}"));
    }
    let spec = fields.join(",");
    let spec = if random.below(4) == 0 { format!("{spec},") } else { spec };
    if random.below(3) == 0 {
        random.spoil(&spec, ",:= a1Aé-")
    } else {
        spec
    }
}

#[test]
fn disks_are_taken_or_not_as_xl_takes_them() {
    let mut random = Random::new(4);
    let mut specs: Vec<String> = (0..DISKS).map(|_| specification(&mut random)).collect();
    for usual in [
        "phy:/dev/xenvg/snap1,sda1,w",
        "/dev/xenvg/snap1,raw,xvda1,rw",
        "format=raw,vdev=xvda1,access=rw,target=/dev/xenvg/snap1",
        "file:/srv/a.iso,hdc:cdrom,r",
        ",hdc:cdrom",
        "phy:xenvg/snap1,ioemu:hda,w",
        "tap:aio:/a,xvda,w",
        "/a,,hda",
        "cdrom,vdev=hdc",
        "phy:/dev/xenvg/snap1,xvda1,w,xenvg,/dev/sdb/lvm_1,3G",
    ] {
        specs.push(usual.into());
    }
    let questions: Vec<Json> = specs.iter().map(|spec| xlu::disk(spec)).collect();
    let Some(answers) = xlu::ask(&questions) else {
        return;
    };
    let mut taken = 0;
    for (spec, answer) in specs.iter().zip(&answers) {
        let found = parse_disk(spec, Dialect::Xl).ok();
        let found = found.map(|it| json!([it.target, it.vdev, it.format.as_str(), it.writable, it.cdrom, it.script]));
        assert_eq!(json!(found), decoded(answer), "{spec:?}");
        taken += usize::from(!answer.is_null());
    }
    println!("{} disks, {taken} of them taken", specs.len());
    assert!(taken > DISKS / 20, "too few good ones to mean anything");
}

/// A guest is imported; what ttvm then writes for xl is read by xl's parser, and compared with what that makes of the original.
#[test]
fn what_is_written_for_xl_means_the_same() {
    let original = r#"
name = "same"
kernel = "/boot/vmlinuz"
ramdisk = "/boot/initrd"
root = "/dev/xvda1"
extra = "ro console=hvc0 say=\"it's\" \\"
memory = 0x60
vcpus = "2"
maxvcpus = 4
disk = [ "/dev/xenvg/a,raw,xvda1,rw", "file:/srv/b c.img,xvdb,r", "format=qcow2,vdev=xvdc,target=/srv/d,e.qcow2" ]
vif = [ "mac=00:16:3e:00:00:01,bridge=xenbr0,ip=10.0.0.5", "mac=00:16:3e:00:00:02,script=vif-nat" ]
cpus = [ "0", "1" ]
shadow_memory = 8
"#;
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("import-same");
    drop(fs::remove_dir_all(&directory));
    for file in ["boot/vmlinuz", "boot/initrd", "same.cfg"] {
        let path = directory.join(file);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, original).expect("a file");
    }
    let ttvm = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ttvm"))
            .args(["--root", ".", "guest"])
            .args(arguments)
            .current_dir(&directory)
            .output()
            .expect("ttvm runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    ttvm(&["import", "same.cfg"]);
    let written = ttvm(&["config", "same"]);
    let keys = [
        "name",
        "kernel",
        "ramdisk",
        "memory",
        "vcpus",
        "maxvcpus",
        "vif",
        "cpus",
        "shadow_memory",
        "disk",
        "cmdline",
    ];
    let Some(answers) = xlu::ask(&[xlu::config(original.as_bytes(), &keys), xlu::config(&written, &keys)]) else {
        return;
    };
    let (before, after) = (decoded(&answers[0]), decoded(&answers[1]));
    for key in ["name", "kernel", "ramdisk", "cpus"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    for key in ["memory", "vcpus", "maxvcpus", "shadow_memory"] {
        assert_eq!(before[key]["number"], after[key]["number"], "{key}");
    }
    // xl puts a space between root and extra.
    assert_eq!(
        after["cmdline"]["text"],
        r#"root=/dev/xvda1 ro console=hvc0 say="it's" \"#
    );
    let vifs = |config: &Json| -> Vec<Vec<String>> {
        let specs = config["vif"].as_array().expect("a list").iter();
        let mut vifs: Vec<Vec<String>> = specs
            .map(|vif| vif.as_str().expect("text").split(',').map(str::to_owned).collect())
            .collect();
        vifs.iter_mut().for_each(|vif| vif.sort());
        vifs
    };
    assert_eq!(vifs(&before), vifs(&after));
    let disks = |config: &Json| -> Vec<Json> {
        let specs = config["disk"].as_array().expect("a list").iter();
        let questions: Vec<Json> = specs.map(|spec| xlu::disk(spec.as_str().expect("text"))).collect();
        xlu::ask(&questions).expect("the library is there")
    };
    assert_eq!(disks(&before), disks(&after));
}

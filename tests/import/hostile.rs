// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files that nobody means well with: each is answered in a moment, with its place, and nothing is executed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ttvm::import::{Dialect, Document, Value, parse};

/// Far more than any of them takes, and far less than one takes that gets out of hand.
const LIMIT: Duration = Duration::from_secs(20);

fn read(bytes: &[u8], dialect: Dialect) -> Result<Document, String> {
    let started = Instant::now();
    let result = parse(bytes, dialect);
    assert!(started.elapsed() < LIMIT, "it took {:?}", started.elapsed());
    result.map_err(|mistake| format!("{}:{}: {}", mistake.place.line, mistake.place.column, mistake.why))
}

fn xm(text: &str) -> Document {
    read(text.as_bytes(), Dialect::Xm).expect("a file of xm")
}

fn notes(text: &str) -> Vec<String> {
    xm(text).notes.iter().map(ToString::to_string).collect()
}

#[test]
fn whatever_is_too_large_has_no_value() {
    let too_large = "its value would be larger than any guest's file needs";
    for text in [
        "a = 'a' * 1000000000",
        "a = 1000000000000 * 'a'",
        "a = [1] * 999999999",
        "a = '' * 9223372036854775807",
        "a = ('x',) * 99999999",
        "a = 'x' * 3000000\nb = a + a",
    ] {
        let notes = notes(text);
        assert!(notes[0].contains(too_large), "{text}: {notes:?}");
    }
    // Doubled again and again.
    let doubled = "a = 'x'\n".to_owned() + &"a = a + a\n".repeat(500);
    assert!(notes(&doubled).iter().any(|note| note.contains(too_large)));
    let lists = "a = ['xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx']\n".to_owned() + &"a = [a, a]\n".repeat(500);
    assert!(notes(&lists).iter().any(|note| note.contains(too_large)));
    // The same large value under many names.
    let names: String = (0..900).map(|number| format!("b{number} = a\n")).collect();
    assert!(
        notes(&format!("a = 'x' * 100000\n{names}"))
            .iter()
            .any(|note| note.contains(too_large))
    );
    for text in ["a = '%999999999d' % 1", "a = '%.999999999d' % 1", "a = '%99999s' % 'x'"] {
        assert!(notes(text)[0].contains("more than any guest's file needs"), "{text}");
    }
    let many: String = (0..1000).map(|_| "a = '%9999d%9999d' % (1, 2)\n").collect();
    assert!(notes(&many).iter().any(|note| note.contains(too_large)));
}

#[test]
fn numbers_that_do_not_fit() {
    for text in [
        "a = 99999999999999999999",
        "a = 9223372036854775807 + 1",
        "a = -9223372036854775807 - 2",
        "a = 4294967296 * 4294967296",
        "a = 0x10000000000000000",
        "a = -(-9223372036854775807 - 1)",
        "a = (-9223372036854775807 - 1) / -1",
    ] {
        assert!(notes(text)[0].contains("64 bits"), "{text}: {:?}", notes(text));
    }
    assert!(notes("a = 1 / 0")[0].contains("divides by zero"));
    assert!(notes("a = 1 % 0")[0].contains("divides by zero"));
    let digits = format!("a = {}", "9".repeat(900_000));
    assert!(notes(&digits)[0].contains("64 bits"));
}

#[test]
fn deep_in_one_another() {
    for (open, close) in [("(", ")"), ("[", "]"), ("-(", ")"), ("'%s' % (", ",)")] {
        let deep = |depth: usize| format!("a = {}1{}", open.repeat(depth), close.repeat(depth));
        assert!(notes(&deep(90)).is_empty(), "{open}: {:?}", notes(&deep(90)));
        let notes = notes(&deep(50_000));
        assert!(notes[0].contains("more than 100 deep"), "{open}: {notes:?}");
    }
    let xl = |depth: usize| {
        read(
            format!("a = {}{}", "[".repeat(depth), "]".repeat(depth)).as_bytes(),
            Dialect::Xl,
        )
    };
    assert!(xl(100).is_ok());
    assert_eq!(
        xl(300_000),
        Err("1:105: lists are more than 100 deep in one another".into())
    );
    let signs = format!("a = {}1", "-".repeat(900_000));
    assert_eq!(xm(&signs).settings[0].value, Value::Number(1));
    let open = format!("a = {}", "(".repeat(900_000));
    assert!(read(open.as_bytes(), Dialect::Xm).is_err_and(|why| why.ends_with("is never closed")));
    let long = format!("a = 1{}", " + 1".repeat(200_000));
    assert_eq!(xm(&long).settings[0].value, Value::Number(200_001));
}

#[test]
fn what_is_no_text() {
    for dialect in [Dialect::Xm, Dialect::Xl] {
        assert_eq!(
            read(b"a = 1\nb = \0", dialect),
            Err("2:5: this is a NUL: the file is no text".into())
        );
        assert_eq!(
            read(b"# caf\xe9\na = 1\n", dialect).map(|document| document.settings.len()),
            Ok(1)
        );
    }
    assert_eq!(
        read(b"a = 'caf\xe9'\n", Dialect::Xl),
        Err("1:5: this string is not in UTF-8".into())
    );
    let document = read(b"a = 'caf\xe9'\nb = 2\n", Dialect::Xm).expect("a file of xm");
    assert_eq!(
        document.notes[0].to_string(),
        "1:5: a: the bytes of this string are not UTF-8"
    );
    assert_eq!(document.settings.len(), 1);
    assert_eq!(
        read(b"\xef\xbb\xbfa = 1\r\nb = 2\rc = '''3\r\n'''\r\n", Dialect::Xm).map(|it| it.settings.len()),
        Ok(3)
    );
    assert!(read(b"a = 1\r\n", Dialect::Xl).is_err_and(|why| why.starts_with("1:6: '\\r' cannot stand here")));
    assert!(read(b"\xff\xfea\0=\0", Dialect::Xm).is_err());
    // Bytes of any kind, however many.
    let noise: Vec<u8> = (0..1_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 | 1)
        .collect();
    for dialect in [Dialect::Xm, Dialect::Xl] {
        assert!(read(&noise, dialect).is_err());
    }
}

#[test]
fn many_lines() {
    let good = "a = 1\n".repeat(170_000);
    assert_eq!((xm(&good).settings.len(), xm(&good).settings[0].line), (1, 170_000));
    assert!(read(good.as_bytes(), Dialect::Xl).is_ok());
    let one_line = "a=1;".repeat(250_000);
    assert_eq!(xm(&one_line).settings.len(), 1);
    assert!(read(one_line.as_bytes(), Dialect::Xl).is_ok());
    let added = "a+='x'\n".repeat(100_000);
    assert_eq!(
        read(added.as_bytes(), Dialect::Xl).map(|document| document.settings.len()),
        Ok(1)
    );
    let added = "a+=[1]\n".repeat(140_000);
    assert_eq!(
        read(added.as_bytes(), Dialect::Xl).map(|document| document.settings.len()),
        Ok(1)
    );
    let bad = "f()\n".repeat(200_000);
    assert!(read(bad.as_bytes(), Dialect::Xm).is_err_and(|why| why.contains("too many lines")));
    let bad = "f();".repeat(200_000);
    assert!(read(bad.as_bytes(), Dialect::Xm).is_err_and(|why| why.contains("too many lines")));
    let one = format!("f({})", "a, ".repeat(300_000));
    assert_eq!(xm(&one).notes.len(), 1);
    let keys: String = (0..80_000).map(|number| format!("a{number}=1\n")).collect();
    assert_eq!(xm(&keys).settings.len(), 80_000);
}

#[test]
fn nothing_is_executed() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("import-hostile");
    drop(fs::remove_dir_all(&directory));
    fs::create_dir_all(directory.join("boot")).expect("a directory");
    fs::write(directory.join("boot/k"), "").expect("a file");
    let file = "import os\nos.system('touch proof')\nname = open('proof', 'w').name\nexec 'x = 1'\nmemory = __import__('os').system('touch proof') or 64\n\
         kernel = '/boot/k'\nextra = [open('proof', 'w') for x in (1,)]\nvcpus = lambda: 1\nroot = `os`\n";
    fs::write(directory.join("evil.conf"), file).expect("a file");
    let ttvm = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ttvm"))
            .args(["--root", ".", "guest", "import"])
            .args(arguments)
            .current_dir(&directory)
            .output()
            .expect("ttvm runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let (code, text) = ttvm(&["--name", "evil", "evil.conf"]);
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "1:1",
        "2:1",
        "3:8: name",
        "4:1",
        "5:10: memory",
        "7:10: extra",
        "8:9: vcpus",
        "9:8: root",
    ] {
        assert!(text.contains(&format!("evil.conf:{line}: ")), "{line}: {text}");
    }
    assert!(!directory.join("proof").exists());
    let (code, text) = ttvm(&["--name", "huge", "/dev/zero"]);
    assert_eq!(
        (code, text.contains("is larger than 1024 KB")),
        (Some(3), true),
        "{text}"
    );
    assert_eq!(ttvm(&["--name", "none", "."]).0, Some(1));
    // What a file puts into remarks stays there.
    let file = "kernel = '/boot/k'\nunheard = 'a\\n[xl]\\nb = 1'\nfoo(1) # \x1b[31m\n";
    fs::write(directory.join("sly\n[xl]\nx = 1.conf"), file).expect("a file");
    let (code, text) = ttvm(&["--name", "sly", "sly\n[xl]\nx = 1.conf"]);
    assert_eq!(code, Some(0), "{text}");
    let written = fs::read_to_string(directory.join("etc/ttvm/guests/sly.toml")).expect("a file");
    assert!(!written.contains("\n[xl]") && !written.contains('\u{1b}'), "{written}");
}

/// What fills a file up to its limit is answered in a moment, and not with more than a person would read.
#[test]
fn long_lists() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("import-long");
    drop(fs::remove_dir_all(&directory));
    fs::create_dir_all(directory.join("boot")).expect("a directory");
    fs::write(directory.join("boot/k"), "").expect("a file");
    let import = |name: &str, text: &str| {
        assert!(text.len() <= 1 << 20, "{name}");
        fs::write(directory.join(name), format!("kernel = '/boot/k'\n{text}")).expect("a file");
        let started = Instant::now();
        let output = Command::new(env!("CARGO_BIN_EXE_ttvm"))
            .args(["--root", ".", "guest", "import", "--dry-run", "--name", "x", name])
            .current_dir(&directory)
            .output()
            .expect("ttvm runs");
        assert!(started.elapsed() < LIMIT, "{name}: it took {:?}", started.elapsed());
        assert!(output.stdout.len() + output.stderr.len() < 1 << 20, "{name}");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let list = |key: &str, item: &str, times: usize| format!("{key} = [{}]\n", item.repeat(times));
    for (key, item, times) in [
        ("vif", "'',", 330_000),
        ("disk", "'/a,,xvda',", 90_000),
        ("disk", "'',", 257),
    ] {
        let (code, text) = import("list", &list(key, item, times));
        let expected = format!("list:2: {key} has more than 256 entries, which no guest has");
        assert!(code == Some(3) && text.contains(&expected), "{code:?} {text}");
    }
    assert_eq!(import("most", &list("vif", "'',", 256)).0, Some(0));
    let one = |field: &str, times: usize| list("disk", &format!("'{}vdev=xvda,target=/a'", field.repeat(times)), 1);
    assert_eq!(import("cdrom", &one("cdrom,", 170_000)).0, Some(0));
    for (name, text) in [
        ("discard", one("discard,", 125_000)),
        ("empty", one("colo-host=,", 90_000)),
        ("fields", list("vif", &format!("'{}'", "x,".repeat(500_000)), 1)),
    ] {
        let (code, text) = import(name, &text);
        let expected = "could not be carried over, so that nothing was made of it";
        assert!(code == Some(3) && text.contains(expected), "{name}: {code:?} {text}");
    }
    assert_eq!(
        import("ip", &list("vif", &format!("'{}'", "ip=10.0.0.1,".repeat(80_000)), 1)).0,
        Some(0)
    );
    let (code, text) = import("line", &format!("{}a = '{}'", "f();".repeat(900), "x".repeat(900_000)));
    assert!(code == Some(0) && text.contains("line:2:3597: "), "{text}");
    // Many names for one list that grows.
    let names: String = (0..30_000).map(|number| format!("b{number}=a\n")).collect();
    let text = format!("a = ['x']\n{names}a += ['{}']\nf(a)", "x".repeat(100_000));
    let (code, text) = import("names", &text);
    assert!(
        code == Some(0) && text.contains("larger than any guest's file needs"),
        "{text}"
    );
    let (_, text) = import("quoted", &format!("vif = ['{}=1']\n", "x".repeat(500_000)));
    assert!(text.contains("x…\n"), "{text}");
}

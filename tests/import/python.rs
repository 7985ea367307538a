// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our reckoning against Python's own, on thousands of expressions. With Python 2, which is xm's, if there is one; else with
//! Python 3, where a division of whole numbers is written `//`.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};
use ttvm::import::{Dialect, Value, parse};

use crate::random::Random;

const EXPRESSIONS: usize = 6000;

/// Of each expression its value as JSON, with what it is; "error" if it has none, "large" if it is not worth looking at.
const SCRIPT: &str = r#"
import json, resource, sys
# What is out of hand here is refused there.
resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28))
def shown(value):
    if hasattr(value, "__len__") and len(value) > 2000: raise OverflowError
    if isinstance(value, bool): return ["flag", value]
    if value is None: return ["nothing"]
    if isinstance(value, str): return ["text", value]
    if isinstance(value, (list, tuple)): return [type(value).__name__, [shown(item) for item in value]]
    if isinstance(value, float): return ["fraction"]
    return ["number", str(value)]
def answer(text):
    names = {}
    try:
        exec(text, {"__builtins__": {"True": True, "False": False}}, names)
        return shown(names["a"])
    except (OverflowError, MemoryError):
        return "large"
    except Exception:
        return "error"
sys.stdout.write(json.dumps([answer(text) for text in json.load(sys.stdin)]))
"#;

/// The values that Python gives these files' `a`, and whether it is Python 2.
fn ask(program: &str, files: &[String]) -> Option<Vec<Json>> {
    let mut command = Command::new(program);
    command
        .args(["-W", "ignore", "-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let mut input = child.stdin.take().expect("a pipe");
    drop(input.write_all(&serde_json::to_vec(files).expect("JSON")));
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    output
        .status
        .success()
        .then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
}

fn shown(value: &Value) -> Json {
    match value {
        Value::Text(text) => json!(["text", text]),
        Value::Number(number) => json!(["number", number.to_string()]),
        Value::Flag(flag) => json!(["flag", flag]),
        Value::Nothing => json!(["nothing"]),
        Value::Fraction(_) => json!(["fraction"]),
        Value::List(items) => json!(["list", items.iter().map(shown).collect::<Vec<_>>()]),
        Value::Tuple(items) => json!(["tuple", items.iter().map(shown).collect::<Vec<_>>()]),
    }
}

fn string(random: &mut Random) -> String {
    let (prefix, quote) = (
        random.of(&["", "", "", "r", "R"]),
        random.of(&["'", "\"", "'''", "\"\"\""]),
    );
    let mut text = format!("{prefix}{quote}");
    for _ in 0..random.below(4) {
        text += random.of(&[
            "a", "xvda", " ", "#", "%", "%%", r"\n", r"\\", r"\'", "\\\"", r"\x41", r"\101", r"\q", r"\0", "\\\n", "/",
        ]);
    }
    text + " " + quote
}

fn format_string(random: &mut Random) -> String {
    let mut text = String::from("'");
    for _ in 0..random.below(4) {
        text += random.of(&[
            "%s", "%d", "%5d", "%-5d|", "%05d", "%+d", "% d", "%x", "%#x", "%X", "%o", "%#o", "%.3d", "%8.3d", "%-8s|",
            "%.1s", "%%", "a", "%i", "%u", "%ld", "%", "%#06x", "%+.2d", "%05s",
        ]);
    }
    text + "'"
}

fn number(random: &mut Random) -> String {
    random
        .of(&[
            "0",
            "1",
            "2",
            "3",
            "7",
            "96",
            "256",
            "128",
            "0x10",
            "0xFf",
            "1024",
            "4096",
            "65537",
            "True",
            "False",
            "2147483648",
        ])
        .into()
}

fn expression(random: &mut Random, depth: usize) -> String {
    let inner = |random: &mut Random| expression(random, depth + 1);
    match random.below(if depth > 4 { 5 } else { 15 }) {
        0..=2 => number(random),
        3 => string(random),
        4 => random.of(&["memory", "vg", "None", "disks", "nowhere"]).into(),
        5..=8 => {
            let sign = random.of(&["+", "-", "*", "//", "%", "/"]);
            format!("{} {sign} {}", inner(random), inner(random))
        }
        9 => format!("({})", inner(random)),
        10 => format!("{}{}", random.of(&["-", "+", "- -"]), inner(random)),
        11 => format!("[{}, {}{}]", inner(random), inner(random), random.of(&["", ","])),
        12 => format!("({}, {})", inner(random), inner(random)),
        13 => format!("{} % ({}, {})", format_string(random), inner(random), inner(random)),
        _ => format!("{} % {}", format_string(random), inner(random)),
    }
}

/// A file with one expression, in the two Pythons.
fn file(random: &mut Random) -> String {
    let more = random.of(&[
        "",
        "",
        "",
        "a += 1\n",
        "a = a + a\n",
        "a *= 2\n",
        "b = a\na = [b, b]\n",
        "b = a\nb += a\na = a + b\n",
        "b = (a)\nb *= 2\na += b\n",
        "b = c = a\nc += c\na = [a, b, c]\n",
        "b = a\nb = b + b\na = a, b\n",
        "a = a, 1\n",
    ]);
    format!(
        "memory = 96\nvg = 'xen' \"vg\"\ndisks = [vg, 'x']\na = (\n  {})\n{more}",
        expression(random, 0)
    )
}

/// Refusals that say that it could be reckoned, and is not here.
const NOT_HERE: [&str; 6] = [
    "64 bits",
    "is not reckoned here",
    "larger than any",
    "more than any",
    "has no sign here",
    "not UTF-8",
];

#[test]
fn reckoned_as_python_does() {
    let mut random = Random::new(2);
    let files: Vec<String> = (0..EXPRESSIONS).map(|_| file(&mut random)).collect();
    let (answers, files) = match ask("python2", &files) {
        Some(answers) => (answers, files),
        None => {
            eprintln!("without Python 2: compared with Python 3");
            // Its division is another, and its octal numbers look different.
            let files: Vec<String> = files
                .iter()
                .filter(|file| !file.contains(" / ") && !file.contains("%#o"))
                .cloned()
                .collect();
            let Some(answers) = ask("python3", &files) else {
                eprintln!("skipped: there is no Python");
                return;
            };
            (answers, files)
        }
    };
    let (mut same, mut refused) = (0, 0);
    for (file, answer) in files.iter().zip(answers) {
        let document = parse(file.as_bytes(), Dialect::Xm).expect(file);
        let found = document
            .settings
            .iter()
            .find(|setting| setting.key == "a")
            .map(|setting| shown(&setting.value));
        match found {
            _ if answer == "large" => {}
            Some(found) => {
                assert_eq!(found, answer, "{file}\n{:?}", document.notes);
                same += 1;
            }
            None => {
                let why: Vec<String> = document.notes.iter().map(ToString::to_string).collect();
                let here = why.iter().any(|why| NOT_HERE.iter().any(|part| why.contains(part)));
                assert!(answer == "error" || here, "{file}\nPython: {answer}\n{why:?}");
                refused += 1;
            }
        }
    }
    println!("{same} the same, {refused} with no value");
    assert!(same > EXPRESSIONS / 8, "too few with a value to mean anything: {same}");
}

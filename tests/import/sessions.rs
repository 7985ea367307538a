// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line on numbered directories: `tests/fixtures/import/NN-name` has files of xm and xl, a tree for `--root`, and
//! `session`, what a person would see. `TTVM_UPDATE=1 cargo test --test import` writes the sessions anew; then read the diff.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A copy of a directory, so that the fixture stays as it is.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(&from, &to).expect("a copy")),
        }
    }
}

/// What the commands of a session print and how they end, stdout before stderr.
fn session(directory: &Path, script: &str) -> String {
    let mut text = String::new();
    for line in script.lines().filter_map(|line| line.strip_prefix("$ ")) {
        let _ = writeln!(text, "$ {line}");
        if let Some(file) = line.strip_prefix("cat ") {
            text += &fs::read_to_string(directory.join(file)).expect("the file is there");
            continue;
        }
        let arguments = line.strip_prefix("ttvm ").expect("ttvm or cat");
        let output = Command::new(env!("CARGO_BIN_EXE_ttvm"))
            .args(["--root", "root"])
            .args(arguments.split_whitespace())
            .current_dir(directory)
            .output()
            .expect("ttvm runs");
        text += &String::from_utf8_lossy(&output.stdout);
        text += &String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(0) {
            let _ = writeln!(text, "[{}]", output.status.code().unwrap_or(-1));
        }
    }
    text
}

/// The fixtures, sorted.
pub fn fixtures() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import");
    let mut fixtures: Vec<_> = fs::read_dir(directory)
        .expect("fixtures")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    fixtures.sort();
    assert!(!fixtures.is_empty());
    fixtures
}

#[test]
fn sessions() {
    let mut wrong = Vec::new();
    for fixture in fixtures() {
        let name = fixture.file_name().expect("a name");
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("import").join(name);
        drop(fs::remove_dir_all(&place));
        copy(&fixture, &place);
        let file = fixture.join("session");
        let expected = fs::read_to_string(&file).expect("a session");
        let found = session(&place, &expected);
        if std::env::var_os("TTVM_UPDATE").is_some() {
            fs::write(&file, &found).expect("the session is written");
        } else if found != expected {
            wrong.push(format!(
                "{}\n--- expected\n{expected}--- found\n{found}",
                file.display()
            ));
        }
        // Whatever was written, nothing half-made lies beside it.
        let guests = place.join("root/etc/ttvm/guests");
        for entry in fs::read_dir(guests).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(name.ends_with(".toml"), "{name} was left behind");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn standard_input() {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("import-stdin");
    drop(fs::remove_dir_all(&place));
    fs::create_dir_all(&place).expect("a directory");
    let mut child = Command::new(env!("CARGO_BIN_EXE_ttvm"))
        .args(["--root", ".", "guest", "import", "--dry-run", "-"])
        .current_dir(&place)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ttvm runs");
    let mut input = child.stdin.take().expect("a pipe");
    input
        .write_all(b"name = 'piped'\nkernel = '/boot/k'\nunheard = 1\n")
        .expect("it is read");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.starts_with("# Made by ttvm from the standard input, a file of xl. ") && text.contains("check piped"),
        "{text}"
    );
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("\n-:3: unheard: xl does not know it"), "{text}");
}

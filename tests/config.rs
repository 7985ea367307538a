// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line on numbered trees: `tests/fixtures/config/NN-name/root` is what `--root` reads, `session` is what a
//! person would see. `TTVM_UPDATE=1 cargo test --test config` writes the sessions anew; then read the diff.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What `ttvm` prints and how it ends, stdout before stderr.
fn session(root: &Path, script: &str) -> String {
    let mut text = String::new();
    for line in script.lines().filter_map(|line| line.strip_prefix("$ ttvm ")) {
        let output = Command::new(env!("CARGO_BIN_EXE_ttvm"))
            .arg("--root")
            .arg(root)
            .args(line.split_whitespace())
            .output()
            .expect("ttvm runs");
        let _ = writeln!(text, "$ ttvm {line}");
        text += &String::from_utf8_lossy(&output.stdout);
        text += &String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(0) {
            let _ = writeln!(text, "[{}]", output.status.code().unwrap_or(-1));
        }
    }
    text
}

#[test]
fn sessions() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config");
    let mut names: Vec<_> = fs::read_dir(&fixtures)
        .expect("fixtures")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    names.sort();
    assert!(!names.is_empty());
    let mut wrong = Vec::new();
    for fixture in names {
        let file = fixture.join("session");
        let expected = fs::read_to_string(&file).expect("a session");
        let found = session(&fixture.join("root"), &expected);
        if std::env::var_os("TTVM_UPDATE").is_some() {
            fs::write(&file, &found).expect("the session is written");
        } else if found != expected {
            wrong.push(format!(
                "{}\n--- expected\n{expected}--- found\n{found}",
                file.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

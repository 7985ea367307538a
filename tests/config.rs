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
fn a_configuration_of_ones_own() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("own");
    let home = directory.join("config/ttvm");
    fs::create_dir_all(home.join("guests")).expect("a directory");
    fs::write(home.join("guests/a.toml"), "kernel = \"/etc/passwd\"\n").expect("a file");
    fs::write(home.join("ttvm.toml"), "[guest]\nmemory = \"64M\"\n").expect("a file");
    let run = |arguments: &[&str], shown: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_ttvm"))
            .args(arguments)
            .current_dir(&directory)
            .output()
            .expect("ttvm runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(shown), "{arguments:?}: {text}");
    };
    let file = home.join("guests/a.toml").display().to_string();
    let show = ["--config-dir", "config/ttvm", "guest", "show", "a"];
    run(&show, &format!("file: {file}\n"));
    // Xen is the system's alone.
    run(&show, "toolstack: qemu\n");
    run(&show, "memory: 64M\n");
    fs::write(home.join("ttvm.toml"), "[guest]\ntoolstack = \"xl\"\n").expect("a file");
    run(&show, "toolstack: xl\n");
    fs::write(home.join("ttvm.toml"), "[gust]\n").expect("a file");
    let expected = format!("{}:1:2: ", home.join("ttvm.toml").display());
    run(&["--config-dir", "config/ttvm", "guest", "check"], &expected);
    fs::remove_file(home.join("ttvm.toml")).expect("it goes");
    let expected = format!(
        "ttvm: there is no guest \"b\": {} does not exist; did you mean \"a\"?",
        home.join("guests/b.toml").display()
    );
    run(&["--config-dir", "config/ttvm", "guest", "config", "b"], &expected);
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line on numbered trees: `tests/fixtures/config/NN-name/root` is what `--root` reads, `session` is what a
//! person would see. `TTVM_UPDATE=1 cargo test --test config` writes the sessions anew; then read the diff.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use ttvm::base::text::is_plain;

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

/// A guest's file may be anybody's: what is said of it does nothing to a terminal, hides nothing, and forges no line.
#[test]
fn text_from_elsewhere() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("config-elsewhere");
    let guests = root.join("etc/ttvm/guests");
    fs::create_dir_all(&guests).expect("a directory");
    fs::create_dir_all(root.join("boot")).expect("a directory");
    fs::write(root.join("boot/vmlinuz"), "a kernel").expect("a file");
    let boots = "kernel = \"/boot/vmlinuz\"\ncmdline = \"a\\u202eb\\u2066c\\u2028d\\u200be\"\n";
    fs::write(guests.join("shown.toml"), boots).expect("a file");
    let disk = "[[disk]]\norigin = \"/srv/\\u001b]0;x\\u0007\"\ntarget = \"vda\"\n";
    let wrong = format!("toolstack = \"qemu\"\n{boots}\"\\u001b[2Jx\\nok: ok\" = 1\n{disk}");
    fs::write(guests.join("wrong.toml"), wrong).expect("a file");
    fs::write(
        root.join("xl.cfg"),
        "name = \"im\"\nkernel = \"/boot/vmlinuz\"\nextra = \"a\u{2066}b\"\nunknown = \"\u{202e}\"\n",
    )
    .expect("a file");
    let said = session(&root, "$ ttvm guest check\n$ ttvm guest show shown\n");
    let xl = root.join("xl.cfg").display().to_string();
    let imported = session(
        &root,
        &format!("$ ttvm guest import --name taken --dry-run {xl}\n$ ttvm guest import --name taken {xl}\n"),
    );
    for said in [&said, &imported] {
        assert!(said.chars().all(|c| c == '\n' || is_plain(c)), "{said:?}");
    }
    for part in [
        "\\u{1b}[2Jx\\nok: ok",
        "is neither a volume, written VG/LV, nor a file",
        "cmdline: a\\u{202e}b\\u{2066}c\\u{2028}d\\u{200b}e",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.lines().any(|line| line.starts_with("ok: ok")), "{said}");
    assert!(imported.contains("a\\U00002066b"), "{imported}");
    let written = fs::read_to_string(guests.join("taken.toml")).unwrap_or_default();
    assert!(written.chars().all(|c| c == '\n' || is_plain(c)), "{imported}{written}");
    let _ = fs::remove_dir_all(&root);
}

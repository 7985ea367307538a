// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is written about the programs is complete: every key and every option has its place in a man page, every
//! source file its licence.

use std::fs;
use std::path::Path;
use std::process::Command;

use ttvm::base::catalogue::Message;

fn ttvm(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ttvm"))
        .args(arguments)
        .output()
        .expect("ttvm runs");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A man page as plain words: no fonts, no escapes.
fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(name);
    fs::read_to_string(path).expect("a man page").replace("\\-", "-")
}

/// The keys that a file's table takes, as the answer to an unknown one names them.
fn keys(file: &str, before: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("docs");
    let path = root.join("etc/ttvm").join(file);
    fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    fs::write(&path, format!("{before}zzzzzzzzzzzzzzzzzzzzzzzzz = 1\n")).expect("a file");
    let answer = ttvm(&["--root", root.to_str().expect("a path"), "guest", "check"]);
    fs::remove_file(&path).expect("the file goes");
    let list = answer
        .lines()
        .find_map(|line| line.split_once("; valid here: "))
        .expect(&answer)
        .1;
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn every_key_is_documented() {
    let tables = [
        ("guests/x.toml", "", "ttvm-guest.5"),
        ("guests/x.toml", "[[disk]]\n", "ttvm-guest.5"),
        ("guests/x.toml", "[[vif]]\n", "ttvm-guest.5"),
        ("ttvm.toml", "", "ttvm.toml.5"),
        ("ttvm.toml", "[guest]\n", "ttvm.toml.5"),
        ("ttvm.toml", "[snapshot]\n", "ttvm.toml.5"),
        ("ttvm.toml", "[boot]\n", "ttvm.toml.5"),
        ("ttvm.toml", "[boot.serial]\n", "ttvm.toml.5"),
        ("ttvm.toml", "[boot.ok]\n", "ttvm.toml.5"),
        ("ttvm.toml", "[network]\n", "ttvm.toml.5"),
        ("ttvm.toml", "[network.nat]\n", "ttvm.toml.5"),
        ("ttvm.toml", "[network.bridge]\n", "ttvm.toml.5"),
    ];
    for (file, before, name) in tables {
        let text = page(name);
        for key in keys(file, before) {
            let named = text.lines().any(|line| {
                line.starts_with('.')
                    && line
                        .split(|c: char| !c.is_alphanumeric() && c != '_')
                        .any(|word| word == key)
            });
            assert!(named, "{name} does not tell of {before}{key}");
        }
    }
}

#[test]
fn every_command_and_option_is_documented() {
    let text = page("ttvm.1");
    let mut commands = vec![Vec::new()];
    while let Some(command) = commands.pop() {
        let help = ttvm(&[&command[..], &["--help"]].concat());
        for line in help.lines().map(str::trim) {
            if let Some(option) = line.split_whitespace().find(|word| word.starts_with("--")) {
                // `--dhcp[=<BOOL>]`
                let option = option.split('[').next().unwrap_or(option);
                assert!(text.contains(option), "ttvm.1 does not tell of {option} ({command:?})");
            }
        }
        let list = help
            .split("Commands:\n")
            .nth(1)
            .unwrap_or_default()
            .split("\n\n")
            .next()
            .unwrap_or_default();
        for name in list
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| *name != "help")
        {
            let name: &'static str = name.to_owned().leak();
            assert!(text.contains(name), "ttvm.1 does not tell of {name}");
            commands.push([&command[..], &[name]].concat());
        }
    }
}

/// What XenTT's scripts took, each in a row of its own.
#[test]
fn every_option_of_xentt_has_its_place() {
    let text = page("ttvm-tt.7");
    for (script, options) in [("tt_record", "cdfSDMLRs"), ("tt_replay", "cdfpKs")] {
        let table = text.split(&format!("\n{script}\tdid")).nth(1).expect(script);
        let table = table.split(".TE").next().expect("a table");
        for option in options.chars() {
            let row = format!("\\fB-{option}\\fR");
            let rows = table.lines().filter(|line| line.starts_with(&row)).count();
            assert_eq!(rows, 1, "{script} -{option}");
        }
    }
}

#[test]
fn every_source_file_names_its_licence() {
    let files = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard"])
        .output()
        .expect("git");
    for file in String::from_utf8_lossy(&files.stdout).lines() {
        let source = [
            ".rs", ".sh", ".service", ".target", ".timer", ".install", ".toml", ".yml",
        ]
        .iter()
        .any(|end| file.ends_with(end));
        if !source || file.starts_with("tests/fixtures/") {
            continue;
        }
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap_or_default();
        let mut head = text.lines().take(2);
        assert!(
            head.any(|line| line.contains("SPDX-License-Identifier: MIT OR Apache-2.0")),
            "{file}"
        );
    }
}

/// The files that set a host up install the same, and then do the same (docs/unattended.md). That what cloud-init does is enough is
/// tested in the emulated host.
#[test]
fn unattended_files_agree() {
    let read = |file: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("examples/unattended")
            .join(file);
        fs::read_to_string(path).expect("a file")
    };
    let items = |text: &str, indent: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix(indent)?.strip_prefix("- "));
        lines.filter(|item| !item.contains(':')).map(str::to_owned).collect()
    };
    let (cloud, ansible) = (read("cloud-init.yaml"), read("ansible.yaml"));
    let (packages, commands) = cloud.split_once("\nruncmd:\n").expect("commands");
    let mut packages = items(packages, "  ");
    // Ansible fetches the package by itself.
    packages.retain(|package| package != "wget");
    assert!(
        packages.len() > 8 && packages == items(&ansible, "          "),
        "{packages:?}"
    );
    // A script, each line of which has to succeed.
    let commands: Vec<&str> = commands.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    assert_eq!(commands[0], "set -e");
    let ours: Vec<&&str> = commands.iter().filter(|command| command.starts_with("ttvm ")).collect();
    assert_eq!(ours.len(), 4, "{commands:?}");
    for command in ours {
        assert!(ansible.contains(&format!("cmd: {command}\n")), "{command}");
        // The command line takes it.
        let words: Vec<&str> = command.split_whitespace().skip(1).chain(["--help"]).collect();
        assert!(ttvm(&words).contains("Usage: ttvm "), "{command}");
    }
}

/// One version, and one oldest Rust, wherever they are written down.
#[test]
fn versions_agree() {
    let read = |file: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect(file);
    let version = env!("CARGO_PKG_VERSION");
    let rust = env!("CARGO_PKG_RUST_VERSION");
    for (file, line) in [
        ("debian/changelog", format!("ttvm ({version}) unstable; ")),
        ("packaging/rpm/ttvm.spec", format!("\nVersion:        {version}\n")),
        (
            "packaging/rpm/ttvm.spec",
            format!("developers@ttvm.org> - {version}-1\n"),
        ),
        (
            "packaging/rpm/ttvm.spec",
            format!("\nBuildRequires:  cargo >= {rust}\n"),
        ),
        ("CHANGELOG.md", format!("# Changes\n\n## {version}\n")),
        ("README.md", format!("\nRust {rust} is the oldest ")),
    ] {
        assert!(read(file).contains(&line), "{file} has no {line:?}");
    }
    assert!(read("debian/changelog").starts_with(&format!("ttvm ({version}) ")));
    for page in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("man")).expect("man pages") {
        let page = page.expect("a man page").path();
        let text = fs::read_to_string(&page).expect("a man page");
        assert!(text.contains(&format!("\"ttvm {version}\"")), "{}", page.display());
    }
}

/// The journal's catalogue explains what the programs log under an id, and nothing else; journalctl finds it there.
#[test]
fn the_catalogue_is_complete() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("catalogue");
    for directory in ["usr/lib/systemd/catalog", "var/lib/systemd/catalog"] {
        fs::create_dir_all(root.join(directory)).expect("a directory");
    }
    let text = fs::read_to_string(project.join("packaging/catalog/ttvm.catalog")).expect("the catalogue");
    fs::write(root.join("usr/lib/systemd/catalog/ttvm.catalog"), &text).expect("a copy");
    let journalctl = |arguments: &[&str]| {
        let output = Command::new("journalctl")
            .arg(format!("--root={}", root.display()))
            .args(arguments)
            .output()
            .expect("journalctl, of the package systemd");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    journalctl(&["--update-catalog"]);
    let listed = journalctl(&["--list-catalog"]);
    let mut found: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    let mut known: Vec<&str> = Message::ALL.into_iter().map(Message::id).collect();
    found.sort_unstable();
    known.sort_unstable();
    assert_eq!(found, known);
    assert!(known.windows(2).all(|pair| pair[0] != pair[1]), "two have the same id");
    let sources = sources(&project.join("src"));
    for message in Message::ALL {
        let used = format!("Message::{message:?}");
        assert!(sources.contains(&used), "{used} is logged nowhere");
    }
    // In a terminal, behind what journalctl puts in front.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.len() <= 80, "{line}");
    }
    for page in text
        .split("man:")
        .skip(1)
        .filter_map(|rest| rest.split(['(', ' ']).next())
    {
        let ours = page.starts_with("ttvm");
        let sections = [1, 5, 7, 8].map(|section| project.join(format!("man/{page}.{section}")));
        assert!(!ours || sections.iter().any(|page| page.exists()), "{page}");
    }
}

/// All of the code but the list of what is explained.
fn sources(directory: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            text += &sources(&path);
        } else if !path.ends_with("src/base/catalogue.rs") {
            text += &fs::read_to_string(&path).expect("a source file");
        }
    }
    text
}

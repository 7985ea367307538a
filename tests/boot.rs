// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boot entries, on trees made for the purpose. Each directory in fixtures/boot holds one system:
//!
//! - `tree`: its files, a line each: `PATH`, `PATH/`, `PATH = CONTENT`, `PATH -> TARGET` (a file has some content
//!   if none is given, `\n` is a line end, `#` begins a comment), or `PATH is a bzImage`, one cut off `…, the first BYTES`;
//! - `ttvm.toml`: /etc/ttvm/ttvm.toml, if there is one;
//! - `env`: the variables of grub-mkconfig, `NAME=VALUE`;
//! - `probe`: what GRUB's programs answer there, `QUESTION: ANSWER` (` | ` is a line end);
//! - `menu.cfg`, `notes`: what is to come out, on stdout and stderr.
//!
//! With TTVM_UPDATE=1 the outcome is written there instead; read the difference before it is committed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use ttvm::base::error::chain;
use ttvm::base::text::is_plain;
use ttvm::boot::{self, EntryId, Environment, Menu, Probe};
use ttvm::config::host;
use ttvm::config::places::Places;
use ttvm::run;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/boot");

struct Fixture {
    path: PathBuf,
    root: PathBuf,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let path = Path::new(FIXTURES).join(name);
        // Tests run at the same time, some on the same fixture.
        let root = tempfile(&format!("boot-{name}"));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("boot")).unwrap();
        for line in fs::read_to_string(path.join("tree")).unwrap().lines() {
            if !line.is_empty() && !line.starts_with('#') {
                plant(&root, line);
            }
        }
        if let Ok(config) = fs::read_to_string(path.join("ttvm.toml")) {
            fs::create_dir_all(root.join("etc/ttvm")).unwrap();
            fs::write(root.join("etc/ttvm/ttvm.toml"), config).unwrap();
        }
        Self { path, root }
    }

    fn pairs(&self, file: &str, separator: &str) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .map(|line| {
                let (name, value) = line.split_once(separator).unwrap_or_else(|| panic!("{line}"));
                (name.to_owned(), value.trim().replace(" | ", "\n").replace("\\n", "\n"))
            })
            .collect()
    }

    fn render(&self) -> (Result<Menu, String>, usize) {
        let probe = Recorded {
            root: self.root.clone(),
            answers: self.pairs("probe", ":").into_iter().collect(),
            asked: RefCell::default(),
        };
        let environment: Environment = self.pairs("env", "=").into_iter().collect();
        let menu = host::load(&Places::system(&self.root))
            .map_err(|error| chain(&error))
            .and_then(|config| {
                boot::render(&self.root, &environment, &config.boot, &probe).map_err(|error| chain(&error))
            });
        (menu, probe.asked.into_inner().len())
    }
}

/// A kernel's header, and no kernel.
fn bz_image() -> Vec<u8> {
    let mut bytes = vec![0; 2048 + 1024];
    // Three sectors behind the first, and 64 paragraphs, of protocol 2.15.
    bytes[0x1f1] = 3;
    bytes[0x1f4] = 64;
    bytes[0x202..0x208].copy_from_slice(b"HdrS\x0f\x02");
    bytes
}

fn plant(root: &Path, line: &str) {
    if let Some((name, length)) = line.split_once(" is a bzImage") {
        let mut bytes = bz_image();
        let length = length.trim_start_matches(", the first ");
        bytes.truncate(length.parse().unwrap_or(bytes.len()));
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), bytes).unwrap();
        return;
    }
    let (name, content, target) = match (line.split_once(" -> "), line.split_once(" = ")) {
        (Some((name, target)), _) => (name, "", Some(target)),
        (_, Some((name, content))) => (name, content, None),
        _ => (line, "some content", None),
    };
    let path = root.join(name.replace("\\n", "\n"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    match target {
        Some(target) => symlink(target, path).unwrap(),
        None if name.ends_with('/') => fs::create_dir_all(path).unwrap(),
        None => fs::write(path, content.trim().replace("\\n", "\n")).unwrap(),
    }
}

/// GRUB's programs, as they answered on a real machine or as they would.
struct Recorded {
    root: PathBuf,
    answers: BTreeMap<String, String>,
    asked: RefCell<Vec<String>>,
}

impl Recorded {
    fn answer(&self, question: String) -> Result<String, run::Error> {
        self.asked.borrow_mut().push(question.clone());
        self.answers.get(&question).cloned().ok_or(run::Error::NotInstalled {
            program: question.leak(),
        })
    }
}

impl Probe for Recorded {
    fn device(&self, devices: &[String], target: &str) -> Result<String, run::Error> {
        self.answer(format!("{} {target}", devices.join(" ")))
    }

    fn devices_of(&self, path: &Path) -> Result<String, run::Error> {
        self.answer(format!("device {}", path.display()))
    }

    fn relative(&self, path: &Path) -> Result<String, run::Error> {
        self.answer(format!("relative {}", path.display()))
    }

    fn is_x86(&self, kind: &str, image: &Path) -> Result<bool, run::Error> {
        let image = image.strip_prefix(&self.root).unwrap();
        Ok(self.answer(format!("{kind} /{}", image.display()))? == "yes")
    }
}

/// Compares `text` with the file, or writes it there.
fn expect(path: &Path, text: &str) -> Result<(), String> {
    if std::env::var_os("TTVM_UPDATE").is_some() {
        fs::write(path, text).unwrap();
        return Ok(());
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected == text {
        return Ok(());
    }
    Err(format!("{} is not what came out:\n{text}\n", path.display()))
}

fn script_check(text: &str) -> Result<(), String> {
    let file = tempfile("check.cfg");
    // An input without any command is an error to it, and so would no entry at all be.
    fs::write(&file, format!("set timeout=1\n{text}")).unwrap();
    let output = Command::new("grub-script-check").arg(&file).output();
    let output = output.expect("grub-script-check must be installed (grub-common)");
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "grub-script-check: {}\n{text}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn tempfile(name: &str) -> PathBuf {
    let thread = format!("{:?}", std::thread::current().id()).replace(['(', ')'], "");
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{thread}-{name}"))
}

#[test]
fn every_fixture() {
    let mut names: Vec<String> = fs::read_dir(FIXTURES)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 15, "{names:?}");
    let mut wrong = Vec::new();
    for name in names {
        let fixture = Fixture::new(&name);
        let (menu, asked) = fixture.render();
        let (text, notes) = match menu {
            Ok(menu) => (menu.to_string(), menu.notes.join("\n")),
            Err(error) => (String::new(), error),
        };
        let root = fixture.root.to_str().unwrap();
        let notes = format!("{}\n# programs run: {asked}\n", notes.trim_end());
        let results = [
            expect(&fixture.path.join("menu.cfg"), &text),
            expect(&fixture.path.join("notes"), &notes),
            script_check(&text),
            if text.contains(root) {
                Err(format!("{name}: the test's own directory shows"))
            } else {
                Ok(())
            },
        ];
        wrong.extend(results.into_iter().filter_map(Result::err));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn usual_system_asks_little() {
    let (menu, asked) = Fixture::new("01-bios-ext4").render();
    assert_eq!(menu.unwrap().entries.len(), 2);
    assert!(asked <= 4, "{asked}");
}

#[test]
fn ids_are_fixed_and_in_order() {
    let (menu, _) = Fixture::new("04-tt-images").render();
    let entries = menu.unwrap().entries;
    let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!(ids, ["ttvm-ttxen-ttlinux", "ttvm-ttxen-linux", "ttvm-linux"]);
    assert_eq!(EntryId::ALL.map(EntryId::as_str)[..], ids);
    for entry in entries {
        assert!(
            entry
                .script
                .contains(&format!("$menuentry_id_option '{}' {{", entry.id))
        );
    }
}

/// Where the images GRUB is told to load are files of the tree: no entry is broken.
#[test]
fn every_file_in_the_menu_exists() {
    for name in ["01-bios-ext4", "04-tt-images", "13-links"] {
        let fixture = Fixture::new(name);
        let text = fixture.render().0.unwrap().to_string();
        let mut files = 0;
        for word in text.split_whitespace().filter(|word| word.starts_with("/boot/")) {
            let word = word.trim_end_matches(';');
            assert!(fixture.root.join(&word[1..]).is_file(), "{name}: {word}");
            files += 1;
        }
        assert!(files >= 4, "{name}");
    }
}

/// The program itself: trouble is said on stderr, nothing is printed, the status is 0.
#[test]
fn trouble_stops_nobody() {
    let broken = Fixture::new("10-broken-config").root;
    // No grub-mkconfig around it, and a tree that is no system: GRUB's programs know nothing about it.
    let alien = Fixture::new("18-unanswered").root;
    let root = |path: &Path| vec!["--root".to_owned(), path.to_str().unwrap().to_owned()];
    for (args, message) in [
        (
            root(&broken),
            "no boot entries: /etc/ttvm/ttvm.toml:3:12: dom0_mem: dom0 does not boot with less than 64M",
        ),
        (root(&alien), "no boot entries: cannot find out "),
        (
            root(Path::new("/nonexistent")),
            "no entry ttvm-linux: there is no vmlinuz-* in /boot",
        ),
        (vec!["--help".to_owned()], "no boot entries: it takes no arguments"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_ttvm-grub"))
            .args(&args)
            .env_clear()
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(stderr.contains(message), "{args:?}: {stderr}");
    }
}

#[test]
fn shim_never_fails() {
    let shim = concat!(env!("CARGO_MANIFEST_DIR"), "/grub.d/21_ttvm");
    let text = fs::read_to_string(shim).unwrap();
    // As installed, with the generator gone, and with one that crashes.
    let crash = tempfile("crash");
    fs::write(&crash, "#!/bin/sh\nkill -ABRT $$\n").unwrap();
    Command::new("chmod").arg("755").arg(&crash).status().unwrap();
    for (generator, message) in [
        ("/nonexistent", ""),
        (crash.to_str().unwrap(), "the menu has no ttvm entries"),
    ] {
        let script = text.replace("/usr/libexec/ttvm/ttvm-grub", generator);
        let output = Command::new("/bin/sh").args(["-e", "-c", &script]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && output.stdout.is_empty(), "{stderr}");
        assert!(
            stderr.contains(message) && stderr.is_empty() == message.is_empty(),
            "{stderr}"
        );
    }
}

/// A tree that is looked at may be anybody's: no shell reads its settings.
#[test]
fn nothing_of_another_tree_is_run() {
    let root = Fixture::new("01-bios-ext4").root;
    let mark = root.join("pwned");
    fs::create_dir_all(root.join("etc/default/grub.d")).unwrap();
    let line = format!("touch {0}\nGRUB_CMDLINE_LINUX=\"$(touch {0})\"\n", mark.display());
    fs::write(root.join("etc/default/grub"), &line).unwrap();
    fs::write(root.join("etc/default/grub.d/x.cfg"), &line).unwrap();
    for command in ["render", "list"] {
        let output = Command::new(env!("CARGO_BIN_EXE_ttvm"))
            .arg("--root")
            .arg(&root)
            .args(["boot", command])
            .output()
            .unwrap();
        // Whatever GRUB's programs make of a tree that is no system.
        drop(output);
        assert!(!mark.exists(), "{command}");
    }
}

/// What is read of such a tree does nothing to a terminal, hides nothing, and forges no line.
#[test]
fn text_of_another_tree() {
    let root = Fixture::new("01-bios-ext4").root;
    let write = |path: &str, text: &str| {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), text).unwrap();
    };
    write("proc/sys/kernel/random/boot_id", "1\n");
    write("proc/cmdline", "root=/dev/vda1\n");
    let hostile = "\u{1b}]0;x\u{7}\u{9b}2J\u{202e}\u{200b}";
    let entry = format!("menuentry 'a{hostile}b' {{\n\tlinux /boot/x\n}}\n");
    write("boot/grub/grub.cfg", &format!("set default=\"1{hostile}\"\n{entry}"));
    let trial = format!(
        r#"{{"trial":{{"entry":"ttvm-linux","keep":false,"asked":1,"asked_in":"0","fingerprint":"{}","verdict":[{{"failed":"why\u001b[2J\nWarning: none"}},"0"]}},"proved":{{}}}}"#,
        "00000000-0000-0000-0000-000000000000"
    );
    write("var/lib/ttvm/boot.json", &trial);
    write(
        "etc/default/grub",
        "GRUB_CMDLINE_LINUX=\"$(a)\"\nGRUB_DEFAULT=\"\u{202e}\"\n",
    );
    write(&format!("etc/default/grub.d/{hostile}.cfg"), "GRUB_CMDLINE_LINUX=`a`\n");
    let mut all = String::new();
    for (program, args) in [
        (env!("CARGO_BIN_EXE_ttvm"), &["boot", "status"][..]),
        (env!("CARGO_BIN_EXE_ttvm"), &["boot", "list"]),
        (env!("CARGO_BIN_EXE_ttvm"), &["boot", "render"]),
        (env!("CARGO_BIN_EXE_ttvm"), &["boot", "once", "ttvm-linux"]),
        (env!("CARGO_BIN_EXE_ttvm-grub"), &[]),
    ] {
        let output = Command::new(program)
            .arg("--root")
            .arg(&root)
            .args(args)
            .output()
            .unwrap();
        all += &String::from_utf8_lossy(&output.stdout);
        all += &String::from_utf8_lossy(&output.stderr);
    }
    assert!(all.chars().all(|c| c == '\n' || c == '\t' || is_plain(c)), "{all:?}");
    assert!(
        all.contains("ttvm-linux FAILED: why\\u{1b}[2J\\nWarning: none"),
        "{all}"
    );
    assert!(
        all.contains("\"a\\u{1b}]0;x\\u{7}\\u{9b}2J\\u{202e}\\u{200b}b\""),
        "{all}"
    );
}

/// Nor is it waited for, or read without an end, and no link leads out of it.
#[test]
fn files_of_another_tree_that_are_none() {
    let secret = tempfile("secret");
    fs::write(&secret, "[mistake]\n").unwrap();
    for path in [
        "boot/grub/grub.cfg",
        "boot/grub/grubenv",
        "boot/config-6.1.0-56-amd64",
        "boot/xen-4.17-amd64.config",
        "etc/ttvm/ttvm.toml",
        "etc/ttvm/guests/a.toml",
        "etc/default/grub",
        "etc/default/grub.d/zz-ttvm.cfg",
        "etc/machine-id",
        "var/lib/ttvm/boot.json",
        "proc/cmdline",
        "proc/self/mountinfo",
        "proc/sys/kernel/random/boot_id",
        "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
    ] {
        for kind in ["pipe", "/dev/zero", secret.to_str().unwrap()] {
            let root = Fixture::new("01-bios-ext4").root;
            for (name, text) in [("sys/kernel/random/boot_id", "1\n"), ("cmdline", "quiet\n")] {
                let name = root.join("proc").join(name);
                fs::create_dir_all(name.parent().unwrap()).unwrap();
                fs::write(name, text).unwrap();
            }
            let real = root.join(path);
            fs::create_dir_all(real.parent().unwrap()).unwrap();
            let _ = fs::remove_file(&real);
            match kind {
                "pipe" => assert!(Command::new("mkfifo").arg(&real).status().unwrap().success()),
                target => symlink(target, &real).unwrap(),
            }
            for command in ["boot status", "boot render", "guest check"] {
                let output = Command::new("timeout")
                    .args(["60", env!("CARGO_BIN_EXE_ttvm"), "--root"])
                    .arg(&root)
                    .args(command.split(' '))
                    .output()
                    .unwrap();
                assert!(
                    output.status.code().is_some_and(|code| code < 5),
                    "{command}: {path}, {kind}"
                );
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(!said.contains("mistake"), "{command}: {path}: {said}");
            }
        }
    }
    fs::remove_file(secret).unwrap();
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm report`: the page of a recording, whatever the guest printed and whoever made the recording.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use ttvm::base::text::is_plain;
use ttvm::config::guest::Toolstack;
use ttvm::recording::{Divergence, Recording, Verdict};

use super::{START, World};

/// A run that is written by hand (crates/replay-log/src/lib.rs says how): its log, what it printed, and its instructions.
pub struct Run {
    log: Vec<u8>,
    console: Vec<u8>,
    instructions: u64,
}

impl Run {
    pub fn new() -> Self {
        let log = [&[0x00, 0xe0, 0x20, 0x0c][..], &[0; 8], &[37]].concat();
        Self {
            log,
            console: Vec::new(),
            instructions: 0,
        }
    }

    pub fn pass(&mut self, instructions: u32) {
        self.event(0, &instructions.to_be_bytes());
        self.instructions += u64::from(instructions);
    }

    /// Each byte takes a while.
    pub fn print(&mut self, text: &[u8]) {
        for byte in text {
            self.pass(200);
            self.event(22, &[0, 0, 0, 1, 0, 0, 0, 1]);
            self.console.push(*byte);
        }
    }

    pub fn event(&mut self, kind: u8, content: &[u8]) {
        self.log.push(kind);
        self.log.extend(content);
    }

    pub fn record(mut self, world: &World) -> Recording {
        self.event(16, &[]);
        self.event(39, &[]);
        let (draft, manifest) = (world.draft(START), world.manifest(START));
        World::ran(draft, manifest, &self.log, &self.console, Some(self.instructions))
    }
}

/// Three lines.
fn short(world: &World) -> Recording {
    let mut run = Run::new();
    run.pass(1_000_000);
    run.print(b"Linux version 6.1\n");
    run.event(1, &[]);
    run.pass(2_000_000);
    run.print(b"login: \nPowering off.\n");
    run.record(world)
}

fn identical() -> Verdict {
    Verdict::Identical {
        instructions: Some(3_007_800),
        from: None,
        moments: 3,
        memory: true,
        disks: 1,
    }
}

/// What `ttvm report clientA` prints and how it ends.
fn report(world: &World, line: &str) -> String {
    let mut command = world.command();
    command.args(["report", "clientA"]).args(line.split_whitespace());
    let output = command.output().expect("ttvm runs");
    let code = output.status.code().filter(|code| *code != 0);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).expect("text") + &code.map_or_else(String::new, |code| format!("[{code}]\n"));
    text.replace(&world.directory.display().to_string(), "DIR")
}

fn page(world: &World) -> String {
    report(world, "-o -")
}

#[test]
fn a_run_and_its_replays() {
    let world = World::new("report");
    let recording = short(&world);
    let fresh = page(&world);
    assert!(fresh.contains("<strong>NOT REPLAYED YET</strong>"));
    recording.note_verdict(&identical(), "7.2.22");
    recording.note_verdict(&identical(), "8.2.1");
    let said = report(&world, "");
    assert!(
        said.starts_with("the report of clientA 20261125-130700 is in clientA-20261125-130700.html ("),
        "{said}"
    );
    let path = world.directory.join("clientA-20261125-130700.html");
    let text = fs::read_to_string(&path).expect("a page");
    assert!(
        text.replace(&world.directory.display().to_string(), "DIR") == page(&world),
        "the same recording, the same page"
    );
    assert_eq!(fs::metadata(&path).expect("it").permissions().mode() & 0o777, 0o600);
    for part in [
        "<strong>IDENTICAL</strong> 2 replays in a row were the same run: 3,007,800 instructions; memory and registers at 3 points, console, disk",
        "<td>7.2.22</td>",
        "<td>8.2.1</td>",
        // Before the instruction that prints the first byte.
        "<li id=\"i-1000199\"><a href=\"#i-1000199\">1_000_199</a><span>0.008s</span><code>Linux version 6.1</code></li>",
        "<li id=\"i-3003799\"><a href=\"#i-3003799\">3_003_799</a><span>0.024s</span><code>login: </code></li>",
        "ttvm replay clientA 20261125-130700 --at",
        "<td>2026-11-25 13:08:12 UTC, after 1min 12s: powered itself off</td>",
    ] {
        assert!(text.contains(part), "{part}");
    }
    let at = Divergence::Memory {
        instructions: 2_000_000,
        same: Some(1_500_000),
        memory: true,
        registers: false,
        differences: vec!["the byte at 0x10 of the memory was <0>, is <1>".to_owned()],
    };
    recording.note_verdict(&Verdict::Diverged { at: at.clone() }, "7.2.22");
    let text = page(&world);
    for part in [
        "<strong>DIVERGED</strong> the memory is not the same after 2,000,000 instructions, and was after 1,500,000",
        "<td>the byte at 0x10 of the memory was &lt;0&gt;, is &lt;1&gt;</td>",
        "<rect class=\"doubt\" x=\"49.8",
        "--verify --explain</code>",
        "a replay diverged</strong>",
    ] {
        assert!(text.contains(part), "{part}");
    }
    // Why, once somebody has looked; of another replay nothing is kept.
    let why = [
        "the first different instruction is number 1,723,456, at 0x10: movq %rdx, (<r14>)",
        "behind it, it is 1",
    ];
    let why = why.map(str::to_owned);
    recording.note_explanation(&Divergence::Stalled { instructions: None }, &why, false);
    assert_eq!(page(&world), text);
    recording.note_explanation(&at, &why, false);
    let text = page(&world);
    for part in [
        "<tr><th scope=\"row\" rowspan=\"2\">Because</th><td>the first different instruction is number 1,723,456, at 0x10: movq %rdx, (&lt;r14&gt;)</td>",
        "<tr><td>behind it, it is 1</td></tr>",
    ] {
        assert!(text.contains(part), "{part}");
    }
    assert!(!text.contains("--explain"));
    // No reason was found: that is no reason.
    recording.note_explanation(&at, &["the difference did not come again".to_owned()], true);
    let text = page(&world);
    for part in [
        "<tr><th scope=\"row\">Looked for</th><td>the difference did not come again</td></tr>",
        "--verify --explain</code>",
    ] {
        assert!(text.contains(part), "{part}");
    }
    assert!(!text.contains("Because"));
    recording.note_verdict(&identical(), "7.2.22");
    assert!(!page(&world).contains("Because"));
}

#[test]
fn only_reports_are_overwritten() {
    let world = World::new("report-over");
    let recording = short(&world);
    report(&world, "-o page.html");
    recording.note_verdict(&identical(), "7.2.22");
    assert!(report(&world, "-o page.html").starts_with("the report of clientA"));
    let path = world.directory.join("page.html");
    assert!(fs::read_to_string(&path).expect("it").contains("IDENTICAL"));
    fs::write(world.directory.join("notes.html"), "<!DOCTYPE html>\nmine\n").expect("a file");
    symlink(&path, world.directory.join("link.html")).expect("a link");
    fs::create_dir(world.directory.join("dir.html")).expect("a directory");
    // Only its beginning is read: it has more than there is memory.
    let disk = fs::File::create(world.directory.join("disk.img")).expect("a file");
    disk.set_len(1 << 40).expect("a large one");
    for name in ["notes.html", "link.html", "dir.html", "disk.img"] {
        assert_eq!(
            report(&world, &format!("-o {name}")),
            format!(
                "ttvm: {name} is there already, and it is no report: name another file with -o, or remove it\n[4]\n"
            )
        );
    }
    assert_eq!(
        report(&world, "-o nowhere/page.html"),
        "ttvm: cannot write nowhere/page.html\n  because: No such file or directory (os error 2)\n[1]\n"
    );
}

#[test]
fn what_is_not_what_was_recorded() {
    let world = World::new("report-other");
    let recording = short(&world);
    let console = fs::read(recording.console()).expect("it");
    fs::write(recording.console(), "Linux version 9.9\nlogin: \nPowering off.\n").expect("another");
    let said = report(&world, "");
    assert!(
        said.starts_with("ttvm: console.log is not what was recorded: DIR/state/") && said.ends_with("\n[1]\n"),
        "{said}"
    );
    fs::write(recording.console(), console).expect("the old one");
    fs::write(recording.log(), "QEMU").expect("another");
    assert_eq!(
        report(&world, ""),
        "ttvm: replay.log is not what QEMU writes\n  because: it is no log of a QEMU from 7.2 to 10.0: it begins with 0x51454d55, not with 0xe0200c\n[1]\n"
    );
    assert!(!world.directory.join("clientA-20261125-130700.html").exists());
}

/// A recording from somebody who wants to do harm: what the guest printed, and everything that the recording says of itself.
pub fn hostile(world: &World) {
    let attacks = [
        "</code></li></ol><script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>' onmouseover='alert(1)",
        "\u{202e}txt.exe\u{2066}\u{61c}\u{feff}\u{2028}",
        "\u{1b}]0;title\u{7}\u{1b}[31mred\u{9b}31m\u{8}\u{8}\0",
        "<!-- --> <![CDATA[ ]]> </style><style>*{display:none}</style> &lt; &#60;",
        "<base href=//evil><meta http-equiv=refresh content=0><iframe srcdoc=x>",
    ];
    let mut run = Run::new();
    run.pass(1000);
    for attack in attacks {
        run.print(attack.as_bytes());
        run.print(b"\n");
    }
    run.print(b"\xff\xfe\xc0<\n\t<b>\r\x0b");
    let (draft, mut manifest) = (world.draft(START), world.manifest(START));
    let all = attacks.concat().replace('\0', "");
    manifest.engine.version.clone_from(&all);
    manifest.engine.machine.clone_from(&all);
    manifest.engine.cpu.clone_from(&all);
    manifest.engine.icount.clone_from(&all);
    manifest.engine.cmdline = Some(all.clone());
    manifest.run.network.clone_from(&all);
    manifest.run.ttvm.clone_from(&all);
    manifest.guest_file.path = all.clone().into();
    manifest.engine.firmware.push(manifest.guest_file.clone());
    run.event(39, &[]);
    let recording = World::ran(draft, manifest, &run.log, &run.console, Some(run.instructions));
    recording.note_verdict(
        &Verdict::Diverged {
            at: Divergence::Console {
                line: 1,
                column: 1,
                byte: 0,
                expected: all.clone(),
                found: all.clone(),
                instructions: Some(u64::MAX),
            },
        },
        &all,
    );
}

#[test]
fn nothing_of_others_is_more_than_text() {
    let world = World::new("report-hostile");
    hostile(&world);
    let text = page(&world);
    let strange: Vec<char> = text.chars().filter(|c| *c != '\n' && !is_plain(*c)).collect();
    assert!(strange.is_empty(), "{strange:?}");
    let clean = {
        let other = World::new("report-harmless");
        short(&other);
        page(&other)
    };
    // As many as in a page of a run that says nothing of the kind, and no others.
    for tag in [
        "<script", "</script", "<style", "</style", "<meta", "<!--", "<main", "<section", "<link", "<base",
    ] {
        assert_eq!(text.matches(tag).count(), clean.matches(tag).count(), "{tag}");
    }
    for tag in ["<img", "<iframe", "<![", " onerror=alert(1)>", "' onmouseover='"] {
        assert!(!text.contains(tag), "{tag}");
    }
    assert!(text.contains("<code>\\u{1b}]0;title\\u{7}red\\u{9b}31m\\u{8}\\u{8}\\u{0}</code>"));
}

#[test]
fn a_run_on_tt_xen() {
    let world = World::new("report-xm");
    let (draft, mut manifest) = (world.draft(START), world.manifest(START));
    manifest.engine.toolstack = Toolstack::Xm;
    manifest.engine.icount = "-".to_owned();
    World::ran(draft, manifest, b"ttd", b"Linux version 2.6.18\nwelcome", None);
    let text = page(&world);
    for part in [
        "there is no timeline",
        "<li><code>Linux version 2.6.18</code></li>\n<li><code>welcome</code></li>",
    ] {
        assert!(text.contains(part), "{part}");
    }
}

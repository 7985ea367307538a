// SPDX-License-Identifier: MIT OR Apache-2.0
//! A recording is left on the way, lives on, and what comes of it is a run like any other.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::time::Instant;

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use ttvm::recording::library::manifest::RunExit;
use ttvm::recording::{Recording, State};

use super::super::Outcome;
use super::super::lab::{FILE, GUEST, Lab, Place, Running, STATE, contents, state, until};

/// Branches of a guest that is busy, but for who wants more (`TTVM_BRANCHES`).
const BRANCHES: u64 = 2;

/// The newest recording of a guest.
fn newest(place: &Place, guest: &str) -> Recording {
    let found = place.library().find(&guest.parse().expect("a name"), None);
    found.expect("a recording")
}

/// Where machines have their files, there are none.
fn nothing_is_left(place: &Place) {
    let overlays = std::fs::read_dir(place.path(STATE).join("overlays")).expect("overlays");
    let left: Vec<_> = overlays.flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Removes the newest recording of a guest.
fn remove(place: &Place, guest: &str) {
    let id = newest(place, guest).id().to_string();
    place.run(&["recordings", "rm", guest, &id]).expect(0, &[]);
}

fn instructions(recording: &Recording) -> u64 {
    let result = recording.manifest().result.as_ref().expect("a result");
    result.instructions.expect("a count")
}

/// The program on a terminal of its own.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: File,
    shown: String,
}

impl Terminal {
    fn start(place: &Place, args: &[&str]) -> Self {
        let pty = openpty(None, None).expect("a terminal");
        let mut command = place.command(args);
        let theirs = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a descriptor"));
        command.stdin(theirs(&pty.slave)).stdout(theirs(&pty.slave));
        let child = command.stderr(Stdio::piped()).spawn().expect("the program");
        Self {
            child,
            keyboard: pty.master.try_clone().expect("a descriptor").into(),
            screen: pty.master.into(),
            shown: String::new(),
        }
    }

    /// Waits until the guest prints `text`.
    fn says(&mut self, text: &str) {
        let mut bytes = [0; 1024];
        while !self.shown.contains(text) {
            let length = self.screen.read(&mut bytes).unwrap_or(0);
            assert!(length > 0, "in vain: waiting for {text:?}:\n{}", self.shown);
            self.shown += &String::from_utf8_lossy(&bytes[..length]);
        }
    }

    fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("keys");
    }

    /// Waits for its end, which has to be a good one.
    fn ends(mut self) {
        self.says("recorded ");
        let mut said = String::new();
        let err = self.child.stderr.as_mut().expect("a pipe");
        err.read_to_string(&mut said).expect("what it said");
        let status = self.child.wait().expect("its end");
        assert!(status.success(), "{status}: {said}{}", self.shown);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One that asks is answered otherwise, again and again; a branch has branches.
pub fn other_answers(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("none", "");
    place.script(
        "echo ready; read -r a; echo \"first $a\"; echo more; read -r b; echo \"then $b\"; \
         head -c 16 /dev/urandom | od -An -tx1; poweroff -f",
    );
    let mut run = Terminal::start(&place, &["record", GUEST, "--console"]);
    run.says("ready");
    run.types("red\r");
    run.says("more");
    run.types("blue\r");
    run.ends();
    let parent = contents(&place.recording().console());
    assert!(parent.contains("first red") && parent.contains("then blue"), "{parent}");
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);

    let mut run = Terminal::start(
        &place,
        &["branch", GUEST, "--at", "'ready'", "--as", "green", "--console"],
    );
    run.types("green\r");
    run.says("first green");
    run.says("more");
    run.types("sky\r");
    run.ends();
    let mut run = Terminal::start(&place, &["record", "grey", "--from", "green@'more'", "--console"]);
    run.types("sea\r");
    run.ends();
    for (guest, words) in [
        ("green", ["first green", "then sky"]),
        ("grey", ["first green", "then sea"]),
    ] {
        let recording = newest(&place, guest);
        let console = contents(&recording.console());
        assert!(words.iter().all(|word| console.matches(word).count() == 1), "{console}");
        assert_eq!(recording.manifest().guest.as_str(), guest);
        place
            .run(&["replay", guest, "--verify"])
            .expect(0, &["IDENTICAL", "console, disk"]);
        place
            .run(&["replay", guest, "--verify", "--at", "end-1000"])
            .expect(0, &["IDENTICAL"]);
    }
    // Its parent is as it was, and each knows the other.
    assert_eq!(contents(&place.recording().console()), parent);
    let tree = place.run(&["recordings", "tree", GUEST]);
    tree.expect(0, &["└─ at ", ": green ", "   └─ at ", ": grey ", "identical"]);
    place
        .run(&["recordings", "show", "grey"])
        .expect(0, &["branch of: green "]);
    place.run(&["report", GUEST, "-o", "-"]).expect(
        0,
        &[
            ">Branches</h2>",
            "<td>green ",
            ", 1 branch; compared at ",
            "<ellipse cx=",
        ],
    );
    // None of them needs another.
    remove(&place, "green");
    place
        .run(&["recordings", "tree", "grey"])
        .expect(0, &["(of green ", ", which is not here)"]);
    place.run(&["replay", "grey", "--verify"]).expect(0, &["IDENTICAL"]);
    Ok(())
}

/// Wherever a guest is left, busy or not, it lives on; and each branch is replayed from its parent's first instruction to its own
/// last one.
pub fn anywhere(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,clocks,disk,net,disk,random", "");
    place.record(&[]);
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    let end = instructions(&place.recording());
    let many = std::env::var("TTVM_BRANCHES").ok();
    let count = many.as_ref().and_then(|count| count.parse().ok()).unwrap_or(BRANCHES);
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut seconds = Vec::new();
    for number in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Every other one where the disk and the network are at work.
        let at = match number % 2 {
            0 => end / 8 * 7 + state % (end / 8 - 2000),
            _ => state % (end - 2000),
        };
        let at = at.to_string();
        let begun = Instant::now();
        let run = place.start(&["branch", GUEST, "--at", &at, "--as", "other"], "recording as");
        let live = begun.elapsed().as_secs_f64();
        let ended = run.end();
        ended.expect(0, &["recorded other ", "powered itself off"]);
        let replayed = place.run(&["replay", "other", "--verify", "--no-checkpoints"]);
        replayed.expect(0, &["IDENTICAL: other "]);
        if many.is_some() {
            println!(
                "branch {number} at {at}: live after {live:.2} s; {}",
                replayed.out.trim()
            );
        }
        seconds.push(live);
        let recording = newest(&place, "other");
        let parent = recording.manifest().parent.as_ref().expect("its parent");
        assert!(parent.instructions >= at.parse().expect("a number") && parent.instructions < instructions(&recording));
        remove(&place, "other");
    }
    seconds.sort_by(f64::total_cmp);
    if many.is_some() {
        let at = |part: f64| seconds[((seconds.len() - 1) as f64 * part) as usize];
        println!(
            "live after: half {:.2} s, 95 of 100 {:.2} s, all {:.2} s",
            at(0.5),
            at(0.95),
            at(1.0)
        );
    }
    // Without checkpoints it goes there from the first instruction; and the end may be chosen.
    place.run(&["recordings", "checkpoints", GUEST, "--rm"]).expect(0, &[]);
    let cut = place.run(&["branch", GUEST, "--at", "50%", "--for", "guest:100_000_000"]);
    cut.expect(0, &["there are no checkpoints", "ended as it was to after "]);
    let branch = newest(&place, GUEST);
    let from = branch.manifest().parent.as_ref().expect("its parent").instructions;
    let length = instructions(&branch) - from;
    assert!((100_000_000..100_000_100).contains(&length), "{length}");
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    nothing_is_left(&place);
    Ok(())
}

/// Where there is no way on, nothing is left behind and the status says why.
pub fn refused(lab: &Lab) -> Outcome {
    let place = lab.place();
    super::describe_tiny(&place, "");
    place.record(&[]);
    let branch = |at: &str| place.run(&["branch", GUEST, "--at", at, "--as", "other"]);
    // A Multiboot kernel, and at its last instruction.
    branch("50%").expect(0, &["recorded other "]);
    place.run(&["replay", "other", "--verify"]).expect(0, &["IDENTICAL"]);
    branch("end").expect(0, &["recorded other "]);
    place.run(&["replay", "other", "--verify"]).expect(0, &["IDENTICAL"]);
    remove(&place, "other");
    remove(&place, "other");
    branch("9_999_999_999").expect(2, &["there is no such point"]);
    branch("'no such words'").expect(2, &["there is no such point"]);
    place
        .run(&["branch", "nobody", "--at", "1"])
        .expect(1, &["has no recording"]);
    place
        .run(&["record", "other", "--from", "demo"])
        .expect(2, &["GUEST/RECORDING@POINT"]);
    // What it was made from is another now.
    place.write("base.img", &[7; super::TINY_DISK]);
    branch("1000").expect(4, &["would not be a replay", "disk vda"]);
    assert!(
        place
            .library()
            .list(Some(&"other".parse().expect("a name")))
            .expect("none")
            .is_empty()
    );
    nothing_is_left(&place);
    Ok(())
}

/// A branch is as shut in as its parent was, and is made only where it could be replayed.
pub fn careful(lab: &Lab) -> Outcome {
    let place = lab.place();
    super::describe_tiny(&place, "");
    // One that is only read, and a network that reaches the world.
    place.edit(
        FILE,
        "[[vif]]",
        "[[disk]]\ntarget = \"vdb\"\npath = \"HERE/other.img\"\naccess = \"ro\"\n\n[[vif]]\noutside = true",
    );
    let here = place.path("").display().to_string();
    place.edit(FILE, "HERE/", &here);
    place.write("other.img", &[3; super::TINY_DISK]);
    place.record(&[]);
    let network = |guest: &str| {
        let mut command = place.command(&["branch", guest, "--at", "50%", "--as", "other"]);
        command.env("TTVM_FAIL_POINT", "branch.running:stop");
        let running = Running::start(command);
        until("it stands still", || state(running.pid()) == Some('T'));
        let words = std::fs::read(format!("/proc/{}/cmdline", running.emulator())).expect("its words");
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        running.signal(Signal::SIGCONT);
        running.end().expect(0, &["recorded other "]);
        words.contains("-netdev user,id=net0,restrict=on ")
    };
    assert!(!network(GUEST), "the guest's file says that it reaches the world");
    // There is no file of this name, and still it is the same machine, with a disk that is only read.
    place.run(&["replay", "other", "--verify"]).expect(0, &["IDENTICAL"]);
    remove(&place, "other");
    place
        .run(&["recordings", "export", GUEST, "--with-disks", "-o", "carried"])
        .expect(0, &[]);
    place
        .run(&["recordings", "import", "carried", "--as", "foreign"])
        .expect(0, &[]);
    let file = contents(&place.path(FILE));
    place.write(".config/ttvm/guests/foreign.toml", file.as_bytes());
    std::fs::remove_file(place.path(FILE)).expect("the other guest");
    assert!(network("foreign"), "somebody else's kernel reaches the world");
    remove(&place, "other");
    place.write(FILE, file.as_bytes());
    std::fs::remove_file(place.path(".config/ttvm/guests/foreign.toml")).expect("the file");
    // A guest of that name is another.
    place.write(
        ".config/ttvm/guests/other.toml",
        file.replace("16M", "24M").replace(":01\"", ":02\"").as_bytes(),
    );
    let other = place.run(&["record", "other", "--from", "demo@50%"]);
    other.expect(
        4,
        &["there is a guest \"other\"", "choose a name without a file", "memory: "],
    );
    // Before the first instruction; and a series that nobody would wait for.
    place
        .run(&["branch", GUEST, "--at", "0", "--as", "begun"])
        .expect(0, &["recorded begun "]);
    place.run(&["replay", "begun", "--verify"]).expect(0, &["IDENTICAL"]);
    let series = [
        "branch", GUEST, "--at", "0", "--as", "begun", "--tries", "1", "--for", "9s", "--every", "1",
    ];
    place
        .run(&series)
        .expect(2, &["more than a thousand points: a step of "]);
    Ok(())
}

/// Whoever is killed, what there is of a branch is salvaged.
pub fn killed(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("disk,random,loop", "");
    place.record(&["--for", "guest:18s"]);
    place.edit(FILE, "memory", "# As before.\nmemory");
    // ttvm while the guest lives, and while it makes one log of two.
    for (number, point) in ["branch.running", "branch.joined"].into_iter().enumerate() {
        let mut command = place.command(&[
            "branch",
            GUEST,
            "--at",
            "'written'",
            "--as",
            "other",
            "--for",
            "guest:3s",
        ]);
        command.env("TTVM_FAIL_POINT", format!("{point}:stop"));
        let running = Running::start(command);
        until("it stands still", || state(running.pid()) == Some('T'));
        if number == 0 {
            // The guest goes on meanwhile, and its log grows.
            let entry = place
                .library()
                .list(Some(&"other".parse().expect("a name")))
                .expect("a list");
            let log = entry.last().expect("a draft").directory.join("branch.log");
            until("the log grows", || {
                std::fs::metadata(&log).is_ok_and(|data| data.len() > 8192)
            });
        }
        kill(running.pid(), Signal::SIGKILL).expect("kill");
        drop(running);
        let salvaged = place.run(&["recordings", "salvage", "other"]);
        salvaged.expect(0, &["salvaged: "]);
        let entries = place
            .library()
            .list(Some(&"other".parse().expect("a name")))
            .expect("a list");
        let entry = entries.last().expect("an entry");
        assert_eq!(entry.state, State::Complete);
        let result = entry.manifest.as_ref().and_then(|manifest| manifest.result.as_ref());
        assert_eq!(result.map(|result| result.exit), Some(RunExit::Cut));
        for left in ["branch.log", "branch.json"] {
            assert!(!entry.directory.join(left).exists(), "{left}");
        }
        place.run(&["replay", "other", "--verify"]).expect(0, &["IDENTICAL"]);
        let recording = newest(&place, "other");
        let parent = recording.manifest().parent.as_ref().expect("its parent");
        assert!(parent.instructions < instructions(&recording), "nothing of its own");
        remove(&place, "other");
    }
    Ok(())
}

/// A fault that comes one time in three: recorded until it does, then left at several points. Behind the one where it was decided,
/// every branch crashes.
pub fn tries(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("none", "");
    place.script(
        "echo begun; n=$(head -c 2 /dev/urandom | od -An -tu2); n=$((n % 3)); echo decided; \
         i=0; while [ $i -lt 300 ]; do i=$((i + 1)); done; \
         if [ $n = 0 ]; then echo CRASHED; else echo fine; fi; poweroff -f",
    );
    let crashed = |place: &Place| contents(&place.recording().console()).contains("CRASHED");
    for number in 0.. {
        place.record(&[]);
        if crashed(&place) {
            break;
        }
        assert!(number < 60, "it never crashes");
    }
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    let command = [
        "branch",
        GUEST,
        "--as",
        "tried",
        "--tries",
        "2",
        "--for",
        "60s",
        "--printing",
        "CRASHED",
    ];
    let one = place.run(&[&command[..], &["--at", "'decided'"]].concat());
    one.expect(
        0,
        &[
            "2 of 2",
            "##",
            "2 powered off and had printed it",
            "all of them ended so, from wherever",
        ],
    );
    // At many: what is behind that point is certain. What is before it is chance.
    let many = place.run(&[&command[..], &["--at", "'begun'", "--every", "5%"]].concat());
    many.expect(0, &["LEFT AFTER", "SAME END", " (looked for: \"CRASHED\"); "]);
    let ids = place
        .library()
        .list(Some(&"tried".parse().expect("a name")))
        .expect("a list");
    assert!(ids.len() >= 4, "{}", many.out);
    for entry in ids.iter().rev().take(2) {
        place
            .run(&["replay", "tried", &entry.id.to_string(), "--verify"])
            .expect(0, &["IDENTICAL"]);
    }
    let step = [&command[..], &["--at", "'begun'", "--every", "'begun'"]].concat();
    place.run(&step).expect(2, &["no step"]);
    Ok(())
}

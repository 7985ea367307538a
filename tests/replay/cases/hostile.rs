// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recordings that somebody made to do harm, imported and replayed: each ends as the manual says, and nothing but its own files
//! is touched. `TTVM_HOSTILE=1000` takes more of them, `TTVM_HOSTILE=17..18` those of these numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use ttvm::recording::Entry;

use super::super::Outcome;
use super::super::lab::{FILE, GUEST, Lab, Place, Ran, Running, STATE};
use super::super::mutants::{Good, Mutant, numbers};
use super::{TINY_DISK, describe_tiny};

/// Whose they become. There is no such guest here.
const HOSTILE: &str = "hostile";

/// How many are tried if nobody says.
const FEW: u64 = 12;

/// One that stands still is given up after this, as by Ctrl-C: that a replay finds this out by itself takes half a minute.
const PATIENCE: Duration = Duration::from_secs(5);

/// One in so many is not given up.
const PATIENT: u64 = 100;

/// In none of what is said, wherever a manifest points.
const SECRET: &[u8] = b"nobody else's business\n";

/// A place with a recording that is good, exported.
fn prepared(lab: &Lab) -> (Place, Good) {
    let place = lab.place();
    describe_tiny(&place, "");
    place.record(&[]);
    let out = ["recordings", "export", GUEST, "--with-disks", "-o", "good.ttvm"];
    place.run(&out).expect(0, &[]);
    let good = Good::read(&fs::read(place.path("good.ttvm")).expect("an export"));
    // Another one is a witness: as long as it is there, it is not touched. Of the first, nothing names the disk's content.
    let id = place.entry().id.to_string();
    place.run(&["recordings", "rm", GUEST, &id]).expect(0, &[]);
    place.write("witness.img", &vec![0; TINY_DISK]);
    place.edit(FILE, "base.img", "witness.img");
    place.record(&[]);

    let bait = place.path("bait");
    fs::create_dir(&bait).expect("a directory");
    place.write("bait/secret", SECRET);
    symlink("secret", bait.join("link")).expect("a link");
    nix::unistd::mkfifo(&bait.join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    place.give();
    (place, good)
}

/// What a file or directory is: its kind and mode; its size, time and number if it is no directory.
type Trace = (u32, Option<(u64, i64, i64, u64)>);

/// All that is in a place, but what `is_own` takes.
fn traces(place: &Place, is_own: &dyn Fn(&Path) -> bool) -> BTreeMap<PathBuf, Trace> {
    fn add(path: &Path, is_own: &dyn Fn(&Path) -> bool, found: &mut BTreeMap<PathBuf, Trace>) {
        if is_own(path) {
            return;
        }
        let data = fs::symlink_metadata(path).expect("it is there");
        let is_directory = data.is_dir();
        let file = (!is_directory).then(|| (data.size(), data.mtime(), data.mtime_nsec(), data.ino()));
        found.insert(path.to_owned(), (data.mode(), file));
        if is_directory {
            let entries = fs::read_dir(path).expect("a directory");
            entries.for_each(|entry| add(&entry.expect("an entry").path(), is_own, found));
        }
    }
    let mut found = BTreeMap::new();
    add(&place.path(""), is_own, &mut found);
    found
}

/// The processes that run in this place: QEMU's directory is that of whoever started it.
fn processes(place: &Place) -> Vec<String> {
    let home = place.path("").canonicalize().expect("a directory");
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let ours = entries.filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&home)));
    ours.map(|entry| {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        format!(
            "{:?}: {}",
            entry.file_name(),
            String::from_utf8_lossy(&words).replace('\0', " ")
        )
    })
    .collect()
}

/// What came of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    RefusedAtImport,
    RefusedAtReplay,
    Diverged,
    Identical,
    Failed,
    StoodStill,
}

/// A run with everything that may be wrong with it.
struct Trial<'a> {
    place: &'a Place,
    /// What is there before any of them.
    before: BTreeMap<PathBuf, Trace>,
    secret: String,
    wrong: Vec<String>,
}

impl<'a> Trial<'a> {
    fn new(place: &'a Place, good: &Good) -> Self {
        let mut trial = Self {
            place,
            before: BTreeMap::new(),
            secret: ttvm::file::digest::of_bytes(SECRET).to_string(),
            wrong: Vec::new(),
        };
        // Directories that are made once and stay.
        place.write("hostile.ttvm", &good.archive());
        trial
            .ran(&["recordings", "import", "hostile.ttvm", "--as", HOSTILE])
            .expect(0, &[]);
        trial.ran(&["replay", HOSTILE, "--verify"]).expect(0, &["IDENTICAL"]);
        trial.remove(&trial.entries()[0]).expect(0, &[]);
        trial.before = traces(place, &|path| trial.is_own(path));
        trial
    }

    fn require(&mut self, is_so: bool, what: impl FnOnce() -> String) {
        if !is_so {
            self.wrong.push(what());
        }
    }

    /// What belongs to the recording, or is the file that it comes from.
    fn is_own(&self, path: &Path) -> bool {
        let state = self.place.path(STATE);
        path.starts_with(state.join("recordings").join(HOSTILE)) || path == self.place.path("hostile.ttvm")
    }

    fn entries(&self) -> Vec<Entry> {
        let name = HOSTILE.parse().expect("a name");
        self.place.library().list(Some(&name)).expect("recordings")
    }

    fn ran(&mut self, args: &[&str]) -> Ran {
        let ran = self.place.run(args);
        self.look_at(args, &ran);
        ran
    }

    fn remove(&self, entry: &Entry) -> Ran {
        self.place.run(&["recordings", "rm", HOSTILE, &entry.id.to_string()])
    }

    /// Whatever it was, it ended in one of the ways there are, and said nothing that a terminal would do.
    fn look_at(&mut self, args: &[&str], ran: &Ran) {
        let said = format!("{}{}", ran.out, ran.err);
        self.require((0..=5).contains(&ran.status), || {
            format!("{args:?}: status {}: {said}", ran.status)
        });
        let raw = |c: char| c != '\n' && !ttvm::base::text::is_plain(c);
        self.require(!said.contains(raw), || format!("{args:?} prints {said:?}"));
        let secret = self.secret.clone();
        self.require(!said.contains(&secret), || {
            format!("{args:?} has read the secret: {said}")
        });
        let left = processes(self.place);
        self.require(left.is_empty(), || format!("{args:?} leaves {left:?}"));
    }

    /// Replays it; without patience, not for long. Returns whether it was given up.
    fn replay(&mut self, patient: bool) -> (Ran, bool) {
        let args = ["replay", HOSTILE, "--verify"];
        let running = Running::start(self.place.command(&args));
        let pid = running.pid();
        let (ended, end) = mpsc::channel::<()>();
        let (ran, given_up) = std::thread::scope(|scope| {
            let watch = scope.spawn(move || {
                let given_up = !patient && end.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout);
                if given_up {
                    kill(pid, Signal::SIGINT).expect("kill");
                }
                given_up
            });
            let ran = running.end();
            drop(ended);
            (ran, watch.join().expect("a thread"))
        });
        self.look_at(&args, &ran);
        (ran, given_up)
    }

    /// Nothing but the recording's own files is another than before.
    fn compare(&mut self, when: &str) {
        let bases = self.place.path(STATE).join("bases");
        let own = |path: &Path| self.is_own(path) || when == "imported" && path.starts_with(&bases);
        let now = traces(self.place, &own);
        let before = self.before.iter().filter(|(path, _)| !own(path));
        let before: BTreeMap<_, _> = before.map(|(path, trace)| (path.clone(), *trace)).collect();
        let changed: Vec<_> = (before.iter().filter(|(path, trace)| now.get(*path) != Some(*trace)))
            .chain(now.iter().filter(|(path, _)| !before.contains_key(*path)))
            .map(|(path, _)| path.display().to_string())
            .collect();
        self.require(changed.is_empty(), || format!("{when}: changed: {changed:?}"));
    }

    /// One from its import to its removal.
    fn of(&mut self, mutant: &Mutant, patient: bool) -> (End, String) {
        self.place.write("hostile.ttvm", &mutant.archive);
        let imported = self.ran(&["recordings", "import", "hostile.ttvm", "--as", HOSTILE]);
        let entries = self.entries();
        let count = usize::from(imported.status == 0);
        self.require(entries.len() == count, || format!("{imported:?} and {entries:?}"));
        let Some(entry) = entries.first() else {
            self.compare("refused");
            return (End::RefusedAtImport, imported.err);
        };
        let (replayed, given_up) = self.replay(patient);
        self.compare("imported");
        let verdict = replayed.out.starts_with("IDENTICAL") || replayed.out.starts_with("DIVERGED");
        let stored = self.entries().first().is_some_and(|entry| entry.replays.is_some());
        let ended_with_one = [0, 5].contains(&replayed.status);
        self.require(verdict == ended_with_one && stored == ended_with_one, || {
            format!("a verdict is stored: {stored}, and it ended so: {replayed:?}")
        });
        self.require(replayed.status != 0 || mutant.may_be_identical, || {
            "it cannot be IDENTICAL".to_owned()
        });
        for args in [
            &["recordings", "show", HOSTILE][..],
            &["recordings", "show", HOSTILE, "--json"],
            &["recordings", "list"],
            &["recordings", "list", "--json"],
        ] {
            let ran = self.ran(args);
            self.require(ran.status == 0, || format!("{args:?}: {ran:?}"));
        }
        // The copy of a disk that was there already may not be the manifest's.
        self.ran(&["recordings", "verify", HOSTILE]);
        let removed = self.remove(entry);
        self.require(removed.status == 0, || format!("{removed:?}"));
        self.compare("removed");
        let end = match replayed.status {
            0 => End::Identical,
            5 => End::Diverged,
            3 | 4 => End::RefusedAtReplay,
            _ if given_up => End::StoodStill,
            _ => End::Failed,
        };
        (end, replayed.out + &replayed.err)
    }
}

pub fn recordings(lab: &Lab) -> Outcome {
    let (place, good) = prepared(lab);
    let mut trial = Trial::new(&place, &good);
    assert!(trial.wrong.is_empty(), "{:?}", trial.wrong);
    let numbers = numbers(FEW);
    let started = Instant::now();
    let mut ends: BTreeMap<End, u32> = BTreeMap::new();
    let mut failures = String::new();
    for number in numbers.clone() {
        let mutant = good.mutant(number, &place.path("bait"));
        let (end, said) = trial.of(&mutant, number % PATIENT == PATIENT - 1);
        *ends.entry(end).or_default() += 1;
        if std::env::var_os("TTVM_HOSTILE").is_some() {
            let said: Vec<&str> = said.lines().filter(|line| !line.contains("not sealed")).collect();
            println!("hostile {number}: {end:?}: {}: {}", mutant.what, said.join(" | "));
        }
        if !trial.wrong.is_empty() {
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hostile-{number}.ttvm"));
            fs::write(&kept, &mutant.archive).expect("it is kept");
            writeln!(failures, "{number}, {}, kept as {}:", mutant.what, kept.display()).expect("text");
        }
        for wrong in trial.wrong.drain(..) {
            writeln!(failures, "    {wrong}").expect("text");
        }
    }
    println!(
        "hostile recordings {numbers:?}: {ends:?}, {:.0} s",
        started.elapsed().as_secs_f64()
    );
    assert!(failures.is_empty(), "\n{failures}");
    Ok(())
}

/// A log that has no answer to what the guest does is that of another run, however QEMU takes it.
pub fn no_answer(lab: &Lab) -> Outcome {
    let (place, good) = prepared(lab);
    let mut trial = Trial::new(&place, &good);
    place.write("hostile.ttvm", &good.without_last_character());
    trial
        .ran(&["recordings", "import", "hostile.ttvm", "--as", HOSTILE])
        .expect(0, &[]);
    trial
        .ran(&["replay", HOSTILE, "--verify"])
        .expect(5, &["DIVERGED: hostile ", "the guest went another way than the log\n"]);
    let stored = trial.entries()[0].replays.as_ref().map(ToString::to_string);
    assert_eq!(stored.as_deref(), Some("diverged"));
    assert!(trial.wrong.is_empty(), "{:?}", trial.wrong);
    Ok(())
}

/// What a manifest says that a disk was made from may wait for ever, do something when it is opened, or be somebody's secret.
pub fn places(lab: &Lab) -> Outcome {
    let (place, good) = prepared(lab);
    let mut trial = Trial::new(&place, &good);
    let bait = place.path("bait").display().to_string();
    for name in ["pipe", "secret", "link", "", "nothing"] {
        let origin = format!("{bait}/{name}");
        let archive = good.with(false, |manifest| manifest["disk"][0]["origin"] = origin.clone().into());
        place.write("hostile.ttvm", &archive);
        trial
            .ran(&["recordings", "import", "hostile.ttvm", "--as", HOSTILE])
            .expect(0, &[&format!("made from, {origin} with blake3:")]);
        let missing = "disk vda: what it was made from did not come with the recording";
        trial.ran(&["replay", HOSTILE, "--dry-run"]).expect(4, &[missing]);
        trial.ran(&["replay", HOSTILE, "--verify"]).expect(4, &[missing]);
        trial
            .ran(&["recordings", "export", HOSTILE, "--with-disks", "-o", "hostile.out"])
            .expect(1, &["what disk vda was made from did not come with the recording"]);
        let entry = trial.entries().remove(0);
        assert_eq!(entry.replays, None);
        trial.remove(&entry).expect(0, &[]);
        trial.compare("removed");
        assert!(trial.wrong.is_empty(), "{origin}: {:?}", trial.wrong);
    }
    for origin in [
        "//dev/watchdog",
        "//dev/zero",
        "/srv/../dev/zero",
        "/proc/self/mem",
        "./shadow",
    ] {
        let archive = good.with(true, |manifest| manifest["disk"][0]["origin"] = origin.into());
        place.write("hostile.ttvm", &archive);
        trial
            .ran(&["recordings", "import", "hostile.ttvm", "--as", HOSTILE])
            .expect(1, &["is not imported: manifest.toml is not understood", origin]);
        assert!(trial.entries().is_empty());
        trial.compare("refused");
        assert!(trial.wrong.is_empty(), "{origin}: {:?}", trial.wrong);
    }
    Ok(())
}

/// One that says it is of the future would be the newest for ever, and one of a year with five digits has no name.
pub fn times(lab: &Lab) -> Outcome {
    let (place, good) = prepared(lab);
    let mut trial = Trial::new(&place, &good);
    for (key, time) in [
        ("started", 9_000_000_000_000_000_000_i64),
        ("started", 250_000_000_000),
        ("started", -1),
        ("ended", i64::MAX),
    ] {
        let archive = good.with(true, |manifest| match key {
            "started" => manifest["run"]["started"] = time.into(),
            _ => manifest["result"]["ended"] = time.into(),
        });
        place.write("hostile.ttvm", &archive);
        trial
            .ran(&["recordings", "import", "hostile.ttvm", "--as", HOSTILE])
            .expect(1, &["is not imported: "]);
        trial.compare("refused");
        assert!(trial.wrong.is_empty(), "{key} {time}: {:?}", trial.wrong);
    }
    // The first second there is has a name as any other.
    place.write(
        "hostile.ttvm",
        &good.with(true, |manifest| manifest["run"]["started"] = 0.into()),
    );
    trial
        .ran(&["recordings", "import", "hostile.ttvm", "--as", HOSTILE])
        .expect(0, &["imported hostile 19700101-000000"]);
    trial.ran(&["replay", HOSTILE, "--verify"]).expect(0, &["IDENTICAL"]);
    trial.remove(&trial.entries()[0]).expect(0, &[]);
    trial.compare("removed");
    assert!(trial.wrong.is_empty(), "{:?}", trial.wrong);
    Ok(())
}

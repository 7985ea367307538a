// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs, and what they come to.

use super::*;

#[test]
fn recorded_and_replayed() {
    let system = System::new("whole");
    let recording = system.record();
    assert_eq!(system.log(), commands(&system, "record", recording.directory(), &[]));
    assert!(system.nothing_is_left());
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(recording.log()), inode(recording.directory().join("ttd.log")));
    assert_eq!(fs::read_to_string(recording.log()).unwrap(), "events\n");
    // Of the console, what was written during the run.
    let console = fs::read_to_string(recording.console()).unwrap();
    assert_eq!(console, "Linux version 2.6.18\nwelcome\n");
    let manifest = recording.manifest();
    let (engine, result) = (&manifest.engine, manifest.result.as_ref().unwrap());
    assert_eq!(
        (engine.version.as_str(), engine.machine.as_str()),
        ("3.0-unstable", "pv")
    );
    assert_eq!((engine.cpu.as_str(), engine.icount.as_str()), ("host", "-"));
    assert_eq!((result.exit, result.instructions), (RunExit::PoweredOff, None));
    assert_eq!(manifest.disks[0].end, Some(manifest.disks[0].digest));
    let config = system.root.join("run/ttvm/clientA.cfg");
    assert_eq!(fs::metadata(config).unwrap().permissions().mode() & 0o777, 0o600);

    // What came from another host has the log by one name only.
    fs::remove_file(recording.directory().join("ttd.log")).unwrap();
    assert!(matches!(
        system.replay(&recording),
        Verdict::Identical { instructions: None, .. }
    ));
    assert_eq!(system.log(), commands(&system, "replay", recording.directory(), &[]));
    assert_eq!(inode(recording.log()), inode(recording.directory().join("ttd.log")));
    assert!(system.nothing_is_left());
    assert_eq!(recording.replays().unwrap().identical, 1);
}

#[test]
fn stopped() {
    let system = System::new("stopped");
    let mut follower = Follower {
        stop: true,
        ..Follower::default()
    };
    let recording = system.try_record(None, &mut follower).unwrap().recording;
    assert_eq!(follower.ready, [format!("recording as {}", recording.id())]);
    let end = ["xm|shutdown|clientA"];
    assert_eq!(system.log(), commands(&system, "record", recording.directory(), &end));
    assert_eq!(recording.manifest().result.as_ref().unwrap().exit, RunExit::Stopped);
    // What asked it to shut down is in the log, so that it does so by itself.
    system.write("ends", "poweroff");
    assert!(matches!(
        system.replay(&recording),
        Verdict::Identical { instructions: None, .. }
    ));
    // A replay is not asked: that would not be in the log.
    fs::remove_file(system.root.join("ends")).unwrap();
    system.log();
    let error = system.try_replay(&recording, true, &mut follower).unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error}");
    let end = ["xm|destroy|clientA"];
    let mut expected = commands(&system, "replay", recording.directory(), &end);
    expected[4].push_str("|-p");
    assert_eq!(system.log(), expected);
    assert!(system.nothing_is_left());
}

#[test]
fn does_not_shut_down() {
    let system = System::new("deaf");
    system.write("deaf", "");
    let limit = Some(Duration::from_millis(100));
    let recording = system.try_record(limit, &mut Follower::default()).unwrap().recording;
    let end = ["xm|shutdown|clientA", "xm|destroy|clientA"];
    assert_eq!(system.log(), commands(&system, "record", recording.directory(), &end));
    assert!(system.nothing_is_left());
}

#[test]
fn deviced_dies() {
    let system = System::new("dies");
    system.write("deviced-dies", "");
    system.write("ends", "poweroff");
    let error = system.try_record(None, &mut Follower::default()).map(drop).unwrap_err();
    assert_eq!(error.exit(), Exit::Failed);
    assert!(one_line(&error).contains("ended before the guest did"), "{error}");
    assert_eq!(system.incomplete(), one_line(&error));
    assert!(system.nothing_is_left());
}

#[test]
fn not_created() {
    let system = System::new("create");
    system.write("no-memory", "");
    system.write("half-built", "");
    let error = system.try_record(None, &mut Follower::default()).map(drop).unwrap_err();
    assert_eq!(error.exit(), Exit::Failed);
    assert!(chain(&error).contains("Error: no memory"), "{}", chain(&error));
    assert_eq!(system.incomplete(), one_line(&error));
    let log = system.log();
    let domain: Vec<&String> = log.iter().filter(|line| line.starts_with("xm|")).collect();
    assert!(
        domain[1].starts_with("xm|create|") && domain[2] == "xm|destroy|clientA",
        "{log:?}"
    );
    assert!(system.nothing_is_left());
}

#[test]
fn without_a_log_or_a_console() {
    let system = System::new("nothing");
    system.program("ttd-deviced", ": > $2; exec sleep 60");
    system.write("ends", "poweroff");
    let error = system.try_record(None, &mut Follower::default()).map(drop).unwrap_err();
    assert!(one_line(&error).contains("has left no log"), "{error}");
    assert_eq!(system.incomplete(), one_line(&error));
    system.program("ttd-deviced", "echo events > $2; exec sleep 60");
    for file in ["says", "var/log/xen/console/guest-clientA.log"] {
        fs::remove_file(system.root.join(file)).unwrap();
    }
    let recording = system.record();
    assert_eq!(fs::metadata(recording.console()).unwrap().len(), 0);
    assert!(matches!(
        system.replay(&recording),
        Verdict::Identical { instructions: None, .. }
    ));
}

#[test]
fn another_run() {
    let system = System::new("diverged");
    let recording = system.record();
    system.write("says", "Linux version 2.6.18\nwelcome back\n");
    let Verdict::Diverged {
        at: Divergence::Console { line, column, .. },
    } = system.replay(&recording)
    else {
        panic!("the console is another");
    };
    assert_eq!((line, column), (2, 8));
    system.write("says", "Linux version 2.6.18\nwelcome\n");
    system.write("ends", "reboot");
    let verdict = system.replay(&recording);
    let expected = Divergence::Exit {
        expected: RunExit::PoweredOff,
        found: "rebooted".to_owned(),
    };
    assert_eq!(verdict, Verdict::Diverged { at: expected });
}

#[test]
fn refused() {
    let system = System::new("refused");
    let recording = system.record();
    system.log();
    let refusal = |what: &str| {
        let error = system
            .try_replay(&recording, false, &mut Follower::default())
            .unwrap_err();
        assert_eq!(error.exit(), Exit::Refused, "{error}");
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(system.log(), ["xm|info"], "nothing was started");
    };
    system.guest_file("80M");
    refusal("memory: it was 64M, now it is 80M");
    system.guest_file("64M");
    system.write("vmlinuz", "another kernel");
    refusal("vmlinuz has changed");
    system.write("vmlinuz", "a kernel");
    system.write("disk.img", &"blocks?".repeat(1000));
    refusal("disk xvda1: the content of");
    system.write("disk.img", &"blocks ".repeat(1000));
    let file = fs::read_to_string(system.root.join("etc/ttvm/guests/clientA.toml")).unwrap();
    system.write("etc/ttvm/guests/clientA.toml", &format!("{file}[xm]\ncpus = \"0\"\n"));
    refusal("[xm]");
    system.guest_file("64M");
    let mut domain = File::create(system.root.join("domains/7")).unwrap();
    domain.write_all(b"\n").unwrap();
    system.write("listed", "clientA 7 96 1 -b---- 0.1\n");
    let error = system
        .try_replay(&recording, false, &mut Follower::default())
        .unwrap_err();
    assert_eq!(error.exit(), Exit::Refused, "{error}");
    assert!(error.to_string().contains("running already as domain 7"), "{error}");
}

/// A domain may write in the store that it is another guest's. xend knows.
#[test]
fn a_name_that_is_another_domains() {
    let system = System::new("liar");
    system.write("domains/7", "\n");
    let recording = system.record();
    assert_eq!(recording.manifest().result.as_ref().unwrap().exit, RunExit::PoweredOff);
    let asked = system.log().iter().filter(|line| *line == "xm|list").count();
    assert_eq!(asked, 2, "before the domain is built, and when it is");
    assert!(matches!(
        system.replay(&recording),
        Verdict::Identical { instructions: None, .. }
    ));
    assert!(system.root.join("domains/7").exists());
    // It is not ended in place of the guest's own either.
    fs::remove_file(system.root.join("ends")).unwrap();
    let mut follower = Follower {
        stop: true,
        ..Follower::default()
    };
    let recorded = system
        .try_record(None, &mut follower)
        .map_err(|error| chain(&error))
        .unwrap();
    assert_eq!(
        recorded.recording.manifest().result.as_ref().unwrap().exit,
        RunExit::Stopped
    );
    assert!(system.root.join("domains/7").exists() && !system.root.join("domains/12").exists());
}

#[test]
fn in_the_foreground() {
    let system = System::new("foreground");
    let recording = system.record();
    let says = |arguments: &[&str], what: &str| {
        let output = system.ttvm(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{stderr}");
        assert!(stderr.contains(what), "{stderr}");
    };
    says(
        &["record", "clientA", "--dry-run"],
        "`systemctl start ttvm-record@clientA`",
    );
    says(
        &["replay", "clientA", "--dry-run"],
        "`systemctl start ttvm-replay@clientA`",
    );
    says(&["replay", "clientA", "--gdb"], "ttvm-tt(7)");
    let output = system.ttvm(&["recordings", "show", "clientA"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains(&recording.id().to_string()) && text.contains("xm 3.0-unstable"),
        "{text}"
    );
    assert!(!text.contains("instructions"), "{text}");
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What many hosts do in tasks comes to what one does, whoever of them dies.

use std::fs;
use std::path::Path;

use ttvm::batch::{Batch, task};
use ttvm::recording::{Id, Recording};

use super::super::Outcome;
use super::super::lab::{GUEST, Lab, Place, Ran, Running, STATE, until};
use super::super::slurm::{Cluster, HOSTS};

/// A batch that proves recordings in pieces, which nobody has submitted.
fn in_pieces(place: &Place, recordings: &[Recording], pieces: usize) -> Batch {
    let tasks = task::verify(recordings, pieces).expect("tasks");
    let batch = Batch::create(&place.path(STATE), tasks).expect("a batch");
    place.give();
    batch
}

/// Does a task as Slurm has it done.
fn done(place: &Place, batch: &Batch, number: usize, fail_point: Option<&str>) -> Ran {
    let scratch = place.path("scratch");
    fs::create_dir_all(&scratch).expect("a directory");
    place.give();
    let mut command = place.command(&["batch", "task", &batch.id().to_string(), "0"]);
    command.env("SLURM_ARRAY_TASK_ID", number.to_string());
    command.env("TMPDIR", &scratch);
    if let Some(point) = fail_point {
        command.env("TTVM_FAIL_POINT", point);
    }
    Running::start(command).end()
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

/// Pieces by themselves, in any order, twice or not quite: the words are those of one replay.
pub fn tasks(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,disk,net", "");
    place.record(&[]);
    // Nothing to cut at: one task, which makes checkpoints.
    let results = ["batch", "results"];
    let whole = in_pieces(&place, &[place.recording()], 3);
    assert_eq!(whole.tasks().len(), 1);
    place.run(&results).expect(1, &["OPEN: demo ", ": 0 of 1 done"]);
    done(&place, &whole, 0, None).expect(0, &[]);
    let one = place.replay(&["--verify"]);
    let said = place.run(&results);
    said.expect(0, &["IDENTICAL: demo "]);
    // It is the first, and makes the trail that the others are compared with, too.
    assert_eq!(place.recording().replays().map(|it| it.identical), Some(2));

    let batch = in_pieces(&place, &[place.recording()], 3);
    assert_eq!(batch.tasks().len(), 3);
    done(&place, &batch, 3, None).expect(2, &["has no task 3, only 0 to 2"]);
    for number in [2, 0] {
        done(&place, &batch, number, None).expect(0, &[]);
    }
    place.run(&results).expect(1, &["OPEN: demo ", ": 2 of 3 done"]);
    // The host dies when the last piece is done, and the verdict is not.
    done(&place, &batch, 1, Some("batch.kept")).expect(-9, &[]);
    let said = place.run(&results);
    assert_eq!((said.status, &said.out), (0, &one.out), "the pieces say it");
    assert_eq!(place.recording().replays().map(|it| it.identical), Some(2));
    // So it is done again, and then nobody has anything to do.
    for _ in 0..2 {
        done(&place, &batch, 1, None).expect(0, &[]);
        assert_eq!(place.run(&results).out, one.out);
        assert_eq!(place.recording().replays().map(|it| it.identical), Some(3));
    }
    place
        .run(&["batch", "status"])
        .expect(0, &["BATCH", &format!("{}", batch.id())]);
    place
        .run(&["batch", "status", &batch.id().to_string()])
        .expect(0, &["0 to ", "identical"]);

    // What it was made from is another now: nobody can say anything, until it is what it was again.
    let batch = in_pieces(&place, &[place.recording()], 2);
    let base = fs::read(place.path("base.img")).expect("the disk");
    place.write("base.img", &[7; super::super::lab::DISK]);
    done(&place, &batch, 0, None).expect(4, &["would not be a replay"]);
    place.run(&results).expect(1, &["FAILED: demo ", ": task 0 on "]);
    place.write("base.img", &base);
    for number in 0..2 {
        done(&place, &batch, number, None).expect(0, &[]);
    }
    assert_eq!(place.run(&results).out, one.out);
    // But what the first one left, whose host has died.
    let left = fs::read_dir(place.path("scratch")).expect("scratch").count();
    assert_eq!(left, 1, "of the one that was killed");
    assert!(is_empty(&place.path(STATE).join("overlays")), "nothing else");
    Ok(())
}

/// Slurm's own daemons; one host is killed while it does a task.
pub fn slurm(lab: &Lab) -> Outcome {
    let mut cluster = Cluster::start()?;
    let place = lab.place();
    place.describe("random,disk,net", "");
    place.record(&[]);
    let first = place.recording();
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    place.record(&[]);
    let second = place.recording();
    let ttvm = |cluster: &Cluster, args: &[&str]| {
        let mut command = place.command(args);
        command.env("SLURM_CONF", cluster.conf());
        Running::start(command).end()
    };
    let verify = ["batch", "verify", "--pieces", "3", "--slurm"];
    ttvm(&cluster, &[&verify[..], &["--dry-run"]].concat()).expect(0, &["0: demo ", "3: demo ", ": all of it"]);
    // What Slurm refuses leaves no batch.
    ttvm(&cluster, &[&verify[..], &["--", "--partition=nowhere"]].concat())
        .expect(1, &["Slurm did not take the tasks", "invalid partition"]);
    assert!(is_empty(&place.path(STATE).join("batches")));
    let scratch = format!("--export=ALL,TMPDIR={}", cluster.scratch().display());
    ttvm(&cluster, &[&verify[..], &["--", "--time=10", &scratch]].concat())
        .expect(0, &["submitted ", ": 4 tasks, job "]);
    let batch = Batch::open(&place.path(STATE), None).expect("the batch");
    let id = batch.id().to_string();

    let runs_on = |cluster: &Cluster, host: &str| {
        let queue = cluster.ask("squeue", &["--noheader", "--states=running", "--format=%N"]);
        queue.lines().any(|line| line == host)
    };
    let emulated = || fs::read_dir(cluster.scratch()).is_ok_and(|entries| entries.flatten().count() == HOSTS.len());
    until("both hosts have a machine", || {
        HOSTS.iter().all(|host| runs_on(&cluster, host)) && emulated()
    });
    ttvm(&cluster, &["batch", "status", &id]).expect(0, &["running", "n1", "n2"]);
    cluster.kill("n2");

    until("all is done", || ttvm(&cluster, &["batch", "results"]).status == 0);
    let jobs = cluster.ask("scontrol", &["--oneliner", "show", "job"]);
    assert!(jobs.contains(" Restarts=1 "), "a task was begun again: {jobs}");
    let results = ttvm(&cluster, &["batch", "results"]);
    // By the pieces, and by one that made checkpoints: the same words as here.
    assert_eq!(place.recording().replays().map(|it| it.identical), Some(1));
    let here: Vec<String> = [&first, &second]
        .iter()
        .map(|it| place.run(&["verify", GUEST, &it.id().to_string(), "--jobs", "2"]).out)
        .collect();
    assert_eq!(results.out.lines().next(), here[0].lines().next());
    assert!(
        results
            .out
            .lines()
            .nth(1)
            .is_some_and(|line| line.starts_with("IDENTICAL: demo "))
    );

    // The host that is left does the rest: branches, and their proof.
    let branch = [
        "batch", "branch", GUEST, "--at", "50%", "--as", "tried", "--tries", "2", "--for", "guest:1s", "--slurm",
    ];
    ttvm(&cluster, &branch).expect(0, &[": 2 tasks, job "]);
    until("both are recorded", || {
        ttvm(&cluster, &["batch", "results"]).status == 0
    });
    ttvm(&cluster, &["batch", "results"]).expect(0, &["recorded tried ", "LEFT AFTER", "of 2"]);
    let ids: Vec<Id> = place
        .library()
        .list(Some(&"tried".parse().expect("a name")))
        .expect("a list")
        .into_iter()
        .map(|entry| entry.id)
        .collect();
    assert_eq!(ids.len(), 2);
    ttvm(&cluster, &["batch", "verify", "tried", "--slurm"]).expect(0, &[": 2 tasks, job "]);
    until("both are proved", || ttvm(&cluster, &["batch", "results"]).status == 0);
    let said = ttvm(&cluster, &["batch", "results"]).out;
    assert_eq!(said.matches("IDENTICAL: tried ").count(), 2, "{said}");

    // Whoever ends a task by hand is told.
    ttvm(&cluster, &["batch", "verify", GUEST, "--slurm", "--", "--hold"]).expect(0, &[": 2 tasks, job "]);
    let newest = Batch::open(&place.path(STATE), None)
        .expect("the batch")
        .id()
        .to_string();
    ttvm(&cluster, &["batch", "status", &newest]).expect(0, &["pending"]);
    cluster.ask("scancel", &[&format!("--name=ttvm-{newest}")]);
    until("it has gone", || {
        ttvm(&cluster, &["batch", "status", &newest])
            .out
            .contains("ended without a result")
    });
    assert!(is_empty(&place.path(STATE).join("overlays")));
    Ok(())
}

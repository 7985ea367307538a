// SPDX-License-Identifier: MIT OR Apache-2.0
//! Slurm: a batch is submitted as job arrays, and the queue says where its tasks are.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Batch, Error, read, replace};
use crate::file;
use crate::run::{self, Command, Program};

static SBATCH: Program = Program::new(&["sbatch"]);
static SQUEUE: Program = Program::new(&["squeue"]);

/// What Slurm calls a batch.
const JOBS: &str = "jobs.json";

/// What Slurm runs: sbatch takes a script and nothing else.
const SCRIPT: &str = "script";
const SCRIPT_TEXT: &str = "#!/bin/sh\nexec \"$@\"\n";

/// Tasks of a job array: Slurm takes no more unless its MaxArraySize is changed.
const ARRAY: usize = 1000;

/// Where another Slurm is to be found than the one in /etc.
const CONF: &str = "SLURM_CONF";

/// A job array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its number.
    pub job: u64,
    /// The task of the batch that its first is.
    pub first: usize,
}

/// Where Slurm has a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queued {
    /// Its state, as Slurm calls it.
    pub state: String,
    /// The host that does it, if one does.
    pub host: Option<String>,
}

/// How a batch is submitted.
pub struct Submission<'a> {
    /// The program that does a task, which is at the same place on all hosts.
    pub program: PathBuf,
    /// What is said to it, before the name of the batch and the number of the task.
    pub arguments: Vec<String>,
    /// What else is said to sbatch.
    pub options: &'a [String],
}

impl Submission<'_> {
    /// The command line of sbatch for the tasks from `first` on, of a batch called `id` that is in `directory`.
    pub fn command(&self, batch: &Batch, first: usize) -> Vec<String> {
        let directory = batch.directory().display();
        let last = (batch.tasks().len() - first).min(ARRAY) - 1;
        let mut line = vec![
            // A host that fails is no failure of the task.
            "--requeue".to_owned(),
            "--open-mode=append".to_owned(),
            format!("--output={directory}/output/%A_%a"),
            format!("--chdir={directory}"),
        ];
        line.extend(self.options.iter().cloned());
        line.extend([
            "--parsable".to_owned(),
            format!("--job-name={}", name(batch)),
            format!("--array=0-{last}"),
            format!("{directory}/{SCRIPT}"),
            self.program.display().to_string(),
        ]);
        line.extend(self.arguments.iter().cloned());
        line.extend([batch.id().to_string(), first.to_string()]);
        line
    }

    /// Has Slurm take all tasks of `batch`. If it takes none, the batch is removed.
    ///
    /// # Errors
    ///
    /// If it does not take all of them.
    pub fn submit(&self, batch: &Batch) -> Result<Vec<Job>, Error> {
        if let Some(option) = self.options.iter().find(|option| !is_harmless(option)) {
            drop(fs::remove_dir_all(batch.directory()));
            return Err(Error::Option(option.clone()));
        }
        let script = batch.directory().join(SCRIPT);
        file::create(&script, SCRIPT_TEXT.as_bytes(), 0o700).map_err(Error::file("write", &script))?;
        let mut jobs = Vec::new();
        for first in (0..batch.tasks().len()).step_by(ARRAY) {
            match sbatch(self.command(batch, first)) {
                Ok(job) => {
                    jobs.push(Job { job: job?, first });
                    replace(&batch.directory().join(JOBS), &jobs)?;
                }
                // Nobody has seen it. (One that was ended by us may have handed it on.)
                Err(source @ (run::Error::NotInstalled { .. } | run::Error::Failed { .. })) if jobs.is_empty() => {
                    drop(fs::remove_dir_all(batch.directory()));
                    return Err(Error::Submit(source));
                }
                Err(source) => {
                    return Err(Error::SubmitRest {
                        id: batch.id().clone(),
                        taken: first,
                        count: batch.tasks().len(),
                        source,
                    });
                }
            }
        }
        Ok(jobs)
    }
}

/// Whether sbatch does the same with it, on hosts of which squeue knows: a word that is no option would be the script.
fn is_harmless(option: &str) -> bool {
    let name = option.split('=').next().unwrap_or_default();
    let others = ["--", "--wrap", "--wait", "-W", "--test-only", "--clusters", "--array"];
    option.starts_with('-') && !others.contains(&name) && !option.starts_with("-M") && !option.starts_with("-a")
}

/// What Slurm calls the jobs of a batch.
fn name(batch: &Batch) -> String {
    format!("ttvm-{}", batch.id())
}

fn sbatch(arguments: Vec<String>) -> Result<Result<u64, Error>, run::Error> {
    let answer = with_conf(Command::new(&SBATCH)).args(arguments).run()?.stdout;
    // The number, and behind a semicolon that of the cluster where there is more than one.
    let number = answer.trim().split(';').next().unwrap_or_default();
    Ok(number.parse().map_err(|_| Error::NoJob(answer.trim().to_owned())))
}

fn with_conf(command: Command<'_>) -> Command<'_> {
    match env::var(CONF) {
        Ok(conf) => command.env(CONF, conf),
        Err(_) => command,
    }
}

/// The jobs of a batch; none if it was never submitted whole.
///
/// # Errors
///
/// If that cannot be read.
pub fn jobs(batch: &Batch) -> Result<Vec<Job>, Error> {
    Ok(read(&batch.directory().join(JOBS))?.unwrap_or_default())
}

/// Where Slurm has the tasks of a batch that are not done, by their numbers.
///
/// # Errors
///
/// If Slurm cannot be asked here.
pub fn queue(batch: &Batch, jobs: &[Job]) -> Result<BTreeMap<usize, Queued>, run::Error> {
    let answer = with_conf(Command::new(&SQUEUE))
        .args(["--noheader", "--array", "--format=%F|%K|%T|%N"])
        .arg(format!("--name={}", name(batch)))
        .run()?;
    Ok(answer.stdout.lines().filter_map(|line| queued(line, jobs)).collect())
}

/// What a line of squeue says: the number of the array and of the task in it, the state, the host.
fn queued(line: &str, jobs: &[Job]) -> Option<(usize, Queued)> {
    let mut words = line.trim().split('|');
    let job: u64 = words.next()?.parse().ok()?;
    let task: usize = words.next()?.parse().ok()?;
    let state = words.next()?.to_ascii_lowercase();
    let host = words.next().filter(|host| !host.is_empty()).map(str::to_owned);
    let first = jobs.iter().find(|it| it.job == job)?.first;
    Some((first + task, Queued { state, host }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_run_something_else() {
        for harmless in [
            "--partition=night",
            "--mem=1G",
            "--hold",
            "-pnight",
            "--export=ALL,TMPDIR=/scratch",
        ] {
            assert!(is_harmless(harmless), "{harmless}");
        }
        for other in [
            "job.sh",
            "1G",
            "--",
            "--wrap=id",
            "--wait",
            "-W",
            "--test-only",
            "-Mother",
            "--array=0-5",
        ] {
            assert!(!is_harmless(other), "{other}");
        }
    }

    #[test]
    fn what_squeue_says() {
        let jobs = [Job { job: 7, first: 0 }, Job { job: 9, first: 1000 }];
        let said = |line| queued(line, &jobs).map(|(task, it)| (task, it.state, it.host));
        assert_eq!(
            said("9|5|RUNNING|n1"),
            Some((1005, "running".to_owned(), Some("n1".to_owned())))
        );
        assert_eq!(said("7|2|PENDING|"), Some((2, "pending".to_owned(), None)));
        for line in ["", "8|1|RUNNING|n1", "7|N/A|PENDING|", "7|1"] {
            assert_eq!(said(line), None, "{line}");
        }
    }
}

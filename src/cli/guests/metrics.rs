// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm metrics`: figures of all guests for Prometheus, in its text format
//! (https://prometheus.io/docs/instrumenting/exposition_formats), as node_exporter's textfile collector reads it.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use super::status::{self, Row, World};
use crate::base::clock::now;
use crate::base::error::Exit;
use crate::cli::Error;
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::file;
use crate::recording::{Library, Verdict};
use crate::snapshot::Fill;

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Put them into this file, in one step, and not on the standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(in crate::cli) fn run(places: &Places, arguments: &Arguments) -> Result<Exit, Error> {
    let found = status::rows(places, &[], &World::look(places))?;
    found.print_notes();
    let library = Library::open(places.state_dir());
    let figures: Vec<Figures> = found
        .rows
        .into_iter()
        .map(|row| Figures {
            failed_starts: status::record_of(places, &row.guest).map_or(0, |record| record.failed_starts),
            replay: newest_replay(&library, &row.guest),
            row,
        })
        .collect();
    let text = exposition(&figures, now());
    match &arguments.output {
        Some(path) => file::replace(path, text.as_bytes(), 0o644).map_err(|source| Error::Write {
            path: path.clone(),
            source,
        })?,
        None => io::stdout().write_all(text.as_bytes())?,
    }
    Ok(Exit::Done)
}

/// What is known of one guest.
struct Figures {
    row: Row,
    failed_starts: u64,
    /// When the newest replay ended, and whether it was identical.
    replay: Option<(u64, bool)>,
}

/// Of the newest replay, whichever recording it was of.
fn newest_replay(library: &Library, guest: &GuestName) -> Option<(u64, bool)> {
    let recordings = library.list(Some(guest)).unwrap_or_default();
    let replays = recordings.into_iter().filter_map(|recording| recording.replays);
    let newest = replays.max_by_key(|replays| replays.when)?;
    Some((newest.when, matches!(newest.newest, Verdict::Identical { .. })))
}

/// A figure: its name, what it is, whether it only ever grows, and its samples.
fn family(text: &mut String, name: &str, help: &str, kind: &str, samples: impl Iterator<Item = (String, String)>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

/// Labels in braces. Names of guests and volumes have nothing that would have to be escaped, and other text is.
fn labels(pairs: &[(&str, &str)]) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs = pairs
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escape(value)));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
}

fn exposition(guests: &[Figures], when: u64) -> String {
    let mut text = String::new();
    let of = |figures: &Figures| labels(&[("guest", figures.row.guest.as_str())]);
    let flag = |is: bool| u8::from(is).to_string();
    let alone = |value: String| std::iter::once((String::new(), value));
    family(
        &mut text,
        "ttvm_metrics_time_seconds",
        "When these figures were found out, in seconds since 1970.",
        "gauge",
        alone(when.to_string()),
    );
    family(
        &mut text,
        "ttvm_guests",
        "Guests that have a file.",
        "gauge",
        alone(guests.len().to_string()),
    );
    family(
        &mut text,
        "ttvm_guest_state",
        "1 for the state that a guest is in, as ttvm status names it.",
        "gauge",
        guests.iter().map(|guest| {
            let (name, state) = (guest.row.guest.as_str(), guest.row.word());
            (labels(&[("guest", name), ("state", state)]), "1".to_owned())
        }),
    );
    family(
        &mut text,
        "ttvm_guest_start_time_seconds",
        "When a guest that is up came up, in seconds since 1970.",
        "gauge",
        guests
            .iter()
            .filter_map(|guest| Some((of(guest), guest.row.since?.to_string()))),
    );
    family(
        &mut text,
        "ttvm_guest_memory_bytes",
        "Memory of a guest that is up.",
        "gauge",
        guests
            .iter()
            .filter_map(|guest| Some((of(guest), guest.row.memory?.to_string()))),
    );
    family(
        &mut text,
        "ttvm_guest_failed_starts_total",
        "Starts of a guest that failed.",
        "counter",
        guests.iter().map(|guest| (of(guest), guest.failed_starts.to_string())),
    );
    family(
        &mut text,
        "ttvm_snapshot_used_ratio",
        "How full the area for changes of a snapshot is, or the pool of a thin one, from 0 to 1.",
        "gauge",
        guests.iter().flat_map(|guest| {
            let fills = guest.row.snapshots.iter().zip(&guest.row.volumes);
            fills.filter_map(|(fill, volume)| {
                let name = volume.to_string();
                let labels = labels(&[("guest", guest.row.guest.as_str()), ("snapshot", &name)]);
                Some((labels, format!("{:.4}", ratio(fill)?)))
            })
        }),
    );
    family(
        &mut text,
        "ttvm_guest_snapshot_lost",
        "Whether a snapshot of the guest's newest run overflowed: 1 means that the run is void.",
        "gauge",
        guests.iter().map(|guest| {
            let lost = guest.row.snapshot_lost || guest.row.snapshots.iter().any(Fill::is_lost);
            (of(guest), flag(lost))
        }),
    );
    family(
        &mut text,
        "ttvm_replay_identical",
        "Whether the newest replay of a guest's recordings was the run that was recorded.",
        "gauge",
        guests
            .iter()
            .filter_map(|guest| Some((of(guest), flag(guest.replay?.1)))),
    );
    family(
        &mut text,
        "ttvm_replay_time_seconds",
        "When that replay ended, in seconds since 1970.",
        "gauge",
        guests
            .iter()
            .filter_map(|guest| Some((of(guest), guest.replay?.0.to_string()))),
    );
    text
}

/// From 0 to 1; nothing where there is no snapshot.
fn ratio(fill: &Fill) -> Option<f64> {
    match fill {
        Fill::Thick { used, total } => Some(*used as f64 / (*total).max(1) as f64),
        Fill::Overflowed => Some(1.0),
        Fill::Thin { pool_percent, .. } => Some(f64::from(*pool_percent) / 100.0),
        Fill::Absent | Fill::NoSnapshot => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_prometheus_reads_it() {
        let row = |name: &str, state: &str| Row::bare(name.parse().expect("a name"), state);
        let mut full = row("a", "running, stands still");
        full.snapshots = vec![Fill::Thick { used: 1, total: 8 }, Fill::Absent];
        full.volumes = vec![
            "vg/snap1".parse().expect("a volume"),
            "vg/snap2".parse().expect("a volume"),
        ];
        (full.since, full.memory) = (Some(1_700_000_000), Some(96 << 20));
        let guests = [
            Figures {
                row: full,
                failed_starts: 3,
                replay: Some((1_700_000_100, false)),
            },
            Figures {
                row: row("b", "stopped"),
                failed_starts: 0,
                replay: None,
            },
        ];
        let text = exposition(&guests, 1_700_000_200);
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "ttvm_metrics_time_seconds 1700000200",
                "ttvm_guests 2",
                "ttvm_guest_state{guest=\"a\",state=\"running\"} 1",
                "ttvm_guest_state{guest=\"b\",state=\"stopped\"} 1",
                "ttvm_guest_start_time_seconds{guest=\"a\"} 1700000000",
                "ttvm_guest_memory_bytes{guest=\"a\"} 100663296",
                "ttvm_guest_failed_starts_total{guest=\"a\"} 3",
                "ttvm_guest_failed_starts_total{guest=\"b\"} 0",
                "ttvm_snapshot_used_ratio{guest=\"a\",snapshot=\"vg/snap1\"} 0.1250",
                "ttvm_guest_snapshot_lost{guest=\"a\"} 0",
                "ttvm_guest_snapshot_lost{guest=\"b\"} 0",
                "ttvm_replay_identical{guest=\"a\"} 0",
                "ttvm_replay_time_seconds{guest=\"a\"} 1700000100",
            ]
        );
        // Each has a line of help and a type, once.
        for name in samples.iter().filter_map(|line| line.split(['{', ' ']).next()) {
            assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
            assert_eq!(text.matches(&format!("# HELP {name} ")).count(), 1, "{name}");
        }
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(labels(&[("a", "x\\y\"z\n")]), "{a=\"x\\\\y\\\"z\\n\"}");
    }
}

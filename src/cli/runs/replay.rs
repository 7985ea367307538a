// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm replay`: a recorded run once more, and whether it was the same.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use super::foreground::{Follower, Foreground, unit_root};
use super::unit;
use crate::base::error::Exit;
use crate::base::text;
use crate::cli::{Error, guest_name};
use crate::config::guest::Guest;
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::recording::explain::{self, Explanation};
use crate::recording::log::point::{NotAPoint, Point};
use crate::recording::replay::debugger::Wanted;
use crate::recording::replay::verdict::proved;
use crate::recording::replay::{self, At, Choice, Options, Then};
use crate::recording::session::Error as SessionError;
use crate::recording::unit::toolstack;
use crate::recording::{Divergence, Recording, Verdict};

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The guest
    #[arg(value_parser = guest_name)]
    guest: GuestName,
    /// The recording, or as much of its name as is needed; the newest if none is named
    recording: Option<String>,
    /// Wait for the end and say whether it was the same run: exit status 0 if it was, 5 if not
    #[arg(long)]
    verify: bool,
    /// Go to a point of the run, and on to its end from there: after so many instructions (123456), a time since its beginning
    /// (12.3s), what it had printed ('login:'), 40%, end, or end-1000
    #[arg(long, value_name = "POINT", value_parser = point)]
    at: Option<Point>,
    /// Write the guest's memory and registers at that point to a new file, as a core for gdb and crash, and end there
    #[arg(long, value_name = "FILE", requires = "at", conflicts_with_all = ["verify", "gdb", "console"])]
    dump_memory: Option<PathBuf>,
    /// Write the packets that the guest sends and gets to a new file, for tcpdump and wireshark (more interfaces: FILE.1, …)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["gdb", "dump_memory"])]
    pcap: Option<PathBuf>,
    /// Serve a debugger, and print how to start it; it can go backwards
    #[arg(long, conflicts_with = "verify")]
    gdb: bool,
    /// Stand still before the first instruction until the debugger lets it go (TT Xen: without --gdb, until `xm unpause`)
    #[arg(long)]
    paused: bool,
    /// What runs it: the QEMU that is installed, or the one that came with the recording (`recordings export --with-engine`)
    #[arg(
        long,
        value_name = "WHICH",
        value_enum,
        default_value_t,
        conflicts_with = "any_engine"
    )]
    engine: Engine,
    /// Try it with whatever QEMU and firmware there are, though they are not those of the recording
    #[arg(long)]
    any_engine: bool,
    /// If it is not the same run, look for the first instruction that went another way. On a terminal, that is done by itself
    #[arg(long, conflicts_with_all = ["gdb", "dump_memory", "no_explain"])]
    explain: bool,
    /// Do not look for it
    #[arg(long)]
    no_explain: bool,
    /// Make no checkpoints on the way (the first replay of a recording does)
    #[arg(long)]
    no_checkpoints: bool,
    /// Show the guest's console
    #[arg(long)]
    console: bool,
    /// Say what would be replayed or refused, and replay nothing
    #[arg(long)]
    dry_run: bool,
}

/// What runs a replay.
#[derive(Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Engine {
    #[default]
    Installed,
    Capsule,
}

/// A point on the command line.
pub(in crate::cli) fn point(text: &str) -> Result<Point, String> {
    text.parse().map_err(|error: NotAPoint| error.to_string())
}

pub(in crate::cli) fn run(places: &Places, arguments: &Arguments) -> Result<Exit, Error> {
    let run = Foreground::new(places, &arguments.guest)?;
    let recording = run.library().find(&arguments.guest, arguments.recording.as_deref())?;
    // A recording that came from another host may be of a guest that has no unit here.
    let guest = run.guest_if_any()?;
    let toolstack = recording.manifest().engine.toolstack;
    if arguments.gdb {
        toolstack::require_debugger(&arguments.guest, toolstack)?;
    }
    if !toolstack.is_emulated() && arguments.is_here() {
        return Err(Error::Usage(
            "--at, --dump-memory, --pcap and --engine capsule are for guests with toolstack = \"qemu\"".to_owned(),
        ));
    }
    if arguments.gdb && arguments.engine == Engine::Capsule {
        return Err(Error::Usage(
            "--gdb is for the QEMU that is installed: gdb does what the program at the other end asks of it, with all of your files".to_owned(),
        ));
    }
    if arguments.explain && !toolstack.is_emulated() {
        return Err(Error::Usage(
            "--explain is for guests with toolstack = \"qemu\"".to_owned(),
        ));
    }
    if let Some(why) = explain::obstacle(&recording)
        && arguments.explain
    {
        return Err(SessionError::NotExplained(why.to_owned()).into());
    }
    if arguments.paused && !arguments.gdb && toolstack.is_emulated() {
        return Err(Error::Usage(
            "--paused stands still for a debugger: add --gdb".to_owned(),
        ));
    }
    if places.has_units() && !arguments.dry_run && !arguments.console && !arguments.is_here() && guest.is_some() {
        let exit = unit::replay(&arguments.guest, recording.id(), arguments)?;
        if let Some(Verdict::Diverged { at }) = recording.replays().map(|replays| replays.newest)
            && exit == Exit::Diverged
            && arguments.explains(&recording)
        {
            match run.claim() {
                Ok(_claim) => explain(&run, &recording, guest.as_ref(), arguments.choice(), &at)?,
                Err(error) => not_found(&error)?,
            }
        }
        return Ok(exit);
    }
    let mut follower = Follower::new(&arguments.guest, arguments.console, "Ctrl-C ends the replay");
    if arguments.dry_run {
        let seals = run.environment().seals;
        let (root, choice) = (unit_root(places), arguments.choice());
        let checked = toolstack::check_replay(root, &recording, guest.as_ref(), &seals, choice, &mut follower);
        follower.end();
        if let (Some(checked), Some(at)) = (checked?, &arguments.at) {
            checked.find(&recording, at)?;
        }
        writeln!(
            io::stdout(),
            "replay {} {} from fresh disks",
            arguments.guest,
            recording.id()
        )?;
        return Ok(Exit::Done);
    }
    let _claim = run.claim()?;
    let options = Options {
        gdb: arguments.gdb.then(|| Wanted {
            socket: run.socket(),
            paused: arguments.paused,
        }),
        at: arguments.at.clone().map(|point| At {
            point,
            then: arguments.dump_memory.clone().map_or(Then::GoOn, Then::Dump),
        }),
        packets: arguments.pcap.clone(),
        checkpoints: !arguments.no_checkpoints,
        engine: arguments.choice(),
    };
    if let Some(wanted) = &options.gdb {
        println!("{}", gdb_line(&wanted.socket));
    }
    let verdict = replay::replay(&recording, guest.as_ref(), &run.environment(), &options, &mut follower);
    follower.end();
    match verdict? {
        Some(verdict) => {
            let exit = tell(&arguments.guest, recording.id(), &verdict)?;
            if let Verdict::Diverged { at } = &verdict
                && arguments.explains(&recording)
            {
                explain(&run, &recording, guest.as_ref(), arguments.choice(), at)?;
            }
            Ok(exit)
        }
        None => {
            if let Some(file) = &arguments.dump_memory {
                writeln!(
                    io::stdout(),
                    "{} {}: the memory and registers there are in {}",
                    arguments.guest,
                    recording.id(),
                    file.display()
                )?;
            }
            Ok(Exit::Done)
        }
    }
}

/// Looks for the first instruction that a replay which came to `at` did otherwise, and prints it. What prevents that does not
/// change the verdict.
fn explain(
    run: &Foreground<'_>,
    recording: &Recording,
    guest: Option<&Guest>,
    choice: Choice,
    at: &Divergence,
) -> Result<(), Error> {
    let mut follower = Follower::new(recording.guest(), false, "Ctrl-C ends the search");
    let found = explain::replay(recording, guest, &run.environment(), choice, at, &mut follower);
    follower.end();
    match found {
        Ok(found) => {
            let lines: Vec<String> = found.to_string().lines().map(str::to_owned).collect();
            recording.note_explanation(at, &lines, found.is_open());
            show(&found)
        }
        Err(error) => not_found(&error),
    }
}

/// Says below the verdict why there is no more of it.
fn not_found(error: &(dyn std::error::Error + 'static)) -> Result<(), Error> {
    let why = crate::base::error::one_line(error);
    Ok(writeln!(
        io::stdout(),
        "    no first different instruction: {}",
        text::line(&why)
    )?)
}

/// Prints what a search came to, below the verdict.
pub(in crate::cli) fn show(found: &Explanation) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    for line in found.to_string().lines() {
        writeln!(out, "    {}", text::line(line))?;
    }
    Ok(())
}

impl Arguments {
    /// Whether the first different instruction is looked for.
    fn explains(&self, recording: &Recording) -> bool {
        let can = recording.manifest().engine.toolstack.is_emulated() && explain::obstacle(recording).is_none();
        can && !self.no_explain && (self.explain || io::stdout().is_terminal())
    }

    /// Whether something is wanted that a unit does not do: it writes files for whoever asks, goes to a point for them, or runs
    /// an engine that came from elsewhere.
    fn is_here(&self) -> bool {
        self.at.is_some() || self.pcap.is_some() || self.engine == Engine::Capsule
    }

    fn choice(&self) -> Choice {
        match (self.engine, self.any_engine) {
            (Engine::Capsule, _) => Choice::Capsule,
            (Engine::Installed, true) => Choice::Any,
            (Engine::Installed, false) => Choice::Installed,
        }
    }

    pub(in crate::cli) fn waits(&self) -> bool {
        self.verify || self.explain
    }

    pub(super) fn serves_debugger(&self) -> bool {
        self.gdb
    }

    pub(in crate::cli) fn order(&self, id: &crate::recording::Id) -> crate::recording::unit::order::Order {
        crate::recording::unit::order::Order::Replay {
            recording: id.clone(),
            gdb: self.gdb,
            paused: self.paused,
            checkpoints: !self.no_checkpoints,
            any_engine: self.any_engine,
        }
    }
}

/// What to paste into a shell.
pub(super) fn gdb_line(socket: &std::path::Path) -> String {
    format!(
        "gdb -ex 'set architecture i386:x86-64' -ex 'target remote {}'",
        socket.display()
    )
}

/// Prints a verdict.
pub(in crate::cli) fn tell(guest: &GuestName, id: &crate::recording::Id, verdict: &Verdict) -> Result<Exit, Error> {
    match verdict {
        Verdict::Identical {
            instructions,
            from,
            moments,
            memory,
            disks,
        } => {
            let what = proved(*instructions, *from, *moments, *memory, *disks);
            writeln!(io::stdout(), "IDENTICAL: {guest} {id} is the same run{what}")?;
            Ok(Exit::Done)
        }
        Verdict::Diverged { at } => {
            let at = at.to_string();
            writeln!(
                io::stdout(),
                "DIVERGED: {guest} {id} is not the same run: {}",
                text::line(&at)
            )?;
            Ok(Exit::Diverged)
        }
    }
}

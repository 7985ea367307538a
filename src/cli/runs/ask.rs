// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm ask`: a question to a recorded run.

use std::io::{self, Write as _};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::foreground::{Follower, Foreground};
use super::trace::{find, symbols};
use crate::base::error::Exit;
use crate::base::text;
use crate::cli::{Error, guest_name, print_json};
use crate::config::places::Places;
use crate::config::types::GuestName;
use crate::recording::replay::verdict::grouped;
use crate::recording::session::Error as SessionError;
use crate::recording::watch::Watcher;
use crate::recording::watch::ask::{self, Question, Written};
use crate::recording::watch::symbols::Symbols;
use crate::recording::watch::trace::{Write, word};

#[derive(clap::Args)]
#[command(
    allow_missing_positional = true,
    after_help = "Questions:\n  'last write to ADDRESS before POINT'   which instruction wrote to the byte there last (without a point: before the end)\n  'first execution of ADDRESS'           when the instruction there was executed first\n  'who wrote sector vda:2048'            which request wrote it last, and which instructions the request and its data are of\n\nADDRESS is a number (0xffffffff81000000), or a name (do_exit, do_exit+0x12) that --symbols FILE knows. POINT is as ttvm replay --at takes it.\n\nOnly what the processor writes is seen: not what a disk or a network card puts into memory."
)]
pub(in crate::cli) struct Arguments {
    /// The guest
    #[arg(value_parser = guest_name)]
    guest: GuestName,
    /// The recording, or as much of its name as is needed; the newest if none is named
    recording: Option<String>,
    /// The question, as one word: see below
    #[arg(required = true, value_parser = question)]
    question: Question,
    /// Names of addresses: vmlinux, System.map, or a copy of /proc/kallsyms of the run
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A question on the command line.
fn question(text: &str) -> Result<Question, String> {
    text.parse().map_err(|error: ask::NotAQuestion| error.to_string())
}

/// What a question came to.
enum Answer {
    Write(Option<Write>),
    Execution(Option<(u64, u64)>),
    Sector(Option<Written>),
}

pub(in crate::cli) fn run(places: &Places, arguments: &Arguments) -> Result<Exit, Error> {
    let symbols = symbols(arguments.symbols.as_deref())?;
    let run = Foreground::new(places, &arguments.guest)?;
    let recording = find(&run, &arguments.guest, arguments.recording.as_deref(), "ask")?;
    // A recording that came from another host may be of a guest that has no file here.
    let guest = run.guest_if_any()?;
    let _claim = run.claim()?;
    let environment = run.environment();
    let mut follower = Follower::new(&arguments.guest, false, "Ctrl-C ends it");
    let watcher = Watcher::new(&recording, guest.as_ref(), &environment, &mut follower)?;
    let answer = answer(&watcher, &arguments.question, &symbols, &mut follower);
    follower.end();
    let answer = answer?;
    if arguments.json {
        print_json(&as_json(&answer, &symbols))?;
        return Ok(Exit::Done);
    }
    writeln!(io::stdout(), "{}", text::line(&in_words(&answer, &symbols)))?;
    if let Some(at) = answer.at() {
        writeln!(
            io::stdout(),
            "    to go there: ttvm replay {} {} --gdb --at {at}",
            arguments.guest,
            recording.id()
        )?;
    }
    Ok(Exit::Done)
}

fn answer(
    watcher: &Watcher<'_>,
    question: &Question,
    symbols: &Symbols,
    follower: &mut Follower,
) -> Result<Answer, SessionError> {
    Ok(match question {
        Question::LastWrite { to, before } => {
            let (to, before) = (to.address(symbols)?, watcher.find(before)?);
            Answer::Write(ask::last_write(watcher, to, before, follower)?)
        }
        Question::FirstExecution { of } => {
            let address = of.address(symbols)?;
            let first = ask::first_execution(watcher, address, follower)?;
            Answer::Execution(first.map(|at| (at, address)))
        }
        Question::WhoWrote { disk, sector } => Answer::Sector(ask::who_wrote(watcher, disk, *sector, follower)?),
    })
}

impl Answer {
    /// Instructions before what was asked for.
    fn at(&self) -> Option<u64> {
        match self {
            Self::Write(write) => write.map(|it| it.at),
            Self::Execution(first) => first.map(|(at, _)| at),
            Self::Sector(written) => written.as_ref().and_then(|it| it.begun).map(|it| it.at),
        }
    }
}

fn in_words(answer: &Answer, symbols: &Symbols) -> String {
    let place = |address: u64| match symbols.name(address) {
        Some(name) => format!("{address:#x} ({name})"),
        None => format!("{address:#x}"),
    };
    let wrote = |write: &Write| {
        format!(
            "the instruction at {}, after {} instructions, in the address space {:#x}",
            place(write.address),
            grouped(write.at),
            write.space
        )
    };
    match answer {
        Answer::Write(None) => "the processor never wrote there before".to_owned(),
        Answer::Write(Some(write)) => format!(
            "{} bytes at {} were written by {}; {}",
            write.size,
            place(write.to),
            wrote(write),
            match write.value {
                Some(value) => format!("then {value:#x} was there"),
                None => "a device is there".to_owned(),
            }
        ),
        Answer::Execution(None) => "it was never executed".to_owned(),
        Answer::Execution(Some((at, address))) => format!(
            "the instruction at {} was executed first after {} instructions",
            place(*address),
            grouped(*at)
        ),
        Answer::Sector(None) => "the guest never wrote it".to_owned(),
        Answer::Sector(Some(written)) => {
            let by = |write: &Option<Write>| write.as_ref().map_or("nobody who was seen".to_owned(), wrote);
            let data = match written.data {
                Some(data) => format!(
                    "its data, at {data:#x} of the memory, last written by the processor, before that, by {}",
                    by(&written.filled)
                ),
                None => "it has no data: they became zeros".to_owned(),
            };
            format!(
                "sectors {} to {} were written by one request\n    handed to the disk by {}\n    {data}",
                written.first,
                written.first.saturating_add(written.sectors.saturating_sub(1)),
                by(&written.begun),
            )
        }
    }
}

fn as_json(answer: &Answer, symbols: &Symbols) -> Value {
    let found = |write: &Write| {
        let mut json = write.json(symbols);
        json["found"] = true.into();
        json
    };
    match answer {
        Answer::Write(None) | Answer::Execution(None) | Answer::Sector(None) => json!({ "found": false }),
        Answer::Write(Some(write)) => found(write),
        Answer::Execution(Some((at, address))) => json!({
            "found": true,
            "at": at,
            "address": word(*address),
            "symbol": symbols.name(*address),
        }),
        Answer::Sector(Some(written)) => json!({
            "found": true,
            "first": written.first,
            "sectors": written.sectors,
            "data": written.data.map(word),
            "begun": written.begun.as_ref().map(found),
            "filled": written.filled.as_ref().map(found),
        }),
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line: one file per command, in a folder for each subject.

mod batch;
mod boot;
mod doctor;
mod guests;
mod image;
mod initrd;
mod network;
mod recordings;
mod runs;
mod systemd;
mod terminal;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::guests::lifecycle::{self, Action};
use self::guests::{console, guest, list, logs, metrics, snapshot, status};
use self::runs::{ask, branch, record, replay, report, trace, verify};
use crate::base::error::{Classify, Exit, Told, one_line, report};
use crate::base::log;
use crate::config;
use crate::config::host::{self, HostConfig};
use crate::config::places::{Given, Places};
use crate::config::types::GuestName;
use crate::file::digest::Digest;
use crate::image::Origin;
use crate::initrd::{busybox as ramdisk, images as initrds};
use crate::{
    batch as batches, boot as entries, dm, doctor as examination, guest as running, image as images,
    import as importing, making, recording, run, snapshot as store, xenstore,
};

/// A host for time-travelling virtual machines.
#[derive(Parser)]
#[command(
    name = "ttvm",
    version,
    max_term_width = 100,
    after_help = "Guests are units of systemd: `ttvm start GUEST` is `systemctl start ttvm@GUEST`.\n\nTo begin: ttvm(7). See ttvm(1), ttvm-guest(5), ttvm-recording(5) and ttvm.toml(5)."
)]
struct Arguments {
    /// Read the system's files below this directory instead of /
    #[arg(long, global = true, value_name = "DIRECTORY")]
    root: Option<PathBuf>,
    /// Where ttvm.toml and guests are: /etc/ttvm, of an ordinary user ~/.config/ttvm
    #[arg(long, global = true, value_name = "DIRECTORY")]
    config_dir: Option<PathBuf>,
    /// Where recordings are: /var/lib/ttvm, of an ordinary user ~/.local/state/ttvm
    #[arg(long, global = true, value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List guests: toolstack, state, disks, networks
    List(list::Arguments),
    /// Start guests, each on fresh snapshots
    Start(lifecycle::Arguments),
    /// Shut guests down
    Stop(lifecycle::Arguments),
    /// Shut guests down and start them again, on fresh snapshots
    Restart(lifecycle::Arguments),
    /// End guests at once, without asking them
    Kill(lifecycle::Arguments),
    /// Join a guest's console
    Console(console::Arguments),
    /// Show what guests' units have written to the journal
    Logs(logs::Arguments),
    /// Show guests: state, domain, memory, snapshot fill, uptime, how the last run ended
    Status(status::Arguments),
    /// Say whether this host is ready, and if not what to do
    Doctor(doctor::Arguments),
    /// Make guests, look at their files
    #[command(subcommand)]
    Guest(guest::Command),
    /// Look at, renew or remove guests' snapshots
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// Record a run of a guest, so that it can be replayed
    Record(record::Arguments),
    /// Replay a recorded run, and see whether it is the same
    Replay(replay::Arguments),
    /// Prove that a recorded run is the same once more, with all processors
    Verify(verify::Arguments),
    /// Leave a recorded run at any moment and live on from there, recorded
    Branch(branch::Arguments),
    /// Print what happened in a recorded run: system calls, what was executed and written, disks, packets
    Trace(trace::Arguments),
    /// Ask a recorded run who wrote to an address or a sector last, or when something was executed first
    Ask(ask::Arguments),
    /// Have many hosts prove recordings, or leave them, with Slurm
    #[command(subcommand)]
    Batch(batch::Command),
    /// Make what guests' disks are made from, seal it, and see that it still is the same
    #[command(subcommand)]
    Image(image::Command),
    /// Make initial RAM disks, look into them, take them apart, put them together
    #[command(subcommand)]
    Initrd(initrd::Command),
    /// Look at the boot entries, try one, choose what is booted
    #[command(subcommand)]
    Boot(boot::Command),
    /// Look at how guests reach the world, change it with a way back
    #[command(subcommand)]
    Network(network::Command),
    /// Look at recordings, check them, remove them, take them to another host
    #[command(subcommand)]
    Recordings(recordings::Command),
    /// Write a page for a browser: a recorded run from its beginning to its end, and what its replays came to
    Report(report::Arguments),
    /// Print figures of all guests for Prometheus
    Metrics(metrics::Arguments),
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Guest(#[from] running::Error),
    #[error(transparent)]
    Import(#[from] importing::Error),
    #[error(transparent)]
    Making(#[from] making::Error),
    #[error(transparent)]
    Snapshot(#[from] store::Error),
    #[error(transparent)]
    Image(#[from] images::Error),
    #[error(transparent)]
    Initrd(#[from] initrds::Error),
    #[error(transparent)]
    Busybox(#[from] ramdisk::Error),
    #[error(transparent)]
    Create(#[from] images::create::Error),
    #[error("{}", differs(.0))]
    Differs(Vec<(Origin, Digest, Digest)>),
    #[error(transparent)]
    DeviceMapper(#[from] dm::Error),
    #[error(transparent)]
    XenStore(#[from] xenstore::Error),
    #[error(transparent)]
    Boot(#[from] entries::next::refusal::Error),
    #[error(transparent)]
    Entries(#[from] entries::Error),
    #[error(transparent)]
    Network(#[from] network::Error),
    #[error(transparent)]
    Session(#[from] recording::session::Error),
    #[error(transparent)]
    Batch(#[from] batches::Error),
    #[error(transparent)]
    Fix(#[from] examination::Error),
    #[error(
        "`ttvm doctor --fix` changes the system that runs, and takes root: `sudo ttvm doctor --fix`, without --root"
    )]
    FixNeedsRoot,
    #[error("guest \"{0}\" is running, or being recorded or replayed: end that first (`ttvm stop {0}`)")]
    Running(GuestName),
    #[error("guest \"{guest}\" cannot be started: it is {state}; end that first (`ttvm stop {guest}`)")]
    Busy { guest: GuestName, state: String },
    #[error("guest \"{0}\" does not run: `ttvm start {0}`")]
    NotRunning(GuestName),
    #[error("guest \"{0}\" is your own and has no unit: `ttvm record {0}` runs it, and Ctrl-C ends it")]
    Own(GuestName),
    #[error(
        "guest \"{0}\" has no console that can be joined now: it is replayed, which nobody can type to (`ttvm replay --console {0}` shows what it prints), or on a terminal already, or just begins"
    )]
    NoConsole(GuestName),
    #[error("the console was left: it was not read fast enough; the guest goes on (`ttvm console` joins it again)")]
    SlowReader,
    #[error("only root may do this: `sudo ttvm {0}`")]
    RootOnly(String),
    #[error(
        "`ttvm {0}` asks systemd, which does not run this machine (a container?): `ttvm record GUEST` runs an emulated guest without it"
    )]
    NoSystemd(&'static str),
    #[error(transparent)]
    Manager(#[from] systemd::Error),
    #[error("a program that is needed cannot be run")]
    Program(#[source] run::Error),
    #[error("systemd did not do it; only root may, and whom polkit lets")]
    Told(#[source] run::Error),
    #[error("systemd cannot be asked: is it running?")]
    Systemd(#[source] run::Error),
    #[error("{unit} failed: {why}; see `journalctl -u {unit}`")]
    Unit { unit: String, exit: Exit, why: String },
    #[error("{} is there already, and it is no report: name another file with -o, or remove it", .0.display())]
    NoReport(PathBuf),
    #[error("the replay of {0} was ended before there was a verdict")]
    NoVerdict(GuestName),
    #[error(transparent)]
    Recording(#[from] recording::Error),
    #[error("{0}")]
    Usage(String),
    #[error("cannot read the settings in /etc/default/grub")]
    Settings(#[source] run::Error),
    #[error("cannot write {}: is there such a directory?", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    #[error("cannot write JSON")]
    Json(#[from] serde_json::Error),
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(error) => error.exit(),
            Self::Guest(error) => error.exit(),
            Self::Import(error) => error.exit(),
            Self::Making(error) => error.exit(),
            Self::Snapshot(error) => error.exit(),
            Self::Image(error) => error.exit(),
            Self::Initrd(error) => error.exit(),
            Self::Busybox(error) => error.exit(),
            Self::Create(error) => error.exit(),
            Self::Recording(error) => error.exit(),
            Self::Session(error) => error.exit(),
            Self::Batch(error) => error.exit(),
            Self::Fix(error) => error.exit(),
            Self::Running(_)
            | Self::FixNeedsRoot
            | Self::NoReport(_)
            | Self::Busy { .. }
            | Self::NotRunning(_)
            | Self::NoConsole(_) => Exit::Refused,
            Self::Own(_) => Exit::Config,
            Self::Unit { exit, .. } => *exit,
            Self::Boot(error) => error.exit(),
            Self::Entries(error) => error.exit(),
            Self::Network(error) => error.exit(),
            Self::Usage(_) => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

impl From<::initrd::Error> for Error {
    fn from(error: ::initrd::Error) -> Self {
        Self::Initrd(error.into())
    }
}

/// One sentence for each origin that is not what it was sealed as.
fn differs(origins: &[(Origin, Digest, Digest)]) -> String {
    let sentences = origins.iter().map(|(origin, sealed, found)| {
        format!(
            "the content of {origin} is not what was sealed: it was {sealed} and is {found}, so no recording made from it can be replayed; bring the old content back, or `ttvm image unseal {origin}` and seal it as it is"
        )
    });
    sentences.collect::<Vec<_>>().join("\n")
}

/// Reads the command line, does what it says and returns the exit code.
pub fn main() -> ExitCode {
    let given = Arguments::command().try_get_matches();
    let parsed = given.and_then(|given| Ok((wants_json(&given), Arguments::from_arg_matches(&given)?)));
    let (json, arguments) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version are "errors" that go to stdout and end well.
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            drop(error.print());
            return code.into();
        }
    };
    log::init("ttvm", None);
    let given = Given {
        root: arguments.root,
        config_dir: arguments.config_dir,
        state_dir: arguments.state_dir,
    };
    match run(arguments.command, &given) {
        Ok(exit) => exit.into(),
        // `ttvm status | head` is no failure.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done.into(),
        Err(error) => {
            // Two answers to one question would be none. Where this one cannot be written, the text below says the same.
            if json && !HAS_ANSWERED.load(Ordering::Relaxed) {
                drop(print_json(&Told::of(&error)));
            }
            report("ttvm", &error)
        }
    }
}

/// Whether something was printed as JSON.
static HAS_ANSWERED: AtomicBool = AtomicBool::new(false);

/// Says that something is printed as JSON now.
fn answers() {
    HAS_ANSWERED.store(true, Ordering::Relaxed);
}

/// Whether the command that is given has `--json`.
fn wants_json(given: &ArgMatches) -> bool {
    let own = given.try_get_one::<bool>("json").ok().flatten().copied();
    own.unwrap_or(false) || given.subcommand().is_some_and(|(_, given)| wants_json(given))
}

fn run(command: Command, given: &Given) -> Result<Exit, Error> {
    let places = || Places::of_caller(given);
    match command {
        Command::List(arguments) => list::run(&places()?, &arguments),
        Command::Start(arguments) => lifecycle::run(given, Action::Start, &arguments),
        Command::Stop(arguments) => lifecycle::run(given, Action::Stop, &arguments),
        Command::Restart(arguments) => lifecycle::run(given, Action::Restart, &arguments),
        Command::Kill(arguments) => lifecycle::run(given, Action::Kill, &arguments),
        Command::Console(arguments) => console::run(given, &arguments),
        Command::Logs(arguments) => logs::run(given, &arguments),
        Command::Status(arguments) => status::run(&places()?, &arguments),
        Command::Doctor(arguments) => doctor::run(&places()?, &arguments),
        Command::Guest(command) => guest::run(&places()?, &command),
        Command::Snapshot(command) => snapshot::run(&places()?, &command),
        Command::Record(arguments) => record::run(&places()?, &arguments),
        Command::Replay(arguments) => replay::run(&places()?, &arguments),
        Command::Verify(arguments) => verify::run(&places()?, &arguments),
        Command::Branch(arguments) => branch::run(&places()?, &arguments),
        Command::Trace(arguments) => trace::run(&places()?, &arguments),
        Command::Ask(arguments) => ask::run(&places()?, &arguments),
        Command::Batch(command) => batch::run(&places()?, &command),
        Command::Image(command) => image::run(&places()?, &command),
        Command::Initrd(command) => initrd::run(given, &command),
        Command::Boot(command) => boot::run(&Places::of_machine(given)?, &command),
        Command::Network(command) => network::run(given, &command),
        Command::Recordings(command) => recordings::run(&places()?, &command),
        Command::Report(arguments) => report::run(&places()?, &arguments),
        Command::Metrics(arguments) => metrics::run(&places()?, &arguments),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "ttvm", &mut io::stdout());
            Ok(Exit::Done)
        }
    }
}

/// A guest's name on the command line.
fn guest_name(text: &str) -> Result<GuestName, String> {
    text.parse().map_err(|error: config::types::Invalid| error.to_string())
}

/// ttvm.toml, for those who only show something: the defaults if it is wrong, and that is said.
fn host_or_defaults(places: &Places) -> HostConfig {
    let (host, wrong) = host::load_or_defaults(places);
    if let Some(wrong) = wrong {
        eprintln!("ttvm: note: {}", crate::base::text::line(&without_host(&wrong)));
    }
    host
}

/// What is missing where ttvm.toml is `wrong`, as one line.
fn without_host(wrong: &config::Error) -> String {
    format!("shown without what ttvm.toml says: {}", one_line(wrong))
}

/// Prints `value` as indented JSON.
fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value)?;
    answers();
    writeln!(io::stdout(), "{}", crate::base::text::json(&text))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Arguments::command().debug_assert();
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm network`: how guests reach the world. Everything is asked of the service `org.ttvm.Network1`; nothing is read or
//! changed here.

mod answer;
mod attachments;
mod client;
mod clock;
mod pending;
mod set;
mod status;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use self::client::Client;
pub(super) use self::client::Error;
use crate::base::error::Exit;
use crate::config::network::Subnet;
use crate::config::places::Given;
use crate::config::types::{InterfaceName, Invalid, Seconds};
use crate::netd::proxy;
use crate::network::{self, Mode};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Show the mode, a change that waits to be confirmed, and what stops guests' packets
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a change would do
    Plan {
        #[command(flatten)]
        wanted: Wanted,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Change how guests reach the world; what is not confirmed is undone
    Set(set::Arguments),
    /// Keep the change that waits for that
    Confirm(pending::Arguments),
    /// Undo the change that waits to be confirmed
    Rollback(pending::Arguments),
    /// Let the change wait longer
    Extend {
        /// From now: from 10s to 1h
        #[arg(value_name = "TIME", value_parser = waiting)]
        time: Duration,
        #[command(flatten)]
        arguments: pending::Arguments,
    },
    /// Make again what is missing of the mode that was chosen
    Reconcile(Asking),
    /// List guests' interfaces
    Attachments {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// A mode, and what it is made of in place of ttvm.toml.
#[derive(clap::Args)]
pub(super) struct Wanted {
    /// The mode
    #[arg(value_parser = modes())]
    mode: Mode,
    /// The bridge that guests join
    #[arg(long, value_name = "NAME", value_parser = str::parse::<InterfaceName>)]
    bridge: Option<InterfaceName>,
    /// The interface whose addresses move to the bridge, which ttvm makes
    #[arg(long, value_name = "INTERFACE", value_parser = str::parse::<InterfaceName>)]
    uplink: Option<InterfaceName>,
    /// The guests' network in mode nat
    #[arg(long, value_name = "NETWORK", value_parser = str::parse::<Subnet>)]
    subnet: Option<Subnet>,
    /// Make the bridge and move the uplink to it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    manage_uplink: Option<bool>,
    /// Hand out addresses in mode nat
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    dhcp: Option<bool>,
    /// Do it although guests would be left without a network, or somebody else looks after the uplink
    #[arg(long)]
    force: bool,
}

/// Whether polkit may ask.
#[derive(clap::Args)]
pub(super) struct Asking {
    /// Do not let polkit ask for a password
    #[arg(long)]
    no_ask_password: bool,
}

impl Wanted {
    /// As the service takes it.
    fn settings(&self) -> proxy::Settings<'_> {
        let texts = [
            ("bridge", self.bridge.as_ref().map(ToString::to_string)),
            ("uplink", self.uplink.as_ref().map(ToString::to_string)),
            ("subnet", self.subnet.as_ref().map(ToString::to_string)),
        ];
        let flags = [("manage_uplink", self.manage_uplink), ("dhcp", self.dhcp)];
        let texts = texts.into_iter().filter_map(|(key, text)| Some((key, text?.into())));
        let flags = flags.into_iter().filter_map(|(key, flag)| Some((key, flag?.into())));
        texts.chain(flags).collect()
    }

    fn flags(&self) -> u64 {
        if self.force { proxy::FLAG_FORCE } else { 0 }
    }
}

fn modes() -> impl TypedValueParser<Value = Mode> {
    let names = [Mode::Nat, Mode::Bridge, Mode::None].map(Mode::as_str);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Mode>())
}

/// How long a change waits. The service has the same limits; here they are said before anything is planned.
fn waiting(text: &str) -> Result<Duration, String> {
    let Seconds(time) = match text.strip_suffix('h') {
        Some("1") => "60min".parse(),
        _ => text.parse(),
    }
    .map_err(|error: Invalid| error.to_string())?;
    match network::CONFIRM.contains(&time.as_secs()) {
        true => Ok(time),
        false => Err("a change can wait from 10s to 1h".to_owned()),
    }
}

pub(super) fn run(given: &Given, command: &Command) -> Result<Exit, super::Error> {
    let elsewhere = |place: &Option<PathBuf>| place.as_deref().is_some_and(|place| place != Path::new("/"));
    let options = [
        ("--root", elsewhere(&given.root)),
        ("--config-dir", given.config_dir.is_some()),
        ("--state-dir", given.state_dir.is_some()),
    ];
    if let Some((option, _)) = options.into_iter().find(|(_, given)| *given) {
        return Err(Error::Elsewhere(option).into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    runtime.block_on(async {
        match command {
            Command::Status { json } => status::run(*json).await,
            Command::Plan { wanted, json } => set::plan(wanted, *json).await,
            Command::Set(arguments) => set::run(arguments).await,
            Command::Confirm(arguments) => pending::confirm(arguments).await,
            Command::Rollback(arguments) => pending::rollback(arguments).await,
            Command::Extend { time, arguments } => pending::extend(arguments, *time).await,
            Command::Reconcile(asking) => pending::reconcile(&Client::connect(asking).await?).await,
            Command::Attachments { json } => attachments::run(*json).await,
        }
    })
}

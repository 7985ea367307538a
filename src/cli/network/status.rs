// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm network status`.

use std::io::{self, Write};
use std::path::Path;

use serde::Deserialize;

use super::client::{self, Client};
use super::clock;
use crate::base::clock::duration;
use crate::base::error::Exit;
use crate::base::text::line;
use crate::cli::{Error, print_json};
use crate::config::network::Subnet;
use crate::network::xend::Xend;
use crate::network::{Attachment, Backend, Ending, Mode, State};

/// What the service says of itself.
#[derive(Deserialize)]
struct Description {
    mode: Mode,
    desired: Mode,
    state: State,
    backend: Backend,
    bridge: Option<String>,
    uplink: Option<String>,
    subnet: Option<Subnet>,
    pending: Option<Pending>,
    degraded: Option<String>,
    conflicts: Vec<String>,
    last: Option<Last>,
}

/// A change on its way.
#[derive(Deserialize)]
struct Pending {
    from: Mode,
    to: Mode,
    deadline_usec: u64,
}

/// How the last one ended.
#[derive(Deserialize)]
struct Last {
    result: Ending,
    error: String,
}

pub(super) async fn run(json: bool) -> Result<Exit, Error> {
    let client = Client::connect_to_read().await?;
    let text = client.manager.describe().await.map_err(client::Error::from)?;
    if json {
        // As it is, but in the form of all our JSON.
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| misunderstood(&error))?;
        print_json(&value)?;
        return Ok(Exit::Done);
    }
    let description = serde_json::from_str(&text).map_err(|error| misunderstood(&error))?;
    let attachments = client::attachments(&client).await?;
    print(&description, &attachments)?;
    Ok(Exit::Done)
}

fn misunderstood(error: &serde_json::Error) -> client::Error {
    client::Error::Word(format!("something in its description ({error})"))
}

fn print(description: &Description, attachments: &[Attachment]) -> io::Result<()> {
    let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let rows = [
        ("Mode", mode(description)),
        ("State", state(description)),
        ("Bridge", dash(&description.bridge)),
        ("Uplink", dash(&description.uplink)),
        ("Subnet", dash(&description.subnet.map(subnet))),
        (
            "Change",
            description.pending.as_ref().map_or_else(|| "none".to_owned(), pending),
        ),
        (
            "Last change",
            description.last.as_ref().map_or_else(|| "-".to_owned(), last),
        ),
        ("Interfaces", interfaces(attachments)),
    ];
    let mut out = io::stdout().lock();
    for (name, value) in rows {
        writeln!(out, "{name:>12}: {}", line(&value))?;
    }
    for conflict in &description.conflicts {
        writeln!(out, "{:>12}: {}", "Conflict", line(conflict))?;
    }
    Ok(())
}

fn mode(description: &Description) -> String {
    let mut text = description.mode.to_string();
    if description.backend == Backend::Xend {
        text.push_str(", made by xend's scripts");
    } else if description.mode == Mode::None && Xend::installed(Path::new("/")).is_some() {
        text.push_str(
            ", made by the host itself: xend runs no network script, and puts guests on a bridge (vif-bridge)",
        );
    }
    if description.desired != description.mode && description.pending.is_none() {
        text.push_str(&format!(" (chosen: {})", description.desired));
    }
    text
}

fn state(description: &Description) -> String {
    let text = match description.state {
        State::Idle => "as chosen",
        State::Applying => "a change is being made",
        State::AwaitingConfirm => "a change waits to be confirmed",
        State::RollingBack => "a change is being undone",
        State::Degraded => {
            let why = description
                .degraded
                .as_deref()
                .unwrap_or("the mode that was chosen is not there");
            return format!("DEGRADED: {why}; `ttvm network reconcile` makes again what can be made");
        }
    };
    text.to_owned()
}

fn subnet(subnet: Subnet) -> String {
    format!("{subnet}, this host is {}", subnet.gateway())
}

fn pending(change: &Pending) -> String {
    let what = format!("from {} to {}", change.from, change.to);
    match change.deadline_usec {
        0 => what,
        usec => format!(
            "{what}, undone in {} (at {}) unless `ttvm network confirm`",
            duration(clock::left(usec).as_secs()),
            clock::time(usec)
        ),
    }
}

fn last(change: &Last) -> String {
    match change.result {
        Ending::Kept => "was kept".to_owned(),
        Ending::RolledBack if change.error.is_empty() => "was undone".to_owned(),
        Ending::RolledBack => format!("was undone: {}", change.error),
        Ending::Failed => format!("FAILED: {}", change.error),
    }
}

fn interfaces(attachments: &[Attachment]) -> String {
    let stay = attachments.iter().filter(|row| row.stays.is_some()).count();
    match (attachments.len(), stay) {
        (0, _) => "none".to_owned(),
        (all, 0) => format!("{all}, following the mode"),
        (all, stay) => format!("{all}, of which {stay} do not follow the mode"),
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm network confirm`, `rollback`, `extend` and `reconcile`: one question, one answer.

use std::io::{self, Write};
use std::time::Duration;

use zbus::OwnedObjectPath;

use super::Asking;
use super::client::Client;
use super::clock::undecided;
use crate::base::error::Exit;
use crate::base::text;
use crate::cli::Error;

#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asking: Asking,
}

/// The change that waits, to do something about it; none if it is only said what that would be.
async fn pending(arguments: &Arguments, what: &str) -> Result<Option<(Client, OwnedObjectPath)>, Error> {
    let client = Client::connect(&arguments.asking).await?;
    let transaction = client.pending().await?;
    if arguments.dry_run {
        let number = transaction.rsplit('/').next().unwrap_or_default();
        writeln!(io::stdout(), "would {what} change {number}")?;
        return Ok(None);
    }
    Ok(Some((client, transaction)))
}

pub(super) async fn confirm(arguments: &Arguments) -> Result<Exit, Error> {
    let Some((client, transaction)) = pending(arguments, "keep").await? else {
        return Ok(Exit::Done);
    };
    client.change::<_, ()>("Confirm", &(transaction,)).await?;
    say_mode(&client, "kept").await
}

pub(super) async fn rollback(arguments: &Arguments) -> Result<Exit, Error> {
    let Some((client, transaction)) = pending(arguments, "undo").await? else {
        return Ok(Exit::Done);
    };
    client.change::<_, ()>("Rollback", &(transaction,)).await?;
    say_mode(&client, "undone").await
}

async fn say_mode(client: &Client, what: &str) -> Result<Exit, Error> {
    let mode = client.manager.mode().await.map_err(super::Error::from)?;
    writeln!(io::stdout(), "{what}: the mode is {mode}")?;
    Ok(Exit::Done)
}

pub(super) async fn extend(arguments: &Arguments, time: Duration) -> Result<Exit, Error> {
    let Some((client, transaction)) = pending(arguments, "wait longer for").await? else {
        return Ok(Exit::Done);
    };
    // An hour at most, see the command line.
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let deadline: u64 = client.change("Extend", &(transaction, seconds)).await?;
    writeln!(io::stdout(), "{}", undecided(deadline))?;
    Ok(Exit::Done)
}

pub(super) async fn reconcile(client: &Client) -> Result<Exit, Error> {
    let done: Vec<String> = client.change("Reconcile", &(0_u64,)).await?;
    let mut out = io::stdout().lock();
    for sentence in &done {
        writeln!(out, "{}", text::line(sentence))?;
    }
    if done.is_empty() {
        writeln!(out, "nothing to do")?;
    }
    Ok(Exit::Done)
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm network confirm`, `rollback`, `extend` and `reconcile`: one question, one answer.

use std::io::{self, Write};
use std::time::Duration;

use super::client::Client;
use super::clock::undecided;
use crate::cli::Error;
use crate::error::Exit;

pub(super) async fn confirm(client: &Client) -> Result<Exit, Error> {
    let transaction = client.pending().await?;
    client.change::<_, ()>("Confirm", &(transaction,)).await?;
    say_mode(client, "kept").await
}

pub(super) async fn rollback(client: &Client) -> Result<Exit, Error> {
    let transaction = client.pending().await?;
    client.change::<_, ()>("Rollback", &(transaction,)).await?;
    say_mode(client, "undone").await
}

async fn say_mode(client: &Client, what: &str) -> Result<Exit, Error> {
    let mode = client.manager.mode().await.map_err(super::Error::from)?;
    writeln!(io::stdout(), "{what}: the mode is {mode}")?;
    Ok(Exit::Done)
}

pub(super) async fn extend(client: &Client, time: Duration) -> Result<Exit, Error> {
    let transaction = client.pending().await?;
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
        writeln!(out, "{sentence}")?;
    }
    if done.is_empty() {
        writeln!(out, "nothing to do")?;
    }
    Ok(Exit::Done)
}

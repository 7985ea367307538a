// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm network attachments`: the interfaces of guests.

use super::client::{Client, attachments};
use crate::base::error::Exit;
use crate::cli::terminal::table;
use crate::cli::{Error, print_json};
use crate::network::Attachment;

pub(super) async fn run(json: bool) -> Result<Exit, Error> {
    let rows = attachments(&Client::connect_to_read().await?).await?;
    if json {
        print_json(&rows)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = rows.iter().map(line).collect();
    table::print(&["DOMID", "GUEST", "VIF", "BRIDGE", "SCRIPT", "MODE"], &rows)?;
    Ok(Exit::Done)
}

fn line(row: &Attachment) -> Vec<String> {
    let dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
    let stays = row.stays.as_ref().map(|why| format!("stays: {why}"));
    vec![
        row.domid.to_string(),
        dash(row.guest.as_deref().unwrap_or_default()),
        row.vif.clone(),
        dash(&row.bridge),
        dash(&row.script),
        stays.unwrap_or_else(|| "follows".to_owned()),
    ]
}

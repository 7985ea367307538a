// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hosts with xend. Each directory in `fixtures/xend` holds one:
//!
//! - `tree`: its files;
//! - `outcome`: how its network is set, and what a switch to either way would be, without force and with it;
//! - `nat.sxp`, `bridge.sxp`: what becomes of its configuration, by force if it does not go without.
//!
//! With TTVM_UPDATE=1 the outcome is written there instead; read the difference before it is committed.

mod edits;
mod switches;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use edits::check;
use ttvm::base::error::chain;
use ttvm::network::xend::{Scripts, State, Xend, XendConfig};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/xend");
const CONFIG: &str = "etc/xen/xend-config.sxp";

fn name(scripts: Scripts) -> &'static str {
    match scripts {
        Scripts::Nat => "nat",
        Scripts::Bridge => "bridge",
    }
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(FIXTURES).join(name).join("tree").join(CONFIG)).unwrap()
}

/// Compares `bytes` with the file, or writes them there. No bytes are no file.
fn expect(path: &Path, bytes: Option<&[u8]>) -> Result<(), String> {
    if std::env::var_os("TTVM_UPDATE").is_some() {
        match bytes {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => drop(fs::remove_file(path)),
        }
        return Ok(());
    }
    if fs::read(path).ok().as_deref() == bytes {
        return Ok(());
    }
    let text = String::from_utf8_lossy(bytes.unwrap_or(b"(nothing)"));
    Err(format!("{} is not what came out:\n{text}\n", path.display()))
}

#[test]
fn every_fixture() {
    let entries = fs::read_dir(FIXTURES).unwrap().map(|entry| entry.unwrap().path());
    let mut fixtures: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    fixtures.sort();
    assert!(fixtures.len() >= 30);
    let mut wrong = Vec::new();
    for path in fixtures {
        let root = path.join("tree");
        let bytes = fs::read(root.join(CONFIG)).unwrap_or_default();
        let mut outcome = match Xend::find(&root).expect("xend").state() {
            Ok(State::Is(scripts)) => format!("{}\n", name(scripts)),
            Ok(State::Foreign(reasons)) => format!("foreign\n  {}\n", reasons.join("\n  ")),
            Err(error) => format!("{}\n", chain(&error).replace(root.to_str().unwrap(), "")),
        };
        for to in Scripts::ALL {
            let mut result = None;
            if let Ok(config) = XendConfig::parse(bytes.clone()) {
                for force in [false, true] {
                    let forced = if force { " by force" } else { "" };
                    let plan = match config.plan(to, force) {
                        Ok(plan) if plan.is_empty() => "nothing to do".to_owned(),
                        Ok(plan) => plan.join("\n  "),
                        // The reasons have been said.
                        Err(error) => format!("refused: {}", error.to_string().lines().next().unwrap()),
                    };
                    writeln!(outcome, "to {}{forced}:\n  {plan}", name(to)).unwrap();
                    result = result.or(config.switch(to, force).ok());
                    if result.is_some() {
                        break;
                    }
                }
            }
            if let Some(result) = &result {
                check(&bytes, result, to);
            }
            let result = result.filter(|result| *result != bytes);
            let file = path.join(format!("{}.sxp", name(to)));
            wrong.extend(expect(&file, result.as_deref()).err());
        }
        wrong.extend(expect(&path.join("outcome"), Some(outcome.as_bytes())).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm-boot ok|expired`: what the units of a boot that is tried run, once it has come up and when its time is over.
//! Exit status 1 lets the unit reset the machine. People use `ttvm boot`.

use std::path::Path;
use std::process::ExitCode;
use std::thread;

use ttvm::base::catalogue::Message;
use ttvm::base::error::{Exit, chain};
use ttvm::base::log;
use ttvm::boot::next::judge;
use ttvm::boot::{BootMenu, System};
use ttvm::config::host;
use ttvm::config::places::Places;

const PROGRAM: &str = "ttvm-boot";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let action: fn() -> Result<(), String> = match words[..] {
        ["ok"] => ok,
        ["expired"] => expired,
        _ => {
            eprintln!("usage: {PROGRAM} ok|expired");
            return Exit::Usage.into();
        }
    };
    log::init(PROGRAM, None);
    match action() {
        Ok(()) => Exit::Done.into(),
        Err(why) => {
            tracing::error!(
                message_id = Message::BootNotWell.id(),
                "this boot is not well, the machine is reset: {why}"
            );
            Exit::Failed.into()
        }
    }
}

/// The host is up: is it well?
fn ok() -> Result<(), String> {
    let root = Path::new("/");
    // A mistake in the file is no reason to reset a host that is up; the defaults then decide.
    let config = host::load(&Places::system(root)).unwrap_or_else(|error| {
        tracing::warn!("{}", chain(&error));
        host::HostConfig::default()
    });
    // Not something that is waited for, but time in which nothing must go wrong.
    thread::sleep(config.boot.ok.delay);
    let mut menu = BootMenu::read(root, &System).map_err(|error| chain(&error))?;
    // By a person, meanwhile.
    if menu.is_confirmed() {
        return Ok(());
    }
    if let Err(why) = judge::is_well(&menu, &config.boot.ok) {
        return Err(failed(&mut menu, why));
    }
    match judge::confirm(&mut menu) {
        Ok(entry) => {
            tracing::info!(ttvm_entry = %entry, "{entry} is well");
            Ok(())
        }
        // It is well: that it could not be made the default, or not be written down, a person has to read.
        Err(error) => {
            tracing::error!("{}", chain(&error));
            Ok(())
        }
    }
}

/// The deadline is over.
fn expired() -> Result<(), String> {
    let mut menu = BootMenu::read(Path::new("/"), &System).map_err(|error| chain(&error))?;
    if menu.is_confirmed() {
        return Ok(());
    }
    let late = "it was not well in time".to_owned();
    // Before systemd is asked why, which may be what hangs.
    failed(&mut menu, late.clone());
    let why = failed(&mut menu, format!("{late}; {}", judge::unfinished()));
    // The reset that follows does not (reboot-immediate in the unit).
    nix::unistd::sync();
    Err(why)
}

fn failed(menu: &mut BootMenu<'_>, why: String) -> String {
    match menu.fail(why.clone()) {
        Ok(_) => why,
        Err(error) => format!("{why} (and that cannot be written down: {})", chain(&error)),
    }
}

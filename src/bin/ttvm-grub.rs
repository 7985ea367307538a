// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prints ttvm's boot entries for /etc/grub.d/21_ttvm.
//!
//! An exit status other than 0 would stop grub-mkconfig, and with it the upgrade of a kernel. So whatever goes
//! wrong is said on stderr, nothing is printed, and the status is 0.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;

use ttvm::base::error::chain;
use ttvm::base::text;
use ttvm::boot::{self, Environment, Menu, System};
use ttvm::config::host;
use ttvm::config::places::Places;

fn main() {
    match menu() {
        Ok(menu) => {
            for note in &menu.notes {
                eprintln!("{}", text::line(note));
            }
            if let Err(error) = std::io::stdout().write_all(menu.to_string().as_bytes()) {
                eprintln!("ttvm-grub: cannot print the boot entries: {error}");
            }
        }
        Err(error) => eprintln!("ttvm-grub: no boot entries: {}", text::lines(&chain(error.as_ref()))),
    }
}

fn menu() -> Result<Menu, Box<dyn Error>> {
    let root = root()?;
    let config = host::load(&Places::system(&root))?;
    Ok(boot::render(&root, &Environment::of_process(), &config.boot, &System)?)
}

/// The tree to read: `/`, or for tests what `--root` names.
fn root() -> Result<PathBuf, String> {
    let mut args = std::env::args_os().skip(1);
    match (args.next(), args.next(), args.next()) {
        (None, _, _) => Ok(PathBuf::from("/")),
        (Some(option), Some(root), None) if option == "--root" => Ok(PathBuf::from(root)),
        _ => Err("it takes no arguments; grub-mkconfig runs it".to_owned()),
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The settings in /etc/default/grub, read as grub-mkconfig reads them: they are a shell's program
//! (`GRUB_DISTRIBUTOR` is a command in it), so a shell is asked what comes out.

use std::path::Path;

use super::environment::Environment;
use crate::config::under;
use crate::run::{self, Command, Program};

static SH: Program = Program::new(&["sh"]);
static MKCONFIG: Program = Program::new(&["grub-mkconfig", "grub2-mkconfig"]);

/// GRUB's directory by Debian's and by Fedora's name.
pub const DIRECTORIES: [&str; 2] = ["/boot/grub", "/boot/grub2"];

/// What makes GRUB boot the default that is remembered, on Debian. It comes after Xen's own file there, which names Xen's
/// entry.
pub const DROP_IN: &str = "/etc/default/grub.d/zz-ttvm.cfg";

/// `$1` is /etc/default/grub, `$2` the directory beside it that Debian reads as well, or nothing.
const SCRIPT: &str = r#"set -a
[ ! -e "$1" ] || . "$1"
if [ -n "$2" ]; then for file in "$2"/*.cfg; do [ ! -e "$file" ] || . "$file"; done; fi
exec env -0"#;

/// The `GRUB_*` settings of the system whose tree begins at `root`.
pub fn read(root: &Path) -> Result<Environment, run::Error> {
    let file = under(root, Path::new("/etc/default/grub"));
    // Only Debian's grub-mkconfig reads the directory.
    let directory = match MKCONFIG.path() {
        Ok(path) if path.ends_with("grub2-mkconfig") => String::new(),
        _ => under(root, Path::new("/etc/default/grub.d")).display().to_string(),
    };
    let output = Command::new(&SH)
        .args(["-c", SCRIPT, "sh"])
        .arg(file.display().to_string())
        .arg(directory)
        .run()?;
    let pairs = output.stdout.split('\0').filter_map(|pair| pair.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// Runs grub-mkconfig, which writes the menu of this system. It takes seconds.
pub fn write_menu(grub_cfg: &Path) -> Result<(), run::Error> {
    Command::new(&MKCONFIG)
        .arg("-o")
        .arg(grub_cfg.display().to_string())
        .deadline(std::time::Duration::from_secs(600))
        .run()
        .map(drop)
}

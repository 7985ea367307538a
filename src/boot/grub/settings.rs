// SPDX-License-Identifier: MIT OR Apache-2.0
//! The settings in /etc/default/grub, read as grub-mkconfig reads them: they are a shell's program
//! (`GRUB_DISTRIBUTOR` is a command in it), so a shell is asked what comes out. Those of another tree than this system's may
//! be anybody's, and no shell sees them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::assignments;
use super::environment::Environment;
use crate::base::root::under;
use crate::file::tree;
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

/// The `GRUB_*` settings of the system whose tree begins at `root`, and what could not be read of them.
pub fn read(root: &Path) -> Result<(Environment, Vec<String>), run::Error> {
    if root != Path::new("/") {
        return Ok(of_another(root));
    }
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
    let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok((environment, Vec::new()))
}

/// Those of another tree: its plain assignments.
fn of_another(root: &Path) -> (Environment, Vec<String>) {
    let mut files = vec![PathBuf::from("/etc/default/grub")];
    if let Ok(entries) = fs::read_dir(under(root, Path::new("/etc/default/grub.d"))) {
        let names = entries
            .flatten()
            .map(|entry| Path::new("/etc/default/grub.d").join(entry.file_name()));
        let mut names: Vec<PathBuf> = names
            .filter(|path| path.extension().is_some_and(|it| it == "cfg"))
            .collect();
        names.sort();
        files.extend(names);
    }
    let (mut variables, mut notes) = (BTreeMap::new(), Vec::new());
    for file in files {
        let name = file.display().to_string();
        match tree::read(root, &file, tree::SETTINGS) {
            Ok(bytes) => assignments::read(&String::from_utf8_lossy(&bytes), &name, &mut variables, &mut notes),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound => {}
                io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge => {
                    notes.push(format!("{name} is no file of settings"));
                }
                _ => notes.push(format!("{name} cannot be read ({error})")),
            },
        }
    }
    (variables.into_iter().collect(), notes)
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

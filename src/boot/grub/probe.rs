// SPDX-License-Identifier: MIT OR Apache-2.0
//! What only GRUB's own programs know about this system's disks and images. Each answer is one process, which
//! is most of the time that the generator takes, so it asks for nothing that it can read for itself.

use std::path::Path;

use crate::run::{self, Command, Program};

static GRUB_PROBE: Program = Program::new(&["grub-probe", "grub2-probe"]);
static GRUB_MKRELPATH: Program = Program::new(&["grub-mkrelpath", "grub2-mkrelpath"]);
static GRUB_FILE: Program = Program::new(&["grub-file", "grub2-file"]);

/// GRUB's view of the system.
pub trait Probe {
    /// `grub-probe --device DEVICE… --target=TARGET`: what it prints, without the last line end.
    fn device(&self, devices: &[String], target: &str) -> Result<String, run::Error>;

    /// `grub-probe --target=device PATH`: the devices of the file system that holds `path`, a line each.
    fn devices_of(&self, path: &Path) -> Result<String, run::Error>;

    /// `grub-mkrelpath PATH`: `path` as it is called within its file system.
    fn relative(&self, path: &Path) -> Result<String, run::Error>;

    /// `grub-file --is-x86-KIND IMAGE`: whether `image` is of this kind, `multiboot` or `multiboot2`.
    fn is_x86(&self, kind: &str, image: &Path) -> Result<bool, run::Error>;
}

/// This system.
#[derive(Debug)]
pub struct System;

impl Probe for System {
    fn device(&self, devices: &[String], target: &str) -> Result<String, run::Error> {
        let command = Command::new(&GRUB_PROBE).arg("--device").args(devices.iter().cloned());
        text(command.arg(format!("--target={target}")))
    }

    fn devices_of(&self, path: &Path) -> Result<String, run::Error> {
        text(
            Command::new(&GRUB_PROBE)
                .arg("--target=device")
                .arg(path.to_string_lossy()),
        )
    }

    fn relative(&self, path: &Path) -> Result<String, run::Error> {
        text(Command::new(&GRUB_MKRELPATH).arg(path.to_string_lossy()))
    }

    fn is_x86(&self, kind: &str, image: &Path) -> Result<bool, run::Error> {
        let command = Command::new(&GRUB_FILE).arg(format!("--is-x86-{kind}"));
        match command.arg(image.to_string_lossy()).run() {
            Ok(_) => Ok(true),
            // "No" is a silent 1; an image that it cannot read is a 1 with a message.
            Err(run::Error::Failed { status, stderr, .. }) if status.code() == Some(1) && stderr.is_empty() => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn text(command: Command<'_>) -> Result<String, run::Error> {
    Ok(command.run()?.stdout.trim_end().to_owned())
}

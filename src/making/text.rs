// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file of a guest, as it is written and as `image create` prints it.

use std::path::Path;

use crate::config::guest::{Origin, Toolstack};
use crate::config::types::Size;

/// What is in a guest's file.
#[derive(Debug)]
pub(super) struct Description<'a> {
    pub(super) toolstack: Toolstack,
    pub(super) memory: Size,
    pub(super) kernel: Option<&'a Path>,
    pub(super) initrd: Option<&'a Path>,
    /// Of the kernel's command line, what the toolstack does not say.
    pub(super) words: &'a str,
    pub(super) disk: Option<Disk<'a>>,
}

/// A disk that each run finds fresh.
#[derive(Debug)]
pub(super) struct Disk<'a> {
    pub(super) origin: &'a Origin,
    /// Whether what is written to it needs room set aside: LVM's snapshots that are not thin.
    pub(super) is_thick: bool,
}

/// The console that is recorded, an end where the guest's kernel panics, and no measuring of timers: Linux reads the clock a
/// million times for that, and a replay takes longer for each than for anything else.
const EMULATED: &str = "console=ttyS0 panic=-1 no_timer_check nolapic_timer";
/// Xen's console.
const XEN: &str = "console=hvc0";

impl Description<'_> {
    /// The file.
    pub(super) fn render(&self) -> String {
        let mut text = format!("toolstack = \"{}\"\n", self.toolstack.as_str());
        text += &format!("memory    = \"{}\"\n", self.memory);
        if !self.toolstack.is_xen() {
            // Else a kernel that panics boots again, and is recorded for as long as there is room.
            text += "on_reboot = \"stop\"\n";
        }
        for (key, path) in [("kernel   ", self.kernel), ("initrd   ", self.initrd)] {
            if let Some(path) = path {
                text += &format!("{key} = {}\n", quoted(&path.to_string_lossy()));
            }
        }
        if self.kernel.is_some() {
            text += &format!("cmdline   = {}\n", quoted(&self.cmdline()));
        }
        if let Some(disk) = &self.disk {
            text += &self.disk(disk);
        }
        text + "\n[[vif]]\n"
    }

    fn cmdline(&self) -> String {
        let own = if self.toolstack.is_xen() { XEN } else { EMULATED };
        format!("{own} {}", self.words).trim_end().to_owned()
    }

    fn disk(&self, disk: &Disk<'_>) -> String {
        let target = if self.toolstack.is_xen() { "xvda1" } else { "vda" };
        let room = match disk.is_thick {
            true => "snapshot = { size = \"1G\" }\n",
            false => "",
        };
        let origin = quoted(&disk.origin.to_string());
        format!("\n[[disk]]\norigin = {origin}\ntarget = \"{target}\"\n{room}")
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

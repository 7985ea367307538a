// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the guest boots.

use super::Translator;
use crate::config::guest::{GuestType, Toolstack};
use crate::import::Dialect;
use crate::import::output::Entry;
use crate::import::value::Value;

impl Translator<'_> {
    pub(super) fn boot(&mut self, kind: GuestType) {
        let bootloader = self.text("bootloader").filter(|(program, _)| !program.is_empty());
        let arguments = self.bootloader_arguments();
        let kernel = self.path("kernel");
        let initrd = self.path("ramdisk");
        let cmdline = self.command_line();
        if let Some((program, line)) = &bootloader {
            if self.toolstack() == Toolstack::Xl {
                self.top.push(Entry::text("bootloader", program).on_line(*line));
                if let Some((arguments, line)) = &arguments
                    && !arguments.is_empty()
                {
                    self.top.push(Entry::list("bootloader_args", arguments).on_line(*line));
                }
                for (key, line) in [
                    ("kernel", kernel.map(|it| it.1)),
                    ("ramdisk", initrd.map(|it| it.1)),
                    ("cmdline", cmdline.map(|it| it.1)),
                ] {
                    if let Some(line) = line {
                        self.note(line, key, format!("{program} finds what the guest boots"));
                    }
                }
                return;
            }
            let why = match self.toolstack() {
                Toolstack::Qemu => "an emulated machine has its own firmware, which boots from the first disk",
                _ => {
                    "TT Xen's guests boot a kernel among the host's files: take it out of the guest, and name it with \"kernel\""
                }
            };
            self.note(*line, "bootloader", why);
        }
        if let Some((_, line)) = arguments {
            self.note(line, "bootloader_args", "there is no bootloader");
        }
        let firmware = |path: &str| path.rsplit('/').next() == Some("hvmloader");
        let kernel = match kernel {
            Some((path, _)) if kind == GuestType::Hvm && firmware(&path) => None,
            Some((path, _)) if path.is_empty() => None,
            other => other,
        };
        let Some((path, line)) = kernel else {
            for (key, line) in [("ramdisk", initrd.map(|it| it.1)), ("cmdline", cmdline.map(|it| it.1))] {
                if let Some(line) = line {
                    self.note(line, key, "this is for a kernel, and there is none");
                }
            }
            return;
        };
        self.top.push(Entry::text("kernel", &path).on_line(line));
        if self.toolstack() == Toolstack::Qemu && kind == GuestType::Pv {
            self.note(
                line,
                "kernel",
                "one that was built for Xen alone does not start in an emulated machine: if it is, name another",
            );
        }
        if let Some((path, line)) = initrd.filter(|(path, _)| !path.is_empty()) {
            self.top.push(Entry::text("initrd", &path).on_line(line));
        }
        if let Some((cmdline, line)) = cmdline {
            let cmdline = self.with_new_root(&cmdline, line);
            if !cmdline.is_empty() {
                self.top.push(Entry::text("cmdline", &cmdline).on_line(line));
            }
        }
    }

    /// The path at `key`.
    fn path(&mut self, key: &str) -> Option<(String, usize)> {
        let (path, line) = self.text(key)?;
        if path.is_empty() || path.starts_with('/') || path == "hvmloader" {
            return Some((path, line));
        }
        self.note(line, key, format!("{path:?} is not an absolute path"));
        None
    }

    /// A list, or the words of a string.
    fn bootloader_arguments(&mut self) -> Option<(Vec<String>, usize)> {
        if let Some((_, line)) = self.text("bootentry") {
            self.note(line, "bootentry", "it has no counterpart: see bootloader_args");
        }
        let key = match self.source.dialect {
            Dialect::Xm => "bootargs",
            Dialect::Xl => "bootloader_args",
        };
        let setting = self.settings.get(key)?;
        if matches!(setting.value, Value::List(_)) {
            return self.list(key);
        }
        let (text, line) = self.text(key)?;
        Some((
            text.split([' ', '\t', '\n'])
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect(),
            line,
        ))
    }

    /// The kernel's command line, put together as the file's program does.
    fn command_line(&mut self) -> Option<(String, usize)> {
        let (root, extra, cmdline) = (self.text("root"), self.text("extra"), self.text("cmdline"));
        let xl = self.source.dialect == Dialect::Xl;
        // xm takes an empty one for none, and "root=" in front of it for nothing.
        let root = root.filter(|(root, _)| xl || !root.is_empty());
        let root = root.map(|(root, line)| match root.strip_prefix("root=").filter(|_| !xl) {
            Some(rest) => (rest.to_owned(), line),
            None => (root, line),
        });
        match cmdline {
            Some(cmdline) if xl || root.is_none() && extra.is_none() => {
                for (key, other) in [("root", root), ("extra", extra)] {
                    if let Some((_, line)) = other {
                        self.note(line, key, "there is a cmdline, and it counts");
                    }
                }
                return Some(cmdline);
            }
            Some((_, line)) => self.note(line, "cmdline", "xm does not know it, and takes root and extra"),
            None => {}
        }
        match (root, extra) {
            (Some((root, line)), Some((extra, _))) if xl || !extra.is_empty() => {
                Some((format!("root={root} {extra}"), line))
            }
            (Some((root, line)), _) => Some((format!("root={root}"), line)),
            (None, extra) => extra,
        }
    }

    /// In an emulated machine, disks have other names.
    fn with_new_root(&mut self, cmdline: &str, line: usize) -> String {
        let renamed = self.targets.iter().find_map(|(old, new)| {
            let word = format!("root=/dev/{old}");
            (old != new && cmdline.split(' ').any(|it| it == word)).then(|| (word, format!("root=/dev/{new}")))
        });
        let Some((old, new)) = renamed else {
            return cmdline.to_owned();
        };
        self.note(line, "root", format!("{old} is {new} in an emulated machine"));
        let words: Vec<&str> = cmdline
            .split(' ')
            .map(|word| if word == old { new.as_str() } else { word })
            .collect();
        words.join(" ")
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the guest boots.

use super::Translator;
use crate::config::guest::{GuestType, Toolstack};
use crate::import::output::Entry;
use crate::import::value::Value;
use crate::import::{Dialect, shlex};

/// The kernel's command line, and the settings it is put together from, each with its line.
struct CommandLine {
    text: String,
    from: Vec<(&'static str, usize)>,
}

impl CommandLine {
    fn lines(&self) -> Vec<usize> {
        self.from.iter().map(|(_, line)| *line).collect()
    }

    /// The setting that `word` stands in.
    fn of(&self, word: &str) -> (&'static str, usize) {
        let root = self
            .from
            .iter()
            .find(|(key, _)| *key == "root" && word.starts_with("root="));
        root.or(self.from.last()).copied().unwrap_or(("cmdline", 0))
    }
}

const SERIAL: &str = "console=ttyS0";
const UNSEEN: &str = "there is no console=ttyS0 on the command line, and of what the guest prints nothing will be seen or compared: an emulated machine has its console there";

/// Of what only Xen has, on a command line.
enum Console<'a> {
    /// The guest's console.
    First(&'a str),
    /// Another one.
    Other,
    /// One for the time before, or how many there are to be.
    Early,
}

/// What of Xen's a word names, if it does.
fn xen_console(word: &str) -> Option<Console<'_>> {
    let (key, value) = word.split_once('=')?;
    let device = value.split(',').next().unwrap_or_default();
    match key {
        "console" => {
            let number = device.strip_prefix("hvc").or_else(|| device.strip_prefix("xvc"))?;
            match number {
                "" | "0" => Some(Console::First(device)),
                number => number
                    .bytes()
                    .all(|byte| byte.is_ascii_digit())
                    .then_some(Console::Other),
            }
        }
        "earlyprintk" if device == "xen" => Some(Console::Early),
        "earlycon" if device == "xenboot" || device == "xen" => Some(Console::Early),
        "xencons" | "xencons_irq" | "kgdboc"
            if key != "kgdboc" || device.starts_with("hvc") || device.starts_with("xvc") =>
        {
            Some(Console::Early)
        }
        _ => None,
    }
}

impl Translator<'_> {
    pub(super) fn boot(&mut self, kind: GuestType) {
        let bootloader = self.text("bootloader").filter(|(program, _)| !program.is_empty());
        let arguments = self.bootloader_arguments();
        let kernel = self.path("kernel");
        let initrd = self.path("ramdisk");
        let cmdline = self.command_line();
        let emulated = kind == GuestType::Hvm && self.toolstack() == Toolstack::Xl;
        if let Some((_, line)) = &bootloader
            && emulated
        {
            let why = "a machine that is emulated whole has its own firmware, and xl passes it over";
            self.note(*line, "bootloader", why);
        }
        if let Some((program, line)) = bootloader.as_ref().filter(|_| !emulated) {
            if self.toolstack() == Toolstack::Xl {
                self.top.push(Entry::text("bootloader", program).on_line(*line));
                self.pass_on(kernel, initrd, cmdline, arguments);
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
            self.note(line, self.arguments_key(), "there is no bootloader");
        }
        let firmware = |path: &str| path.rsplit('/').next() == Some("hvmloader");
        let kernel = match kernel {
            Some((path, _)) if kind == GuestType::Hvm && firmware(&path) => None,
            Some((path, _)) if path.is_empty() => None,
            other => other,
        };
        let Some((path, line)) = kernel else {
            let orphans = cmdline.map_or_else(Vec::new, |it| it.from);
            for (key, line) in initrd.map(|it| ("ramdisk", it.1)).into_iter().chain(orphans) {
                self.note(line, key, "this is for a kernel, and there is none");
            }
            self.firmware(
                kind,
                "xl would boot a file of that name out of Xen's own directory, or GRUB: name that file with \"kernel\", such as Debian's /usr/lib/grub-xen/grub-i386-xen_pvh.bin",
            );
            return;
        };
        self.firmware(kind, "xl takes no firmware beside a kernel");
        self.top.push(Entry::text("kernel", &path).on_line(line));
        if self.toolstack().is_emulated() && kind == GuestType::Pv {
            self.note(
                line,
                "kernel",
                "one that was built for Xen alone does not start in an emulated machine: if it is, name another",
            );
        }
        if let Some((path, line)) = initrd.filter(|(path, _)| !path.is_empty()) {
            self.top.push(Entry::text("initrd", &path).on_line(line));
        }
        if cmdline.is_none() && self.toolstack().is_emulated() {
            self.note(line, "kernel", UNSEEN);
        }
        if let Some(cmdline) = cmdline {
            let text = match self.toolstack() {
                Toolstack::Qemu => {
                    let text = self.with_new_disks(&cmdline);
                    self.with_new_console(&cmdline, &text)
                }
                Toolstack::Xl | Toolstack::Xm => cmdline.text.clone(),
            };
            if !text.is_empty() {
                self.top.push(Entry::text("cmdline", &text).on_lines(cmdline.lines()));
            }
        }
    }

    /// What else the file names is for the bootloader, too. xl gives it that in front of its own arguments.
    fn pass_on(
        &mut self,
        kernel: Option<(String, usize)>,
        initrd: Option<(String, usize)>,
        cmdline: Option<CommandLine>,
        arguments: Option<(Vec<String>, usize)>,
    ) {
        let files = [("--kernel=", kernel), ("--ramdisk=", initrd)];
        let files = files
            .into_iter()
            .filter_map(|(option, file)| file.map(|(path, line)| (option, path, vec![line])));
        let cmdline = cmdline.map(|cmdline| {
            let lines = cmdline.lines();
            ("--args=", cmdline.text, lines)
        });
        let (mut all, mut lines) = (Vec::new(), Vec::new());
        for (option, value, on) in files.chain(cmdline).filter(|(_, value, _)| !value.is_empty()) {
            all.push(format!("{option}{value}"));
            lines.extend(on);
        }
        if let Some((arguments, line)) = arguments.filter(|(arguments, _)| !arguments.is_empty()) {
            all.extend(arguments);
            lines.push(line);
        }
        if !all.is_empty() {
            self.top.push(Entry::list("bootloader_args", &all).on_lines(lines));
        }
    }

    /// xl's `firmware` of a guest that is not fully emulated, which stands for a kernel.
    fn firmware(&mut self, kind: GuestType, why: &str) {
        if kind == GuestType::Hvm || self.toolstack() != Toolstack::Xl || self.source.dialect != Dialect::Xl {
            return;
        }
        if let Some((name, line)) = self.text("firmware") {
            self.note(line, "firmware", format!("{name:?} is not carried over: {why}"));
        }
    }

    /// Under which key the file has the bootloader's arguments.
    fn arguments_key(&self) -> &'static str {
        match self.source.dialect {
            Dialect::Xm => "bootargs",
            Dialect::Xl => "bootloader_args",
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
        let key = self.arguments_key();
        let setting = self.settings.get(key)?;
        if matches!(setting.value, Value::List(_)) {
            return self.list(key);
        }
        let (text, line) = self.text(key)?;
        if self.source.dialect == Dialect::Xm {
            // xend gives them to a shell's splitter.
            let words = shlex::split(&text);
            if words.is_none() {
                let why = format!("a quote in {text:?} does not end, and xend would not start the guest");
                self.note(line, key, why);
            }
            return Some((words?, line));
        }
        Some((
            text.split([' ', '\t', '\n'])
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect(),
            line,
        ))
    }

    /// In an emulated machine, Xen's consoles are not there. The first serial port is what a person sees, and what a
    /// recording is compared by.
    fn with_new_console(&mut self, cmdline: &CommandLine, text: &str) -> String {
        let mut words: Vec<&str> = Vec::new();
        for word in text.split(' ') {
            let (key, line) = cmdline.of(word);
            let why = match xen_console(word) {
                None => {
                    words.push(word);
                    continue;
                }
                Some(Console::First(name)) => {
                    // The last one on the line is the one that the guest's own programs have.
                    words.retain(|word| *word != SERIAL);
                    words.push(SERIAL);
                    format!("console {name} is ttyS0 in an emulated machine")
                }
                Some(Console::Other) => format!("{word:?} is left out: an emulated machine has one console, ttyS0"),
                Some(Console::Early) => {
                    format!("{word:?} is left out: it is Xen's, and has no counterpart in an emulated machine")
                }
            };
            self.note(line, key, why);
        }
        let is_serial = |word: &&str| {
            word.strip_prefix(SERIAL)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(','))
        };
        if !words.iter().any(is_serial) {
            let (key, line) = cmdline.from.last().copied().unwrap_or(("cmdline", 0));
            self.note(line, key, UNSEEN);
        }
        words.join(" ")
    }

    /// The kernel's command line, put together as the file's program does.
    fn command_line(&mut self) -> Option<CommandLine> {
        let (root, extra, cmdline) = (self.text("root"), self.text("extra"), self.text("cmdline"));
        let xl = self.source.dialect == Dialect::Xl;
        // xm takes an empty one for none, and "root=" in front of it for nothing.
        let root = root.filter(|(root, _)| xl || !root.is_empty());
        let root = root.map(|(root, line)| match root.strip_prefix("root=").filter(|_| !xl) {
            Some(rest) => (rest.to_owned(), line),
            None => (root, line),
        });
        match cmdline {
            Some((text, line)) if xl || root.is_none() && extra.is_none() => {
                for (key, other) in [("root", root), ("extra", extra)] {
                    if let Some((_, line)) = other {
                        self.note(line, key, "there is a cmdline, and it counts");
                    }
                }
                let from = vec![("cmdline", line)];
                return Some(CommandLine { text, from });
            }
            Some((_, line)) => self.note(line, "cmdline", "xm does not know it, and takes root and extra"),
            None => {}
        }
        let (text, from) = match (root, extra) {
            (Some((root, line)), Some((extra, other))) if xl || !extra.is_empty() => {
                (format!("root={root} {extra}"), vec![("root", line), ("extra", other)])
            }
            (Some((root, line)), _) => (format!("root={root}"), vec![("root", line)]),
            (None, Some((extra, line))) => (extra, vec![("extra", line)]),
            (None, None) => return None,
        };
        Some(CommandLine { text, from })
    }

    /// In an emulated machine, disks have other names, and so have their partitions.
    fn with_new_disks(&mut self, cmdline: &CommandLine) -> String {
        let mut words = Vec::new();
        for word in cmdline.text.split(' ') {
            let (before, device) = match word.split_once("=/dev/") {
                Some((key, device)) => (&word[..key.len() + "=/dev/".len()], device),
                None => ("", word.strip_prefix("/dev/").unwrap_or_default()),
            };
            let (key, line) = cmdline.of(word);
            match self.renamed(device).filter(|_| !before.is_empty()) {
                Some(new) => {
                    self.note(line, key, format!("/dev/{device} is /dev/{new} in an emulated machine"));
                    words.push(format!("{before}{new}"));
                }
                None => {
                    if ["xvd", "sd", "hd"]
                        .iter()
                        .any(|kind| word.contains(&format!("/dev/{kind}")))
                    {
                        let why = format!(
                            "{word:?} stays as it is: disks are called /dev/vda, /dev/vdb… in an emulated machine"
                        );
                        self.note(line, key, why);
                    }
                    words.push(word.to_owned());
                }
            }
        }
        words.join(" ")
    }

    /// What a disk or a partition of one is called there.
    fn renamed(&self, device: &str) -> Option<String> {
        let same = self.targets.iter().find(|(old, _)| old.as_str() == device);
        if let Some((_, new)) = same {
            return Some(new.to_string());
        }
        let disk = device.trim_end_matches(|c: char| c.is_ascii_digit());
        let (_, new) = self.targets.iter().find(|(old, _)| old.as_str() == disk)?;
        Some(format!("{new}{}", &device[disk.len()..]))
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writing one boot entry in GRUB's script language.

use std::collections::BTreeMap;
use std::iter;
use std::path::{Path, PathBuf};

use super::Error;
use super::entry_id::{BOOTED, EntryId, TRIAL};
use super::file::BootFile;
use super::grub::environment::Environment;
use super::grub::layout::Layout;
use super::grub::place;
use super::grub::probe::Probe;
use super::grub::quote;
use super::images::{self, Image, Kernel};
use crate::config::boot::BootConfig;

/// One entry of the menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// What a person reads in the menu.
    pub title: String,
    /// The `menuentry` command as it stands in grub.cfg.
    pub script: String,
}

/// How GRUB starts a Xen image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    /// Multiboot 2.
    Multiboot2,
    /// Multiboot 1: TT Xen, and every Xen before 4.9. Not on UEFI.
    Multiboot,
}

impl Loader {
    fn commands(self) -> [&'static str; 2] {
        match self {
            Self::Multiboot2 => ["multiboot2", "module2"],
            Self::Multiboot => ["multiboot", "module"],
        }
    }
}

/// A Xen image that GRUB can start.
#[derive(Debug)]
pub struct Xen {
    /// The image.
    pub image: Image,
    /// It is TT Xen, not the distribution's.
    pub tt: bool,
    /// How it is started.
    pub loader: Loader,
    /// Its security policy (XSM), if it has one.
    pub policy: Option<BootFile>,
}

impl Xen {
    /// What messages call it.
    pub fn name(&self) -> String {
        self.image.title(if self.tt { "TT Xen" } else { "Xen" })
    }
}

/// Writes entries; what all of them share is worked out once.
pub struct Writer<'a> {
    root: &'a Path,
    env: &'a Environment,
    config: &'a BootConfig,
    probe: &'a dyn Probe,
    layout: Layout<'a>,
    access: Vec<String>,
    /// Microcode, for every kernel beside its own initial RAM disk.
    early: Vec<BootFile>,
    directories: BTreeMap<PathBuf, String>,
}

impl<'a> Writer<'a> {
    /// A writer for this system.
    pub fn new(
        root: &'a Path,
        env: &'a Environment,
        config: &'a BootConfig,
        probe: &'a dyn Probe,
    ) -> Result<Self, Error> {
        let layout = Layout::find(root, env, probe)?;
        Ok(Self {
            access: layout.access()?,
            early: images::early(
                root,
                env.text("GRUB_EARLY_INITRD_LINUX_STOCK"),
                env.text("GRUB_EARLY_INITRD_LINUX_CUSTOM"),
            ),
            directories: BTreeMap::new(),
            root,
            env,
            config,
            probe,
            layout,
        })
    }

    /// An entry that starts `xen` with `kernel`, which messages call `kernel_name`, as dom0. `plain` is Linux without
    /// Xen, for when GRUB cannot load all of it.
    pub fn xen(
        &mut self,
        id: EntryId,
        xen: &Xen,
        (kernel, kernel_name): (&Kernel, &str),
        plain: Option<(&Kernel, &str)>,
    ) -> Result<Entry, Error> {
        let [load, module] = xen.loader.commands();
        let mut lines = vec![format!("insmod {load}")];
        lines.extend(
            [
                "if [ \"$grub_platform\" = \"pc\" -o \"$grub_platform\" = \"\" ]; then",
                "\txen_rm_opts=",
                "else",
                "\txen_rm_opts=\"no-real-mode edd=off\"",
                "fi",
            ]
            .map(str::to_owned),
        );
        lines.extend(self.trial());
        let loading = |name: &str| format!("echo {}", quote::quoted(&format!("Loading {name} ...")));
        // What is said, and what is loaded then.
        let mut steps = Vec::new();
        // Older Xen takes the first word for the image's own name; newer Xen does not know it and goes on.
        steps.push((
            loading(&xen.name()),
            format!(
                "{load} {} placeholder {} ${{xen_rm_opts}}",
                self.path(&xen.image.file)?,
                self.xen_options(xen.policy.is_some())
            ),
        ));
        steps.push((
            loading(kernel_name),
            format!(
                "{module} {} placeholder {} ${{ttvm_try}}",
                self.path(&kernel.image.file)?,
                self.linux_options(id, kernel, true)?
            ),
        ));
        if let Some(initrd) = &kernel.initrd {
            // Xen takes the first module after the kernel as its initial RAM disk.
            for file in iter::once(initrd).chain(&self.early.clone()) {
                let line = format!("{module} --nounzip {}", self.path(file)?);
                steps.push((loading(file.name()), line));
            }
        }
        if let Some(policy) = &xen.policy {
            steps.push((loading(policy.name()), format!("{module} {}", self.path(policy)?)));
        }
        lines.extend(self.loaded_or_else(&steps, plain)?);
        let hypervisor = match xen.tt {
            true => xen.name(),
            false => format!("distribution {} (no TT Xen)", xen.name()),
        };
        Ok(self.entry(id, &format!("{hypervisor}, {kernel_name}"), " --class xen", &lines))
    }

    /// `steps`, one after the other as long as they succeed; if one does not, plain Linux. GRUB itself would wait for a
    /// key: its `fallback` knows numbers only (2.06, get_and_remove_first_entry_number in normal/menu.c).
    fn loaded_or_else(
        &mut self,
        steps: &[(String, String)],
        plain: Option<(&Kernel, &str)>,
    ) -> Result<Vec<String>, Error> {
        let mut lines = vec!["set ttvm_loaded=".to_owned()];
        for (depth, (echo, load)) in steps.iter().enumerate() {
            let indent = "\t".repeat(depth);
            lines.push(format!("{indent}{echo}"));
            lines.push(format!("{indent}if {load}; then"));
        }
        lines.push(format!("{}set ttvm_loaded=true", "\t".repeat(steps.len())));
        lines.extend((0..steps.len()).rev().map(|depth| "\t".repeat(depth) + "fi"));
        if let Some((kernel, name)) = plain {
            lines.push("if [ \"${ttvm_loaded}\" != \"true\" ]; then".to_owned());
            lines.push("\techo 'It cannot be loaded: plain Linux is booted in its place.'".to_owned());
            lines.push("\tsleep 5".to_owned());
            let instead = self.linux_lines(EntryId::Linux, kernel, name)?;
            lines.extend(instead.into_iter().map(|line| format!("\t{line}")));
            lines.push("fi".to_owned());
        }
        Ok(lines)
    }

    /// An entry that starts `kernel`, which messages call `name`, without Xen.
    pub fn linux(&mut self, id: EntryId, kernel: &Kernel, name: &str) -> Result<Entry, Error> {
        let lines = self.linux_lines(id, kernel, name)?;
        Ok(self.entry(id, &format!("{name} without Xen"), "", &lines))
    }

    fn linux_lines(&mut self, id: EntryId, kernel: &Kernel, name: &str) -> Result<Vec<String>, Error> {
        let mut lines = Vec::new();
        match self.env.text("GRUB_GFXPAYLOAD_LINUX") {
            "" => lines.push("load_video".to_owned()),
            mode => {
                if mode != "text" {
                    lines.push("load_video".to_owned());
                }
                lines.push(format!("set gfxpayload={}", quote::word(mode)));
            }
        }
        lines.push(format!("echo {}", quote::quoted(&format!("Loading {name} ..."))));
        let image = self.path(&kernel.image.file)?;
        lines.push(format!("linux {image} {}", self.linux_options(id, kernel, false)?));
        let initrds: Vec<BootFile> = self.early.iter().chain(&kernel.initrd).cloned().collect();
        if !initrds.is_empty() {
            lines.push("echo 'Loading initial ramdisk ...'".to_owned());
            let mut line = "initrd".to_owned();
            for file in &initrds {
                line.push(' ');
                line.push_str(&self.path(file)?);
            }
            lines.push(line);
        }
        Ok(lines)
    }

    /// What Linux is told when GRUB was asked to boot the entry this one time: that it is on trial, and that whatever
    /// goes wrong ends in a reset, which leads to the default entry. Xen resets by itself after a panic, of its own or
    /// of dom0.
    fn trial(&self) -> [String; 5] {
        let deadline = self.config.ok.deadline.as_secs();
        let options = [
            TRIAL,
            // Linux itself, and initramfs-tools in place of a shell.
            "panic=10",
            "softlockup_panic=1",
            "hung_task_panic=1",
            // dracut, in place of a shell.
            "rd.shell=0",
            "rd.emergency=reboot",
            "systemd.crash_reboot=1",
            "systemd.wants=ttvm-boot-ok.service",
        ];
        [
            "if [ \"${boot_once}\" = \"true\" ]; then".to_owned(),
            format!(
                "\tset ttvm_try=\"{} systemd.wants=ttvm-boot-deadline@{deadline}.timer\"",
                options.join(" ")
            ),
            "else".to_owned(),
            "\tset ttvm_try=".to_owned(),
            "fi".to_owned(),
        ]
    }

    fn entry(&self, id: EntryId, what: &str, class: &str, lines: &[String]) -> Entry {
        let distributor = self.env.text("GRUB_DISTRIBUTOR").trim();
        let (system, own_class) = match distributor.split_whitespace().next() {
            None => ("GNU/Linux".to_owned(), String::new()),
            Some(first) => {
                let class = first.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
                (format!("{distributor} GNU/Linux"), format!(" --class {class}"))
            }
        };
        let title = format!("ttvm: {system}, {what}");
        let mut script = format!(
            "menuentry {}{own_class} --class gnu-linux --class gnu --class os{class} $menuentry_id_option '{id}' {{\n",
            quote::quoted(&title),
        );
        let saved = self.env.is_true("GRUB_SAVEDEFAULT").then(|| "savedefault".to_owned());
        let gzip = "insmod gzio".to_owned();
        for line in saved.iter().chain(&self.access).chain([&gzip]).chain(lines) {
            script.push('\t');
            script.push_str(line);
            script.push('\n');
        }
        script.push_str("}\n");
        Entry { id, title, script }
    }

    /// The general settings come first, ours after them, and what `[boot]` adds last: of two values of one
    /// option, Xen and Linux mostly take the later.
    fn xen_options(&self, policy: bool) -> String {
        let config = self.config;
        let mut own = Vec::new();
        if policy {
            own.push("flask=enforcing".to_owned());
        }
        own.extend(config.limits());
        if let Some(serial) = config.serial {
            own.push(format!("{}={},8n1", serial.port, serial.speed));
            own.push(format!("console={}", serial.port));
        }
        self.joined(
            &["GRUB_CMDLINE_XEN", "GRUB_CMDLINE_XEN_DEFAULT"],
            &own,
            &config.xen_options,
        )
    }

    fn linux_options(&self, id: EntryId, kernel: &Kernel, dom0: bool) -> Result<String, Error> {
        let replaced = |plain, replacement| match dom0 && !self.env.text(replacement).is_empty() {
            true => replacement,
            false => plain,
        };
        let settings = [
            replaced("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_XEN_REPLACE"),
            replaced("GRUB_CMDLINE_LINUX_DEFAULT", "GRUB_CMDLINE_LINUX_XEN_REPLACE_DEFAULT"),
        ];
        let console = self.config.serial.map(|serial| match dom0 {
            // Xen has the port; dom0's console goes through it.
            true => "console=hvc0".to_owned(),
            false => format!("console={},{}n8", serial.port.tty(), serial.speed),
        });
        let own: Vec<String> = console.into_iter().chain([format!("{BOOTED}{id}")]).collect();
        let root = self.layout.root_argument(kernel.has_initramfs())?;
        let options = self.joined(&settings, &own, &self.config.linux_options);
        Ok(format!("{root} {options}").trim_end().to_owned())
    }

    fn joined(&self, settings: &[&str], own: &[String], added: &[String]) -> String {
        let settings = settings.iter().map(|name| quote::options(self.env.text(name)));
        let own = own.iter().chain(added).map(|option| quote::word(option).into_owned());
        let words: Vec<String> = settings.chain(own).filter(|text| !text.is_empty()).collect();
        words.join(" ")
    }

    /// `file` as GRUB calls it, quoted.
    fn path(&mut self, file: &BootFile) -> Result<String, Error> {
        let directory = file.directory();
        let relative = match self.directories.get(directory) {
            Some(known) => known.clone(),
            None => {
                let relative = place::relative(self.root, directory, self.probe)?;
                self.directories.insert(directory.to_owned(), relative.clone());
                relative
            }
        };
        Ok(quote::word(&format!("{relative}/{}", file.name())).into_owned())
    }
}

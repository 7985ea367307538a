// SPDX-License-Identifier: MIT OR Apache-2.0
//! The boot entries: TT Xen with TT Linux, TT Xen with the distribution's Linux, and plain Linux, as GRUB menu
//! entries with fixed ids. [`render`] reads the system and writes them; it changes nothing.
//!
//! An entry is complete or it is left out: where a piece is missing there is a line that says so, never an entry
//! that cannot boot.

mod bz_image;
mod entry;
mod entry_id;
mod file;
mod firmware;
pub mod grub;
mod images;
mod multiboot;
pub mod next;
mod running_xen;
pub mod xen_options;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::error::{Classify, Exit, one_line};
use crate::base::root::under;
use crate::config::boot::{BootConfig, Serial};
use crate::run;
use entry::{Loader, Writer, Xen};
use file::{BootFile, Unusable};
use images::{Image, Kernel};

pub use entry::Entry;
pub use entry_id::EntryId;
pub use firmware::Firmware;
pub use grub::environment::Environment;
pub use grub::grub_cfg::MenuEntry;
pub use grub::probe::{Probe, System};
pub use next::trial::Trial;
pub use next::{BootMenu, Stage};
pub use running_xen::RunningXen;

/// Where TT images are looked for; grub-mkconfig's own scripts do not look there.
pub const TT_DIRECTORY: &str = "/boot/ttvm";

/// Why there can be no entries at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory with images cannot be listed.
    #[error("cannot list {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// One of GRUB's programs gave no answer.
    #[error("cannot find out {what}")]
    Probe {
        /// The question.
        what: String,
        /// How the program failed.
        #[source]
        source: run::Error,
    },
    /// The disks are laid out in a way that no right entry can be written for.
    #[error("no boot entries can be written for this system: {0}")]
    Layout(String),
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        Exit::Failed
    }
}

/// Why one entry is left out.
#[derive(Debug, thiserror::Error)]
enum Absent {
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error("{0}")]
    None(&'static str),
    #[error("no Linux in /boot can be Xen's dom0 (CONFIG_XEN_DOM0)")]
    NoDom0,
    #[error("{0} cannot be Xen's dom0 (CONFIG_XEN_DOM0)")]
    NotDom0(String),
    #[error("{0} is no Xen that GRUB can start (neither multiboot nor multiboot2)")]
    NotMultiboot(String),
    #[error("{0} cannot be started by UEFI firmware (multiboot only, not multiboot2)")]
    NotOnUefi(String),
    #[error("{0} cannot be examined: {1}")]
    Unreadable(String, String),
    #[error("{0}")]
    Firmware(&'static str),
}

/// The entries, and what there is to say about them.
#[derive(Debug, Default)]
pub struct Menu {
    /// Where GRUB shows its menu beside the screen.
    pub terminal: Option<Serial>,
    /// The entries, in the order of the menu.
    pub entries: Vec<Entry>,
    /// Lines for stderr: what was found, and which entry is left out and why.
    pub notes: Vec<String>,
}

/// The part of grub.cfg.
impl fmt::Display for Menu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(serial) = self.terminal {
            let unit = serial.port.unit();
            writeln!(f, "serial --unit={unit} --speed={}", serial.speed)?;
            f.write_str("terminal_input console serial\nterminal_output console serial\n")?;
        }
        if self.entries.iter().any(|entry| entry.id == EntryId::Linux) {
            // If it could not be written down that the entry for one boot was used, it would be used for ever.
            f.write_str("if [ \"${boot_once}\" = \"true\" ]; then\n\tload_env next_entry\n")?;
            f.write_str("\tif [ \"${next_entry}\" ]; then\n")?;
            writeln!(f, "\t\tset default={}\n\t\tset boot_once=\n\tfi\nfi", EntryId::Linux)?;
        }
        self.entries.iter().try_for_each(|entry| f.write_str(&entry.script))
    }
}

/// Writes the entries for the system whose tree begins at `root`, with the `GRUB_*` settings in `env`. Run by
/// hand, without what grub-mkconfig finds out for its scripts, it finds it out by itself.
///
/// # Errors
///
/// When GRUB's programs cannot say where /boot is. Missing images are no error; they are in [`Menu::notes`].
pub fn render(root: &Path, env: &Environment, config: &BootConfig, probe: &dyn Probe) -> Result<Menu, Error> {
    let mut menu = Menu {
        terminal: config.serial.filter(|serial| serial.terminal),
        ..Menu::default()
    };
    let notes = &mut menu.notes;

    let distribution = images::list(root, "/boot", images::LINUX, notes)?;
    let no_linux = match distribution.is_empty() {
        true => "there is no vmlinuz-* in /boot",
        false => "no vmlinuz-* in /boot can be used",
    };
    let linux = images::first_kernel(root, &distribution, None, |_| true, notes).ok_or(Absent::None(no_linux));
    let dom0 = |kernel: &Kernel| kernel.built.is_some_and(|built| built.dom0);
    let dom0 = match &linux {
        Ok(_) => images::first_kernel(root, &distribution, None, dom0, notes).ok_or(Absent::NoDom0),
        Err(_) => Err(Absent::None(no_linux)),
    };
    let tt_linux = find_tt_linux(root, config, notes)?.found();
    note_kernels([("TT Linux", &tt_linux), ("Linux", &dom0), ("Linux", &linux)], notes);
    let xen = find_xen(root, config, probe, notes)?.found();

    let plan = [
        (EntryId::TtXenTtLinux, Some(&xen), &tt_linux, "TT Linux"),
        (EntryId::TtXenLinux, Some(&xen), &dom0, "Linux"),
        (EntryId::Linux, None, &linux, "Linux"),
    ];
    let mut writer = None;
    for (id, xen, kernel, name) in plan {
        let (xen, kernel) = match (xen.map(Result::as_ref).transpose(), kernel) {
            (Ok(xen), Ok(kernel)) => (xen, kernel),
            (_, Err(why)) | (Err(why), _) => {
                menu.notes.push(format!("ttvm-grub: no entry {id}: {why}"));
                continue;
            }
        };
        // GRUB's programs are asked about the disks only when there is an entry to write.
        let writer = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(Writer::new(root, env, config, probe)?),
        };
        menu.entries.push(match xen {
            Some(xen) => {
                let plain = linux.as_ref().ok().map(|linux| (linux, linux.image.title("Linux")));
                let plain = plain.as_ref().map(|(linux, name)| (*linux, name.as_str()));
                writer.xen(id, xen, (kernel, &kernel.image.title(name)), plain)?
            }
            None => writer.linux(id, kernel, &kernel.image.title(name))?,
        });
    }
    Ok(menu)
}

/// What is looked for, or why there is none that can be used.
type Found<T> = Result<T, Absent>;

/// What a search came to that did not fail.
enum Search<T> {
    /// The newest that can be used.
    Found(T),
    /// There is none, and why.
    Absent(Absent),
}

impl<T> Search<T> {
    fn found(self) -> Found<T> {
        match self {
            Self::Found(found) => Ok(found),
            Self::Absent(why) => Err(why),
        }
    }
}

fn find_tt_linux(root: &Path, config: &BootConfig, notes: &mut Vec<String>) -> Result<Search<Kernel>, Error> {
    let initrd = config.tt_initrd.as_deref();
    // TT Linux may come without its build configuration: that it is there says what it is for.
    let fits = |kernel: &Kernel| kernel.built.is_none_or(|built| built.dom0);
    let image = match &config.tt_linux {
        Some(path) => BootFile::find(root, path).map(|file| Image::new(file, images::TT_LINUX)),
        None => {
            let images = images::list(root, TT_DIRECTORY, images::TT_LINUX, notes)?;
            // One that is named is for all of them.
            if let Some(Err(why)) = initrd
                .filter(|_| !images.is_empty())
                .map(|path| BootFile::find(root, path))
            {
                return Ok(Search::Absent(why.into()));
            }
            match images::first_kernel(root, &images, initrd, fits, notes) {
                Some(kernel) => return Ok(Search::Found(kernel)),
                // Why even the newest one is not taken.
                None => match images.into_iter().next() {
                    Some(image) => Ok(image),
                    None => {
                        return Ok(Search::Absent(Absent::None(
                            "there is no TT Linux (vmlinuz-*) in /boot/ttvm",
                        )));
                    }
                },
            }
        }
    };
    let kernel = image.and_then(|image| Kernel::new(root, image, initrd));
    Ok(match kernel {
        Err(why) => Search::Absent(why.into()),
        Ok(kernel) if !fits(&kernel) => Search::Absent(Absent::NotDom0(path_of(&kernel.image))),
        Ok(kernel) => Search::Found(kernel),
    })
}

/// TT Xen, else the newest Xen of the distribution that GRUB can start.
fn find_xen(
    root: &Path,
    config: &BootConfig,
    probe: &dyn Probe,
    notes: &mut Vec<String>,
) -> Result<Search<Xen>, Error> {
    let firmware = Firmware::of(root);
    if let Some(why) = firmware.without_xen() {
        return Ok(Search::Absent(Absent::Firmware(why)));
    }
    let (images, tt) = match &config.tt_xen {
        Some(path) => match BootFile::find(root, path) {
            Ok(file) => (vec![Image::new(file, images::XEN)], true),
            Err(why) => return Ok(Search::Absent(why.into())),
        },
        None => match images::list(root, TT_DIRECTORY, images::XEN, notes)? {
            images if images.is_empty() => (images::list(root, "/boot", images::XEN, notes)?, false),
            images => (images, true),
        },
    };
    let mut newest = None;
    for image in images {
        let loader = match loader(root, &image, firmware, probe) {
            Ok(loader) => loader,
            Err(why) => {
                // Cut off by a full /boot, say: an older one that is whole may be there.
                match newest {
                    None => newest = Some(why),
                    Some(_) => notes.push(format!("ttvm-grub: ignored: {why}")),
                }
                continue;
            }
        };
        if let Some(why) = newest {
            notes.push(format!("ttvm-grub: ignored: {why}"));
        }
        let what = if tt { "TT Xen" } else { "Xen" };
        notes.push(format!("Found {what} image: {}", path_of(&image)));
        let policy = images::policy(root, &image);
        return Ok(Search::Found(Xen {
            image,
            tt,
            loader,
            policy,
        }));
    }
    Ok(Search::Absent(newest.unwrap_or(Absent::None(
        "there is no Xen (xen-*) in /boot/ttvm or /boot",
    ))))
}

/// How GRUB starts `image`.
fn loader(root: &Path, image: &Image, firmware: Firmware, probe: &dyn Probe) -> Found<Loader> {
    let path = under(root, image.file.path());
    let found = multiboot::has_multiboot2(root, image.file.path()).unwrap_or_default();
    let is = |kind| probe.is_x86(kind, &path);
    // What GRUB's program cannot even read, GRUB cannot start.
    let unreadable = |error: run::Error| Absent::Unreadable(path_of(image), one_line(&error));
    let loader = if found {
        Loader::Multiboot2
    } else {
        match is("multiboot2").and_then(|two| Ok((two, !two && is("multiboot")?))) {
            Err(error) => return Err(unreadable(error)),
            Ok((true, _)) => Loader::Multiboot2,
            Ok((_, true)) => Loader::Multiboot,
            Ok(_) => return Err(Absent::NotMultiboot(path_of(image))),
        }
    };
    if loader == Loader::Multiboot && firmware != Firmware::Bios {
        return Err(Absent::NotOnUefi(path_of(image)));
    }
    Ok(loader)
}

fn note_kernels(found: [(&str, &Found<Kernel>); 3], notes: &mut Vec<String>) {
    let mut last = None;
    for (what, kernel) in found {
        let Ok(kernel) = kernel else { continue };
        if last.replace(kernel) == Some(kernel) {
            continue;
        }
        notes.push(format!("Found {what} image: {}", path_of(&kernel.image)));
        if let Some(initrd) = &kernel.initrd {
            notes.push(format!("Found initrd image: {}", initrd.path().display()));
        }
    }
}

fn path_of(image: &Image) -> String {
    image.file.path().display().to_string()
}

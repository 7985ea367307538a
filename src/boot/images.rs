// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding Xen images, kernels and their initial RAM disks by name, newest first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use super::bz_image;
use super::file::{BootFile, Unusable};
use crate::base::root::under;
use crate::base::version;
use crate::file::tree;

/// What Xen images are called.
pub const XEN: &[&str] = &["xen"];
/// What Linux images are called.
pub const LINUX: &[&str] = &["vmlinuz", "kernel"];
/// What TT Linux images are called: Xen of its time also takes them as plain ELF.
pub const TT_LINUX: &[&str] = &["vmlinuz", "vmlinux", "kernel"];

/// Early initial RAM disks (microcode) that grub-mkconfig knows; it does not always export its list.
const EARLY: &str = "intel-uc.img intel-ucode.img amd-uc.img amd-ucode.img early_ucode.cpio microcode.cpio";

/// A Xen image or a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The file.
    pub file: BootFile,
    /// The version in its name; empty if there is none.
    pub version: String,
}

impl Image {
    /// The image `file`, which may be called one of `names`.
    pub fn new(file: BootFile, names: &[&str]) -> Self {
        let name = file.name();
        let name = name.strip_suffix(".gz").unwrap_or(name);
        let version = match names.iter().find_map(|prefix| name.strip_prefix(prefix)) {
            Some("") => "",
            Some(rest) => rest.strip_prefix('-').unwrap_or(name),
            None => name,
        };
        Self {
            version: version.to_owned(),
            file,
        }
    }

    /// `what` and the version.
    pub fn title(&self, what: &str) -> String {
        format!("{what} {}", self.version).trim_end().to_owned()
    }
}

/// A kernel with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel.
    pub image: Image,
    /// Its initial RAM disk.
    pub initrd: Option<BootFile>,
    /// What its build configuration says; `None` if there is no such file.
    pub built: Option<Built>,
}

/// What matters here in a kernel's build configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Built {
    /// It can be Xen's dom0.
    pub dom0: bool,
    /// It carries an initial RAM file system of its own.
    pub initramfs: bool,
}

impl Kernel {
    /// The kernel `image`, with `initrd` or else the one beside it.
    ///
    /// # Errors
    ///
    /// If it or its initial RAM disk cannot be loaded, or if it is cut off.
    pub fn new(root: &Path, image: Image, initrd: Option<&Path>) -> Result<Self, Unusable> {
        // Whoever may not read it is told nothing of it.
        match bz_image::lacks(root, image.file.path()).unwrap_or_default() {
            0 => {}
            lacks => {
                let path = image.file.path().to_owned();
                return Err(Unusable::CutOff { path, lacks });
            }
        }
        let initrd = match initrd {
            Some(path) => Some(BootFile::find(root, path)?),
            None => beside(root, &image)?,
        };
        Ok(Self {
            built: built(root, &image),
            initrd,
            image,
        })
    }

    /// Whether something other than the kernel itself mounts the root file system, and so understands `UUID=`. Of a kernel
    /// beside others that have an initial RAM disk it also says whether its installation came to its end.
    pub fn has_initramfs(&self) -> bool {
        self.initrd.is_some() || self.built.is_some_and(|built| built.initramfs)
    }
}

/// The images in `directory` that are called one of `names`, newest first. What looks like one but cannot be
/// loaded is said in `notes`.
pub fn list(root: &Path, directory: &str, names: &[&str], notes: &mut Vec<String>) -> Result<Vec<Image>, Error> {
    let directory = Path::new(directory);
    let unreadable = |source| Error::Directory {
        path: directory.to_owned(),
        source,
    };
    let entries = match fs::read_dir(under(root, directory)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut images: Vec<Image> = Vec::new();
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name();
        if !is_image(&name.to_string_lossy(), names) {
            continue;
        }
        match BootFile::find(root, &directory.join(&name)) {
            // Links such as xen.gz to xen-4.17.gz: the file counts, once, if it is an image by its own name.
            Ok(file) if is_image(file.name(), names) => images.push(Image::new(file, names)),
            Ok(_) | Err(Unusable::NotAFile(_)) => {}
            Err(why) => notes.push(format!("ttvm-grub: ignored: {why}")),
        }
    }
    // The path decides between equal versions, so that the menu does not depend on the directory's order.
    images.sort_by(|a, b| version::compare(&b.version, &a.version).then_with(|| a.file.path().cmp(b.file.path())));
    images.dedup();
    Ok(images)
}

/// The first of `images` that is a kernel with all it needs and that `fits`; `initrd` is for all of them, or each has its
/// own. Where some have an initial RAM disk, one that has none was not installed to its end (a full /boot, a failed hook):
/// it is taken if nothing else fits.
pub fn first_kernel(
    root: &Path,
    images: &[Image],
    initrd: Option<&Path>,
    fits: impl Fn(&Kernel) -> bool,
    notes: &mut Vec<String>,
) -> Option<Kernel> {
    let mut note = |text: String| {
        let text = format!("ttvm-grub: {text}");
        if !notes.contains(&text) {
            notes.push(text);
        }
    };
    let mut kernels = Vec::new();
    for image in images {
        match Kernel::new(root, image.clone(), initrd) {
            Ok(kernel) => kernels.push(kernel),
            Err(why) => note(format!("ignored: {why}")),
        }
    }
    let usual = kernels.iter().any(|kernel| kernel.initrd.is_some());
    let is_whole = |kernel: &Kernel| !usual || kernel.has_initramfs();
    let bare = |kernel: &Kernel| format!("no initial RAM disk for {}", kernel.image.file.path().display());
    let chosen = kernels.iter().position(|kernel| fits(kernel) && is_whole(kernel));
    for kernel in kernels.iter().take(chosen.unwrap_or(0)) {
        if !is_whole(kernel) && fits(kernel) {
            note(format!(
                "{}, though others there have one: another is preferred",
                bare(kernel)
            ));
        }
    }
    let chosen = chosen.or_else(|| {
        let at = kernels.iter().position(&fits)?;
        note(format!(
            "{}: nothing else there will do, so it is taken without",
            bare(&kernels[at])
        ));
        Some(at)
    });
    chosen.map(|at| kernels.swap_remove(at))
}

/// The early initial RAM disks in /boot, by the names in the settings `stock` and `custom`.
pub fn early(root: &Path, stock: &str, custom: &str) -> Vec<BootFile> {
    let stock = if stock.trim().is_empty() { EARLY } else { stock };
    stock
        .split_whitespace()
        .chain(custom.split_whitespace())
        .filter_map(|name| BootFile::find(root, &Path::new("/boot").join(name)).ok())
        .collect()
}

/// The security policy of a Xen image: the file beside it that Xen's build names after its version, unless the image's
/// own build configuration says that it was built without XSM.
pub fn policy(root: &Path, xen: &Image) -> Option<BootFile> {
    let directory = xen.file.directory();
    let config = directory.join(format!("xen-{}.config", xen.version));
    if tree::text(root, &config, tree::WRITTEN).is_ok_and(|text| !text.lines().any(|line| line == "CONFIG_XSM=y")) {
        return None;
    }
    BootFile::find(root, &directory.join(format!("xenpolicy-{}", xen.version))).ok()
}

/// Whether a file of this name is an image called one of `names`, and meant to be booted.
fn is_image(name: &str, names: &[&str]) -> bool {
    let stem = name.strip_suffix(".gz").unwrap_or(name);
    let called = names.iter().any(|prefix| {
        stem.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || (rest.starts_with('-') && rest.len() > 1))
    });
    let other = [
        ".old",
        ".bak",
        "~",
        ".efi",
        ".efi.signed",
        ".signed",
        ".config",
        ".map",
        ".sig",
        ".rpmsave",
        ".rpmnew",
    ];
    called
        && !other.iter().any(|suffix| stem.ends_with(suffix))
        && !["xen-syms", "xen-policy"].iter().any(|prefix| stem.starts_with(prefix))
        && ![".dpkg-", "rescue", "recovery"].iter().any(|part| stem.contains(part))
}

/// The version in a kernel's name as grub-mkconfig's scripts see it: what is before the first digit goes, up to its last
/// hyphen.
fn grub_version(name: &str) -> &str {
    let letters = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
    name[..letters].rfind('-').map_or(name, |hyphen| &name[hyphen + 1..])
}

/// The initial RAM disk beside a kernel: the names, in their order, by which 10_linux and 20_linux_xen look for it, and
/// some that other systems use.
fn beside(root: &Path, kernel: &Image) -> Result<Option<BootFile>, Unusable> {
    let directory = kernel.file.directory();
    for name in initrd_names(kernel.file.name(), &kernel.version) {
        match BootFile::find(root, &directory.join(name)) {
            Ok(file) => return Ok(Some(file)),
            Err(Unusable::Missing(_) | Unusable::NotAFile(_)) => {}
            Err(why) => return Err(why),
        }
    }
    Ok(None)
}

fn initrd_names(kernel: &str, version: &str) -> Vec<String> {
    let mut versions = vec![version];
    let grub = grub_version(kernel);
    if grub != kernel && grub != version {
        versions.push(grub);
    }
    // 10_linux calls it the alternative version.
    for at in 0..versions.len() {
        versions.extend(versions[at].strip_suffix(".old"));
    }
    let mut names = Vec::new();
    for version in &versions {
        let version = match *version {
            "" => String::new(),
            version => format!("-{version}"),
        };
        names.extend([
            format!("initrd.img{version}"),
            format!("initrd{version}.img"),
            format!("initrd{version}.gz"),
            format!("initrd{version}"),
            format!("initramfs{version}.img"),
            format!("initramfs{version}"),
        ]);
    }
    // GENKERNEL_ARCH of 10_linux: what the machine calls itself, and x86 for 32 bits, as Rust has it.
    let of_machine = format!("initramfs-genkernel-{}", std::env::consts::ARCH);
    for prefix in ["initramfs-genkernel", of_machine.as_str()] {
        let named = versions.iter().filter(|version| !version.is_empty());
        names.extend(named.map(|version| format!("{prefix}-{version}")));
    }
    names
}

fn built(root: &Path, kernel: &Image) -> Option<Built> {
    let version = &kernel.version;
    let grub = grub_version(kernel.file.name());
    let places = [
        kernel.file.directory().join(format!("config-{version}")),
        kernel.file.directory().join(format!("config-{grub}")),
        PathBuf::from(format!("/etc/kernels/kernel-config-{grub}")),
        PathBuf::from(format!("/usr/lib/modules/{version}/config")),
    ];
    let text = places
        .iter()
        .find_map(|path| tree::text(root, path, tree::WRITTEN).ok())?;
    let mut built = Built::default();
    for line in text.lines() {
        match line.trim_end() {
            "CONFIG_XEN_DOM0=y" | "CONFIG_XEN_PRIVILEGED_GUEST=y" => built.dom0 = true,
            line => {
                let source = line.strip_prefix("CONFIG_INITRAMFS_SOURCE=");
                built.initramfs |= source.is_some_and(|value| !value.trim_matches('"').is_empty());
            }
        }
    }
    Some(built)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images() {
        for name in ["xen.gz", "xen", "xen-4.17-amd64.gz", "xen-4.17-amd64", "xen-3.0-tt"] {
            assert!(is_image(name, XEN), "{name}");
        }
        for name in ["vmlinuz-6.1.0-56-amd64", "kernel-6.1", "vmlinuz", "vmlinuz-2.6.18-tt"] {
            assert!(is_image(name, LINUX), "{name}");
        }
        for name in [
            "xen-4.17-amd64.efi",
            "xen-4.17-amd64.config",
            "xen-syms-4.17",
            "xen-syms-4.17.gz",
            "xenpolicy-4.17",
            "xen-4.17.old",
            "xen-4.17.old.gz",
            "xen-4.17.gz.dpkg-new",
            "xen-4.17.gz.sig",
            "xen-4.17.efi.old",
            "xen-",
            "xen.cfg",
            "xenial",
        ] {
            assert!(!is_image(name, XEN), "{name}");
        }
        for name in [
            "vmlinuz-0-rescue-0123",
            "vmlinuz-6.1.old",
            "vmlinuz-6.1-recovery",
            "vmlinuz-6.1.efi.signed",
            "vmlinuz-6.1.rpmsave",
            "vmlinuz-6.1~",
            "config-6.1",
            "vmlinux-6.1",
            "kernel.img",
        ] {
            assert!(!is_image(name, LINUX), "{name}");
        }
    }

    /// The list of 20_linux_xen in Debian 12.
    #[test]
    fn names_of_initial_ram_disks() {
        let names = initrd_names("vmlinuz-5.15.88-gentoo.old", "5.15.88-gentoo.old");
        let arch = std::env::consts::ARCH;
        for version in ["5.15.88-gentoo.old", "5.15.88-gentoo"] {
            for name in [
                format!("initrd.img-{version}"),
                format!("initrd-{version}.img"),
                format!("initrd-{version}.gz"),
                format!("initrd-{version}"),
                format!("initramfs-{version}.img"),
                format!("initramfs-genkernel-{version}"),
                format!("initramfs-genkernel-{arch}-{version}"),
            ] {
                assert!(names.contains(&name), "{name}");
            }
        }
        for (name, version) in [
            ("kernel-genkernel-x86_64-5.15.88-gentoo", "x86_64-5.15.88-gentoo"),
            ("vmlinuz-lts", "lts"),
            ("vmlinuz-xen-6.1", "6.1"),
            ("vmlinuz", "vmlinuz"),
        ] {
            assert_eq!(grub_version(name), version);
        }
        let names = initrd_names("kernel-genkernel-x86_64-5.15", "genkernel-x86_64-5.15");
        assert!(
            names.contains(&"initramfs-genkernel-x86_64-5.15".to_owned()),
            "{names:?}"
        );
    }
}

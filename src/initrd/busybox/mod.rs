// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest that is all in memory: the distribution's busybox, a few of a kernel's modules and a few scripts, as the initial
//! RAM disk of that kernel. What it is made from decides what it is, to the last byte.

mod error;
mod output;
mod password;
mod program;
mod tree;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use initrd::newc::Writer;

pub use error::Error;
pub use output::{Written, check};
pub use password::{NoPassword, Password};

use super::modules::{self, Modules};
use program::Busybox;
use tree::Tree;

/// Where guests' files expect it.
pub const DEFAULT: &str = "/boot/initrd-busybox-based-ram-linux.img";

/// Loaded when the guest starts: virtio's and Xen's disks and networks, what DHCP listens with, the power button. Some
/// kernels have one or another built in, and some do without.
const AT_BOOT: [&str; 8] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "xen_blkfront",
    "xen_netfront",
    "af_packet",
    "button",
    "evdev",
];

/// Loaded when it is needed (`modprobe`, which also the kernel calls): the file system that disks of guests have.
const ON_DEMAND: [&str; 1] = ["ext4"];

/// The guest's own files: its place, its permissions, its content.
const FILES: [(&str, u32, &str); 7] = [
    ("init", 0o755, include_str!("guest/init")),
    ("etc/inittab", 0o644, include_str!("guest/inittab")),
    ("etc/issue", 0o644, include_str!("guest/issue")),
    ("etc/profile", 0o644, include_str!("guest/profile")),
    ("etc/ttvm/dhcp", 0o755, include_str!("guest/dhcp")),
    ("etc/ttvm/network", 0o755, include_str!("guest/network")),
    ("etc/ttvm/power-button", 0o755, include_str!("guest/power-button")),
];

/// What is /init where the system is on a disk.
const INIT_ROOT: &str = include_str!("guest/init-root");

/// How the login is skipped: a program in its place, and getty's options for it.
const AUTOLOGIN: (&str, &str) = (include_str!("guest/autologin"), "-n -l /etc/ttvm/autologin\n");

/// What an image is to be.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The kernel's version; without one the running kernel, or the newest.
    pub kernel: Option<String>,
    /// Modules that are loaded when it starts, besides the usual ones.
    pub modules: Vec<String>,
    /// Root's password.
    pub password: Password,
    /// Whether nobody is asked for it.
    pub autologin: bool,
    /// Whether it is only there to mount the root of a guest with a disk.
    pub mounts_root: bool,
    /// The time of all files, in seconds since 1970.
    pub time: u32,
}

impl Settings {
    /// One that mounts the root of a guest with a disk, which has the file system that ttvm makes.
    pub fn for_root() -> Self {
        Self {
            modules: ON_DEMAND.map(str::to_owned).to_vec(),
            mounts_root: true,
            ..Self::default()
        }
    }
}

/// An image, in memory.
#[derive(Debug)]
pub struct Image {
    /// The version of the kernel it is for.
    pub kernel: String,
    /// The busybox it is made from.
    pub busybox: PathBuf,
    /// How many commands that one has.
    pub applets: usize,
    /// The modules that are loaded when it starts, in this order.
    pub at_boot: Vec<String>,
    /// Those that are loaded when they are needed.
    pub on_demand: Vec<String>,
    /// Of those wanted, what the kernel has built in.
    pub builtin: Vec<String>,
    /// Of those usually wanted, what the kernel has not at all.
    pub missing: Vec<String>,
    tree: Tree,
    time: u32,
    secret: bool,
}

impl Image {
    /// Puts an image together from the system in the tree at `root`.
    pub fn of(root: &Path, settings: &Settings) -> Result<Self, Error> {
        let modules = Modules::read(root, &modules::choose(root, settings.kernel.as_deref())?)?;
        Self::with(root, &modules, settings)
    }

    /// The same, with `modules` from wherever they are.
    pub fn with(root: &Path, modules: &Modules, settings: &Settings) -> Result<Self, Error> {
        let busybox = Busybox::find(root)?;
        if let Some(name) = settings.modules.iter().find(|name| !known(modules, name)) {
            return Err(modules.unknown(name).into());
        }
        let (at_boot, on_demand) = chosen(modules, &settings.modules);
        let wanted = || AT_BOOT.into_iter().chain(ON_DEMAND);
        let all = || wanted().chain(settings.modules.iter().map(String::as_str));
        let builtin = all().filter(|name| modules.is_builtin(name) && !modules.has(name));
        let mut image = Self {
            kernel: modules.version().to_owned(),
            applets: busybox.applets.len(),
            builtin: builtin.map(str::to_owned).collect(),
            missing: wanted()
                .filter(|name| !known(modules, name))
                .map(str::to_owned)
                .collect(),
            at_boot,
            on_demand,
            tree: skeleton(),
            time: settings.time,
            secret: settings.password.is_secret(),
            busybox: busybox.path.clone(),
        };
        image.add_busybox(busybox);
        image.add_modules(modules)?;
        image.tree.file("etc/ttvm/getty", 0o644, "");
        if settings.autologin {
            let (program, options) = AUTOLOGIN;
            image.tree.file("etc/ttvm/autologin", 0o755, program);
            image.tree.file("etc/ttvm/getty", 0o644, options);
        }
        if settings.mounts_root {
            image.tree.file("init", 0o755, INIT_ROOT);
        }
        let hash = settings.password.hash(&image.archive()?)?;
        // It is never too old. With empty fields busybox's login takes no password at all for right.
        let shadow = format!("root:{hash}:19000:0:99999:7:::\n");
        image.tree.file("etc/shadow", 0o600, shadow);
        Ok(image)
    }

    /// The files in it, without the links to busybox: path, mode as `stat(2)` has it, and size in bytes.
    pub fn files(&self) -> impl Iterator<Item = (&str, u32, usize)> {
        let files = self.tree.entries().filter(|(_, _, data)| *data != b"busybox");
        files.map(|(path, mode, data)| (path, mode, data.len()))
    }

    fn add_busybox(&mut self, busybox: Busybox) {
        self.tree.file("bin/busybox", 0o755, busybox.content);
        for name in busybox.applets {
            self.tree.link(&format!("bin/{name}"), "busybox");
        }
    }

    fn add_modules(&mut self, modules: &Modules) -> Result<(), Error> {
        let all: BTreeSet<String> = self.at_boot.iter().chain(&self.on_demand).cloned().collect();
        let directory = format!("lib/modules/{}", modules.version());
        self.tree.directory(&directory, 0o755);
        let place = |name: &String| modules.place(name).map(|place| format!("{directory}/{place}"));
        for name in &all {
            if let Some(place) = place(name) {
                self.tree.file(&place, 0o644, modules.content(name)?);
            }
        }
        for (name, text) in modules.index(&all) {
            self.tree.file(&format!("{directory}/{name}"), 0o644, text);
        }
        let order = self.at_boot.iter().filter_map(place).map(|place| format!("/{place}\n"));
        self.tree.file("etc/ttvm/modules", 0o644, order.collect::<String>());
        Ok(())
    }

    /// All that is in it as an archive.
    fn archive(&self) -> Result<Vec<u8>, Error> {
        let mut archive = Writer::new(Vec::new());
        self.tree.write(&mut archive, self.time).map_err(Error::Pack)?;
        archive.finish(4).map_err(Error::Pack)
    }
}

fn known(modules: &Modules, name: &str) -> bool {
    modules.has(name) || modules.is_builtin(name)
}

/// `Ok` if the system in the tree at `root` has a busybox that needs nothing else.
///
/// # Errors
///
/// Why it has none, and the package to install.
pub fn require(root: &Path) -> Result<(), Error> {
    Busybox::find(root).map(drop)
}

/// All modules that an image with nothing but the usual ones has.
pub fn usual(modules: &Modules) -> Vec<String> {
    let (at_boot, on_demand) = chosen(modules, &[]);
    [at_boot, on_demand].concat()
}

/// The modules to load when it starts, and those to load later, each with what it needs and after that.
fn chosen(modules: &Modules, more: &[String]) -> (Vec<String>, Vec<String>) {
    let first: Vec<&str> = AT_BOOT.into_iter().chain(more.iter().map(String::as_str)).collect();
    let at_boot = modules.in_order(&first);
    let mut on_demand = modules.in_order(&ON_DEMAND);
    on_demand.retain(|name| !at_boot.contains(name));
    (at_boot, on_demand)
}

/// What every such guest has.
fn skeleton() -> Tree {
    let mut tree = Tree::default();
    for name in ["dev", "mnt", "proc", "run", "sys", "tmp", "var/log"] {
        tree.directory(name, 0o755);
    }
    tree.directory("root", 0o700);
    // Until there is a devtmpfs.
    tree.device("dev/console", 0o600, (5, 1));
    tree.device("dev/null", 0o666, (1, 3));
    // The kernel calls /sbin/modprobe, /sbin/poweroff and /sbin/reboot.
    tree.link("sbin", "bin");
    tree.link("usr/bin", "../bin");
    tree.link("usr/sbin", "../bin");
    tree.link("var/run", "../run");
    tree.link("etc/mtab", "/proc/mounts");
    // `mount` without -t tries what is loaded, and this; ext4 does for ext2 and ext3 as well.
    tree.file("etc/filesystems", 0o644, "ext4\n");
    tree.file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n");
    tree.file("etc/group", 0o644, "root:x:0:\ntty:x:5:\n");
    for (path, permissions, content) in FILES {
        tree.file(path, permissions, content);
    }
    tree
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel for guests, wherever it comes from: this system, a directory, a file, or a package that is not installed.

mod package;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::modules::{self, Modules};
use crate::base::error::{Classify, Exit, reason};
use crate::base::progress::Progress;
use crate::base::root::under;
use crate::base::version;
use package::Package;

/// No kernel is so large.
const LARGEST: u64 = 256 << 20;

/// What a kernel for PCs says of itself (Documentation/arch/x86/boot.rst): by what it is known, and where its version is.
const MAGIC: (usize, &[u8]) = (0x202, b"HdrS");
const VERSION: usize = 0x20e;
const SETUP: usize = 0x200;

/// How to come to a kernel.
const PACKAGES: &str = "`apt-get install linux-image-amd64` (Debian) or `dnf install kernel-core` (Fedora); without being root, `apt-get download` the package linux-image-VERSION that it depends on, and name the .deb with --kernel";

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None there.
    #[error("there is no kernel in {}: {PACKAGES}", .0.display())]
    None(PathBuf),
    /// Not where it was named.
    #[error("there is no {}: name a kernel that is there, or leave --kernel out and the newest of this system is taken", .0.display())]
    Missing(PathBuf),
    /// None that may be read.
    #[error(
        "{} cannot be read ({}): root lets others read it with `chmod a+r`; or `apt-get download` a package linux-image-VERSION, and name the .deb with --kernel",
        path.display(),
        reason(why)
    )]
    Closed {
        /// The kernel.
        path: PathBuf,
        /// The system's reason.
        why: io::Error,
    },
    /// Something else.
    #[error("{} is no kernel for PCs: --kernel takes a vmlinuz, a package of Debian (linux-image-VERSION), or a directory with boot and lib/modules", .0.display())]
    Other(PathBuf),
    /// A package that only says which one has it.
    #[error("there is no kernel in {}: its package depends on the one that has it (`dpkg-deb --field` says which)", .0.display())]
    NotInPackage(PathBuf),
    /// A package that cannot be read.
    #[error("{} cannot be read: download it again", path.display())]
    Package {
        /// The package.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// The caller called it off.
    #[error("it was interrupted: nothing is left of it")]
    Interrupted,
    /// Its modules cannot be had.
    #[error(transparent)]
    Modules(#[from] modules::Error),
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Other(_) | Self::NotInPackage(_) => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

/// Where the modules of a kernel are.
#[derive(Debug)]
enum Place {
    /// In a system, below this root.
    Tree(PathBuf),
    Package(Package),
}

/// A kernel.
#[derive(Debug)]
pub struct Kernel {
    /// Its version.
    pub version: String,
    /// The file itself.
    pub content: Vec<u8>,
    place: Place,
}

impl Kernel {
    /// The newest one of the system in the tree at `root` that may be read, or the one that `wanted` names: its file, a package
    /// with it, or a directory that is such a system.
    pub fn find(root: &Path, wanted: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = wanted else {
            return Self::newest(root, root);
        };
        if path.is_dir() {
            return Self::newest(path, root);
        }
        let closed = |why: io::Error| match why.kind() {
            io::ErrorKind::NotFound => Error::Missing(path.to_owned()),
            _ => Error::Closed {
                path: path.to_owned(),
                why,
            },
        };
        if let Some(package) = Package::open(path).map_err(closed)? {
            let (name, content) = package.kernel()?;
            return Self::of(Path::new(&name), content, Place::Package(package));
        }
        let content = read(path).map_err(closed)?;
        Self::of(path, content, Place::Tree(root.to_owned()))
    }

    fn of(path: &Path, content: Vec<u8>, place: Place) -> Result<Self, Error> {
        let version = version_in(&content).ok_or_else(|| Error::Other(path.to_owned()))?;
        Ok(Self {
            version,
            content,
            place,
        })
    }

    /// The newest one in the tree at `tree`, whose modules are there, else in that at `root`.
    fn newest(tree: &Path, root: &Path) -> Result<Self, Error> {
        let mut closed = None;
        for path in list(tree) {
            match read(&path) {
                Err(why) => closed = closed.or(Some(Error::Closed { path, why })),
                Ok(content) => {
                    let has_modules = under(tree, Path::new(modules::DIRECTORY)).is_dir();
                    let place = if has_modules { tree } else { root };
                    return Self::of(&path, content, Place::Tree(place.to_owned()));
                }
            }
        }
        Err(closed.unwrap_or_else(|| Error::None(under(tree, Path::new("/boot")))))
    }

    /// Its modules, of which those that `chosen` names will be wanted with what is in them.
    pub fn modules(
        &self,
        chosen: &dyn Fn(&Modules) -> Vec<String>,
        progress: &mut Progress<'_>,
    ) -> Result<Modules, Error> {
        match &self.place {
            Place::Package(package) => package.modules(&self.version, chosen, progress),
            Place::Tree(root) => {
                let version = modules::choose(root, Some(&self.version))?;
                Ok(Modules::read(root, &version)?)
            }
        }
    }
}

/// The kernels in a tree, the newest first: where Debian has them, where Fedora does, and in the directory itself.
fn list(tree: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for directory in ["/boot", "/"] {
        for name in names(&under(tree, Path::new(directory))) {
            if let Some(version) = name.strip_prefix("vmlinuz-").filter(|version| is_usual(version)) {
                found.push((version.to_owned(), under(tree, Path::new(directory)).join(&name)));
            }
        }
    }
    let modules = under(tree, Path::new(modules::DIRECTORY));
    for version in names(&modules) {
        let path = modules.join(&version).join("vmlinuz");
        if path.is_file() {
            found.push((version, path));
        }
    }
    // In /lib/modules it may be read where it may not in /boot.
    found.sort_by(|a, b| version::compare(&b.0, &a.0));
    found.into_iter().map(|(_, path)| path).collect()
}

/// Whether a kernel with this in its name is there to be booted as usual.
pub fn is_usual(version: &str) -> bool {
    let unusual = [".old", ".bak", ".dpkg-new", ".dpkg-tmp", "-rescue"];
    !version.starts_with("0-rescue") && !unusual.iter().any(|end| version.ends_with(end))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let file: File = crate::file::open_content(path)?;
    file.take(LARGEST).read_to_end(&mut content)?;
    Ok(content)
}

/// The version of the kernel in `content`; `None` if it is no kernel for PCs.
pub fn version_in(content: &[u8]) -> Option<String> {
    let (at, magic) = MAGIC;
    if !content.get(at..)?.starts_with(magic) {
        return None;
    }
    let place = content.get(VERSION..VERSION + 2)?.try_into().ok()?;
    let text = content.get(usize::from(u16::from_le_bytes(place)) + SETUP..)?;
    let end = text.iter().position(|byte| matches!(byte, b' ' | 0))?;
    let version = std::str::from_utf8(&text[..end]).ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
    (!version.is_empty() && version.len() < 100 && version.chars().all(plain)).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_says_its_version() {
        let mut content = vec![0; 0x400];
        content[0x202..0x206].copy_from_slice(b"HdrS");
        content[VERSION..VERSION + 2].copy_from_slice(&0x100_u16.to_le_bytes());
        content[0x300..0x313].copy_from_slice(b"6.1.0-9-amd64 (x) #");
        assert_eq!(version_in(&content).as_deref(), Some("6.1.0-9-amd64"));
        content[0x300] = b'/';
        assert_eq!(version_in(&content), None);
        content[VERSION..VERSION + 2].fill(0xff);
        assert_eq!(version_in(&content), None);
        assert_eq!(version_in(b"\x7fELF"), None);
    }

    #[test]
    fn what_is_not_booted_as_usual() {
        assert!(is_usual("6.1.0-9-amd64") && is_usual("virt"));
        for version in ["0-rescue-1234", "6.1.old", "6.1.dpkg-new"] {
            assert!(!is_usual(version), "{version}");
        }
    }
}

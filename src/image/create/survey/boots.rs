// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a source has for a guest to boot: its newest kernel, and the initial RAM disk of that.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::base::version;
use crate::image::create::error::Error;
use crate::image::create::{Creation, Source};
use crate::initrd::kernel::is_usual;

/// No kernel and no initial RAM disk is so large.
const LARGEST: u64 = 1 << 30;

const DIRECTORY: &[u8] = b"boot";

/// What a guest boots.
#[derive(Debug)]
pub struct Boots {
    /// The version in the names of its files.
    pub version: String,
    /// The kernel.
    pub kernel: Vec<u8>,
    /// Its initial RAM disk, if it has one.
    pub initrd: Option<Vec<u8>>,
}

/// Why a source has nothing for a guest to boot.
#[derive(Debug, thiserror::Error)]
pub enum NoBoots {
    /// There is none.
    #[error(
        "there is no kernel in {} (boot/vmlinuz-VERSION): install one there (Debian: linux-image-amd64), or name one for the guest with `ttvm guest new --kernel`",
        .0.display()
    )]
    None(PathBuf),
    /// It may not be read.
    #[error(
        "{} of the source cannot be read, or is a link: root lets others read it with `chmod a+r`; or name another one with `ttvm guest new --kernel`",
        .0.display()
    )]
    Closed(PathBuf),
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] Error),
}

/// Names of a kernel and its initial RAM disk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Names {
    version: String,
    kernel: String,
    initrd: Option<String>,
}

impl Names {
    /// The newest kernel in a directory of these files; one with an initial RAM disk if any has one: another one was not
    /// installed to its end.
    fn newest(files: &[String]) -> Option<Self> {
        let versions = files.iter().filter_map(|name| name.strip_prefix("vmlinuz-"));
        let mut kernels: Vec<Self> = versions
            .filter(|version| is_usual(version) && is_plain(version))
            .map(|version| Self::of(version, files))
            .collect();
        kernels.sort_by(|a, b| {
            let whole = a.initrd.is_some().cmp(&b.initrd.is_some());
            whole.then_with(|| version::compare(&a.version, &b.version))
        });
        kernels.pop()
    }

    /// As Debian, openSUSE, Fedora and Alpine call what belongs to a kernel.
    fn of(version: &str, files: &[String]) -> Self {
        let called = [
            format!("initrd.img-{version}"),
            format!("initrd-{version}"),
            format!("initramfs-{version}.img"),
            format!("initramfs-{version}"),
        ];
        Self {
            version: version.to_owned(),
            kernel: format!("vmlinuz-{version}"),
            initrd: called.into_iter().find(|name| files.contains(name)),
        }
    }
}

/// Whether a file here may have such a name, and a person may be shown it.
fn is_plain(version: &str) -> bool {
    version.len() < 100
        && version
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._+~-".contains(c))
}

impl Creation {
    /// The newest kernel in the source, with its initial RAM disk.
    pub fn boots(&self) -> Result<Boots, NoBoots> {
        let nothing = || NoBoots::None(self.request.source.clone());
        let names = Names::newest(&self.boot_files()).ok_or_else(nothing)?;
        let wanted = [Some(&names.kernel), names.initrd.as_ref()];
        let wanted: Vec<String> = wanted.into_iter().flatten().cloned().collect();
        let mut files = match &self.source {
            Source::Tree(_) => self.read_in_tree(&wanted)?,
            Source::Archive(..) => self.read_in_archive(&wanted)?,
        };
        let mut take = |name: &String| {
            let content = files.remove(name).filter(|content| !content.is_empty());
            content.ok_or_else(|| NoBoots::Closed(Path::new("/boot").join(name)))
        };
        Ok(Boots {
            kernel: take(&names.kernel)?,
            initrd: names.initrd.as_ref().map(take).transpose()?,
            version: names.version,
        })
    }

    /// The names of the files in /boot.
    fn boot_files(&self) -> Vec<String> {
        let plain = |name: &[u8]| String::from_utf8(name.to_vec()).ok();
        match &self.source {
            Source::Archive(_, seen) => seen.in_directory(DIRECTORY).filter_map(plain).collect(),
            Source::Tree(_) if self.is_mounted() => {
                let entries = fs::read_dir(self.mounted()).into_iter().flatten().flatten();
                entries
                    .filter_map(|entry| plain(entry.file_name().as_bytes()))
                    .collect()
            }
            Source::Tree(tree) => {
                let directory = tree.directory(DIRECTORY, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW);
                let entries = directory.into_iter().flatten().flatten();
                entries
                    .filter_map(|entry| plain(entry.file_name().to_bytes()))
                    .collect()
            }
        }
    }

    /// Whether /boot is a file system of its own, which the tree does not have.
    fn is_mounted(&self) -> bool {
        matches!(&self.source, Source::Tree(tree) if tree.mounted(DIRECTORY).is_some())
    }

    fn mounted(&self) -> PathBuf {
        self.request.source.join("boot")
    }

    fn read_in_tree(&self, names: &[String]) -> Result<BTreeMap<String, Vec<u8>>, NoBoots> {
        let mut files = BTreeMap::new();
        for name in names {
            let closed = |_: io::Error| NoBoots::Closed(Path::new("/boot").join(name));
            let mut content = Vec::new();
            let file = self.open_in_tree(name).map_err(closed)?;
            file.take(LARGEST).read_to_end(&mut content).map_err(closed)?;
            files.insert(name.clone(), content);
        }
        Ok(files)
    }

    fn open_in_tree(&self, name: &str) -> io::Result<File> {
        match &self.source {
            Source::Tree(tree) if !self.is_mounted() => {
                let path = [DIRECTORY, b"/", name.as_bytes()].concat();
                tree.read(&path).ok_or_else(|| io::ErrorKind::PermissionDenied.into())
            }
            _ => crate::file::open_content(&self.mounted().join(name)),
        }
    }

    fn read_in_archive(&self, names: &[String]) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let mut files = BTreeMap::new();
        let Source::Archive(archive, seen) = &self.source else {
            return Ok(files);
        };
        let path = |name: &String| [DIRECTORY, b"/", name.as_bytes()].concat();
        let read = archive.members::<Halt>(&mut |member, content| {
            let found = names.iter().find(|name| seen.first(&path(name)) == member.path);
            if let Some(name) = found {
                let mut bytes = Vec::new();
                let read = content.take(LARGEST).read_to_end(&mut bytes);
                read.map_err(|error| archive.wrong(format!("it is cut off ({error})")))?;
                files.insert(name.clone(), bytes);
            }
            match files.len() == names.len() {
                true => Err(Halt::Enough),
                false => Ok(()),
            }
        });
        match read {
            Err(Halt::Failed(error)) => Err(*error),
            Ok(()) | Err(Halt::Enough) => Ok(files),
        }
    }
}

/// Why an archive is read no further.
enum Halt {
    Enough,
    Failed(Box<Error>),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_that_is_whole() {
        let newest = |files: &[&str]| {
            let files: Vec<String> = files.iter().map(ToString::to_string).collect();
            Names::newest(&files).map(|names| (names.kernel, names.initrd.unwrap_or_default()))
        };
        let whole = |kernel: &str, initrd: &str| Some((kernel.to_owned(), initrd.to_owned()));
        let debian = [
            "vmlinuz-6.1.0-9-amd64",
            "initrd.img-6.1.0-9-amd64",
            "vmlinuz-6.1.0-10-amd64",
        ];
        assert_eq!(newest(&debian), whole(debian[0], debian[1]));
        let both = [&debian[..], &["initrd.img-6.1.0-10-amd64"]].concat();
        assert_eq!(newest(&both), whole(debian[2], "initrd.img-6.1.0-10-amd64"));
        assert_eq!(
            newest(&[
                "vmlinuz-0-rescue-1",
                "vmlinuz-6.12-200.fc41.x86_64",
                "initramfs-6.12-200.fc41.x86_64.img"
            ]),
            whole("vmlinuz-6.12-200.fc41.x86_64", "initramfs-6.12-200.fc41.x86_64.img")
        );
        assert_eq!(
            newest(&["vmlinuz-virt", "initramfs-virt"]),
            whole("vmlinuz-virt", "initramfs-virt")
        );
        assert_eq!(newest(&["vmlinuz-1"]), whole("vmlinuz-1", ""));
        assert_eq!(newest(&["vmlinuz", "grub"]), None);
    }
}

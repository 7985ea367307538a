// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel in a package of Debian that is not installed (deb(5)): an archive of `ar` with an archive of tar in it. It is read
//! twice: the modules that are wanted are few, and which ones they need is known when all were seen.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;
use liblzma::stream::Stream;

use super::Error;
use crate::base::progress::Progress;
use crate::initrd::modules::Modules;

const MAGIC: &[u8] = b"!<arch>\n";
/// The head of a member, and where its size is in it.
const HEAD: usize = 60;
const SIZE: std::ops::Range<usize> = 48..58;

/// What decoders of xz may need: twice that of `xz -9`.
const MEMORY: u64 = 128 << 20;

/// No file of a kernel is so large.
const LARGEST: u64 = 256 << 20;

/// No package of a kernel has so much in it.
const MOST: u64 = 8 << 30;

/// A package.
#[derive(Debug)]
pub(super) struct Package {
    path: PathBuf,
    file: File,
    /// Where its files are, and how long that is.
    data: (u64, u64),
}

/// Whoever looks at the files of a package, by their paths below the root.
type Look<'a> = dyn FnMut(&Path, &mut dyn Read) -> io::Result<ControlFlow<()>> + 'a;

impl Package {
    /// The package in the file at `path`; `None` if that is none.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let mut file = crate::file::open_content(path)?;
        let mut magic = [0; MAGIC.len()];
        if file.read_exact(&mut magic).is_err() || magic != MAGIC {
            return Ok(None);
        }
        let path = path.to_owned();
        Ok(data(&mut file)?.map(|data| Self { path, file, data }))
    }

    /// Its kernel: the name of the file, and what is in it.
    pub(super) fn kernel(&self) -> Result<(String, Vec<u8>), Error> {
        let mut found = None;
        self.look(&mut |path, content| {
            let name = path.strip_prefix("boot").ok().and_then(Path::to_str);
            let Some(name) = name.filter(|name| name.starts_with("vmlinuz-")) else {
                return Ok(ControlFlow::Continue(()));
            };
            found = Some((name.to_owned(), whole(content)?));
            Ok(ControlFlow::Break(()))
        })?;
        found.ok_or_else(|| Error::NotInPackage(self.path.clone()))
    }

    /// The modules of that kernel; of those that `chosen` names what is in them, too. `progress` hears of bytes of the package.
    pub(super) fn modules(
        &self,
        version: &str,
        chosen: &dyn Fn(&Modules) -> Vec<String>,
        progress: &mut Progress<'_>,
    ) -> Result<Modules, Error> {
        let mut modules = Modules::coming(version, &self.builtin(version)?);
        self.each_module(version, (0, progress), &mut |path, elf| {
            modules.add(path, &elf);
        })?;
        modules.complete();
        let wanted = chosen(&modules);
        self.each_module(version, (1, progress), &mut |path, elf| {
            if wanted.contains(&Modules::name(path)) {
                modules.keep(path, elf);
            }
        })?;
        Ok(modules)
    }

    fn builtin(&self, version: &str) -> Result<String, Error> {
        let mut text = String::new();
        self.look(&mut |path, content| {
            if below(path, version) != Some(Path::new("modules.builtin")) {
                return Ok(ControlFlow::Continue(()));
            }
            content.take(LARGEST).read_to_string(&mut text)?;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(text)
    }

    /// Hands each module of that version to `take`, unpacked. It is the first or the second time.
    fn each_module(
        &self,
        version: &str,
        (time, progress): (u64, &mut Progress<'_>),
        take: &mut dyn FnMut(&Path, Vec<u8>),
    ) -> Result<(), Error> {
        let mut interrupted = false;
        self.look(&mut |path, content| {
            let (from, length) = self.data;
            let done = (&self.file).stream_position()?.saturating_sub(from);
            if progress(time * length + done.min(length), 2 * length).is_break() {
                interrupted = true;
                return Ok(ControlFlow::Break(()));
            }
            if let Some(path) = below(path, version).filter(|path| is_module(path)) {
                take(path, whole(&mut decoder(content)?)?);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if interrupted { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Shows each regular file to `look`, until that has seen enough.
    fn look(&self, look: &mut Look<'_>) -> Result<(), Error> {
        let looked = (|| {
            let (from, length) = self.data;
            (&self.file).seek(SeekFrom::Start(from))?;
            let packed = (&self.file).take(length);
            let mut archive = tar::Archive::new(decoder(packed)?.take(MOST));
            for entry in archive.entries()? {
                let mut entry = entry?;
                let Some(path) = inside(&entry.path()?) else { continue };
                if entry.header().entry_type().is_file() && look(&path, &mut entry)?.is_break() {
                    break;
                }
            }
            Ok(())
        })();
        looked.map_err(|source| Error::Package {
            path: self.path.clone(),
            source,
        })
    }
}

/// Where the member is that has the files; `None` if there is none.
fn data(file: &mut File) -> io::Result<Option<(u64, u64)>> {
    let mut at = MAGIC.len() as u64;
    let mut head = [0; HEAD];
    loop {
        file.seek(SeekFrom::Start(at))?;
        if file.read_exact(&mut head).is_err() {
            return Ok(None);
        }
        let size = std::str::from_utf8(&head[SIZE]).ok();
        let size = size.and_then(|digits| digits.trim_end().parse::<u64>().ok());
        let size = size.ok_or(io::ErrorKind::InvalidData)?;
        at += HEAD as u64;
        if head.starts_with(b"data.tar") {
            return Ok(Some((at, size)));
        }
        // Each begins at an even place.
        at += size.next_multiple_of(2);
    }
}

/// The path of a file below the root, if it leads nowhere else.
fn inside(path: &Path) -> Option<PathBuf> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    let parts = parts.map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    parts.collect()
}

/// The path of a file below the directory of that version's modules.
fn below<'a>(path: &'a Path, version: &str) -> Option<&'a Path> {
    let path = path.strip_prefix("usr").unwrap_or(path);
    path.strip_prefix("lib/modules").ok()?.strip_prefix(version).ok()
}

fn is_module(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    [".ko", ".ko.gz", ".ko.xz", ".ko.zst"]
        .iter()
        .any(|end| name.ends_with(end))
}

fn whole(content: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match content.take(LARGEST).read_to_end(&mut bytes)? as u64 {
        LARGEST => Err(io::Error::other("a file in it is too large for a kernel or a module")),
        _ => Ok(bytes),
    }
}

/// What is in `packed`, which says by its first bytes how it is packed.
fn decoder<'a>(packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut packed = BufReader::new(packed);
    let mut head = Vec::new();
    packed.by_ref().take(6).read_to_end(&mut head)?;
    let packed = io::Cursor::new(head.clone()).chain(packed);
    Ok(match head[..] {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(packed)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => {
            let stream = Stream::new_stream_decoder(MEMORY, 0).map_err(io::Error::other)?;
            Box::new(XzDecoder::new_stream(packed, stream))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::new(packed)?),
        _ => Box::new(packed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(
            inside(Path::new("./boot/vmlinuz-1")).as_deref(),
            Some(Path::new("boot/vmlinuz-1"))
        );
        assert_eq!(inside(Path::new("/boot/x")), None);
        assert_eq!(inside(Path::new("boot/../../x")), None);
        let modules = |path| below(Path::new(path), "6.1").and_then(Path::to_str);
        assert_eq!(modules("usr/lib/modules/6.1/kernel/a.ko"), Some("kernel/a.ko"));
        assert_eq!(modules("lib/modules/6.1/modules.builtin"), Some("modules.builtin"));
        assert_eq!(modules("lib/modules/6.10/kernel/a.ko"), None);
    }
}

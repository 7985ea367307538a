// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel in a package of Debian that is not installed (deb(5)): an archive of `ar` with an archive of tar in it. It is read
//! twice: the modules that are wanted are few, and which ones they need is known when all were seen.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;
use liblzma::stream::Stream;

use super::Error;
use crate::base::progress::Progress;
use crate::base::signals;
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

/// More than the heads of a file in a package take: those of tar stay in memory, and may say that they are as long as they like.
const HEADS: u64 = 1 << 20;

/// More than the modules of any kernel say of devices: Debian's say 1.5 MB.
const ALIASES: usize = 32 << 20;

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
            match modules.said() {
                ..=ALIASES => Ok(()),
                _ => Err(io::Error::other(
                    "its modules say more of devices than those of any kernel",
                )),
            }
        })?;
        modules.complete();
        let wanted = chosen(&modules);
        self.each_module(version, (1, progress), &mut |path, elf| {
            if wanted.contains(&Modules::name(path)) {
                modules.keep(path, elf);
            }
            Ok(())
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
        take: &mut dyn FnMut(&Path, Vec<u8>) -> io::Result<()>,
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
                take(path, whole(&mut decoder(content)?)?)?;
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
            let heads = Rc::new(Cell::new(HEADS));
            let mut archive = tar::Archive::new(Bounded {
                reader: decoder(packed)?.take(MOST),
                left: Rc::clone(&heads),
            });
            for entry in archive.entries()? {
                let entry = entry?;
                let kind = entry.header().entry_type();
                if kind.is_gnu_sparse() {
                    return Err(io::Error::other("a file in it has holes, as none in a package has"));
                }
                heads.set(u64::MAX);
                let path = inside(&entry.path()?).filter(|_| kind.is_file());
                let mut entry = Whole {
                    left: entry.size(),
                    reader: entry,
                };
                if path
                    .map(|path| look(&path, &mut entry))
                    .transpose()?
                    .is_some_and(|looked| looked.is_break())
                {
                    break;
                }
                // What is left of it is not to be taken for heads.
                io::copy(&mut entry, &mut io::sink())?;
                heads.set(HEADS);
            }
            Ok(())
        })();
        looked.map_err(|source| match signals::waiting() {
            true => Error::Interrupted,
            false => Error::Package {
                path: self.path.clone(),
                source,
            },
        })
    }
}

/// What is in a file of an archive: all of it, or it is an error.
struct Whole<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.left = self.left.saturating_sub(length as u64);
        match length {
            0 if self.left > 0 && !buffer.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            length => Ok(length),
        }
    }
}

/// What an archive is read through: no more than what is left.
struct Bounded<R> {
    reader: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // What is packed may be far more than the package.
        if signals::waiting() {
            return Err(io::Error::other("it was interrupted"));
        }
        let left = self.left.get();
        if left == 0 {
            return Err(io::Error::other("the heads of a file in it have no end"));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.reader.read(&mut buffer[..most])?;
        self.left.set(left - length as u64);
        Ok(length)
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
    use std::io::Write;

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

    /// A package whose files are `members`, packed by gzip.
    fn package(name: &str, members: &[u8]) -> (PathBuf, Option<Package>) {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(members).expect("room");
        let packed = packed.finish().expect("room");
        let mut content = MAGIC.to_vec();
        for (name, member) in [("debian-binary", &b"2.0\n"[..]), ("data.tar.gz", &packed)] {
            content.extend(format!("{name:<48}{:<10}`\n", member.len()).bytes());
            content.extend(member);
            content.resize(content.len().next_multiple_of(2), b'\n');
        }
        let path = std::env::temp_dir().join(format!("ttvm-{name}-{}.deb", std::process::id()));
        std::fs::write(&path, content).expect("a file");
        let package = Package::open(&path).expect("a file");
        (path, package)
    }

    fn head(kind: tar::EntryType, path: &str, size: u64) -> Vec<u8> {
        let mut head = tar::Header::new_gnu();
        head.set_path(path).expect("a path");
        head.set_entry_type(kind);
        head.set_size(size);
        head.set_cksum();
        head.as_bytes().to_vec()
    }

    fn kernel_of(name: &str, members: &[u8]) -> Result<(String, Vec<u8>), String> {
        let (path, package) = package(name, members);
        std::fs::remove_file(path).expect("it goes");
        let kernel = package.expect("a package").kernel();
        kernel.map_err(|error| match error {
            Error::Package { source, .. } => source.to_string(),
            error => error.to_string(),
        })
    }

    #[test]
    fn a_kernel_behind_long_names() {
        let mut members = head(tar::EntryType::GNULongName, "././@LongLink", 200);
        members.extend([b'a'; 200]);
        members.resize(1024, 0);
        members.extend(head(tar::EntryType::Regular, "aaa", 3 << 20));
        members.resize(members.len() + (3 << 20), 1);
        members.extend(head(tar::EntryType::Regular, "./boot/vmlinuz-6.1", 5));
        members.extend(b"Linux");
        members.resize(members.len().next_multiple_of(512) + 1024, 0);
        assert_eq!(
            kernel_of("long-names", &members),
            Ok(("vmlinuz-6.1".to_owned(), b"Linux".to_vec()))
        );
    }

    /// What others write may say of itself that it is as long as it likes: nothing of that is believed, nor kept.
    #[test]
    fn heads_without_end() {
        use tar::EntryType;
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            let mut members = head(kind, "x", 1 << 33);
            members.resize(64 << 20, b'a');
            assert_eq!(
                kernel_of("heads", &members).expect_err("no kernel"),
                "the heads of a file in it have no end"
            );
        }
        // Many that are small.
        let one = [head(EntryType::GNULongName, "x", 512), vec![b'a'; 512]].concat();
        assert!(kernel_of("many-heads", &one.repeat(2000)).is_err());
        let sparse = head(EntryType::GNUSparse, "boot/vmlinuz-1", 0);
        assert!(kernel_of("sparse", &sparse).is_err());
    }

    #[test]
    fn no_kernel_is_so_large() {
        assert!(whole(&mut io::repeat(0)).is_err());
    }

    #[test]
    fn members_that_are_cut_off() {
        for members in [
            &head(tar::EntryType::Regular, "boot/vmlinuz-1", 99)[..],
            b"no archive at all, for certain",
            b"",
        ] {
            assert!(kernel_of("cut", members).is_err());
        }
        let path = std::env::temp_dir().join(format!("ttvm-sizes-{}.deb", std::process::id()));
        for size in ["", "x", "-5", "9999999999", "+1"] {
            let head = format!("!<arch>\n{:<48}{size:<10}`\n", "debian-binary");
            std::fs::write(&path, head).expect("a file");
            assert!(!matches!(Package::open(&path), Ok(Some(_))), "{size}");
        }
        std::fs::remove_file(&path).expect("it goes");
    }
}

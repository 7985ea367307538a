// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files of the QEMU that is installed, by the names that they have in a capsule.
//!
//! What the program is linked with is the loader's business, which has a cache, and directories by processor: it is asked.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{LOADER, PROGRAM};
use crate::base::error::{Classify, Exit};
use crate::qemu::engine::{self, QEMU, all_firmware};
use crate::run::{self, Command};

/// What emulates the processor, where that is no part of the program (Debian 12).
const MODULE: &str = "accel-tcg-x86_64.so";

/// The ELF header's words that are needed here (elf(5)), and those of a program header.
const PHOFF: usize = 0x20;
const PHENTSIZE: usize = 0x36;
const PHNUM: usize = 0x38;
const OFFSET: usize = 0x08;
const FILESZ: usize = 0x20;
const PT_INTERP: u32 = 3;

/// Why the QEMU that is installed cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error(
        "{} is no program that a loader runs, so what belongs to it is not known: export without --with-engine", .0.display()
    )]
    NotLoaded(PathBuf),
    /// A library is missing.
    #[error("{} needs {name}, which is not there: reinstall the package qemu-system-x86", program.display())]
    NoLibrary {
        /// Whose.
        program: PathBuf,
        /// Its name.
        name: String,
    },
    /// QEMU does not answer.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// The loader does not answer.
    #[error("the loader does not say what QEMU is linked with")]
    Loader(#[from] run::Error),
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        Exit::Failed
    }
}

/// Each file, by its name in a capsule.
pub fn installed() -> Result<BTreeMap<String, PathBuf>, Error> {
    let program = QEMU.path()?;
    let loader = interpreter(program)?;
    let mut files = libraries(&loader, program)?;
    if let Some(module) = module(&files) {
        files.extend(libraries(&loader, &module)?);
        files.insert(MODULE.to_owned(), module);
    }
    for path in all_firmware()? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.insert(name, path);
    }
    files.insert(PROGRAM.to_owned(), program.clone());
    files.insert(LOADER.to_owned(), loader);
    Ok(files)
}

/// The loader that a program names.
fn interpreter(program: &Path) -> Result<PathBuf, Error> {
    let bytes = fs::read(program).map_err(|source| Error::Read {
        path: program.to_owned(),
        source,
    })?;
    let path = find_interpreter(&bytes).map(PathBuf::from);
    path.ok_or_else(|| Error::NotLoaded(program.to_owned()))
}

/// What PT_INTERP of a 64-bit ELF says.
fn find_interpreter(elf: &[u8]) -> Option<&str> {
    let word = |at: usize, size: usize| {
        let bytes = elf.get(at..at.checked_add(size)?)?;
        let value = bytes
            .iter()
            .rev()
            .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).ok()
    };
    elf.strip_prefix(b"\x7fELF\x02\x01")?;
    let (first, size) = (word(PHOFF, 8)?, word(PHENTSIZE, 2)?);
    let header = (0..word(PHNUM, 2)?)
        .filter_map(|number| first.checked_add(number * size))
        .find(|at| word(*at, 4) == Some(PT_INTERP as usize))?;
    let at = word(header + OFFSET, 8)?;
    let name = elf.get(at..at.checked_add(word(header + FILESZ, 8)?)?)?;
    std::str::from_utf8(name.strip_suffix(b"\0")?).ok()
}

/// What `file` is linked with.
fn libraries(loader: &Path, file: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
    // Not a library for this very processor: that of another host may have less.
    let words = ["--glibc-hwcaps-mask", "none", "--list"];
    let output = Command::file(loader.to_owned())
        .args(words)
        .arg(file.to_string_lossy())
        .run()?;
    let mut found = BTreeMap::new();
    for line in output.stdout.lines() {
        // Without an arrow: the kernel's own, and the loader.
        let Some((name, place)) = line.trim().split_once(" => ") else {
            continue;
        };
        let path = place.rsplit_once(" (").map(|(path, _)| PathBuf::from(path));
        let path = path.filter(|path| path.is_absolute()).ok_or_else(|| Error::NoLibrary {
            program: file.to_owned(),
            name: name.to_owned(),
        })?;
        found.insert(name.to_owned(), path);
    }
    Ok(found)
}

/// The module, if there is one: beside the libraries (`libdir` in QEMU's meson.build), in a directory of QEMU's own.
fn module(libraries: &BTreeMap<String, PathBuf>) -> Option<PathBuf> {
    let mut places = libraries
        .values()
        .filter_map(|library| Some(fs::canonicalize(library).ok()?.parent()?.join("qemu")));
    places.find_map(|place| Some(place.join(MODULE)).filter(|path| path.is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_loader() {
        let us = std::env::current_exe().expect("a program");
        let loader = interpreter(&us).expect("a loader");
        assert!(loader.is_file(), "{}", loader.display());
        let libraries = libraries(&loader, &us).expect("libraries");
        assert!(libraries["libc.so.6"].is_file(), "{libraries:?}");
    }

    #[test]
    fn no_elf() {
        for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF\x02\x01", &[0xff; 4096]] {
            assert_eq!(find_interpreter(bytes), None);
        }
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(0x200, 0xff);
        assert_eq!(find_interpreter(&elf), None);
    }
}

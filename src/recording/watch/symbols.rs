// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of addresses in a guest: from its kernel as the linker made it (vmlinux), or from a list as `System.map` and
//! `/proc/kallsyms` have it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::base::text;

/// What an ELF file begins with, of 64 bits, the least byte first.
const ELF: &[u8; 6] = b"\x7fELF\x02\x01";

/// Bytes of an entry of an ELF file's tables (ELF-64 Object File Format, 1.5).
const SECTION: usize = 64;
const SYMBOL: usize = 24;

/// The section that has symbols.
const SYMBOLS: u32 = 2;

/// No table is larger: that of a kernel with everything has 20 MB.
const LARGEST: u64 = 1 << 28;

/// No name is longer: KSYM_NAME_LEN is 512 in Linux.
const LONGEST: usize = 512;

/// No kernel has more names: one with everything has 300,000, one with those of its modules, too, a million.
const MOST: usize = 1 << 22;

/// How far behind the beginning of a symbol an address is still said to be in it.
const FARTHEST: u64 = 1 << 20;

/// Addresses with names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Symbols {
    by_address: BTreeMap<u64, String>,
    by_name: BTreeMap<String, u64>,
}

impl Symbols {
    /// Those in the file at `path`.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or has none.
    pub fn load(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut head = [0; ELF.len()];
        let length = file.read(&mut head)?;
        file.rewind()?;
        let found = match &head[..length] == ELF {
            true => Self::of_elf(&mut file),
            false => Self::of_list(BufReader::new(file)),
        }?;
        match found.by_name.is_empty() {
            true => Err(unlike(
                "it has no symbols; Debian's System.map is in the package linux-image-…-dbg",
            )),
            false => Ok(found),
        }
    }

    /// Those of lines `ADDRESS TYPE NAME`.
    fn of_list(mut list: impl BufRead) -> io::Result<Self> {
        let mut symbols = Self::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            // An address, a type and a name; and a module's.
            if list.by_ref().take(3 * LONGEST as u64).read_until(b'\n', &mut line)? == 0 {
                return Ok(symbols);
            }
            let line = String::from_utf8_lossy(&line);
            let mut words = line.split_whitespace();
            let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            // To whoever may not see them, the kernel says that all of them are 0.
            match u64::from_str_radix(address, 16) {
                Ok(0) => {}
                Ok(address) => symbols.insert(address, name)?,
                Err(_) => return Err(unlike("it is neither an ELF file nor a list of addresses and names")),
            }
        }
    }

    fn of_elf(file: &mut File) -> io::Result<Self> {
        let head = read(file, 0, SECTION as u64)?;
        let sections = read(file, long(&head, 0x28), SECTION as u64 * u64::from(short(&head, 0x3c)))?;
        let sections: Vec<&[u8]> = sections.chunks_exact(SECTION).collect();
        let mut symbols = Self::default();
        // There is one.
        if let Some(section) = sections.iter().find(|section| word(section, 4) == SYMBOLS) {
            let Some(names) = sections.get(word(section, 40) as usize) else {
                return Ok(symbols);
            };
            let table = read(file, long(section, 24), long(section, 32))?;
            let names = read(file, long(names, 24), long(names, 32))?;
            for symbol in table.chunks_exact(SYMBOL) {
                // A function, an object, or a label; and it is somewhere.
                let is_one = symbol[4] & 0xf <= 2 && short(symbol, 6) != 0;
                let name = names.get(word(symbol, 0) as usize..).unwrap_or_default();
                let name = &name[..name.len().min(LONGEST)];
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                if is_one && !name.is_empty() {
                    symbols.insert(long(symbol, 8), &String::from_utf8_lossy(name))?;
                }
            }
        }
        Ok(symbols)
    }

    /// A name is whoever's file that is, and is printed.
    fn insert(&mut self, address: u64, name: &str) -> io::Result<()> {
        if self.by_name.len() >= MOST {
            return Err(unlike("it has more names than any kernel"));
        }
        let name = text::line(name).into_owned();
        self.by_address.entry(address).or_insert_with(|| name.clone());
        self.by_name.entry(name).or_insert(address);
        Ok(())
    }

    /// Where `name` is.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).copied()
    }

    /// What `address` is in: `name`, or `name+0x12`.
    pub fn name(&self, address: u64) -> Option<String> {
        let (begin, name) = self.by_address.range(..=address).next_back()?;
        match address - begin {
            0 => Some(name.clone()),
            behind if behind < FARTHEST => Some(format!("{name}+{behind:#x}")),
            _ => None,
        }
    }
}

fn read(file: &mut File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    if length > LARGEST {
        return Err(unlike("one of its tables is larger than that of any kernel"));
    }
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == length {
        true => Ok(bytes),
        false => Err(unlike("the ELF file is cut off")),
    }
}

fn unlike(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    from.get(at..at + N)
        .and_then(|bytes| bytes.try_into().ok())
        .unwrap_or([0; N])
}

fn short(from: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(from, at))
}

fn word(from: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(from, at))
}

fn long(from: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(from, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_list() {
        let list =
            "ffffffff81000000 T _stext\nffffffff81000010 t do_one\n\nffffffffc0000000 t init\t[virtio]\n0 A none\n";
        let symbols = Symbols::of_list(list.as_bytes()).expect("symbols");
        assert_eq!(symbols.address("do_one"), Some(0xffff_ffff_8100_0010));
        assert_eq!(symbols.address("none"), None);
        assert_eq!(symbols.name(0xffff_ffff_8100_000f).as_deref(), Some("_stext+0xf"));
        assert_eq!(symbols.name(0xffff_ffff_c000_0000).as_deref(), Some("init"));
        assert_eq!(symbols.name(0x1000), None);
        assert_eq!(symbols.name(0xffff_ffff_b000_0000), None, "too far behind");
        let forged = Symbols::of_list(&b"1000 T clear\x1b[2J\n"[..]).expect("symbols");
        assert_eq!(forged.name(0x1000).as_deref(), Some("clear\\u{1b}[2J"));
        assert!(Symbols::of_list(&b"some text about nothing\n"[..]).is_err());
    }

    /// A program of this machine is an ELF file with symbols: that of these tests.
    #[test]
    fn of_an_elf_file() {
        let program = std::env::current_exe().expect("a program");
        let symbols = Symbols::load(&program).expect("symbols");
        assert!(symbols.address("main").is_some());
        let cut = std::env::temp_dir().join(format!("ttvm-symbols-{}", std::process::id()));
        std::fs::write(&cut, &std::fs::read(&program).expect("its content")[..4096]).expect("a file");
        let error = Symbols::load(&cut).expect_err("it is cut off");
        std::fs::remove_file(&cut).expect("it goes");
        assert!(error.to_string().contains("cut off"), "{error}");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a module says of itself: the section `.modinfo` of its file (elf(5)), from which depmod makes its lists.

use super::plain;

/// Where the head of the file says where its sections are, how large the head of one is, how many there are, and which one has
/// their names.
const SECTIONS: usize = 0x28;
const HEAD_SIZE: usize = 0x3a;
const COUNT: usize = 0x3c;
const NAMES: usize = 0x3e;

/// What a module says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Information {
    /// The names of those that are to be loaded before it.
    pub(super) needs: Vec<String>,
    /// What else it stands for.
    pub(super) aliases: Vec<String>,
    /// What is better there before it.
    pub(super) soft: Vec<String>,
}

impl Information {
    /// That of the module in `elf`; `None` if it is no module for 64-bit machines.
    pub(super) fn of(elf: &[u8]) -> Option<Self> {
        let text = section(elf, b".modinfo")?;
        let mut information = Self::default();
        for field in text.split(|byte| *byte == 0) {
            if let Some((key, value)) = std::str::from_utf8(field).ok().and_then(|field| field.split_once('=')) {
                information.take(key, value);
            }
        }
        Some(information)
    }

    fn take(&mut self, key: &str, value: &str) {
        match key {
            "depends" => {
                let names = value.split(',').filter(|name| !name.is_empty());
                self.needs.extend(names.map(plain));
            }
            "alias" => self.aliases.push(value.to_owned()),
            "softdep" => self.soft.extend(before(value.split_whitespace())),
            _ => {}
        }
    }
}

/// Of a line of what is better there (modprobe.d(5)), what comes before the module.
pub(super) fn before<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let words = words.skip_while(|word| *word != "pre:").skip(1);
    words.take_while(|word| *word != "post:").map(plain).collect()
}

/// The content of the section of that name.
fn section<'a>(elf: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let table = usize::try_from(long(elf, SECTIONS)?).ok()?;
    let (size, count) = (half(elf, HEAD_SIZE)?, half(elf, COUNT)?);
    let head = |index: usize| elf.get(table.checked_add(index.checked_mul(size)?)?..);
    let names = content(elf, head(half(elf, NAMES)?)?)?;
    let found = (0..count).filter_map(head).find(|head| {
        let own = word(head, 0).and_then(|at| names.get(at..));
        own.is_some_and(|own| own.strip_prefix(name).is_some_and(|rest| rest.first() == Some(&0)))
    });
    content(elf, found?)
}

/// What is in the section that has this head.
fn content<'a>(elf: &'a [u8], head: &[u8]) -> Option<&'a [u8]> {
    let from = usize::try_from(long(head, 24)?).ok()?;
    let length = usize::try_from(long(head, 32)?).ok()?;
    elf.get(from..from.checked_add(length)?)
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_le_bytes(bytes).into())
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with the sections `.shstrtab` and `.modinfo`.
    fn elf(information: &[u8]) -> Vec<u8> {
        let names = b"\0.shstrtab\0.modinfo\0";
        let mut elf = vec![0; 64];
        elf[SECTIONS] = 64;
        (elf[HEAD_SIZE], elf[COUNT], elf[NAMES]) = (64, 2, 0);
        let from = 64 + 2 * 64;
        for (name, at, length) in [(1_u32, from, names.len()), (11, from + names.len(), information.len())] {
            let mut head = vec![0; 64];
            head[..4].copy_from_slice(&name.to_le_bytes());
            head[24..32].copy_from_slice(&(at as u64).to_le_bytes());
            head[32..40].copy_from_slice(&(length as u64).to_le_bytes());
            elf.extend(head);
        }
        elf.extend_from_slice(names);
        elf.extend_from_slice(information);
        elf
    }

    #[test]
    fn what_a_module_says() {
        let said =
            b"license=GPL\0depends=jbd2,mb-cache\0softdep=pre: crc32c post: x\0alias=fs-ext4\0alias=ext3\0depends=\0";
        let expected = Information {
            needs: vec!["jbd2".to_owned(), "mb_cache".to_owned()],
            aliases: vec!["fs-ext4".to_owned(), "ext3".to_owned()],
            soft: vec!["crc32c".to_owned()],
        };
        assert_eq!(Information::of(&elf(said)), Some(expected));
    }

    #[test]
    fn what_is_no_module() {
        let whole = elf(b"license=GPL\0");
        for length in 0..whole.len() {
            assert_eq!(Information::of(&whole[..length]), None, "cut off at {length}");
        }
        let mut far = whole;
        far[SECTIONS..SECTIONS + 8].fill(0xff);
        assert_eq!(Information::of(&far), None);
    }
}

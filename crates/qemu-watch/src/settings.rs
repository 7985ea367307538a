// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the plugin is told.

use std::fmt;
use std::ops::Range;

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watch {
    /// Every block of instructions that is executed.
    Blocks,
    /// Every block of instructions, when it is executed first: once at each of its addresses.
    NewBlocks,
    /// The instruction at an address.
    Instruction(u64),
    /// What is written to addresses.
    Writes(Range<u64>),
    /// What is written to the guest's memory, by its own addresses.
    Memory(Range<u64>),
    /// System calls of 64-bit programs.
    Calls,
}

/// What the plugin is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What is watched.
    pub watch: Watch,
    /// While the guest has executed so many instructions.
    pub during: Range<u64>,
    /// The number of the open file that records are written to.
    pub out: i32,
}

/// As QEMU's option takes it, behind the plugin's file.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.during;
        write!(f, "out={},from={start},to={end},", self.out)?;
        match &self.watch {
            Watch::Blocks => f.write_str("watch=blocks"),
            Watch::NewBlocks => f.write_str("watch=new-blocks"),
            Watch::Instruction(address) => write!(f, "watch=instruction,address={address}"),
            Watch::Writes(to) => write!(f, "watch=writes,address={},end={}", to.start, to.end),
            Watch::Memory(to) => write!(f, "watch=memory,address={},end={}", to.start, to.end),
            Watch::Calls => f.write_str("watch=calls"),
        }
    }
}

impl Settings {
    /// Those that QEMU hands to the plugin, each `name=value`; `None` if they are not what [`fmt::Display`] writes.
    pub fn of<'a>(words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let words: Vec<(&str, &str)> = words.map(|word| word.split_once('=')).collect::<Option<_>>()?;
        let text = |name: &str| words.iter().find(|it| it.0 == name).map(|it| it.1);
        let number = |name: &str| text(name)?.parse::<u64>().ok();
        Some(Self {
            watch: match text("watch")? {
                "blocks" => Watch::Blocks,
                "new-blocks" => Watch::NewBlocks,
                "instruction" => Watch::Instruction(number("address")?),
                "writes" => Watch::Writes(number("address")?..number("end")?),
                "memory" => Watch::Memory(number("address")?..number("end")?),
                "calls" => Watch::Calls,
                _ => return None,
            },
            during: number("from")?..number("to")?,
            out: text("out")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_as_they_are_understood() {
        for watch in [
            Watch::Blocks,
            Watch::NewBlocks,
            Watch::Instruction(u64::MAX),
            Watch::Writes(7..15),
            Watch::Memory(0..1),
            Watch::Calls,
        ] {
            let settings = Settings {
                watch,
                during: 1..u64::MAX,
                out: 200,
            };
            let text = settings.to_string();
            assert_eq!(Settings::of(text.split(',')), Some(settings), "{text}");
        }
        assert_eq!(Settings::of(["out=1", "from=1"].into_iter()), None);
        assert_eq!(Settings::of(["out"].into_iter()), None);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a run executed at all, and since when: each block of instructions, when it was begun first. A replay tells that once for each
//! recording; it is kept beside it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;

use qemu_watch::{Record, Watch};

use crate::file;
use crate::recording::session::{Error, Listener};
use crate::recording::watch::Watcher;

/// The file, beside the manifest.
const NAME: &str = "executed";

/// Words of an entry: where a block begins, its bytes, instructions before it.
const ENTRY: usize = 3;

/// No block has more bytes: QEMU's have 512 instructions of 15 bytes at most.
const LARGEST: u64 = 512 * 15;

/// No run has more blocks: a Debian that boots has a few hundred thousand.
const MOST: u64 = 1 << 30;

/// Blocks of instructions, by where they begin and how many bytes they have; how many instructions there were before each.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Executed(BTreeMap<(u64, u64), u64>);

impl Executed {
    /// That of the run that is watched; it is replayed if nobody has yet.
    pub(super) fn of(watcher: &Watcher<'_>, listener: &mut dyn Listener) -> Result<Self, Error> {
        let directory = watcher.recording().directory();
        if let Some(found) = Self::load(directory) {
            return Ok(found);
        }
        let mut found = Self::default();
        let mut take = |record: Record| {
            if let Record::NewBlock { at, address, size } = record {
                found.0.entry((address, size.into())).or_insert(at);
            }
            ControlFlow::Continue(())
        };
        watcher.watch(Watch::NewBlocks, 0..watcher.end(), &mut take, listener)?;
        if let Err(error) = found.save(directory) {
            tracing::warn!("what was executed cannot be kept, and is looked for again the next time: {error}");
        }
        Ok(found)
    }

    /// How many instructions there were, or less, before the one at `address` was executed first; `None` if it never was.
    pub(super) fn since(&self, address: u64) -> Option<u64> {
        let blocks = self.0.range((address.saturating_sub(LARGEST), 0)..=(address, u64::MAX));
        let with = blocks.filter(|((begin, size), _)| address - begin < *size);
        with.map(|(_, at)| *at).min()
    }

    /// `None` if there is none that can be read: then another one is made.
    fn load(directory: &Path) -> Option<Self> {
        let packed = file::open_content(&directory.join(NAME)).ok()?;
        let mut bytes = Vec::new();
        zstd::Decoder::new(packed)
            .ok()?
            .take(MOST)
            .read_to_end(&mut bytes)
            .ok()?;
        let (words, rest) = bytes.as_chunks::<8>();
        let (entries, more) = words.as_chunks::<ENTRY>();
        let entry = |entry: &[[u8; 8]; ENTRY]| {
            let [begin, size, at] = entry.map(u64::from_le_bytes);
            ((begin, size), at)
        };
        (rest.is_empty() && more.is_empty()).then(|| Self(entries.iter().map(entry).collect()))
    }

    fn save(&self, directory: &Path) -> io::Result<()> {
        let mut packed = zstd::Encoder::new(Vec::new(), 0)?;
        for ((begin, size), at) in &self.0 {
            for word in [begin, size, at] {
                packed.write_all(&word.to_le_bytes())?;
            }
        }
        file::replace(&directory.join(NAME), &packed.finish()?, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_and_asked() {
        let executed = Executed(BTreeMap::from([
            ((0x1000, 16), 500),
            ((0x1008, 8), 90),
            ((u64::MAX - 8, 8), 7),
        ]));
        assert_eq!(executed.since(0x1000), Some(500));
        assert_eq!(executed.since(0x1007), Some(500));
        assert_eq!(executed.since(0x100f), Some(90));
        assert_eq!(executed.since(0x1010), None);
        assert_eq!(executed.since(0xfff), None);
        assert_eq!(executed.since(u64::MAX - 1), Some(7));
        let directory = std::env::temp_dir().join(format!("ttvm-executed-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        assert_eq!(Executed::load(&directory), None);
        executed.save(&directory).expect("it is kept");
        assert_eq!(Executed::load(&directory), Some(executed));
        std::fs::write(directory.join(NAME), b"what nobody has packed").expect("a file");
        assert_eq!(Executed::load(&directory), None);
        std::fs::remove_dir_all(&directory).expect("it goes");
    }
}

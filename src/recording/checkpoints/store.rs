// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memories of many moments: each page once, whoever has it, compressed.
//!
//! ```text
//! pages   blocks of 32 pages, each compressed by itself (zstd)
//! maps    for each moment, compressed: for each page of its memory 0 for zeros, else the number of its content, from 1 (4 bytes,
//!         little-endian)
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::file::digest::Digest;
use crate::qemu::memory::{Memory, PAGE, Pages};
use crate::recording::library::draft::new_file;

/// Pages of a block: more compress better, and fewer are read for nothing.
const BLOCK: usize = 32;

/// Blocks that wait to be compressed: the machine waits when there are more.
const WAITING: usize = 64;

/// Fast: the machine waits for it at first.
const LEVEL: i32 = 1;

/// No more threads than this fill a memory.
const THREADS: usize = 4;

/// Where a piece of a file is: its first byte, and its length.
pub(super) type Piece = (u64, u32);

/// A store that is being written.
pub(super) struct Writer {
    /// The number of each content.
    known: HashMap<Digest, u32>,
    block: Vec<u8>,
    blocks: Option<SyncSender<Vec<u8>>>,
    /// What compresses them; it returns where each is.
    compressor: Option<JoinHandle<io::Result<Vec<Piece>>>>,
    written: Arc<AtomicU64>,
    maps: File,
    mapped: u64,
}

impl Writer {
    /// A new one in `directory`.
    pub(super) fn create(directory: &Path) -> io::Result<Self> {
        let pages = new_file(&directory.join(PAGES))?;
        let maps = new_file(&directory.join(MAPS))?;
        let written = Arc::new(AtomicU64::new(0));
        let (blocks, compressed) = sync_channel(WAITING);
        let counter = Arc::clone(&written);
        let compressor = thread::Builder::new()
            .name("pages".to_owned())
            .spawn(move || compress(pages, &compressed, &counter))?;
        Ok(Self {
            known: HashMap::new(),
            block: Vec::with_capacity(BLOCK * PAGE),
            blocks: Some(blocks),
            compressor: Some(compressor),
            written,
            maps,
            mapped: 0,
        })
    }

    /// Takes in a memory that has `pages`, and returns where its map is.
    pub(super) fn add(&mut self, memory: &Memory, pages: &Pages) -> io::Result<Piece> {
        let mut map = Vec::with_capacity(pages.0.len() * 4);
        let mut page = [0; PAGE];
        for (number, content) in pages.0.iter().enumerate() {
            let known = match content {
                None => 0,
                Some(content) => match self.known.get(content) {
                    Some(known) => *known,
                    None => {
                        memory.read(number, &mut page)?;
                        let next = u32::try_from(self.known.len() + 1).map_err(io::Error::other)?;
                        self.known.insert(*content, next);
                        self.push(&page)?;
                        next
                    }
                },
            };
            map.extend_from_slice(&known.to_le_bytes());
        }
        let map = zstd::bulk::compress(&map, LEVEL)?;
        self.maps.write_all(&map)?;
        let piece = (self.mapped, u32::try_from(map.len()).map_err(io::Error::other)?);
        self.mapped += map.len() as u64;
        Ok(piece)
    }

    /// Bytes of the store, as far as it is written.
    pub(super) fn size(&self) -> u64 {
        self.written.load(Ordering::Relaxed) + self.mapped
    }

    /// Ends it, on the disk, and returns where its blocks are.
    pub(super) fn finish(mut self) -> io::Result<Vec<Piece>> {
        self.maps.sync_data()?;
        self.send()?;
        drop(self.blocks.take());
        self.join()
    }

    fn push(&mut self, page: &[u8; PAGE]) -> io::Result<()> {
        self.block.extend_from_slice(page);
        match self.block.len() == BLOCK * PAGE {
            true => self.send(),
            false => Ok(()),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK * PAGE));
        let sent = self
            .blocks
            .as_ref()
            .is_some_and(|blocks| block.is_empty() || blocks.send(block).is_ok());
        match sent {
            true => Ok(()),
            // It has ended, with a reason.
            false => self.join().and(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn join(&mut self) -> io::Result<Vec<Piece>> {
        match self.compressor.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Files of a store.
const PAGES: &str = "pages";
const MAPS: &str = "maps";

fn compress(mut file: File, blocks: &Receiver<Vec<u8>>, written: &AtomicU64) -> io::Result<Vec<Piece>> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    let (mut pieces, mut at) = (Vec::new(), 0);
    for block in blocks {
        let block = compressor.compress(&block)?;
        file.write_all(&block)?;
        pieces.push((at, u32::try_from(block.len()).map_err(io::Error::other)?));
        at += block.len() as u64;
        written.store(at, Ordering::Relaxed);
    }
    file.sync_data()?;
    Ok(pieces)
}

/// Fills `memory`, which is all zeros, with the moment that has its map at `map`, of the store in `directory` with these
/// `blocks`.
pub(super) fn fill(directory: &Path, blocks: &[Piece], map: Piece, memory: &Memory) -> io::Result<()> {
    let count = usize::try_from(memory.size() / PAGE as u64).map_err(io::Error::other)?;
    let map = piece(&File::open(directory.join(MAPS))?, map, count * 4)?;
    if map.len() != count * 4 {
        return Err(damaged());
    }
    let mut contents: Vec<(u32, u32)> = map
        .chunks_exact(4)
        .zip(0..)
        .map(|(number, page)| (u32::from_le_bytes([number[0], number[1], number[2], number[3]]), page))
        .filter(|(number, _)| *number > 0)
        .collect();
    // Those of one block together, and those that follow each other there.
    contents.sort_unstable();
    let groups: Vec<&[(u32, u32)]> = contents.chunk_by(|a, b| block_of(a.0) == block_of(b.0)).collect();
    let pages = File::open(directory.join(PAGES))?;
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(THREADS);
    let share = groups.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let fillers: Vec<_> = groups
            .chunks(share)
            .map(|groups| scope.spawn(|| groups.iter().try_for_each(|group| put(&pages, blocks, group, memory))))
            .collect();
        fillers
            .into_iter()
            .try_for_each(|filler| filler.join().map_err(|_| io::ErrorKind::Other)?)
    })
}

/// The block that a content is in.
fn block_of(number: u32) -> usize {
    (number as usize - 1) / BLOCK
}

/// Puts the pages of one block where they belong.
fn put(pages: &File, blocks: &[Piece], group: &[(u32, u32)], memory: &Memory) -> io::Result<()> {
    let Some((first, _)) = group.first() else {
        return Ok(());
    };
    let block = blocks.get(block_of(*first)).ok_or_else(damaged)?;
    let block = piece(pages, *block, BLOCK * PAGE)?;
    for run in group.chunk_by(|a, b| (b.0.checked_sub(1), b.1.checked_sub(1)) == (Some(a.0), Some(a.1))) {
        let from = (run[0].0 as usize - 1) % BLOCK * PAGE;
        let content = block.get(from..from + run.len() * PAGE).ok_or_else(damaged)?;
        memory.write(run[0].1 as usize, content)?;
    }
    Ok(())
}

/// A piece of a file, decompressed to `most` bytes at most.
fn piece(file: &File, (at, length): Piece, most: usize) -> io::Result<Vec<u8>> {
    let longest = zstd::zstd_safe::compress_bound(most);
    if length as usize > longest {
        return Err(damaged());
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, at)?;
    zstd::bulk::decompress(&bytes, most)
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the pages are not those that were written")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::types::Size;

    #[test]
    fn memories_come_back() {
        let directory = std::env::temp_dir().join(format!("ttvm-pages-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("a directory");
        let mut writer = Writer::create(&directory).expect("a store");
        let memory = Memory::new(Size::mib(4)).expect("a memory");
        let mut moments = Vec::new();
        // Each changes a little of the one before; the last has all of its pages alike.
        for turn in 0..5u8 {
            for page in 0..200 {
                let content = [turn.wrapping_mul(page as u8 % 7).wrapping_add(1); PAGE];
                memory.write(usize::from(turn) * 100 + page, &content).expect("a page");
            }
            if turn == 4 {
                memory.write(0, &vec![9; 4 << 20]).expect("all");
            }
            let pages = memory.pages().expect("pages");
            moments.push((writer.add(&memory, &pages).expect("room"), pages));
        }
        let blocks = writer.finish().expect("a store");
        for (map, pages) in &moments {
            let filled = Memory::new(Size::mib(4)).expect("a memory");
            fill(&directory, &blocks, *map, &filled).expect("what was written");
            assert_eq!(filled.pages().expect("pages"), *pages);
        }
        // Few contents in all.
        assert_eq!(blocks.len(), 1);
        let filled = Memory::new(Size::mib(4)).expect("a memory");
        assert!(fill(&directory, &[], moments[0].0, &filled).is_err(), "no blocks");
        assert!(
            fill(&directory, &[(0, u32::MAX)], moments[0].0, &filled).is_err(),
            "too long"
        );
        assert!(fill(&directory, &blocks, (1, 20), &filled).is_err(), "no map");
        std::fs::remove_dir_all(&directory).expect("its end");
    }
}

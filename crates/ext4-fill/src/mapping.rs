// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the blocks of a file are: a tree of extents, or the pointers of ext3 and ext2.

use super::error::Error;
use super::fill::Filesystem;
use super::geometry::Kind;
use super::{BLOCK, put};

/// As many blocks as one extent may have.
const EXTENT: u64 = 32768;
/// Extents in a block of them: behind its head, and before its checksum.
const FANOUT: usize = (BLOCK - 12) / 12;
/// Extents in an inode.
const IN_INODE: usize = 4;
/// Pointers in a block.
const POINTERS: u64 = BLOCK as u64 / 4;
const DIRECT: u64 = 12;

/// Where the blocks of a file are, so far; in the file's order.
#[derive(Debug, Default)]
pub struct Mapping {
    extents: Vec<Extent>,
    blocks: u64,
}

#[derive(Debug, Clone, Copy)]
struct Extent {
    at: u64,
    block: u64,
    length: u64,
}

impl Mapping {
    pub(super) fn push(&mut self, at: u64, block: u64, length: u64) {
        self.blocks += length;
        match self.extents.last_mut() {
            Some(last) if last.at + last.length == at && last.block + last.length == block => last.length += length,
            _ => self.extents.push(Extent { at, block, length }),
        }
    }

    /// Blocks with data.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// The block at `at` of the file.
    fn find(&self, at: u64) -> Option<u64> {
        let next = self.extents.partition_point(|extent| extent.at <= at);
        let extent = self.extents.get(next.checked_sub(1)?)?;
        (at < extent.at + extent.length).then(|| extent.block + (at - extent.at))
    }

    fn end(&self) -> u64 {
        self.extents.last().map_or(0, |extent| extent.at + extent.length)
    }
}

/// What an inode has of it: 60 bytes, and how many blocks the rest takes.
pub(super) fn write(fs: &mut Filesystem, inode: u32, mapping: &Mapping) -> Result<([u8; 60], u64), Error> {
    match fs.geometry().kind == Kind::Ext4 {
        true => extents(fs, inode, mapping),
        false => pointers(fs, mapping),
    }
}

fn head(block: &mut [u8], entries: usize, room: usize, depth: u16) {
    put(block, 0, 0xF30A_u16.to_le_bytes());
    put(block, 2, (entries as u16).to_le_bytes());
    put(block, 4, (room as u16).to_le_bytes());
    put(block, 6, depth.to_le_bytes());
}

/// An entry of a node: 12 bytes, of which the first four say where in the file.
type Entry = [u8; 12];

fn leaf(extent: &Extent) -> Entry {
    let mut entry = [0; 12];
    put(&mut entry, 0, (extent.at as u32).to_le_bytes());
    put(&mut entry, 4, (extent.length as u16).to_le_bytes());
    put(&mut entry, 6, ((extent.block >> 32) as u16).to_le_bytes());
    put(&mut entry, 8, (extent.block as u32).to_le_bytes());
    entry
}

fn extents(fs: &mut Filesystem, inode: u32, mapping: &Mapping) -> Result<([u8; 60], u64), Error> {
    if mapping.end() > u64::from(u32::MAX) {
        return Err(Error::TooLarge);
    }
    let pieces = mapping.extents.iter().flat_map(|extent| {
        let starts = (0..extent.length).step_by(EXTENT as usize);
        starts.map(|from| Extent {
            at: extent.at + from,
            block: extent.block + from,
            length: EXTENT.min(extent.length - from),
        })
    });
    let mut entries: Vec<Entry> = pieces.map(|piece| leaf(&piece)).collect();
    let (mut depth, mut used) = (0, 0);
    while entries.len() > IN_INODE {
        let mut above = Vec::new();
        for entries in entries.chunks(FANOUT) {
            let (at, _) = fs.allocate(1)?;
            used += 1;
            let mut node = vec![0; BLOCK];
            head(&mut node, entries.len(), FANOUT, depth);
            node[12..12 + entries.len() * 12].copy_from_slice(entries.as_flattened());
            if let Some(checksum) = fs.geometry().checksum {
                let end = BLOCK - 4;
                let sum = checksum.of_inode(inode).and(&node[..end]).value();
                put(&mut node, end, sum.to_le_bytes());
            }
            fs.write_block(at, &node)?;
            let mut entry = [0; 12];
            entry[..4].copy_from_slice(&entries[0][..4]);
            put(&mut entry, 4, (at as u32).to_le_bytes());
            put(&mut entry, 8, ((at >> 32) as u16).to_le_bytes());
            above.push(entry);
        }
        entries = above;
        depth += 1;
    }
    let mut root = [0; 60];
    head(&mut root, entries.len(), IN_INODE, depth);
    root[12..12 + entries.len() * 12].copy_from_slice(entries.as_flattened());
    Ok((root, used))
}

fn pointers(fs: &mut Filesystem, mapping: &Mapping) -> Result<([u8; 60], u64), Error> {
    let mut root = [0; 60];
    let mut used = 0;
    for at in 0..DIRECT.min(mapping.end()) {
        put(
            &mut root,
            at as usize * 4,
            (mapping.find(at).unwrap_or(0) as u32).to_le_bytes(),
        );
    }
    let mut from = DIRECT;
    for (place, depth) in [(12, 1), (13, 2), (14, 3)] {
        let span = POINTERS.pow(depth);
        if from < mapping.end() {
            let block = indirect(fs, mapping, from, depth, &mut used)?;
            put(&mut root, place * 4, (block as u32).to_le_bytes());
        }
        from += span;
    }
    match mapping.end() > from {
        true => Err(Error::TooLarge),
        false => Ok((root, used)),
    }
}

/// Blocks that ext3 and ext2 need for the pointers to `data` blocks, of a file that is of `size` blocks with its holes; with
/// holes it may be less.
pub fn pointer_blocks(data: u64, size: u64) -> u64 {
    let (mut below, mut most, mut sum) = (data, size.saturating_sub(DIRECT), 0);
    // The inode has one pointer of each depth, so that the first block of a depth is in no block of the next one.
    for _ in 0..3 {
        let level = most.div_ceil(POINTERS);
        below = below.min(level);
        sum += below;
        most = level.saturating_sub(1);
    }
    sum
}

/// A block of pointers to what begins at `from` of the file; 0 if there is nothing but a hole.
fn indirect(fs: &mut Filesystem, mapping: &Mapping, from: u64, depth: u32, used: &mut u64) -> Result<u64, Error> {
    let span = POINTERS.pow(depth - 1);
    let next = mapping
        .extents
        .partition_point(|extent| extent.at + extent.length <= from);
    if mapping
        .extents
        .get(next)
        .is_none_or(|extent| extent.at >= from + span * POINTERS)
    {
        return Ok(0);
    }
    let mut node = vec![0; BLOCK];
    for index in 0..POINTERS {
        let at = from + index * span;
        if at >= mapping.end() {
            break;
        }
        let block = match depth {
            1 => mapping.find(at).unwrap_or(0),
            _ => indirect(fs, mapping, at, depth - 1, used)?,
        };
        put(&mut node, index as usize * 4, (block as u32).to_le_bytes());
    }
    let (block, _) = fs.allocate(1)?;
    *used += 1;
    fs.write_block(block, &node)?;
    Ok(block)
}

/// The first block of a directory that mke2fs has made.
pub(super) fn first_block(root: &[u8], extents: bool) -> u64 {
    match extents {
        true => u64::from(super::get32(root, 20)) | u64::from(super::get16(root, 18)) << 32,
        false => u64::from(super::get32(root, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_pointers() {
        let dense = |blocks| pointer_blocks(blocks, blocks);
        assert_eq!([0, 12, 13, 12 + 1024, 12 + 1025].map(dense), [0, 0, 1, 1, 3]);
        assert_eq!(dense(12 + 1024 + 1024 * 1024), 1 + 1 + 1024);
        assert_eq!(dense(12 + 1024 + 1024 * 1024 + 1), 1 + 1 + 1024 + 3);
        // One block far behind.
        assert_eq!(pointer_blocks(1, 12 + 1024 + 1024 * 1024 + 1), 3);
        assert_eq!(pointer_blocks(0, 1 << 20), 0);
    }

    #[test]
    fn what_follows_is_one_extent() {
        let mut mapping = Mapping::default();
        for (at, block, length) in [(0, 100, 4), (4, 104, 2), (10, 106, 1), (11, 200, 1)] {
            mapping.push(at, block, length);
        }
        assert_eq!((mapping.extents.len(), mapping.blocks(), mapping.end()), (3, 8, 12));
        let found = [0, 5, 6, 9, 10, 11, 12].map(|at| mapping.find(at));
        assert_eq!(found, [Some(100), Some(105), None, None, Some(106), Some(200), None]);
    }
}

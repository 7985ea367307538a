// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file system that is filled: its inodes, and what its superblock and groups say of it in the end.

use std::collections::BTreeMap;
use std::fs::File;

use super::attributes::{self, Attribute};
use super::blocks::{Blocks, inode_table};
use super::checksum::Checksum;
use super::directory::Directory;
use super::error::Error;
use super::geometry::{Geometry, Kind, LINKS, LINKS_EXT3};
use super::inode::{self, FileType, Inode, Meta, Time};
use super::mapping::{self, Mapping};
use super::output::Output;
use super::{BLOCK, FIRST_FREE, LOST_AND_FOUND, ROOT, put};

const SUPERBLOCK: usize = 1024;
/// Inodes in a block.
const IN_BLOCK: u32 = (BLOCK / inode::SIZE) as u32;
/// The target of a shorter link is in the inode.
const FAST_LINK: usize = 60;

/// A file system that is being filled. It is whole only after [`finish`](Self::finish).
#[derive(Debug)]
pub struct Filesystem {
    pub(super) geometry: Geometry,
    superblock: Vec<u8>,
    pub(super) table: Vec<u8>,
    pub(super) blocks: Blocks,
    pub(super) next_inode: u32,
    /// Directories in each group.
    pub(super) directories: Vec<u32>,
    /// Blocks of inodes of which not all are known.
    inodes: BTreeMap<u64, (Vec<u8>, u32)>,
    pub(super) output: Output,
    now: Time,
    pub(super) zeroed: bool,
    root_block: u64,
}

impl Filesystem {
    /// Of what kind it is.
    pub fn kind(&self) -> Kind {
        self.geometry.kind
    }

    /// The file system that mke2fs has just made on `file`, which was `zeroed` before, or not. What is made of it is called
    /// changed at `now`.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is not what [`mke2fs_arguments`](crate::mke2fs_arguments) make.
    pub fn open(file: File, zeroed: bool, now: Time) -> Result<Self, Error> {
        let output = Output::new(file);
        let mut first = vec![0; BLOCK];
        output.read(0, &mut first)?;
        let superblock = first.split_off(SUPERBLOCK)[..SUPERBLOCK].to_vec();
        let geometry = Geometry::of(&superblock)?;
        let mut table = vec![0; geometry.table() as usize * BLOCK];
        output.read(1, &mut table)?;
        let blocks = Blocks::read(&geometry, &table, &output)?;
        let free = u64::from(super::get32(&superblock, 0x0C)) | u64::from(super::get32(&superblock, 0x158)) << 32;
        if blocks.free() != free {
            return Err(Error::Unfit("its bitmaps do not fit its superblock"));
        }
        let mut filesystem = Self {
            directories: vec![0; geometry.groups as usize],
            geometry,
            superblock,
            table,
            blocks,
            next_inode: FIRST_FREE,
            inodes: BTreeMap::new(),
            output,
            now,
            zeroed,
            root_block: 0,
        };
        // Those of mke2fs: the root, and lost+found.
        let (at, _) = filesystem.place(1);
        let mut reserved = vec![0; BLOCK];
        filesystem.output.read(at, &mut reserved)?;
        let root = (ROOT - 1) as usize * inode::SIZE;
        let map = &reserved[root + 0x28..root + 0x28 + 60];
        filesystem.root_block = mapping::first_block(map, filesystem.geometry.kind == Kind::Ext4);
        // Never full, so that it stays until the end.
        filesystem.inodes.insert(at, (reserved, 0));
        filesystem.directories[0] = 2;
        Ok(filesystem)
    }

    /// Its UUID.
    pub fn uuid(&self) -> [u8; 16] {
        self.geometry.uuid
    }

    /// Blocks that are free.
    pub fn free_blocks(&self) -> u64 {
        self.blocks.free()
    }

    /// Inodes that are free.
    pub fn free_inodes(&self) -> u64 {
        u64::from(self.geometry.inodes - (self.next_inode - 1))
    }

    pub(super) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn checksum(&self) -> Option<Checksum> {
        self.geometry.checksum
    }

    pub(super) fn allocate(&mut self, count: u64) -> Result<(u64, u64), Error> {
        self.blocks.allocate(count)
    }

    pub(super) fn write_block(&mut self, at: u64, block: &[u8]) -> Result<(), Error> {
        self.output.write(at, block)
    }

    fn group(&self, inode: u32) -> usize {
        ((inode - 1) / self.geometry.inodes_per_group) as usize
    }

    /// The block an inode is in, and where in it.
    fn place(&self, inode: u32) -> (u64, usize) {
        let index = (inode - 1) % self.geometry.inodes_per_group;
        let first = inode_table(self.descriptor(self.group(inode)));
        let at = (index % IN_BLOCK) as usize * inode::SIZE;
        (first + u64::from(index / IN_BLOCK), at)
    }

    pub(super) fn descriptor(&self, group: usize) -> &[u8] {
        let size = self.geometry.descriptor;
        &self.table[group * size..(group + 1) * size]
    }

    /// A new inode, of which nothing is known yet.
    fn new_inode(&mut self) -> Result<u32, Error> {
        let inode = self.next_inode;
        if inode > self.geometry.inodes {
            return Err(Error::Full("inodes"));
        }
        self.next_inode += 1;
        Ok(inode)
    }

    /// The root directory, to be given to [`finish_directory`](Self::finish_directory) as the last one.
    pub fn root(&self) -> Directory {
        let mut root = Directory::new(ROOT, ROOT);
        root.add(b"lost+found", LOST_AND_FOUND, FileType::Directory);
        root
    }

    /// A new directory in `parent`. [`finish_directory`](Self::finish_directory) makes it one.
    ///
    /// # Errors
    ///
    /// If no inode is left.
    pub fn directory(&mut self, parent: &mut Directory, name: &[u8]) -> Result<Directory, Error> {
        let inode = self.new_inode()?;
        let group = self.group(inode);
        self.directories[group] += 1;
        parent.add(name, inode, FileType::Directory);
        Ok(Directory::new(inode, parent.inode))
    }

    /// Writes a directory that has all its names.
    ///
    /// # Errors
    ///
    /// If the file system is full, it has too many directories in it, the attributes are too much, or the disk does not take it.
    pub fn finish_directory(
        &mut self,
        directory: &Directory,
        meta: &Meta,
        attributes: &[Attribute],
    ) -> Result<(), Error> {
        let blocks = directory.blocks(self.checksum());
        let mut mapping = Mapping::default();
        let mut rest = blocks.as_slice();
        if directory.inode == ROOT {
            let first;
            (first, rest) = rest.split_at(BLOCK);
            mapping.push(0, self.root_block, 1);
            self.output.flush()?;
            self.output.write_now(self.root_block, first)?;
        }
        self.append(&mut mapping, ((blocks.len() - rest.len()) / BLOCK) as u64, rest)?;
        let links = match directory.links() {
            // "Too many to count".
            links if links > LINKS && self.geometry.kind == Kind::Ext4 => 1,
            links if links > LINKS_EXT3 && self.geometry.kind != Kind::Ext4 => return Err(Error::Links(LINKS_EXT3)),
            links => links,
        };
        let inode = self.inode(directory.inode, meta, blocks.len() as u64, &mapping, attributes)?;
        self.put_inode(directory.inode, &Inode { links, ..inode })
    }

    /// Appends `data` to a file at its block `at`; only the last piece of a file may end within a block.
    ///
    /// # Errors
    ///
    /// If no block is left, or the disk does not take it.
    pub fn append(&mut self, mapping: &mut Mapping, at: u64, data: &[u8]) -> Result<(), Error> {
        let (mut at, mut data) = (at, data);
        while !data.is_empty() {
            let (block, length) = self.blocks.allocate(data.len().div_ceil(BLOCK) as u64)?;
            let (now, rest) = data.split_at(data.len().min(length as usize * BLOCK));
            self.output.write(block, now)?;
            mapping.push(at, block, length);
            at += length;
            data = rest;
        }
        Ok(())
    }

    /// A file whose content has been [appended](Self::append), or a device, a pipe or a socket, with one name.
    ///
    /// # Errors
    ///
    /// If the file system is full, the attributes are too much, the content too large, or the disk does not take it.
    pub fn file(
        &mut self,
        meta: &Meta,
        size: u64,
        mapping: &Mapping,
        attributes: &[Attribute],
    ) -> Result<Unlinked, Error> {
        let number = self.new_inode()?;
        let mut inode = self.inode(number, meta, size, mapping, attributes)?;
        if matches!(meta.kind, FileType::Character | FileType::Block) {
            inode.map = inode::device(meta.device);
        }
        Ok(Unlinked { number, inode })
    }

    /// A symbolic link with this target, which is of 1 to 4095 bytes without a zero.
    ///
    /// # Errors
    ///
    /// If the target is none, the file system is full, the attributes are too much, or the disk does not take it.
    pub fn symlink(&mut self, meta: &Meta, target: &[u8], attributes: &[Attribute]) -> Result<Unlinked, Error> {
        // Linux takes no other, and e2fsck calls one with a zero damaged.
        if target.is_empty() || target.len() >= BLOCK || target.contains(&0) {
            return Err(Error::Target);
        }
        let number = self.new_inode()?;
        let mut mapping = Mapping::default();
        if target.len() >= FAST_LINK {
            self.append(&mut mapping, 0, target)?;
        }
        let mut inode = self.inode(number, meta, target.len() as u64, &mapping, attributes)?;
        if target.len() < FAST_LINK {
            inode.map = [0; 60];
            inode.map[..target.len()].copy_from_slice(target);
            inode.extents = false;
        }
        Ok(Unlinked { number, inode })
    }

    /// Writes a file that has all its names.
    ///
    /// # Errors
    ///
    /// If it has more names than a file can have, or the disk does not take it.
    pub fn finish_file(&mut self, file: &Unlinked) -> Result<(), Error> {
        let most = if self.geometry.kind == Kind::Ext4 {
            LINKS
        } else {
            LINKS_EXT3
        };
        match file.inode.links > most {
            true => Err(Error::Links(most)),
            false => self.put_inode(file.number, &file.inode),
        }
    }

    fn inode(
        &mut self,
        number: u32,
        meta: &Meta,
        size: u64,
        mapping: &Mapping,
        attributes: &[Attribute],
    ) -> Result<Inode, Error> {
        let (attributes, block) = attributes::write(attributes, self.geometry.kind)?;
        let mut attribute_block = 0;
        if let Some(mut block) = block {
            attribute_block = self.allocate(1)?.0;
            attributes::seal(&mut block, attribute_block, self.checksum());
            self.output.write(attribute_block, &block)?;
        }
        let mapped = matches!(meta.kind, FileType::Regular | FileType::Directory | FileType::Symlink);
        let (map, tree) = match mapped {
            true => mapping::write(self, number, mapping)?,
            false => ([0; 60], 0),
        };
        Ok(Inode {
            meta: *meta,
            changed: self.now,
            size,
            links: 1,
            blocks: mapping.blocks() + tree + u64::from(attribute_block != 0),
            map,
            extents: mapped && self.geometry.kind == Kind::Ext4,
            attribute_block,
            attributes,
        })
    }

    fn put_inode(&mut self, number: u32, inode: &Inode) -> Result<(), Error> {
        let raw = inode.encode(number, self.checksum());
        let (block, at) = self.place(number);
        let (bytes, known) = self.inodes.entry(block).or_insert_with(|| (vec![0; BLOCK], 0));
        bytes[at..at + inode::SIZE].copy_from_slice(&raw);
        *known += 1;
        if *known == IN_BLOCK {
            let (bytes, _) = self.inodes.remove(&block).unwrap_or_default();
            self.output.write_now(block, &bytes)?;
        }
        Ok(())
    }

    /// Writes what is left, and waits until all of it is on the disk.
    ///
    /// # Errors
    ///
    /// If the disk does not take it. The file system is damaged then.
    pub fn finish(mut self) -> Result<(), Error> {
        self.output.flush()?;
        for (block, (bytes, _)) in std::mem::take(&mut self.inodes) {
            self.output.write_now(block, &bytes)?;
        }
        for group in 0..self.geometry.groups {
            self.finish_group(group)?;
        }
        self.output.write_now(1, &self.table)?;
        let (blocks, inodes) = (self.free_blocks(), self.free_inodes());
        let superblock = &mut self.superblock;
        put(superblock, 0x0C, (blocks as u32).to_le_bytes());
        if self.geometry.descriptor >= 64 {
            put(superblock, 0x158, ((blocks >> 32) as u32).to_le_bytes());
        }
        put(superblock, 0x10, (inodes as u32).to_le_bytes());
        if self.geometry.checksum.is_some() {
            let end = SUPERBLOCK - 4;
            let sum = Checksum::START.and(&superblock[..end]).value();
            put(superblock, end, sum.to_le_bytes());
        }
        // The first 1024 bytes are a boot loader's.
        let mut first = vec![0; BLOCK];
        self.output.read(0, &mut first)?;
        first[SUPERBLOCK..2 * SUPERBLOCK].copy_from_slice(&self.superblock);
        self.output.write_now(0, &first)?;
        self.output.sync()
    }
}

/// A file that may get more names before it is [written](Filesystem::finish_file).
#[derive(Debug)]
pub struct Unlinked {
    number: u32,
    inode: Inode,
}

impl Unlinked {
    /// Its inode.
    pub fn inode(&self) -> u32 {
        self.number
    }

    /// Its type.
    pub fn kind(&self) -> FileType {
        self.inode.meta.kind
    }

    /// What is known of it.
    pub fn meta(&self) -> Meta {
        self.inode.meta
    }

    /// Counts one more name.
    pub fn link(&mut self) {
        self.inode.links += 1;
    }
}

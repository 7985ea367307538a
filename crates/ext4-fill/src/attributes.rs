// SPDX-License-Identifier: MIT OR Apache-2.0
//! Extended attributes: in the inode as long as there is room, the rest in a block of their own, as the kernel does it
//! (`ext4_xattr_set_handle`).

use super::checksum::Checksum;
use super::error::Error;
use super::geometry::Kind;
use super::inode::{ATTRIBUTES, SIZE};
use super::{BLOCK, put};

const MAGIC: u32 = 0xEA02_0000;
/// The head of a block of attributes.
const HEAD: usize = 32;
/// An entry without its name.
const ENTRY: usize = 16;
/// What a name begins with, and the number that stands for it. The access lists have no other name.
const PREFIXES: [(&[u8], u8); 6] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
    (b"system.", 7),
];
const ACCESS_LISTS: [u8; 2] = [2, 3];
/// The list that says who may use the file itself.
pub const ACCESS: &[u8] = b"system.posix_acl_access";

/// An extended attribute, as `getxattr(2)` gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its whole name, such as `user.comment`.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// One as it is on the disk.
struct Stored<'a> {
    index: u8,
    name: &'a [u8],
    value: Vec<u8>,
}

/// What an inode has of its attributes, and the block of them if they need one; that still lacks its checksum.
pub(super) type Written = ([u8; SIZE - ATTRIBUTES], Option<Vec<u8>>);

pub(super) fn write(attributes: &[Attribute], kind: Kind) -> Result<Written, Error> {
    let mut in_inode = [0; SIZE - ATTRIBUTES];
    if attributes.is_empty() {
        return Ok((in_inode, None));
    }
    let mut stored: Vec<Stored<'_>> = attributes.iter().filter_map(stored).collect();
    stored.sort_by_key(|one| (one.index, one.name.len(), one.name));
    let (inner, outer) = share(stored, kind).ok_or(Error::Attributes)?;
    if !inner.is_empty() {
        put(&mut in_inode, 0, MAGIC.to_le_bytes());
        lay(&mut in_inode[4..], 0, &inner, false);
    }
    if outer.is_empty() {
        return Ok((in_inode, None));
    }
    let mut block = vec![0; BLOCK];
    put(&mut block, 0, MAGIC.to_le_bytes());
    // One file uses it, and it is one block.
    put(&mut block, 4, 1_u32.to_le_bytes());
    put(&mut block, 8, 1_u32.to_le_bytes());
    let hash = lay(&mut block, HEAD, &outer, true);
    put(&mut block, 12, hash.to_le_bytes());
    Ok((in_inode, Some(block)))
}

/// Which go into the inode and which into the block, each in their order; `None` if there is no room. All go into one of them
/// if they can. Linux' driver for ext2 does not look into inodes, only those for ext3 and ext4 do.
fn share(stored: Vec<Stored<'_>>, kind: Kind) -> Option<(Vec<Stored<'_>>, Vec<Stored<'_>>)> {
    // Behind the head, and before four zeros at the end of the list.
    let inode = match kind {
        Kind::Ext2 => 0,
        Kind::Ext3 | Kind::Ext4 => SIZE - ATTRIBUTES - 4 - 4,
    };
    let block = BLOCK - HEAD - 4;
    let size: usize = stored.iter().map(Stored::size).sum();
    if size <= inode {
        return Some((stored, Vec::new()));
    }
    if size <= block {
        return Some((Vec::new(), stored));
    }
    let mut left = inode;
    let (inner, outer): (Vec<_>, Vec<_>) = stored.into_iter().partition(|one| {
        let fits = one.size() <= left;
        left -= if fits { one.size() } else { 0 };
        fits
    });
    let size: usize = outer.iter().map(Stored::size).sum();
    (size <= block).then_some((inner, outer))
}

/// Drops what cannot be stored: attributes of other kinds, and as many as are too much. `true` if nothing was dropped.
///
/// Without its access list a file's group bits would be the list's mask, and without its label or capabilities a program
/// something else: a user's own attributes go first, the largest before the others.
pub fn keep_storable(attributes: &mut Vec<Attribute>, kind: Kind) -> bool {
    let before = attributes.len();
    attributes.retain(|attribute| stored(attribute).is_some());
    if write(attributes, kind).is_err() {
        let worth = |attribute: &Attribute| match attribute.name.as_slice() {
            name if name.starts_with(b"user.") => 0,
            name if name.starts_with(b"security.") || name == ACCESS => 2,
            _ => 1,
        };
        let size = |attribute: &Attribute| stored(attribute).map_or(0, |one| one.size());
        // Sorted once, those first that go last: an archive may have any number of them.
        let mut order: Vec<usize> = (0..attributes.len()).collect();
        order.sort_by_key(|at| (worth(&attributes[*at]), std::cmp::Reverse(attributes[*at].value.len())));
        let mut all: usize = attributes.iter().map(size).sum();
        let mut going = vec![false; attributes.len()];
        let mut order = order.into_iter();
        loop {
            if all <= BLOCK + SIZE {
                let left = attributes.iter().zip(&going).filter(|(_, goes)| !**goes);
                let left: Vec<Attribute> = left.map(|(attribute, _)| attribute.clone()).collect();
                if write(&left, kind).is_ok() {
                    break;
                }
            }
            let Some(next) = order.next() else { break };
            all -= size(&attributes[next]);
            going[next] = true;
        }
        let mut going = going.into_iter();
        attributes.retain(|_| !going.next().unwrap_or(false));
    }
    attributes.len() == before
}

/// The permissions that a file may have without its access list, which was `list`: with it the group's bits are its mask, and
/// the group has what both the mask and its own entry give it (acl(5)).
pub fn permissions_without(list: &[u8], permissions: u32) -> u32 {
    let entries = list.get(4..).unwrap_or_default();
    let group = entries.chunks_exact(8).find(|entry| entry[..2] == [0x04, 0]);
    match group {
        Some(group) => permissions & (!0o070 | u32::from(group[2] & 7) << 3),
        None => permissions,
    }
}

/// Whether attributes need a block of their own.
pub fn need_a_block(attributes: &[Attribute], kind: Kind) -> bool {
    write(attributes, kind).is_ok_and(|(_, block)| block.is_some())
}

/// Puts the checksum into a block of attributes that goes to `at`.
pub(super) fn seal(block: &mut [u8], at: u64, checksum: Option<Checksum>) {
    if let Some(checksum) = checksum {
        let sum = checksum.and(&at.to_le_bytes()).and(block).value();
        put(block, 16, sum.to_le_bytes());
    }
}

fn stored(attribute: &Attribute) -> Option<Stored<'_>> {
    let prefix = PREFIXES.iter().find(|(prefix, _)| attribute.name.starts_with(prefix));
    let (prefix, index) = prefix?;
    let value = match ACCESS_LISTS.contains(index) {
        true => access_list(&attribute.value)?,
        false => attribute.value.clone(),
    };
    let name = &attribute.name[prefix.len()..];
    // An access list has no other name, everything else has one; its length is a byte, and the kernel takes no NUL in it.
    let is_sound = name.is_empty() == ACCESS_LISTS.contains(index) && name.len() <= 255 && !name.contains(&0);
    is_sound.then_some(Stored {
        index: *index,
        name,
        value,
    })
}

/// An access list as it is stored: only named users and groups have a number
/// (<https://docs.kernel.org/filesystems/ext4/attributes.html>).
fn access_list(list: &[u8]) -> Option<Vec<u8>> {
    let entries = list.strip_prefix(&2_u32.to_le_bytes())?;
    let mut stored = 1_u32.to_le_bytes().to_vec();
    for entry in entries.chunks_exact(8) {
        let named = [0x02, 0x08].contains(&entry[0]);
        stored.extend_from_slice(&entry[..if named { 8 } else { 4 }]);
    }
    Some(stored)
}

impl Stored<'_> {
    fn entry(&self) -> usize {
        (ENTRY + self.name.len()).next_multiple_of(4)
    }

    fn size(&self) -> usize {
        self.entry() + self.value.len().next_multiple_of(4)
    }

    fn hash(&self) -> u32 {
        let mut hash = 0u32;
        for byte in self.name {
            hash = hash.rotate_left(5) ^ u32::from(*byte);
        }
        for word in self.value.chunks(4) {
            let mut bytes = [0; 4];
            bytes[..word.len()].copy_from_slice(word);
            hash = hash.rotate_left(16) ^ u32::from_le_bytes(bytes);
        }
        hash
    }
}

/// Lays entries down from `first` on, and values from the end towards them. Returns the hash of all.
fn lay(room: &mut [u8], first: usize, stored: &[Stored<'_>], hashed: bool) -> u32 {
    let (mut entry, mut value, mut all) = (first, room.len(), 0u32);
    for one in stored {
        value -= one.value.len().next_multiple_of(4);
        room[value..value + one.value.len()].copy_from_slice(&one.value);
        room[entry] = one.name.len() as u8;
        room[entry + 1] = one.index;
        let offset = if one.value.is_empty() { 0 } else { value };
        put(room, entry + 2, (offset as u16).to_le_bytes());
        put(room, entry + 8, (one.value.len() as u32).to_le_bytes());
        if hashed {
            let hash = one.hash();
            put(room, entry + 12, hash.to_le_bytes());
            all = all.rotate_left(16) ^ hash;
        }
        room[entry + ENTRY..entry + ENTRY + one.name.len()].copy_from_slice(one.name);
        entry += one.entry();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(name: &str, value: &[u8]) -> Attribute {
        Attribute {
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn in_the_inode_or_in_a_block() {
        let (inode, block) = write(&[attribute("user.a", b"value")], Kind::Ext4).expect("attributes");
        assert!(block.is_none() && inode[..4] == MAGIC.to_le_bytes() && inode.ends_with(b"value\0\0\0"));
        let (inode, block) = write(&[attribute("user.a", b"value")], Kind::Ext2).expect("attributes");
        assert!(block.is_some() && inode == [0; SIZE - ATTRIBUTES]);
        let (inode, block) = write(&[attribute("user.a", &[7; 100])], Kind::Ext4).expect("attributes");
        assert!(block.is_some() && inode == [0; SIZE - ATTRIBUTES]);
        assert!(matches!(
            write(&[attribute("user.a", &[7; 4096])], Kind::Ext4),
            Err(Error::Attributes)
        ));
    }

    #[test]
    fn what_is_too_much_goes_first() {
        let list = [
            2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 1, 0, 255, 255, 255, 255, 16, 0, 7, 0, 255, 255, 255, 255,
        ];
        let all = [
            attribute("user.big", &[7; 3900]),
            attribute("user.small", &[8; 60]),
            attribute("security.capability", &[9; 20]),
            attribute("system.posix_acl_access", &list),
        ];
        let (inode, block) = write(&all, Kind::Ext4).expect("attributes");
        assert!(inode[..4] == MAGIC.to_le_bytes() && block.is_some());
        let mut more = all.to_vec();
        assert!(keep_storable(&mut more, Kind::Ext4) && more == all);
        more.extend([attribute("user.more", &[1; 300]), attribute("trusted.x", &[1; 3000])]);
        assert!(!keep_storable(&mut more, Kind::Ext4));
        let names: Vec<_> = more
            .iter()
            .map(|one| String::from_utf8_lossy(&one.name).into_owned())
            .collect();
        assert_eq!(
            names,
            [
                "user.small",
                "security.capability",
                "system.posix_acl_access",
                "user.more",
                "trusted.x"
            ]
        );
        assert_eq!(permissions_without(&list, 0o4775), 0o4715);
        assert_eq!(permissions_without(b"", 0o775), 0o775);
    }

    #[test]
    fn an_access_list_is_stored_short() {
        // user::rw-, user:1000:r--, mask::r--
        let list = [
            2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 232, 3, 0, 0, 16, 0, 4, 0, 255, 255, 255, 255,
        ];
        let stored = access_list(&list).expect("a list");
        assert_eq!(stored, [1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 4, 0, 232, 3, 0, 0, 16, 0, 4, 0]);
        assert_eq!(access_list(&[1, 0, 0, 0]), None);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Access lists in archives: those that are lost, and those that are none.

use super::pax::Records;

/// Whether there is an access list that no attribute has (`tar --acls` without `--xattrs`). One that says no more than the
/// permissions is none.
pub(super) fn are_lost(extended: &Records) -> bool {
    let has = |key: &[u8]| extended.iter().any(|(found, _)| found == key);
    extended.iter().any(|(key, text)| {
        let entries = text.split(|byte| matches!(byte, b',' | b'\n'));
        let entries = entries.filter(|entry| !entry.is_empty()).count();
        match key.as_slice() {
            b"SCHILY.acl.access" => entries > 3 && !has(b"SCHILY.xattr.system.posix_acl_access"),
            b"SCHILY.acl.default" => entries > 0 && !has(b"SCHILY.xattr.system.posix_acl_default"),
            _ => false,
        }
    })
}

/// What an access list that is lost gives to the file's own group: the group's bits of the mode are the list's mask (acl(5)).
pub(super) fn lost_group(extended: &Records) -> Option<u32> {
    let has_attribute = extended
        .iter()
        .any(|(key, _)| key == b"SCHILY.xattr.system.posix_acl_access");
    let list = extended.iter().find(|(key, _)| *key == b"SCHILY.acl.access");
    let (_, text) = list.filter(|_| !has_attribute)?;
    let mut entries = text.split(|byte| matches!(byte, b',' | b'\n'));
    let group = entries.find_map(|entry| entry.strip_prefix(b"group::"))?;
    let bits = [(b'r', 4), (b'w', 2), (b'x', 1)];
    let given = bits.iter().zip(group).filter(|((letter, _), byte)| letter == *byte);
    Some(given.map(|((_, bit), _)| bit).sum())
}

/// Whether the value of an attribute is an access list that a kernel takes: the owner, other users, the group, other groups, a
/// mask if there are others of either, and the rest, each with permissions (acl(5), "VALID ACLs").
pub(super) fn is_valid(value: &[u8]) -> bool {
    let Some((entries, [])) = value.strip_prefix(&2_u32.to_le_bytes()).map(<[u8]>::as_chunks::<8>) else {
        return false;
    };
    let (mut before, mut tags) = (0, 0);
    for [tag, zero, permissions, other_zero, ..] in entries {
        let is_named = matches!(tag, 0x02 | 0x08);
        let is_tag = matches!(tag, 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x20);
        let follows = *tag > before || (is_named && *tag == before);
        if !is_tag || !follows || *permissions > 7 || *zero != 0 || *other_zero != 0 {
            return false;
        }
        before = *tag;
        tags |= *tag;
    }
    let (needed, named, mask) = (0x01 | 0x04 | 0x20, 0x02 | 0x08, 0x10);
    tags & needed == needed && (tags & named == 0 || tags & mask != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_without_attributes() {
        let of = |records: &[(&str, &str)]| {
            let record = |(key, value): &(&str, &str)| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
            are_lost(&records.iter().map(record).collect())
        };
        let plain = "user::rw-,group::r--,other::r--";
        let named = "user::rw-,user:10:rwx,group::r--,mask::rwx,other::r--";
        assert!(!of(&[("SCHILY.acl.access", plain)]));
        assert!(of(&[("SCHILY.acl.access", named)]));
        assert!(of(&[("SCHILY.acl.access", plain), ("SCHILY.acl.default", plain)]));
        let attribute = ("SCHILY.xattr.system.posix_acl_access", "binary");
        assert!(!of(&[("SCHILY.acl.access", named), attribute]));
    }

    #[test]
    fn a_lost_list_gives_nothing() {
        let of = |records: &[(&str, &str)]| {
            let record = |(key, value): &(&str, &str)| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
            lost_group(&records.iter().map(record).collect())
        };
        let list = (
            "SCHILY.acl.access",
            "user::rw-,user:10:rwx,group::r-x,mask::rwx,other::r--",
        );
        assert_eq!(of(&[list]), Some(5));
        assert_eq!(of(&[list, ("SCHILY.xattr.system.posix_acl_access", "binary")]), None);
        assert_eq!(of(&[("SCHILY.acl.default", "group::---")]), None);
    }

    #[test]
    fn lists_that_a_kernel_takes() {
        let of = |entries: &[[u8; 2]]| {
            let entries = entries.iter().flat_map(|[tag, mode]| [*tag, 0, *mode, 0, 10, 0, 0, 0]);
            is_valid(&[2, 0, 0, 0].into_iter().chain(entries).collect::<Vec<u8>>())
        };
        assert!(of(&[[1, 6], [4, 4], [0x20, 4]]));
        assert!(of(&[[1, 6], [2, 7], [2, 5], [4, 4], [8, 1], [0x10, 7], [0x20, 0]]));
        let bad: [&[[u8; 2]]; 6] = [
            &[],
            &[[1, 6], [4, 4]],
            &[[1, 6], [4, 4], [2, 7], [0x10, 7], [0x20, 0]],
            &[[1, 6], [2, 7], [4, 4], [0x20, 0]],
            &[[1, 8], [4, 4], [0x20, 4]],
            &[[1, 6], [1, 6], [4, 4], [0x20, 4]],
        ];
        for entries in bad {
            assert!(!of(entries), "{entries:?}");
        }
        assert!(!is_valid(b"\x02\0\0\0\x01") && !is_valid(b"\x01\0\0\0") && !is_valid(b""));
    }
}

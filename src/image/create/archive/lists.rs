// SPDX-License-Identifier: MIT OR Apache-2.0
//! Access lists in archives: as text, and those that are none.

use std::collections::HashMap;

use ext4_fill::Attribute;

use super::pax::Records;
use crate::image::create::survey::Found;

/// Of the form that attributes have (`linux/posix_acl_xattr.h`).
const VERSION: u32 = 2;

/// The numbers of the users and groups of the guest's own system, by their names.
#[derive(Debug, Default)]
pub(super) struct Names {
    users: HashMap<Vec<u8>, u32>,
    groups: HashMap<Vec<u8>, u32>,
}

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";

impl Names {
    /// Files that have them.
    pub(super) const FILES: [&str; 2] = [PASSWD, GROUP];

    /// What is in these files (passwd(5), group(5)).
    pub(super) fn of(found: &Found) -> Self {
        let of = |path| found.content(path).map(numbers).unwrap_or_default();
        Self {
            users: of(PASSWD),
            groups: of(GROUP),
        }
    }
}

/// Of each line the first field, with the third one.
fn numbers(text: &[u8]) -> HashMap<Vec<u8>, u32> {
    let lines = text.split(|byte| *byte == b'\n');
    let named = lines.filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        Some((name.to_vec(), number(fields.nth(1)?)?))
    });
    // The first one of a name holds, as for getpwnam(3).
    let mut numbers = HashMap::new();
    named.for_each(|(name, number)| {
        numbers.entry(name).or_insert(number);
    });
    numbers
}

/// Of an owner; the last number means nobody (chown(2)).
fn number(text: &[u8]) -> Option<u32> {
    let number = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number != u32::MAX).then_some(number)
}

/// An access list that an archive has as text (`tar --acls`), and not as an attribute, too.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TextList {
    attribute: &'static [u8],
    text: Vec<u8>,
}

/// Those of a member. One for itself that says no more than the permissions is none.
pub(super) fn texts(extended: &Records) -> Vec<TextList> {
    // The last one of a key holds.
    let last = |key: &[u8]| extended.iter().rev().find(|(found, _)| found == key);
    let list = |key: &[u8], binary: &[u8], attribute: &'static [u8], least: usize| {
        let (_, text) = last(key).filter(|_| last(binary).is_none())?;
        let text = text.clone();
        let list = TextList { attribute, text };
        (list.entries().count() >= least).then_some(list)
    };
    let access = list(
        b"SCHILY.acl.access",
        b"SCHILY.xattr.system.posix_acl_access",
        ext4_fill::ACCESS,
        4,
    );
    let default = list(
        b"SCHILY.acl.default",
        b"SCHILY.xattr.system.posix_acl_default",
        b"system.posix_acl_default",
        1,
    );
    access.into_iter().chain(default).collect()
}

const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWN_GROUP: u16 = 0x04;
const GROUP_ENTRY: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

impl TextList {
    /// Without what is said of them behind `#`, that is what the mask leaves of them.
    fn entries(&self) -> impl Iterator<Item = &[u8]> {
        let entries = self.text.split(|byte| matches!(byte, b',' | b'\n'));
        let entries = entries.map(|entry| entry.split(|byte| *byte == b'#').next().unwrap_or_default());
        entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty())
    }

    /// As an attribute; `None` if it is no list that a kernel takes, or names somebody whom the guest does not know.
    pub(super) fn attribute(&self, names: &Names) -> Option<Attribute> {
        let mut entries = self
            .entries()
            .map(|entry| read(entry, names))
            .collect::<Option<Vec<_>>>()?;
        entries.sort_unstable_by_key(|(tag, _, number)| (*tag, *number));
        let entries = entries.iter().flat_map(|(tag, permissions, number)| {
            let (tag, permissions) = (tag.to_le_bytes(), permissions.to_le_bytes());
            let number = number.to_le_bytes();
            tag.into_iter().chain(permissions).chain(number)
        });
        let value: Vec<u8> = VERSION.to_le_bytes().into_iter().chain(entries).collect();
        let name = self.attribute.to_vec();
        is_valid(&value).then_some(Attribute { name, value })
    }

    /// The permissions that a file may have without the list: the group's bits of its mode are the list's mask, and the group
    /// has what its own entry gives it (acl(5)).
    pub(super) fn permissions_without(&self, permissions: u32) -> u32 {
        if self.attribute != ext4_fill::ACCESS {
            return permissions;
        }
        let names = Names::default();
        let own = |(tag, given, _): (u16, u16, u32)| (tag == OWN_GROUP).then_some(u32::from(given));
        // Who is named does not matter here.
        let mut read = self.entries().filter_map(|entry| read(entry, &names));
        let group = read.find_map(own).unwrap_or(0);
        permissions & (!0o070 | group << 3)
    }
}

/// An entry: a tag, permissions, and whom it is for. That is a name, behind whose permissions other programs than GNU tar put
/// the number; or that alone.
fn read(entry: &[u8], names: &Names) -> Option<(u16, u16, u32)> {
    let fields: Vec<&[u8]> = entry.split(|byte| *byte == b':').collect();
    let (tag, name, permissions, said) = match fields[..] {
        [tag, name, permissions] => (tag, name, permissions, None),
        [tag, name, permissions, said] => (tag, name, permissions, Some(said)),
        _ => return None,
    };
    let known = match tag {
        b"user" | b"u" => (OWNER, USER, &names.users),
        b"group" | b"g" => (OWN_GROUP, GROUP_ENTRY, &names.groups),
        b"mask" | b"m" if name.is_empty() => return Some((MASK, rights(permissions)?, u32::MAX)),
        b"other" | b"o" if name.is_empty() => return Some((OTHER, rights(permissions)?, u32::MAX)),
        _ => return None,
    };
    let (own, named, known) = known;
    if name.is_empty() {
        return Some((own, rights(permissions)?, u32::MAX));
    }
    let number = match said {
        Some(said) => number(said),
        None => number(name).or_else(|| known.get(name).copied()),
    };
    Some((named, rights(permissions)?, number?))
}

/// Such as `r-x`.
fn rights(text: &[u8]) -> Option<u16> {
    let [read, write, execute] = text else { return None };
    let bit = |byte: &u8, letter: u8, bit: u16| match *byte {
        b'-' => Some(0),
        byte if byte == letter => Some(bit),
        _ => None,
    };
    Some(bit(read, b'r', 4)? | bit(write, b'w', 2)? | bit(execute, b'x', 1)?)
}

/// Whether the value of an attribute is an access list that a kernel takes: the owner, other users, the group, other groups, a
/// mask if there are others of either, and the rest, each with permissions (acl(5), "VALID ACLs").
pub(super) fn is_valid(value: &[u8]) -> bool {
    let Some((entries, [])) = value.strip_prefix(&VERSION.to_le_bytes()).map(<[u8]>::as_chunks::<8>) else {
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

    fn of(records: &[(&str, &str)]) -> Vec<TextList> {
        let record = |(key, value): &(&str, &str)| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        texts(&records.iter().map(record).collect())
    }

    #[test]
    fn lists_without_attributes() {
        let plain = "user::rw-,group::r--,other::r--";
        let named = "user::rw-,user:10:rwx,group::r--,mask::rwx,other::r--";
        let attribute = ("SCHILY.xattr.system.posix_acl_access", "binary");
        assert_eq!(of(&[("SCHILY.acl.access", plain)]), []);
        assert_eq!(of(&[("SCHILY.acl.access", named)]).len(), 1);
        assert_eq!(
            of(&[("SCHILY.acl.access", plain), ("SCHILY.acl.default", plain)]).len(),
            1
        );
        assert_eq!(of(&[("SCHILY.acl.access", named), attribute]), []);
    }

    #[test]
    fn text_becomes_a_list() {
        let names = Names {
            users: numbers(b"root:x:0:0::/:\nanna:x:1000:100::/:\nanna:x:7:7::/:\n"),
            groups: numbers(b"adm:x:4:anna\nbad:x:y:\n"),
        };
        let list = |text: &str| {
            let list = of(&[("SCHILY.acl.access", text)]).pop().expect("a list");
            let value = list.attribute(&names)?.value;
            let entries = value[4..].as_chunks::<8>().0.iter();
            let entry = |entry: &[u8; 8]| {
                (
                    entry[0],
                    entry[2],
                    i32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]),
                )
            };
            Some(entries.map(entry).collect::<Vec<_>>())
        };
        let expected = Some(vec![
            (1, 6, -1),
            (2, 7, 10),
            (2, 5, 1000),
            (4, 4, -1),
            (8, 5, 4),
            (16, 7, -1),
            (32, 0, -1),
        ]);
        for text in [
            "user::rw-\nuser:10:rwx\nuser:anna:r-x\t#effective:r--\ngroup::r--\ngroup:adm:r-x\nmask::rwx\nother::---\n",
            "group::r--,other::---,group:adm:r-x,mask::rwx,user:anna:r-x,user::rw-,user:10:rwx",
            "user::rw-,group::r--,other::---,user:others:rwx:10,user:x:r-x:1000,group:y:r-x:4,mask::rwx",
            "u::rw-,u:10:rwx,u:1000:r-x,g::r--,g:adm:r-x,m::rwx,o::---",
        ] {
            assert_eq!(list(text), expected, "{text}");
        }
        for text in [
            "user::rw-,user:nobody:rwx,group::r--,mask::rwx,other::---",
            "user::rw-,group:bad:rwx,group::r--,mask::rwx,other::---",
            "user::rw-,user:10:rwx,group::r--,other::---",
            "user::rw-,user:10:rwz,group::r--,mask::rwx,other::---",
            "user::rw-,user:10:rwx,group::r--,mask:1:rwx,other::---",
            "user::rw-,user:4294967295:rwx,group::r--,mask::rwx,other::---",
            "a,b,c,d",
        ] {
            assert_eq!(list(text), None, "{text}");
        }
    }

    #[test]
    fn a_lost_list_gives_nothing() {
        let without = |key: &str, text: &str| of(&[(key, text)])[0].permissions_without(0o670);
        let list = "user::rw-,user:anna:rwx,group::r-x,mask::rwx,other::r--";
        assert_eq!(without("SCHILY.acl.access", list), 0o650);
        assert_eq!(without("SCHILY.acl.access", "a,b,c,d"), 0o600);
        assert_eq!(without("SCHILY.acl.default", "group::---"), 0o670);
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

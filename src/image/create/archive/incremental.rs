// SPDX-License-Identifier: MIT OR Apache-2.0
//! Dumps of GNU tar (`--listed-incremental`): of each directory they have a list of what was in it. A full one is an archive
//! as any other; in one that is not, files are missing that an earlier one has
//! (<https://www.gnu.org/software/tar/manual/html_node/Dumpdir.html>).

use std::io::Read;

use super::pax::LONGEST;

/// The kind of a directory with a list in it.
pub(super) const DUMP: u8 = b'D';

const PART: &str =
    "it is an incremental backup: some files are in an earlier one; restore all of them, and pack what comes of it";

/// Refuses the list of a dump that is not full: `N` has a name of what was not dumped, the others say of directories that
/// they were called otherwise at the time of an earlier one.
pub(super) fn is_full(list: &[u8]) -> Result<(), &'static str> {
    let mut names = list.split(|byte| *byte == 0);
    match names.any(|name| matches!(name.first(), Some(b'N' | b'R' | b'T' | b'X'))) {
        true => Err(PART),
        false => Ok(()),
    }
}

/// The same of a list that is yet to be read.
pub(super) fn is_full_list(content: &mut dyn Read) -> Result<(), &'static str> {
    let mut list = Vec::new();
    let read = content.take(LONGEST as u64 + 1).read_to_end(&mut list);
    read.map_err(|_| "it is cut off within the list of a directory")?;
    match list.len() > LONGEST {
        true => Err("the list of a directory in it has no end"),
        false => is_full(&list),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        for full in [&b""[..], b"\0", b"Ya\0Db\0\0", b"YN\0\0"] {
            assert_eq!(is_full(full), Ok(()));
        }
        for part in [&b"Ya\0Nb\0\0"[..], b"Ra\0Tb\0\0"] {
            assert_eq!(is_full(part), Err(PART));
        }
        assert!(is_full_list(&mut std::io::repeat(b'Y')).is_err());
    }
}

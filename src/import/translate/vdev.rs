// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of disks that are numbers: `d0p0`, and the number that the guest is told (xen-vbd-interface(7)).

use crate::import::Dialect;
use crate::import::value::strtol;

/// By its usual name, the disk that such a word stands for; `None` if it is no such word, or no name has that number.
pub(super) fn name(word: &str, dialect: Dialect) -> Option<String> {
    if let Some((disk, partition)) = word.strip_prefix('d').and_then(|rest| rest.split_once('p')) {
        return named("xvd", digits(disk)?, digits(partition)?);
    }
    let number = match dialect {
        Dialect::Xl => strtol(word).filter(|_| word.starts_with(|c: char| c.is_ascii_digit()))?,
        // Hexadecimal in any case (xen/util/blkif.py). What is all letters is a name.
        Dialect::Xm => {
            let digits = word.strip_prefix("0x").unwrap_or(word);
            let is_number = word.starts_with(|c: char| c.is_ascii_digit()) && !digits.starts_with('+');
            i64::from_str_radix(digits, 16).ok().filter(|_| is_number)?
        }
    };
    let number = u32::try_from(number).ok()?;
    let (major, minor) = (number >> 8, number & 0xff);
    match (number >> 28, major) {
        (1, _) => named("xvd", number >> 8 & 0xf_ffff, minor),
        (0, 202) => named("xvd", minor >> 4, minor & 15),
        (0, 8) => named("sd", minor >> 4, minor & 15),
        (0, 3) => named("hd", minor >> 6, minor & 63),
        (0, 22) => named("hd", 2 + (minor >> 6), minor & 63).filter(|_| minor >> 6 < 2),
        _ => None,
    }
    .filter(|_| major != 3 || minor >> 6 < 2)
}

fn digits(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

/// `xvdb2`: the second disk, and its second partition. Whether there can be such a one, the type of a name knows.
fn named(kind: &str, disk: u32, partition: u32) -> Option<String> {
    let letter = |index: u32| char::from(b'a' + (index % 26) as u8);
    let mut letters = String::from(letter(disk));
    let mut rest = disk / 26;
    while rest > 0 {
        letters.insert(0, letter(rest - 1));
        rest = (rest - 1) / 26;
    }
    let partition = if partition == 0 {
        String::new()
    } else {
        partition.to_string()
    };
    Some(format!("{kind}{letters}{partition}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names() {
        for (word, expected) in [
            ("d0p0", Some("xvda")),
            ("d1p2", Some("xvdb2")),
            ("d26p0", Some("xvdaa")),
            ("d701p255", Some("xvdzz255")),
            ("51712", Some("xvda")),
            ("51744", Some("xvdc")),
            ("0xca01", Some("xvda1")),
            ("0145001", Some("xvda1")),
            ("268439552", Some("xvdq")),
            ("2049", Some("sda1")),
            ("768", Some("hda")),
            ("833", Some("hdb1")),
            ("5632", Some("hdc")),
            ("0x1", None),
            ("1", None),
            ("xvda", None),
            ("d0", None),
            ("dap0", None),
            ("d+1p0", None),
            ("-1", None),
            ("4294967296", None),
        ] {
            assert_eq!(name(word, Dialect::Xl).as_deref(), expected, "{word}");
        }
        for (word, expected) in [
            ("ca01", None),
            ("0xca01", Some("xvda1")),
            ("51744", None),
            ("801", Some("sda1")),
            ("0x801", Some("sda1")),
        ] {
            assert_eq!(name(word, Dialect::Xm).as_deref(), expected, "{word}");
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of two versions is newer, for the versions in the names of kernels and Xen images. The order is
//! dpkg's (deb-version(7)), with a hyphen below every other separator and test versions below the release,
//! as grub-mkconfig has it; for the names of Fedora's kernels it gives what rpm gives.

use std::cmp::Ordering;

/// What marks a version as one before the release, after one of `.`, `_`, `-`.
const BEFORE_RELEASE: [&str; 6] = ["pre", "rc", "test", "git", "old", "trunk"];

/// Compares two versions; the newer one is `Greater`.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (normal(a), normal(b));
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let order = words(&mut a, &mut b).then_with(|| number(&mut a).cmp(&number(&mut b)));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// `6.12-rc1` as `6.12~rc1`.
fn normal(version: &str) -> String {
    let mut normal = String::with_capacity(version.len());
    for (at, char) in version.char_indices() {
        let rest = &version[at + char.len_utf8()..];
        let before = "._-".contains(char) && BEFORE_RELEASE.iter().any(|word| rest.starts_with(word));
        normal.push(if before { '~' } else { char });
    }
    normal
}

/// Compares up to the next digit of each, and moves behind what was compared.
fn words(a: &mut &[u8], b: &mut &[u8]) -> Ordering {
    loop {
        let (left, right) = (weight(a), weight(b));
        if left != right {
            return left.cmp(&right);
        }
        // Equal weights: the same character, or both at a digit or at the end.
        if left == END {
            return Ordering::Equal;
        }
        *a = &a[1..];
        *b = &b[1..];
    }
}

/// The weight of the end and of a digit; only `~` is below.
const END: u16 = 1;

fn weight(text: &[u8]) -> u16 {
    match text.first() {
        None => END,
        Some(c) if c.is_ascii_digit() => END,
        Some(b'~') => 0,
        Some(b'-') => 2,
        Some(c) if c.is_ascii_alphabetic() => u16::from(*c),
        Some(c) => u16::from(*c) + 256,
    }
}

/// Takes the digits off the front: how many count, and which. Numbers of any length compare so.
fn number<'a>(text: &mut &'a [u8]) -> (usize, &'a [u8]) {
    let length = text.iter().take_while(|c| c.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(length);
    *text = rest;
    let zeros = digits.iter().take_while(|c| **c == b'0').count();
    (length - zeros, &digits[zeros..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_before_newer() {
        // Each line from the oldest to the newest.
        for line in [
            "6.1.0-9-amd64 6.1.0-10-amd64 6.1.0-56-amd64 6.12.9-amd64",
            "5.10 6.1 6.9 6.10 6.10.1 6.100",
            "6.12~rc1-amd64 6.12-amd64",
            "6.12-rc1 6.12-rc2 6.12-rc10 6.12 6.12.0 6.12.1-rc1 6.12.1",
            "6.12.0-rc1-amd64 6.12.0-amd64",
            "6.10-trunk-amd64 6.10-amd64",
            "6.1.0-1-amd64.old 6.1.0-1-amd64",
            "4.17-amd64 4.17.2-amd64 4.18-rc3-amd64 4.18-amd64",
            "2.6.18 2.6.18-tt 2.6.18.8-tt 2.6.32",
            "6.11.5-300.fc41.x86_64 6.12.0-0.rc6.51.fc42.x86_64 6.12.0-55.fc42.x86_64 6.12.0-55.fc43.x86_64",
            "6.1 6.1-1 6.1a-1 6.1+deb12-1 6.1.1-1",
            "1~~ 1~ 1 1a",
            "9 10 99999999999999999999999999999998 99999999999999999999999999999999",
            // As in dpkg, letters come after digits.
            "4 tt",
        ] {
            let versions: Vec<&str> = line.split(' ').collect();
            for (i, a) in versions.iter().enumerate() {
                for (j, b) in versions.iter().enumerate() {
                    assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn equal_and_odd() {
        assert_eq!(compare("6.01", "6.1"), Ordering::Equal);
        assert_eq!(compare("", ""), Ordering::Equal);
        assert_eq!(compare("", "4"), Ordering::Less);
        assert_eq!(compare("", "~"), Ordering::Greater);
        assert_eq!(compare("ä", "ö"), Ordering::Less);
        assert_eq!(compare("-ärc1", "-ärc1"), Ordering::Equal);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of record and replay in QEMU's versions, on x86. The numbers are those of QEMU's issue tracker
//! (gitlab.com/qemu-project/qemu).

use super::Version;

/// The first two numbers of a version.
type Release = (u32, u32);

/// Versions that ttvm is tested with, whatever else is known of them.
const TESTED: [Release; 2] = [(7, 2), (10, 0)];

/// From which version on, up to which, and what is wrong.
const KNOWN: [(Release, Release, &str); 4] = [
    (
        (8, 0),
        (8, 2),
        "its replays stand still now and then (QEMU's issue 2010)",
    ),
    (
        (9, 0),
        (9, 1),
        "it cannot go backwards, and stands still when it begins at a checkpoint (QEMU's issues 2524 and 2634)",
    ),
    (
        (9, 2),
        (9, 2),
        "its replays stand still under load now and then (QEMU's issues 2094 and 2922)",
    ),
    (
        (10, 2),
        (u32::MAX, 0),
        "one replay in two went wrong after its change of November 2025 (QEMU's issue 3197)",
    ),
];

/// What is wrong with record and replay in this version; `None` if nothing is known that ttvm does not avoid.
pub fn known(version: &Version) -> Option<&'static str> {
    let release = version.release();
    let known = KNOWN.iter().find(|(from, to, _)| (*from..=*to).contains(&release));
    known.map(|(_, _, what)| *what)
}

/// Whether ttvm is tested with this version.
pub fn is_tested(version: &Version) -> bool {
    TESTED.contains(&version.release())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let of = |number: &str| Version::parse(&format!("QEMU emulator version {number} (x)")).expect("a version");
        for good in ["7.2.22", "10.0.3", "10.1.0"] {
            assert_eq!(known(&of(good)), None, "{good}");
        }
        for bad in ["8.0.0", "8.2.9", "9.0.1", "9.1.2", "9.2.0", "10.2.0", "11.0.0"] {
            assert!(known(&of(bad)).is_some(), "{bad}");
            assert!(!is_tested(&of(bad)), "{bad}");
        }
        assert!(is_tested(&of("7.2.22")) && !is_tested(&of("10.1.0")));
    }
}

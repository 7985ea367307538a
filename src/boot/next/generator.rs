// SPDX-License-Identifier: MIT OR Apache-2.0
//! systemd's generator that reads `systemd.wants=` from the kernel's command line, by which a try gets its deadline and its
//! verdict (systemd-debug-generator(8)).

use std::fs;
use std::path::{Path, PathBuf};

use crate::base::root::under;

const NAME: &str = "systemd-debug-generator";
/// One in an earlier directory counts (systemd.generator(7)).
const DIRECTORIES: [&str; 4] = [
    "/run/systemd/system-generators",
    "/etc/systemd/system-generators",
    "/usr/local/lib/systemd/system-generators",
    "/usr/lib/systemd/system-generators",
];

/// By what it is masked, if it is: a link to /dev/null or an empty file.
pub(super) fn masked(root: &Path) -> Option<PathBuf> {
    let mut places = DIRECTORIES.iter().map(|directory| Path::new(directory).join(NAME));
    let path = places.find(|path| under(root, path).symlink_metadata().is_ok())?;
    let real = under(root, &path);
    let is_masked = match fs::read_link(&real) {
        Ok(target) => target == Path::new("/dev/null"),
        Err(_) => fs::metadata(&real).is_ok_and(|data| data.len() == 0),
    };
    is_masked.then_some(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_first_one_counts() {
        let root = std::env::temp_dir().join(format!("ttvm-generator-{}", std::process::id()));
        let place = |number: usize| under(&root, &Path::new(DIRECTORIES[number]).join(NAME));
        for number in 0..DIRECTORIES.len() {
            fs::create_dir_all(place(number).with_file_name("")).expect("a directory");
        }
        let mut found = vec![masked(&root)];
        fs::write(place(3), "a program").expect("a file");
        found.push(masked(&root));
        symlink("/dev/null", place(1)).expect("a link");
        found.push(masked(&root));
        fs::write(place(0), "").expect("a file");
        found.push(masked(&root));
        fs::write(place(0), "another program").expect("a file");
        found.push(masked(&root));
        fs::remove_dir_all(&root).expect("it goes");
        let of = |number: usize| Some(Path::new(DIRECTORIES[number]).join(NAME));
        assert_eq!(found, [None, None, of(1), of(0), None]);
    }
}

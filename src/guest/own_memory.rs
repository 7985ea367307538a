// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory of a program that has done its work and only waits from now on: of supervisors there is one for each guest.

use std::fs;
use std::io;
use std::ops::Range;

use nix::errno::Errno;
use nix::libc;

/// Gives back what was needed to come this far: free memory of the allocator, and pages of programs and libraries, which are
/// read again where they are needed again. It makes nothing fail: what cannot be given back is kept.
pub fn give_back() {
    let forgotten = clean_mappings().and_then(|clean| clean.into_iter().try_for_each(forget));
    if let Err(error) = forgotten {
        tracing::debug!("the memory of this program is not made smaller: {error}");
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches nothing but what the allocator itself holds free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Where files are mapped of which no page was changed, as proc_pid_smaps(5) has them: one that was is a page of nobody's file, in
/// memory ("Anonymous", whether it is dirty or was read in again) or swapped out.
fn clean_mappings() -> io::Result<Vec<Range<usize>>> {
    Ok(clean_of(&fs::read_to_string("/proc/self/smaps")?))
}

fn clean_of(smaps: &str) -> Vec<Range<usize>> {
    let mut clean = Vec::new();
    let mut mapping = None;
    let mut nothing_changed = false;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        if let Some(found) = mapping_of(line) {
            (mapping, nothing_changed) = (found, false);
        } else if let (Some(key @ ("Anonymous:" | "Swap:")), Some(kib)) = (words.next(), words.next()) {
            // The second stands behind the first.
            match key {
                "Anonymous:" => nothing_changed = kib == "0",
                _ if nothing_changed && kib == "0" => clean.extend(mapping.take()),
                _ => {}
            }
        }
    }
    clean
}

/// Which addresses a line is the head of, if they are of a file and cannot be written; `None` of other lines.
fn mapping_of(line: &str) -> Option<Option<Range<usize>>> {
    let mut words = line.split_whitespace();
    let (begin, end) = words.next()?.split_once('-')?;
    let address = |digits| usize::from_str_radix(digits, 16).ok();
    let addresses = address(begin)?..address(end)?;
    let permissions = words.next()?;
    // Behind its offset and its device.
    let inode = words.nth(2)?;
    let is_file = inode != "0" && !permissions.contains('w');
    Some(is_file.then_some(addresses))
}

fn forget(mapping: Range<usize>) -> io::Result<()> {
    // SAFETY: the pages are those of a file, as they were read, and nobody can write to them: whoever needs one next reads it
    // again (madvise(2), MADV_DONTNEED).
    let done = unsafe { libc::madvise(mapping.start as *mut libc::c_void, mapping.len(), libc::MADV_DONTNEED) };
    Ok(Errno::result(done).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_as_they_were_read() {
        let smaps = "\
55d0a0000000-55d0a002d000 r--p 00000000 fd:00 1234  /usr/libexec/ttvm/ttvm-guest
Rss:                 180 kB
Anonymous:             0 kB
Swap:                  0 kB
SwapPss:               0 kB
55d0a002d000-55d0a00e1000 r-xp 0002d000 fd:00 1234  /usr/libexec/ttvm/ttvm-guest
Private_Dirty:       716 kB
Anonymous:             0 kB
Swap:                  0 kB
55d0a00e2000-55d0a00ea000 r--p 000e0000 fd:00 1234  /usr/libexec/ttvm/ttvm-guest
Private_Dirty:         0 kB
Anonymous:            32 kB
Swap:                  0 kB
7f0000000000-7f0000004000 r--p 000e0000 fd:00 1235  /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
Anonymous:             0 kB
Swap:                 16 kB
55d0a00eb000-55d0a00ec000 rw-p 000e8000 fd:00 1234  /usr/libexec/ttvm/ttvm-guest
Anonymous:             0 kB
Swap:                  0 kB
55d0a1000000-55d0a1021000 rw-p 00000000 00:00 0     [heap]
Anonymous:             0 kB
Swap:                  0 kB
7ffd5d3f0000-7ffd5d3f2000 r-xp 00000000 00:00 0     [vdso]
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me de sd
";
        assert_eq!(
            clean_of(smaps),
            [0x55d0_a000_0000..0x55d0_a002_d000, 0x55d0_a002_d000..0x55d0_a00e_1000]
        );
    }

    #[test]
    fn the_program_goes_on_with_less() {
        let files = || {
            let status = fs::read_to_string("/proc/self/status").expect("proc");
            let line = status
                .lines()
                .find(|line| line.starts_with("RssFile:"))
                .expect("RssFile");
            let kib = line.split_whitespace().nth(1).expect("a number");
            kib.parse::<u64>().expect("a number")
        };
        let before = files();
        give_back();
        let after = files();
        assert!(after < before, "{after} KiB of {before} are left");
    }
}

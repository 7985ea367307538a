// SPDX-License-Identifier: MIT OR Apache-2.0
//! Archives that are not what was packed, or not any more what was looked through.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};

use super::killed::stopped_at;
use super::{Place, sh};

const DAMAGED: &str = "cannot be used: it is damaged, cut off, or no tar archive (";

/// What tar reads of them is right, or at least content: only the sum behind it says that it is not.
#[test]
fn packed_and_damaged() {
    let place = Place::new("damaged");
    sh("head -c 300000 /dev/urandom >noise", &place.path("src"));
    for program in ["gzip", "xz", "zstd", "bzip2"] {
        if !Path::new("/usr/bin").join(program).exists() {
            eprintln!("skipped: there is no {program}");
            continue;
        }
        sh(&format!("tar -C src -c noise | {program} >whole"), &place.0);
        let whole = fs::read(place.path("whole")).expect("an archive");
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 4;
        for damaged in [&flipped[..], &whole[..whole.len() - 5]] {
            fs::write(place.path("x"), damaged).expect("an archive");
            let said = place.session("--size 64M --from DIR/x --file DIR/image");
            assert!(
                said.starts_with(&format!("ttvm: DIR/x {DAMAGED}")) && said.ends_with("[4]"),
                "{program}: {said}"
            );
            assert_eq!(place.rest(), ["whole", "x"]);
        }
        place.made("--size 64M --from DIR/whole");
        fs::remove_file(place.path("image")).expect("the image goes");
        fs::remove_file(place.path("whole")).expect("the archive goes");
        fs::remove_file(place.path("x")).expect("the archive goes");
    }
}

/// Another archive is written over it between the two times that it is read.
#[test]
fn changed_meanwhile() {
    let place = Place::new("damaged-meanwhile");
    place.file("one", "one");
    place.file("two", "two");
    sh("tar -C src -cf x.tar one two; tar -C src -cf y.tar one one", &place.0);
    let line = "--size 64M --from DIR/x.tar --file DIR/image";
    let (child, pid) = stopped_at(&place, line, "create.file-system");
    let other = fs::read(place.path("y.tar")).expect("an archive");
    let archive = File::options().write(true).open(place.path("x.tar"));
    archive.expect("the archive").write_all_at(&other, 0).expect("data");
    kill(pid, Signal::SIGCONT).expect("a signal");
    assert_eq!(
        place.said(&child.wait_with_output().expect("it ends")),
        "ttvm: DIR/x.tar cannot be used: it was changed while it was read: see that nobody works on it and try again\n[4]"
    );
    assert_eq!(place.rest(), ["x.tar", "y.tar"]);
}

/// Nothing of the archive is to be copied, so there is no progress in which a signal would be seen.
#[test]
fn told_to_end_with_nothing_to_copy() {
    let place = Place::new("damaged-signal");
    place.file("large", vec![1; 1 << 20]);
    sh("tar -C src -c large | gzip >x.tar.gz", &place.0);
    let line = "--size 64M --from DIR/x.tar.gz --file DIR/image --exclude large";
    let (child, pid) = stopped_at(&place, line, "create.file-system");
    kill(pid, Signal::SIGINT).expect("a signal");
    kill(pid, Signal::SIGCONT).expect("a signal");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(
        output.status.signal(),
        Some(Signal::SIGINT as i32),
        "{}",
        place.said(&output)
    );
    assert_eq!(place.rest(), ["x.tar.gz"]);
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything odd that a file can be comes into the image as it is.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::{Place, is_root, set_mode, sh};

/// Directories that the guest needs; in the source they are there already.
const NEEDED: [&str; 6] = ["proc", "sys", "dev", "run", "tmp", "mnt"];

/// What anybody can make.
fn odd(place: &Place) {
    let src = place.path("src");
    for name in NEEDED {
        fs::create_dir_all(src.join(name)).expect("a directory");
    }
    // Small files, so that there are several in each directory and directories in several blocks of inodes.
    for directory in 0..250 {
        let directory = src.join(format!("many/{directory}"));
        fs::create_dir_all(&directory).expect("a directory");
        for file in 0..400 {
            fs::write(directory.join(format!("file-{file}")), format!("{file}\n")).expect("a file");
        }
    }
    // A file of many pieces.
    let pieces = File::create(src.join("pieces")).expect("a file");
    for at in 0..2000 {
        pieces.write_all_at(b"x", at * 3 * 4096).expect("data");
    }
    for (name, size) in [("empty", 0), ("block", 4096), ("more", 4097), ("large", 3_000_001)] {
        let content: Vec<u8> = (0..size as u32).map(|byte| (byte % 251) as u8).collect();
        fs::write(src.join(name), content).expect("a file");
    }
    // A farm of hard links, over directories.
    for file in 0..100 {
        let first = src.join(format!("farm/0/{file}"));
        fs::create_dir_all(src.join("farm/0")).expect("a directory");
        fs::write(&first, format!("linked {file}")).expect("a file");
        for other in 1..20 {
            fs::create_dir_all(src.join(format!("farm/{other}"))).expect("a directory");
            fs::hard_link(&first, src.join(format!("farm/{other}/{file}"))).expect("a link");
        }
    }
    let names: [&[u8]; 6] = [b"new\nline", b"\xff\xfe", b"-rf", b" ", b"\\x\"'$", &[b'n'; 255]];
    for name in names {
        fs::write(src.join(OsStr::from_bytes(name)), name).expect("a file");
    }
    for (name, length) in [("link-59", 59), ("link-60", 60), ("link-4000", 4000)] {
        symlink("t".repeat(length), src.join(name)).expect("a link");
    }
    fs::hard_link(src.join("link-60"), src.join("link-60-again")).expect("a link to a link");
    symlink("/nowhere", src.join("dangling")).expect("a link");
    UnixListener::bind(src.join("socket")).expect("a socket");
    sh(
        "mkfifo fifo; mkdir -p a/b/c/d/e/f; setfattr -n user.x -v y a 2>/dev/null || :",
        &src,
    );
    // Before 1970, after 2038, and to the nanosecond.
    let epoch = SystemTime::UNIX_EPOCH;
    for (name, time) in [
        ("empty", epoch - Duration::new(1_000_000, 5)),
        ("block", epoch + Duration::new(7_000_000_000, 123_456_789)),
        ("more", epoch + Duration::from_nanos(1)),
    ] {
        let file = File::options().write(true).open(src.join(name)).expect("the file");
        file.set_modified(time).expect("its time");
    }
    set_mode(&src.join("large"), 0o7555);
    set_mode(&src.join("tmp"), 0o1777);
    set_mode(&src.join("a"), 0o2750);
}

/// What only root can make.
fn odder(place: &Place) {
    let script = "
        mknod null c 1 3; mknod large-numbers b 259 70000
        chown 12345:67890 more; chown 4000000000:4000000001 block; chown 1:2 a/b; chmod 4755 more
        chown -h 7:8 dangling
        cp large capable; setcap cap_net_raw,cap_net_admin+ep capable
        setfacl -m u:1234:r--,g:5678:rw- block; setfacl -d -m u:99:rwx a
        python3 - <<'END'
import os
os.setxattr('empty', 'trusted.x', b'\\0\\n\\xff')
os.setxattr('empty', 'user.long', b'v' * 1500)
os.setxattr('a/b', 'user.directory', b'1')
os.setxattr('link-60', 'trusted.of-a-link', b'2', follow_symlinks=False)
os.setxattr('fifo', 'trusted.of-a-pipe', b'', follow_symlinks=False)
for number in range(20): os.setxattr('large', f'user.number-{number}', str(number).encode() * number)
END
        touch -d '2001-02-03 04:05:06.789' a/b";
    sh(script, &place.path("src"));
}

#[test]
fn every_odd_thing() {
    let place = Place::new("odd");
    odd(&place);
    if !is_root() {
        place.made("--size 1G --from DIR/src --keep all");
        assert!(place.has("/pieces") && place.has("/farm/19/99"));
        return;
    }
    odder(&place);
    for kind in ["ext4", "ext3"] {
        let _ = fs::remove_file(place.path("image"));
        let said = place.made(&format!("--size 1G --from DIR/src --keep all --fs {kind}"));
        assert!(!said.contains("could not") && !said.contains("lost"), "{said}");
        assert_eq!(place.differences(), "", "{kind}");
        // Once is enough of what takes long.
        let _ = fs::remove_dir_all(place.path("src/many"));
    }
}

/// Holes at the beginning, in between and at the end of 10 GB. They are not read to be compared, here as in the copy.
#[test]
fn a_large_file_with_holes() {
    let place = Place::new("sparse");
    let sparse = File::create(place.file("sparse", "")).expect("a file");
    sparse.set_len(10 << 30).expect("its size");
    for at in [5 << 20, (7 << 30) + 12_345] {
        sparse.write_all_at(&[7; 10_000], at).expect("data");
    }
    place.made("--size 64M --from DIR/src");
    let used = fs::metadata(place.path("image")).expect("the image").blocks() * 512;
    assert!(used < 16 << 20, "{used}");
    if !is_root() {
        return;
    }
    let script = "mkdir mnt && mount -o loop,ro image mnt && python3 - <<'END'
import os
pair = [open(f'{place}/sparse', 'rb', 0) for place in ('src', 'mnt')]
assert len({os.fstat(file.fileno()).st_size for file in pair}) == 1
pieces = 0
for one, other in (pair, pair[::-1]):
    at = 0
    while True:
        try: at = os.lseek(one.fileno(), at, os.SEEK_DATA)
        except OSError: break
        end = os.lseek(one.fileno(), at, os.SEEK_HOLE)
        assert os.pread(one.fileno(), end - at, at) == os.pread(other.fileno(), end - at, at), at
        pieces, at = pieces + 1, end
print(pieces)
END";
    let said = place.said(&place.privately(script));
    assert_eq!(said, "4\n[0]");
}

/// More files than a usual group of blocks has inodes for; and more in one directory than one block of names holds.
#[test]
fn very_many_in_little_room() {
    let place = Place::new("small");
    for number in 0..40_000 {
        place.file(
            &format!("{}/{number}", if number < 5000 { "large" } else { "other" }),
            "",
        );
    }
    for kind in ["ext4", "ext2"] {
        let said = place.made(&format!("--size 48M --from DIR/src --fs {kind}"));
        assert!(said.contains("with 40"), "{said}");
        assert!(place.has("/large/4999") && place.has("/other/39999"), "{said}");
        fs::remove_file(place.path("image")).expect("the image goes");
    }
}

/// The directories under mounts come with their own modes, not with those of what is mounted on them, and without that.
#[test]
fn mounts_in_mounts() {
    if !is_root() {
        return;
    }
    let place = Place::new("mounts");
    let src = place.path("src");
    for name in NEEDED.into_iter().chain(["m"]) {
        fs::create_dir_all(src.join(name)).expect("a directory");
    }
    place.file("under/hidden", "");
    place.file("here", "here");
    set_mode(&src.join("m"), 0o710);
    let script = "set -e
        for level in 1 2 3 4; do m=${m:-src}/m; mount -t tmpfs -o mode=777 level-$level $m; echo $level >$m/file; mkdir $m/m; done
        mount --bind src/dev src/proc; mount --bind src/here src/run/.. 2>/dev/null || :
        before=$(cat /proc/self/mountinfo)
        \"$TTVM\" --root \"$DIR\" image create clientA --file image --size 64M --from src --keep all
        test \"$before\" = \"$(cat /proc/self/mountinfo)\"";
    let output = place.privately(script);
    let said = place.said(&output);
    assert!(said.contains("DIR/image is made: 64M, ext4, with 11 files"), "{said}");
    super::sound(&place.path("image"));
    assert_eq!(place.differences(), "");
}

/// A subvolume of btrfs is a part of the tree, if it is not mounted there. Numbers of its files are of it alone.
#[test]
fn subvolumes() {
    let place = Place::new("subvolumes");
    let made = "PATH=$PATH:/usr/sbin; command -v mkfs.btrfs btrfs && grep -wq btrfs /proc/filesystems";
    if !is_root() || !place.privately(made).status.success() {
        return eprintln!("skipped: nobody makes a btrfs here");
    }
    let script =
        "set -e; PATH=$PATH:/usr/sbin; truncate -s 128M disk; mkfs.btrfs -q disk; mkdir pool mnt; mount -o loop disk pool
        btrfs -q subvolume create pool/a; btrfs -q subvolume create pool/a/b; btrfs -q subvolume create pool/c
        echo pool >pool/x; ln pool/x pool/y; echo a >pool/a/x; ln pool/a/x pool/a/y; echo b >pool/a/b/x; echo c >pool/c/x
        mkdir pool/.snapshots; btrfs -q subvolume snapshot -r pool/a pool/.snapshots/1
        mkdir pool/c/m; mount --bind pool/a pool/c/m
        \"$TTVM\" --root \"$DIR\" image create clientA --file image --size 64M --from pool
        mount -o loop,ro image mnt; umount pool/c/m
        for name in x y a/x a/y a/b/x c/x; do cmp pool/$name mnt/$name; done
        test $(stat -c %h mnt/x) = 2; test $(stat -c %h mnt/a/x) = 2; test $(stat -c %i mnt/x) != $(stat -c %i mnt/a/x)
        ls mnt/.snapshots mnt/c/m";
    let said = place.said(&place.privately(script));
    assert!(said.contains("left out: snapshots (1)\n"), "{said}");
    assert!(said.ends_with("mnt/.snapshots:\n\nmnt/c/m:\n[0]"), "{said}");
    super::sound(&place.path("image"));
}

/// Where the source's blocks are smaller than ours, data begins in the middle of one.
#[test]
fn small_blocks() {
    let place = Place::new("small-blocks");
    if !is_root() {
        return;
    }
    let script =
        "set -e; truncate -s 8M disk; /usr/sbin/mke2fs -q -b 1024 disk; mkdir small mnt; mount -o loop disk small
        dd if=/dev/urandom of=small/x bs=1k seek=5 count=1 2>/dev/null; truncate -s 1M small/x
        timeout -k 1 60 $TTVM image create clientA --size 64M --file image --from small --keep all
        mount -o loop,ro image mnt; cmp small/x mnt/x";
    let output = place.privately(script);
    assert!(output.status.success(), "{}", place.said(&output));
}

/// Deeper than a stack, and than a process may have files open.
#[test]
fn very_deep() {
    let place = Place::new("deep");
    let script = "
import os
os.chdir('src')
for level in range(4000):
    open('f', 'w').write(str(level))
    os.mkdir('d')
    os.chdir('d')
os.chdir('..')
open('z', 'w')";
    let status = Command::new("python3")
        .args(["-c", script])
        .current_dir(&place.0)
        .status();
    assert!(status.expect("python3 runs").success());
    let limited = |descriptors: u32| {
        let mut command = Command::new("prlimit");
        let inner = place.command("--file DIR/image --size 64M --from DIR/src --keep all");
        command
            .arg(format!("--nofile={descriptors}"))
            .arg(inner.get_program())
            .args(inner.get_args());
        place.said(&command.output().expect("prlimit runs"))
    };
    let said = limited(40);
    assert!(
        said.starts_with("ttvm: too many files are open: raise the limit"),
        "{said}"
    );
    let said = limited(512);
    assert!(
        said.contains("with 8008 files") && !said.contains("could not"),
        "{said}"
    );
    super::sound(&place.path("image"));
    sh("rm -r src", &place.0);
}

/// A host whose /var is a file system of its own is not whole without it: whoever asks, and whoever reads the answer, is told.
#[test]
fn file_systems_of_their_own() {
    if !is_root() {
        return;
    }
    let place = Place::new("mounts-own");
    let script = "set -e; mkdir -p src/var src/tmp; truncate -s 8M disk; PATH=$PATH:/usr/sbin; mke2fs -q disk
        mount -o loop disk src/var; echo data >src/var/file; mount -t tmpfs none src/tmp
        for option in --dry-run ''; do
            \"$TTVM\" --root \"$DIR\" image create clientA --file image --size 64M --from src $option
        done";
    let said = place.said(&place.privately(script));
    for part in [
        "leave out what is mounted there at 2 places\n",
        "leave out file systems of their own: /var\n",
        "left out: file systems of their own (1): /var\n",
        "left out: what is mounted there (1)\n",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(place.has("/var") && !place.has("/var/file"));
}

/// A mount that is under another one is no mount of the directory that has its path now.
#[test]
fn mounts_under_others() {
    if !is_root() {
        return;
    }
    let place = Place::new("mounts-hidden");
    let script =
        "set -e; mkdir -p m; mount -t tmpfs one m; mkdir m/sub; mount -t tmpfs two m/sub; mount -t tmpfs three m
        mkdir m/sub m/own; echo data >m/sub/file; mount -t tmpfs four m/own; echo foreign >m/own/file
        \"$TTVM\" --root \"$DIR\" image create clientA --file image --size 64M --from m --keep all";
    let said = place.said(&place.privately(script));
    assert!(
        said.contains("left out: what is mounted there (1)\n") && said.ends_with("[0]"),
        "{said}"
    );
    assert_eq!(place.content("/sub/file"), "data\n");
    assert!(place.has("/own") && !place.has("/own/file"));
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What members of archives can be besides files, and what is said of them twice or falsely.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use tar::{Builder, EntryType};

use super::{Place, debugfs, header, sh};

type Archive = Builder<File>;

/// An archive `x.tar` that `fill` fills.
fn archive(place: &Place, fill: impl FnOnce(&mut Archive) -> io::Result<()>) {
    let mut builder = Builder::new(File::create(place.path("x.tar")).expect("a file"));
    fill(&mut builder).expect("members");
    builder.into_inner().expect("an archive");
}

fn file(archive: &mut Archive, path: &str, content: &[u8]) -> io::Result<()> {
    let mut header = header();
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content)
}

fn refused(place: &Place, why: &str) {
    place.says(
        "--size 64M --from DIR/x.tar --file DIR/image",
        &format!("ttvm: DIR/x.tar cannot be used: {why}\n[4]"),
    );
}

/// A header of type `g`, with what holds for all members.
fn global(archive: &mut Archive, record: &str) -> io::Result<()> {
    let mut head = header();
    head.set_entry_type(EntryType::XGlobalHeader);
    head.set_size(record.len() as u64);
    head.set_path("pax_global_header")?;
    head.set_cksum();
    archive.append(&head, record.as_bytes())
}

#[test]
fn global_headers_and_labels() {
    let place = Place::new("global");
    archive(&place, |archive| {
        global(archive, "19 comment=0123456\n")?;
        archive.append_pax_extensions([("path", &b"a\nb"[..])])?;
        file(archive, "x", b"first")?;
        global(archive, "19 comment=0123456\n")?;
        archive.append_pax_extensions([("uid", &b"77"[..])])?;
        file(archive, "y", b"second")
    });
    place.made("--size 64M --from DIR/x.tar");
    assert_eq!(place.content("/y"), "second");
    assert!(debugfs(&place.path("image"), "stat /y").contains("User:    77"));
    assert!(!place.has("/pax_global_header") && !place.has("/x"));
    fs::remove_file(place.path("image")).expect("the image goes");
    archive(&place, |archive| {
        global(archive, "9 uid=77\n")?;
        file(archive, "x", b"")
    });
    refused(
        &place,
        "it has a global header with \"uid\" for all its files, which is not understood: unpack it and pack it anew",
    );
    place.file("labelled", "content");
    for format in ["gnu", "pax"] {
        sh(
            &format!("tar -C src --format={format} --label=backup -cf x.tar labelled"),
            &place.0,
        );
        place.made("--size 64M --from DIR/x.tar");
        assert_eq!(place.content("/labelled"), "content");
        assert!(!place.has("/backup"));
        fs::remove_file(place.path("image")).expect("the image goes");
    }
}

#[test]
fn what_heads_say_falsely() {
    let place = Place::new("false-heads");
    archive(&place, |archive| {
        archive.append_pax_extensions([("linkpath", &b"a\0b"[..])])?;
        let mut link = header();
        link.set_entry_type(EntryType::Symlink);
        archive.append_link(&mut link, "link", "x")
    });
    refused(&place, "/link: it leads to a name with a zero in it");
    archive(&place, |archive| {
        archive.append_pax_extensions([("uid", &b"4294967295"[..])])?;
        file(archive, "x", b"")
    });
    refused(
        &place,
        "/x: it belongs to 4294967295, which is more than an owner can be",
    );
    archive(&place, |archive| {
        let list = (
            "SCHILY.xattr.system.posix_acl_access",
            &b"\x02\0\0\0\x07\0\x07\0\0\0\0\0"[..],
        );
        archive.append_pax_extensions([list])?;
        file(archive, "x", b"")
    });
    refused(&place, "/x: its access list is damaged");
    archive(&place, |archive| {
        archive.append_pax_extensions([
            ("SCHILY.xattr.user.x", &b"old"[..]),
            ("SCHILY.xattr.user.y", &b"other"[..]),
            ("SCHILY.xattr.user.x", &b"new"[..]),
        ])?;
        file(archive, "x", b"")
    });
    place.made("--size 64M --from DIR/x.tar");
    let listed = debugfs(&place.path("image"), "ea_list /x");
    assert_eq!(listed.matches("user.x").count(), 1, "{listed}");
    assert!(
        listed.contains("user.x (3) = \"new\"") && listed.contains("user.y"),
        "{listed}"
    );
}

/// What ends at the end of a member may be the beginning of what it was.
#[test]
fn cut_between_members() {
    let place = Place::new("cut");
    archive(&place, |archive| {
        file(archive, "x", b"content")?;
        file(archive, "y", b"")
    });
    let end = fs::metadata(place.path("x.tar")).expect("the archive").len() - 1024;
    let cut = File::options()
        .write(true)
        .open(place.path("x.tar"))
        .expect("the archive");
    cut.set_len(end).expect("it is cut");
    refused(
        &place,
        "it is cut off: what says that it is whole is missing at its end",
    );
}

/// Holes are not read where none is needed: 500G at the end, 64M in between, with more pieces than a head has room for.
#[test]
fn holes_in_archives() {
    let place = Place::new("holes");
    let sparse = File::create(place.file("sparse", "")).expect("a file");
    sparse.set_len(500 << 30).expect("its size");
    for piece in 0..40 {
        sparse.write_all_at(&[7; 5000], piece * 100_000).expect("data");
    }
    sparse.write_all_at(b"end", 64 << 20).expect("data");
    place.file("z", "after it");
    for format in [
        "--format=gnu",
        "--format=pax",
        "--sparse-version=0.1",
        "--sparse-version=0.0",
    ] {
        sh(&format!("tar -C src {format} -Scf x.tar sparse z"), &place.0);
        let said = place.made("--size 8M --from DIR/x.tar");
        assert!(said.contains(" files (0.4 MB)"), "{format}: {said}");
        assert_eq!(place.content("/z"), "after it");
        sh(
            "PATH=$PATH:/usr/sbin; head -c 70000000 src/sparse >begin; debugfs -R 'cat /sparse' image 2>/dev/null | head -c 70000000 | cmp begin -",
            &place.0,
        );
        assert!(debugfs(&place.path("image"), "stat /sparse").contains(&format!("Size: {}", 500_u64 << 30)));
        fs::remove_file(place.path("image")).expect("the image goes");
        place.made("--size 8M --from DIR/x.tar --exclude sparse");
        fs::remove_file(place.path("image")).expect("the image goes");
    }
    // Cut off within what says where the data is.
    sh("tar -C src --format=pax -Sc sparse | head -c 2100 >x.tar", &place.0);
    refused(&place, "what it says of the holes of a file cannot be");
}

#[test]
fn swap_files_in_archives() {
    let place = Place::new("swap");
    let mut swap = vec![0; 40_960];
    swap[4086..4096].copy_from_slice(b"SWAPSPACE2");
    let other = vec![0; 40_960];
    archive(&place, |archive| {
        file(archive, "swap", &swap)?;
        let mut link = header();
        link.set_entry_type(EntryType::Link);
        archive.append_link(&mut link, "again", "swap")?;
        file(archive, "d/other", &other)
    });
    let said = place.made("--size 64M --from DIR/x.tar");
    assert!(said.contains("left out: swap files (2)\n"), "{said}");
    assert!(!place.has("/swap") && !place.has("/again") && place.has("/d/other"));
    assert!(debugfs(&place.path("image"), "stat /d/other").contains("Size: 40960"));
    fs::remove_file(place.path("image")).expect("the image goes");
    let said = place.made("--size 64M --from DIR/x.tar --exclude /swap");
    assert!(!place.has("/again"), "{said}");
    fs::remove_file(place.path("image")).expect("the image goes");
    place.made("--size 64M --from DIR/x.tar --keep swap");
    assert!(place.content("/again").ends_with('\0') && place.content("/again").contains("SWAPSPACE2"));
}

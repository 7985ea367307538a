// SPDX-License-Identifier: MIT OR Apache-2.0
//! Archives as a source: those that tar makes, and those that somebody made to do harm.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;

use tar::{Builder, EntryType, Header};

use super::{Place, is_root, sh};

#[test]
fn whatever_tar_makes() {
    let place = Place::new("archives");
    for name in ["proc", "sys", "dev", "run", "tmp", "mnt"] {
        fs::create_dir_all(place.path("src").join(name)).expect("a directory");
    }
    let first = place.file("a/file", "content");
    fs::hard_link(&first, place.path("src/a/same")).expect("a link");
    fs::hard_link(&first, place.path("src/third")).expect("a link");
    place.file(&format!("{}/{}", "d".repeat(200), "f".repeat(200)), "long");
    place.file("new\nline", "x");
    place.file("large", vec![7; 3_000_000]);
    symlink("t".repeat(300), place.path("src/link")).expect("a link");
    sh(
        "mkfifo fifo; truncate -s 200M sparse; printf x | dd of=sparse bs=1 seek=1000000 conv=notrunc 2>/dev/null",
        &place.path("src"),
    );
    if is_root() {
        let script = "mknod null c 1 3; chown 1000:3000000 large; cp large capable; setcap cap_net_raw+ep capable; setfacl -m u:10:rwx third";
        sh(script, &place.path("src"));
    }
    for (name, command) in [
        ("gnu.tar", "tar -C src -Scf gnu.tar ."),
        (
            "pax.tar.gz",
            "tar -C src --format=pax --xattrs --xattrs-include='*' --acls -Sczf pax.tar.gz .",
        ),
        (
            "gnu.tar.zst",
            "cd src && tar -Sc proc sys run tmp mnt a d* large fifo link new* sparse third | zstd -q >../gnu.tar.zst",
        ),
        ("gnu.tar.xz", "tar -C src -Sc . | xz -0 >gnu.tar.xz"),
    ] {
        let packer = match name.rsplit('.').next() {
            Some("zst") => "/usr/bin/zstd",
            Some("xz") => "/usr/bin/xz",
            _ => "/bin/sh",
        };
        if !std::path::Path::new(packer).exists() {
            eprintln!("skipped: there is no {packer}");
            continue;
        }
        sh(command, &place.0);
        place.made(&format!("--size 64M --from DIR/{name} --keep all"));
        assert_eq!(place.content("/a/same"), "content");
        assert!(super::debugfs(&place.path("image"), "stat /third").contains("Links: 3"));
        if is_root() && name == "pax.tar.gz" {
            assert_eq!(place.differences(), "", "{name}");
        } else if is_root() {
            // Without attributes and parts of seconds, it has no more differences than tar's own work.
            let differences = place.differences();
            let content = differences
                .lines()
                .filter(|line| !line.starts_with(".") && !line.starts_with("*"));
            let content: Vec<&str> = content
                .filter(|line| line.contains("+") || line.contains("c"))
                .collect();
            let expected: &[&str] = if name == "gnu.tar.zst" {
                &["cD+++++++++ null", ">f+++++++++ capable"]
            } else {
                &[]
            };
            assert!(
                content
                    .iter()
                    .all(|line| expected.contains(line) || line.contains("f..")),
                "{name}: {differences}"
            );
        }
        fs::remove_file(place.path("image")).expect("the image goes");
    }
    // Excluded as from a directory.
    place.made("--size 64M --from DIR/gnu.tar --exclude /a --exclude large");
    assert!(!place.has("/a") && !place.has("/large") && place.has("/third"));
}

/// Access lists that are there as text only are the guest's own if it knows who is named there; if not, somebody is told.
#[test]
fn access_lists_as_text() {
    let place = Place::new("lists");
    place.file("plain", "");
    place.file("listed", "");
    place.file("d/file", "");
    place.file("etc/passwd", "root:x:0:0::/:\nuucp:x:10:10::/:\n");
    place.file("etc/group", "root:x:0:\nadm:x:4:\n");
    let made = std::process::Command::new("setfacl")
        .args(["-m", "u:10:rwx,g:4:r-x,d:g:4:r-x"])
        .arg(place.path("src/d"))
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: there are no access lists");
    }
    sh("setfacl -m u:10:rwx,u:3000000:r-- src/listed", &place.0);
    let lost =
        "lost access lists, which the archive has as text, of names that the guest has not (tar --xattrs keeps them): ";
    for (options, files, expected) in [
        ("--acls", "plain listed", Some("1 (/listed)\n")),
        ("--acls", "plain listed d", Some("2 (/listed, /d)\n")),
        ("--acls", "plain listed d etc", None),
        ("--acls --numeric-owner", "etc listed plain d", None),
        ("--acls --xattrs --xattrs-include=system.*", "plain listed d", None),
    ] {
        sh(
            &format!("tar -C src --format=pax {options} -cf x.tar {files}"),
            &place.0,
        );
        let said = place.made("--size 64M --from DIR/x.tar --keep all");
        match expected {
            Some(which) => assert!(said.contains(&format!("{lost}{which}")), "{options} {files}: {said}"),
            None => {
                assert!(!said.contains("lost"), "{options} {files}: {said}");
                if is_root() {
                    let script = "set -e; mkdir -p mnt; mount -o loop,ro image mnt
                        list() { cd $DIR/$1; getfacl -nR --omit-header listed plain d; }
                        (list src) >wanted; (list mnt) >there; diff wanted there";
                    let compared = place.privately(script);
                    assert!(
                        compared.status.success(),
                        "{options} {files}: {}",
                        place.said(&compared)
                    );
                }
            }
        }
        fs::remove_file(place.path("image")).expect("the image goes");
    }
}

/// An archive of these: a path that the tar crate would not take, a type, and where a link leads.
fn archive(place: &Place, members: &[(&str, EntryType, &str)]) {
    let mut builder = Builder::new(File::create(place.path("bad.tar")).expect("a file"));
    for (path, kind, target) in members {
        let mut header = Header::new_gnu();
        header.as_gnu_mut().expect("a header").name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().expect("a header").linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_size(0);
        for number in [Header::set_uid, Header::set_gid, Header::set_mtime] {
            number(&mut header, 0);
        }
        header.set_cksum();
        builder.append(&header, std::io::empty()).expect("a member");
    }
    builder
        .into_inner()
        .and_then(|mut file| file.flush())
        .expect("an archive");
}

#[test]
fn made_to_do_harm() {
    let place = Place::new("hostile");
    let (file, link, hard) = (EntryType::Regular, EntryType::Symlink, EntryType::Link);
    for (members, why) in [
        (
            &[("/etc/passwd", file, ""), ("etc/passwd", file, "")][..],
            "it has /etc/passwd twice: unpack it and pack it anew",
        ),
        (
            &[("a/../../b", file, "")],
            "\"a/../../b\" leads upwards: such archives are not unpacked",
        ),
        (
            &[("a", link, "/etc"), ("a/b", file, "")],
            "/a/b goes through /a, which is no directory",
        ),
        (
            &[("a", file, ""), ("a/b", file, "")],
            "/a/b goes through /a, which is no directory",
        ),
        (
            &[("a", hard, "/etc/shadow")],
            "/a is a link to /etc/shadow, which is no file before it",
        ),
        (&[("a", hard, "b")], "/a is a link to /b, which is no file before it"),
        (
            &[("a", file, ""), ("./a", file, "")],
            "it has /a twice: unpack it and pack it anew",
        ),
        (&[("a", link, "")], "/a: it leads nowhere"),
    ] {
        archive(&place, members);
        place.says(
            "--size 64M --from DIR/bad.tar --file DIR/image",
            &format!("ttvm: DIR/bad.tar cannot be used: {why}\n[4]"),
        );
    }
    // Links out of the root are links, and nobody follows them.
    archive(&place, &[("a", link, "../../../etc/passwd")]);
    place.made("--size 64M --from DIR/bad.tar");
    fs::remove_file(place.path("image")).expect("the image goes");
    // Names of `tar -P` are below the root of the image, as tar unpacks them: nothing of the host's is there.
    let absolute = [
        ("/", EntryType::Directory, ""),
        ("/etc/ttvm-absolute", file, ""),
        ("//etc/./other", hard, "/etc/ttvm-absolute"),
    ];
    archive(&place, &absolute);
    place.made("--size 64M --from DIR/bad.tar");
    fs::remove_file(place.path("image")).expect("the image goes");
    // Heads and paths without end.
    for (record, why) in [
        ("a/".repeat(4 << 20), "the heads of a file in it have no end"),
        ("a/".repeat(4000), "it has a path that is longer than one can be"),
    ] {
        archive(&place, &[("a", EntryType::XHeader, ""), ("b", file, "")]);
        let mut bytes = fs::read(place.path("bad.tar")).expect("the archive");
        let length = record.len() + 8;
        let digits = (length + 7).to_string().len();
        let text = format!("{} path={record}\n", record.len() + 7 + digits);
        bytes[124..136].copy_from_slice(format!("{:011o}\0", text.len()).as_bytes());
        bytes[148..156].copy_from_slice(b"        ");
        let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut padded = text.into_bytes();
        padded.resize(padded.len().next_multiple_of(512), 0);
        bytes.splice(512..512, padded);
        fs::write(place.path("bad.tar"), bytes).expect("an archive");
        let said = place.session("--size 64M --from DIR/bad.tar --file DIR/image");
        assert!(
            said.starts_with("ttvm: DIR/bad.tar cannot be used: ") && said.contains(why),
            "{said}"
        );
    }
    archive(&place, &[("a", link, "../../../etc/passwd")]);
    // Cut off.
    let mut head = fs::read(place.path("bad.tar")).expect("the archive");
    head.truncate(700);
    head[124..136].copy_from_slice(b"77777777777\0");
    fs::write(place.path("bad.tar"), &head).expect("an archive");
    let said = place.session("--size 64M --from DIR/bad.tar --file DIR/image");
    assert!(
        said.starts_with("ttvm: DIR/bad.tar cannot be used: it is damaged, cut off, or no tar archive ("),
        "{said}"
    );
    let noise: Vec<u8> = (0..20_000_u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    place.file("noise", noise);
    sh("tar -c noise | gzip | head -c 900 >cut.tar.gz", &place.path("src"));
    let said = place.session("--size 64M --from DIR/src/cut.tar.gz --file DIR/image");
    assert!(
        said.starts_with("ttvm: DIR/src/cut.tar.gz cannot be used: it is damaged, cut off"),
        "{said}"
    );
    assert_eq!(place.rest(), ["bad.tar"]);
}

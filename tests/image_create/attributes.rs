// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attributes that need both places there are for them, and those that have no place.

use super::{Place, debugfs, is_root, sh};

const SET: &str = "
    for name in dev proc sys run tmp mnt; do mkdir $name; done
    echo x >capable; chmod 640 capable; setfacl -m u:1234:rwx,g::--- capable
    setfattr -n user.big -v $(head -c 3900 /dev/zero | tr '\\0' b) capable; setfattr -n user.small -v $(head -c 60 /dev/zero | tr '\\0' s) capable
    setcap cap_net_raw+ep capable";

/// As `cp -a` on ext4 keeps them.
#[test]
fn in_both_places() {
    if !is_root() {
        return;
    }
    let place = Place::new("attributes");
    sh(SET, &place.path("src"));
    for kind in ["ext4", "ext3"] {
        let said = place.made(&format!("--size 64M --from DIR/src --keep all --fs {kind}"));
        assert!(!said.contains("lost"), "{said}");
        assert_eq!(place.differences(), "", "{kind}");
        std::fs::remove_file(place.path("image")).expect("the image goes");
    }
}

/// What is lost is said, it is the least one can do without, and nobody gains a right by it.
#[test]
fn without_a_place() {
    let place = Place::new("attributes-lost");
    let mut archive = tar::Builder::new(std::fs::File::create(place.path("x.tar")).expect("a file"));
    let mut header = super::header();
    header.set_mode(0o670);
    let mut add = |name: &str, records: &[(&str, &[u8])]| {
        let head = archive.append_pax_extensions(records.iter().copied());
        head.expect("a head");
        let appended = archive.append_data(&mut header, name, std::io::empty());
        appended.expect("a member");
    };
    let text = b"user::rw-,user:1234:rwx,group::---,mask::rwx,other::---".as_slice();
    add("text", &[("SCHILY.acl.access", text)]);
    let unknown = b"user::rw-,user:anna:rwx,group::---,mask::rwx,other::---".as_slice();
    add("unknown", &[("SCHILY.acl.access", unknown)]);
    // The owner, other users, the group, the mask, and the rest.
    let list = |users: u32| {
        let entry = |tag: u16, rights: u16, id: u32| {
            [
                [tag.to_le_bytes(), rights.to_le_bytes()].as_flattened(),
                &id.to_le_bytes(),
            ]
            .concat()
        };
        let mut list = [2_u32.to_le_bytes().to_vec(), entry(1, 6, u32::MAX)].concat();
        list.extend((0..users).flat_map(|user| entry(2, 7, user)));
        list.extend(
            [(4, 4), (16, 7), (32, 0)]
                .map(|(tag, rights)| entry(tag, rights, u32::MAX))
                .concat(),
        );
        list
    };
    let large = [b'x'; 4090];
    let name = "SCHILY.xattr.system.posix_acl_access";
    add("large", &[("SCHILY.xattr.user.large", &large), (name, &list(0))]);
    add("list", &[(name, &list(600))]);
    archive.into_inner().expect("an archive");
    let said = place.made("--size 64M --from DIR/x.tar --keep all");
    assert!(said.contains("lost extended attributes: 2 (/large"), "{said}");
    for (name, mode, is_kept) in [
        ("text", "0670", true),
        ("unknown", "0600", false),
        ("large", "0670", true),
        ("list", "0640", false),
    ] {
        let stat = debugfs(&place.path("image"), &format!("stat /{name}"));
        assert!(stat.contains(&format!("Mode:  {mode}")), "{name}: {stat}");
        assert_eq!(stat.contains("posix_acl_access"), is_kept, "{name}: {stat}");
    }
}

/// What SELinux and the drivers of older kernels look for: labels as GNU tar has them, and attributes of ext2 where its driver
/// looks, which is not the inode.
#[test]
fn labels() {
    let place = Place::new("attributes-labels");
    let mut archive = tar::Builder::new(std::fs::File::create(place.path("x.tar")).expect("a file"));
    let mut header = super::header();
    let label = ("RHT.security.selinux", &b"system_u:object_r:etc_t:s0"[..]);
    let other = ("SCHILY.xattr.security.selinux", &b"system_u:object_r:shadow_t:s0\0"[..]);
    let evm = ("SCHILY.xattr.security.evm", &b"x"[..]);
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    for (name, records) in [("etc", vec![label, evm]), ("etc/shadow", vec![label, other])] {
        archive.append_pax_extensions(records).expect("a head");
        archive
            .append_data(&mut header, name, std::io::empty())
            .expect("a member");
        header.set_entry_type(tar::EntryType::Regular);
    }
    archive.into_inner().expect("an archive");
    for (kind, block) in [("ext4", "File ACL: 0\n"), ("ext2", "File ACL: ")] {
        place.made(&format!("--size 64M --from DIR/x.tar --fs {kind}"));
        let stat = |path: &str| debugfs(&place.path("image"), &format!("stat {path}"));
        // A new file has that of its directory.
        for (path, label) in [
            ("/etc", "etc_t"),
            ("/etc/shadow", "shadow_t"),
            ("/etc/hostname", "etc_t"),
        ] {
            let stat = stat(path);
            assert!(
                stat.contains(&format!("\"system_u:object_r:{label}:s0\\000\"")),
                "{kind} {path}: {stat}"
            );
            assert!(
                stat.contains(block) && !stat.contains("security.evm"),
                "{kind} {path}: {stat}"
            );
            assert_eq!(stat.contains("File ACL: 0\n"), kind == "ext4", "{path}: {stat}");
        }
        std::fs::remove_file(place.path("image")).expect("the image goes");
    }
}

/// What attributes and lists of blocks take is known before: what is said to do does.
#[test]
fn room_for_them() {
    let place = Place::new("attributes-room");
    for number in 0..9000 {
        place.file(&format!("{}/{number}", number % 10), "x");
    }
    let set = "find . -type f -print0 | xargs -0 setfattr -n user.a -v $(head -c 300 /dev/zero | tr '\\0' a) 2>/dev/null || echo no >../no";
    sh(set, &place.path("src"));
    if place.path("no").exists() {
        return eprintln!("skipped: there are no attributes here");
    }
    let said = place.session("--size 8M --file DIR/image --from DIR/src");
    let (_, size) = said.split_once("--size ").expect(&said);
    let size = size.split(' ').next().expect("a size");
    place.made(&format!("--size {size} --from DIR/src"));
    std::fs::remove_file(place.path("image")).expect("the image goes");
    sh("rm -r src; mkdir src", &place.0);
    for number in 0..800 {
        place.file(&number.to_string(), vec![1; 52 << 10]);
    }
    for size in ["46500K", "47500K", "48500K", "49500K", "50500K", "51500K", "52500K"] {
        let said = place.session(&format!("--size {size} --file DIR/image --from DIR/src --fs ext3"));
        assert!(
            said.contains("is too small for") || said.ends_with("[0]"),
            "{size}: {said}"
        );
        let _ = std::fs::remove_file(place.path("image"));
    }
}

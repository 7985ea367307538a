// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is refused before anything is made, in these words.

use std::fs;

use super::{Place, debugfs, header, is_root, sh, sound};

#[test]
fn before_anything_is_made() {
    let place = Place::new("refused");
    place.file("etc/hostname", "x");
    let line = "--size 64M --from DIR/src --file DIR/image";
    fs::write(place.path("image"), "mine").expect("a file");
    place.says(
        line,
        "ttvm: DIR/image is there already: nothing was done; remove it, or choose another name\n[4]",
    );
    place.says(
        &format!("{line} --dry-run"),
        "ttvm: DIR/image is there already: nothing was done; remove it, or choose another name\n[4]",
    );
    fs::remove_file(place.path("image")).expect("the file goes");
    place.says(
        "--size 64M --from DIR/none --file DIR/image",
        "ttvm: cannot read the source DIR/none: see that it is there, and that you may read it\n  because: No such file or directory (os error 2)\n[1]",
    );
    place.says(
        "--size 64M --from DIR/src/etc/hostname --file DIR/image",
        "ttvm: DIR/src/etc/hostname is neither a directory nor a tar archive: --from takes /, a directory, or a file made by tar\n[2]",
    );
    place.says(
        "--size 64M --from /dev/null --file DIR/image",
        "ttvm: /dev/null is neither a directory nor a tar archive: --from takes /, a directory, or a file made by tar\n[2]",
    );
    place.says(
        "--size 64M --from DIR/src --file DIR/none/image",
        "ttvm: cannot make a file in DIR/none\n  because: No such file or directory (os error 2)\n[1]",
    );
    let large = fs::File::create(place.path("src/large")).expect("a file");
    std::io::copy(&mut std::io::Read::take(std::io::repeat(1), 70 << 20), &mut &large).expect("data");
    place.says(
        line,
        "ttvm: 64M is too small for 4 files, which take 71M: --size 128M would do\n[4]",
    );
    assert_eq!(place.rest(), [""; 0]);
    place.made("--size 128M --from DIR/src");
}

/// What no file of the file system can be.
#[test]
fn before_it_is_half_full() {
    let place = Place::new("bounds");
    let large = fs::File::create(place.file("srv/large", "")).expect("a file");
    if large.set_len(3 << 40).is_ok() {
        place.says(
            "--size 64M --from DIR/src --file DIR/image --fs ext3",
            "ttvm: /srv/large is larger than a file of ext3 can be (nearly 2T): leave it out with --exclude, or take --fs ext4\n[4]",
        );
        place.made("--size 64M --from DIR/src --fs ext3 --exclude large");
        fs::remove_file(place.path("image")).expect("the image goes");
        place.made("--size 64M --from DIR/src");
        fs::remove_file(place.path("image")).expect("the image goes");
    }
    fs::remove_dir_all(place.path("src/srv")).expect("it goes");
    let first = place.file("names/first", "");
    for number in 0..32_000 {
        fs::hard_link(&first, place.path("src/names").join(number.to_string())).expect("a link");
    }
    let said = place.session("--size 64M --from DIR/src --file DIR/image --fs ext2");
    assert!(
        said.ends_with(" has more than the 32000 names that ext2 can count (a directory has one in each of its own): leave some out with --exclude, or take --fs ext4\n[4]"),
        "{said}"
    );
    let mut archive = tar::Builder::new(fs::File::create(place.path("x.tar")).expect("a file"));
    let mut header = header();
    archive
        .append_data(&mut header, "first", std::io::empty())
        .expect("a member");
    header.set_entry_type(tar::EntryType::Link);
    for number in 0..65_000 {
        let linked = archive.append_link(&mut header, number.to_string(), "first");
        linked.expect("a member");
    }
    archive.into_inner().expect("an archive");
    place.says(
        "--size 64M --from DIR/x.tar --file DIR/image",
        "ttvm: /64999 has more than the 65000 names that ext4 can count (a directory has one in each of its own): leave some out with --exclude\n[4]",
    );
    // One name less, if the first one is left out.
    place.made("--size 64M --from DIR/x.tar --exclude /first");
    fs::remove_file(place.path("image")).expect("the image goes");
    assert_eq!(place.rest(), ["x.tar"]);
}

/// Directories that an archive has only in the names of files take room, too.
#[test]
fn implied_directories_are_counted() {
    let place = Place::new("implied");
    let mut archive = tar::Builder::new(fs::File::create(place.path("x.tar")).expect("a file"));
    for number in 0..3000 {
        let appended = archive.append_data(&mut header(), format!("d{number}/f"), std::io::empty());
        appended.expect("a member");
    }
    archive.into_inner().expect("an archive");
    place.says(
        "--size 10M --from DIR/x.tar --file DIR/image",
        "ttvm: 10M is too small for 6001 files, which take 13M: --size 24M would do\n[4]",
    );
    assert_eq!(place.rest(), ["x.tar"]);
    place.made("--size 64M --from DIR/x.tar --exclude /d7 --exclude /d8/f");
    assert!(!place.has("/d7") && place.has("/d8") && !place.has("/d8/f") && place.has("/d9/f"));
}

/// Nobody reads 17T of zeros to find that they cannot be there.
#[test]
fn holes_without_end() {
    let place = Place::new("endless");
    let mut archive = tar::Builder::new(fs::File::create(place.path("x.tar")).expect("a file"));
    let mut sparse = header();
    sparse.set_entry_type(tar::EntryType::GNUSparse);
    let size = 17_u64 << 40;
    let gnu = sparse.as_gnu_mut().expect("a header");
    // Numbers that are too large for octal digits begin with this bit.
    gnu.realsize[0] = 0x80;
    gnu.realsize[4..].copy_from_slice(&size.to_be_bytes());
    gnu.sparse[0].offset = gnu.realsize;
    gnu.sparse[0].numbytes[..11].copy_from_slice(b"00000000000");
    archive
        .append_data(&mut sparse, "endless", std::io::empty())
        .expect("a member");
    archive.into_inner().expect("an archive");
    place.says(
        "--size 64M --from DIR/x.tar --file DIR/image",
        "ttvm: /endless is larger than a file of ext4 can be (nearly 16T): leave it out with --exclude\n[4]",
    );
    assert_eq!(place.rest(), ["x.tar"]);
}

/// Numbers of an owner that no file system has.
#[test]
fn owners_are_not_cut() {
    let place = Place::new("owners");
    for (is_extended, name) in [(false, "x.tar"), (true, "pax.tar")] {
        let mut archive = tar::Builder::new(fs::File::create(place.path(name)).expect("a file"));
        let mut header = header();
        match is_extended {
            true => {
                let head = archive.append_pax_extensions([("uid", &b"99999999999"[..])]);
                head.expect("a head");
            }
            false => header.set_uid(99_999_999_999),
        }
        let appended = archive.append_data(&mut header, "a", std::io::empty());
        appended.expect("a member");
        archive.into_inner().expect("an archive");
        place.says(
            &format!("--size 64M --from DIR/{name} --file DIR/image"),
            &format!("ttvm: DIR/{name} cannot be used: /a: it belongs to 99999999999, which is more than an owner can be\n[4]"),
        );
    }
    assert_eq!(place.rest(), ["pax.tar", "x.tar"]);
}

/// Access lists that are text are not read before; who has no room for them is told what to do, whatever the source is.
#[test]
fn full_after_all() {
    let place = Place::new("full");
    let mut archive = tar::Builder::new(fs::File::create(place.path("x.tar")).expect("a file"));
    let mut header = header();
    let users: String = (1..40).map(|user| format!("user:{user}:rwx,")).collect();
    let list = format!("{users}user::rw-,group::r--,mask::rwx,other::r--");
    for number in 0..3000 {
        let list = ("SCHILY.acl.access", list.as_bytes());
        archive.append_pax_extensions([list]).expect("a head");
        let appended = archive.append_data(&mut header, number.to_string(), std::io::empty());
        appended.expect("a member");
    }
    archive.into_inner().expect("an archive");
    let said = place.session("--size 12M --from DIR/x.tar --file DIR/image");
    assert!(
        said.contains(
            " does not fit into 12M: attributes, lists of blocks, or what has come since take more than was reckoned with; give it more with --size\n"
        ),
        "{said}"
    );
    assert_eq!(place.rest(), ["x.tar"]);
}

#[test]
fn a_dry_run_makes_nothing() {
    let place = Place::new("dry");
    place.file("etc/hostname", "host");
    place.file("etc/network/interfaces", "");
    place.file("sbin/ifup", "");
    place.says(
        "--size 64M --from DIR/src --dry-run --seal",
        "would make DIR/var/lib/ttvm/images/clientA.img, a sparse file of 64M, with the file system ext4\n\
         would copy 7 files (0.0M) from DIR/src\n\
         would make it the guest clientA, by its own name, root and ids\n\
         would configure the network: ifupdown, with DHCP on the first network card\n\
         would seal DIR/var/lib/ttvm/images/clientA.img\n\
         there is no kernel in DIR/src (boot/vmlinuz-VERSION): install one there (Debian: linux-image-amd64), or name one for the \
         guest with `ttvm guest new --kernel`\n[0]",
    );
    assert_eq!(place.rest(), [""; 0]);
}

/// It is looked for room before all is looked through, and a dry run says what the other would.
#[test]
fn places_without_room() {
    let place = Place::new("places");
    place.file("etc/hostname", "host");
    for run in ["", " --dry-run"] {
        place.says(
            &format!("--size 64M --from DIR/src --file DIR/new/{run}"),
            "ttvm: DIR/new/ is the name of a directory: --file takes that of a file, such as DIR/new/image\n[2]",
        );
        place.says(
            &format!("--size 64M --from DIR/src --file DIR/new/image{run}"),
            "ttvm: cannot make a file in DIR/new\n  because: No such file or directory (os error 2)\n[1]",
        );
        for kind in ["ext4", "ext2"] {
            place.says(
                &format!("--size 60000T --from DIR/src --file DIR/image --fs {kind}{run}"),
                "ttvm: 60000T is more than a file system that is made here can be (nearly 16T): give it less with --size\n[2]",
            );
        }
        let script = format!("ulimit -f 20000; \"$TTVM\" image create clientA --size 64M --from src --file image{run}");
        let output = std::process::Command::new("bash")
            .args(["-c", &script])
            .env("TTVM", env!("CARGO_BIN_EXE_ttvm"))
            .current_dir(&place.0)
            .output();
        assert_eq!(
            place.said(&output.expect("bash runs")),
            "ttvm: a file of 64M cannot be in DIR: give it less with --size or a higher limit with `ulimit -f`, or put it on another disk\n  because: File too large (os error 27)\n[4]",
        );
    }
    assert_eq!(place.rest(), [""; 0]);
}

/// A disk that is full before the image is.
#[test]
fn full_places() {
    let place = Place::new("full-place");
    for number in 0..4000 {
        place.file(&number.to_string(), "");
    }
    place.file("large", vec![1; 3 << 20]);
    if !is_root() {
        return;
    }
    for (room, code, text) in [
        ("3M", "[4]\n", "DIR/disk is full: the image needs "),
        // Room for the files, but not for their inodes.
        (
            "4200K",
            "[1]\n",
            "DIR/disk/image cannot be written, since what it is on is full: make room there, or put it elsewhere\n",
        ),
    ] {
        let script = format!(
            "set -e; mkdir -p disk; mount -t tmpfs -o size={room} full disk
            \"$TTVM\" image create clientA --size 64M --from src --file disk/image || {{ echo [$?]; ls disk; }}"
        );
        let said = place.said(&place.privately(&script));
        assert!(said.starts_with(code) && said.contains(text), "{said}");
    }
}

#[test]
fn what_is_no_field_of_fstab() {
    let place = Place::new("fstab-root");
    place.file("etc/hostname", "host");
    for root in ["", "a b", "a\tb", "a\nb", "#a"] {
        let mut command = place.command("--size 64M --from DIR/src --file DIR/image --fstab-root");
        let said = place.said(&command.arg(root).output().expect("ttvm runs"));
        assert!(
            said.contains("fstab has no such device") && said.ends_with("[2]"),
            "{said}"
        );
    }
    let mut command = place.command("--size 64M --from DIR/src --file");
    let said = place.said(&command.arg(place.path("a\"b")).output().expect("ttvm runs"));
    assert!(said.contains("\norigin = 'DIR/a\"b'\n"), "{said}");
}

#[test]
fn sealed_in_its_usual_place() {
    let place = Place::new("seal");
    place.file("etc/hostname", "host");
    let said = place.session("--size 64M --from DIR/src --seal");
    assert!(
        said.contains("DIR/var/lib/ttvm/images/clientA.img is made: 64M, ext4, with "),
        "{said}"
    );
    assert!(
        said.contains("DIR/var/lib/ttvm/images/clientA.img is sealed: blake3:"),
        "{said}"
    );
    sound(&place.path("var/lib/ttvm/images/clientA.img"));
    assert!(place.path("var/lib/ttvm/images/clientA.img.ttvm-seal").exists());
}

#[test]
fn as_json() {
    let place = Place::new("json");
    place.file("etc/hostname", "host");
    place.file("tmp/x", "x");
    let output = place
        .command("--size 64M --from DIR/src --file DIR/image --json")
        .output();
    let output = output.expect("ttvm runs").stdout;
    let row: serde_json::Value = serde_json::from_slice(&output).expect("JSON");
    assert_eq!(row["size"], 64 << 20);
    assert_eq!(row["file_system"], "ext4");
    assert_eq!(row["left_out"][0]["what"], "temporary files");
    assert_eq!(row["left_out"][0]["files"][0], "/tmp/x");
    assert_eq!(row["problems"], serde_json::json!([]));
    assert_eq!((&row["state"], row.get("digest")), (&"unsealed".into(), None));
    // Sealed, it says of that what the status says.
    let output = place.command("--size 64M --from DIR/src --json --seal").output();
    let row: serde_json::Value = serde_json::from_slice(&output.expect("ttvm runs").stdout).expect("JSON");
    let image = row["image"].as_str().expect("a path");
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_ttvm"))
        .args(["image", "status", "--json", image])
        .output();
    let status: serde_json::Value = serde_json::from_slice(&status.expect("ttvm runs").stdout).expect("JSON");
    assert_eq!(row["state"], "sealed");
    assert_eq!(
        (&row["state"], &row["digest"]),
        (&status[0]["state"], &status[0]["digest"])
    );
}

/// Files that tell the host from others are where a link leads to, and none would be the guest's own.
#[test]
fn links_on_the_way() {
    let place = Place::new("diverted");
    for (name, content) in [
        ("usr/etc/hostname", "host7"),
        ("usr/etc/ssh/ssh_host_ed25519_key", "secret"),
        ("usr/lib/systemd/systemd", ""),
        ("usr/bin/ssh-keygen", ""),
        ("usr/sbin/sshd", ""),
    ] {
        place.file(name, content);
    }
    // Ordinary, and so is a directory that is elsewhere, as long as it is one.
    sh(
        "ln -s usr/bin bin; ln -s usr/lib lib; ln -s usr/sbin sbin; mkdir -p var/mnt; ln -s var/mnt mnt",
        &place.path("src"),
    );
    let remedy = |way: &str| {
        format!(
            ": copy a source in which that is otherwise, leave it out with --exclude {way}, or have that part as it is with --keep (MAKING IMAGES in ttvm(1))\n[4]"
        )
    };
    let says = |script: &str, expected: &str| {
        sh(&format!("cp -a src x; cd x; {script}; tar -cf ../x.tar *"), &place.0);
        for source in ["x", "x.tar"] {
            place.says(&format!("--size 64M --from DIR/{source} --file DIR/image"), expected);
            place.says(
                &format!("--size 64M --from DIR/{source} --file DIR/image --dry-run"),
                expected,
            );
        }
        sh("rm -r x", &place.0);
    };
    let diverted = |way: &str, kind: &str, path: &str| {
        format!(
            "ttvm: {way} is {kind}, so that {path} would not become the guest's own{}",
            remedy(way)
        )
    };
    says(
        "ln -s usr/etc etc",
        &diverted("/etc", "a link to usr/etc", "/etc/fstab"),
    );
    says(
        "mv usr/etc .; mkdir srv; mv etc/ssh srv; ln -s /srv/ssh etc",
        &diverted("/etc/ssh", "a link to /srv/ssh", "/etc/ssh/ssh_host_*"),
    );
    says(
        "mv usr/etc .; mkdir srv; ln -s /srv etc/systemd",
        &diverted("/etc/systemd", "a link to /srv", "/etc/systemd/system"),
    );
    says(
        "mkdir -p etc/fstab",
        &diverted("/etc/fstab", "a directory", "/etc/fstab"),
    );
    says("ln -s var dev", &diverted("/dev", "a link to var", "/dev/console"));
    for (script, path, kind) in [
        ("echo x >proc", "/proc", "no directory"),
        ("ln -s /nowhere tmp", "/tmp", "a link to /nowhere"),
    ] {
        let expected = format!(
            "ttvm: {path} is {kind}, and the guest needs a directory there: leave it out with --exclude {path}, and it gets one\n[4]"
        );
        says(script, &expected);
    }
    // A link that leads out of the source leads to nothing of this host.
    fs::rename(place.path("src/usr/etc"), place.path("src/etc")).expect("a name");
    place.file("outside/ssh_host_key", "of another");
    fs::rename(place.path("src/outside"), place.path("outside")).expect("a name");
    let nvme = place.path("src/etc/nvme");
    std::os::unix::fs::symlink(place.path("outside"), &nvme).expect("a link");
    place.made("--size 64M --from DIR/src");
    assert!(place.has("/mnt") && place.has("/etc/systemd/system/ttvm-ssh-keys.service"));
    assert!(!place.has("/etc/ssh/ssh_host_ed25519_key"));
    // The remedies do what they say.
    fs::remove_file(place.path("image")).expect("the image goes");
    fs::write(place.path("src/proc"), "").expect("a file");
    place.made("--size 64M --from DIR/src --exclude /proc");
    assert!(debugfs(&place.path("image"), "stat /proc").contains("Type: directory"));
    fs::remove_file(place.path("image")).expect("the image goes");
    sh("rm proc; mv etc usr; ln -s usr/etc etc", &place.path("src"));
    place.made("--size 64M --from DIR/src --keep all");
    assert_eq!(place.content("/usr/etc/hostname"), "host7");
}

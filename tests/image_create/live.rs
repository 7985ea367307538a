// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is left out of an image, and what cannot be read.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::process::Command;

use nix::unistd::geteuid;

use super::{Place, set_mode, sound};

#[test]
fn what_is_left_out() {
    let place = Place::new("excludes");
    for name in [
        "etc/keep",
        "var/cache/apt/archives/x.deb",
        "var/cache/debconf/config.dat",
        "var/tmp/x",
        "tmp/.x",
        "var/log/journal/0123/system.journal",
        "var/log/syslog",
        "var/lib/ttvm/recordings/a/b",
        "srv/a.iso",
        "srv/sub/b.iso",
        "srv/sub/target/c",
        "srv/target",
        "lost+found/x",
    ] {
        place.file(name, name);
    }
    let swap = File::create(place.file("swapfile", "")).expect("a file");
    swap.set_len(1 << 20).expect("its size");
    swap.write_all_at(b"SWAPSPACE2", 4086).expect("a signature");
    let said = place.made("--size 64M --from DIR/src --exclude *.iso --exclude target/ --verbose");
    for (there, path) in [
        (true, "/etc/keep"),
        (false, "/var/cache/apt/archives/x.deb"),
        (true, "/var/cache/apt/archives"),
        (true, "/var/cache/debconf/config.dat"),
        (false, "/var/tmp/x"),
        (true, "/var/tmp"),
        (false, "/tmp/.x"),
        (false, "/var/log/journal/0123"),
        (true, "/var/log/journal"),
        (true, "/var/log/syslog"),
        (false, "/var/lib/ttvm"),
        (false, "/srv/a.iso"),
        (false, "/srv/sub/b.iso"),
        (false, "/srv/sub/target"),
        (true, "/srv/target"),
        (false, "/lost+found/x"),
        (true, "/lost+found"),
        (false, "/swapfile"),
    ] {
        assert_eq!(place.has(path), there, "{path}: {said}");
    }
    for line in [
        "left out: as asked (3)\n    /srv/",
        "left out: caches (2)\n",
        "left out: temporary files (2)\n",
        "left out: the journal (1)\n    /var/log/journal/0123\n",
        "left out: what ttvm keeps (1)\n    /var/lib/ttvm\n",
        "left out: swap files (1)\n    /swapfile\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    fs::remove_file(place.path("image")).expect("the image goes");
    place.made("--size 64M --from DIR/src --keep caches,swap --exclude /srv/*");
    assert!(place.has("/var/cache/apt/archives/x.deb") && place.has("/swapfile") && place.has("/srv"));
    assert!(!place.has("/srv/sub"));
}

/// What other guests are made from stays where it is.
#[test]
fn disks_of_guests() {
    let place = Place::new("guests");
    let image = place.file("srv/golden.img", "golden");
    let other = place.file("srv/other.img", "other");
    let guests = place.path("etc/ttvm/guests");
    fs::create_dir_all(&guests).expect("a directory");
    let (image, other) = (image.display(), other.display());
    let text = format!(
        "toolstack = \"qemu\"\nkernel = \"/k\"\n[[disk]]\norigin = \"{image}\"\ntarget = \"vda\"\n[[disk]]\npath = \"{other}\"\ntarget = \"vdb\"\n"
    );
    fs::write(guests.join("a.toml"), text).expect("a file");
    fs::write(place.path("k"), "").expect("a kernel");
    let said = place.made("--size 64M --from DIR/src");
    assert!(said.contains("left out: disks of guests (2)\n"), "{said}");
}

/// An ordinary user gets a whole image of what he may read: with its owners, and with a word about the rest.
#[test]
fn without_root() {
    let place = Place::new("user");
    place.file("etc/readable", "yes");
    symlink("readable", place.path("src/etc/link")).expect("a link");
    // What cannot be read takes no room.
    set_mode(&place.file("etc/secret", vec![7; 70_000_000]), 0);
    set_mode(&place.file("dir/x", "no"), 0o644);
    let line = "--size 64M --from DIR/src --file DIR/own/image";
    let mut command = place.command(line);
    fs::create_dir(place.path("own")).expect("a directory");
    if geteuid().is_root() {
        std::os::unix::fs::chown(place.path("own"), Some(65534), Some(65534)).expect("an owner");
        let ttvm = place.path("ttvm");
        fs::copy(env!("CARGO_BIN_EXE_ttvm"), &ttvm).expect("a program");
        if !Command::new("setpriv")
            .args(["--reuid", "65534", "--clear-groups", "test", "-r"])
            .arg(&ttvm)
            .status()
            .is_ok_and(|status| status.success())
        {
            return eprintln!("skipped: an ordinary user cannot come here");
        }
        let directory = place.0.to_str().expect("a path");
        let line = line.replace("DIR", directory);
        command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command
            .arg(ttvm)
            .args(["--root", directory, "image", "create", "clientA"])
            .args(line.split_whitespace());
    }
    set_mode(&place.path("src/dir"), 0);
    let said = place.said(&command.output().expect("ttvm runs"));
    set_mode(&place.path("src/dir"), 0o755);
    assert!(said.contains("could not be read (permission denied): 2 (/"), "{said}");
    assert!(said.contains("/etc/secret") && said.contains("/dir"), "{said}");
    let image = place.path("own/image");
    sound(&image);
    let owner = format!("User: {:>5}", geteuid().as_raw());
    let stat = super::debugfs(&image, "stat /etc/readable");
    assert!(stat.contains(&owner), "{stat}");
    assert!(super::debugfs(&image, "stat /etc/secret").is_empty());
}

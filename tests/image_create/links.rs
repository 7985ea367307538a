// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files with several names, of which one is otherwise in the guest, or left out.

use std::fs;

use super::{Place, debugfs, set_mode, sh};

const HOSTS: &str = "127.0.0.1 localhost\n127.0.1.1 host7\n";
const RENAMED: &str = "127.0.0.1 localhost\n127.0.1.1 clientA\n";

/// The number of names that a file of the image has.
fn names(place: &Place, path: &str) -> u32 {
    let stat = debugfs(&place.path("image"), &format!("stat {path}"));
    let (_, after) = stat.split_once("Links: ").expect("a file");
    let number = after.split_whitespace().next().expect("a number");
    number.parse().expect("a number")
}

/// An edited file has its name for itself, and of the others none is lost, whichever comes first. Permissions stay.
fn are_told_apart(place: &Place, line: &str) {
    let said = place.made(&format!("--size 64M {line}"));
    assert!(!said.contains("vanished"), "{said}");
    assert_eq!(place.content("/etc/hosts"), RENAMED, "{line}");
    assert_eq!(place.content("/etc/hostname"), "clientA\n", "{line}");
    for other in ["/etc/a-hosts", "/etc/hosts.orig"] {
        assert_eq!(place.content(other), HOSTS, "{other} {line}");
        assert_eq!(names(place, other), 2, "{other} {line}");
    }
    assert_eq!(place.content("/etc/name"), "host7\n", "{line}");
    for edited in ["/etc/hosts", "/etc/hostname", "/etc/name"] {
        assert_eq!(names(place, edited), 1, "{edited} {line}");
    }
    let stat = debugfs(&place.path("image"), "stat /etc/hosts");
    assert!(stat.contains("Mode:  0640"), "{stat}");
    fs::remove_file(place.path("image")).expect("the image goes");
}

#[test]
fn one_name_is_edited() {
    let place = Place::new("links");
    set_mode(&place.file("etc/hosts", HOSTS), 0o640);
    place.file("etc/hostname", "host7\n");
    // In a directory names of one file come in their order.
    let script = "cd etc; ln hosts a-hosts; ln hosts hosts.orig; ln hostname name";
    sh(script, &place.path("src"));
    are_told_apart(&place, "--from DIR/src");
    for order in [
        "etc/hosts etc/a-hosts etc/hosts.orig etc/hostname etc/name",
        "etc/a-hosts etc/hosts etc/hosts.orig etc/name etc/hostname",
        "etc/a-hosts etc/hosts.orig etc/hosts etc/name etc/hostname",
    ] {
        sh(&format!("tar -C src -cf x.tar {order}"), &place.0);
        are_told_apart(&place, "--from DIR/x.tar");
    }
    // Nothing is left of a file of which no other name comes.
    fs::rename(place.path("src/etc/name"), place.path("name")).expect("another place");
    for source in ["src", "x.tar"] {
        sh("tar -C src -cf x.tar etc/hosts etc/a-hosts etc/hostname", &place.0);
        place.made(&format!(
            "--size 64M --from DIR/{source} --exclude a-hosts --exclude hosts.orig"
        ));
        assert_eq!(place.content("/etc/hosts"), RENAMED, "{source}");
        assert!(!place.has("/etc/a-hosts"), "{source}");
        fs::remove_file(place.path("image")).expect("the image goes");
    }
}

/// A file that an edit takes away stays under its other names.
#[test]
fn one_name_is_taken_away() {
    let place = Place::new("links-away");
    place.file("var/lib/dbus/machine-id", "0123456789abcdef\n");
    sh("ln var/lib/dbus/machine-id z; ln z var/a", &place.path("src"));
    for source in ["src", "x.tar"] {
        sh("tar -C src -cf x.tar var/lib/dbus/machine-id z var/a", &place.0);
        place.made(&format!("--size 64M --from DIR/{source}"));
        assert!(!place.has("/var/lib/dbus/machine-id"), "{source}");
        assert_eq!(place.content("/z"), "0123456789abcdef\n", "{source}");
        assert_eq!((names(&place, "/z"), names(&place, "/var/a")), (2, 2), "{source}");
        fs::remove_file(place.path("image")).expect("the image goes");
    }
}

/// The data of an archive is with the first name: if that is left out, the next one has it.
#[test]
fn the_first_name_is_left_out() {
    let place = Place::new("links-out");
    place.file("srv/first", vec![b'x'; 5_000_000]);
    place.file("other/sub/second", "");
    sh(
        "cd other/sub; ln -f ../../srv/first second; ln second third",
        &place.path("src"),
    );
    sh(
        "chmod 710 src/other/sub; tar -C src -cf x.tar srv/first other/sub",
        &place.0,
    );
    for (exclude, gone, there) in [
        ("/srv", "/srv/first", &["/other/sub/second", "/other/sub/third"][..]),
        (
            "/other/sub/second",
            "/other/sub/second",
            &["/srv/first", "/other/sub/third"],
        ),
    ] {
        let said = place.made(&format!("--size 64M --from DIR/x.tar --exclude {exclude}"));
        assert!(!said.contains("vanished"), "{said}");
        assert!(!place.has(gone), "{exclude}");
        for path in there {
            assert_eq!(names(&place, path), 2, "{exclude} {path}");
            assert_eq!(place.content(path).len(), 5_000_000, "{exclude} {path}");
        }
        // A directory that had to be there early has its own mode.
        let stat = debugfs(&place.path("image"), "stat /other/sub");
        assert!(stat.contains("Mode:  0710"), "{stat}");
        fs::remove_file(place.path("image")).expect("the image goes");
    }
    // And it counts.
    let large = fs::File::options().write(true).open(place.path("src/srv/first"));
    large.and_then(|file| file.set_len(70 << 20)).expect("its size");
    sh("tar -C src -cf x.tar srv/first other/sub", &place.0);
    let said = place.session("--size 64M --from DIR/x.tar --exclude /srv --file DIR/image");
    assert!(said.contains("64M is too small for 4 files, which take 71M"), "{said}");
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who gets in.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use super::place::{IMAGE, Place, installed, pipe};

#[test]
fn the_password() {
    let Some(place) = Place::new("password") else { return };
    let shadow = |place: &Place| {
        let text = fs::read_to_string(place.unpacked().join("etc/shadow")).expect("shadow");
        text.split(':').nth(1).expect("a hash").to_owned()
    };
    let salt = |hash: &str| hash.split('$').nth(3).expect("a salt").to_owned();
    // Another program says what the hash of that password is.
    let matches = |hash: &str, password: &str| {
        if !installed("openssl") {
            eprintln!("in part only: openssl is not installed");
            return true;
        }
        let mut openssl = Command::new("openssl");
        openssl.args([
            "passwd",
            "-6",
            "-stdin",
            "-salt",
            &format!("rounds=5000${}", salt(hash)),
        ]);
        pipe(openssl, password.as_bytes()).trim() == hash
    };
    place.make("");
    let well_known = shadow(&place);
    assert!(
        matches(&well_known, "root") && !matches(&well_known, "toor"),
        "{well_known}"
    );
    assert_eq!(place.mode(), 0o644);
    // What is worth hiding is hidden, also in the place of what is not.
    let first = place.make("--password geheim");
    let own = shadow(&place);
    assert!(matches(&own, "geheim"), "{own}");
    assert_eq!(place.mode(), 0o600);
    assert_eq!(salt(&own), salt(&well_known), "it tells nothing of the password");
    assert!(place.make("--password geheim") == first);
    place.make("--password geheim --modules veth");
    assert_ne!(salt(&shadow(&place)), salt(&own), "another image, another salt");
    // Not for everybody who lists processes.
    let mut command = place.command("--password -");
    command.stderr(Stdio::inherit());
    pipe(command, b"geheim\n");
    assert!(fs::read(place.path(IMAGE)).expect("the image") == first);
    let usage = |line: &str, input: &[u8]| {
        let mut command = place.command("");
        command
            .arg(format!("--password={line}"))
            .stdin(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("ttvm runs");
        child.stdin.take().expect("a pipe").write_all(input).expect("input");
        let output = child.wait_with_output().expect("its output");
        format!("{}{:?}", String::from_utf8_lossy(&output.stderr), output.status.code())
    };
    let empty = "ttvm: an empty password is none; --autologin asks for no password at all\nSome(2)";
    assert_eq!(usage("", b""), empty);
    assert_eq!(usage("-", b"\n"), empty);
    assert_eq!(
        usage("a\nb", b""),
        "ttvm: a password has no control characters: it could not be typed\nSome(2)"
    );
    // Nobody is asked.
    place.make("--autologin");
    let tree = place.unpacked();
    let getty = fs::read_to_string(tree.join("etc/ttvm/getty")).expect("getty's options");
    assert_eq!(getty, "-n -l /etc/ttvm/autologin\n");
    assert!(tree.join("etc/ttvm/autologin").exists());
}

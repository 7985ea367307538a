// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is refused before anything is made, in these words.

use std::fs;

use super::{Place, sound};

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
        "ttvm: can not read the source DIR/none\n  because: No such file or directory (os error 2)\n[1]",
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
        "ttvm: can not make a file in DIR/none\n  because: No such file or directory (os error 2)\n[1]",
    );
    let large = fs::File::create(place.path("src/large")).expect("a file");
    std::io::copy(&mut std::io::Read::take(std::io::repeat(1), 70 << 20), &mut &large).expect("data");
    place.says(
        line,
        "ttvm: 64M is too small for 70.0M in 4 files: --size 128M would do\n[4]",
    );
    assert_eq!(place.rest(), [""; 0]);
    place.made("--size 128M --from DIR/src");
}

#[test]
fn a_dry_run_makes_nothing() {
    let place = Place::new("dry");
    place.file("etc/hostname", "host");
    place.file("etc/network/interfaces", "");
    place.says(
        "--size 64M --from DIR/src --dry-run --seal",
        "would make DIR/var/lib/ttvm/images/clientA.img, a sparse file of 64M, with the file system ext4\n\
         would copy 5 files (0.0M) from DIR/src\n\
         would make it the guest clientA, by its own name, root and ids\n\
         would configure the network: ifupdown, with DHCP on the first network card\n\
         would seal DIR/var/lib/ttvm/images/clientA.img\n[0]",
    );
    assert_eq!(place.rest(), [""; 0]);
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
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which modules of which kernel are in it.

use std::fs;
use std::process::Command;

use super::place::{DEP, KERNEL, ORDER, Place, installed, module};

#[test]
fn modules_by_wish() {
    let Some(place) = Place::new("modules") else { return };
    place.make("--modules dummy,virtio-rng,xen-netfront");
    let order = fs::read_to_string(place.unpacked().join("etc/ttvm/modules")).expect("the order");
    assert_eq!(
        order,
        format!("{ORDER}/lib/modules/{KERNEL}/kernel/drivers/net/dummy.ko\n")
    );
    // What is to be loaded at once is not loaded later.
    let said = place.session("--dry-run --modules ext4");
    let expected = "\
loaded when it starts: virtio virtio_ring virtio_pci failover virtio_net xen_blkfront xen_netfront af_packet button crc32c_generic jbd2 ext4
part of the kernel: virtio_blk
this kernel does not have: evdev
";
    assert!(said.contains(expected), "{said}");
    place.says(
        "--modules virto_net",
        "ttvm: kernel 6.1.0-9-amd64 has no module \"virto_net\"; did you mean \"virtio_net\"?\n[1]",
    );
    place.says(
        "--modules e1000",
        "ttvm: kernel 6.1.0-9-amd64 has no module \"e1000\"\n[1]",
    );
    // Each needs the other: damaged, but no reason to go round for ever. And paths as old versions of depmod have them.
    let ring =
        format!("/lib/modules/{KERNEL}/kernel/a.ko: /lib/modules/{KERNEL}/kernel/b.ko\nkernel/b.ko: kernel/a.ko\n");
    place.write(&format!("lib/modules/{KERNEL}/kernel/a.ko"), module("a"));
    place.write(&format!("lib/modules/{KERNEL}/kernel/b.ko"), module("b"));
    place.write(&format!("lib/modules/{KERNEL}/modules.dep"), ring);
    let said = place.session("--dry-run --modules a");
    assert!(said.contains("loaded when it starts: b a\n"), "{said}");
    for line in [
        "kernel/../../../../etc/shadow.ko:",
        "/etc/shadow.ko:",
        "no colon",
        "kernel/x.ko: ../y.ko",
    ] {
        place.write(
            &format!("lib/modules/{KERNEL}/modules.dep"),
            format!("kernel/a.ko:\n{line}\n"),
        );
        place.says(
            "",
            &format!(
                "ttvm: DIR/lib/modules/6.1.0-9-amd64/modules.dep, line 2, is not as depmod writes it: {line:?}; `depmod 6.1.0-9-amd64` makes it anew\n[1]"
            ),
        );
    }
}

/// Fedora's are packed with xz, Arch's with zstd, some with gzip; in the image they are plain.
#[test]
fn packed_modules() {
    let Some(place) = Place::new("packed") else { return };
    let mut dep = DEP.to_owned();
    for (packer, end, name) in [
        ("gzip", "gz", "kernel/drivers/virtio/virtio.ko"),
        ("xz", "xz", "kernel/drivers/net/xen-netfront.ko"),
        ("zstd", "zst", "kernel/fs/jbd2/jbd2.ko"),
    ] {
        if !installed(packer) {
            eprintln!("in part only: {packer} is not installed");
            continue;
        }
        let path = place.path(&format!("lib/modules/{KERNEL}/{name}"));
        let packed = Command::new(packer).arg("-qc").arg(&path).output().expect(packer);
        fs::remove_file(&path).expect("the module goes");
        fs::write(path.with_extension(format!("ko.{end}")), packed.stdout).expect("a packed module");
        dep = dep.replace(name, &format!("{name}.{end}"));
    }
    let plain = place.0.join("plain");
    fs::write(place.path(&format!("lib/modules/{KERNEL}/modules.dep")), &dep).expect("modules.dep");
    let packed = place.make("");
    fs::write(&plain, &packed).expect("a copy");
    place.kernel(KERNEL, DEP);
    assert!(place.make("") == packed, "the same as from plain ones");
    // One that is damaged is named.
    fs::write(
        place.path(&format!("lib/modules/{KERNEL}/kernel/fs/jbd2/jbd2.ko")),
        b"\xfd7zXZ\0 and no more",
    )
    .expect("a module");
    let said = place.session("");
    assert!(
        said.starts_with("ttvm: cannot unpack DIR/lib/modules/6.1.0-9-amd64/kernel/fs/jbd2/jbd2.ko: see that xz (Debian: xz-utils) is installed, and the module whole\n  because: `xz ")
            && said.ends_with("[1]"),
        "{said}"
    );
    place.write(&format!("lib/modules/{KERNEL}/kernel/fs/jbd2/jbd2.ko"), "no module");
    place.says(
        "",
        "ttvm: DIR/lib/modules/6.1.0-9-amd64/kernel/fs/jbd2/jbd2.ko is not a module: install its kernel's package again\n[1]",
    );
}

#[test]
fn which_kernel() {
    let Some(place) = Place::new("kernels") else { return };
    let is_for = |place: &Place, line: &str| {
        let said = place.session(line);
        said.split("kernel ")
            .nth(1)
            .and_then(|rest| rest.split(',').next())
            .unwrap_or(&said)
            .to_owned()
    };
    place.kernel("6.1.0-10-amd64", DEP);
    // What a removed kernel left.
    place.write("lib/modules/6.9.0-1-amd64/kernel/drivers/net/veth.ko", module("veth"));
    assert_eq!(is_for(&place, "--dry-run"), "6.1.0-10-amd64", "the newest");
    place.write("proc/sys/kernel/osrelease", "6.1.0-9-amd64\n");
    assert_eq!(is_for(&place, "--dry-run"), KERNEL, "the running one");
    assert_eq!(is_for(&place, "--dry-run --kernel 6.1.0-10-amd64"), "6.1.0-10-amd64");
    place.write("proc/sys/kernel/osrelease", "6.2.0\n");
    assert_eq!(
        is_for(&place, "--dry-run"),
        "6.1.0-10-amd64",
        "the running one is not installed any more"
    );
    for version in ["6.9.0-1-amd64", "..", "/etc"] {
        place.says(
            &format!("--kernel {version}"),
            &format!(
                "ttvm: there are no modules of kernel {version} in DIR/lib/modules; there are those of 6.1.0-10-amd64, 6.1.0-9-amd64\n[1]"
            ),
        );
    }
    fs::remove_dir_all(place.path("lib/modules")).expect("they go");
    place.says(
        "",
        "ttvm: there are no modules of a kernel in DIR/lib/modules: install a kernel; if there is one, `depmod VERSION` makes their index\n[1]",
    );
}

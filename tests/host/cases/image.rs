// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sealed origins: read-only, with a digest that is there only as long as nobody can have written.

use super::{THICK, THIN, cases, console, emulated_guest, guest, journal, other_volumes, tell};
use crate::machine::Host;

cases! {
    Installed {
        Bookworm: not_an_origin;
        Trixie: file_of_a_user;
        LaterBookworm: sealed_thick, behind_its_back;
        LaterTrixie: sealed_thin;
        Both: killed_at_each_step, interrupted;
    }
    Xen {
        Both: in_use;
    }
    Guest {
        LaterBookworm: under_a_running_guest;
    }
}

/// `ttvm image …` ends like this and says this, on whichever stream.
fn says(host: &mut Host, line: &str, status: i32, text: &str) {
    let output = host.sh(&format!("ttvm image {line}")).unwrap();
    let all = format!("{}\n{}", output.text(), output.errors());
    assert_eq!(output.status, status, "{line}: {all}");
    assert!(all.contains(text), "{line}: {all}");
}

/// Permission and tags of a volume, as LVM has them.
fn volume(host: &mut Host, volume: &str) -> String {
    host.run(&format!("lvs --noheadings -o lv_permissions,lv_tags {volume} | xargs"))
        .unwrap()
}

fn sealed(host: &mut Host, disk: &str, origin: &str) {
    let others = other_volumes(host);
    emulated_guest(host, disk, "loop");
    says(host, "status", 0, "not sealed");
    says(host, &format!("seal --dry-run {origin}"), 0, "would make");
    assert_eq!(volume(host, origin), "writeable");
    says(host, &format!("seal {origin}"), 0, "is sealed: blake3:");
    let tags = volume(host, origin);
    assert!(
        tags.starts_with("read-only ttvm.digest=blake3:") && tags.ends_with(",ttvm.size=67108864"),
        "{tags}"
    );
    let refused = host
        .sh(&format!("dd if=/dev/zero of=/dev/{origin} bs=512 count=1 conv=fsync"))
        .unwrap();
    assert!(
        refused.status != 0 && refused.errors().contains("Operation not permitted"),
        "{}",
        refused.errors()
    );
    says(host, &format!("seal {origin}"), 0, "was sealed already: blake3:");
    says(host, &format!("seal --deep /dev/{origin}"), 0, "its content matches");
    says(host, "status --json", 0, "\"state\": \"sealed\"");
    // Its snapshot is one as before: writable, and with nothing of the seal.
    host.run("ttvm snapshot reset clientA 2>/dev/null && dd if=/dev/zero of=/dev/xenvg/snap1 bs=1M count=2 oflag=direct 2>/dev/null")
        .unwrap();
    assert_eq!(
        volume(host, "xenvg/snap1"),
        format!("writeable ttvm,ttvm.guest=clientA,ttvm.origin={}", &origin[6..])
    );
    says(host, &format!("status --deep {origin}"), 0, "matches");
    // The digest is that of the bytes, whatever they lie on.
    host.run(&format!("dd if=/dev/{origin} of=/root/copy bs=1M 2>/dev/null"))
        .unwrap();
    let digest = tags
        .trim_start_matches("read-only ttvm.digest=")
        .split(',')
        .next()
        .unwrap_or_default();
    says(host, "seal /root/copy", 0, &format!("/root/copy is sealed: {digest}"));
    says(host, &format!("unseal {origin}"), 0, "is writable again");
    assert_eq!(volume(host, origin), "writeable");
    says(host, &format!("unseal {origin}"), 0, "is not sealed");
    host.run(&format!("ttvm snapshot discard clientA 2>/dev/null; head -c 512 /dev/{origin} >/root/head && dd if=/root/head of=/dev/{origin} conv=fsync 2>/dev/null"))
        .unwrap();
    assert_eq!(other_volumes(host), others);
}

fn sealed_thick(host: &mut Host) {
    sealed(host, THICK, "xenvg/base");
}

fn sealed_thin(host: &mut Host) {
    sealed(host, THIN, "xenvg/tbase");
}

/// Its snapshots are no reason against sealing an origin, nor is sealing one for them to notice.
fn under_a_running_guest(host: &mut Host) {
    says(host, "seal xenvg/base", 0, "is sealed: blake3:");
    tell(host, "clientA", "write");
    console(host, "clientA", "write: 0", 1);
    host.run("systemctl restart ttvm@clientA").unwrap();
    journal(host, "clientA", "guest is up as domain", 2);
    console(host, "clientA", "read: 0", 2);
    tell(host, "clientA", "write");
    console(host, "clientA", "write: 0", 2);
    says(host, "status --deep xenvg/base", 0, "matches");
    says(host, "unseal xenvg/base", 0, "is writable again");
    assert_eq!(host.run("xl list | grep -c clientA").unwrap(), "1");
    host.run("systemctl stop ttvm@clientA").unwrap();
}

fn in_use(host: &mut Host) {
    let refused = |host: &mut Host, by: &str| {
        let text = format!("xenvg/other is in use by {by}");
        says(host, "seal xenvg/other", 4, &text);
        says(host, "seal --dry-run xenvg/other", 4, &text);
        assert_eq!(volume(host, "xenvg/other"), "writeable");
    };
    host.run("sleep 1000 <>/dev/xenvg/other >/dev/null 2>&1 & echo $! >/root/pid")
        .unwrap();
    refused(host, "the process sleep (pid ");
    host.run("kill $(cat /root/pid)").unwrap();
    let disk = "[[disk]]\npath = \"/dev/xenvg/other\"\ntarget = \"xvda1\"\naccess = \"rw\"\n";
    guest(host, "clientA", disk, "", "");
    host.run("systemctl start ttvm@clientA").unwrap();
    refused(host, "the domain clientA (id 1)");
    host.run("systemctl stop ttvm@clientA").unwrap();
    host.run("mkfs.ext4 -q -F /dev/xenvg/other && mount /dev/xenvg/other /mnt")
        .unwrap();
    refused(host, "the mount /mnt");
    host.run("umount /mnt").unwrap();
    says(host, "seal xenvg/other", 0, "is sealed: blake3:");
    assert_ne!(
        host.sh("mount -o rw /dev/xenvg/other /mnt && touch /mnt/x")
            .unwrap()
            .status,
        0
    );
}

fn behind_its_back(host: &mut Host) {
    says(host, "seal xenvg/base", 0, "is sealed: blake3:");
    host.run("lvchange -q -prw xenvg/base && printf x | dd of=/dev/xenvg/base bs=1 seek=12345678 conv=notrunc,fsync 2>/dev/null")
        .unwrap();
    says(
        host,
        "status --deep xenvg/base",
        0,
        "not sealed (somebody made it writable)",
    );
    // Read-only once more, it looks as it did.
    host.run("lvchange -q -pr xenvg/base").unwrap();
    says(host, "status xenvg/base", 0, " sealed ");
    says(host, "status --deep xenvg/base", 1, "DIFFERS");
    says(
        host,
        "seal --deep xenvg/base",
        1,
        "is not what was sealed: it was blake3:",
    );
    let old = volume(host, "xenvg/base");
    says(host, "unseal xenvg/base", 0, "is writable again");
    says(host, "seal xenvg/base", 0, "is sealed: blake3:");
    assert_ne!(volume(host, "xenvg/base"), old);
    // A volume that is made writable is sealed anew, with one digest.
    host.run("lvchange -q -prw xenvg/base").unwrap();
    says(
        host,
        "seal --dry-run xenvg/base",
        0,
        "would take the old digest from xenvg/base",
    );
    says(host, "seal xenvg/base", 0, "is sealed: blake3:");
    assert_eq!(volume(host, "xenvg/base").matches("ttvm.digest").count(), 1);
    host.run("lvextend -q -L +4M xenvg/base").unwrap();
    says(host, "status xenvg/base", 0, "not sealed (its size has changed)");
    // What the kernel alone lets be written is not sealed either: an lvchange that was killed half way.
    says(host, "seal xenvg/base", 0, "is sealed: blake3:");
    host.run("dmsetup table xenvg-base >/root/table && dmsetup suspend xenvg-base && dmsetup load xenvg-base /root/table && dmsetup resume xenvg-base")
        .unwrap();
    says(
        host,
        "status xenvg/base",
        0,
        "not sealed (the kernel still lets it be written)",
    );
    says(host, "seal xenvg/base", 0, "is sealed: blake3:");
    says(host, "status --deep xenvg/base", 0, "matches");
}

fn killed_at_each_step(host: &mut Host) {
    let others = other_volumes(host);
    for origin in ["xenvg/base", "xenvg/tbase"] {
        let killed = |host: &mut Host, line: &str, point: &str| {
            let output = host
                .sh(&format!("TTVM_FAIL_POINT={point} ttvm image {line} {origin}"))
                .unwrap();
            assert!(matches!(output.status, -9 | 137), "{point}: {}", output.status);
        };
        for point in ["image.read-only", "image.digested"] {
            killed(host, "seal", point);
            assert_eq!(volume(host, origin), "read-only", "{point}");
            says(host, &format!("status {origin}"), 0, "not sealed");
            says(host, &format!("seal {origin}"), 0, "is sealed: blake3:");
            killed(host, "unseal", "image.untagged");
            assert_eq!(volume(host, origin), "read-only");
            says(host, &format!("unseal {origin}"), 0, "is writable again");
        }
        killed(host, "seal", "image.sealed");
        says(host, &format!("status --deep {origin}"), 0, "matches");
    }
    assert_eq!(other_volumes(host), others);
}

fn interrupted(host: &mut Host) {
    // Nothing but zeros, but minutes of them.
    host.run("lvcreate -q -V 200G --thinpool pool -n large xenvg 2>/dev/null")
        .unwrap();
    let script = "ttvm image seal xenvg/large 2>/root/errors & pid=$!
        timeout 600 sh -c 'until [ \"$(blockdev --getro /dev/xenvg/large)\" = 1 ]; do sleep 0.2; done'; sleep 4
        ttvm snapshot reset clientA; echo reset: $?; kill -TERM $pid; wait $pid; echo ended: $?; cat /root/errors";
    emulated_guest(host, THIN, "loop");
    let said = host.run(script).unwrap();
    // Guests start while a volume of their group is read.
    assert!(said.contains("reset: 0\nended: 143\n"), "{said}");
    assert!(said.contains("ttvm: reading xenvg/large: 0%"), "{said}");
    assert!(said.contains("xenvg/large is writable again"), "{said}");
    assert_eq!(volume(host, "xenvg/large"), "writeable");
}

fn not_an_origin(host: &mut Host) {
    emulated_guest(host, THICK, "loop");
    host.run("ttvm snapshot reset clientA 2>/dev/null").unwrap();
    for line in ["seal", "seal --dry-run", "unseal"] {
        says(
            host,
            &format!("{line} xenvg/snap1"),
            4,
            "xenvg/snap1 is a snapshot of guest \"clientA\"",
        );
        says(
            host,
            &format!("{line} xenvg/pool"),
            4,
            "xenvg/pool is one of LVM's own (thin-pool)",
        );
        says(host, &format!("{line} novg/base"), 1, "there is no volume group novg");
        says(host, &format!("{line} xenvg/none"), 1, "there is no volume xenvg/none");
    }
    says(host, "status novg/base xenvg/base", 1, "xenvg/base  not sealed");
    host.run("lvchange -q -an xenvg/other").unwrap();
    says(host, "seal xenvg/other", 1, "lvchange -ay -K xenvg/other");
    assert_eq!(
        host.sh("runuser -u nobody -- ttvm image status xenvg/base")
            .unwrap()
            .status,
        1
    );
}

/// Who owns a file can seal it, and sees what root sees.
fn file_of_a_user(host: &mut Host) {
    host.run("mkdir /srv/images && head -c 3000000 /dev/xenvg/base >/srv/images/disk && chown -R nobody /srv/images")
        .unwrap();
    let seal = "runuser -u nobody -- ttvm image seal /srv/images/disk";
    assert!(host.run(seal).unwrap().contains("is sealed: blake3:"));
    says(host, "status --deep /srv/images/disk", 0, "matches");
    // Root writes to what is read-only; it does not pass unseen.
    host.run("printf x | dd of=/srv/images/disk bs=1 seek=99 conv=notrunc 2>/dev/null")
        .unwrap();
    says(host, "status /srv/images/disk", 0, "not sealed (it was written)");
    // Used by a loop device, which a process table does not show.
    host.run("losetup /dev/loop0 /srv/images/disk").unwrap();
    says(host, "seal /srv/images/disk", 4, "in use by the loop device loop0");
    assert_ne!(host.sh(seal).unwrap().status, 0);
    // It goes when udev, too, has closed it.
    host.run(&format!(
        "losetup -d /dev/loop0 && udevadm settle && until ! losetup /dev/loop0 >/dev/null 2>&1; do :; done && {seal}"
    ))
    .unwrap();
}

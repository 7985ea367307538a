// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each thing that is wrong with LVM has a message of its own, with what to do.

use super::{THICK, THIN, cases, emulated_guest};
use crate::machine::Host;

cases! {
    Installed {
        Bookworm: each_has_its_own_message, no_room, pool_over_its_limit;
        Trixie: shared_group;
    }
}

/// `ttvm snapshot reset` fails with this exit code and a message that says `text`.
fn fails(host: &mut Host, disk: &str, status: i32, text: &str) {
    emulated_guest(host, disk, "loop");
    let output = host.sh("ttvm snapshot reset clientA").unwrap();
    assert_eq!(output.status, status, "{}", output.errors());
    assert!(output.errors().contains(text), "{}", output.errors());
}

fn each_has_its_own_message(host: &mut Host) {
    fails(
        host,
        &THICK.replace("xenvg", "novg"),
        1,
        "there is no volume group novg",
    );
    fails(
        host,
        &THICK.replace("base", "nobase"),
        1,
        "there is no origin xenvg/nobase",
    );
    fails(
        host,
        &THICK.replace(", size = \"32M\"", ""),
        3,
        "xenvg/base is a thick volume, so its snapshot needs a size",
    );
    let inactive = "lvcreate -q -y -an -L 16M -Zn -n sleeping xenvg";
    host.run(inactive).unwrap();
    emulated_guest(host, &THICK.replace("base", "sleeping"), "loop");
    host.run("ttvm snapshot reset clientA").unwrap();
}

fn no_room(host: &mut Host) {
    // LVM makes no snapshot larger than its origin can ever fill: what counts is the room for that.
    emulated_guest(host, &THICK.replace("32M", "100G"), "loop");
    host.run("ttvm snapshot reset clientA && ttvm snapshot discard clientA")
        .unwrap();
    host.run("lvcreate -q -y -Zn -l 100%FREE -n filler xenvg").unwrap();
    fails(
        host,
        THICK,
        1,
        "volume group xenvg has 0.0M free, and the snapshot xenvg/snap1 needs 32M",
    );
}

fn pool_over_its_limit(host: &mut Host) {
    host.run("sed -i 's/# thin_pool_limit.*/thin_pool_limit = 5/' /etc/ttvm/ttvm.toml")
        .unwrap();
    fails(host, THIN, 4, "over the limit of 5 %: extend it");
    host.run("sed -i 's/thin_pool_limit.*/thin_pool_limit = 90/' /etc/ttvm/ttvm.toml && ttvm snapshot reset clientA")
        .unwrap();
    // A size in the file of a guest with a thin origin is said not to matter.
    emulated_guest(host, &THIN.replace(" }", ", size = \"1G\" }"), "loop");
    let output = host.sh("ttvm snapshot reset clientA").unwrap();
    assert!(
        output.status == 0 && output.errors().contains("the configured snapshot size is not used"),
        "{}",
        output.errors()
    );
}

/// A group that says it is shared: its metadata is edited, since there is no lock manager here to make one.
fn shared_group(host: &mut Host) {
    host.run("vgcfgbackup -q -f /root/vg xenvg && sed -i 's/^\\tstatus = \\[\"RESIZEABLE\", \"READ\", \"WRITE\"\\]/&\\n\\tlock_type = \"sanlock\"\\n\\tlock_args = \"1.0.0:lvmlock\"/' /root/vg && grep -q lock_type /root/vg && vgcfgrestore -q -y --force -f /root/vg xenvg").unwrap();
    fails(
        host,
        THICK,
        4,
        "volume group xenvg is shared with other hosts (lock type sanlock)",
    );
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm doctor` on the real thing: a good host, and the same one broken in many places. What it says of each fault by itself is
//! tested on trees (tests/doctor).

use super::{THICK, THIN, cases};
use crate::machine::{Host, guest_file};

cases! {
    Xen {
        Trixie: good;
        LaterBookworm: good_and_broken;
        Both: missing_programs;
    }
}

/// Has LVM make room in time, as the documentation says.
const AUTOEXTEND: &str = "sed -i 's/# \\(snapshot\\|thin_pool\\)_autoextend_threshold = 100/\\1_autoextend_threshold = 70/' /etc/lvm/lvm.conf";

/// What the doctor says; it must end with this status.
pub fn doctor(host: &mut Host, options: &str, status: i32) -> String {
    let output = host.sh(&format!("ttvm doctor {options}")).unwrap();
    let text = output.text();
    assert_eq!(output.status, status, "{text}\n{}", output.errors());
    text
}

/// Each of `lines` begins one of `text`.
fn has_all(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            text.lines().any(|found| found.starts_with(line)),
            "no \"{line}\" in\n{text}"
        );
    }
}

/// Guests of each kind, and all that the host needs for them.
fn make_good(host: &mut Host) {
    let thin = THIN.replace("snap1", "tsnap1");
    for (name, disk, more) in [("clientA", THICK, "[[vif]]"), ("thin", &thin, "")] {
        // A table comes after all keys.
        let file = format!("{}{more}\n", guest_file(disk, "", ""));
        host.write(&format!("/etc/ttvm/guests/{name}.toml"), file.as_bytes(), 0o644)
            .unwrap();
    }
    let rest = format!("ttvm guest new hello && ttvm network set nat --keep && {AUTOEXTEND}");
    host.run(&rest).unwrap();
}

/// A host that has all it needs has one warning, which `--fix` takes away.
fn good(host: &mut Host) {
    make_good(host);
    let before = doctor(host, "", 0);
    has_all(
        &before,
        &["warn  xen         xendomains saves", "doctor: ready, with 1 warning"],
    );
    let said = doctor(host, "--fix", 0);
    has_all(&said, &["did write XENDOMAINS_SAVE= into /etc/default/xendomains"]);
    assert!(said.ends_with("doctor: all ok"), "{said}");
    let lines: Vec<&str> = said.lines().skip_while(|line| !line.is_empty()).skip(1).collect();
    let (last, lines) = lines.split_last().unwrap();
    assert!(*last == "doctor: all ok" && lines.len() > 25, "{said}");
    assert!(lines.iter().all(|line| line.starts_with("ok  ")), "{said}");
}

fn good_and_broken(host: &mut Host) {
    good(host);
    // As it says, and back.
    host.run("mv /etc/default/xendomains.before-ttvm /etc/default/xendomains && grep -q '^XENDOMAINS_SAVE=/var' /etc/default/xendomains")
        .unwrap();
    host.run(
        "set -e; systemctl disable -q --now dm-event.socket
         sed -i 's/# thin_pool_limit.*/thin_pool_limit = 5/' /etc/ttvm/ttvm.toml
         lvcreate -q -y -Zn -l 100%FREE -n filler xenvg
         sed -i 's/snapshot_autoextend_threshold = 70/snapshot_autoextend_threshold = 100/' /etc/lvm/lvm.conf
         rm /boot/grub/grubenv
         mkdir -p /etc/xen/auto; ln -s ../clientA.cfg /etc/xen/auto/clientA.cfg
         nft add table ip other
         nft add chain ip other forward '{ type filter hook forward priority 0; policy drop; }'
         ip link del ttbr0
         echo 'toolstak = \"qemu\"' > /etc/ttvm/guests/typo.toml
         kill $(pidof xenconsoled)
         while pidof xenconsoled; do sleep 0.1; done",
    )
    .unwrap();
    let said = doctor(host, "", 1);
    has_all(
        &said,
        &[
            "warn  snapshots   dm-event.socket is not enabled",
            "FAIL  snapshots   the thin pool xenvg/pool is too full for another snapshot",
            "FAIL  snapshots   the volume group xenvg has 0.0M free, and the snapshot xenvg/snap1 takes 32M",
            "warn  snapshots   LVM does not make room in time: a thick snapshot",
            "warn  boot        /boot/grub/grubenv does not exist",
            "FAIL  xen         xendomains starts guest clientA",
            "FAIL  network     network mode nat is in force, and its bridge ttbr0 is not there",
            "warn  network     table ip other drops what ttbr0 sends",
            "FAIL  guests      typo: /etc/ttvm/guests/typo.toml:1:1: ",
            "FAIL  xen         xenconsoled does not run",
        ],
    );
    let said = doctor(host, "--fix", 1);
    has_all(
        &said,
        &[
            "did enable dmeventd (systemctl enable --now dm-event.socket); to undo it: systemctl disable --now dm-event.socket",
            "did make an empty environment block of GRUB, /boot/grub/grubenv; to undo it: rm /boot/grub/grubenv",
            "ok    boot        GRUB can write to its environment block",
        ],
    );
    // What it names as remedies.
    host.run(
        "set -e; lvremove -q -y xenvg/filler; rm /etc/xen/auto/clientA.cfg /etc/ttvm/guests/typo.toml; nft delete table ip other
         ttvm network reconcile
         sed -i 's/thin_pool_limit.*/thin_pool_limit = 90/' /etc/ttvm/ttvm.toml
         sed -i 's/snapshot_autoextend_threshold = 100/snapshot_autoextend_threshold = 70/' /etc/lvm/lvm.conf
         lvchange -q --monitor y xenvg/pool
         systemctl restart xen; ttvm doctor --fix",
    )
    .unwrap();
    let said = doctor(host, "", 0);
    assert!(said.ends_with("doctor: all ok"), "{said}");
}

fn missing_programs(host: &mut Host) {
    make_good(host);
    host.run(
        "set -e; cd /usr/sbin; for program in xl dnsmasq dmeventd; do mv $program /root/; done
         mv /usr/bin/qemu-img /root/; vgrename -q xenvg othervg; mv /boot/vmlinuz-6* /root/",
    )
    .unwrap();
    let said = doctor(host, "", 1);
    has_all(
        &said,
        &[
            "FAIL  xen         Xen does not answer: ",
            "FAIL  xen         xl, which starts guests, is not installed",
            "FAIL  network     dnsmasq is not installed",
            "warn  snapshots   dmeventd is not installed",
            "FAIL  recordings  QEMU is not installed (no qemu-img)",
            "FAIL  snapshots   there is no volume group xenvg",
            "FAIL  boot        the entry ttvm-ttxen-linux loads /boot/vmlinuz-6",
        ],
    );
}

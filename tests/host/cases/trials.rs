// SPDX-License-Identifier: MIT OR Apache-2.0
//! Trying an entry: one that is well, and all the ways in which one is not. After each of those the host must be back in
//! plain Linux without a hand on it, and say what failed.

use super::entries::TT;
use super::{cases, only_our_entries, until};
use crate::machine::Host;

cases! {
    Installed {
        LaterBookworm: a_good_try;
        Trixie: withdrawn_and_damaged;
        Both: dom0_panics, a_unit_hangs, truncated_kernel, truncated_initrd, truncated_xen, xen_panics, a_unit_is_not_active;
    }
    Uefi {
        Both: uefi_xen_panics, uefi_truncated_kernel, uefi_truncated_initrd, uefi_dom0_panics, uefi_a_unit_hangs;
    }
}

/// There are TT images, `broken` by a script that runs in /boot/ttvm.
fn prepare(host: &mut Host, broken: &str, settings: &str) {
    host.run(TT).unwrap();
    host.run(&format!("set -e; cd /boot/ttvm; {broken}")).unwrap();
    host.write("/etc/ttvm/ttvm.toml", settings.as_bytes(), 0o644).unwrap();
    only_our_entries(host);
    host.run("update-grub 2>&1 && ttvm boot once ttvm-ttxen-ttlinux")
        .unwrap();
}

/// Boots the try; the host has to come back to plain Linux by itself.
fn fails(host: &mut Host, reason: &str) {
    host.reboot_until("ttvm.entry=ttvm-linux").unwrap();
    host.run("! grep -q ttvm.try=1 /proc/cmdline").unwrap();
    let status = host.run("ttvm boot status").unwrap();
    let line = status
        .lines()
        .find(|line| line.contains("Last try:"))
        .unwrap_or_default();
    assert!(
        line.contains("ttvm-ttxen-ttlinux FAILED: ") && line.contains(reason),
        "{status}"
    );
    assert!(status.contains("Next boot: ttvm-linux (the saved default)"), "{status}");
    // It has proved nothing.
    assert_eq!(host.sh("ttvm boot default ttvm-ttxen-ttlinux").unwrap().status, 4);
    assert_eq!(host.run("stat -c %s /boot/grub/grubenv").unwrap(), "1024");
}

/// What the serial port has shown, of a boot that nobody can be asked about.
fn shown(host: &Host, text: &str) {
    assert!(host.console().contains(text), "{}", host.console());
}

/// An initial RAM disk whose first process ends at once: Linux panics.
fn break_dom0(host: &mut Host) {
    only_our_entries(host);
    host.run(TT).unwrap();
    host.run(
        "set -e; mkdir -p /root/t/bin; cd /root/t; cp /bin/busybox bin; printf '#!/bin/busybox sh\\nexit 1\\n' > init; \
         chmod 755 init; find . | cpio -o -H newc 2>/dev/null | gzip -1 > /boot/ttvm/initrd.img-6.1-tt; update-grub 2>&1",
    )
    .unwrap();
}

fn a_good_try(host: &mut Host) {
    only_our_entries(host);
    host.run(TT).unwrap();
    host.write(
        "/etc/ttvm/ttvm.toml",
        b"[boot.ok]\ndelay = \"2s\"\nunits = [\"ttvm-agent.service\", \"xen.service\"]\n",
        0o644,
    )
    .unwrap();
    host.run("update-grub 2>&1 && ttvm boot once --keep ttvm-ttxen-ttlinux")
        .unwrap();
    host.reboot_until("ttvm.try=1").unwrap();
    until(
        host,
        "ttvm boot status | grep -q \"Last try: ttvm-ttxen-ttlinux was well\"",
    );
    until(
        host,
        "systemctl show -P ActiveState ttvm-boot-deadline@600.timer | grep -qx inactive",
    );
    until(host, "grep -qx 0 /proc/sys/kernel/hung_task_panic");
    until(
        host,
        "ttvm boot status | grep -q \"Next boot: ttvm-ttxen-ttlinux (the saved default)\"",
    );
    let list = host.run("ttvm boot list").unwrap();
    assert!(list.contains("booted, default, proved"), "{list}");
    // With another option it is another entry, which has not proved itself.
    host.run("printf '[boot]\\nxen_options = [\"loglvl=all\"]\\n' > /etc/ttvm/ttvm.toml; update-grub 2>&1")
        .unwrap();
    let status = host.run("ttvm boot status").unwrap();
    assert!(
        status.contains("Default: ttvm-ttxen-ttlinux (not confirmed as it is now)"),
        "{status}"
    );
}

fn truncated_kernel(host: &mut Host) {
    prepare(host, "truncate -s 2M vmlinuz-6.1-tt", "");
    fails(host, "it never came to be well");
    shown(host, "(XEN) Panic on CPU 0:");
}

fn truncated_initrd(host: &mut Host) {
    prepare(host, "truncate -s 1M initrd.img-6.1-tt", "");
    fails(host, "it never came to be well");
    shown(host, "Kernel panic");
}

/// GRUB itself cannot load it, and asks nobody.
fn truncated_xen(host: &mut Host) {
    prepare(host, "truncate -s 500K xen-4.17-tt.gz", "");
    fails(host, "it never came to be well");
    shown(host, "It cannot be loaded: plain Linux is booted in its place.");
}

fn xen_panics(host: &mut Host) {
    prepare(host, "", "[boot]\nxen_options = [\"dom0_mem=2M\"]\n");
    fails(host, "it never came to be well");
    shown(host, "(XEN) Panic on CPU 0:");
}

fn dom0_panics(host: &mut Host) {
    break_dom0(host);
    host.run("ttvm boot once ttvm-ttxen-ttlinux").unwrap();
    fails(host, "it never came to be well");
    shown(host, "Hardware Dom0 crashed: rebooting machine");
}

/// A service that is never up, before multi-user.target, when Xen runs. Begun with the first jobs, on a slow machine, too.
const HANGS: &str = "[Unit]\nConditionKernelCommandLine=ttvm.try=1\nBefore=multi-user.target\nDefaultDependencies=no\n\
    [Service]\nType=oneshot\nTimeoutStartSec=infinity\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";

fn a_unit_hangs(host: &mut Host) {
    host.write("/etc/systemd/system/hangs.service", HANGS.as_bytes(), 0o644)
        .unwrap();
    host.run("systemctl enable hangs.service 2>&1").unwrap();
    prepare(host, "", "[boot.ok]\ndelay = \"1s\"\ndeadline = \"45s\"\n");
    // Where the machine is slow, others are as well.
    fails(host, "still being started: ");
    host.run("ttvm boot status | grep -w hangs.service").unwrap();
}

fn a_unit_is_not_active(host: &mut Host) {
    prepare(host, "", "[boot.ok]\ndelay = \"1s\"\nunits = [\"rescue.service\"]\n");
    fails(host, "rescue.service (inactive)");
}

/// The same machine, started by other firmware, by which each boot of the test goes as well.
fn on_uefi(host: &mut Host, test: fn(&mut Host)) {
    host.run("test -d /sys/firmware/efi").unwrap();
    test(host);
    host.run("test -d /sys/firmware/efi").unwrap();
}

fn uefi_truncated_kernel(host: &mut Host) {
    on_uefi(host, truncated_kernel);
}

fn uefi_truncated_initrd(host: &mut Host) {
    on_uefi(host, truncated_initrd);
}

fn uefi_xen_panics(host: &mut Host) {
    on_uefi(host, xen_panics);
}

fn uefi_dom0_panics(host: &mut Host) {
    on_uefi(host, dom0_panics);
}

fn uefi_a_unit_hangs(host: &mut Host) {
    on_uefi(host, a_unit_hangs);
}

fn withdrawn_and_damaged(host: &mut Host) {
    let env = "/boot/grub/grubenv";
    host.run("ttvm boot once ttvm-ttxen-linux && ttvm boot cancel").unwrap();
    assert_eq!(host.run("grub-editenv list").unwrap(), "saved_entry=ttvm-linux");
    // Somebody else's choice is not ours to change.
    host.run("grub-reboot some-other-entry").unwrap();
    for command in ["once ttvm-ttxen-linux", "cancel"] {
        assert_eq!(host.sh(&format!("ttvm boot {command}")).unwrap().status, 4);
    }
    host.run("grub-editenv - unset next_entry").unwrap();
    // What GRUB cannot use is neither used nor mended over somebody's head.
    for (damage, message) in [
        (format!("truncate -s 2048 {env}"), "it has not 1024 bytes"),
        (format!("rm {env}; truncate -s 1024 {env}"), "its header is not GRUB's"),
        (format!("rm {env}"), "does not exist"),
    ] {
        host.run(&damage).unwrap();
        let answer = host.sh("ttvm boot once ttvm-ttxen-linux").unwrap();
        assert_eq!(answer.status, 1, "{}", answer.errors());
        assert!(answer.errors().contains(message), "{}", answer.errors());
        let status = host.run("ttvm boot status").unwrap();
        assert!(status.contains(&format!("Warning: {env}")), "{status}");
    }
    host.run("ttvm boot default ttvm-linux").unwrap();
    assert_eq!(host.run(&format!("stat -c '%s %a' {env}")).unwrap(), "1024 600");
    // Plain Linux is no try.
    assert_eq!(host.sh("ttvm boot once --keep ttvm-linux").unwrap().status, 4);
    host.run("ttvm boot once ttvm-linux && ttvm boot cancel").unwrap();
    // Nothing would end a boot that hangs.
    let generator = "/run/systemd/system-generators/systemd-debug-generator";
    host.run(&format!("mkdir -p $(dirname {generator}); ln -s /dev/null {generator}"))
        .unwrap();
    let refused = host.sh("ttvm boot once ttvm-ttxen-linux").unwrap();
    assert_eq!(refused.status, 4);
    assert!(refused.errors().contains(generator), "{}", refused.errors());
    host.run(&format!("rm {generator}")).unwrap();
    // Xen that stands still after a panic is not tried.
    only_our_entries(host);
    host.run("printf '[boot]\\nxen_options = [\"noreboot\"]\\n' > /etc/ttvm/ttvm.toml; update-grub 2>&1")
        .unwrap();
    assert_eq!(host.sh("ttvm boot once ttvm-ttxen-linux").unwrap().status, 4);
}

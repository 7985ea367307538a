// SPDX-License-Identifier: MIT OR Apache-2.0
//! Boot entries on other machines than the usual one, and with other kernels: what is booted is looked at after it has
//! been booted.

use super::{cases, only_our_entries};
use crate::machine::Host;

cases! {
    Installed {
        LaterBookworm: default_and_removal;
        Trixie: kernel_install;
        Both: tt_images, separate_boot, boot_on_lvm, second_kernel;
    }
    Uefi {
        Both: uefi;
    }
}

/// TT Xen and TT Linux for a test: the distribution's own, by other names.
pub(super) const TT: &str = "set -e; mkdir -p /boot/ttvm; cd /boot; cp xen-*-amd64.gz ttvm/xen-4.17-tt.gz; \
     cp vmlinuz-6* ttvm/vmlinuz-6.1-tt; cp initrd.img-6* ttvm/initrd.img-6.1-tt; cp config-6* ttvm/config-6.1-tt";

fn is_booted(host: &mut Host, entry: &str) {
    let line = host.run("cat /proc/cmdline").unwrap();
    assert!(line.contains(&format!("ttvm.entry={entry}")), "{line}");
    let status = host.run("ttvm boot status").unwrap();
    assert!(status.contains(&format!("Booted: {entry}\n")), "{status}");
    if entry == "ttvm-linux" {
        host.run("! test -e /proc/xen/capabilities || ! grep -q control_d /proc/xen/capabilities")
            .unwrap();
    } else {
        let xen = host.run("xl info | grep xen_commandline; xl list").unwrap();
        for option in ["watchdog", "sync_console", "dom0_max_vcpus=1", "dom0_mem=500M,max:500M"] {
            assert!(xen.contains(option), "{xen}");
        }
        assert!(!status.contains("NOT IN FORCE"), "{status}");
    }
}

fn tt_images(host: &mut Host) {
    only_our_entries(host);
    host.run(TT).unwrap();
    host.run("update-grub 2>&1").unwrap();
    let list = host.run("ttvm boot list").unwrap();
    assert!(
        list.contains("Debian GNU/Linux, TT Xen 4.17-tt, TT Linux 6.1-tt"),
        "{list}"
    );
    host.run("grub-set-default ttvm-ttxen-ttlinux").unwrap();
    host.reboot().unwrap();
    is_booted(host, "ttvm-ttxen-ttlinux");
    host.run("ttvm boot default ttvm-linux").unwrap();
    host.reboot().unwrap();
    is_booted(host, "ttvm-linux");
}

fn uefi(host: &mut Host) {
    host.run("test -d /sys/firmware/efi").unwrap();
    host.run("grub-set-default ttvm-ttxen-linux").unwrap();
    host.reboot().unwrap();
    host.run("test -d /sys/firmware/efi || xl dmesg | grep -i EFI").unwrap();
    is_booted(host, "ttvm-ttxen-linux");
    let xen = host.run("xl info | grep xen_commandline").unwrap();
    assert!(xen.contains("no-real-mode") && xen.contains("edd=off"), "{xen}");
    let status = host.run("ttvm boot status").unwrap();
    assert!(status.contains("Firmware: UEFI\n"), "{status}");
    // The menu made here is the one that was made on BIOS.
    let ours = "sed -n '/BEGIN .*21_ttvm/,/END .*21_ttvm/p' /boot/grub/grub.cfg";
    let before = host.run(ours).unwrap();
    only_our_entries(host);
    host.run("update-grub 2>&1").unwrap();
    assert_eq!(host.run(ours).unwrap(), before);
    host.run(TT).unwrap();
    host.run("update-grub 2>&1 && grub-set-default ttvm-ttxen-ttlinux")
        .unwrap();
    host.reboot().unwrap();
    is_booted(host, "ttvm-ttxen-ttlinux");
    host.run("ttvm boot default ttvm-linux").unwrap();
    host.reboot().unwrap();
    host.run("test -d /sys/firmware/efi").unwrap();
    is_booted(host, "ttvm-linux");
}

/// Moves /boot to the file system on `device`, and GRUB with it.
fn move_boot(host: &mut Host, device: &str) {
    only_our_entries(host);
    host.run(&format!(
        "set -e; mkfs.ext4 -q {device}; udevadm settle; mount {device} /mnt; cp -a /boot/. /mnt; umount /mnt; \
         echo \"UUID=$(blkid -o value -s UUID {device}) /boot ext4 defaults 0 0\" >> /etc/fstab; mount {device} /boot; \
         systemctl daemon-reload; grub-install /dev/vda 2>&1; update-grub 2>&1"
    ))
    .unwrap();
}

fn separate_boot(host: &mut Host) {
    move_boot(host, "/dev/vda2");
    let menu = host
        .run("sed -n '/BEGIN .*21_ttvm/,/END .*21_ttvm/p' /boot/grub/grub.cfg")
        .unwrap();
    assert!(menu.contains("multiboot2 /xen-4."), "{menu}");
    host.run("ttvm boot once ttvm-ttxen-linux").unwrap();
    host.reboot().unwrap();
    host.run("findmnt /boot").unwrap();
    host.run("grep -q 'ttvm.entry=ttvm-ttxen-linux ttvm.try=1' /proc/cmdline && xl info >/dev/null")
        .unwrap();
    host.reboot_until("ttvm.entry=ttvm-linux").unwrap();
    host.run("findmnt /boot").unwrap();
    is_booted(host, "ttvm-linux");
}

fn boot_on_lvm(host: &mut Host) {
    host.run("lvcreate -q -y -L 300M -n boot xenvg").unwrap();
    move_boot(host, "/dev/xenvg/boot");
    host.run("grub-set-default ttvm-ttxen-linux").unwrap();
    host.reboot().unwrap();
    host.run("findmnt /boot | grep xenvg-boot").unwrap();
    is_booted(host, "ttvm-ttxen-linux");
    // GRUB reads its environment there, but cannot write it.
    host.run("ttvm boot default ttvm-linux").unwrap();
    let before = host.run("sha256sum /boot/grub/grubenv").unwrap();
    let refused = host.sh("ttvm boot once ttvm-ttxen-linux").unwrap();
    assert_eq!(refused.status, 4);
    assert!(refused.errors().contains("it is on lvm"), "{}", refused.errors());
    assert_eq!(host.run("sha256sum /boot/grub/grubenv").unwrap(), before);
    host.reboot().unwrap();
    is_booted(host, "ttvm-linux");
}

fn second_kernel(host: &mut Host) {
    let apt = "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0";
    let deb = "/usr/lib/ttvm-host/second-kernel.deb";
    let version = host
        .run(&format!("dpkg-deb -f {deb} Package | sed s/linux-image-//"))
        .unwrap();
    only_our_entries(host);
    host.run(&format!("{apt} install {deb} 2>&1")).unwrap();
    let list = host.run("ttvm boot list").unwrap();
    let line = |list: &str, entry: &str| {
        list.lines()
            .find(|line| line.starts_with(entry))
            .unwrap_or_default()
            .to_owned()
    };
    // A kernel for clouds cannot be dom0.
    assert!(line(&list, "ttvm-linux ").contains(&version), "{list}");
    assert!(line(&list, "ttvm-ttxen-linux ").contains("-amd64"), "{list}");
    assert!(!line(&list, "ttvm-ttxen-linux ").contains("cloud"), "{list}");
    host.run(&format!("{apt} purge linux-image-{version} 2>&1")).unwrap();
    let list = host.run("ttvm boot list").unwrap();
    assert!(!list.contains("cloud"), "{list}");
    host.run("grub-script-check /boot/grub/grub.cfg && ! grep -q cloud /boot/grub/grub.cfg")
        .unwrap();
}

/// As a fresh Debian with Xen is: its package makes Xen's entry the default.
fn default_and_removal(host: &mut Host) {
    host.run("sed -i '/^GRUB_DEFAULT/d; /^XEN_OVERRIDE/d' /etc/default/grub.d/ttvm-host.cfg; update-grub 2>&1")
        .unwrap();
    let refused = host.sh("ttvm boot once ttvm-ttxen-linux").unwrap();
    assert_eq!(refused.status, 4);
    assert!(
        refused.errors().contains("`ttvm boot default ttvm-linux` first"),
        "{}",
        refused.errors()
    );
    let drop_in = "/etc/default/grub.d/zz-ttvm.cfg";
    // Somebody else's file is left alone.
    host.run(&format!("echo GRUB_TIMEOUT=3 > {drop_in}")).unwrap();
    assert_eq!(host.sh("ttvm boot default ttvm-linux").unwrap().status, 4);
    host.run(&format!("grep -qx GRUB_TIMEOUT=3 {drop_in} && rm {drop_in}"))
        .unwrap();
    host.run("ttvm boot default ttvm-linux 2>&1").unwrap();
    let status = host.run("ttvm boot status").unwrap();
    assert!(status.contains("Next boot: ttvm-linux (the saved default)"), "{status}");
    host.run("ttvm boot once ttvm-ttxen-linux").unwrap();
    host.run("DEBIAN_FRONTEND=noninteractive apt-get -q -y remove ttvm 2>&1")
        .unwrap();
    assert_eq!(host.run("grub-editenv list").unwrap(), "");
    assert_eq!(host.run("stat -c %s /boot/grub/grubenv").unwrap(), "1024");
    host.run(&format!(
        "! test -e {drop_in} && ! grep -q ttvm- /boot/grub/grub.cfg && grub-script-check /boot/grub/grub.cfg"
    ))
    .unwrap();
    // The default is Xen's own choice again.
    host.run("grep -q 'set default=\"Debian GNU/Linux, with Xen hypervisor\"' /boot/grub/grub.cfg")
        .unwrap();
}

/// systemd's kernel-install with GRUB's programs by Fedora's names.
fn kernel_install(host: &mut Host) {
    only_our_entries(host);
    host.push(
        std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/hooks/95-ttvm.install")),
        "/usr/lib/kernel/install.d/95-ttvm.install",
        0o755,
    )
    .unwrap();
    host.run("ln -s grub-mkconfig /usr/sbin/grub2-mkconfig; mkdir /boot/grub2; echo old > /boot/grub2/grub.cfg; rm -f /usr/lib/kernel/install.d/[0-8]* /usr/lib/kernel/install.d/90*")
        .unwrap();
    host.run("kernel-install add 6.1-new /boot/vmlinuz-6* 2>&1").unwrap();
    host.run("grep -q \"'ttvm-linux'\" /boot/grub2/grub.cfg").unwrap();
    // A menu that cannot be written does not stop the kernel's installation.
    host.run(
        "printf '#!/bin/sh\\nexit 1\\n' > /usr/sbin/x && chmod 755 /usr/sbin/x && ln -sf x /usr/sbin/grub2-mkconfig",
    )
    .unwrap();
    host.run("kernel-install remove 6.1-new 2>/root/said && grep -q 'may name a kernel that is gone' /root/said")
        .unwrap();
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests that come from files of xl: they mean the same to xl, they start, and what is on their volumes is safe.

use serde_json::Value;

use super::{cases, console, first_block, other_volumes, property};
use crate::machine::Host;

cases! {
    Installed {
        Trixie: lvm_tells_the_origin;
    }
    Xen {
        LaterBookworm: means_the_same_to_xl_and_starts;
        Both: volumes_stay_as_they_are, fresh_from_an_origin;
    }
}

/// A file of xl's, with a guest that does `steps`.
fn file(host: &mut Host, name: &str, volume: &str, steps: &str, more: &str) -> String {
    let path = format!("/root/{name}.cfg");
    let text = format!(
        "name = \"{name}\"\nkernel = \"/usr/lib/ttvm-host/vmlinux\"\nramdisk = \"/boot/initrd-busybox-based-ram-linux.img\"\n\
         extra = \"console=hvc0 quiet {steps}\"\nmemory = 96\ndisk = [ \"phy:{volume},xvda1,w\" ]\n{more}\n"
    );
    host.write(&path, text.as_bytes(), 0o644).unwrap();
    path
}

/// What xl makes of a file.
fn dry_run(host: &mut Host, file: &str) -> Value {
    let text = host.run(&format!("xl create -n {file} 2>/dev/null")).unwrap();
    let json = text.find('{').map_or("", |at| &text[at..]);
    serde_json::from_str(json).expect("xl prints JSON")
}

fn means_the_same_to_xl_and_starts(host: &mut Host) {
    host.run("ip link add xenbr0 type bridge && ip link set xenbr0 up")
        .unwrap();
    let more = "uuid = \"6f1c0c1e-7a3b-4c55-9d1e-0123456789ab\"\nvcpus = 1\nmaxvcpus = 2\ncpu_weight = 128\n\
                vif = [ \"mac=00:16:3e:00:00:01,bridge=xenbr0,ip=10.0.0.5\" ]\n\
                on_reboot = \"restart\"\non_crash = \"restart\"";
    let original = file(host, "web", "xenvg/other", "", more);
    assert_eq!(
        host.run(&format!("ttvm guest import {original} 2>/dev/null")).unwrap(),
        "wrote /etc/ttvm/guests/web.toml: guest \"web\" of /root/web.cfg (xl's language), for toolstack \"xl\""
    );
    host.run("ttvm guest config web > /root/written.cfg").unwrap();
    // A relative target is one below /dev, to Xen's block script; what ttvm writes says so.
    host.run("sed -i 's#phy:xenvg#phy:/dev/xenvg#' /root/web.cfg").unwrap();
    let (mut before, mut after) = (dry_run(host, &original), dry_run(host, "/root/written.cfg"));
    for config in [&mut before, &mut after] {
        // The guest's unit decides what follows a shutdown.
        for key in ["on_poweroff", "on_reboot", "on_crash", "on_watchdog", "on_soft_reset"] {
            config.as_object_mut().expect("an object").remove(key);
        }
    }
    assert_eq!(before["disks"][0]["pdev_path"], "/dev/xenvg/other");
    assert_eq!(before, after);
    host.run("systemctl start ttvm@web").unwrap();
    console(host, "web", "ttvm guest up", 1);
    assert_eq!(host.run("ls /sys/class/net/xenbr0/brif").unwrap(), "vif1.0");
    host.run("systemctl stop ttvm@web").unwrap();
    assert_eq!(host.run("lvs --noheadings -o lv_name @ttvm").unwrap(), "");
}

fn volumes_stay_as_they_are(host: &mut Host) {
    let others = other_volumes(host);
    let path = file(host, "kept", "/dev/xenvg/other", "ttvm.do=read", "");
    host.run(&format!("ttvm guest import {path}")).unwrap();
    host.run("systemctl start ttvm@kept").unwrap();
    console(host, "kept", "first block", 1);
    host.run("systemctl stop ttvm@kept").unwrap();
    assert_eq!(other_volumes(host), others);
    // Asked to be a fresh snapshot, in the place of a volume that ttvm did not make: refused.
    let fresh = format!("ttvm guest import --name fresh --origin xvda1=xenvg/base {path}");
    assert_eq!(host.sh(&fresh).unwrap().status, 3, "it is a disk of another guest");
    host.run("rm /etc/ttvm/guests/kept.toml").unwrap();
    host.run(&fresh).unwrap();
    assert_ne!(host.sh("systemctl start ttvm@fresh").unwrap().status, 0);
    assert_eq!(
        host.run("ttvm snapshot reset fresh >/dev/null 2>&1; echo $?").unwrap(),
        "4"
    );
    assert_eq!(other_volumes(host), others);
}

fn fresh_from_an_origin(host: &mut Host) {
    let golden = first_block(host, "/dev/xenvg/base");
    let path = file(host, "clientA", "/dev/xenvg/snap1", "ttvm.do=read,write", "");
    host.run(&format!("ttvm guest import --origin xvda1=xenvg/base {path}"))
        .unwrap();
    host.run("sed -i 's/1G/32M/' /etc/ttvm/guests/clientA.toml").unwrap();
    for run in 1..=2 {
        host.run("systemctl start ttvm@clientA").unwrap();
        assert!(console(host, "clientA", "first block", run).ends_with(&golden));
        console(host, "clientA", "write: 0", run);
        host.run("systemctl stop ttvm@clientA").unwrap();
        assert_eq!(property(host, "clientA", "ActiveState"), "inactive");
    }
    assert_eq!(first_block(host, "/dev/xenvg/base"), golden);
}

fn lvm_tells_the_origin(host: &mut Host) {
    host.run("lvcreate -q -y -s -n mine -L 16M xenvg/base && lvcreate -q -y -s -n thin xenvg/tbase")
        .unwrap();
    let path = file(host, "mine", "/dev/xenvg/mine", "", "");
    let text = host
        .run(&format!("ttvm guest import --dry-run {path} 2>/dev/null"))
        .unwrap();
    assert!(text.contains("# xenvg/mine is a snapshot of xenvg/base."), "{text}");
    assert!(
        text.contains("# snapshot = { name = \"mine\", size = \"16M\" }"),
        "{text}"
    );
    let path = file(host, "thin", "/dev/xenvg/thin", "", "");
    let text = host
        .run(&format!("ttvm guest import --dry-run {path} 2>&1 >/dev/null"))
        .unwrap();
    assert!(text.contains("--origin xvda1=xenvg/tbase"), "{text}");
    assert_eq!(
        host.run("lvs --noheadings -o lv_name xenvg | grep -cE 'mine|thin'")
            .unwrap(),
        "2"
    );
}

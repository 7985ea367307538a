// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real initial RAM disks: of initramfs-tools, of dracut, and with microcode before them. Each is listed, unpacked and
//! packed again, and the host boots from what came out. And the seed's RAM-based guest on Xen: made on the host, on its NAT network,
//! used from its console.

use super::{THICK, cases, console, network, nothing_left, until, wait_for};
use crate::machine::Host;

cases! {
    Installed {
        LaterTrixie: debian_with_microcode;
        Both: dracut;
    }
    Xen {
        Both: busybox_guest;
    }
}

/// What the host boots from.
const OWN: &str = "/boot/initrd.img-$(uname -r)";

/// Takes `image` apart and puts it together again, twice: /root/again is as good as `image`.
fn through_our_hands(host: &mut Host, image: &str) {
    let script = format!(
        "set -e; cd /root; rm -rf once twice again*
         ttvm initrd inspect --json {image} > before
         ttvm initrd list {image} > names
         ttvm initrd unpack {image} once
         ttvm initrd pack once again
         ttvm initrd inspect --json again > after
         ttvm initrd unpack again twice
         ttvm initrd pack twice again2
         cmp again again2
         ttvm initrd list again | cmp - names
         all() {{ (cd $1; find . -mindepth 2 -printf '%p %M %U %G %T@ %l %s\\n' | sort; find . -type f -exec sha256sum {{}} + | sort); }}
         all once > a; all twice > b; cmp a b; wc -l < names"
    );
    let output = host.run(&script).unwrap();
    let names: u32 = output.lines().last().unwrap_or_default().parse().unwrap();
    assert!(names > 100, "{output}");
    // The same segments: all but sizes and offsets.
    let same = r#"python3 -c 'import json
def kinds(name): return [segment["compression"] for segment in json.load(open(name))]
before, after = kinds("/root/before"), kinds("/root/after")
assert before == after, (before, after)
print(*after)'"#;
    println!("{image}: {}", host.run(same).unwrap());
}

fn boots(host: &mut Host) {
    host.run(&format!("cp /root/again {OWN} && sync")).unwrap();
    host.reboot_until("ttvm.entry=ttvm-linux").unwrap();
}

fn debian_with_microcode(host: &mut Host) {
    // No processor takes this for its own; the kernel's search for it and what comes after are real.
    let early = format!(
        "set -e; mkdir -p /root/early/kernel/x86/microcode; cd /root/early
         head -c 70001 /dev/urandom > kernel/x86/microcode/GenuineIntel.bin
         find . | cpio -o -H newc --quiet > /root/with-microcode
         cat {OWN} >> /root/with-microcode
         lsinitramfs {OWN} | sort > /root/theirs; ttvm initrd list {OWN} | sort | diff - /root/theirs"
    );
    host.run(&early).unwrap();
    through_our_hands(host, "/root/with-microcode");
    boots(host);
}

fn dracut(host: &mut Host) {
    through_our_hands(host, "/usr/lib/ttvm-host/initrd-dracut.img");
    boots(host);
    // dracut's was there, not initramfs-tools'.
    host.run("journalctl -b | grep -q 'dracut'").unwrap();
}

/// The host has an image of its own under the usual name.
const IMAGE: &str = "/boot/initrd-of-ours.img";

/// Makes the image and a guest that boots it.
fn busybox_made(host: &mut Host) {
    network::outside(host);
    host.run("ttvm network set nat").unwrap();
    let refused = host.sh("ttvm initrd busybox").unwrap();
    assert_eq!(refused.status, 4, "{}", refused.errors());
    assert!(refused.errors().contains("was not made by `ttvm initrd busybox`"));
    let made = host.run(&format!("ttvm initrd busybox -o {IMAGE}")).unwrap();
    assert!(made.contains("made /boot/initrd-of-ours.img: kernel "), "{made}");
    let file = format!(
        "memory = \"96M\"\nkernel = \"/usr/lib/ttvm-host/vmlinux\"\ninitrd = \"{IMAGE}\"\n\
         cmdline = \"console=hvc0 quiet hostname=box\"\n{THICK}\n[[vif]]\naddress = \"10.0.0.1\"\n"
    );
    host.write("/etc/ttvm/guests/ram.toml", file.as_bytes(), 0o644).unwrap();
    host.run("systemctl start ttvm@ram").unwrap();
}

/// Types on the guest's console, through the same terminal as `xl console`.
fn types(host: &mut Host, line: &str) {
    let terminal = "$(xenstore-read /local/domain/$(xl domid ram)/console/tty)";
    host.run(&format!("printf '%s\\n' \"{line}\" > {terminal}")).unwrap();
}

/// How the guest's last run ended.
fn last_exit(host: &mut Host) -> String {
    host.run("ttvm status --json ram | sed -n 's/.*\"last_exit\": \"\\(.*\\)\".*/\\1/p'")
        .unwrap()
}

fn busybox_guest(host: &mut Host) {
    busybox_made(host);
    console(host, "ram", "box login: ", 1);
    types(host, "root");
    console(host, "ram", "Password: ", 1);
    // What is typed while it is asked is thrown away, and nothing tells when that is over.
    std::thread::sleep(std::time::Duration::from_secs(2));
    types(host, "root");
    console(host, "ram", "root@box:~# ", 1);
    types(host, "until ip -4 addr show dev eth0 | grep inet; do sleep 1; done");
    console(host, "ram", "inet 10.0.0.1/24", 1);
    types(
        host,
        "ip route; wget -q -O - http://198.51.100.1/cgi-bin/who; echo; free",
    );
    console(host, "ram", "default via 10.0.0.254 dev eth0", 1);
    console(host, "ram", "^192.0.2.10", 1);
    // Its file system is loaded when it is needed.
    types(
        host,
        "mke2fs /dev/xvda1 >/dev/null && mount /dev/xvda1 /mnt && cat /proc/mounts",
    );
    console(host, "ram", "^/dev/xvda1 /mnt ext4 rw", 1);
    types(host, "poweroff");
    wait_for(host, "ram", "inactive");
    assert_eq!(last_exit(host), "powered itself off");
    nothing_left(host, "ram");
    // `xl shutdown` asks the kernel, which calls the guest's poweroff.
    host.run("systemctl start ttvm@ram").unwrap();
    until(host, "busybox ping -c 1 -W 1 10.0.0.1 >/dev/null 2>&1");
    host.run("systemctl stop ttvm@ram").unwrap();
    assert_eq!(last_exit(host), "stopped");
    nothing_left(host, "ram");
}

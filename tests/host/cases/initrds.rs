// SPDX-License-Identifier: MIT OR Apache-2.0
//! Real initial RAM disks: of initramfs-tools, of dracut, and with microcode before them. Each is listed, unpacked and
//! packed again, and the host boots from what came out.

use super::cases;
use crate::machine::Host;

cases! {
    Installed {
        Trixie: debian_with_microcode;
        Later: dracut;
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images that are made on volumes, and a guest that boots from a copy of its host.

use super::{THICK, cases, console, emulated_guest, other_volumes};
use crate::machine::Host;

cases! {
    Installed {
        Bookworm: name_is_taken, no_room_in_the_group, what_is_not_ours_stays;
        Trixie: told_to_end;
        LaterBookworm: on_a_thick_volume, two_at_once;
        LaterTrixie: on_a_thin_volume;
        Both: killed_at_each_step, killed_while_lvm_works;
    }
    Xen {
        Both: the_host_as_a_guest;
    }
}

/// A small source with something to compare.
fn source(host: &mut Host) {
    host.run("mkdir -p /srv/src/etc /srv/src/d && echo old >/srv/src/etc/hostname && cp /usr/bin/[c-f]* /srv/src/d 2>/dev/null; du -sm /srv/src")
        .unwrap();
}

/// `ttvm image create …` ends like this and says this, on whichever stream.
fn says(host: &mut Host, line: &str, status: i32, text: &str) {
    let output = host.sh(&format!("ttvm image create {line}")).unwrap();
    let all = format!("{}\n{}", output.text(), output.errors());
    assert_eq!(output.status, status, "{line}: {all}");
    assert!(all.contains(text), "{line}: {all}");
}

/// The names and tags of all volumes that runs make.
fn volumes(host: &mut Host) -> String {
    host.run("lvs --noheadings -o lv_name,lv_tags xenvg | grep -vE '^ +(base|other|tbase|pool) ' | xargs")
        .unwrap()
}

/// The volume has a sound file system, with what the source has.
fn sound(host: &mut Host, volume: &str) {
    host.run(&format!(
        "e2fsck -fn /dev/{volume} >/dev/null && mkdir -p /run/image && mount -o ro /dev/{volume} /run/image && \
         diff -r /srv/src/d /run/image/d && grep -q clientA /run/image/etc/hostname; code=$?; umount /run/image; exit $code"
    ))
    .unwrap();
}

fn made(host: &mut Host, options: &str, segtype: &str) {
    let others = other_volumes(host);
    source(host);
    let line = format!("clientA --size 160M --lv xenvg/golden {options} --from /srv/src");
    says(host, &format!("{line} --dry-run"), 0, "would make xenvg/golden, a ");
    assert_eq!(volumes(host), "");
    let before = host.run("cat /proc/self/mountinfo; losetup -a").unwrap();
    says(host, &line, 0, "xenvg/golden is made: 160M, ext4, with ");
    assert_eq!(volumes(host), "golden");
    assert_eq!(host.run("cat /proc/self/mountinfo; losetup -a").unwrap(), before);
    assert_eq!(
        host.run("lvs --noheadings -o segtype xenvg/golden | xargs").unwrap(),
        segtype
    );
    sound(host, "xenvg/golden");
    host.run("lvremove -q -y xenvg/golden").unwrap();
    // Old content of the same blocks does not show, and it is sealed at once.
    says(
        host,
        &format!("{line} --seal --fs ext3"),
        0,
        "xenvg/golden is sealed: blake3:",
    );
    sound(host, "xenvg/golden");
    assert!(
        host.run("lvs --noheadings -o lv_permissions xenvg/golden")
            .unwrap()
            .contains("read-only")
    );
    assert_eq!(other_volumes(host), others);
}

fn on_a_thick_volume(host: &mut Host) {
    // Blocks that are not zeros.
    host.run("lvcreate -q -y -L 200M -n junk xenvg && yes junk | dd of=/dev/xenvg/junk bs=1M iflag=fullblock oflag=direct 2>/dev/null; lvremove -q -y xenvg/junk")
        .unwrap();
    made(host, "", "linear");
}

fn on_a_thin_volume(host: &mut Host) {
    made(host, "--thin-pool pool", "thin");
    says(
        host,
        "clientA --size 64M --lv xenvg/x --thin-pool base --from /srv/src/etc",
        1,
        "there is no thin pool xenvg/base",
    );
    // A pool that is full stops all guests in it. Of so large a file system, its own tables would fill it.
    says(
        host,
        "clientA --size 64G --lv xenvg/x --thin-pool pool --from /srv/src/etc --dry-run",
        4,
        "thin pool xenvg/pool has ",
    );
    assert!(volumes(host).starts_with("golden ttvm.digest="));
}

fn name_is_taken(host: &mut Host) {
    source(host);
    let others = other_volumes(host);
    for line in ["", "--dry-run"] {
        let line = format!("clientA --size 160M --lv xenvg/base --from /srv/src {line}");
        says(host, &line, 4, "xenvg/base is there already: nothing was done");
    }
    emulated_guest(host, THICK, "loop");
    host.run("ttvm snapshot reset clientA 2>/dev/null").unwrap();
    says(
        host,
        "clientA --size 160M --lv xenvg/snap1 --from /srv/src",
        4,
        "xenvg/snap1 is there already",
    );
    says(
        host,
        "clientA --size 64M --lv novg/x --from /srv/src/etc",
        1,
        "there is no volume group novg",
    );
    // A mistake is told before a volume is made.
    says(
        host,
        "clientA --size 8M --lv xenvg/x --from /srv/src",
        4,
        "8M is too small for ",
    );
    assert!(!volumes(host).contains("x.ttvm-new"));
    assert_eq!(other_volumes(host), others);
}

fn no_room_in_the_group(host: &mut Host) {
    says(
        host,
        "clientA --size 1T --lv xenvg/golden --from /etc",
        4,
        "volume group xenvg has ",
    );
    assert_eq!(volumes(host), "");
}

const STEPS: [&str; 7] = [
    "create.volume",
    "create.volume-made",
    "create.file-system",
    "create.copying",
    "create.copied",
    "create.filled",
    "create.volume-named",
];

fn killed_at_each_step(host: &mut Host) {
    let others = other_volumes(host);
    source(host);
    // In turns thick and thin: the steps are the same, and each takes a while with this processor.
    let kinds = ["", "--thin-pool pool"].into_iter().cycle();
    for (point, options) in STEPS.into_iter().zip(kinds) {
        let line = format!("clientA --size 160M --lv xenvg/golden {options} --from /srv/src");
        let before = host.run("cat /proc/self/mountinfo; losetup -a").unwrap();
        let killed = host
            .sh(&format!("TTVM_FAIL_POINT={point} ttvm image create {line}"))
            .unwrap();
        assert!(matches!(killed.status, -9 | 137), "{point}: {}", killed.status);
        assert_eq!(host.run("cat /proc/self/mountinfo; losetup -a").unwrap(), before);
        if point == "create.volume-named" {
            // It is whole; a tag is left that means nothing.
            assert!(volumes(host).starts_with("golden"), "{point}");
            sound(host, "xenvg/golden");
        } else {
            assert!(!volumes(host).contains("golden "), "{point}");
            says(host, &line, 0, "xenvg/golden is made: ");
            assert_eq!(volumes(host), "golden", "{point}");
        }
        host.run("lvremove -q -y xenvg/golden").unwrap();
    }
    assert_eq!(other_volumes(host), others);
}

/// LVM goes on when ttvm is gone; the next run waits for it.
fn killed_while_lvm_works(host: &mut Host) {
    source(host);
    let line = "clientA --size 160M --lv xenvg/golden --from /srv/src";
    for delay in ["0.1", "0.4", "1.2"] {
        host.run(&format!(
            "ttvm image create {line} >/dev/null 2>&1 & pid=$!; sleep {delay}; kill -9 $pid; wait $pid; true"
        ))
        .unwrap();
        says(host, line, 0, "xenvg/golden is made: ");
        assert_eq!(volumes(host), "golden", "{delay}");
        host.run("lvremove -q -y xenvg/golden").unwrap();
    }
}

fn what_is_not_ours_stays(host: &mut Host) {
    source(host);
    host.run("lvcreate -q -y -L 16M -n golden.ttvm-new xenvg && echo mine | dd of=/dev/xenvg/golden.ttvm-new conv=fsync 2>/dev/null")
        .unwrap();
    says(
        host,
        "clientA --size 160M --lv xenvg/golden --from /srv/src",
        4,
        "xenvg/golden.ttvm-new is in the way, and nothing says that ttvm made it",
    );
    assert_eq!(host.run("head -c 4 /dev/xenvg/golden.ttvm-new").unwrap(), "mine");
}

/// The one that is at work is left alone.
fn two_at_once(host: &mut Host) {
    source(host);
    let line = "clientA --size 160M --lv xenvg/golden --from /srv/src";
    host.run(&format!(
        "TTVM_FAIL_POINT=create.copying:stop ttvm image create {line} >/root/first 2>&1 & echo $! >/root/pid; \
         timeout 600 sh -c 'until grep -q \"^State:.T\" /proc/$(cat /root/pid)/status; do sleep 0.2; done'"
    ))
    .unwrap();
    says(
        host,
        line,
        4,
        "xenvg/golden is being made by another ttvm at this moment",
    );
    host.run(
        "kill -CONT $(cat /root/pid); timeout 600 sh -c 'until grep -q \"is made\" /root/first; do sleep 0.5; done'",
    )
    .unwrap();
    sound(host, "xenvg/golden");
}

fn told_to_end(host: &mut Host) {
    source(host);
    let script = "TTVM_FAIL_POINT=create.copying:stop ttvm image create clientA --size 160M --lv xenvg/golden --from /srv/src >/dev/null 2>&1 & pid=$!
        timeout 600 sh -c \"until grep -q '^State:.T' /proc/$pid/status; do sleep 0.2; done\"
        kill -TERM $pid; kill -CONT $pid; wait $pid; echo ended: $?";
    assert!(host.run(script).unwrap().contains("ended: 143"));
    assert_eq!(volumes(host), "");
}

/// The seed's copy of a host: it boots to a login prompt.
fn the_host_as_a_guest(host: &mut Host) {
    // Its getty asks nobody, and what is large and of no use to the guest takes minutes, with this processor.
    let left_out = [
        "/etc/systemd/system/serial-getty@.service.d",
        "qemu*",
        "*.deb",
        "/usr/lib/modules",
        "/usr/lib/python3*",
        "/usr/lib/xen*",
    ];
    let left_out: String = left_out
        .iter()
        .map(|pattern| format!(" --exclude '{pattern}'"))
        .collect();
    says(
        host,
        &format!("clientA --size 1G --lv xenvg/golden{left_out}"),
        0,
        "xenvg/golden is made: ",
    );
    let disk = "[[disk]]\norigin = \"xenvg/golden\"\ntarget = \"xvda1\"\nsnapshot = { size = \"256M\" }";
    let file = format!(
        "memory = \"256M\"\nkernel = \"/usr/lib/ttvm-host/vmlinux\"\ninitrd = \"$INITRD\"\n\
         cmdline = \"root=/dev/xvda1 ro console=hvc0\"\nstart_timeout = \"300s\"\n{disk}\n"
    );
    let initrd = host.run("ls /boot/initrd.img-* | head -n 1").unwrap();
    let file = file.replace("$INITRD", initrd.trim());
    host.write("/etc/ttvm/guests/clientA.toml", file.as_bytes(), 0o644)
        .unwrap();
    host.run("systemctl start ttvm@clientA").unwrap();
    console(host, "clientA", "clientA login:", 1);
    host.run("systemctl stop ttvm@clientA").unwrap();
}

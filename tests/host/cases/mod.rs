// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests, by subject, and what several of them need.

mod boot;
mod busybox_guest;
mod entries;
mod guests;
mod image;
mod image_create;
mod import;
mod initrds;
mod kills;
mod lvm_errors;
mod network;
mod package;
mod power_cuts;
mod recordings;
mod traps;
mod trials;

use super::Case;
use super::machine::Host;

/// Every case.
pub fn all() -> Vec<Case> {
    [
        boot::cases(),
        busybox_guest::cases(),
        entries::cases(),
        guests::cases(),
        image::cases(),
        image_create::cases(),
        import::cases(),
        initrds::cases(),
        kills::cases(),
        lvm_errors::cases(),
        network::cases(),
        package::cases(),
        power_cuts::cases(),
        recordings::cases(),
        traps::cases(),
        trials::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Names cases by their functions.
macro_rules! cases {
    ($from:ident: $($test:ident),* $(,)?) => {
        /// The cases of this file.
        pub(super) fn cases() -> Vec<$crate::Case> {
            vec![$($crate::Case {
                name: concat!(module_path!(), "::", stringify!($test)),
                from: $crate::From::$from,
                test: $test,
            }),*]
        }
    };
}
pub(super) use cases;

/// The content of every volume that no run may touch, as sums: nobody forges one here, and digests take three times as long.
pub fn other_volumes(host: &mut Host) -> String {
    host.run("for lv in base other tbase; do cksum /dev/mapper/xenvg-$lv; done")
        .unwrap()
}

/// Leaves the distribution's own entries out of the menus that will be made: a test looks at ours, and the others take
/// twenty seconds each time.
pub fn only_our_entries(host: &mut Host) {
    host.run("chmod -x /etc/grub.d/10_linux /etc/grub.d/20_linux_xen")
        .unwrap();
}

/// The digest of the first block of a volume, as the guest's `read` prints it.
pub fn first_block(host: &mut Host, device: &str) -> String {
    host.run(&format!(
        "dd if={device} bs=4096 count=1 iflag=direct 2>/dev/null | sha256sum | cut -d' ' -f1"
    ))
    .unwrap()
}

/// Writes a guest's file: `disk` and `more` are TOML, `steps` what the guest does (tests/host/rootfs, guest-init).
pub fn guest(host: &mut Host, name: &str, disk: &str, steps: &str, more: &str) {
    let file = format!(
        "memory = \"96M\"\nkernel = \"/usr/lib/ttvm-host/vmlinux\"\ninitrd = \"/boot/initrd-busybox-based-ram-linux.img\"\n\
         cmdline = \"console=hvc0 quiet {steps}\"\nshutdown_timeout = \"30s\"\n{more}\n{disk}\n"
    );
    host.write(&format!("/etc/ttvm/guests/{name}.toml"), file.as_bytes(), 0o644)
        .unwrap();
}

/// The seed's disk, on a thick origin.
pub const THICK: &str =
    "[[disk]]\norigin = \"xenvg/base\"\ntarget = \"xvda1\"\nsnapshot = { name = \"snap1\", size = \"32M\" }";
/// The same on a thin origin.
pub const THIN: &str = "[[disk]]\norigin = \"xenvg/tbase\"\ntarget = \"xvda1\"\nsnapshot = { name = \"snap1\" }";

/// Waits until the guest's console shows `count` lines with `text`, and returns the last of these.
pub fn console(host: &mut Host, name: &str, text: &str, count: u32) -> String {
    let log = format!("/var/log/xen/console/guest-{name}.log");
    let told = format!("[ \"$(grep -ac \"{text}\" {log} 2>/dev/null)\" -ge {count} ] 2>/dev/null");
    until(host, &told);
    host.run(&format!("grep -a \"{text}\" {log} | sed -n '{count}p' | tr -d '\\r'"))
        .unwrap()
}

/// One property of a guest's unit.
pub fn property(host: &mut Host, name: &str, property: &str) -> String {
    host.run(&format!("systemctl show -P {property} ttvm@{name}")).unwrap()
}

/// Waits until the journal of the guest's unit has `count` messages with `text`.
pub fn journal(host: &mut Host, name: &str, text: &str, count: u32) {
    // Not by following it: journalctl -f goes on until it has something to say to a reader that is gone.
    until(
        host,
        &format!("[ $(journalctl -o cat -u ttvm@{name} | grep -c \"{text}\") -ge {count} ]"),
    );
}

/// Waits until the unit is in `state`.
pub fn wait_for(host: &mut Host, name: &str, state: &str) {
    until(
        host,
        &format!("[ \"$(systemctl show -P ActiveState ttvm@{name})\" = {state} ]"),
    );
}

/// Waits until a shell condition holds. A look every half of a second: what is waited for is written by others, and a
/// look costs the one emulated CPU a tenth of that.
fn until(host: &mut Host, condition: &str) {
    host.run(&format!("timeout 180 sh -c 'until {condition}; do sleep 0.5; done'"))
        .unwrap();
}

/// Nothing of the guest is left: no domain, no snapshot, no process.
pub fn nothing_left(host: &mut Host, name: &str) {
    let left = host.run(&format!(
        "xl list | awk '$1 == \"{name}\"'; lvs --noheadings -o lv_name @ttvm; ls -d /dev/xenvg/snap* 2>/dev/null; pgrep -a ttvm-; true"
    ));
    assert_eq!(left.unwrap(), "", "left behind");
}

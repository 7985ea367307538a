// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests, by subject, and what several of them need.

mod boot;
mod by_name;
mod doctor;
mod entries;
mod guests;
mod image;
mod image_create;
mod import;
mod in_place;
mod in_place_thin;
mod initrds;
mod kills;
mod lvm_errors;
#[path = "../../replay/mutants.rs"]
#[allow(dead_code, reason = "a few that are made by hand are enough here")]
mod mutants;
mod network;
mod package;
mod power_cuts;
#[path = "../../support/promtool.rs"]
mod promtool;
mod recordings;
#[path = "../../guest/tiny.rs"]
mod tiny;
mod traps;
mod trials;
mod types;
mod unattended;

use super::Case;
pub use super::machine::THICK;
use super::machine::{Host, guest_file};

/// Every case.
pub fn all() -> Vec<Case> {
    [
        boot::cases(),
        by_name::cases(),
        doctor::cases(),
        entries::cases(),
        guests::cases(),
        image::cases(),
        image_create::cases(),
        import::cases(),
        in_place::cases(),
        in_place_thin::cases(),
        initrds::cases(),
        kills::cases(),
        lvm_errors::cases(),
        network::cases(),
        package::cases(),
        power_cuts::cases(),
        recordings::cases(),
        traps::cases(),
        trials::cases(),
        types::cases(),
        unattended::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Lists the cases of a file: what state they begin in, and, by their functions, where `make check` runs each ([`crate::When`]).
macro_rules! cases {
    ($($state:ident { $($when:ident: $($test:ident),* ;)* })*) => {
        /// The cases of this file.
        pub(super) fn cases() -> Vec<$crate::Case> {
            vec![$($($($crate::Case {
                name: $crate::cases::below(concat!(module_path!(), "::", stringify!($test))),
                state: $crate::machine::State::$state,
                when: $crate::When::$when,
                test: $test,
            }),*),*),*]
        }
    };
}
pub(super) use cases;

/// The name of a function in one of the modules here.
fn below(path: &'static str) -> &'static str {
    path.split_once("cases::").map_or(path, |(_, name)| name)
}

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

/// Writes a guest's file.
pub fn guest(host: &mut Host, name: &str, disk: &str, steps: &str, more: &str) {
    let file = guest_file(disk, steps, more);
    host.write(&format!("/etc/ttvm/guests/{name}.toml"), file.as_bytes(), 0o644)
        .unwrap();
}

/// Writes the file of a guest of QEMU, for what needs no Xen: dom0 takes three times as long for the same LVM commands. It
/// runs `tests/guest/tiny.c` with `cmdline`. `disk` is one of Xen's.
pub fn emulated_guest(host: &mut Host, disk: &str, cmdline: &str) {
    host.write("/root/tiny", tiny::image(), 0o644).unwrap();
    let disk = disk.replace("xvda1", "vda");
    let file = format!(
        "toolstack = \"qemu\"\nmemory = \"32M\"\nkernel = \"/root/tiny\"\ncmdline = \"{cmdline}\"\n\
         shutdown_timeout = \"1s\"\n{disk}\n"
    );
    host.write("/etc/ttvm/guests/clientA.toml", file.as_bytes(), 0o644)
        .unwrap();
}

/// Gives a guest that is up another step to do.
pub fn tell(host: &mut Host, name: &str, step: &str) {
    host.run(&format!(
        "echo {step} >$(xenstore-read /local/domain/$(xl domid {name})/console/tty)"
    ))
    .unwrap();
}

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

/// Waits until the journal of the guest's unit has `count` messages with `text`. Followed, not looked at again and again: each
/// look would take the one emulated CPU for half a second. journalctl is ended by hand, because it goes on until it has
/// something to say to a reader that is gone.
pub fn journal(host: &mut Host, name: &str, text: &str, count: u32) {
    let waited = host
        .sh(&format!(
            "mkfifo /run/journal.$$; journalctl -f -n all -o cat -u ttvm@{name} >/run/journal.$$ & journal=$!; \
             timeout 600 grep -c -m {count} \"{text}\" </run/journal.$$; \
             code=$?; kill $journal; rm /run/journal.$$; exit $code"
        ))
        .unwrap();
    assert!(
        waited.status == 0,
        "waited ten minutes in vain for {count} times {text:?} in the journal of ttvm@{name}"
    );
}

/// Waits until the unit is in `state`.
pub fn wait_for(host: &mut Host, name: &str, state: &str) {
    until(
        host,
        &format!("[ \"$(systemctl show -P ActiveState ttvm@{name})\" = {state} ]"),
    );
}

/// Waits until systemd has started the unit once more by itself.
pub fn tried_again(host: &mut Host, name: &str) {
    until(
        host,
        &format!("[ \"$(systemctl show -P NRestarts ttvm@{name})\" -ge 1 ]"),
    );
}

/// Waits until a shell condition holds. A look every half of a second: what is waited for is written by others, and a
/// look costs the one emulated CPU a tenth of that. The limit is only there for what never comes.
fn until(host: &mut Host, condition: &str) {
    let waited = host
        .sh(&format!("timeout 600 sh -c 'until {condition}; do sleep 0.5; done'"))
        .unwrap();
    assert!(waited.status != 124, "waited ten minutes in vain for: {condition}");
    waited.success().unwrap();
}

/// Nothing of the guest is left: no domain, no snapshot, no process.
pub fn nothing_left(host: &mut Host, name: &str) {
    let left = host.run(&format!(
        "xl list | awk '$1 == \"{name}\"'; lvs --noheadings -o lv_name @ttvm; ls -d /dev/xenvg/snap* 2>/dev/null; pgrep -a ttvm-; true"
    ));
    assert_eq!(left.unwrap(), "", "left behind");
}

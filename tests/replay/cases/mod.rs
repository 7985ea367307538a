// SPDX-License-Identifier: MIT OR Apache-2.0

mod batch;
mod branch;
mod busybox;
mod cage;
mod capsule;
mod changes;
mod debugger;
mod elsewhere;
mod ends;
mod explain;
mod hostile;
mod identical;
mod image;
mod jobs;
mod new;
mod plain;
mod questions;
mod refusals;
mod salvage;
mod space;
mod time;
mod verdicts;

use super::Case;
use super::lab::{FILE, Place};
use super::tiny;

/// Bytes of the disk of the guest without an operating system.
const TINY_DISK: usize = 256 << 10;

/// The guest without an operating system (tests/guest/tiny.c) in place of Linux: its run is over at once, or with `loop` as
/// `words` goes on for ever.
fn describe_tiny(place: &Place, words: &str) {
    place.write("tiny", tiny::image());
    let disk: Vec<u8> = (0..TINY_DISK as u64 / 8)
        .flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes())
        .collect();
    place.write("base.img", &disk);
    let here = place.path("").display().to_string();
    let file = format!(
        "kernel = \"{here}tiny\"\ncmdline = \"console=ttyS0 {words}\"\nmemory = \"16M\"\n\n[[disk]]\ntarget = \"vda\"\n\
         origin = \"{here}base.img\"\n\n[[vif]]\nmac = \"52:54:00:74:74:01\"\n"
    );
    place.write(FILE, file.as_bytes());
}

macro_rules! cases {
    ($($module:ident::$name:ident),* $(,)?) => {
        vec![$(Case { name: concat!(stringify!($module), "::", stringify!($name)), test: $module::$name }),*]
    };
}

/// What waits for deadlines most of the time: it is run beside the others, one after the other.
pub const WAITING: [&str; 2] = ["verdicts::emulator_stopped", "verdicts::emulator_killed"];

/// Those of `make check`: of each subject what is quick. The long ones first.
pub fn quick() -> Vec<Case> {
    cases![
        branch::other_answers,
        explain::differences,
        identical::disk_clocks_and_random_numbers,
        identical::network,
        ends::supervisor_killed,
        verdicts::written_and_off,
        time::from_each_checkpoint,
        questions::from_the_log,
        ends::at_an_instruction,
        capsule::no_engine_installed,
        elsewhere::exported_and_imported,
        new::as_root_without_systemd,
        space::none_for_disks,
        changes::named_before_anything_runs,
        verdicts::disk_that_is_only_read,
        busybox::recorded,
        time::core_in_gdb,
        cage::hostile_logs,
        verdicts::crash,
        ends::interrupted,
        ends::rebooted,
        ends::rebooting,
        cage::host_out_of_reach,
        debugger::forwards_and_backwards,
        verdicts::nothing_printed,
        busybox::login_and_poweroff,
        ends::after_a_time,
        salvage::power_cut,
        busybox::power_button,
        cage::modes,
        busybox::no_network,
        cage::sandbox,
        cage::too_much_memory,
        branch::refused,
        verdicts::nothing_booted,
        hostile::recordings,
        branch::careful,
        capsule::refused,
        space::nearly_full,
        hostile::places,
        hostile::no_answer,
        hostile::times,
        cage::record_beside_replay,
        elsewhere::disk_by_its_place,
        salvage::by_the_next_run,
        debugger::emulator_killed,
        jobs::refused,
        questions::refused,
        new::what_it_does,
        cage::firmware_lying_about,
        refusals::toolstack,
        refusals::no_emulator,
    ]
}

/// Those that `make check-all` adds.
pub fn later() -> Vec<Case> {
    cases![
        verdicts::emulator_stopped,
        verdicts::emulator_killed,
        new::tutorial,
        questions::last_writes,
        salvage::killed,
        space::disk_of_a_plain_run,
        space::disk_fails,
        ends::rebooting_plain,
        batch::tasks,
        space::full,
        time::disk_and_network,
        jobs::verdicts,
        cage::two_names,
        time::points_by_name,
        new::joined,
        image::boots_to_a_login,
        ends::emulator_killed,
        verdicts::no_timer_options,
        changes::stale_disk,
        changes::other_firmware,
        time::packets,
        new::from_a_directory,
        new::from_a_package,
    ]
}

/// Those of `make check-both` alone: their subjects have others that are quicker.
pub fn long() -> Vec<Case> {
    cases![
        batch::slurm,
        branch::anywhere,
        branch::killed,
        branch::tries,
        capsule::debian_12_and_13,
        capsule::points_and_packets,
        explain::memory,
        explain::nothing_to_find,
        jobs::differences,
        questions::another_run,
        questions::first_executions,
        questions::sectors,
        questions::shared_code,
        questions::watched,
        questions::zeros,
        time::busy_disk,
        time::memory_alone
    ]
}

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

/// The long ones first.
pub fn all() -> Vec<Case> {
    cases![
        verdicts::emulator_stopped,
        identical::disk_clocks_and_random_numbers,
        identical::network,
        capsule::no_engine_installed,
        time::disk_and_network,
        time::from_each_checkpoint,
        time::points_by_name,
        branch::other_answers,
        branch::refused,
        branch::careful,
        jobs::verdicts,
        jobs::refused,
        questions::last_writes,
        questions::from_the_log,
        questions::refused,
        batch::tasks,
        explain::differences,
        time::packets,
        time::core_in_gdb,
        hostile::recordings,
        image::boots_to_a_login,
        new::tutorial,
        new::from_a_directory,
        new::from_a_package,
        new::as_root_without_systemd,
        new::what_it_does,
        new::joined,
        ends::at_an_instruction,
        salvage::killed,
        verdicts::emulator_killed,
        busybox::recorded,
        busybox::login_and_poweroff,
        busybox::power_button,
        busybox::no_network,
        changes::named_before_anything_runs,
        changes::stale_disk,
        changes::other_firmware,
        elsewhere::exported_and_imported,
        elsewhere::disk_by_its_place,
        capsule::refused,
        ends::supervisor_killed,
        ends::emulator_killed,
        ends::interrupted,
        ends::after_a_time,
        ends::rebooted,
        salvage::power_cut,
        salvage::by_the_next_run,
        space::nearly_full,
        space::full,
        space::none_for_disks,
        verdicts::no_timer_options,
        verdicts::written_and_off,
        verdicts::crash,
        verdicts::nothing_printed,
        verdicts::nothing_booted,
        verdicts::disk_that_is_only_read,
        cage::sandbox,
        cage::host_out_of_reach,
        cage::firmware_lying_about,
        cage::modes,
        cage::hostile_logs,
        cage::too_much_memory,
        cage::two_names,
        cage::record_beside_replay,
        hostile::places,
        hostile::no_answer,
        hostile::times,
        debugger::forwards_and_backwards,
        debugger::emulator_killed,
        refusals::toolstack,
        refusals::no_emulator,
    ]
}

/// Those of `make check-all` alone: their subjects have others that are quicker.
pub fn later() -> Vec<Case> {
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

// SPDX-License-Identifier: MIT OR Apache-2.0
//! ttvm: a host for time-travelling virtual machines.
//!
//! The modules point one way: each knows those of the lines below it, and none of its own line or above. A test
//! (`src/house.rs`) holds the code to this picture.
//!
//! ```text
//! cli                      the command line
//! batch report             work on recordings for many hosts; a recording as a page to look at
//! netd                     the networks as a D-Bus service, and its clients
//! doctor                   whether this host is ready, and what to do if not
//! recording                record, replay, and the proof that both were the same run
//! import making            guests' files of those of xm and xl; whole guests, from nothing or from a system
//! boot network             the entries of the boot menu; the guests' networks
//! guest                    a guest's run on Xen
//! image                    what disks are made from, and proof that it is still the same
//! initrd                   initial RAM disks on our command line, and the one for guests without a disk
//! qemu                     the emulated machine
//! snapshot                 a fresh disk for each run
//! lvm2_cmd                 the one place that runs LVM2, and reads what it keeps on disks
//! config                   /etc/ttvm as typed values
//! dm xenstore              what the kernel and Xen know, without a program
//! file run                 files that appear when they are finished, locks, digests; other programs, run to their end or beside
//! base                     the journal, systemd, exit codes, signals, text for a person, the clock, failing on purpose
//! ```
//!
//! Below all of them are crates that know nothing of ttvm: `replay-log` (QEMU's log of a run, read as what it may be: anybody's),
//! `qemu-watch` (a plugin that watches a run from within QEMU, and what it writes), `initrd` (initial RAM disks: what is in them,
//! unpacked and packed), `ext4-fill` (a file system that is written without the kernel).

#![warn(missing_docs)]
// Tests say by them what they expect; the programs have errors.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod base;
pub mod batch;
pub mod boot;
pub mod cli;
pub mod config;
pub mod dm;
pub mod doctor;
pub mod file;
pub mod guest;
#[cfg(test)]
mod house;
pub mod image;
pub mod import;
pub mod initrd;
pub mod lvm2_cmd;
pub mod making;
pub mod netd;
pub mod network;
pub mod qemu;
pub mod recording;
pub mod report;
pub mod run;
pub mod snapshot;
pub mod xenstore;

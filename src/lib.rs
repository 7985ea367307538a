// SPDX-License-Identifier: MIT OR Apache-2.0
//! ttvm: a host for time-travelling virtual machines.
//!
//! The modules point one way; nothing below knows what is above:
//!
//! ```text
//! cli                      the command line
//! netd                     the networks as a D-Bus service, and its clients
//! recording                record, replay, and the proof that both were the same run
//! import                   guests' files of those of xm and xl
//! guest, boot, network     the capabilities
//! image                    what disks are made from, and proof that it is still the same
//! initrd                   initial RAM disks: what is in them, and making them
//! qemu                     the emulated machine
//! replay_log               its log of a run, read as what it may be: anybody's
//! snapshot                 a fresh disk for each run
//! lvm2_cmd                 the one place that runs LVM2
//! config                   /etc/ttvm as typed values
//! dm xenstore              what the kernel and Xen know, read without a program
//! run child signals lock file xattr  programs, signals, locks, files
//! version                  which kernel is newer
//! log notify error             the journal, systemd, exit codes
//! text                     what may be shown to a person
//! ```

pub mod boot;
pub mod child;
pub mod cli;
pub mod config;
pub mod dm;
pub mod error;
pub mod ext4;
pub mod fail_point;
pub mod file;
pub mod guest;
pub mod image;
pub mod import;
pub mod initrd;
pub mod lock;
pub mod log;
pub mod lvm2_cmd;
pub mod netd;
pub mod network;
pub mod notify;
pub mod qemu;
pub mod recording;
pub mod replay_log;
pub mod run;
pub mod signals;
pub mod snapshot;
pub mod text;
mod version;
mod xattr;
pub mod xenstore;

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm.toml`: host-wide settings and the defaults of guests. `ttvm.toml(5)` describes each key.

use std::time::Duration;

use super::boot::BootConfig;
use super::guest::{OnReboot, Toolstack};
use super::network::NetworkConfig;
use super::places::Places;
use super::reader::Table;
use super::types::{InterfaceName, Seconds, Size};
use super::{Error, source};

/// All of `ttvm.toml`.
#[derive(Debug, Clone, Default)]
pub struct HostConfig {
    /// `[guest]`: what a guest file does not say.
    pub guest: GuestDefaults,
    /// `[snapshot]`.
    pub snapshot: SnapshotConfig,
    /// `[boot]`.
    pub boot: BootConfig,
    /// `[network]`.
    pub network: NetworkConfig,
}

/// `[guest]`.
#[derive(Debug, Clone)]
pub struct GuestDefaults {
    /// What starts a guest.
    pub toolstack: Toolstack,
    /// Memory of a guest.
    pub memory: Size,
    /// Virtual CPUs of a guest.
    pub vcpus: u32,
    /// What a guest's own reboot does.
    pub on_reboot: OnReboot,
    /// The bridge of a vif that names none.
    pub bridge: Option<InterfaceName>,
    /// How long the toolstack may take to build the domain.
    pub start_timeout: Duration,
    /// How long a guest may take to shut down before it is destroyed.
    pub shutdown_timeout: Duration,
}

impl Default for GuestDefaults {
    fn default() -> Self {
        Self {
            toolstack: Toolstack::Xl,
            // "about 96 MB": larger guests freeze at boot under TT Xen's shadow paging (seed).
            memory: Size::mib(96),
            vcpus: 1,
            on_reboot: OnReboot::Keep,
            bridge: None,
            start_timeout: Duration::from_secs(120),
            shutdown_timeout: Duration::from_secs(60),
        }
    }
}

/// `[snapshot]`.
#[derive(Debug, Clone)]
pub struct SnapshotConfig {
    /// How long to wait for a snapshot that is in use to be let go.
    pub busy_timeout: Duration,
    /// How long to wait for another ttvm program that works on the same volume group.
    pub lock_timeout: Duration,
    /// A thin pool fuller than this (data or metadata, percent) gets no new snapshots.
    pub thin_pool_limit: u8,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self {
            busy_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(120),
            thin_pool_limit: 95,
        }
    }
}

/// Reads `ttvm.toml`; without the file, the defaults.
pub fn load(places: &Places) -> Result<HostConfig, Error> {
    let config = defaults(places);
    match source(places, &places.config_dir().join("ttvm.toml"))? {
        None => Ok(config),
        Some(source) => source
            .read(|_, table| Some(read(table, config)))
            .map_err(Error::Invalid),
    }
}

/// The same for whoever can do without: the defaults if the file is wrong, and why it is.
pub fn load_or_defaults(places: &Places) -> (HostConfig, Option<Error>) {
    match load(places) {
        Ok(config) => (config, None),
        Err(error) => (defaults(places), Some(error)),
    }
}

fn defaults(places: &Places) -> HostConfig {
    let mut config = HostConfig::default();
    config.guest.toolstack = places.toolstack();
    config
}

fn read(table: &Table<'_>, mut config: HostConfig) -> HostConfig {
    if let Some(table) = table.table("guest") {
        read_guest(&table, &mut config.guest);
    }
    if let Some(table) = table.table("snapshot") {
        let snapshot = &mut config.snapshot;
        set(&mut snapshot.busy_timeout, seconds(&table, "busy_timeout"));
        set(&mut snapshot.lock_timeout, seconds(&table, "lock_timeout"));
        set(
            &mut snapshot.thin_pool_limit,
            table
                .integer("thin_pool_limit", 1..=100)
                .and_then(|limit| u8::try_from(limit.value).ok()),
        );
        table.finish();
    }
    if let Some(table) = table.table("boot") {
        config.boot = BootConfig::read(&table);
    }
    if let Some(table) = table.table("network") {
        config.network = NetworkConfig::read(&table);
    }
    config
}

fn read_guest(table: &Table<'_>, guest: &mut GuestDefaults) {
    set(&mut guest.toolstack, table.value("toolstack"));
    set(&mut guest.memory, super::guest::file::read_memory(table));
    set(&mut guest.vcpus, super::guest::file::vcpus(table));
    set(&mut guest.on_reboot, table.value("on_reboot"));
    guest.bridge = table.value("bridge");
    set(&mut guest.start_timeout, seconds(table, "start_timeout"));
    set(&mut guest.shutdown_timeout, seconds(table, "shutdown_timeout"));
    table.finish();
}

/// The time at `key`.
pub(super) fn seconds(table: &Table<'_>, key: &'static str) -> Option<Duration> {
    table.value::<Seconds>(key).map(|seconds| seconds.0)
}

/// Replaces the default if the file says something.
pub(super) fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

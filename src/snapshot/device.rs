// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold of a snapshot's device and of its path before anything is done: nobody has the one open, and the
//! other leads there.

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::error::{Error, Refusal};
use super::{Store, holders};
use crate::base::signals;
use crate::config::guest::Snapshot;
use crate::dm::{By, Device};

/// How often a device that is in use is looked at again. The kernel has no event for a block device being closed.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(250);

impl Store<'_> {
    /// Waits until nobody has the device open, and ends if there is a signal to end.
    pub(super) fn device_is_free(&self, snapshot: &Snapshot, device: &Device, limit: Duration) -> Result<(), Error> {
        let announced = Cell::new(false);
        self.device_is_closed(snapshot, device, limit, || {
            if !announced.replace(true) {
                let holders = holders::list(&holders::find(device));
                tracing::info!(
                    ttvm_guest = %self.guest,
                    ttvm_lv = %snapshot.volume,
                    "waiting: {} is in use by {holders}",
                    snapshot.volume
                );
            }
            self.pause();
        })
    }

    /// The same, with `pause` between two looks, and nothing is logged.
    pub(super) fn device_is_closed(
        &self,
        snapshot: &Snapshot,
        device: &Device,
        limit: Duration,
        pause: impl Fn(),
    ) -> Result<(), Error> {
        let until = Instant::now() + limit;
        while self
            .dm
            .find(By::Number(device.number))?
            .is_some_and(|device| device.open_count > 0)
        {
            if Instant::now() >= until {
                return Err(Error::InUse {
                    volume: snapshot.volume.clone(),
                    holders: holders::find(device),
                    waited: limit,
                });
            }
            pause();
        }
        Ok(())
    }

    /// Until the next look.
    pub(super) fn pause(&self) {
        signals::deliver();
        std::thread::sleep(LOOK_AGAIN);
    }

    /// Makes sure that `/dev/VG/LV` is the volume's device, or nothing if it has none.
    pub(super) fn path_is_ours(&self, snapshot: &Snapshot, device: Option<&Device>) -> Result<(), Error> {
        if self.path_fits(snapshot, device) {
            return Ok(());
        }
        // Or an LVM command is at work whose ttvm was killed, and udev has yet to follow it. LVM's report waits for
        // both; it also has the better reason if the volume itself is foreign.
        self.examine(snapshot)?;
        let device = self.dm.find(By::Name(&snapshot.volume.dm_name()))?;
        if self.path_fits(snapshot, device.as_ref()) {
            return Ok(());
        }
        Err(self.refused(
            snapshot,
            Refusal::ForeignPath {
                path: snapshot.volume.device(),
            },
        ))
    }

    /// A link that leads nowhere fits: udev will replace it.
    pub(super) fn path_fits(&self, snapshot: &Snapshot, device: Option<&Device>) -> bool {
        match fs::metadata(snapshot.volume.device()) {
            Ok(data) => device.is_some_and(|device| data.rdev() == device.number),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

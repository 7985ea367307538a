// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages to what a device is made of, and holding back what is written to a device (linux/dm-ioctl.h).

use nix::errno::Errno;

use super::table::{DEV_SUSPEND, failed};
use super::{By, DeviceMapper, Error, PAYLOAD, SUSPEND_FLAG, request};

const TARGET_MSG: u8 = 14;
/// `struct dm_target_msg` before its text: the sector of the target.
const SECTOR: usize = 8;

impl DeviceMapper {
    /// Gives the first target of a device a message. What it does is done when this returns.
    ///
    /// # Errors
    ///
    /// If the target refuses it, or knows no such message.
    pub fn tell(&self, by: By<'_>, message: &str) -> Result<(), Error> {
        let mut tell = request(by, 0);
        // It ends with a NUL.
        if SECTOR + message.len() >= PAYLOAD {
            return Err(failed(by, Errno::E2BIG));
        }
        tell.payload[SECTOR..SECTOR + message.len()].copy_from_slice(message.as_bytes());
        self.ioctl(TARGET_MSG, &mut tell).map_err(|errno| failed(by, errno))
    }

    /// Does `work` while a device holds all I/O back, and what came before has reached it. Whoever is killed meanwhile leaves it so
    /// ([`suspended`](super::Device::suspended)), and whoever waits for anything has all wait who use it: `work` asks the kernel, and
    /// logs nothing.
    ///
    /// # Errors
    ///
    /// If the device cannot be suspended, and `work` was not done, or if it does not go on.
    pub fn while_suspended<T>(&self, by: By<'_>, work: impl FnOnce() -> T) -> Result<T, Error> {
        self.ioctl(DEV_SUSPEND, &mut request(by, SUSPEND_FLAG))
            .map_err(|errno| failed(by, errno))?;
        let done = work();
        self.resume(by)?;
        Ok(done)
    }

    /// Lets a device go on that is suspended.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn resume(&self, by: By<'_>) -> Result<(), Error> {
        // Without the flag to suspend, this is the call to resume.
        self.ioctl(DEV_SUSPEND, &mut request(by, 0))
            .map_err(|errno| failed(by, errno))
    }
}

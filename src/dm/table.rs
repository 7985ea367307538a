// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables: what a device is made of, and giving it another one (linux/dm-ioctl.h).

use nix::errno::Errno;

use super::{By, DeviceMapper, Error, Header, PAYLOAD, Request, STATUS_TABLE_FLAG, first_target, request};

pub(super) const DEV_SUSPEND: u8 = 6;
const TABLE_LOAD: u8 = 9;
const TABLE_CLEAR: u8 = 10;
/// `struct dm_target_spec`, before its parameters.
const SPEC: usize = 40;

/// What a device is made of, if that is one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its size in sectors.
    pub sectors: u64,
    /// The target's name.
    pub kind: String,
    /// What it was told.
    pub parameters: String,
}

impl Table {
    /// A device of that size in which nothing is: `zero` is one that reads as zeros, `error` one that fails.
    pub fn nothing(sectors: u64, kind: &str) -> Self {
        Self {
            sectors,
            kind: kind.into(),
            parameters: String::new(),
        }
    }

    /// As the kernel takes it; `None` if it is too long.
    fn payload(&self) -> Option<[u8; PAYLOAD]> {
        let mut payload = [0; PAYLOAD];
        let (kind, parameters) = (self.kind.as_bytes(), self.parameters.as_bytes());
        // Both end with a NUL.
        if kind.len() >= 16 || SPEC + parameters.len() >= PAYLOAD {
            return None;
        }
        payload[8..16].copy_from_slice(&self.sectors.to_ne_bytes());
        payload[24..24 + kind.len()].copy_from_slice(kind);
        payload[SPEC..SPEC + parameters.len()].copy_from_slice(parameters);
        Some(payload)
    }
}

impl DeviceMapper {
    /// What a device is made of; `None` if there is none, or if it is of several targets.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub fn table(&self, by: By<'_>) -> Result<Option<Table>, Error> {
        let Some(request) = self.ask(by, STATUS_TABLE_FLAG)? else {
            return Ok(None);
        };
        if request.header.target_count != 1 {
            return Ok(None);
        }
        Ok(first_target(&request).map(|target| Table {
            sectors: target.sectors,
            kind: target.kind,
            parameters: target.parameters,
        }))
    }

    /// Gives a device another table, with which it goes on. What the old one had in use is let go when this
    /// returns. These are two calls: whoever is killed between them leaves the device with the old one, and the new one loaded
    /// ([`changing`](super::Device::changing)). The second is whole, also for whoever is killed in it.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the table: the device then goes on with the old one. If it has taken the new one and cannot begin
    /// with it, the device has that, and may be suspended.
    pub fn replace(&self, by: By<'_>, table: &Table) -> Result<(), Error> {
        let mut load = request(by, 0);
        load.header.target_count = 1;
        load.payload = table.payload().ok_or_else(|| failed(by, Errno::E2BIG))?;
        self.ioctl(TABLE_LOAD, &mut load).map_err(|errno| failed(by, errno))?;
        // Without the flag to suspend, this call resumes, and takes the loaded table first.
        let resume = || self.ioctl(DEV_SUSPEND, &mut request(by, 0));
        resume().map_err(|errno| {
            // The kernel suspends the device before it takes the table, and does not let it go on if it does not take it (do_resume
            // in its drivers/md/dm-ioctl.c). There is no remedy for what fails here: the first error is the one to be told.
            let _ = self.ioctl(TABLE_CLEAR, &mut request(by, 0));
            let _ = resume();
            failed(by, errno)
        })
    }
}

pub(super) fn failed(by: By<'_>, errno: Errno) -> Error {
    Error::Ask {
        device: by.to_string(),
        source: errno.into(),
    }
}

const _: () = assert!(size_of::<Request>() == size_of::<Header>() + PAYLOAD);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_it_is_written() {
        let table = Table {
            sectors: 131_072,
            kind: "snapshot".into(),
            parameters: "254:1 254:3 P 8".into(),
        };
        let mut request = request(By::Number(0), 0);
        request.header.target_count = 1;
        request.payload = table.payload().expect("short");
        let read = first_target(&request).expect("a target");
        assert_eq!(
            (read.sectors, read.kind, read.parameters),
            (table.sectors, table.kind, table.parameters)
        );
        let long = Table {
            parameters: "x".repeat(PAYLOAD),
            ..Table::nothing(8, "error")
        };
        assert_eq!(long.payload(), None);
    }
}

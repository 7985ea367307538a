// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest asks its disks for, read from the queue in its memory (virtio specification, 2.7 "Split Virtqueues" and 5.2
//! "Block Device"). It is the guest's, and may have anything in it.

use crate::qemu::memory::{Memory, PAGE};
use crate::qemu::qmp::Queue;

/// The flags of a descriptor: another one follows; the device writes there; it stands for a table of others.
const NEXT: u16 = 1;
const TO_GUEST: u16 = 2;
const INDIRECT: u16 = 4;

/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 16;

/// What a request begins with.
const HEAD: u64 = 16;

/// Bytes of a sector.
const SECTOR: u64 = 512;

/// No request has more descriptors: QEMU's queues have as many.
const LONGEST: usize = 1024;

/// A memory of this size or more has, below 4 GiB, only so much: the rest is above (pc_piix.c in QEMU's hw/i386).
const LARGE: u64 = 0xe000_0000;
const LOW: u64 = 0xc000_0000;
const HIGH: u64 = 1 << 32;

/// Where in a memory of `size` bytes the one is that has a guest's `address`, if there is one.
pub(super) fn offset(size: u64, address: u64) -> Option<u64> {
    match address {
        address if size < LARGE || address < LOW => Some(address),
        address => address.checked_sub(HIGH).map(|behind| LOW + behind),
    }
    .filter(|offset| *offset < size)
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::recording) struct Request {
    /// What is wanted of the disk.
    pub(in crate::recording) action: Action,
    /// The first sector.
    pub(in crate::recording) sector: u64,
    /// How many there are.
    pub(super) sectors: u64,
    /// Where the data is in the guest's memory, and how many bytes there.
    data: Vec<(u64, u64)>,
}

/// What is wanted of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::recording) enum Action {
    Read,
    Write,
    /// Make them zeros.
    Zeros,
    /// By its number in the specification.
    Other(u32),
}

impl Request {
    /// The one that was begun as the `number`th, in 16 bits; `None` if the queue is not as the specification has it.
    pub(in crate::recording) fn read(memory: &Memory, queue: &Queue, number: u16) -> Option<Self> {
        let place = u64::from(number).checked_rem(queue.size)?;
        let entry = queue.available.checked_add(4 + 2 * place)?;
        let head = u64::from(u16::from_le_bytes(bytes(memory, entry)?));
        let mut table = queue.descriptors;
        let mut next = Some(head);
        let mut descriptor = Descriptor::read(memory, table, head)?;
        if descriptor.flags & INDIRECT != 0 {
            table = descriptor.address;
            next = Some(0);
            descriptor = Descriptor::read(memory, table, 0)?;
        }
        let action = match u32::from_le_bytes(bytes(memory, descriptor.address)?) {
            0 => Action::Read,
            1 => Action::Write,
            13 => Action::Zeros,
            other => Action::Other(other),
        };
        let mut request = Self {
            action,
            sector: u64::from_le_bytes(bytes(memory, descriptor.address.checked_add(8)?)?),
            sectors: 0,
            data: Vec::new(),
        };
        let (mut skip, mut seen) = (HEAD, 0);
        while let Some(index) = next {
            let descriptor = Descriptor::read(memory, table, index)?;
            let length = descriptor.length.saturating_sub(skip);
            // What a disk writes has no answer but its last byte.
            if length > 0 && descriptor.flags & TO_GUEST == 0 {
                request.data.push((descriptor.address.checked_add(skip)?, length));
            }
            skip = skip.saturating_sub(descriptor.length);
            next = (descriptor.flags & NEXT != 0).then_some(descriptor.next);
            seen += 1;
            if seen > LONGEST {
                return None;
            }
        }
        if request.action == Action::Zeros {
            // Its data says which: the first sector, how many, flags. QEMU takes no more than one such piece.
            let (place, _) = *request.data.first()?;
            request.sector = u64::from_le_bytes(bytes(memory, place)?);
            request.sectors = u32::from_le_bytes(bytes(memory, place.checked_add(8)?)?).into();
        } else {
            let lengths = request.data.iter().map(|(_, length)| *length);
            request.sectors = lengths.fold(0, u64::saturating_add) / SECTOR;
        }
        Some(request)
    }

    /// Whether it writes a sector.
    pub(in crate::recording) fn writes(&self, sector: u64) -> bool {
        let behind = sector.checked_sub(self.sector);
        matches!(self.action, Action::Write | Action::Zeros) && behind.is_some_and(|behind| behind < self.sectors)
    }

    /// Where in the guest's memory the data of a sector is that it writes; it may have none.
    pub(super) fn data_of(&self, sector: u64) -> Option<u64> {
        if self.action != Action::Write {
            return None;
        }
        let mut behind = sector.checked_sub(self.sector)?.checked_mul(SECTOR)?;
        for (address, length) in &self.data {
            match behind.checked_sub(*length) {
                None => return address.checked_add(behind),
                Some(rest) => behind = rest,
            }
        }
        None
    }
}

struct Descriptor {
    address: u64,
    length: u64,
    flags: u16,
    next: u64,
}

impl Descriptor {
    fn read(memory: &Memory, table: u64, index: u64) -> Option<Self> {
        let at = table.checked_add(DESCRIPTOR * index)?;
        let word = |behind: u64| bytes(memory, at.checked_add(behind)?);
        Some(Self {
            address: u64::from_le_bytes(bytes(memory, at)?),
            length: u32::from_le_bytes(word(8)?).into(),
            flags: u16::from_le_bytes(bytes(memory, at.checked_add(12)?)?),
            next: u16::from_le_bytes(bytes(memory, at.checked_add(14)?)?).into(),
        })
    }
}

/// `N` bytes of the guest's memory from `address` on, within a page; `None` where there is none.
fn bytes<const N: usize>(memory: &Memory, address: u64) -> Option<[u8; N]> {
    let address = offset(memory.size(), address)?;
    let mut page = [0; PAGE];
    let (number, from) = (address / PAGE as u64, (address % PAGE as u64) as usize);
    memory.read(usize::try_from(number).ok()?, &mut page).ok()?;
    page.get(from..from + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_memory_goes_on_above_4_gib() {
        assert_eq!(offset(1 << 30, 0x3fff_ffff), Some(0x3fff_ffff));
        assert_eq!(offset(1 << 30, 1 << 30), None);
        assert_eq!(offset(LARGE - 1, LOW), Some(LOW));
        assert_eq!(offset(LARGE, LOW - 1), Some(LOW - 1));
        assert_eq!(offset(LARGE, LOW), None, "devices are there");
        assert_eq!(offset(LARGE, HIGH), Some(LOW));
        assert_eq!(offset(LARGE, HIGH + LARGE - LOW), None);
    }
}

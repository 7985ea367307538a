// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel's device-mapper knows, asked directly (`/dev/mapper/control`).
//!
//! One ioctl answers in microseconds what `lvs` needs a device scan and a quarter of a second for, and the
//! control device can be polled for events: this is how an overflow is noticed without polling `lvs`.
//! Structures and numbers: linux/dm-ioctl.h. There is a crate, `devicemapper`, but it needs libclang to build.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;

pub use table::Table;

mod message;
mod table;

const CONTROL: &str = "/dev/mapper/control";
const TABLE_STATUS: u8 = 12;
const ARM_POLL: u8 = 16;
const STATUS_TABLE_FLAG: u32 = 1 << 4;
const READONLY_FLAG: u32 = 1;
const SUSPEND_FLAG: u32 = 1 << 1;
const INACTIVE_PRESENT_FLAG: u32 = 1 << 6;
/// Without it, asking a thin pool for its status makes it commit its metadata.
const NOFLUSH_FLAG: u32 = 1 << 11;

/// `struct dm_ioctl`.
#[repr(C)]
struct Header {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

const PAYLOAD: usize = 4096;

#[repr(C)]
struct Request {
    header: Header,
    payload: [u8; PAYLOAD],
}

/// Why device-mapper could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control device cannot be opened.
    #[error("cannot open {CONTROL}: it needs root and the kernel module dm_mod")]
    Open(#[source] io::Error),
    /// The kernel refused.
    #[error("device-mapper does not answer for \"{device}\"")]
    Ask {
        /// Its name or number.
        device: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The kernel's reason.
    pub fn errno(&self) -> Option<Errno> {
        let (Self::Open(source) | Self::Ask { source, .. }) = self;
        source.raw_os_error().map(Errno::from_raw)
    }
}

/// How to name a device.
#[derive(Debug, Clone, Copy)]
pub enum By<'a> {
    /// By its device-mapper name (`xenvg-snap1`).
    Name(&'a str),
    /// By its device number (`dev_t` as the kernel encodes it).
    Number(u64),
    /// By its UUID, which no other device has at any time.
    Uuid(&'a str),
}

impl fmt::Display for By<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            By::Name(name) => formatter.write_str(name),
            By::Number(number) => write!(formatter, "device number {number}"),
            By::Uuid(uuid) => write!(formatter, "device with UUID {uuid}"),
        }
    }
}

/// A device-mapper device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its UUID; LVM's begin with `LVM-`.
    pub uuid: String,
    /// Its device number.
    pub number: u64,
    /// How often it is open: mounts, other devices, processes, block backends.
    pub open_count: i32,
    /// Whether it holds back all I/O, as a device does whose table is being changed.
    pub suspended: bool,
    /// Whether another table has been loaded that it does not have yet.
    pub changing: bool,
    /// Whether the kernel lets nobody write to it.
    pub read_only: bool,
    /// The state of its first target.
    pub state: State,
}

impl Device {
    /// The UUID of the logical volume behind it as LVM writes it, if it is one as a whole (not an inner layer).
    pub fn lv_uuid(&self) -> Option<String> {
        self.layer_uuid("")
    }

    /// The UUID of the logical volume that it is this inner layer of (`-cow`, `-real`).
    pub fn layer_uuid(&self, layer: &str) -> Option<String> {
        let both = self.uuid.strip_prefix("LVM-")?.strip_suffix(layer)?;
        if both.len() != 64 || !both.is_ascii() {
            return None;
        }
        let mut rest = &both[32..];
        let mut parts = Vec::new();
        for length in [6, 4, 4, 4, 4, 4, 6] {
            let (part, after) = rest.split_at(length);
            parts.push(part);
            rest = after;
        }
        Some(parts.join("-"))
    }
}

/// The state of a target, for the kinds that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// A thick snapshot and the sectors of its copy-on-write area in use.
    Snapshot {
        /// Sectors in use.
        used: u64,
        /// Sectors it has.
        total: u64,
    },
    /// A thick snapshot that is lost: its area overflowed or could not be written.
    SnapshotLost,
    /// A thick origin that has snapshots.
    SnapshotOrigin,
    /// A thin volume.
    Thin,
    /// A thin volume whose pool has failed.
    ThinFailed,
    /// A thin pool.
    ThinPool(Pool),
    /// Anything else, by the target's name; empty without a table.
    Other(String),
}

/// A thin pool's fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Data blocks in use, in percent, rounded up.
    pub data_percent: u8,
    /// Metadata blocks in use, in percent, rounded up.
    pub metadata_percent: u8,
    /// Whether it still takes writes: not out of data space, not read-only, not failed.
    pub writable: bool,
    /// Whether its metadata need not be checked, and nobody holds an older state of it (`thin_dump` does).
    pub is_settled: bool,
    /// The number that its user counts its changes with.
    pub transaction: u64,
}

/// A connection to device-mapper.
pub struct DeviceMapper {
    control: File,
}

impl DeviceMapper {
    /// Opens the control device.
    pub fn open() -> Result<Self, Error> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open(CONTROL)
            .map_err(Error::Open)?;
        Ok(Self { control })
    }

    /// The device, or `None` if there is none.
    pub fn find(&self, by: By<'_>) -> Result<Option<Device>, Error> {
        let Some(request) = self.ask(by, 0)? else {
            return Ok(None);
        };
        let state = match first_target(&request) {
            Some(target) => parse_state(&target.kind, &target.parameters),
            None => State::Other(String::new()),
        };
        let header = &request.header;
        Ok(Some(Device {
            name: text(&header.name),
            uuid: text(&header.uuid),
            number: header.dev,
            open_count: header.open_count,
            suspended: header.flags & SUSPEND_FLAG != 0,
            changing: header.flags & INACTIVE_PRESENT_FLAG != 0,
            read_only: header.flags & READONLY_FLAG != 0,
            state,
        }))
    }

    /// The thin pool behind a thin volume; `None` if the device is not a thin volume.
    pub fn pool_of(&self, thin: &Device) -> Result<Option<Pool>, Error> {
        let Some(request) = self.ask(By::Number(thin.number), STATUS_TABLE_FLAG)? else {
            return Ok(None);
        };
        let number = match first_target(&request) {
            Some(target) if target.kind == "thin" => target.parameters.split(' ').next().and_then(device_number),
            _ => None,
        };
        let Some(number) = number else {
            return Ok(None);
        };
        Ok(match self.find(By::Number(number))?.map(|pool| pool.state) {
            Some(State::ThinPool(pool)) => Some(pool),
            _ => None,
        })
    }

    /// From now on the descriptor polls readable once any device has had an event.
    pub fn arm(&self) -> Result<(), Error> {
        let mut request = request(By::Number(0), 0);
        self.ioctl(ARM_POLL, &mut request).map_err(|errno| Error::Ask {
            device: CONTROL.into(),
            source: errno.into(),
        })
    }

    fn ask(&self, by: By<'_>, flags: u32) -> Result<Option<Box<Request>>, Error> {
        let mut request = request(by, flags | NOFLUSH_FLAG);
        match self.ioctl(TABLE_STATUS, &mut request) {
            // A long table may not fit; only its first target is looked at.
            Ok(()) => Ok(Some(request)),
            Err(Errno::ENXIO) => Ok(None),
            Err(errno) => Err(Error::Ask {
                device: by.to_string(),
                source: errno.into(),
            }),
        }
    }

    fn ioctl(&self, number: u8, request: &mut Request) -> Result<(), Errno> {
        let code = nix::request_code_readwrite!(0xfd, number, size_of::<Header>());
        // SAFETY: every device-mapper ioctl takes a `struct dm_ioctl` followed by `data_size` bytes in all,
        // which is exactly what `Request` is; the kernel writes nothing beyond.
        let result = unsafe { nix::libc::ioctl(self.control.as_raw_fd(), code, std::ptr::from_mut(request)) };
        Errno::result(result).map(drop)
    }
}

impl AsFd for DeviceMapper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }
}

fn request(by: By<'_>, flags: u32) -> Box<Request> {
    let mut header = Header {
        version: [4, 0, 0],
        data_size: size_of::<Request>() as u32,
        data_start: size_of::<Header>() as u32,
        target_count: 0,
        open_count: 0,
        flags,
        event_nr: 0,
        padding: 0,
        dev: 0,
        name: [0; 128],
        uuid: [0; 129],
        data: [0; 7],
    };
    match by {
        By::Number(number) => header.dev = number,
        // A name too long for the field is no device's name; cut, it could be another's.
        By::Name(name) if name.len() < header.name.len() => {
            header.name[..name.len()].copy_from_slice(name.as_bytes());
        }
        By::Uuid(uuid) if uuid.len() < header.uuid.len() => {
            header.uuid[..uuid.len()].copy_from_slice(uuid.as_bytes());
        }
        By::Name(_) | By::Uuid(_) => {}
    }
    Box::new(Request {
        header,
        payload: [0; PAYLOAD],
    })
}

/// Bytes up to the first NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A target, or its status.
struct Target {
    sectors: u64,
    kind: String,
    parameters: String,
}

/// The first `struct dm_target_spec` (40 bytes and a string) in the answer.
fn first_target(request: &Request) -> Option<Target> {
    let start = (request.header.data_start as usize).checked_sub(size_of::<Header>())?;
    let spec = request.payload.get(start..)?;
    if request.header.target_count == 0 {
        return None;
    }
    Some(Target {
        sectors: u64::from_ne_bytes(spec.get(8..16)?.try_into().ok()?),
        kind: text(spec.get(24..40)?),
        parameters: text(spec.get(40..)?),
    })
}

/// `253:5`, as it stands in tables, as the kernel's 64-bit device number (`huge_encode_dev`).
pub fn device_number(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    let (major, minor): (u64, u64) = (major.parse().ok()?, minor.parse().ok()?);
    Some((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

/// `3/128` as used and total.
fn fraction(text: &str) -> Option<(u64, u64)> {
    let (used, total) = text.split_once('/')?;
    Some((used.parse().ok()?, total.parse().ok()?))
}

fn percent((used, total): (u64, u64)) -> u8 {
    let percent = (used.saturating_mul(100)).div_ceil(total.max(1));
    u8::try_from(percent).unwrap_or(100)
}

fn parse_state(kind: &str, status: &str) -> State {
    let fields: Vec<&str> = status.split_ascii_whitespace().collect();
    match (kind, fields.as_slice()) {
        ("snapshot", [fill, ..]) => match fraction(fill) {
            Some((used, total)) => State::Snapshot { used, total },
            None => State::SnapshotLost,
        },
        ("snapshot-origin", _) => State::SnapshotOrigin,
        ("thin", ["Fail" | "Error", ..]) => State::ThinFailed,
        ("thin", _) => State::Thin,
        ("thin-pool", [transaction, metadata, data, held, mode, rest @ ..]) => {
            match (transaction.parse(), fraction(data), fraction(metadata)) {
                (Ok(transaction), Some(data), Some(metadata)) => State::ThinPool(Pool {
                    data_percent: percent(data),
                    metadata_percent: percent(metadata),
                    writable: *mode == "rw",
                    is_settled: *held == "-" && rest.get(2) == Some(&"-"),
                    transaction,
                }),
                _ => State::Other(kind.into()),
            }
        }
        ("thin-pool", _) => State::ThinPool(Pool {
            data_percent: 100,
            metadata_percent: 100,
            writable: false,
            is_settled: false,
            transaction: 0,
        }),
        _ => State::Other(kind.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_the_kernels() {
        assert_eq!(size_of::<Header>(), 312);
    }

    #[test]
    fn states() {
        assert_eq!(
            parse_state("snapshot", "16/204800 16"),
            State::Snapshot {
                used: 16,
                total: 204_800
            }
        );
        for lost in ["Invalid", "Overflow", "Merge failed"] {
            assert_eq!(parse_state("snapshot", lost), State::SnapshotLost);
        }
        assert_eq!(parse_state("thin", "Fail"), State::ThinFailed);
        let pool = |data_percent, metadata_percent, writable| {
            State::ThinPool(Pool {
                data_percent,
                metadata_percent,
                writable,
                is_settled: true,
                transaction: 1,
            })
        };
        let status = "1 11/1024 1024/8192 - rw discard_passdown queue_if_no_space - 1024";
        assert_eq!(parse_state("thin-pool", status), pool(13, 2, true));
        let full = "1 1/1024 8192/8192 - out_of_data_space discard_passdown queue_if_no_space - 1024";
        assert_eq!(parse_state("thin-pool", full), pool(100, 1, false));
        for unsettled in [
            "1 11/1024 1024/8192 - rw discard_passdown queue_if_no_space needs_check 1024",
            "1 11/1024 1024/8192 7 rw discard_passdown queue_if_no_space - 1024",
            "1 11/1024 1024/8192 - rw",
        ] {
            let State::ThinPool(pool) = parse_state("thin-pool", unsettled) else {
                panic!("{unsettled}");
            };
            assert!(!pool.is_settled, "{unsettled}");
        }
    }

    #[test]
    fn device_numbers_and_uuids() {
        assert_eq!(device_number("253:5"), Some((253 << 8) | 5));
        assert_eq!(device_number("253:256"), Some((253 << 8) | (1 << 20)));
        let device = Device {
            name: "a".into(),
            uuid: format!("LVM-{}{}", "V".repeat(32), "abcdefghijklmnopqrstuvwxyz012345"),
            number: 0,
            open_count: 0,
            suspended: false,
            changing: false,
            read_only: false,
            state: State::Thin,
        };
        assert_eq!(
            device.lv_uuid().as_deref(),
            Some("abcdef-ghij-klmn-opqr-stuv-wxyz-012345")
        );
        let layer = Device {
            uuid: format!("{}-real", device.uuid),
            ..device
        };
        assert_eq!(layer.lv_uuid(), None);
        assert!(layer.layer_uuid("-real").is_some());
    }
}

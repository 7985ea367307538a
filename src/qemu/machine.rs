// SPDX-License-Identifier: MIT OR Apache-2.0
//! The emulated machine and QEMU's command line for it.
//!
//! Nothing is left to QEMU's defaults, which change with its version, and nothing of the machine may do its work at a moment
//! that the log does not know:
//!
//! - every disk is behind `blkreplay`, every network behind `filter-replay` (QEMU's docs/system/replay.rst);
//! - `ioeventfd=off`: the guest's "there is work" of a virtio device is otherwise handed to QEMU's main loop, which takes it up
//!   whenever it gets round to it. A replay of that stands still for ever, one time in four;
//! - `vapic=off`: that device waits for the processor when the machine is set back to an earlier state, which waits for QEMU's
//!   main loop, which waits for the device: a debugger that goes backwards would stand still for ever;
//! - `tx=timer`: the same as ioeventfd for packets that leave (virtio-net's default is a bottom half of the main loop; QEMU 9.0 made that
//!   one known to the log);
//! - `guest_announce=off` (since format 2): a network card that can announce a guest's new place arms a timer when a machine's
//!   state is loaded, which no log knows: that machine never goes on (virtio_net_post_load_device in QEMU's hw/net/virtio-net.c).

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use qemu_watch::{Settings, Watch};
use serde_json::{Value, json};

use crate::base::clock::Calendar;
use crate::config::guest::Shift;
use crate::config::types::{Mac, Size, Target};
use crate::file::digest::{self, Digest};

/// The processor's model: the same on every host, and old enough for every kernel.
pub const CPU: &str = "qemu64";

/// Bytes of a sector, whatever the disk below has: the guest sees it.
const SECTOR: u64 = 512;

/// Which of the machines that ttvm has made so far: that of a recording stays as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Its time of day is the host's, read while it runs. What is saved of it cannot always be loaded.
    First,
    /// Its time of day begins when the run began, and goes on with its instructions.
    Second {
        /// In seconds since 1970.
        began: u64,
    },
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// What it has that another version of ttvm had otherwise.
    pub format: Format,
    /// Its versioned type.
    pub machine: String,
    /// Its memory.
    pub memory: Size,
    /// How far its clock goes with each instruction.
    pub icount: Shift,
    /// What it boots; nothing to boot from its first disk.
    pub kernel: Option<Kernel>,
    /// Its disks: `vda`, `vdb` and so on.
    pub drives: Vec<Drive>,
    /// Its network interfaces.
    pub networks: Vec<Network>,
    /// Whether its own reset ends it.
    pub reset_ends: bool,
    /// Whether it has a HPET. QEMU 10.0 does not save all of one: when its timers were armed (`last` in hw/timer/hpet.c) is not
    /// in the state. A machine that is loaded while Linux has its tick from there gets the one after next at another instruction.
    pub hpet: bool,
}

/// A network interface, with a network of QEMU's own behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Its address.
    pub mac: Mac,
    /// Whether the guest reaches the host's own services, and what the host reaches.
    pub outside: bool,
}

/// What a machine boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub cmdline: String,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// Its name in the guest.
    pub target: Target,
    /// What is behind it.
    pub backing: Backing,
}

/// What is behind a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// A file or device, block for block.
    Raw {
        /// The file or device.
        path: PathBuf,
        /// Whether the guest may write to it.
        writable: bool,
    },
    /// A qcow2 file that is written, over a file or device that is not.
    Overlay {
        /// The qcow2 file.
        path: PathBuf,
        /// What is below it.
        base: PathBuf,
    },
}

/// What QEMU does with the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Runs it.
    Plain,
    /// Runs it and writes a log.
    Record(Recording),
    /// Runs it again. It stands still before the first instruction, until it is told to go on.
    Replay(Replaying),
}

/// What a recorded run is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The log, a new file.
    pub log: PathBuf,
    /// A qcow2 file with states of the machine, if the run begins with one: it stands still until that is loaded and it is told to
    /// go on.
    pub state: Option<PathBuf>,
}

/// What a machine is run again from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaying {
    /// The log.
    pub log: PathBuf,
    /// A qcow2 file for states of the machine, if some are kept: whoever goes backwards, or to another moment, starts from one.
    pub state: Option<PathBuf>,
    /// Where a debugger connects: a socket made by us, so that it is ours alone from its first moment.
    pub debugger: Option<Shared<UnixListener>>,
    /// Where the packets of each network interface go, if somebody wants them.
    pub packets: Vec<PathBuf>,
    /// What is watched from within QEMU, if something is.
    pub watching: Option<Watching>,
}

/// What a plugin in QEMU watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watching {
    /// The plugin's file.
    pub plugin: PathBuf,
    /// What it watches.
    pub watch: Watch,
    /// While the guest has executed so many instructions.
    pub during: Range<u64>,
    /// Where it writes what it saw.
    pub records: Shared<OwnedFd>,
    /// Whether who reads that is busy with it. QEMU may have to wait then, and answers nothing.
    pub is_reader_busy: Shared<AtomicBool>,
}

/// An open file that QEMU gets under the number that it has here. Two are the same if they are one.
#[derive(Debug)]
pub struct Shared<T>(pub Arc<T>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for Shared<T> {}

impl<T: AsFd> AsFd for Shared<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Watching {
    fn settings(&self) -> Settings {
        Settings {
            watch: self.watch.clone(),
            during: self.during.clone(),
            out: self.records.as_fd().as_raw_fd(),
        }
    }
}

impl Machine {
    /// The arguments, without those for QEMU's own connections. `names` are what QEMU knows its files by.
    pub fn arguments(&self, mode: &Mode, names: &Names) -> Vec<String> {
        self.with_failures(mode, names, Failures::Stop)
    }

    fn with_failures(&self, mode: &Mode, names: &Names, failures: Failures) -> Vec<String> {
        let mut args = Arguments(Vec::new());
        args.words("-nodefaults -no-user-config -display none -vga none");
        args.words("-global apic.vapic=off");
        let memory = self.memory.bytes() >> 20;
        let mut board = format!("{},accel=tcg", self.machine);
        if !self.hpet {
            board += ",hpet=off";
        }
        if let Some(file) = &names.memory {
            // Somebody else reads it, too. Where it is makes no difference to the guest.
            let file = escaped(file);
            args.pair(
                "-object",
                format!("memory-backend-file,id=pc.ram,size={memory}M,mem-path={file},share=on"),
            );
            board += ",memory-backend=pc.ram";
        }
        args.pair("-machine", board);
        args.pair("-cpu", CPU);
        args.pair("-smp", "1");
        args.pair("-m", format!("{memory}M"));
        let shift = self.icount;
        args.pair(
            "-icount",
            match mode {
                Mode::Plain => format!("shift={shift}"),
                Mode::Record(to) => format!("shift={shift},rr=record,rrfile={}", escaped(&names.file(&to.log))),
                Mode::Replay(from) => format!("shift={shift},rr=replay,rrfile={}", escaped(&names.file(&from.log))),
            },
        );
        if let (Format::Second { began }, false) = (self.format, *mode == Mode::Plain) {
            args.pair("-rtc", format!("base={},clock=vm", base(began)));
        }
        if let Some(kernel) = &self.kernel {
            args.pair("-kernel", names.file(&kernel.kernel));
            if let Some(initrd) = &kernel.initrd {
                args.pair("-initrd", names.file(initrd));
            }
            args.pair("-append", &kernel.cmdline);
        }
        for drive in &self.drives {
            args.drive(drive, *mode != Mode::Plain, names, failures);
        }
        for (index, network) in self.networks.iter().enumerate() {
            let mac = network.mac;
            // Not restricted, a guest speaks to 127.0.0.1 of the host with the rights of whoever runs QEMU, past the host's rules
            // for guests.
            let restrict = if network.outside { "" } else { ",restrict=on" };
            let announce = match self.format {
                Format::First => "",
                Format::Second { .. } => ",guest_announce=off",
            };
            args.pair("-netdev", format!("user,id=net{index}{restrict}"));
            args.pair(
                "-device",
                // No ROM to boot from the network, which would be another file to be the same.
                format!("virtio-net-pci,netdev=net{index},mac={mac},ioeventfd=off,tx=timer,romfile={announce}"),
            );
            if *mode != Mode::Plain {
                args.pair("-object", format!("filter-replay,id=filter{index},netdev=net{index}"));
            }
        }
        // After its end the machine stands still, so that it can be asked how far it came.
        args.words("-no-shutdown");
        if self.reset_ends {
            args.words("-no-reboot");
        }
        if let Mode::Replay(from) = mode {
            if let Some(debugger) = &from.debugger {
                let fd = debugger.as_fd().as_raw_fd();
                args.pair("-chardev", format!("socket,id=gdb,fd={fd},server=on,wait=off"));
                args.pair("-gdb", "chardev:gdb");
            }
            for (index, packets) in from.packets.iter().enumerate() {
                let file = escaped(&names.file(packets));
                args.pair(
                    "-object",
                    format!("filter-dump,id=dump{index},netdev=net{index},file={file}"),
                );
            }
            if let Some(watching) = &from.watching {
                let file = escaped(&names.file(&watching.plugin));
                args.pair("-plugin", format!("file={file},{}", watching.settings()));
            }
        }
        let state = match mode {
            Mode::Plain => None,
            Mode::Record(to) => to.state.as_ref(),
            Mode::Replay(from) => from.state.as_ref(),
        };
        if let Some(state) = state {
            // Not -blockdev: QEMU keeps the machine's state with the first drive it finds, and those of -drive come before the
            // guest's own, which wait for the log when they are written.
            let state = escaped(&names.disk(state));
            args.pair("-drive", format!("file={state},format=qcow2,if=none,id=state"));
        }
        if matches!(mode, Mode::Replay(_)) || state.is_some() {
            args.words("-S");
        }
        args.0
    }

    /// The digest of everything about the machine that a replay must have the same, wherever its files are.
    pub fn digest(&self) -> Digest {
        let mut same = self.clone();
        // What a guest reached is in the log; a replay sends nothing to anybody.
        for network in &mut same.networks {
            network.outside = true;
        }
        if let Some(kernel) = &mut same.kernel {
            kernel.kernel = "kernel".into();
            kernel.initrd = kernel.initrd.is_some().then(|| "initrd".into());
        }
        for drive in &mut same.drives {
            drive.backing = Backing::Raw {
                path: drive.target.as_str().into(),
                writable: drive.backing.is_writable(),
            };
        }
        let to = Recording {
            log: "log".into(),
            state: None,
        };
        // What the machine does when the host fails is nothing that a guest sees.
        let arguments = same.with_failures(&Mode::Record(to), &Names::default(), Failures::Default);
        digest::of_bytes(arguments.join("\n").as_bytes())
    }
}

impl Backing {
    fn is_writable(&self) -> bool {
        match self {
            Self::Raw { writable, .. } => *writable,
            Self::Overlay { .. } => true,
        }
    }

    fn node(&self, names: &Names) -> Value {
        match self {
            Self::Raw { path, writable } => raw(path, !writable, names),
            Self::Overlay { path, base } => json!({
                "driver": "qcow2",
                // It is thrown away with the run; whoever keeps it has it written then.
                "cache": { "no-flush": true },
                "file": { "driver": "file", "filename": names.disk(path) },
                "backing": raw(base, true, names),
            }),
        }
    }
}

/// A file or device, block for block.
fn raw(path: &Path, read_only: bool, names: &Names) -> Value {
    let driver = match path.starts_with("/dev") {
        true => "host_device",
        false => "file",
    };
    json!({
        "driver": "raw",
        "read-only": read_only,
        "file": { "driver": driver, "filename": names.disk(path), "read-only": read_only },
    })
}

/// What becomes of a request of a disk that fails on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failures {
    /// What QEMU does by itself: the machine stands still if there is no room, and any other failure is the guest's.
    Default,
    /// The machine stands still: it is the host that failed, not the guest's disk.
    Stop,
}

impl Failures {
    /// As properties of the disk's device.
    fn properties(self, is_writable: bool) -> &'static str {
        match (self, is_writable) {
            (Self::Default, _) => "",
            (Self::Stop, true) => ",rerror=stop,werror=stop",
            // A guest that writes to it all the same is told so, as by any disk that is only read.
            (Self::Stop, false) => ",rerror=stop",
        }
    }
}

struct Arguments(Vec<String>);

impl Arguments {
    fn words(&mut self, words: &str) {
        self.0.extend(words.split(' ').map(str::to_owned));
    }

    fn pair(&mut self, option: &str, value: impl Into<String>) {
        self.0.push(option.to_owned());
        self.0.push(value.into());
    }

    fn drive(&mut self, drive: &Drive, logged: bool, names: &Names, failures: Failures) {
        let target = &drive.target;
        let mut node = drive.backing.node(names);
        node["node-name"] = json!(format!("disk-{target}"));
        self.pair("-blockdev", node.to_string());
        let mut top = format!("disk-{target}");
        if logged {
            let mut node = json!({ "driver": "blkreplay", "node-name": format!("replay-{target}"), "image": top });
            if !drive.backing.is_writable() {
                // Else the disk's device asks to write, and QEMU refuses.
                node["read-only"] = json!(true);
            }
            self.pair("-blockdev", node.to_string());
            top = format!("replay-{target}");
        }
        let failures = failures.properties(drive.backing.is_writable());
        self.pair(
            "-device",
            format!(
                "virtio-blk-pci,drive={top},serial={target},ioeventfd=off,logical_block_size={SECTOR},physical_block_size={SECTOR}{failures}"
            ),
        );
    }
}

/// What QEMU knows files by that it gets as descriptors; every other one by its path.
#[derive(Debug, Default)]
pub struct Names {
    /// What it opens as any program does.
    pub files: BTreeMap<PathBuf, String>,
    /// What it opens as a disk.
    pub disks: BTreeMap<PathBuf, String>,
    /// What it has for the guest's memory, if that is not its own.
    pub memory: Option<String>,
}

impl Names {
    fn file(&self, path: &Path) -> String {
        self.files.get(path).cloned().unwrap_or_else(|| text(path))
    }

    fn disk(&self, path: &Path) -> String {
        self.disks.get(path).cloned().unwrap_or_else(|| text(path))
    }
}

/// A time in UTC as `-rtc` takes it.
fn base(seconds: u64) -> String {
    let Calendar {
        date: (year, month, day),
        time: (hour, minute, second),
    } = Calendar::of(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// As QEMU takes text within an option.
fn escaped(name: &str) -> String {
    name.replace(',', ",,")
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with one of everything.
    fn machine(format: Format, hpet: bool) -> Machine {
        let drive = |name: &str, writable| Drive {
            target: name.parse().expect("a name"),
            backing: Backing::Raw {
                path: "/somewhere".into(),
                writable,
            },
        };
        Machine {
            format,
            machine: "pc-i440fx-7.2".into(),
            memory: Size::mib(128),
            icount: Shift::Auto,
            kernel: Some(Kernel {
                kernel: "/boot/vmlinuz".into(),
                initrd: Some("/boot/initrd".into()),
                cmdline: "console=ttyS0".into(),
            }),
            drives: vec![drive("vda", true), drive("vdb", false)],
            networks: vec![Network {
                mac: "52:54:00:74:74:01".parse().expect("an address"),
                outside: false,
            }],
            reset_ends: true,
            hpet,
        }
    }

    /// A recording is refused whose machine has another digest than the one it was made with: none of these ever changes.
    /// Whoever gives new machines something else has a field for it, as for `hpet`, that older manifests do not have.
    #[test]
    fn machines_of_older_recordings_stay_as_they_were() {
        let second = Format::Second { began: 1_700_000_000 };
        for (format, hpet, digest) in [
            (
                Format::First,
                true,
                "blake3:54689333ab9c56ce72de84dd6515fb210090dca87728132c9d1d8a470aa320e1",
            ),
            (
                second,
                true,
                "blake3:46c27a40e4d73165423c1f5a5956ceb7fdd9ec73243e1b824b87a739eee5e86f",
            ),
            (
                second,
                false,
                "blake3:f0445c0349e8ab15ae9dd4ddd447cdc875244d6b5c7ef4e2780cc4a035cfcd56",
            ),
        ] {
            assert_eq!(machine(format, hpet).digest().to_string(), digest, "{format:?}, {hpet}");
        }
    }

    /// What the guest does not have to know of its host's disks.
    #[test]
    fn stands_still_when_the_host_fails() {
        let arguments = machine(Format::First, false).arguments(&Mode::Plain, &Names::default());
        let of = |disk: &str| {
            let found = arguments.iter().find(|it| it.contains(&format!("serial={disk},")));
            found.expect("its device").as_str()
        };
        assert!(of("vda").ends_with(",rerror=stop,werror=stop"), "{}", of("vda"));
        assert!(of("vdb").ends_with(",rerror=stop"), "{}", of("vdb"));
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A real Xen + systemd + LVM + GRUB machine, emulated: for the tests, the benchmark and the demo. It is a Debian 12 or a
//! Debian 13 ([`Suite`]).
//!
//! ```no_run
//! let mut host = Host::boot(Path::new("ttvm.deb"))?;   // Xen, booted through our own entry
//! let list = host.run("xl list")?;                     // fails unless the status is 0
//! host.restore()?;                                     // pristine again, in about a second
//! ```
//!
//! The first use on a machine takes minutes (`layers`), each further one a few seconds. A `Host` works on private copies of
//! its disks that have no name: whatever ends this process, nothing stays behind.

#![allow(
    dead_code,
    reason = "each of the programs that include this module uses its own part of it"
)]

mod agent;
mod layers;
mod lines;
mod qemu;

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use layers::{Layer, PrivateDisks};
pub use qemu::Firmware;
use qemu::Machine;

/// How long a boot and a script may take. Far above what they take anywhere: reaching it means that something hangs.
const BOOT: Duration = Duration::from_secs(1200);
const SCRIPT: Duration = Duration::from_secs(900);

/// The Debian that a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suite {
    Bookworm,
    Trixie,
}

impl Suite {
    pub const ALL: [Self; 2] = [Self::Bookworm, Self::Trixie];

    /// Its name, as Debian's mirrors have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }

    /// The one that the variable `SUITE` names, if it is set.
    pub fn chosen() -> Option<Self> {
        let name = std::env::var("SUITE").ok().filter(|name| !name.is_empty())?;
        let suite = Self::ALL.into_iter().find(|suite| suite.name() == name);
        Some(suite.unwrap_or_else(|| panic!("SUITE={name}: no such Debian here; it is bookworm or trixie")))
    }
}

/// What a host is doing when it is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Plain Linux without the package, which lies ready as [`Host::DEB`].
    Plain,
    /// Plain Linux, which is the default as well, with the package installed.
    Installed,
    /// The same, booted by UEFI firmware.
    Uefi,
    /// Xen with the package installed, booted through the entry `ttvm-ttxen-linux`.
    Xen,
    /// The same, with [`RUNNING`] running, started by its unit.
    Guest,
}

/// The guest of [`State::Guest`], on a thick snapshot. It has read the first block of its disk, and waits to be told more.
pub const RUNNING: &str = "clientA";

/// The seed's disk, on a thick origin.
pub const THICK: &str =
    "[[disk]]\norigin = \"xenvg/base\"\ntarget = \"xvda1\"\nsnapshot = { name = \"snap1\", size = \"32M\" }";

/// A guest's file: `disk` and `more` are TOML, `steps` what the guest does (tests/host/rootfs, guest-init).
pub fn guest_file(disk: &str, steps: &str, more: &str) -> String {
    format!(
        "memory = \"96M\"\nkernel = \"/usr/lib/ttvm-host/vmlinux\"\ninitrd = \"/boot/initrd-busybox-based-ram-linux.img\"\n\
         cmdline = \"console=hvc0 quiet cryptomgr.notests {steps}\"\nshutdown_timeout = \"30s\"\n{more}\n{disk}\n"
    )
}

/// What went wrong, as a sentence.
pub struct Error(String);

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// The same text: `main` and `unwrap` print errors this way.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

trait Context<T> {
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error(format!("{what}: {error}")))
    }
}

/// What a script in the host left.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit status, or minus the number of the signal that ended it.
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    script: String,
}

impl Output {
    /// Standard output as text, without the last line's end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }

    /// Standard error as text, without the last line's end.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end_matches('\n').to_owned()
    }

    /// The text of a script that succeeded; an error with everything that is known about one that did not.
    pub fn success(self) -> Result<String> {
        match self.status {
            0 => Ok(self.text()),
            status => Err(Error(format!(
                "in the host, status {status}:\n{}\n--- stdout\n{}\n--- stderr\n{}",
                self.script,
                self.text(),
                self.errors()
            ))),
        }
    }
}

/// The emulated host, running. Dropping it ends it.
pub struct Host {
    layer: Layer,
    disks: PrivateDisks,
    machine: Machine,
}

impl Host {
    /// Xen with the package installed ([`State::Xen`]), on the Debian that `SUITE` names.
    pub fn boot(deb: &Path) -> Result<Self> {
        Self::start(Suite::chosen().unwrap_or(Suite::Bookworm), State::Xen, deb)
    }

    /// Where the package is that [`State::Plain`] does not have installed.
    pub const DEB: &'static str = "/root/ttvm.deb";

    /// A host in this state.
    pub fn start(suite: Suite, state: State, deb: &Path) -> Result<Self> {
        let (layer, disks) = layers::layer(suite, state, deb)?;
        let machine = layer.machine(&disks)?;
        let mut host = Self { layer, disks, machine };
        host.begin()?;
        Ok(host)
    }

    /// What a machine does not have in its snapshot: the time, and the package where it is not part of the machine.
    fn begin(&mut self) -> Result<()> {
        set_clock(&mut self.machine)?;
        match self.layer.deb.clone() {
            Some(deb) => self.push(&deb, Self::DEB, 0o644),
            None => Ok(()),
        }
    }

    /// Takes the whole machine, memory and disks, back to where `boot` handed it out. With a new emulator: one that
    /// loads a snapshot while it runs never lets its TSC go back (`cpu_ticks_prev` in QEMU's softmmu/cpu-timers.c),
    /// and Xen then finds itself minutes ahead of all its timers.
    pub fn restore(&mut self) -> Result<()> {
        self.machine.kill();
        self.machine = self.layer.machine(&self.disks)?;
        self.begin()
    }

    /// The Debian it is.
    pub fn suite(&self) -> Suite {
        self.layer.suite
    }

    /// Runs a shell script as root, for at most a quarter of an hour.
    pub fn sh(&mut self, script: &str) -> Result<Output> {
        self.sh_within(script, SCRIPT)
    }

    /// Runs a shell script as root; when the time is up it is killed with its process group, and that is an error.
    /// What it leaves in the background keeps running, and is not waited for.
    pub fn sh_within(&mut self, script: &str, deadline: Duration) -> Result<Output> {
        self.machine.sh(script, b"", deadline)
    }

    /// `sh`, when only success will do: returns what was printed.
    pub fn run(&mut self, script: &str) -> Result<String> {
        self.sh(script)?.success()
    }

    /// Copies a file into the host, under its name only when complete.
    pub fn push(&mut self, local: &Path, guest: &str, mode: u32) -> Result<()> {
        let data = std::fs::read(local).context(local.display())?;
        self.write(guest, &data, mode)
    }

    /// Writes a file in the host, under its name only when complete.
    pub fn write(&mut self, guest: &str, data: &[u8], mode: u32) -> Result<()> {
        self.machine.write(guest, data, mode)
    }

    /// Reads a file of the host.
    pub fn read(&mut self, guest: &str) -> Result<Vec<u8>> {
        let output = self.sh(&format!("cat -- {}", quoted(guest)))?;
        if output.status == 0 {
            Ok(output.stdout)
        } else {
            output.success().map(String::into_bytes)
        }
    }

    /// Pulls the plug, then starts from what is on the disks, through GRUB.
    pub fn power_cut_and_boot(&mut self) -> Result<()> {
        self.power_cut_and_boot_by(Firmware::Bios)
    }

    /// The same, with this firmware.
    pub fn power_cut_and_boot_by(&mut self, firmware: Firmware) -> Result<()> {
        self.machine.kill();
        self.machine = Machine::start(&self.layer.base, &self.disks.paths(), firmware, None)?;
        self.machine.wait_booted("", "", Instant::now() + BOOT)?;
        set_clock(&mut self.machine)
    }

    /// An orderly reboot, through GRUB.
    pub fn reboot(&mut self) -> Result<()> {
        self.reboot_until("")
    }

    /// An orderly reboot, and as many others as follow it by themselves, until a kernel comes up that was told `wanted`.
    pub fn reboot_until(&mut self, wanted: &str) -> Result<()> {
        self.machine.reboot(wanted, Instant::now() + BOOT)?;
        set_clock(&mut self.machine)
    }

    /// Whether the emulator is to blame for what the machine does.
    pub fn is_at_fault(&self) -> bool {
        self.machine.is_at_fault()
    }

    /// What was asked of the machine since it was last asked for this, and how long each took.
    pub fn spent(&mut self) -> Vec<(String, Duration)> {
        std::mem::take(&mut self.machine.spent)
    }

    /// What the serial console has shown since this machine was started: GRUB, Xen, the kernels.
    pub fn console(&self) -> String {
        self.machine.console()
    }
}

/// A restored machine believes that no time has passed.
fn set_clock(machine: &mut Machine) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    machine
        .sh(
            &format!("date -s @{}.{:03}", now.as_secs(), now.subsec_millis()),
            b"",
            SCRIPT,
        )?
        .success()
        .map(drop)
}

/// One word of a shell script.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

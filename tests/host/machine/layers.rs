// SPDX-License-Identifier: MIT OR Apache-2.0
//! The states a host can start from, each built once from the one before and kept in the cache:
//!
//!   0  image.sh       disks with Debian, GRUB, Xen and a volume group
//!   `plain-…`         booted into plain Linux: a snapshot of the whole machine
//!   `installed-…`     the package installed, plain Linux the default
//!   `uefi-…`          the same, booted by UEFI firmware
//!   `xen-…`           rebooted into Xen through its own entry
//!   `guest-…`         a guest started
//!
//! Only the overlays over the disks of layer 0 differ between them, so a layer is some hundred megabytes and cheap to copy.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, id};
use std::time::Instant;

use nix::fcntl::OFlag;

use super::qemu::{Firmware, Machine};
use super::{BOOT, Context, Error, Host, RUNNING, Result, State, Suite, THICK, guest_file};

const OVERLAYS: [&str; 2] = ["root.qcow2", "data.qcow2"];
const ENTRY: &str = "ttvm-ttxen-linux";
/// Packages whose layers are kept: each rebuild of the package makes another one.
const KEPT: usize = 2;

pub struct Layer {
    pub suite: Suite,
    /// The directory of layer 0.
    pub base: PathBuf,
    /// The package, where a machine is handed it when it starts.
    pub deb: Option<PathBuf>,
    state: State,
}

impl Layer {
    /// The machine as it was when the layer was made.
    pub fn machine(&self, disks: &PrivateDisks) -> Result<Machine> {
        Machine::start(
            &self.base,
            &disks.paths(),
            firmware(self.state),
            Some(snapshot(self.state)),
        )
    }
}

/// Overlays of one host's own, in files without a name.
pub struct PrivateDisks([File; 2]);

impl PrivateDisks {
    /// Good for as long as we live.
    pub fn paths(&self) -> [PathBuf; 2] {
        [path_of(&self.0[0]), path_of(&self.0[1])]
    }
}

pub fn layer(suite: Suite, state: State, deb: &Path) -> Result<(Layer, PrivateDisks)> {
    let base = image(suite)?;
    let _lock = lock(&base)?;
    let dir = made(&base, suite, state, deb)?;
    let disks = private_disks(&base, &dir)?;
    let deb = (state == State::Plain).then(|| deb.to_owned());
    let layer = Layer {
        suite,
        base,
        deb,
        state,
    };
    Ok((layer, disks))
}

/// The name of the snapshot of the running machine inside the overlays.
fn snapshot(state: State) -> &'static str {
    match state {
        State::Plain => "plain",
        State::Installed => "installed",
        State::Uefi => "uefi",
        State::Xen => "xen",
        State::Guest => "guest",
    }
}

fn firmware(state: State) -> Firmware {
    match state {
        State::Uefi => Firmware::Uefi,
        State::Plain | State::Installed | State::Xen | State::Guest => Firmware::Bios,
    }
}

/// Layer 0; the script knows whether there is anything to do.
fn image(suite: Suite) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host/image.sh");
    let output = Command::new(&script)
        .env("SUITE", suite.name())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context(script.display())?;
    if !output.status.success() {
        return Err(Error::new(format!("{} failed: {}", script.display(), output.status)));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end()))
}

/// The directory of a state's layer, which is made if it is not there. Needs the lock.
fn made(base: &Path, suite: Suite, state: State, deb: &Path) -> Result<PathBuf> {
    let (below, what) = match state {
        State::Plain => (None, "booting plain Linux"),
        State::Installed => (Some(State::Plain), "installing the package"),
        State::Uefi => (Some(State::Installed), "booting by UEFI"),
        State::Xen => (Some(State::Installed), "booting Xen"),
        State::Guest => (Some(State::Xen), "starting a guest"),
    };
    let name = match below {
        None => format!("{}-{}", snapshot(state), recipe()),
        Some(_) => format!("{}-{}-{}", snapshot(state), recipe(), digest(deb)?),
    };
    let dir = base.join(&name);
    if dir.exists() {
        return Ok(dir);
    }
    let from = match below {
        Some(below) => made(base, suite, below, deb)?,
        None => base.to_owned(),
    };
    let what = format!(
        "{}: {what} (once{})",
        suite.name(),
        if below.is_some() { " per package" } else { "" }
    );
    let dir = build(base, &name, &from, &what, |disks| {
        // Of UEFI nothing is taken over but the disks: it boots them itself.
        let resumed = below.filter(|_| firmware(state) == Firmware::Bios);
        let mut machine = Machine::start(base, disks, firmware(state), resumed.map(snapshot))?;
        if resumed.is_some() {
            super::set_clock(&mut machine)?;
        } else {
            machine.wait_booted("", "", Instant::now() + BOOT)?;
        }
        arrive(&mut machine, state, deb)?;
        if let Some(below) = below {
            // Only room: the layer below has that snapshot.
            machine.monitor(&format!("delvm {}", snapshot(below)))?;
        }
        machine.monitor(&format!("savevm {}", snapshot(state)))?;
        machine.quit()
    })?;
    prune(base, &format!("{}-", snapshot(state)), &dir);
    Ok(dir)
}

/// Another one if the machine, or how a layer is made, is another.
fn recipe() -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(include_bytes!("layers.rs"));
    hasher.write(include_bytes!("qemu.rs"));
    hasher.write(guest_file("", "", "").as_bytes());
    format!("{:016x}", hasher.finish())
}

/// What is done on a machine of the layer below to come to `state`.
fn arrive(machine: &mut Machine, state: State, deb: &Path) -> Result<()> {
    match state {
        State::Plain | State::Uefi => Ok(()),
        State::Installed => {
            let data = fs::read(deb).context(deb.display())?;
            machine.write(Host::DEB, &data, 0o644)?;
            let install = format!(
                "dpkg -i {0} && rm {0} && grub-set-default ttvm-linux && sync && fsfreeze -f / && fsfreeze -u /",
                Host::DEB
            );
            machine.sh(&install, b"", BOOT)?.success().map(drop)
        }
        State::Xen => {
            let choose = format!("grep -q {ENTRY} /boot/grub/grub.cfg && grub-set-default {ENTRY}");
            machine.sh(&choose, b"", BOOT)?.success()?;
            machine.reboot("", Instant::now() + BOOT)?;
            super::set_clock(machine)?;
            machine.sh("xl info", b"", BOOT)?.success().map(drop)
        }
        State::Guest => {
            let file = guest_file(THICK, "ttvm.do=read", "");
            machine.write(&format!("/etc/ttvm/guests/{RUNNING}.toml"), file.as_bytes(), 0o644)?;
            let start = format!(
                "systemctl start ttvm@{RUNNING} && timeout 600 sh -c 'until grep -aqs \"read: 0\" \
                 /var/log/xen/console/guest-{RUNNING}.log; do sleep 0.5; done'"
            );
            machine.sh(&start, b"", BOOT)?.success().map(drop)
        }
    }
}

/// Makes the directory `name` from the overlays in `from`. Needs the lock.
fn build(
    base: &Path,
    name: &str,
    from: &Path,
    what: &str,
    make: impl FnOnce(&[PathBuf; 2]) -> Result<()>,
) -> Result<PathBuf> {
    let dir = base.join(name);
    if dir.exists() {
        // The time of last use, for prune.
        let _ = File::open(&dir).and_then(|file| file.set_modified(std::time::SystemTime::now()));
        return Ok(dir);
    }
    eprintln!("ttvm host: {what}");
    let start = Instant::now();
    let partial = base.join("partial");
    match fs::remove_dir_all(&partial) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).context(partial.display()),
        _ => fs::create_dir(&partial).context(partial.display())?,
    }
    let disks = OVERLAYS.map(|overlay| partial.join(overlay));
    for (overlay, disk) in OVERLAYS.iter().zip(&disks) {
        fs::copy(from.join(overlay), disk).context(disk.display())?;
    }
    make(&disks).inspect_err(|_| drop(fs::remove_dir_all(&partial)))?;
    fs::rename(&partial, &dir).context(dir.display())?;
    eprintln!("ttvm host: … done after {:.0} s", start.elapsed().as_secs_f64());
    Ok(dir)
}

/// Forgets the layers of packages that were used longest ago, never the one just made.
fn prune(base: &Path, kind: &str, current: &Path) {
    let mut layers: Vec<_> = fs::read_dir(base)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path != current
                && path
                    .file_name()
                    .is_some_and(|name| name.as_encoded_bytes().starts_with(kind.as_bytes()))
        })
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .collect();
    layers.sort_by(|a, b| b.cmp(a));
    for (_, path) in layers.into_iter().skip(KEPT - 1) {
        let _ = fs::remove_dir_all(path);
    }
}

/// One process at a time builds layers, copies them or removes them.
fn lock(base: &Path) -> Result<File> {
    let path = base.join("lock");
    let file = File::create(&path).context(path.display())?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => eprintln!("ttvm host: waiting for another process that prepares a host"),
        Err(TryLockError::Error(e)) => return Err(e).context(path.display()),
    }
    file.lock().context(path.display())?;
    Ok(file)
}

fn private_disks(base: &Path, layer: &Path) -> Result<PrivateDisks> {
    let copy = |overlay: &str| {
        let (from, mut to) = (layer.join(overlay), unnamed_file(base)?);
        let mut file = File::open(&from).context(from.display())?;
        io::copy(&mut file, &mut to).context(from.display())?;
        Ok(to)
    };
    Ok(PrivateDisks([copy(OVERLAYS[0])?, copy(OVERLAYS[1])?]))
}

/// A file that is gone as soon as nobody has it open.
pub fn unnamed_file(near: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlag::O_TMPFILE.bits());
    options.open(near).context(near.display())
}

/// A name by which our child can open it.
pub fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", id(), file.as_raw_fd()))
}

fn digest(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum")
        .arg("--")
        .arg(file)
        .output()
        .context("sha256sum")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let digest = text.trim_start_matches('\\').get(..16);
    digest
        .map(str::to_owned)
        .ok_or_else(|| Error::new(format!("{}: no digest", file.display())))
}

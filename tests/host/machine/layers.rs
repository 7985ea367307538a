// SPDX-License-Identifier: MIT OR Apache-2.0
//! The states a host can start from, each built once from the one before and kept in the cache:
//!
//!   0  image.sh       disks with Debian, GRUB, Xen and a volume group
//!   `plain`           booted into plain Linux: a snapshot of the whole machine
//!   `installed-…`     the package installed, plain Linux the default: a second snapshot
//!   `xen-…`           rebooted into Xen through its own entry: a third snapshot
//!
//! Only the overlays over the disks of layer 0 differ between them, so a layer is some hundred megabytes and cheap to copy.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, id};
use std::time::Instant;

use nix::fcntl::OFlag;

use super::qemu::{From, Machine};
use super::{BOOT, Context, Error, Host, Result};

const OVERLAYS: [&str; 2] = ["root.qcow2", "data.qcow2"];
const ENTRY: &str = "ttvm-ttxen-linux";
/// Packages whose layers are kept: each rebuild of the package makes another one.
const KEPT: usize = 2;

pub struct Layer {
    /// The directory of layer 0.
    pub base: PathBuf,
    /// The snapshot of the running machine inside the overlays.
    pub snapshot: &'static str,
}

/// Overlays of one host's own, in files without a name.
pub struct PrivateDisks([File; 2]);

impl PrivateDisks {
    /// Good for as long as we live.
    pub fn paths(&self) -> [PathBuf; 2] {
        [path_of(&self.0[0]), path_of(&self.0[1])]
    }
}

pub fn plain() -> Result<(Layer, PrivateDisks)> {
    layer("plain", plain_layer)
}

pub fn installed(deb: &Path) -> Result<(Layer, PrivateDisks)> {
    layer("installed", |base| installed_layer(base, deb))
}

pub fn xen(deb: &Path) -> Result<(Layer, PrivateDisks)> {
    layer("xen", |base| xen_layer(base, deb))
}

fn layer(snapshot: &'static str, build: impl FnOnce(&Path) -> Result<PathBuf>) -> Result<(Layer, PrivateDisks)> {
    let base = image()?;
    let _lock = lock(&base)?;
    let dir = build(&base)?;
    let disks = private_disks(&base, &dir)?;
    Ok((Layer { base, snapshot }, disks))
}

/// Layer 0; the script knows whether there is anything to do.
fn image() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host/image.sh");
    let output = Command::new(&script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context(script.display())?;
    if !output.status.success() {
        return Err(Error::new(format!("{} failed: {}", script.display(), output.status)));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end()))
}

fn plain_layer(base: &Path) -> Result<PathBuf> {
    build(
        base,
        "plain",
        base,
        "booting plain Linux (once; about half a minute)",
        |disks| {
            let mut machine = Machine::start(base, disks, From::Bios)?;
            machine.wait_booted("", "", Instant::now() + BOOT)?;
            machine.monitor("savevm plain")?;
            machine.quit()
        },
    )
}

fn installed_layer(base: &Path, deb: &Path) -> Result<PathBuf> {
    let data = fs::read(deb).context(deb.display())?;
    let name = format!("installed-{}", digest(deb)?);
    let plain = plain_layer(base)?;
    let what = "installing the package (once per package; about half a minute)";
    let dir = build(base, &name, &plain, what, |disks| {
        let mut machine = Machine::start(base, disks, From::Snapshot("plain"))?;
        super::set_clock(&mut machine)?;
        machine.write(Host::DEB, &data, 0o644)?;
        let install = format!(
            "dpkg -i {0} && rm {0} && grub-set-default ttvm-linux && sync",
            Host::DEB
        );
        machine.sh(&install, b"", BOOT)?.success()?;
        // Only room: the layer below has that snapshot.
        machine.monitor("delvm plain")?;
        machine.monitor("savevm installed")?;
        machine.quit()
    })?;
    prune(base, "installed-", &dir);
    Ok(dir)
}

fn xen_layer(base: &Path, deb: &Path) -> Result<PathBuf> {
    let name = format!("xen-{}", digest(deb)?);
    let installed = installed_layer(base, deb)?;
    let what = "booting Xen (once per package; about a minute and a half)";
    let dir = build(base, &name, &installed, what, |disks| {
        let mut machine = Machine::start(base, disks, From::Snapshot("installed"))?;
        super::set_clock(&mut machine)?;
        let choose = format!("grep -q {ENTRY} /boot/grub/grub.cfg && grub-set-default {ENTRY}");
        machine.sh(&choose, b"", BOOT)?.success()?;
        machine.reboot("", Instant::now() + BOOT)?;
        super::set_clock(&mut machine)?;
        machine.sh("xl info", b"", BOOT)?.success()?;
        machine.monitor("delvm installed")?;
        machine.monitor("savevm xen")?;
        machine.quit()
    })?;
    prune(base, "xen-", &dir);
    Ok(dir)
}

/// Makes the directory `name` from the overlays in `from`, unless it is there. Needs the lock.
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

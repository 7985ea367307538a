// SPDX-License-Identifier: MIT OR Apache-2.0
//! The QEMU that runs a machine: the one that is installed, or one in a capsule.

pub mod faults;

use std::fmt;
use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::capsule::Capsule;
use crate::base::error::{Classify, Exit};
use crate::run::{self, Command, Program};

pub(super) static QEMU: Program = Program::new(&["qemu-system-x86_64"]);
static QEMU_IMG: Program = Program::new(&["qemu-img"]);

/// The oldest version that ttvm has been tried with.
const OLDEST: (u32, u32) = (7, 2);

/// The files of its own that QEMU puts into a machine: the BIOS, and what loads a `kernel`, by the kind of it.
const BIOS: &str = "bios-256k.bin";
const OF_LINUX: &[&str] = &["linuxboot_dma.bin", "pvh.bin"];
const OF_MULTIBOOT: &[&str] = &["multiboot_dma.bin"];

/// What runs a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Engine {
    /// The QEMU that is installed.
    #[default]
    Installed,
    /// One that came with a recording.
    Capsule(Capsule),
}

impl Engine {
    /// Its version. QEMU's tool for images is always the one that is installed: what it makes, every version reads.
    pub fn version(&self) -> Result<Version, Error> {
        match self {
            Self::Installed => find(),
            Self::Capsule(capsule) => {
                require(&QEMU_IMG)?;
                let text = &capsule.list().version;
                Version::of(text).ok_or_else(|| strange(text))
            }
        }
    }

    /// The files of its own that it puts into a machine that boots `kernel`, where it would find them.
    pub fn firmware(&self, kernel: Option<&Path>) -> Result<Vec<PathBuf>, Error> {
        let directories = match self {
            Self::Installed => data_directories()?,
            Self::Capsule(capsule) => vec![capsule.files()],
        };
        Ok(find_all(&directories, &firmware_of(kernel)))
    }
}

/// A QEMU's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// As it says it: `7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b2)`.
    pub text: String,
    release: (u32, u32),
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// QEMU is not there.
    #[error(
        "QEMU is not installed (no {program}): install the package qemu-system-x86 and qemu-utils (Debian) or qemu-system-x86-core and qemu-img (Fedora)"
    )]
    NotInstalled {
        /// What was looked for.
        program: &'static str,
    },
    /// It is too old.
    #[error(
        "QEMU {found} is too old, it has to be at least {}.{}: install a newer qemu-system-x86 (Debian: from backports)",
        OLDEST.0,
        OLDEST.1
    )]
    TooOld {
        /// What it says of itself.
        found: String,
    },
    /// It does not say what it is.
    #[error("{program} does not say its version, but {text:?}: reinstall the package qemu-system-x86")]
    Strange {
        /// What was asked.
        program: &'static str,
        /// What it said.
        text: String,
    },
    /// It cannot be run.
    #[error("QEMU cannot be run")]
    Run(#[from] run::Error),
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        Exit::Failed
    }
}

/// Looks for QEMU and its tool for images, and asks what it is.
pub fn find() -> Result<Version, Error> {
    require(&QEMU)?;
    require(&QEMU_IMG)?;
    let output = Command::new(&QEMU).arg("--version").run()?;
    let version = Version::parse(&output.stdout).ok_or_else(|| strange(&output.stdout))?;
    if version.release < OLDEST {
        return Err(Error::TooOld { found: version.text });
    }
    Ok(version)
}

fn require(program: &Program) -> Result<(), Error> {
    match program.path() {
        Err(run::Error::NotInstalled { program }) => Err(Error::NotInstalled { program }),
        path => Ok(path.map(drop)?),
    }
}

fn strange(text: &str) -> Error {
    Error::Strange {
        program: "qemu-system-x86_64",
        text: text.lines().next().unwrap_or_default().to_owned(),
    }
}

impl Version {
    /// `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b2)`, and a line of copyright.
    pub fn parse(text: &str) -> Option<Self> {
        Self::of(text.lines().next()?.strip_prefix("QEMU emulator version ")?)
    }

    /// `7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b2)`.
    fn of(text: &str) -> Option<Self> {
        let mut numbers = text.split([' ', '.']).map(str::parse);
        let release = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self {
            text: text.to_owned(),
            release,
        })
    }

    /// Whether `text` is of the same version, whoever has packed it: `7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b2)`.
    pub fn is_of(&self, text: &str) -> bool {
        upstream(text) == upstream(&self.text)
    }

    /// Its first two numbers.
    pub fn release(&self) -> (u32, u32) {
        self.release
    }

    /// The machine that this version calls `pc`, under the name that every later version keeps for it.
    pub fn machine(&self) -> String {
        format!("pc-i440fx-{}.{}", self.release.0, self.release.1)
    }
}

fn upstream(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

/// All files of its own that the QEMU which is installed puts into one machine or another.
pub(super) fn all_firmware() -> Result<Vec<PathBuf>, Error> {
    Ok(find_all(
        &data_directories()?,
        &[&[BIOS], OF_LINUX, OF_MULTIBOOT].concat(),
    ))
}

/// Those that are put into a machine that boots `kernel`.
fn firmware_of(kernel: Option<&Path>) -> Vec<&'static str> {
    let loaders = match kernel {
        Some(kernel) if is_multiboot(kernel) => OF_MULTIBOOT,
        Some(_) => OF_LINUX,
        None => &[],
    };
    [&[BIOS], loaders].concat()
}

/// Where the QEMU that is installed looks for its files: it says so, one directory in each line.
fn data_directories() -> Result<Vec<PathBuf>, Error> {
    let output = Command::new(&QEMU).args(["-L", "help"]).run()?;
    let lines = output.stdout.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(PathBuf::from).collect())
}

/// The first file of each name.
fn find_all(directories: &[PathBuf], names: &[&str]) -> Vec<PathBuf> {
    let find = |name: &&str| {
        let mut paths = directories.iter().map(|directory| directory.join(name));
        paths.find(|path| path.is_file())
    };
    names.iter().filter_map(find).collect()
}

/// Whether QEMU loads a kernel by its Multiboot header. It looks for one where Linux has not its own
/// (Documentation/arch/x86/boot.rst), in the first 8 KiB. What such a guest finds in memory behind its kernel is what QEMU's own
/// heap had there (load_multiboot in QEMU's hw/i386/multiboot.c), another each time.
pub fn is_multiboot(kernel: &Path) -> bool {
    let mut head = Vec::new();
    let read = crate::file::open_content(kernel).and_then(|file| file.take(8192).read_to_end(&mut head));
    let is_linux = head.get(0x202..0x206) == Some(b"HdrS");
    read.is_ok() && !is_linux && head.chunks_exact(4).any(|word| word == 0x1bad_b002_u32.to_le_bytes())
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Makes an empty qcow2 file at `path`: over `base`, which is block for block, or of its own.
pub fn create_overlay(path: &str, base: Option<&str>, size: u64) -> Result<(), run::Error> {
    let mut command = Command::new(&QEMU_IMG).args(["create", "-q", "-f", "qcow2"]);
    if let Some(base) = base {
        command = command.args(["-F", "raw", "-b", base]);
    }
    command.arg("--").arg(path).arg(size.to_string()).run()?;
    // Whatever the umask is: what a guest writes may be secret, and a machine's state has all of its memory.
    let path = Path::new(path);
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|source| run::Error::Io {
        command: format!("chmod 0600 {}", path.display()),
        source,
    })
}

/// Makes the content of the qcow2 file at `path`, without what is below it, that which it had when its snapshot `name` was made.
pub(super) fn go_back(path: &str, name: &str) -> Result<(), run::Error> {
    let image = serde_json::json!({
        "driver": "qcow2",
        "backing": null,
        "file": { "driver": "file", "filename": path },
    });
    let command = Command::new(&QEMU_IMG).args(["snapshot", "-q", "-a"]).arg(name);
    command.arg("--").arg(format!("json:{image}")).run().map(drop)
}

/// Where in which file the content of the qcow2 file at `path`, which is over `base`, is (`qemu-img map`), as JSON. What the file
/// itself says to be below it is not believed: QEMU wrote it, and a guest may have made QEMU its own.
pub(super) fn map(path: &str, base: &str) -> Result<String, run::Error> {
    let escaped = |text: &str| text.replace(',', ",,");
    let driver = if base.starts_with("/dev/") {
        "host_device"
    } else {
        "file"
    };
    let image = format!(
        "driver=qcow2,file.driver=file,file.filename={},backing.driver=raw,backing.file.driver={driver},backing.file.filename={}",
        escaped(path),
        escaped(base)
    );
    let command = Command::new(&QEMU_IMG).args(["map", "--output=json", "--image-opts", "--"]);
    command.arg(image).run().map(|output| output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let parse = |text| Version::parse(text).map(|version| (version.machine(), version.release >= OLDEST));
        assert_eq!(
            parse("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright"),
            Some(("pc-i440fx-7.2".to_owned(), true))
        );
        assert_eq!(
            parse("QEMU emulator version 10.0.2"),
            Some(("pc-i440fx-10.0".to_owned(), true))
        );
        assert_eq!(parse("QEMU emulator version 5.2.0 (x)").map(|it| it.1), Some(false));
        assert_eq!(parse("qemu-kvm"), None);
    }
}

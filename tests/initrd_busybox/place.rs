// SPDX-License-Identifier: MIT OR Apache-2.0
//! A system's files, and what is made of them.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub const KERNEL: &str = "6.1.0-9-amd64";

/// Where the guest's image goes if nobody says otherwise.
pub const IMAGE: &str = "boot/initrd-busybox-based-ram-linux.img";

/// `modules.dep`, as Debian's: some have two names, some are needed by several.
pub const DEP: &str = "\
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/net/virtio_net.ko: kernel/net/core/failover.ko kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/net/core/failover.ko:
kernel/drivers/block/xen-blkfront.ko:
kernel/drivers/net/xen-netfront.ko:
kernel/net/packet/af_packet.ko:
kernel/drivers/acpi/button.ko:
kernel/fs/jbd2/jbd2.ko:
kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko
kernel/crypto/crc32c_generic.ko:
kernel/drivers/net/dummy.ko:
kernel/drivers/net/veth.ko:
";

pub const ALIASES: &str = "# Aliases extracted from modules themselves.
alias fs-ext4 ext4
alias crypto-crc32c crc32c_generic
alias crc32c crc32c_generic
alias rtnl-link-veth veth
alias xen:vif xen_netfront
";

/// The order in which these are to be loaded.
pub const ORDER: &str = "\
/lib/modules/6.1.0-9-amd64/kernel/drivers/virtio/virtio.ko
/lib/modules/6.1.0-9-amd64/kernel/drivers/virtio/virtio_ring.ko
/lib/modules/6.1.0-9-amd64/kernel/drivers/virtio/virtio_pci.ko
/lib/modules/6.1.0-9-amd64/kernel/net/core/failover.ko
/lib/modules/6.1.0-9-amd64/kernel/drivers/net/virtio_net.ko
/lib/modules/6.1.0-9-amd64/kernel/drivers/block/xen-blkfront.ko
/lib/modules/6.1.0-9-amd64/kernel/drivers/net/xen-netfront.ko
/lib/modules/6.1.0-9-amd64/kernel/net/packet/af_packet.ko
/lib/modules/6.1.0-9-amd64/kernel/drivers/acpi/button.ko
";

/// A system's files.
pub struct Place(pub PathBuf);

/// The busybox of this machine, if it is one that can be used.
pub fn busybox() -> Option<PathBuf> {
    let path = ttvm::run::find(Path::new("/"), "busybox")?;
    let elf = fs::read(&path).ok()?;
    // One that needs libraries names what loads them.
    let is_static = !elf.windows(15).any(|bytes| bytes == b"/ld-linux-x86-6");
    is_static.then_some(path)
}

impl Place {
    /// With everything that is needed; `None` where there is no busybox to be had.
    pub fn new(name: &str) -> Option<Self> {
        let place = Self::empty(name);
        let Some(busybox) = busybox() else {
            eprintln!("skipped: busybox-static is not installed");
            return None;
        };
        fs::copy(busybox, place.path("usr/bin/busybox")).expect("busybox");
        place.kernel(KERNEL, DEP);
        Some(place)
    }

    pub fn empty(name: &str) -> Self {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("busybox-{name}"));
        let _ = fs::remove_dir_all(&place);
        for directory in ["usr/bin", "lib/modules", "boot"] {
            fs::create_dir_all(place.join(directory)).expect("a directory");
        }
        Self(place.canonicalize().expect("a directory"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, content).expect(name);
    }

    /// A kernel's modules, all that `dep` names.
    pub fn kernel(&self, version: &str, dep: &str) {
        let directory = format!("lib/modules/{version}");
        for path in dep.lines().filter_map(|line| line.split(':').next()) {
            self.write(&format!("{directory}/{path}"), module(path));
        }
        self.write(&format!("{directory}/modules.dep"), dep);
        self.write(&format!("{directory}/modules.alias"), ALIASES);
        self.write(
            &format!("{directory}/modules.softdep"),
            "softdep ext4 pre: crc32c post: veth\n",
        );
        self.write(
            &format!("{directory}/modules.builtin"),
            "kernel/drivers/block/virtio_blk.ko\nkernel/drivers/char/virtio-rng.ko\n",
        );
    }

    /// `ttvm initrd busybox LINE`, in which `DIR` is this directory.
    pub fn command(&self, line: &str) -> Command {
        let directory = self.0.to_str().expect("a path");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ttvm"));
        command
            .args(["--root", directory, "initrd", "busybox"])
            .args(line.split_whitespace().map(|word| word.replace("DIR", directory)))
            .env_remove("SOURCE_DATE_EPOCH")
            .stdin(Stdio::null());
        command
    }

    /// What that prints, and how it ends.
    pub fn session(&self, line: &str) -> String {
        let output = self.command(line).output().expect("ttvm runs");
        // On a busy machine it says how far it is.
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let lines = text
                .split_inclusive('\n')
                .filter(|line| !(line.starts_with("ttvm: ") && line.contains('%')));
            lines.collect::<String>()
        };
        let code = output.status.code().unwrap_or(-1);
        let text = format!("{}{}[{code}]", text(&output.stdout), text(&output.stderr));
        text.replace(self.0.to_str().expect("a path"), "DIR")
    }

    #[track_caller]
    pub fn says(&self, line: &str, expected: &str) {
        assert_eq!(self.session(line), expected, "{line}");
    }

    /// Makes the image and returns it.
    #[track_caller]
    pub fn make(&self, line: &str) -> Vec<u8> {
        let said = self.session(&format!("--force {line}"));
        assert!(said.ends_with("[0]"), "{said}");
        fs::read(self.path(IMAGE)).expect("the image")
    }

    /// Takes the image apart with another program than ours, and returns where.
    pub fn unpacked(&self) -> PathBuf {
        let directory = self.path("unpacked");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).expect("a directory");
        let archive = gunzip(&self.path(IMAGE));
        // Device nodes are root's to make.
        let mut cpio = Command::new(self.path("usr/bin/busybox"));
        cpio.args(["cpio", "-idm"])
            .current_dir(&directory)
            .stderr(Stdio::null());
        pipe(cpio, &archive);
        directory
    }

    pub fn mode(&self) -> u32 {
        let data = fs::metadata(self.path(IMAGE)).expect("the image");
        data.permissions().mode() & 0o7777
    }
}

/// What a module of that path is here.
pub fn module(path: &str) -> Vec<u8> {
    [b"\x7fELF", path.as_bytes()].concat()
}

pub fn gunzip(path: &Path) -> Vec<u8> {
    let output = Command::new("gzip")
        .arg("-dc")
        .stdin(File::open(path).expect("a file"))
        .output();
    let output = output.expect("gzip");
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// What `command` prints when it reads `input`.
pub fn pipe(mut command: Command, input: &[u8]) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("a program");
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        // It may end before it has read all.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().expect("its output")
    });
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn installed(name: &str) -> bool {
    ttvm::run::find(Path::new("/"), name).is_some()
}

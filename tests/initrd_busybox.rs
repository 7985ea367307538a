// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm initrd busybox` on trees of each test's own, with the real busybox of this machine and modules that are none. That
//! its guests boot is tested with real ones (tests/replay, tests/host).

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;

const KERNEL: &str = "6.1.0-9-amd64";

/// Where the guest's image goes if nobody says otherwise.
const IMAGE: &str = "boot/initrd-busybox-based-ram-linux.img";

/// `modules.dep`, as Debian's: some have two names, some are needed by several.
const DEP: &str = "\
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

const ALIASES: &str = "# Aliases extracted from modules themselves.
alias fs-ext4 ext4
alias crypto-crc32c crc32c_generic
alias crc32c crc32c_generic
alias rtnl-link-veth veth
alias xen:vif xen_netfront
";

/// The order in which these are to be loaded.
const ORDER: &str = "\
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
struct Place(PathBuf);

/// The busybox of this machine, if it is one that can be used.
fn busybox() -> Option<PathBuf> {
    let path = ttvm::run::find(Path::new("/"), "busybox")?;
    let elf = fs::read(&path).ok()?;
    // One that needs libraries names what loads them.
    let is_static = !elf.windows(15).any(|bytes| bytes == b"/ld-linux-x86-6");
    is_static.then_some(path)
}

impl Place {
    /// With everything that is needed; `None` where there is no busybox to be had.
    fn new(name: &str) -> Option<Self> {
        let place = Self::empty(name);
        let Some(busybox) = busybox() else {
            eprintln!("skipped: busybox-static is not installed");
            return None;
        };
        fs::copy(busybox, place.path("usr/bin/busybox")).expect("busybox");
        place.kernel(KERNEL, DEP);
        Some(place)
    }

    fn empty(name: &str) -> Self {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("busybox-{name}"));
        let _ = fs::remove_dir_all(&place);
        for directory in ["usr/bin", "lib/modules", "boot"] {
            fs::create_dir_all(place.join(directory)).expect("a directory");
        }
        Self(place.canonicalize().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, content).expect(name);
    }

    /// A kernel's modules, all that `dep` names.
    fn kernel(&self, version: &str, dep: &str) {
        let directory = format!("lib/modules/{version}");
        for path in dep.lines().filter_map(|line| line.split(':').next()) {
            self.write(&format!("{directory}/{path}"), module(path));
        }
        self.write(&format!("{directory}/modules.dep"), dep);
        self.write(&format!("{directory}/modules.alias"), ALIASES);
        self.write(&format!("{directory}/modules.softdep"), "softdep ext4 pre: crc32c post: veth\n");
        self.write(
            &format!("{directory}/modules.builtin"),
            "kernel/drivers/block/virtio_blk.ko\nkernel/drivers/char/virtio-rng.ko\n",
        );
    }

    /// `ttvm initrd busybox LINE`, in which `DIR` is this directory.
    fn command(&self, line: &str) -> Command {
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
    fn session(&self, line: &str) -> String {
        let output = self.command(line).output().expect("ttvm runs");
        // On a busy machine it says how far it is.
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let lines = text.split_inclusive('\n').filter(|line| !line.ends_with("%\n"));
            lines.collect::<String>()
        };
        let code = output.status.code().unwrap_or(-1);
        let text = format!("{}{}[{code}]", text(&output.stdout), text(&output.stderr));
        text.replace(self.0.to_str().expect("a path"), "DIR")
    }

    #[track_caller]
    fn says(&self, line: &str, expected: &str) {
        assert_eq!(self.session(line), expected, "{line}");
    }

    /// Makes the image and returns it.
    #[track_caller]
    fn make(&self, line: &str) -> Vec<u8> {
        let said = self.session(&format!("--force {line}"));
        assert!(said.ends_with("[0]"), "{said}");
        fs::read(self.path(IMAGE)).expect("the image")
    }

    /// Takes the image apart with another program than ours, and returns where.
    fn unpacked(&self) -> PathBuf {
        let directory = self.path("unpacked");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).expect("a directory");
        let archive = gunzip(&self.path(IMAGE));
        // Device nodes are root's to make.
        let mut cpio = Command::new(self.path("usr/bin/busybox"));
        cpio.args(["cpio", "-idm"]).current_dir(&directory).stderr(Stdio::null());
        pipe(cpio, &archive);
        directory
    }

    fn mode(&self) -> u32 {
        let data = fs::metadata(self.path(IMAGE)).expect("the image");
        data.permissions().mode() & 0o7777
    }
}

/// What a module of that path is here.
fn module(path: &str) -> Vec<u8> {
    [b"\x7fELF", path.as_bytes()].concat()
}

fn gunzip(path: &Path) -> Vec<u8> {
    let output = Command::new("gzip").arg("-dc").stdin(File::open(path).expect("a file")).output();
    let output = output.expect("gzip");
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// What `command` prints when it reads `input`.
fn pipe(mut command: Command, input: &[u8]) -> String {
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

fn installed(name: &str) -> bool {
    ttvm::run::find(Path::new("/"), name).is_some()
}

#[test]
fn what_is_in_it() {
    let Some(place) = Place::new("content") else { return };
    let said = place.session("");
    assert!(
        said.starts_with("made DIR/boot/initrd-busybox-based-ram-linux.img: kernel 6.1.0-9-amd64, 12 modules, ")
            && said.ends_with(" KiB\nthis kernel does not have: evdev\n[0]"),
        "{said}"
    );
    let tree = place.unpacked();
    let read = |name: &str| fs::read_to_string(tree.join(name)).expect(name);
    let busybox = fs::read(place.path("usr/bin/busybox")).expect("busybox");
    assert!(fs::read(tree.join("bin/busybox")).expect("busybox") == busybox);
    for (link, target) in [("bin/sh", "busybox"), ("sbin", "bin"), ("usr/sbin", "../bin"), ("var/run", "../run")] {
        assert_eq!(fs::read_link(tree.join(link)).expect(link), Path::new(target), "{link}");
    }
    assert_eq!(read("etc/ttvm/modules"), ORDER);
    for path in ORDER.lines().chain(["/lib/modules/6.1.0-9-amd64/kernel/fs/ext4/ext4.ko"]) {
        let expected = module(path.strip_prefix("/lib/modules/6.1.0-9-amd64/").expect("a module"));
        assert_eq!(read(&path[1..]).as_bytes(), expected, "{path}");
    }
    assert!(!tree.join("lib/modules/6.1.0-9-amd64/kernel/drivers/net/veth.ko").exists());
    // modprobe finds what is there, and nothing else.
    let dep = read("lib/modules/6.1.0-9-amd64/modules.dep");
    assert_eq!(dep.lines().count(), 12, "{dep}");
    assert!(dep.contains("kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko\n"), "{dep}");
    assert_eq!(
        read("lib/modules/6.1.0-9-amd64/modules.alias"),
        "alias fs-ext4 ext4\nalias crypto-crc32c crc32c_generic\nalias crc32c crc32c_generic\nalias xen:vif xen_netfront\n"
    );
    for script in ["init", "etc/ttvm/network", "etc/ttvm/dhcp", "etc/ttvm/power-button"] {
        let mut check = Command::new(place.path("usr/bin/busybox"));
        let checked = check.args(["sh", "-n"]).arg(tree.join(script)).output().expect("sh");
        assert!(checked.status.success() && checked.stderr.is_empty(), "{script}: {checked:?}");
        let mode = fs::metadata(tree.join(script)).expect(script).permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "{script}");
    }
    // Another one that reads archives sees the same, with owners and permissions.
    if !installed("cpio") {
        return eprintln!("in part only: cpio is not installed");
    }
    let mut cpio = Command::new("cpio");
    cpio.args(["-itvn", "--quiet"]);
    let listed = pipe(cpio, &gunzip(&place.path(IMAGE)));
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    let entry = |name: &str| {
        let found = lines.iter().find(|words| words.contains(&name));
        found.map(|words| words[..4].join(" ")).unwrap_or_default()
    };
    assert_eq!(entry("init"), "-rwxr-xr-x 1 0 0");
    assert_eq!(entry("etc/shadow"), "-rw------- 1 0 0");
    assert_eq!(entry("root"), "drwx------ 1 0 0");
    assert_eq!(entry("dev/console"), "crw------- 1 0 0");
    assert_eq!(lines[0].last(), Some(&".ttvm-initrd"));
    let name = |line: &'_ str| line.split(" -> ").next().and_then(|line| line.split(' ').next_back()).map(str::to_owned);
    let names: Vec<String> = listed.lines().filter_map(name).collect();
    assert!(names.is_sorted(), "{names:?}");
}

/// Fedora's are packed with xz, Arch's with zstd, some with gzip; in the image they are plain.
#[test]
fn packed_modules() {
    let Some(place) = Place::new("packed") else { return };
    let mut dep = DEP.to_owned();
    for (packer, end, name) in [
        ("gzip", "gz", "kernel/drivers/virtio/virtio.ko"),
        ("xz", "xz", "kernel/drivers/net/xen-netfront.ko"),
        ("zstd", "zst", "kernel/fs/jbd2/jbd2.ko"),
    ] {
        if !installed(packer) {
            eprintln!("in part only: {packer} is not installed");
            continue;
        }
        let path = place.path(&format!("lib/modules/{KERNEL}/{name}"));
        let packed = Command::new(packer).arg("-qc").arg(&path).output().expect(packer);
        fs::remove_file(&path).expect("the module goes");
        fs::write(path.with_extension(format!("ko.{end}")), packed.stdout).expect("a packed module");
        dep = dep.replace(name, &format!("{name}.{end}"));
    }
    let plain = place.0.join("plain");
    fs::write(place.path(&format!("lib/modules/{KERNEL}/modules.dep")), &dep).expect("modules.dep");
    let packed = place.make("");
    fs::write(&plain, &packed).expect("a copy");
    place.kernel(KERNEL, DEP);
    assert!(place.make("") == packed, "the same as from plain ones");
    // One that is damaged is named.
    fs::write(place.path(&format!("lib/modules/{KERNEL}/kernel/fs/jbd2/jbd2.ko")), b"\xfd7zXZ\0 and no more").expect("a module");
    let said = place.session("");
    assert!(
        said.starts_with("ttvm: can not unpack DIR/lib/modules/6.1.0-9-amd64/kernel/fs/jbd2/jbd2.ko: see that xz (Debian: xz-utils) is installed, and the module whole\n  because: `xz ")
            && said.ends_with("[1]"),
        "{said}"
    );
    place.write(&format!("lib/modules/{KERNEL}/kernel/fs/jbd2/jbd2.ko"), "no module");
    place.says(
        "",
        "ttvm: DIR/lib/modules/6.1.0-9-amd64/kernel/fs/jbd2/jbd2.ko is not a module: install its kernel's package again\n[1]",
    );
}

#[test]
fn the_same_bytes_each_time() {
    let Some(place) = Place::new("same") else { return };
    let first = place.make("");
    assert_eq!(first[3..8], [0; 5], "no name and no time");
    place.says(
        "",
        &format!(
            "nothing to do for DIR/{IMAGE}: kernel {KERNEL}, 12 modules, {} KiB\nthis kernel does not have: evdev\n[0]",
            first.len().div_ceil(1024)
        ),
    );
    // Another tree of the same files, with other times, made under another umask.
    let Some(other) = Place::new("the-same-elsewhere") else { return };
    for path in [format!("lib/modules/{KERNEL}/kernel/fs/ext4/ext4.ko"), "usr/bin/busybox".to_owned()] {
        let file = File::open(other.path(&path)).expect("a file");
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)).expect("its time");
    }
    let mut command = other.command("");
    // SAFETY: umask is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            umask(Mode::from_bits_truncate(0o077));
            Ok(())
        });
    }
    assert!(command.output().expect("ttvm runs").status.success());
    assert!(fs::read(other.path(IMAGE)).expect("the image") == first);
    assert_eq!(other.mode(), 0o644, "whatever the umask");
    // The time of all files is what is asked for; the content alone decides the rest.
    let output = place.command("").env("SOURCE_DATE_EPOCH", "1700000000").output().expect("ttvm runs");
    assert!(output.status.success(), "{output:?}");
    let archive = gunzip(&place.path(IMAGE));
    assert_eq!(&archive[46..54], format!("{:08x}", 1_700_000_000).as_bytes());
    let output = place.command("").env("SOURCE_DATE_EPOCH", "yesterday").output().expect("ttvm runs");
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
        (Some(2), "ttvm: SOURCE_DATE_EPOCH is no number of seconds that an archive can hold: unset it\n")
    );
    assert!(place.make("--modules veth") != first && place.make("--autologin") != first);
    assert!(place.make("") == first);
}

#[test]
fn modules_by_wish() {
    let Some(place) = Place::new("modules") else { return };
    place.make("--modules dummy,virtio-rng,xen-netfront");
    let order = fs::read_to_string(place.unpacked().join("etc/ttvm/modules")).expect("the order");
    assert_eq!(order, format!("{ORDER}/lib/modules/{KERNEL}/kernel/drivers/net/dummy.ko\n"));
    // What is to be loaded at once is not loaded later.
    let said = place.session("--dry-run --modules ext4");
    let expected = "\
loaded when it starts: virtio virtio_ring virtio_pci failover virtio_net xen_blkfront xen_netfront af_packet button crc32c_generic jbd2 ext4
part of the kernel: virtio_blk
this kernel does not have: evdev
";
    assert!(said.contains(expected), "{said}");
    place.says(
        "--modules virto_net",
        "ttvm: kernel 6.1.0-9-amd64 has no module \"virto_net\"; did you mean \"virtio_net\"?\n[1]",
    );
    place.says("--modules e1000", "ttvm: kernel 6.1.0-9-amd64 has no module \"e1000\"\n[1]");
    // Each needs the other: damaged, but no reason to go round for ever. And paths as old versions of depmod have them.
    let ring = format!("/lib/modules/{KERNEL}/kernel/a.ko: /lib/modules/{KERNEL}/kernel/b.ko\nkernel/b.ko: kernel/a.ko\n");
    place.write(&format!("lib/modules/{KERNEL}/kernel/a.ko"), module("a"));
    place.write(&format!("lib/modules/{KERNEL}/kernel/b.ko"), module("b"));
    place.write(&format!("lib/modules/{KERNEL}/modules.dep"), ring);
    let said = place.session("--dry-run --modules a");
    assert!(said.contains("loaded when it starts: b a\n"), "{said}");
    for line in ["kernel/../../../../etc/shadow.ko:", "/etc/shadow.ko:", "no colon", "kernel/x.ko: ../y.ko"] {
        place.write(&format!("lib/modules/{KERNEL}/modules.dep"), format!("kernel/a.ko:\n{line}\n"));
        place.says(
            "",
            &format!(
                "ttvm: DIR/lib/modules/6.1.0-9-amd64/modules.dep, line 2, is not as depmod writes it: {line:?}; `depmod 6.1.0-9-amd64` makes it anew\n[1]"
            ),
        );
    }
}

#[test]
fn which_kernel() {
    let Some(place) = Place::new("kernels") else { return };
    let is_for = |place: &Place, line: &str| {
        let said = place.session(line);
        said.split("kernel ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or(&said).to_owned()
    };
    place.kernel("6.1.0-10-amd64", DEP);
    // What a removed kernel left.
    place.write("lib/modules/6.9.0-1-amd64/kernel/drivers/net/veth.ko", module("veth"));
    assert_eq!(is_for(&place, "--dry-run"), "6.1.0-10-amd64", "the newest");
    place.write("proc/sys/kernel/osrelease", "6.1.0-9-amd64\n");
    assert_eq!(is_for(&place, "--dry-run"), KERNEL, "the running one");
    assert_eq!(is_for(&place, "--dry-run --kernel 6.1.0-10-amd64"), "6.1.0-10-amd64");
    place.write("proc/sys/kernel/osrelease", "6.2.0\n");
    assert_eq!(is_for(&place, "--dry-run"), "6.1.0-10-amd64", "the running one is not installed any more");
    for version in ["6.9.0-1-amd64", "..", "/etc"] {
        place.says(
            &format!("--kernel {version}"),
            &format!(
                "ttvm: there are no modules of kernel {version} in DIR/lib/modules; there are those of 6.1.0-10-amd64, 6.1.0-9-amd64\n[1]"
            ),
        );
    }
    fs::remove_dir_all(place.path("lib/modules")).expect("they go");
    place.says(
        "",
        "ttvm: there are no modules of a kernel in DIR/lib/modules: install a kernel; if there is one, `depmod VERSION` makes their index\n[1]",
    );
}

#[test]
fn busybox_that_will_not_do() {
    let place = Place::empty("no-busybox");
    place.kernel(KERNEL, DEP);
    let packages = "`apt-get install busybox-static`, or `dnf install busybox`";
    place.says("", &format!("ttvm: there is no busybox in DIR: {packages}\n[1]"));
    place.write("usr/bin/busybox", "#!/bin/sh\n");
    place.says(
        "",
        &format!("ttvm: DIR/usr/bin/busybox is no program for 64-bit PCs: {packages}\n[1]"),
    );
    // This test needs libraries.
    fs::copy(std::env::current_exe().expect("a path"), place.path("usr/bin/busybox")).expect("a program");
    place.says(
        "",
        &format!(
            "ttvm: DIR/usr/bin/busybox needs libraries, which are not in the guest: {packages} for one that does not\n[1]"
        ),
    );
    assert!(!place.path(IMAGE).exists());
}

#[test]
fn the_password() {
    let Some(place) = Place::new("password") else { return };
    let shadow = |place: &Place| {
        let text = fs::read_to_string(place.unpacked().join("etc/shadow")).expect("shadow");
        text.split(':').nth(1).expect("a hash").to_owned()
    };
    let salt = |hash: &str| hash.split('$').nth(3).expect("a salt").to_owned();
    // Another program says what the hash of that password is.
    let matches = |hash: &str, password: &str| {
        if !installed("openssl") {
            eprintln!("in part only: openssl is not installed");
            return true;
        }
        let mut openssl = Command::new("openssl");
        openssl.args(["passwd", "-6", "-stdin", "-salt", &format!("rounds=5000${}", salt(hash))]);
        pipe(openssl, password.as_bytes()).trim() == hash
    };
    place.make("");
    let well_known = shadow(&place);
    assert!(matches(&well_known, "root") && !matches(&well_known, "toor"), "{well_known}");
    assert_eq!(place.mode(), 0o644);
    // What is worth hiding is hidden, also in the place of what is not.
    let first = place.make("--password geheim");
    let own = shadow(&place);
    assert!(matches(&own, "geheim"), "{own}");
    assert_eq!(place.mode(), 0o600);
    assert_eq!(salt(&own), salt(&well_known), "it tells nothing of the password");
    assert!(place.make("--password geheim") == first);
    place.make("--password geheim --modules veth");
    assert_ne!(salt(&shadow(&place)), salt(&own), "another image, another salt");
    // Not for everybody who lists processes.
    let mut command = place.command("--password -");
    command.stderr(Stdio::inherit());
    pipe(command, b"geheim\n");
    assert!(fs::read(place.path(IMAGE)).expect("the image") == first);
    let usage = |line: &str, input: &[u8]| {
        let mut command = place.command("");
        command.arg(format!("--password={line}")).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("ttvm runs");
        child.stdin.take().expect("a pipe").write_all(input).expect("input");
        let output = child.wait_with_output().expect("its output");
        format!("{}{:?}", String::from_utf8_lossy(&output.stderr), output.status.code())
    };
    let empty = "ttvm: an empty password is none; --autologin asks for no password at all\nSome(2)";
    assert_eq!(usage("", b""), empty);
    assert_eq!(usage("-", b"\n"), empty);
    assert_eq!(
        usage("a\nb", b""),
        "ttvm: a password has no control characters: it could not be typed\nSome(2)"
    );
    // Nobody is asked.
    place.make("--autologin");
    let tree = place.unpacked();
    let getty = fs::read_to_string(tree.join("etc/ttvm/getty")).expect("getty's options");
    assert_eq!(getty, "-n -l /etc/ttvm/autologin\n");
    assert!(tree.join("etc/ttvm/autologin").exists());
}

#[test]
fn what_is_there_is_not_lost() {
    let Some(place) = Place::new("foreign") else { return };
    let image = place.path(IMAGE);
    let refused = "ttvm: DIR/boot/initrd-busybox-based-ram-linux.img was not made by `ttvm initrd busybox`, or somebody has changed it since, so it is not replaced: choose another file with -o, or say --force\n[4]";
    let mine = place.make("");
    let mut archive = gunzip(&image);
    let at = archive.windows(4).position(|bytes| bytes == b"PATH").expect("a script");
    archive[at] = b'p';
    let mut gzip = Command::new("gzip");
    gzip.arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = gzip.spawn().expect("gzip");
    let mut stdin = child.stdin.take().expect("a pipe");
    let changed = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(&archive).expect("input"));
        child.wait_with_output().expect("its output").stdout
    });
    let with_more = [mine.as_slice(), b"070701"].concat();
    for content in [b"somebody's own".as_slice(), b"", &changed, &with_more, &mine[..mine.len() / 2]] {
        fs::write(&image, content).expect("a file");
        place.says("", refused);
        place.says("--dry-run", refused);
        assert!(fs::read(&image).expect("a file") == content);
    }
    assert!(place.make("") == mine);
    // What was made for another kernel is replaced without a question, and keeps its permissions.
    fs::set_permissions(&image, fs::Permissions::from_mode(0o640)).expect("its mode");
    assert!(place.session("--modules veth").starts_with("made "));
    assert_eq!(place.mode(), 0o640);
    fs::remove_file(&image).expect("it goes");
    let no_file = "ttvm: DIR/boot/initrd-busybox-based-ram-linux.img is no ordinary file: choose another one with -o\n[4]";
    symlink("elsewhere", &image).expect("a link");
    place.says("--force", no_file);
    fs::remove_file(&image).expect("it goes");
    fs::create_dir(&image).expect("a directory");
    place.says("--force", no_file);
    place.says(
        "-o /dev/null --force",
        "ttvm: /dev/null is no ordinary file: choose another one with -o\n[4]",
    );
}

#[test]
fn where_it_can_not_be_written() {
    let Some(place) = Place::new("unwritable") else { return };
    place.says(
        "-o DIR/none/image",
        "ttvm: can not write DIR/none/image: choose another file with -o\n  because: No such file or directory (os error 2)\n[1]",
    );
    if geteuid().is_root() {
        return eprintln!("in part only: root may write everywhere");
    }
    fs::set_permissions(place.path("boot"), fs::Permissions::from_mode(0o555)).expect("its mode");
    place.says(
        "",
        "ttvm: can not write DIR/boot/initrd-busybox-based-ram-linux.img: only root may; choose another file with -o\n  because: Permission denied (os error 13)\n[1]",
    );
    fs::set_permissions(place.path("boot"), fs::Permissions::from_mode(0o755)).expect("its mode");
}

#[test]
fn a_dry_run_writes_nothing() {
    let Some(place) = Place::new("dry") else { return };
    let said = place.session("--dry-run");
    for words in [
        "would make DIR/boot/initrd-busybox-based-ram-linux.img: kernel 6.1.0-9-amd64, 12 modules, ",
        "\nbusybox: DIR/usr/bin/busybox, ",
        "\nloaded when needed: crc32c_generic jbd2 ext4\n",
        "\n100755 ",
        " /init\n",
        "\n100600 ",
        " /etc/shadow\n",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
    let there = fs::read_dir(place.path("boot")).expect("a directory").count();
    assert_eq!(there, 0);
}

/// Its name is that of a whole file, whenever the machine stops.
#[test]
fn killed_before_it_has_its_name() {
    let Some(place) = Place::new("killed") else { return };
    let killed = || {
        let status = place.command("").env("TTVM_FAIL_POINT", "file.written").status();
        assert_eq!(status.expect("ttvm runs").signal(), Some(9));
    };
    killed();
    assert!(!place.path(IMAGE).exists());
    let first = place.make("");
    let status = place.command("--modules veth").env("TTVM_FAIL_POINT", "file.written").status();
    assert_eq!(status.expect("ttvm runs").signal(), Some(9));
    assert!(fs::read(place.path(IMAGE)).expect("the image") == first, "the old one is whole");
    assert!(place.session("--modules veth").starts_with("made "));
}

/// Somebody else puts a file there while it is made.
#[test]
fn somebody_else_was_faster() {
    let Some(place) = Place::new("race") else { return };
    let child = place.command("").env("TTVM_FAIL_POINT", "file.written:stop").stderr(Stdio::piped()).spawn();
    let child = child.expect("ttvm runs");
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let stopped = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WUNTRACED)).expect("it stands still");
    assert!(matches!(stopped, nix::sys::wait::WaitStatus::Stopped(..)), "{stopped:?}");
    place.write(IMAGE, "somebody's own");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).expect("it goes on");
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("somebody else has changed it meanwhile"), "{errors}");
    assert_eq!(fs::read(place.path(IMAGE)).expect("the file"), b"somebody's own");
    let left = fs::read_dir(place.path("boot")).expect("a directory").count();
    assert_eq!(left, 1, "nothing half-made");
}

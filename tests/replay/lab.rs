// SPDX-License-Identifier: MIT OR Apache-2.0
//! Places to record and replay in: a directory of an ordinary user with a guest, its disk and the program.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use ttvm::qemu::machine::{Drive, Machine};
use ttvm::recording::session::recorded_machine;
use ttvm::recording::{Entry, Library, Recording};

/// The user that root becomes: what is tested here needs no rights.
const NOBODY: u32 = 65534;

/// No run takes so long, however loaded the machine is.
const LIMIT: Duration = Duration::from_secs(300);

/// The guest's name, everywhere.
pub const GUEST: &str = "demo";

/// Its file, in the user's home directory.
pub const FILE: &str = ".config/ttvm/guests/demo.toml";

/// What ttvm keeps there.
pub const STATE: &str = ".local/state/ttvm";

/// What makes a guest's kernel boot without measuring its timers, and without trying each cipher that it has: that is half of all
/// instructions of a boot.
const QUICK: &str = "nolapic_timer no_timer_check cryptomgr.notests";

/// What watches a run from within QEMU: the program looks for them where it is itself.
const PLUGINS: [&str; 2] = ["libqemu_watch_1.so", "libqemu_watch_4.so"];

/// Bytes of a guest's disk.
pub const DISK: usize = 4 << 20;

/// The directory that a script builds, unless it is there, and prints.
fn directory_of(script: &str) -> Result<PathBuf, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let built = Command::new(&script).stderr(Stdio::inherit()).output();
    let built = built.map_err(|error| format!("{}: {error}", script.display()))?;
    if built.status.success() {
        Ok(PathBuf::from(String::from_utf8_lossy(&built.stdout).trim_end()))
    } else {
        Err(format!("{} failed: {}", script.display(), built.status))
    }
}

/// Does `then` where its mounts, and those of what it starts, are seen by nobody else. It takes root.
#[allow(dead_code, reason = "only some mount")]
pub fn with_own_mounts<T: Send>(then: impl FnOnce() -> T + Send) -> T {
    // The namespace is the thread's, and its children's.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("a private one");
            then()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Has whoever sees the mounts of this thread find `file` at `place`.
#[allow(dead_code, reason = "only some mount")]
pub fn put_over(place: &Path, file: &Path) {
    let none: Option<&str> = None;
    mount(Some(file), place, none, MsFlags::MS_BIND, none).expect("a mount");
}

/// What all places have in common. Dropped, everything is removed.
pub struct Lab {
    directory: PathBuf,
    guest: PathBuf,
    next: AtomicU32,
}

impl Lab {
    /// With `program`, one of cargo's, which leaves the libraries that it makes for whoever depends on them in `deps`.
    pub fn with(program: &Path) -> Result<Self, String> {
        Self::with_plugins(program, &program.with_file_name("deps"))
    }

    /// With `program`, and the libraries in `plugins` that watch from within QEMU.
    pub fn with_plugins(program: &Path, plugins: &Path) -> Result<Self, String> {
        for name in ["qemu-system-x86_64", "qemu-img"] {
            if ttvm::run::find(Path::new("/"), name).is_none() {
                return Err(format!("{name} is not installed"));
            }
        }
        let guest = directory_of("tests/guest/build.sh")?;
        // Short: the names of sockets in it have to fit in 107 bytes.
        let directory = std::env::temp_dir().join(format!("ttvm-{}", std::process::id()));
        fs::create_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let lab = Self {
            directory,
            guest: guest.clone(),
            next: AtomicU32::new(0),
        };
        // The directories they are in may be closed to others.
        for (from, to, mode) in [
            (program, "ttvm", 0o755),
            (&plugins.join(PLUGINS[0]), PLUGINS[0], 0o644),
            (&plugins.join(PLUGINS[1]), PLUGINS[1], 0o644),
            (&guest.join("vmlinuz"), "vmlinuz", 0o644),
            (&guest.join("initrd"), "initrd", 0o644),
        ] {
            let to = lab.directory.join(to);
            fs::copy(from, &to).map_err(|error| format!("{}: {error}", from.display()))?;
            fs::set_permissions(&to, PermissionsExt::from_mode(mode)).map_err(|error| error.to_string())?;
        }
        Ok(lab)
    }

    /// Who runs the program.
    #[allow(dead_code, reason = "not everybody who uses this tells")]
    pub fn user(&self) -> &'static str {
        match geteuid().is_root() {
            true => "as the user nobody",
            false => "as this user",
        }
    }

    /// Where the guest's kernel and initial RAM disk are (tests/guest).
    #[allow(dead_code, reason = "only some look for it")]
    pub fn guest(&self) -> &Path {
        &self.guest
    }

    /// Copies the system that guests are made from (`system` of tests/guest) to `to`.
    #[allow(dead_code, reason = "only some make guests")]
    pub fn copy_system(&self, to: &Path) {
        let copied = Command::new("cp")
            .arg("-R")
            .arg(self.guest.join("system"))
            .arg(to)
            .status();
        assert!(copied.expect("cp").success());
    }

    /// The disk of the emulated host, with a Debian.
    #[allow(dead_code, reason = "only some make guests")]
    pub fn host_disk(&self) -> PathBuf {
        directory_of("tests/host/image.sh")
            .expect("the emulated host")
            .join("root.raw")
    }

    /// A new place with a disk. Its guest has no file yet.
    pub fn place(&self) -> Place {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let place = Place {
            directory: self.directory.join(number.to_string()),
            program: self.directory.join("ttvm"),
        };
        fs::create_dir_all(place.path(".config/ttvm/guests")).expect("a place");
        for name in ["vmlinuz", "initrd"] {
            fs::copy(self.directory.join(name), place.path(name)).expect(name);
        }
        // Different everywhere, the same every time.
        let disk: Vec<u8> = (0..DISK / 8)
            .flat_map(|n| (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes())
            .collect();
        fs::write(place.path("base.img"), disk).expect("a disk");
        place.give();
        place
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.directory));
    }
}

/// A home directory with configuration, state, and what a guest is made from. Dropped, it is removed.
pub struct Place {
    directory: PathBuf,
    program: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.directory));
    }
}

/// What the program did.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub out: String,
    pub err: String,
    #[allow(dead_code, reason = "only figures need it")]
    pub seconds: f64,
}

impl Ran {
    /// Fails unless it ended with `status` and said all of `words`.
    #[track_caller]
    pub fn expect(&self, status: i32, words: &[&str]) -> &Self {
        let said = format!("{}{}", self.out, self.err);
        assert!(
            self.status == status && words.iter().all(|word| said.contains(word)),
            "expected status {status} and {words:?}, got status {}:\n{said}",
            self.status
        );
        self
    }
}

impl Place {
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The program itself.
    #[allow(dead_code, reason = "only some run it in another way")]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The guest's file: what it does, and more lines of it. Linux finds out how fast its timer is, and whether it works at
    /// all, by looking at the clock a million times; each of these is in the log, and a replay of them takes longer than
    /// everything else (the two options that forbid it).
    pub fn describe(&self, steps: &str, more: &str) {
        let here = self.directory.display();
        let file = format!(
            "kernel  = \"{here}/vmlinuz\"\ninitrd  = \"{here}/initrd\"\n\
             cmdline = \"console=ttyS0 panic=-1 quiet {QUICK} ttvm.do={steps}\"\nmemory  = \"128M\"\n{more}\n\
             [[disk]]\ntarget = \"vda\"\norigin = \"{here}/base.img\"\n\n[[vif]]\nmac = \"52:54:00:74:74:01\"\n"
        );
        self.write(FILE, file.as_bytes());
    }

    /// The guest does what the shell `script` says in place of what its command line says.
    pub fn script(&self, script: &str) {
        let init = "#!/bin/busybox sh\nexport PATH=/bin\n/bin/busybox --install -s /bin\nmount -t devtmpfs dev /dev\n\
            mount -t proc proc /proc\nexec >/dev/console 2>&1\n\
            while read -r module; do insmod \"/modules/$module\"; done </modules/order\n";
        self.write_init(&format!("{init}{script}\n"));
    }

    /// Gives the guest another /init.
    pub fn write_init(&self, script: &str) {
        self.give_program("init", script.as_bytes());
    }

    /// Gives the guest a program: the kernel takes the last of that name.
    pub fn give_program(&self, name: &str, program: &[u8]) {
        let mut initrd = fs::read(self.path("initrd")).expect("an initrd");
        initrd.resize(initrd.len().next_multiple_of(512), 0);
        for (name, mode, content) in [(name, 0o100_755, program), ("TRAILER!!!", 0, b"")] {
            let numbers = [1, mode, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
            let head: String = numbers.iter().map(|number| format!("{number:08x}")).collect();
            initrd.extend_from_slice(format!("070701{head}{name}\0").as_bytes());
            initrd.resize(initrd.len().next_multiple_of(4), 0);
            initrd.extend_from_slice(content);
            initrd.resize(initrd.len().next_multiple_of(4), 0);
        }
        self.write("initrd", &initrd);
    }

    /// Writes one of the user's files.
    pub fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).expect(name);
        own(&self.path(name));
    }

    /// Puts `new` in the place of `old` in a file.
    pub fn edit(&self, name: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.path(name)).expect(name);
        assert!(text.contains(old), "{name} has no {old:?}:\n{text}");
        self.write(name, text.replace(old, new).as_bytes());
    }

    /// Everything in here is the user's.
    pub fn give(&self) {
        fn all(path: &Path) {
            own(path);
            if path.is_dir() {
                fs::read_dir(path)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .for_each(|entry| all(&entry.path()));
            }
        }
        all(&self.directory);
    }

    /// The program, as the user.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = self.by_the_user(&self.program);
        command.args(args);
        command
    }

    /// Does what a line says that the user types in a shell.
    #[allow(dead_code, reason = "only some type")]
    pub fn shell(&self, line: &str) -> Ran {
        let directory = self.program.parent().expect("a directory").display();
        let mut command = self.by_the_user(Path::new("/bin/sh"));
        command
            .args(["-c", line])
            .env("PATH", format!("{directory}:/usr/bin:/bin"));
        Running::start(command).end()
    }

    fn by_the_user(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.directory)
            .env("HOME", &self.directory)
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_STATE_HOME")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Running::start(self.command(args)).end()
    }

    /// Runs it until it says `words` on its standard error.
    pub fn start(&self, args: &[&str], words: &str) -> Running {
        let mut running = Running::start(self.command(args));
        running.wait_for(words);
        running
    }

    pub fn record(&self, args: &[&str]) -> Ran {
        let ran = self.run(&[&["record", GUEST], args].concat());
        ran.expect(0, &["recorded demo "]);
        ran
    }

    pub fn replay(&self, args: &[&str]) -> Ran {
        self.run(&[&["replay", GUEST], args].concat())
    }

    pub fn library(&self) -> Library {
        Library::open(&self.path(STATE))
    }

    /// The machine that was recorded, with other disks.
    pub fn machine(&self, drives: Vec<Drive>) -> Machine {
        let recording = self.recording();
        let (kernel, initrd) = (self.path("vmlinuz"), self.path("initrd"));
        Machine {
            drives,
            ..recorded_machine(recording.manifest(), Some(kernel), Some(initrd))
        }
    }

    /// Its only recording, in whatever state.
    pub fn entry(&self) -> Entry {
        let mut entries = self.library().list(None).expect("recordings");
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries.remove(0)
    }

    /// Its newest whole recording.
    pub fn recording(&self) -> Recording {
        self.library()
            .find(&GUEST.parse().expect("a name"), None)
            .expect("a recording")
    }
}

fn own(path: &Path) {
    if geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("chown");
    }
}

/// The program while it runs. Dropped, it is killed.
pub struct Running {
    child: Child,
    err: BufReader<Box<dyn Read + Send>>,
    said: String,
    started: Instant,
    ended: bool,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the program");
        let err: Box<dyn Read + Send> = Box::new(child.stderr.take().expect("a pipe"));
        let running = Self {
            err: BufReader::new(err),
            child,
            said: String::new(),
            started: Instant::now(),
            ended: false,
        };
        // Nothing here reads with a deadline of its own.
        let pid = running.pid();
        std::thread::spawn(move || {
            let until = Instant::now() + LIMIT;
            while Instant::now() < until {
                std::thread::sleep(Duration::from_secs(1));
                if state(pid).is_none_or(|state| state == 'Z') {
                    return;
                }
            }
            eprintln!("process {pid} took too long");
            let _ = kill(pid, Signal::SIGKILL);
        });
        running
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Reads its standard error up to a line with `words`.
    pub fn wait_for(&mut self, words: &str) {
        let mut line = String::new();
        while self.err.read_line(&mut line).expect("its standard error") > 0 {
            self.said.push_str(&line);
            if line.contains(words) {
                return;
            }
            line.clear();
        }
        panic!("it ended without saying {words:?}: {}", self.said);
    }

    /// A line of its standard output.
    #[allow(dead_code, reason = "only some need it")]
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        let out = self.child.stdout.as_mut().expect("a pipe");
        let mut byte = [0];
        while out.read(&mut byte).is_ok_and(|length| length > 0) && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8_lossy(&line).into_owned()
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("kill");
    }

    /// Its emulator.
    pub fn emulator(&self) -> Pid {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid())).expect("its children");
        Pid::from_raw(
            children
                .trim()
                .parse()
                .unwrap_or_else(|_| panic!("one child: {children:?}")),
        )
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ran {
        let mut out = String::new();
        let err = std::thread::scope(|scope| {
            let err = scope.spawn(|| {
                let mut err = Vec::new();
                self.err.read_to_end(&mut err).map(|_| err)
            });
            let mut text = Vec::new();
            let stdout = self.child.stdout.as_mut().expect("a pipe");
            stdout.read_to_end(&mut text).expect("its output");
            out = String::from_utf8_lossy(&text).into_owned();
            err.join().expect("a thread").expect("its errors")
        });
        let status = self.child.wait().expect("its status");
        self.ended = true;
        Ran {
            status: status.code().unwrap_or_else(|| -status.signal().unwrap_or_default()),
            out,
            err: std::mem::take(&mut self.said) + &String::from_utf8_lossy(&err),
            seconds: self.started.elapsed().as_secs_f64(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// A process's state in one letter; `None` if there is no such process.
pub fn state(pid: Pid) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.chars().next()
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT / 2;
    while !is() {
        assert!(Instant::now() < end, "in vain: waiting until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the newest recording's console has `words`.
pub fn console_says(place: &Place, words: &str) {
    until(words, || {
        let entries = place.library().list(None).unwrap_or_default();
        let console = entries.last().map(|entry| entry.directory.join("console.log"));
        console.is_some_and(|console| contents(&console).contains(words))
    });
}

pub fn contents(path: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(path) {
        drop(file.read_to_end(&mut text));
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// A block of the fresh disk is overwritten behind the program's back, before the machine of a replay with `args` starts.
pub fn behind_its_back(place: &Place, args: &[&str]) -> Running {
    let mut command = place.command(&[&["replay", GUEST, "--verify"], args].concat());
    command.env("TTVM_FAIL_POINT", "session.disks-made:stop");
    let running = Running::start(command);
    until("it stands still", || state(running.pid()) == Some('T'));
    let overlay = place.path(STATE).join(format!("overlays/{GUEST}-vda.qcow2"));
    let wrote = Command::new("qemu-io")
        .args(["-c", "write -P 0xaa 2M 4k"])
        .arg(&overlay)
        .output();
    let wrote = wrote.expect("qemu-io");
    assert!(wrote.status.success(), "{wrote:?}");
    running.signal(Signal::SIGCONT);
    running
}

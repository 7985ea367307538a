// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm status --watch` on a bus of its own: systemd is one that says what a test wants it to say.

#[path = "support/bus.rs"]
mod bus;
#[path = "support/promtool.rs"]
mod promtool;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use bus::Bus;
use nix::pty::{Winsize, openpty};
use nix::sys::termios::tcgetattr;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, ObjectPath, OwnedObjectPath, OwnedVariant};

const PATH: &str = "/org/freedesktop/systemd1";

/// What systemd says of units: name, active state, sub state.
type Said = Arc<Mutex<Vec<(&'static str, &'static str, &'static str)>>>;

/// A unit that systemd says nothing about, nor about any other.
const SILENCE: (&str, &str, &str) = ("silence", "", "");

struct Systemd {
    said: Said,
    /// Told of each question that is never answered.
    unanswered: Sender<()>,
}

type Row = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Systemd {
    async fn subscribe(&self) {}

    async fn list_units_by_patterns(
        &self,
        states: Vec<String>,
        patterns: Vec<String>,
        #[zbus(connection)] connection: &Connection,
    ) -> Vec<Row> {
        // More news than anybody keeps, before the answer.
        for _ in 0..300 {
            let told = change(connection, "dbus_2eservice").await;
            told.expect("a signal");
        }
        assert!(states.is_empty());
        assert_eq!(
            patterns,
            ["ttvm@*.service", "ttvm-record@*.service", "ttvm-replay@*.service"]
        );
        if self.said.lock().expect("the units").contains(&SILENCE) {
            self.unanswered.send(()).expect("the test");
            std::future::pending::<()>().await;
        }
        let said = self.said.lock().expect("the units");
        let none = || OwnedObjectPath::from(ObjectPath::try_from("/").expect("a path"));
        let text = str::to_owned;
        let rows = said.iter().map(|(name, active, sub)| {
            let (name, active, sub) = (text(name), text(active), text(sub));
            (
                name,
                text(""),
                text("loaded"),
                active,
                sub,
                text(""),
                none(),
                0,
                text(""),
                none(),
            )
        });
        rows.collect()
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: ObjectPath<'_>,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

/// Tells that the unit at that object does something else.
async fn change(systemd: &Connection, object: &str) -> zbus::Result<()> {
    let path = format!("{PATH}/unit/{object}");
    let changed: HashMap<&str, OwnedVariant> = HashMap::new();
    let none: [&str; 0] = [];
    let body = ("org.freedesktop.systemd1.Unit", changed, &none[..]);
    let properties = "org.freedesktop.DBus.Properties";
    systemd
        .emit_signal(None::<&str>, path.as_str(), properties, "PropertiesChanged", &body)
        .await
}

/// A systemd, and the bus that it is on.
struct World {
    runtime: tokio::runtime::Handle,
    connection: Connection,
    said: Said,
    unanswered: Receiver<()>,
    bus: Bus,
    root: PathBuf,
}

impl World {
    fn new(name: &str) -> Self {
        let bus = Bus::start(&format!("status-{name}"));
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("status-{name}"));
        drop(fs::remove_dir_all(&root));
        fs::create_dir_all(root.join("etc/ttvm/guests")).expect("a directory");
        fs::write(root.join("kernel"), "").expect("a kernel");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let handle = runtime.handle().clone();
        // It answers as long as the test runs.
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        let runtime = handle;
        let said = Said::default();
        let (told, unanswered) = mpsc::channel();
        let systemd = Systemd {
            said: Arc::clone(&said),
            unanswered: told,
        };
        let connection = runtime.block_on(async {
            zbus::connection::Builder::address(bus.address.as_str())
                .serve_at(PATH, systemd)
                .name("org.freedesktop.systemd1")
                .build()
                .await
                .expect("systemd is on the bus")
        });
        let world = Self {
            runtime,
            connection,
            said,
            unanswered,
            bus,
            root,
        };
        world.guest("a");
        world.guest("b");
        world
    }

    fn guest(&self, name: &str) {
        let file = self.root.join(format!("etc/ttvm/guests/{name}.toml"));
        fs::write(file, "kernel = \"/kernel\"\n").expect("a guest");
    }

    /// From now on units are this.
    fn say(&self, units: &[(&'static str, &'static str, &'static str)]) {
        *self.said.lock().expect("the units") = units.to_vec();
    }

    /// A job of `unit` has ended.
    fn job_removed(&self, unit: &str) {
        let job = ObjectPath::try_from("/org/freedesktop/systemd1/job/7").expect("a path");
        self.runtime.block_on(async {
            let emitter = SignalEmitter::new(&self.connection, PATH).expect("an emitter");
            let told = Systemd::job_removed(&emitter, 7, job, unit, "done").await;
            told.expect("a signal");
        });
    }

    /// The unit at that object does something else.
    fn changed(&self, object: &str) {
        let sent = change(&self.connection, object);
        self.runtime.block_on(sent).expect("a signal");
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ttvm"));
        command
            .arg("--root")
            .arg(&self.root)
            .args(line.split_whitespace())
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.bus.address)
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        command
    }

    /// It, with its output as it comes.
    fn start(&self, line: &str) -> (Child, impl FnMut() -> String + use<>) {
        let mut child = self.command(line).stdout(Stdio::piped()).spawn().expect("ttvm runs");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let next = move || {
            let mut line = String::new();
            output.read_line(&mut line).expect("a line");
            line.trim_end().to_owned()
        };
        (child, next)
    }
}

fn end(mut child: Child, signal: nix::sys::signal::Signal) -> Option<i32> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a number"));
    nix::sys::signal::kill(pid, signal).expect("a signal");
    child.wait().expect("it ends").code()
}

#[test]
fn a_line_for_each_change() {
    let world = World::new("lines");
    world.say(&[("ttvm@a.service", "active", "running")]);
    let (child, mut next) = world.start("status --watch");
    // Without the time in front.
    let mut next = move || next().get(21..).unwrap_or_default().to_owned();
    assert_eq!(next(), "GUEST  STATE    DOMID  MEMORY  SNAPSHOT  UPTIME  LAST EXIT");
    assert_eq!(next(), "a      running  -      -       -         -       -");
    assert_eq!(next(), "b      stopped  -      -       -         -       -");
    world.say(&[("ttvm@a.service", "deactivating", "stop-sigterm")]);
    // Units of others are nothing to look for.
    world.job_removed("dbus.service");
    world.changed("ttvm_40a_2eservice");
    assert_eq!(next(), "a      stopping  -      -       -         -       -");
    world.say(&[("ttvm-record@b.service", "active", "running")]);
    world.job_removed("ttvm@a.service");
    assert_eq!(next(), "a      stopped    -      -       -         -       -");
    assert_eq!(next(), "b      recording  -      -       -         -       -");
    // Files, too: a guest more, and one less.
    world.guest("c");
    assert_eq!(next(), "c      stopped  -      -       -         -       -");
    fs::remove_file(world.root.join("etc/ttvm/guests/c.toml")).expect("it goes");
    assert_eq!(next(), "c      no file");
    assert_eq!(end(child, nix::sys::signal::Signal::SIGINT), Some(0));
}

#[test]
fn for_programs() {
    let world = World::new("json");
    let (child, mut next) = world.start("status --watch --json b");
    let state = |line: String| {
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        (value["guest"].to_string(), value["state"].to_string())
    };
    let expect = |text: &str| ("\"b\"".to_owned(), format!("{text:?}"));
    assert_eq!(state(next()), expect("stopped"));
    world.say(&[("ttvm@b.service", "failed", "failed")]);
    world.job_removed("ttvm@b.service");
    assert_eq!(state(next()), expect("failed"));
    assert_eq!(end(child, nix::sys::signal::Signal::SIGTERM), Some(0));
}

#[test]
fn while_systemd_says_nothing() {
    use nix::sys::signal::Signal::{SIGQUIT, SIGTERM};
    for signal in [SIGTERM, SIGQUIT] {
        let world = World::new(&format!("silence-{signal}"));
        let (child, mut next) = world.start("status --watch --json a");
        assert!(next().contains("stopped"));
        world.say(&[SILENCE]);
        world.job_removed("ttvm@a.service");
        world.unanswered.recv().expect("systemd is asked");
        assert_eq!(end(child, signal), Some(0));
    }
}

#[test]
fn a_mistake_in_the_host_s_file() {
    let world = World::new("mistake");
    let file = world.root.join("etc/ttvm/ttvm.toml");
    let (mut child, mut next) = {
        let mut command = world.command("status --watch --json");
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ttvm runs");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let next = move || {
            let mut line = String::new();
            output.read_line(&mut line).expect("a line");
            line
        };
        (child, next)
    };
    assert!(next().contains("\"a\"") && next().contains("\"b\""));
    fs::write(&file, "[guest]\nvcpus = [\n").expect("a file");
    world.say(&[("ttvm@a.service", "failed", "failed")]);
    world.job_removed("ttvm@a.service");
    assert!(next().contains("failed"), "what happens is still shown");
    let mut complaints = BufReader::new(child.stderr.take().expect("its errors"));
    let mut note = String::new();
    complaints.read_line(&mut note).expect("a line");
    let expected = "ttvm: note: shown without what ttvm.toml says: /etc/ttvm/ttvm.toml:";
    assert!(note.starts_with(expected), "{note}");
    assert_eq!(end(child, nix::sys::signal::Signal::SIGTERM), Some(0));
    for line in ["status", "list", "metrics"] {
        let output = world.command(line).output().expect("ttvm runs");
        let (said, shown) = (
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout),
        );
        assert!(
            said.starts_with(expected) && said.lines().count() == 1,
            "{line}: {said}"
        );
        assert!(shown.contains('b'), "{line}: {shown}");
        assert!(output.status.success(), "{line}");
        if line == "metrics" {
            promtool::approves(&shown);
        }
    }
}

/// A systemctl that lets nobody do anything, writes down what it was told, and remembers earlier starts.
const DENYING: &str = r#"#!/bin/sh
case "$*" in
'show --property=MainPID '*) echo MainPID=7 ;;
'show --property=InvocationID '*) echo InvocationID=1f ;;
'show '*)
	printf 'InvocationID=1f\nActiveState=failed\nSubState=failed\nStatusText=%s\nResult=exit-code\nExecMainStatus=4\n' 'an old failure'
	;;
*)
	echo "$1" >>"$(dirname "$0")/told"
	echo 'Access denied' >&2
	exit 1
	;;
esac
"#;

/// Runs ttvm as on a host that systemd runs, whose systemctl is the one above: what it says, and its exit status.
fn denied(world: &World, line: &str) -> (String, Option<i32>) {
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-ec"])
        .arg(
            "mount --bind \"$1/etc\" /etc; mount -t tmpfs none /run; mkdir -p /run/systemd/system
            mount --bind \"$1/bin\" /usr/sbin; shift; exec \"$@\"",
        )
        .arg("sh")
        .arg(&world.root)
        .arg(env!("CARGO_BIN_EXE_ttvm"))
        .args(line.split_whitespace())
        .env("DBUS_SYSTEM_BUS_ADDRESS", &world.bus.address)
        .stdin(Stdio::null())
        .output()
        .expect("unshare runs");
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&said).into_owned(), output.status.code())
}

#[test]
fn what_is_denied() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new("denied");
    let bin = world.root.join("bin");
    fs::create_dir(&bin).expect("a directory");
    fs::write(bin.join("systemctl"), DENYING).expect("a program");
    fs::set_permissions(bin.join("systemctl"), fs::Permissions::from_mode(0o755)).expect("it can be run");
    fs::write(world.root.join("etc/kernel"), "").expect("a kernel");
    fs::write(world.root.join("etc/ttvm/guests/b.toml"), "kernel = \"/etc/kernel\"\n").expect("a guest");
    world.say(&[
        ("ttvm@a.service", "active", "running"),
        ("ttvm@b.service", "failed", "failed"),
    ]);
    // A start that was refused is not told with the failure of the one before.
    let (said, code) = denied(&world, "start b");
    assert_eq!(said, "ttvm: guest \"b\" was not started: Access denied\n");
    assert_eq!(code, Some(1));
    // Whatever the host's file says, a guest can be ended. To ask it to shut down is another thing, for which nobody has asked.
    fs::write(world.root.join("etc/ttvm/ttvm.toml"), "[guest]\nvcpus = [\n").expect("a file");
    let (said, code) = denied(&world, "kill a");
    assert!(
        said.starts_with("ttvm: systemd did not do it; only root may, and whom polkit lets"),
        "{said}"
    );
    assert!(said.contains("Access denied"), "{said}");
    assert_eq!(code, Some(1));
    let told = fs::read_to_string(bin.join("told")).expect("it was told something");
    assert_eq!(told, "start\nkill\n");
    let (said, code) = denied(&world, "stop nobody");
    assert!(said.starts_with("ttvm: there is no guest \"nobody\""), "{said}");
    assert_eq!(code, Some(3));
}

/// What the terminal shows until `until` is there.
fn read_until(terminal: &mut File, until: &str) -> String {
    let mut text = String::new();
    while !text.contains(until) {
        let mut part = [0; 4096];
        let length = terminal.read(&mut part).expect("the terminal");
        text += &String::from_utf8_lossy(&part[..length]);
    }
    text
}

nix::ioctl_write_ptr_bad!(set_size, nix::libc::TIOCSWINSZ, Winsize);

#[test]
fn on_a_terminal() {
    let world = World::new("terminal");
    let size = Winsize {
        ws_row: 5,
        ws_col: 45,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    world.say(&[
        ("ttvm@a.service", "active", "running"),
        ("ttvm@b.service", "failed", "failed"),
    ]);
    let terminal = openpty(Some(&size), None).expect("a terminal");
    let before = tcgetattr(&terminal.slave).expect("its settings");
    let side = || Stdio::from(terminal.slave.try_clone().expect("a descriptor"));
    let mut ttvm = world
        .command("status --watch")
        .env("TERM", "xterm")
        .stdin(side())
        .stdout(side())
        .stderr(side())
        .spawn()
        .expect("ttvm runs");
    let mut screen = File::from(terminal.master);
    let first = read_until(&mut screen, "q ends");
    assert!(
        first.starts_with("\x1b[?1049h\x1b[?25l\x1b[HGUEST  STATE    DOMID  MEMORY  SNAPSHOT  UPT…\x1b[K\r\n"),
        "{first:?}"
    );
    assert!(first.contains("\na      \x1b[32mrunning\x1b[0m  -"), "{first:?}");
    assert!(first.contains("\nb      \x1b[1;31mfailed\x1b[0m   -"), "{first:?}");
    // More guests than lines.
    for name in ["c", "d", "e"] {
        world.guest(name);
    }
    let more = read_until(&mut screen, "2 more; q ends");
    assert!(!more.contains("\x1b[?1049"), "{more:?}");
    assert_ne!(tcgetattr(&terminal.slave).expect("its settings"), before);
    // A larger terminal has room for all. (Without a session of its own nobody but us tells it.)
    let larger = Winsize { ws_row: 9, ..size };
    // SAFETY: it reads a whole winsize (ioctl_tty(2)).
    unsafe { set_size(terminal.slave.as_raw_fd(), &raw const larger) }.expect("another size");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(ttvm.id()).expect("a number"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGWINCH).expect("a signal");
    let all = read_until(&mut screen, "\x1b[9;1Hq ends");
    assert!(all.contains("\ne      "), "{all:?}");
    screen.write_all(b"xq").expect("keys");
    let last = read_until(&mut screen, "\x1b[?1049l");
    assert!(last.ends_with("\x1b[?25h\x1b[?1049l"), "{last:?}");
    assert_eq!(ttvm.wait().expect("it ends").code(), Some(0));
    assert_eq!(tcgetattr(&terminal.slave).expect("its settings"), before);
}

/// Whatever ends it, the terminal is as before, and what is wrong is said on the screen that stays.
#[test]
fn killed_on_a_terminal() {
    for (point, said) in [
        ("status.shown", ""),
        ("status.shown:panic", "a mistake at status.shown"),
    ] {
        let world = World::new(if said.is_empty() { "killed" } else { "panic" });
        world.say(&[("ttvm@a.service", "active", "running")]);
        let terminal = openpty(None, None).expect("a terminal");
        let before = tcgetattr(&terminal.slave).expect("its settings");
        let side = || Stdio::from(terminal.slave.try_clone().expect("a descriptor"));
        let mut ttvm = world
            .command("status --watch")
            .env("TERM", "xterm")
            .env("TTVM_FAIL_POINT", point)
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("ttvm runs");
        let mut screen = File::from(terminal.master);
        let shown = read_until(&mut screen, "\x1b[?25h\x1b[?1049l");
        assert!(shown.starts_with("\x1b[?1049h\x1b[?25l"), "{shown:?}");
        assert_eq!(tcgetattr(&terminal.slave).expect("its settings"), before);
        let after = shown.split("\x1b[?1049l").nth(1).unwrap_or_default().to_owned();
        let rest = if after.contains(said) {
            after
        } else {
            after + &read_until(&mut screen, said)
        };
        assert!(!rest.contains("\x1b[?1049"), "{rest:?}");
        assert!(!ttvm.wait().expect("it ends").success());
    }
}

/// What is said on the standard error where there is no bus, and how it ends.
fn nowhere(line: &str) -> (String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_ttvm"))
        .args(line.split_whitespace())
        .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
        .stdin(Stdio::null())
        .output()
        .expect("ttvm runs");
    (
        String::from_utf8_lossy(&output.stderr).into_owned(),
        output.status.code(),
    )
}

#[test]
fn what_cannot_be_started() {
    for action in ["start", "stop", "restart", "kill", "logs", "console"] {
        let (said, code) = nowhere(&format!("--root / --state-dir /nonexistent {action} a"));
        assert!(
            said.starts_with(&format!("ttvm: `ttvm {action}` is for the units of this host: ")),
            "{said}"
        );
        assert_eq!(code, Some(2));
    }
    let nobody =
        "ttvm: there is no guest \"nobody-is-called-so\": /etc/ttvm/guests/nobody-is-called-so.toml does not exist";
    for action in ["start", "restart", "logs", "console"] {
        let (said, code) = nowhere(&format!("{action} nobody-is-called-so"));
        assert!(said.starts_with(nobody), "{said}");
        assert_eq!(code, Some(3));
    }
}

#[test]
fn what_cannot_be_watched() {
    let (said, code) = nowhere("--config-dir /nonexistent status --watch");
    assert!(
        said.starts_with("ttvm: there is nothing to watch: the guests below /nonexistent have no units"),
        "{said}"
    );
    assert_eq!(code, Some(2));
    if Path::new("/run/systemd/system").exists() {
        return;
    }
    let (said, code) = nowhere("status --watch");
    assert!(
        said.starts_with("ttvm: `ttvm status --watch` asks systemd, which does not run this machine"),
        "{said}"
    );
    assert_eq!(code, Some(1));
}

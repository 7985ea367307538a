// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recording and replaying with TT Xen, which is not to be had: xm, systemctl, ttd-deviced, xenstored, xend's and xenconsoled's
//! logs are stand-ins; the order of the commands, the recordings and the verdicts are what is looked at.

mod runs;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, raise};
use ttvm::base::error::{Classify, Exit, chain, one_line};
use ttvm::config::guest::Guest;
use ttvm::config::guests;
use ttvm::config::host::{self, HostConfig};
use ttvm::config::places::{Given, Places};
use ttvm::config::types::GuestName;
use ttvm::recording::library::manifest::RunExit;
use ttvm::recording::record::{Options, Recorded};
use ttvm::recording::session::limit::Limit;
use ttvm::recording::session::{Environment, Error, Listener};
use ttvm::recording::{Divergence, Library, Recording, State, Verdict, tt_xen};

const UNIT: &str = include_str!("../../units/ttvm-deviced@.service");
const UUID: &str = "6f1c0c1e-7a3b-4c55-9d1e-0123456789ab";

/// xm, as far as its commands are used: the domain is a file, and xend and xenconsoled write their logs.
const XM: &str = r#"
logs=$root/var/log/xen
gone() {
    [ -e $root/domains/12 ] || return 1
    [ -z "$1" ] || echo "[2026-11-25 12:00:00 1] INFO (XendDomainInfo:940) Domain has shutdown: name=clientA id=12 reason=$1." >> $logs/xend.log
    rm $root/domains/12
    echo >> $root/released
}
case $1 in
    info) printf 'xen_major : 3\nxen_minor : 0\nxen_extra : -unstable\n' ;;
    list)
        echo 'Name ID Mem VCPUs State Time(s)'
        cat $root/listed 2>/dev/null
        [ ! -e $root/domains/12 ] || echo 'clientA 12 96 1 -b---- 0.1' ;;
    create)
        [ ! -e $root/half-built ] || echo > $root/domains/12
        [ ! -e $root/no-memory ] || { echo 'Error: no memory' >&2; exit 1; }
        echo > $root/domains/12
        [ ! -e $root/says ] || cat $root/says >> $logs/console/guest-clientA.log
        [ ! -e $root/deviced-dies ] || kill -9 $(cat $root/pid)
        [ ! -e $root/ends ] || { sleep 0.3; gone $(cat $root/ends); } >/dev/null 2>&1 & ;;
    shutdown) [ -e $root/deaf ] || gone poweroff ;;
    destroy) gone "" ;;
esac
"#;

/// A system with stand-ins. Each writes its arguments to `log`, between bars.
struct System {
    root: PathBuf,
    host: HostConfig,
    library: Library,
}

impl System {
    fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("xm-run").join(name);
        drop(fs::remove_dir_all(&root));
        for directory in [
            "usr/sbin",
            "proc",
            "domains",
            "etc/ttvm/guests",
            "run/xenstored",
            "var/log/xen/console",
            "var/lib/ttvm",
        ] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        let places = places(&root);
        let system = Self {
            host: host::load(&places).unwrap(),
            library: Library::open(places.state_dir()),
            root,
        };
        system.write("proc/mounts", "debugfs /sys/kernel/debug debugfs rw,nosuid 0 0\n");
        system.write("vmlinuz", "a kernel");
        system.write("initrd", "an initrd");
        system.write("disk.img", &"blocks ".repeat(1000));
        system.write("says", "Linux version 2.6.18\nwelcome\n");
        system.write("var/log/xen/console/guest-clientA.log", "what it said before\n");
        system.guest_file("64M");
        system.program("xm", XM);
        // What systemd does with the unit's ExecStart= and EnvironmentFile=.
        let line = |key: &str| UNIT.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
        let environment = line("EnvironmentFile=").replace("%i", "$instance");
        system.program(
            "systemctl",
            &format!(
                "unit=${{!#}}; instance=${{unit#ttvm-deviced@}}; instance=${{instance%.service}}
                 case $1 in
                     start) . $root{environment}; $root{} >/dev/null 2>&1 & echo $! > $root/pid ;;
                     is-active) grep -qs '^State:.[RSD]' /proc/$(cat $root/pid)/status || exit 3 ;;
                     stop)
                         kill $(cat $root/pid) 2>/dev/null
                         while grep -qs '^State:.[RSD]' /proc/$(cat $root/pid)/status; do sleep 0.01; done ;;
                 esac",
                line("ExecStart=")
            ),
        );
        system.program("ttd-deviced", "[ -s $2 ] || echo events > $2; : < $2; exec sleep 60");
        let listener = UnixListener::bind(system.root.join("run/xenstored/socket")).unwrap();
        let root = system.root.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, root) = (stream.unwrap(), root.clone());
                // It ends when whoever asks closes the connection.
                thread::spawn(move || drop(serve(stream, &root)));
            }
        });
        system
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.root.join(path), text).unwrap();
    }

    fn guest_file(&self, memory: &str) {
        let root = self.root.display();
        self.write(
            "etc/ttvm/guests/clientA.toml",
            &format!(
                "toolstack = \"xm\"\nuuid = \"{UUID}\"\nmemory = \"{memory}\"\nkernel = \"{root}/vmlinuz\"\ninitrd = \"{root}/initrd\"\n\
                 cmdline = \"root=/dev/xvda1 ro\"\nshutdown_timeout = \"1s\"\n\
                 [[disk]]\ntarget = \"xvda1\"\npath = \"{root}/disk.img\"\n"
            ),
        );
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.root.join("usr/sbin").join(name);
        let root = self.root.display();
        let text = format!("#!/bin/bash\nroot={root}\n(IFS='|'; echo \"{name}|$*\") >> $root/log\n{text}\n");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// How programs were called since the last question.
    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.root.join("log")).unwrap_or_default();
        self.write("log", "");
        text.lines().map(str::to_owned).collect()
    }

    fn guest(&self) -> Guest {
        guests::load(&places(&self.root), &self.host, &client_a()).unwrap()
    }

    fn environment(&self) -> Environment<'_> {
        Environment {
            snapshot: &self.host.snapshot,
            overlays: self.root.join("overlays"),
            prepared: true,
            shared: false,
            seals: ttvm::recording::session::disks::Seals::default(),
        }
    }

    /// Until `limit` is over or, without one, until the guest ends or `follower` raises a signal.
    fn try_record(&self, limit: Option<Duration>, follower: &mut Follower) -> Result<Recorded, Error> {
        let text = fs::read_to_string(self.root.join("etc/ttvm/guests/clientA.toml")).unwrap();
        let (environment, options) = (
            self.environment(),
            Options {
                limit: limit.map(Limit::Host),
            },
        );
        tt_xen::record::record(
            &self.root,
            &self.guest(),
            &text,
            &self.library,
            &environment,
            &options,
            follower,
        )
    }

    fn record(&self) -> Recording {
        self.write("ends", "poweroff");
        let recorded = self.try_record(None, &mut Follower::default());
        recorded.map_err(|error| chain(&error)).unwrap().recording
    }

    fn try_replay(&self, recording: &Recording, paused: bool, follower: &mut Follower) -> Result<Verdict, Error> {
        let (guest, environment) = (self.guest(), self.environment());
        tt_xen::replay::replay(&self.root, recording, &guest, &environment, paused, follower)
    }

    fn replay(&self, recording: &Recording) -> Verdict {
        let verdict = self.try_replay(recording, false, &mut Follower::default());
        verdict.map_err(|error| chain(&error)).unwrap()
    }

    /// Why the newest recording is incomplete.
    fn incomplete(&self) -> String {
        match self.library.list(None).unwrap().pop().unwrap().state {
            State::Incomplete(why) => why,
            state => panic!("{state:?}"),
        }
    }

    fn nothing_is_left(&self) -> bool {
        let status = fs::read_to_string(self.root.join("pid")).map(|pid| format!("/proc/{}/status", pid.trim()));
        let state = status.and_then(fs::read_to_string).unwrap_or_default();
        let runs = state
            .lines()
            .any(|line| line.starts_with("State:\tS") || line.starts_with("State:\tR"));
        !runs && fs::read_dir(self.root.join("domains")).unwrap().next().is_none()
    }

    /// `ttvm` with this system's places.
    fn ttvm(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ttvm"));
        command.arg("--config-dir").arg(self.root.join("etc/ttvm"));
        command
            .arg("--state-dir")
            .arg(self.library.state_directory())
            .args(arguments);
        command.stdin(Stdio::null()).output().unwrap()
    }
}

/// Its configuration is its own; the files that a guest's file names are this machine's.
fn places(root: &Path) -> Places {
    let given = Given {
        root: None,
        config_dir: Some(root.join("etc/ttvm")),
        state_dir: Some(root.join("var/lib/ttvm")),
    };
    Places::of_caller(&given).unwrap()
}

fn client_a() -> GuestName {
    "clientA".parse().unwrap()
}

/// xenstored, for one connection: the domains that xm has made, and an event when one is gone.
fn serve(mut stream: UnixStream, root: &Path) -> io::Result<()> {
    let released = || fs::metadata(root.join("released")).map_or(0, |data| data.len());
    let (mut watched, mut seen) = (false, released());
    let send = |mut stream: &UnixStream, kind: u32, payload: &[u8]| {
        let mut message = Vec::new();
        for field in [kind, 0, 0, payload.len() as u32] {
            message.extend(field.to_ne_bytes());
        }
        message.extend(payload);
        stream.write_all(&message)
    };
    loop {
        let ready = poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLIN)], 20u16)?;
        if watched && released() != seen {
            seen = released();
            send(&stream, 15, b"@releaseDomain\0ttvm\0")?;
        }
        if ready == 0 {
            continue;
        }
        let mut header = [0; 16];
        stream.read_exact(&mut header)?;
        let field = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let mut payload = vec![0; field(12) as usize];
        stream.read_exact(&mut payload)?;
        let path = payload.split(|byte| *byte == 0).next().unwrap_or_default();
        let path = String::from_utf8_lossy(path).into_owned();
        let domains = domains(root);
        match field(0) {
            1 => {
                let ids: Vec<u8> = domains.keys().flat_map(|id| format!("{id}\0").into_bytes()).collect();
                send(&stream, 1, &ids)?;
            }
            2 => {
                let words: Vec<&str> = path.splitn(5, '/').collect();
                let own = words.get(3).and_then(|id| domains.get(*id));
                match (own, words.get(4).copied()) {
                    (Some(_), Some("domid")) => send(&stream, 2, words[3].as_bytes())?,
                    (Some(name), Some("name")) => send(&stream, 2, name.as_bytes())?,
                    (Some(_), Some("vm")) if words[3] != "0" => send(&stream, 2, format!("/vm/{UUID}").as_bytes())?,
                    _ => send(&stream, 16, b"ENOENT\0")?,
                }
            }
            4 => {
                watched = true;
                send(&stream, 4, b"OK\0")?;
                send(&stream, 15, b"@releaseDomain\0ttvm\0")?;
            }
            _ => send(&stream, 16, b"ENOSYS\0")?,
        }
    }
}

fn domains(root: &Path) -> BTreeMap<String, &'static str> {
    let files = fs::read_dir(root.join("domains")).unwrap().flatten();
    let own = files.map(|file| (file.file_name().into_string().unwrap(), "clientA"));
    own.chain([("0".to_owned(), "Domain-0")]).collect()
}

/// Follows a run; if it is to, it lets systemd stop the unit as soon as it is up.
#[derive(Default)]
struct Follower {
    stop: bool,
    ready: Vec<String>,
}

impl Listener for Follower {
    fn console(&mut self, _text: &[u8]) {}

    fn ready(&mut self, text: &str) {
        self.ready.push(text.to_owned());
        if self.stop {
            raise(Signal::SIGTERM).unwrap();
        }
    }

    fn progress(&mut self, _what: &str, _done: u64, _total: u64) {}
}

/// The commands of a run in `directory`; what is done to end the domain is `end`.
fn commands(system: &System, kind: &str, directory: &Path, end: &[&str]) -> Vec<String> {
    let (root, directory) = (system.root.display(), directory.display());
    let unit = format!("ttvm-deviced@{kind}@clientA.service");
    let replayed = if kind == "replay" { ",tt_replay_flag=1" } else { "" };
    let mut commands = vec![
        "xm|info".to_owned(),
        format!("systemctl|start|--|{unit}"),
        format!("ttd-deviced|-f|{directory}/ttd.log"),
        format!("systemctl|is-active|--quiet|--|{unit}"),
        format!("xm|create|{root}/run/ttvm/clientA.cfg|time_travel=ttd_flag=1,tt_dir={directory}{replayed}"),
    ];
    commands.extend(end.iter().map(|command| (*command).to_owned()));
    commands.push(format!("systemctl|is-active|--quiet|--|{unit}"));
    commands.push(format!("systemctl|stop|--job-mode=ignore-dependencies|--|{unit}"));
    commands
}

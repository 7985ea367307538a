// SPDX-License-Identifier: MIT OR Apache-2.0
//! A bus of the system's kind with the shipped policy, a polkit that answers as it is told, and the real service.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::libc;
use ttvm::netd::proxy::{ManagerProxy, NAME};
use zbus::connection::Builder;
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedVariant};

/// Who has no rights at all.
pub const NOBODY: u32 = 65534;

pub struct Bus {
    daemon: Child,
    directory: PathBuf,
    socket: PathBuf,
}

impl Bus {
    /// `None` where it cannot be had: without root, or without dbus-daemon.
    pub fn start(name: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || Command::new("dbus-daemon").arg("--version").output().is_err() {
            eprintln!("skipped: needs root and dbus-daemon");
            return None;
        }
        // A socket's path is short, and everybody may go there.
        let directory = PathBuf::from(format!("/tmp/ttvm-netd-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("root/etc")).expect("a directory");
        fs::write(
            directory.join("root/etc/machine-id"),
            "0123456789abcdef0123456789abcdef\n",
        )
        .expect("a file");
        let socket = directory.join("bus");
        let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/dbus/org.ttvm.Network1.conf");
        let config = include_str!("bus.conf")
            .replace("@SOCKET@", socket.to_str().expect("a path"))
            .replace("@POLICY@", policy.to_str().expect("a path"));
        let file = directory.join("bus.conf");
        fs::write(&file, config).expect("a file");
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", file.display()))
            .args(["--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon");
        let mut line = String::new();
        let stdout = daemon.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("an address");
        Some(Self {
            daemon,
            directory,
            socket,
        })
    }

    /// The service; `wrapped` runs it in something.
    pub fn netd(&self, wrapped: &[&str]) -> Netd {
        self.netd_with(wrapped, &[])
    }

    /// The same program with other words.
    pub fn netd_with(&self, wrapped: &[&str], arguments: &[&str]) -> Netd {
        let mut words: Vec<&str> = wrapped.to_vec();
        let root = self.directory.join("root");
        // By this name the program is the service. Of another build, to measure it: TTVM_NETD=$PWD/target/release/ttvm.
        let program = std::env::var("TTVM_NETD");
        let named = self.directory.join("ttvm-netd");
        match symlink(program.as_deref().unwrap_or(env!("CARGO_BIN_EXE_ttvm")), &named) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => panic!("{}: {error}", named.display()),
            _ => words.push(named.to_str().expect("a path")),
        }
        words.extend(["--root", root.to_str().expect("a path")]);
        words.extend(arguments);
        let child = Command::new(words[0])
            .args(&words[1..])
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .spawn()
            .expect("ttvm-netd");
        Netd(child)
    }

    /// What DBUS_SYSTEM_BUS_ADDRESS says to whoever is to come to this bus.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket.display())
    }

    /// How far the change on disk has come.
    pub fn pending(&self) -> Option<String> {
        let path = self.directory.join("root/var/lib/ttvm/network/transaction.json");
        let text = fs::read_to_string(path).ok()?;
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        Some(value["phase"].as_str().expect("a phase").to_owned())
    }

    /// Where the service `netd` cannot write the mode as long as this is a directory.
    pub fn obstacle(&self, netd: &Netd) -> PathBuf {
        let host = nix::unistd::gethostname().expect("a name");
        let beside = format!("{}.{}", host.display(), netd.0.id());
        let name = format!("root/var/lib/ttvm/network/state.json.new.{beside}");
        self.directory.join(name)
    }

    /// A connection of ours (root).
    pub async fn connect(&self) -> Connection {
        let stream = UnixStream::connect(&self.socket).expect("the bus");
        Builder::unix_stream(stream).build().await.expect("a connection")
    }

    /// A connection of a user without rights.
    pub async fn connect_as_nobody(&self) -> Connection {
        let socket = self.socket.clone();
        // The bus asks the kernel who connected: the thread that does is somebody else for as long as it lives.
        let stream = std::thread::spawn(move || {
            // SAFETY: the bare system call changes this thread alone, which ends after it.
            let result = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
            assert_eq!(result, 0, "setresuid");
            UnixStream::connect(socket).expect("the bus")
        });
        let stream = stream.join().expect("a connection");
        Builder::unix_stream(stream)
            .user_id(NOBODY)
            .build()
            .await
            .expect("a connection")
    }

    /// A polkit that answers that.
    pub async fn polkit(&self, answer: Answer) -> Polkit {
        let asked = Arc::default();
        let cancelled = Arc::default();
        let authority = Authority {
            answer,
            asked: Arc::clone(&asked),
            cancelled: Arc::clone(&cancelled),
        };
        let connection = self.connect().await;
        let server = connection.object_server();
        let path = "/org/freedesktop/PolicyKit1/Authority";
        server.at(path, authority).await.expect("an object");
        connection
            .request_name("org.freedesktop.PolicyKit1")
            .await
            .expect("a name");
        Polkit {
            _connection: connection,
            asked,
            cancelled,
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A service's process.
pub struct Netd(pub Child);

impl Netd {
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub fn is_gone(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    }

    pub fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a signal");
    }

    /// How it ends: its exit code, or none if a signal killed it.
    pub async fn exit(&mut self) -> Option<i32> {
        // Far above what it takes on any machine.
        let until = Instant::now() + Duration::from_secs(120);
        loop {
            if let Some(status) = self.0.try_wait().expect("a child") {
                return status.code();
            }
            assert!(Instant::now() < until, "it does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it has in memory, in kB (proc_pid_status(5): VmRSS, VmHWM for the most it ever had; RssAnon without what files are).
    pub fn memory(&self, what: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("a process");
        let line = status.lines().find(|line| line.starts_with(what)).expect("a line");
        let number = line.split_whitespace().nth(1).expect("a number");
        number.parse().expect("a number")
    }
}

impl Drop for Netd {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Allow,
    Deny,
    Challenge,
    Hang,
}

pub struct Polkit {
    _connection: Connection,
    /// Who, what, flags.
    pub asked: Arc<Mutex<Vec<(String, String, u32)>>>,
    /// What was taken back.
    pub cancelled: Arc<AtomicUsize>,
}

struct Authority {
    answer: Answer,
    asked: Arc<Mutex<Vec<(String, String, u32)>>>,
    cancelled: Arc<AtomicUsize>,
}

type Verdict = (bool, bool, HashMap<String, String>);

#[zbus::interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl Authority {
    async fn check_authorization(
        &self,
        subject: (String, HashMap<String, OwnedVariant>),
        action: String,
        _details: HashMap<String, String>,
        flags: u32,
        _cancellation: String,
    ) -> (Verdict,) {
        self.asked.lock().expect("a lock").push((subject.0, action, flags));
        match self.answer {
            Answer::Allow => ((true, false, HashMap::new()),),
            Answer::Deny => ((false, false, HashMap::new()),),
            Answer::Challenge => ((false, true, HashMap::new()),),
            Answer::Hang => std::future::pending().await,
        }
    }

    fn cancel_check_authorization(&self, _cancellation: &str) {
        self.cancelled.fetch_add(1, Ordering::Relaxed);
    }
}

/// The manager, once the service is there.
pub async fn manager(connection: &Connection) -> ManagerProxy<'static> {
    let bus = zbus::fdo::DBusProxy::new(connection).await.expect("the bus");
    let until = Instant::now() + Duration::from_secs(10);
    while !bus
        .name_has_owner(NAME.try_into().expect("a name"))
        .await
        .expect("an answer")
    {
        assert!(Instant::now() < until, "the service does not come up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ManagerProxy::builder(connection)
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .expect("a proxy")
}

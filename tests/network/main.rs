// SPDX-License-Identifier: MIT OR Apache-2.0
//! The network modes on a real kernel: each test is a host in a network namespace of its own, with a router and a guest in
//! others. Needs root.

mod cut_short;
mod modes;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::geteuid;
use ttvm::network::{Applied, Error, Mode, Network, Options, Request, State};

/// A network namespace that lasts as long as a process that does nothing.
struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        // It does not outlive this test.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"])
            .spawn()
            .expect("setpriv");
        // It is in its namespace once it runs sleep.
        let path = format!("/proc/{}/comm", child.id());
        while fs::read_to_string(&path).is_ok_and(|name| name.trim() != "sleep") {
            assert!(child.try_wait().expect("a child").is_none(), "unshare ended");
            thread::yield_now();
        }
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Runs `work` in it.
    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let file = File::open(format!("/proc/{}/ns/net", self.pid())).expect("a namespace");
        thread::spawn(move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).expect("setns");
            work()
        })
        .join()
        .expect("a thread")
    }

    fn sh(&self, script: &'static str) -> String {
        self.run(|| sh(script))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().expect("sh");
    assert!(
        output.status.success(),
        "{script}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A host with an uplink, eth0, to a router that has something behind it.
struct World {
    router: Namespace,
    /// At the other end of eth9, which has no carrier.
    far: Namespace,
    root: PathBuf,
    network: Network,
}

impl World {
    /// `None` where that cannot be made. The calling thread is the host from then on.
    fn new(name: &str) -> Option<Self> {
        if !geteuid().is_root() {
            eprintln!("{name}: skipped, it needs root");
            return None;
        }
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let router = Namespace::new();
        sh(&format!(
            "ip link set lo up; ip link add eth0 type veth peer name out0 netns {}; \
             ip address add 192.0.2.10/24 brd + dev eth0; ip address add 192.0.2.11/24 dev eth0 label eth0:1; \
             ip link set eth0 up; ip address add 2001:db8::10/64 dev eth0; ip address add fe80::1234/64 dev eth0",
            router.pid()
        ));
        router.sh(
            "ip link set lo up; ip address add 192.0.2.1/24 dev out0; ip address add 198.51.100.1/32 dev lo; \
             ip address add 2001:db8::1/64 dev out0 nodad; ip link set out0 up",
        );
        sh(
            "ip route add default via 192.0.2.1 metric 100; ip route add 203.0.113.0/24 via 192.0.2.1 src 192.0.2.11 mtu 1400; \
            ip route add 198.51.100.128/25 dev eth0 scope link; ip -6 route add default via 2001:db8::1 metric 512",
        );
        let far = Namespace::new();
        sh(&format!(
            "ip link add eth9 type veth peer name far9 netns {}; ip address add 198.18.0.1/24 dev eth9; ip link set eth9 up",
            far.pid()
        ));
        far.sh("ip address add 198.18.0.2/24 dev far9");
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("network").join(name);
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("etc/ttvm")).expect("a directory");
        fs::write(root.join("etc/ttvm/ttvm.toml"), "[network.nat]\ndhcp = false\n").expect("a file");
        let network = Network::new(&root);
        let world = Self {
            router,
            far,
            root,
            network,
        };
        world.works();
        Some(world)
    }

    /// Somebody beyond the router answers.
    fn works(&self) {
        self.router.run(|| serve("198.51.100.1:7"));
        assert_eq!(ask("198.51.100.1:7").expect("the router answers"), "192.0.2.10");
    }

    /// A guest whose interface is a port of `bridge`.
    fn guest(&self, bridge: &str, address: &'static str, gateway: &'static str) -> Namespace {
        let guest = Namespace::new();
        sh(&format!(
            "ip link add vif1.0 type veth peer name eth0 address 00:16:3e:00:00:01 netns {}; ip link set vif1.0 master {bridge} up",
            guest.pid()
        ));
        guest.run(move || {
            sh(&format!(
                "ip address add {address} dev eth0; ip link set eth0 up; ip route add default via {gateway}"
            ))
        });
        guest
    }

    fn switch(&self, mode: Mode, options: Options, confirm: u64) -> Result<Option<Applied>, Error> {
        let request = request(mode, options, confirm);
        match self.network.begin(&request)? {
            None => Ok(None),
            Some(begun) => self.network.apply(begun).map(Some),
        }
    }

    fn status(&self) -> (Mode, State) {
        let status = self.network.status().expect("a status");
        (status.mode, status.state)
    }

    fn pending(&self) -> u64 {
        self.network.status().expect("a status").pending.expect("a change").id
    }
}

fn request(mode: Mode, options: Options, confirm: u64) -> Request {
    Request {
        mode,
        options,
        confirm: Duration::from_secs(confirm),
        force: false,
    }
}

/// The guest ends. The kernel takes its time to remove the interface of a namespace that is gone.
fn gone(guest: Namespace) {
    drop(guest);
    sh("ip link del vif1.0 2>/dev/null || :");
}

fn managed() -> Options {
    Options {
        manage_uplink: Some(true),
        ..Options::default()
    }
}

/// Tells whoever comes, once, from which address they came.
fn serve(address: &str) {
    let listener = TcpListener::bind(address).expect("a listener");
    thread::spawn(move || {
        if let Ok((mut stream, from)) = listener.accept() {
            let _ = stream.write_all(from.ip().to_string().as_bytes());
        }
    });
}

fn ask(address: &str) -> std::io::Result<String> {
    ask_for(address, Duration::from_secs(10))
}

fn ask_for(address: &str, time: Duration) -> std::io::Result<String> {
    let address: SocketAddr = address.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&address, time)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Everything about this namespace that a switch could leave changed: with the times of addresses that last for ever.
fn everything() -> String {
    // Without what the kernel counts, and finds out in its own time.
    sh("while ip -6 address | grep -q tentative; do sleep 0.1; done; \
        clean='s/ promiscuity [0-9]* / /; s/ gc_timer *[0-9.]*//; s/^[0-9]*: //; s/NO-CARRIER,//; s/ state [A-Z]*//'; \
        ip -d link | sed \"$clean\"; ip -d address show | sed \"$clean\"; \
        for family in -4 -6; do ip $family -d route show table all | sed 's/ linkdown//' | sort; ip $family rule; done; nft -s list ruleset; \
        find /proc/sys/net -type f ! -name '*_random_*' ! -name stable_secret ! -name 'nf_conntrack_count' \
          ! -name route/flush -perm -400 2>/dev/null | sort | \
          while read -r file; do printf '%s ' $file; cat $file 2>/dev/null || echo; done")
}

fn assert_same(before: &str, after: &str) {
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let lost: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(lost.is_empty() && new.is_empty(), "lost {lost:#?}\nnew {new:#?}");
}

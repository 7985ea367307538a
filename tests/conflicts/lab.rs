// SPDX-License-Identifier: MIT OR Apache-2.0
//! Namespaces in which a test may load any rules: networks and processes of their own, /etc, /run and /var/log as
//! copies, everything gone with the test. In them, guests on a bridge and a world behind an uplink.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

/// How long a packet may take that is not dropped.
const PATIENCE: Duration = Duration::from_millis(700);

/// Two guests (.2, .3) on a bridge of this host (.1), and a machine elsewhere.
pub struct Lab {
    pub bridge: String,
    prefix: String,
    servers: [TcpListener; 3],
    datagrams: [UdpSocket; 2],
}

impl Lab {
    /// On a new bridge, with the network PREFIX.0/24.
    pub fn new(bridge: &str, prefix: &str) -> Self {
        sh(&format!(
            "echo 1 > /proc/sys/net/ipv4/ip_forward
            ip link add {bridge} type bridge
            ip address add {prefix}.1/24 dev {bridge}
            ip link set {bridge} up
            for n in 2 3; do
                space={bridge}-$n
                ip netns add $space
                ip link add vif-$space type veth peer name eth0 netns $space
                ip link set vif-$space master {bridge} up
                ip -n $space address add {prefix}.$n/24 dev eth0
                ip -n $space link set eth0 up
                ip -n $space route add default via {prefix}.1
            done
            [ ! -e /run/netns/world ] || exit 0
            ip netns add world
            ip link add uplink type veth peer name eth0 netns world
            ip address add 203.0.113.1/24 dev uplink
            ip link set uplink up
            ip -n world address add 203.0.113.2/24 dev eth0
            ip -n world link set eth0 up
            ip -n world route add default via 203.0.113.1"
        ));
        let elsewhere = TcpListener::bind;
        Self {
            bridge: bridge.to_owned(),
            prefix: prefix.to_owned(),
            servers: [
                // One port for each bridge: the world is the same.
                inside("world", format!("203.0.113.2:{}", port(bridge)), elsewhere),
                inside(&format!("{bridge}-3"), format!("{prefix}.3:80"), elsewhere),
                TcpListener::bind(format!("{prefix}.1:53")).unwrap(),
            ],
            datagrams: [67, 53].map(|port| UdpSocket::bind(format!("{prefix}.1:{port}")).unwrap()),
        }
    }

    /// What of the first guest's packets does not arrive, or has no answer.
    pub fn stopped(&self, routed: bool) -> Vec<SocketAddr> {
        let guest = format!("{}-2", self.bridge);
        let [world, other, dns] = [0, 1, 2].map(|index| self.servers[index].local_addr().unwrap());
        let streams = if routed { vec![world, other, dns] } else { vec![other] };
        let connect = |address: SocketAddr| TcpStream::connect_timeout(&address, PATIENCE);
        let mut stopped: Vec<SocketAddr> = streams;
        stopped.retain(|address| try_inside(&guest, *address, connect).is_err());
        for socket in self.datagrams.iter().filter(|_| routed) {
            let client = inside(&guest, format!("{}.2:0", self.prefix), UdpSocket::bind);
            let address = socket.local_addr().unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            // A rule that rejects may say so at once.
            let sent = client.send_to(b"?", address);
            if sent.and_then(|_| socket.recv(&mut [0])).is_err() {
                stopped.push(address);
            }
        }
        stopped
    }
}

fn port(bridge: &str) -> u16 {
    8000 + bridge.len() as u16
}

/// A socket that was opened in the network namespace `space` stays in it.
fn try_inside<A: Send + 'static, T: Send + 'static>(
    space: &str,
    address: A,
    open: impl FnOnce(A) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let space = File::open(Path::new("/run/netns").join(space)).unwrap();
    let thread = thread::spawn(move || {
        setns(space, CloneFlags::CLONE_NEWNET).unwrap();
        open(address)
    });
    thread.join().unwrap()
}

fn inside<T: Send + 'static>(
    space: &str,
    address: String,
    open: impl FnOnce(String) -> io::Result<T> + Send + 'static,
) -> T {
    try_inside(space, address, open).unwrap()
}

/// True in namespaces of its own; elsewhere it runs the test `name` in such and returns false, or says why not.
pub fn isolated(name: &str, programs: &[&str]) -> bool {
    if std::env::var("TTVM_ISOLATED").is_ok_and(|inside| inside == name) {
        return true;
    }
    let unshare = [
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
        "--",
    ];
    let may = Command::new("unshare")
        .args(unshare)
        .arg("true")
        .stderr(Stdio::null())
        .status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("{name} is skipped: it makes network namespaces, which takes root");
        return false;
    }
    let directories = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    for program in programs.iter().chain(&["ip"]) {
        if !directories
            .iter()
            .any(|directory| Path::new(directory).join(program).exists())
        {
            eprintln!("{name} is skipped: {program} is not installed");
            return false;
        }
    }
    let setup = "
        ip link set lo up
        mount -t sysfs sysfs /sys
        mount -t tmpfs tmpfs /run
        cp -a /etc /run/etc
        mount --bind /run/etc /etc
        mkdir -p /etc/sysctl.d /etc/modules-load.d
        mount -t tmpfs tmpfs /var/log
        exec \"$@\"";
    let output = Command::new("unshare")
        .args(unshare)
        .args(["/bin/sh", "-e", "-c", setup, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("TTVM_ISOLATED", name)
        // Never the machine's own bus.
        .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/run/ttvm-test-bus")
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{stdout}{stderr}"
    );
    eprint!("{stderr}");
    false
}

pub fn sh(script: &str) -> String {
    let output = Command::new("/bin/sh").args(["-e", "-c", script]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn start(program: &str, args: &[&str]) -> Child {
    Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

pub fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_there() {
        assert!(Instant::now() < end, "{what} does not come up");
        std::thread::sleep(Duration::from_millis(100));
    }
}

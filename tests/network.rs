// SPDX-License-Identifier: MIT OR Apache-2.0
//! The network modes on a real kernel: each test is a host in a network namespace of its own, with a router and a guest in
//! others. Needs root.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::geteuid;
use ttvm::network::{Applied, Error, Mode, Network, Options, Recovered, Request, State};

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
    /// `None` where that can not be made. The calling thread is the host from then on.
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

#[test]
fn nat_lets_guests_out_and_nobody_in() {
    let Some(world) = World::new("nat") else { return };
    world.far.sh("ip link set far9 up; ip route add default via 198.18.0.1");
    // Somebody else's rules and bridge.
    sh(
        "nft 'table inet other { chain c { type filter hook forward priority 5; policy accept; counter accept; }; }'; \
        ip link add br9 type bridge; ip link set br9 up",
    );
    let before = everything();
    assert_eq!(
        world.switch(Mode::Nat, Options::default(), 0).expect("nat"),
        Some(Applied::Kept)
    );
    assert_eq!(world.status(), (Mode::Nat, State::Idle));
    assert_eq!(
        fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("a sysctl"),
        "0\n"
    );
    let guest = world.guest("ttbr0", "10.0.0.1/24", "10.0.0.128");
    world.router.run(|| serve("198.51.100.1:7"));
    assert_eq!(guest.run(|| ask("198.51.100.1:7")).expect("an answer"), "192.0.2.10");
    // The host is no router for anybody else.
    world.router.sh("ip route add 198.18.0.0/24 via 192.0.2.10");
    world.far.run(|| serve("198.18.0.2:7"));
    let in_vain = world.router.run(|| ask_for("198.18.0.2:7", Duration::from_secs(2)));
    in_vain.expect_err("nobody goes through the host");
    assert_eq!(guest.run(|| ask("198.18.0.2:7")).expect("an answer"), "198.18.0.1");
    // In the other direction not even with a route.
    world.router.sh("ip route add 10.0.0.0/24 via 192.0.2.10");
    guest.run(|| serve("10.0.0.1:7"));
    let in_vain = world.router.run(|| ask_for("10.0.0.1:7", Duration::from_secs(2)));
    in_vain.expect_err("nobody comes in");
    gone(guest);
    assert_eq!(
        world.switch(Mode::Nat, Options::default(), 0).expect("nat"),
        None,
        "nothing to do"
    );
    for _ in 0..3 {
        assert_eq!(
            world.switch(Mode::None, Options::default(), 0).expect("none"),
            Some(Applied::Kept)
        );
        assert_same(&before, &everything());
        assert_eq!(
            world.switch(Mode::Nat, Options::default(), 0).expect("nat"),
            Some(Applied::Kept)
        );
    }
    // Another network on the same bridge.
    let other = Options {
        subnet: Some("172.20.0.0/16".parse().expect("a network")),
        ..Options::default()
    };
    assert_eq!(
        world.switch(Mode::Nat, other, 30).expect("nat"),
        Some(Applied::Pending(Duration::from_secs(30)))
    );
    sh("ip -4 address show ttbr0 | grep -q 'inet 172.20.255.254/16' && nft list table inet ttvm | grep -q 172.20");
    world.network.rollback(world.pending(), "a test").expect("undone");
    sh("ip -4 address show ttbr0 | grep -q 'inet 10.0.0.254/24' && nft list table inet ttvm | grep -q 10.0.0");
    world.switch(Mode::None, Options::default(), 0).expect("none");
    assert_same(&before, &everything());
}

#[test]
fn the_uplink_moves_and_comes_back() {
    let Some(world) = World::new("uplink") else { return };
    // What the kernel does not take before it has made sure of an address; what NetworkManager makes; two ways to the same
    // network, one of them without a carrier.
    sh("while ip -6 address | grep -q tentative; do sleep 0.1; done; \
        ip -6 route add 2001:db8:5::/48 via 2001:db8::1 src 2001:db8::10; \
        ip address add 198.19.0.10/24 dev eth0 noprefixroute; \
        ip route add 198.19.0.0/24 dev eth0 proto kernel scope link src 198.19.0.10 metric 100; \
        ip route add 198.19.5.0/24 via 198.19.0.1; \
        ip route add 203.0.114.0/24 nexthop via 192.0.2.1 dev eth0 nexthop via 198.18.0.2 dev eth9 onlink");
    let before = everything();
    // Without a confirmation nobody moves the host's own addresses.
    let refused = world.switch(Mode::Bridge, managed(), 0).expect_err("refused");
    assert_eq!(refused.name(), "InvalidArgument", "{refused}");
    assert_same(&before, &everything());
    for keep in [false, true] {
        let applied = world.switch(Mode::Bridge, managed(), 30).expect("bridge");
        assert_eq!(applied, Some(Applied::Pending(Duration::from_secs(30))));
        assert_eq!(world.status(), (Mode::Bridge, State::AwaitingConfirm));
        sh(
            "ip -4 address show xenbr0 | grep -q 'inet 192.0.2.10/24 brd 192.0.2.255 scope global xenbr0'; \
            ip -4 address show xenbr0 | grep -q 'inet 192.0.2.11/24 scope global secondary xenbr0:1'; \
            ip -6 address show xenbr0 | grep -q 2001:db8::10/64; test -z \"$(ip address show eth0 | grep 'scope global')\"; \
            ip route | grep -q '^default via 192.0.2.1 dev xenbr0 metric 100'; \
            ip route | grep -q '^203.0.113.0/24 via 192.0.2.1 dev xenbr0 src 192.0.2.11 mtu 1400'; \
            ip route | grep -q '^198.51.100.128/25 dev xenbr0 scope link'; \
            ip -6 route | grep -q '^default via 2001:db8::1 dev xenbr0 metric 512'",
        );
        world.works();
        // Guests are on the segment of the router.
        let guest = world.guest("xenbr0", "192.0.2.77/24", "192.0.2.1");
        guest.run(|| serve("192.0.2.77:7"));
        assert_eq!(
            world.router.run(|| ask("192.0.2.77:7")).expect("an answer"),
            "192.0.2.1"
        );
        gone(guest);
        let id = world.pending();
        if keep {
            world.network.confirm(id).expect("confirmed");
            assert_eq!(world.status(), (Mode::Bridge, State::Idle));
        } else {
            world.network.rollback(id, "a test").expect("undone");
            assert_same(&before, &everything());
            assert_eq!(world.status(), (Mode::None, State::Idle));
            world.network.confirm(id).expect_err("it is over");
        }
    }
    // What has been added since stays the host's.
    sh("ip address add 192.0.2.12/24 dev xenbr0; ip route add 192.88.99.0/24 via 192.0.2.1");
    world.switch(Mode::Nat, Options::default(), 30).expect("nat");
    sh(
        "ip -4 address show eth0 | grep -q 192.0.2.12; ip route | grep -q '^192.88.99.0/24 via 192.0.2.1 dev eth0'; \
        ! ip link show xenbr0 2>/dev/null",
    );
    world.works();
    world.network.rollback(world.pending(), "a test").expect("undone");
    sh("ip -4 address show xenbr0 | grep -q 192.0.2.12; ip route | grep -q '^192.88.99.0/24 via 192.0.2.1 dev xenbr0'");
    world.works();
    let left = world.switch(Mode::None, Options::default(), 30).expect("none");
    assert!(matches!(left, Some(Applied::Pending(_))));
    world.network.confirm(world.pending()).expect("confirmed");
    world.works();
    sh("ip address del 192.0.2.12/24 dev eth0; ip route del 192.88.99.0/24");
    assert_same(&before, &everything());
}

#[test]
fn what_speaks_against_it_is_said() {
    let Some(world) = World::new("refusals") else { return };
    let before = everything();
    let refused = |mode, options: Options, confirm, name: &str, words: &str| {
        let error = world.switch(mode, options, confirm).expect_err(words);
        assert_eq!(error.name(), name, "{error}");
        assert!(error.text().contains(words), "{}", error.text());
        assert_same(&before, &everything());
    };
    let subnet = |text: &str| Options {
        subnet: Some(text.parse().expect("a network")),
        ..Options::default()
    };
    let bridge = |name: &str| Options {
        bridge: Some(name.parse().expect("a name")),
        ..Options::default()
    };
    let uplink = |name: &str| Options {
        uplink: Some(name.parse().expect("a name")),
        ..Options::default()
    };
    refused(
        Mode::Bridge,
        Options::default(),
        0,
        "NoBridge",
        "there is no bridge xenbr0",
    );
    refused(
        Mode::Bridge,
        bridge("eth0"),
        0,
        "ForeignConfiguration",
        "eth0 is there and is no bridge",
    );
    refused(
        Mode::Nat,
        bridge("eth0"),
        0,
        "ForeignConfiguration",
        "that ttvm has not made",
    );
    refused(Mode::Bridge, uplink("lo"), 30, "UplinkUnsuitable", "loopback");
    refused(
        Mode::Bridge,
        uplink("nosuch"),
        30,
        "UplinkUnsuitable",
        "there is no such interface",
    );
    refused(
        Mode::Bridge,
        subnet("10.1.0.0/24"),
        30,
        "InvalidArgument",
        "subnet means nothing in mode bridge",
    );
    refused(Mode::Nat, Options::default(), 5, "InvalidArgument", "10 to 3600 s");
    sh("ip address add 10.9.0.1/16 dev eth0");
    let error = world.switch(Mode::Nat, subnet("10.9.3.0/24"), 0).expect_err("in use");
    assert_eq!(error.name(), "SubnetInUse", "{error}");
    sh("ip address del 10.9.0.1/16 dev eth0; ip route add 10.9.0.0/16 via 192.0.2.1");
    let error = world.switch(Mode::Nat, subnet("10.0.0.0/8"), 0).expect_err("in use");
    assert!(
        error
            .text()
            .contains("the route 10.9.0.0/16 via 192.0.2.1 through eth0"),
        "{}",
        error.text()
    );
    sh("ip route del 10.9.0.0/16");
    // Whoever else looks after the uplink.
    let owned = |path: String, content: &str, words: &str| {
        let path = world.root.join(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(&path, content).expect("a file");
        refused(Mode::Bridge, managed(), 30, "UplinkUnsuitable", words);
        fs::remove_file(&path).expect("the file goes");
    };
    let index = sh("cat /proc/net/dev >/dev/null; ip -o link show eth0 | cut -d: -f1");
    owned(
        format!("run/systemd/netif/links/{index}"),
        "ADMIN_STATE=configured\n",
        "systemd-networkd looks after it",
    );
    owned(
        format!("run/NetworkManager/devices/{index}"),
        "[device]\nmanaged=true\n",
        "NetworkManager looks after it",
    );
    sh("ip address add 192.0.2.99/24 dev eth0 valid_lft 600 preferred_lft 600");
    let error = world.switch(Mode::Bridge, managed(), 30).expect_err("a lease");
    assert!(error.text().contains("192.0.2.99/24 is a lease"), "{}", error.text());
    sh("ip address del 192.0.2.99/24 dev eth0");
    // One change at a time.
    world.switch(Mode::Nat, Options::default(), 30).expect("nat");
    let error = world.switch(Mode::None, Options::default(), 0).expect_err("busy");
    assert_eq!(error.name(), "Busy", "{error}");
    world.network.rollback(world.pending(), "a test").expect("undone");
    assert_same(&before, &everything());
    // Something of somebody else's on our bridge.
    world.switch(Mode::Nat, Options::default(), 0).expect("nat");
    sh("ip link add foreign0 type veth peer name foreign1; ip link set foreign0 master ttbr0");
    let error = world
        .switch(Mode::None, Options::default(), 0)
        .expect_err("a foreign port");
    assert!(error.text().contains("foreign0 is a port of ttbr0"), "{}", error.text());
    sh("ip link del foreign0");
    world.switch(Mode::None, Options::default(), 0).expect("none");
    assert_same(&before, &everything());
}

#[test]
fn what_does_not_work_is_undone() {
    let Some(world) = World::new("verify") else { return };
    let before = everything();
    // A network that lets only the first answer through, as one with port security does: the router is silent once the
    // uplink is a port of a bridge.
    world.router.sh(
        "nft 'table arp g { chain c { type filter hook output priority 0; policy drop; }; }'; ip neigh replace 192.0.2.10 \
         lladdr $(ip neigh show 192.0.2.10 | sed 's/.*lladdr \\([^ ]*\\).*/\\1/') dev out0 nud permanent",
    );
    let error = world.switch(Mode::Bridge, managed(), 30).expect_err("undone");
    assert_eq!(error.name(), "RolledBack", "{error}");
    assert!(
        error.text().contains("the router 192.0.2.1 does not answer on xenbr0"),
        "{error}"
    );
    assert_same(&before, &everything());
    assert_eq!(world.status(), (Mode::None, State::Idle));
    // A step that fails.
    let told = world.root.join("run/ttvm/network/guests.json");
    let in_the_way = || {
        let _ = fs::remove_file(&told);
        fs::create_dir_all(told.join("in-the-way")).expect("a directory");
    };
    in_the_way();
    let error = world.switch(Mode::Bridge, managed(), 30).expect_err("undone");
    assert_eq!(error.name(), "ApplyFailed", "{error}");
    assert_same(&before, &everything());
    assert_eq!(world.status(), (Mode::None, State::Idle));
    fs::remove_dir_all(&told).expect("the directory goes");
    // A way back that is not free: the host itself is back, and the rest is tried again.
    world.router.sh("nft delete table arp g; ip neigh flush all");
    world.switch(Mode::Nat, Options::default(), 0).expect("nat");
    let nat = everything();
    world.switch(Mode::Bridge, managed(), 30).expect("bridge");
    in_the_way();
    let error = world
        .network
        .rollback(world.pending(), "a test")
        .expect_err("not all of it");
    assert_eq!(error.name(), "RollbackFailed", "{error}");
    assert_eq!(world.status(), (Mode::Nat, State::RollingBack));
    world.works();
    let error = world.switch(Mode::None, Options::default(), 0).expect_err("not before");
    assert_eq!(error.name(), "RollbackFailed", "{error}");
    fs::remove_dir_all(&told).expect("the directory goes");
    world.network.rollback(world.pending(), "a test").expect("undone");
    assert_same(&nat, &everything());
    assert_eq!(world.status(), (Mode::Nat, State::Idle));
    world.switch(Mode::None, Options::default(), 0).expect("none");
    assert_same(&before, &everything());
}

#[test]
fn it_is_made_again() {
    let Some(world) = World::new("reconcile") else { return };
    let before = everything();
    world.switch(Mode::Nat, Options::default(), 0).expect("nat");
    assert_eq!(world.network.reconcile().expect("reconciled"), Vec::<String>::new());
    sh("nft flush ruleset; ip address flush dev ttbr0; echo 0 > /proc/sys/net/ipv4/conf/eth0/forwarding");
    let done = world.network.reconcile().expect("reconciled");
    assert_eq!(done.len(), 3, "{done:#?}");
    let guest = world.guest("ttbr0", "10.0.0.1/24", "10.0.0.254");
    world.router.run(|| serve("198.51.100.1:7"));
    assert_eq!(guest.run(|| ask("198.51.100.1:7")).expect("an answer"), "192.0.2.10");
    gone(guest);
    // Another boot: nothing is there, and it is made before guests start.
    sh(
        "nft flush ruleset; ip link del ttbr0; for link in eth0 eth9; do echo 0 > /proc/sys/net/ipv4/conf/$link/forwarding; done",
    );
    assert_same(&before, &everything());
    let state = world.root.join("var/lib/ttvm/network/state.json");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot");
    let text = fs::read_to_string(&state)
        .expect("a state")
        .replace(boot.trim(), "another");
    fs::write(&state, text).expect("a state");
    assert_eq!(world.status(), (Mode::None, State::Degraded));
    assert!(!world.network.reconcile().expect("reconciled").is_empty());
    assert_eq!(world.status(), (Mode::Nat, State::Idle));
    world.switch(Mode::None, Options::default(), 0).expect("none");
    assert_same(&before, &everything());
}

/// The child of the next test: a switch that is cut short by a fail point.
#[test]
#[ignore = "run by cut_short"]
fn a_switch_in_a_child() {
    let root = PathBuf::from(std::env::var_os("ROOT").expect("ROOT"));
    let network = Network::new(&root);
    let mode: Mode = std::env::var("MODE").expect("MODE").parse().expect("a mode");
    let options = if mode == Mode::Bridge {
        managed()
    } else {
        Options::default()
    };
    let begun = network
        .begin(&request(mode, options, 30))
        .expect("begun")
        .expect("a change");
    let id = begun.id;
    network.apply(begun).expect("applied");
    match std::env::var("THEN").as_deref() {
        Ok("confirm") => network.confirm(id).expect("confirmed"),
        _ => network.rollback(id, "a test").expect("undone"),
    }
}

/// Lets a child switch, which dies at `point`; false if it never came there.
fn cut(world: &World, mode: Mode, then: &str, point: &str) -> bool {
    let status = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "a_switch_in_a_child", "--ignored", "--quiet"])
        .env("ROOT", &world.root)
        .env("MODE", mode.as_str())
        .env("THEN", then)
        .env("TTVM_FAIL_POINT", point)
        .stdout(Stdio::null())
        .status()
        .expect("a child");
    !status.success()
}

#[test]
fn cut_short() {
    let Some(world) = World::new("cut") else { return };
    // Dozens of times: addresses are good at once.
    sh("for link in all default eth0; do echo 0 > /proc/sys/net/ipv6/conf/$link/accept_dad; done");
    let before = everything();
    let mut points = Vec::new();
    let mut deaths = 0;
    for mode in [Mode::Nat, Mode::Bridge] {
        points.clear();
        points.push(("network.begun".to_owned(), "rollback"));
        points.extend((0..5).map(|n| (format!("network.op.{n}"), "rollback")));
        points.extend(["network.made", "network.verified", "network.pending"].map(|p| (p.to_owned(), "rollback")));
        points.extend((0..5).rev().map(|n| (format!("network.revert.{n}"), "rollback")));
        points.push(("network.reverted".to_owned(), "rollback"));
        for (point, then) in &points {
            if !cut(&world, mode, then, point) {
                assert_same(&before, &everything());
                continue;
            }
            deaths += 1;
            // What the restarted service does. A change that was made waits for its confirmation; nobody gives it.
            let recovered = world.network.recover().expect("recovered");
            if point == "network.pending" {
                assert!(matches!(recovered, Recovered::Waiting(_)), "{recovered:?}");
                world.works();
                world.network.rollback(world.pending(), "a test").expect("undone");
            } else {
                assert!(matches!(recovered, Recovered::Undone(_)), "{point}: {recovered:?}");
            }
            assert_same(&before, &everything());
            assert_eq!(world.status(), (Mode::None, State::Idle), "{point}");
            world.works();
        }
    }
    // From one mode to the other: what was confirmed is kept, whoever dies.
    world.switch(Mode::Nat, Options::default(), 0).expect("nat");
    let nat = everything();
    for point in ["network.op.1", "network.op.2", "network.pending"] {
        assert!(cut(&world, Mode::Bridge, "confirm", point), "{point}");
        world.network.recover().expect("recovered");
        if point == "network.pending" {
            world.network.rollback(world.pending(), "a test").expect("undone");
        }
        assert_same(&nat, &everything());
        world.works();
    }
    for point in [
        "network.keeping",
        "network.afterwards.0",
        "network.afterwards.1",
        "network.afterwards.2",
        "network.kept",
    ] {
        assert!(cut(&world, Mode::Bridge, "confirm", point), "{point}");
        deaths += 1;
        let recovered = world.network.recover().expect("recovered");
        assert!(matches!(recovered, Recovered::Kept(_)), "{point}: {recovered:?}");
        assert_eq!(world.status(), (Mode::Bridge, State::Idle), "{point}");
        world.works();
        world.switch(Mode::Nat, Options::default(), 30).expect("nat");
        world.network.confirm(world.pending()).expect("confirmed");
        assert_same(&nat, &everything());
    }
    world.switch(Mode::None, Options::default(), 0).expect("none");
    assert_same(&before, &everything());
    println!("{deaths} deaths");
    assert!(deaths >= 20, "{deaths}");
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The modes, what speaks against one, and what is made again.

use std::fs;
use std::time::Duration;

use ttvm::network::{Applied, Mode, Options, State};

use super::{World, ask, ask_for, assert_same, everything, gone, managed, serve, sh};

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

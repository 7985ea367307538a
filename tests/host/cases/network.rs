// SPDX-License-Identifier: MIT OR Apache-2.0
//! The network modes, with a guest that says how it is connected, a world outside of the host, systemd, the bus and polkit.

use super::{cases, console, guest, until};
use crate::machine::Host;

cases! {
    Installed {
        Trixie: who_may;
        Both: daemon_dies_anywhere;
    }
    Xen {
        LaterBookworm: nat_bridge_nat;
        Both: twenty_switches;
    }
}

/// There is a world outside, and nothing of ours yet.
pub(super) fn outside(host: &mut Host) {
    host.run("systemctl enable -q --now ttvm-outside.service").unwrap();
    connected(host);
}

/// The host itself reaches the world, and is known there by its own address.
pub(super) fn connected(host: &mut Host) {
    let seen = host.run("/usr/lib/ttvm-host/get 198.51.100.1 /cgi-bin/who");
    assert_eq!(seen.unwrap(), "192.0.2.10");
}

/// Everything that a switch could leave changed.
const EVERYTHING: &str = "ip -o link | sed 's/^[0-9]*: //; s/NO-CARRIER,//; s/ state [A-Z]*//'; \
    ip -o address | sed 's/^[0-9]*: //; s/valid_lft.*//'; ip route show table all | sed 's/ linkdown//' | sort; \
    nft -s list ruleset; find /proc/sys/net -type f -perm -400 ! -name '*_random_*' ! -name stable_secret \
    ! -name nf_conntrack_count | sort | while read -r file; do printf '%s ' $file; cat $file 2>/dev/null || echo; done; \
    ls /run/ttvm/network; ps -eo args --no-headers | grep -v -e '^\\[' -e '^ps ' -e '^grep ' -e '^s[hde]' -e agent -e udev | sort; systemctl list-units --all --no-legend --plain 'ttvm-d*' 'run-*' '*.timer'";

pub(super) fn everything(host: &mut Host) -> String {
    // The service ends by itself.
    until(host, "! systemctl is-active -q ttvm-netd");
    host.run(EVERYTHING).unwrap()
}

pub(super) fn assert_same(before: &str, after: &str) {
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let lost: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(lost.is_empty() && new.is_empty(), "lost {lost:#?}\nnew {new:#?}");
}

/// Loads what the first switch would load.
pub(super) fn warm_up(host: &mut Host) {
    host.run("ttvm network set nat && ttvm network set none").unwrap();
}

const VIF: &str = "[[vif]]\naddress = \"10.0.0.1\"";

/// Whether somebody outside gets the guest's page.
fn is_reached_from_outside(host: &mut Host, address: &str) -> bool {
    let get = format!("ip netns exec outside /usr/lib/ttvm-host/get {address}");
    host.sh(&get).unwrap().text() == "the guest"
}

fn address(line: &str) -> String {
    let address = line.split("address ").nth(1).and_then(|rest| rest.split('/').next());
    address.unwrap_or_default().to_owned()
}

fn nat_bridge_nat(host: &mut Host) {
    outside(host);
    host.run("ttvm network set nat").unwrap();
    guest(host, "clientA", VIF, "ttvm.do=net", "");
    host.run("systemctl start ttvm@clientA").unwrap();
    let nat = "ttvm guest: address 10.0.0.1/24, seen as 192.0.2.10";
    console(host, "clientA", nat, 1);
    // Its name is known on its network.
    host.run("busybox nslookup clientA 10.0.0.254 | grep -q 10.0.0.1")
        .unwrap();
    host.run("ip netns exec outside ip route add 10.0.0.0/24 via 192.0.2.10")
        .unwrap();
    assert!(!is_reached_from_outside(host, "10.0.0.1"));
    assert!(host.run("ttvm network attachments").unwrap().contains("ttbr0"));
    let domid = host.run("xl domid clientA").unwrap();

    // Who starts the packet filter again has thrown our table away with everything else; it is made again.
    for action in [
        "start nftables",
        "restart nftables",
        "stop nftables && systemctl start nftables",
        "reload nftables",
    ] {
        host.run(&format!("systemctl {action}")).unwrap();
        until(host, "nft list table inet ttvm >/dev/null 2>&1");
    }

    // The host's own addresses move, and it is still there.
    let said = host
        .run("ttvm network set bridge --manage-uplink --confirm-within 120s")
        .unwrap();
    assert!(said.contains("ttvm network confirm"), "{said}");
    connected(host);
    let bridged = console(
        host,
        "clientA",
        "ttvm guest: address 192.0.2.1..*, seen as 192.0.2.1",
        1,
    );
    let own = address(&bridged);
    assert!(bridged.ends_with(&format!("seen as {own}")), "{bridged}");
    assert!(is_reached_from_outside(host, &own));
    let status = host.run("ttvm network status").unwrap();
    assert!(status.contains("waits to be confirmed"), "{status}");
    host.run("ttvm network confirm").unwrap();
    connected(host);
    assert_eq!(
        host.run("xl domid clientA").unwrap(),
        domid,
        "the same guest all the time"
    );

    // Back, live again; what nobody confirms is undone.
    host.run("ttvm network set nat --confirm-within 20s").unwrap();
    console(host, "clientA", nat, 2);
    until(host, "! ip link show ttbr0 2>/dev/null");
    connected(host);
    console(host, "clientA", "ttvm guest: address 192.0.2.1", 2);
    assert!(host.run("ttvm network status").unwrap().contains("bridge"));
    host.run("ttvm network set nat --confirm-within 60s && ttvm network confirm")
        .unwrap();
    console(host, "clientA", nat, 3);
    connected(host);

    // A run that is being recorded is not disturbed. A guest that would be cut off is named.
    let unit = "/run/systemd/system/ttvm-record@x.service";
    host.run(&format!(
        "printf '[Service]\\nExecStart=/bin/sleep infinity\\n' > {unit} && systemctl daemon-reload && systemctl start ttvm-record@x"
    ))
    .unwrap();
    let refused = host.sh("ttvm network set none").unwrap();
    assert_eq!(refused.status, 4);
    assert!(
        refused.errors().contains("ttvm-record@x.service"),
        "{}",
        refused.errors()
    );
    host.run("systemctl stop ttvm-record@x").unwrap();
    let refused = host.sh("ttvm network set none").unwrap();
    assert_eq!(refused.status, 4);
    assert!(refused.errors().contains("clientA"), "{}", refused.errors());
    host.run("systemctl stop ttvm@clientA && ttvm network set none")
        .unwrap();
    connected(host);
}

fn twenty_switches(host: &mut Host) {
    outside(host);
    // Somebody else's.
    host.run(
        "nft 'table inet other { chain c { type filter hook forward priority 5; policy accept; counter accept; }; }'; \
         ip link add br9 type bridge; ip link set br9 up; sysctl -qw net.ipv4.conf.all.accept_redirects=0",
    )
    .unwrap();
    warm_up(host);
    let before = everything(host);
    guest(host, "clientA", VIF, "ttvm.do=net", "");
    host.run("ttvm network set nat && systemctl start ttvm@clientA")
        .unwrap();
    console(host, "clientA", "ttvm guest: address 10.0.0.1/24", 1);
    for _ in 0..10 {
        host.run("ttvm network set bridge --manage-uplink --confirm-within 60s && ttvm network confirm")
            .unwrap();
        connected(host);
        host.run("ttvm network set nat --confirm-within 60s && ttvm network confirm")
            .unwrap();
        connected(host);
    }
    // Only what it missed on the way differs.
    host.run("systemctl stop ttvm@clientA && ttvm network set none")
        .unwrap();
    assert_same(&before, &everything(host));
    connected(host);
}

/// Lets the service die wherever it may: whatever it was doing, the host is as before, and the guests' mode, too.
fn daemon_dies_anywhere(host: &mut Host) {
    outside(host);
    warm_up(host);
    let before = everything(host);
    let mut points = vec!["network.begun".to_owned()];
    points.extend((0..3).map(|number| format!("network.op.{number}")));
    points.extend(["network.made", "network.verified", "network.pending"].map(str::to_owned));
    points.extend((0..3).rev().map(|number| format!("network.revert.{number}")));
    points.push("network.reverted".to_owned());
    for (deaths, point) in points.iter().enumerate() {
        host.run(&format!(
            "systemctl stop ttvm-netd; systemctl reset-failed ttvm-netd 2>/dev/null; \
             systemctl set-environment TTVM_FAIL_POINT={point}"
        ))
        .unwrap();
        // The client hears of it, or is told that it waits; then it is gone as well.
        drop(
            host.sh("ttvm network set bridge --manage-uplink --confirm-within 10s")
                .unwrap(),
        );
        if point.starts_with("network.rever") {
            drop(host.sh("ttvm network rollback").unwrap());
        }
        // The one that systemd starts in its place lives.
        host.run("systemctl unset-environment TTVM_FAIL_POINT").unwrap();
        until(
            host,
            &format!("[ $(journalctl -b -o cat -u ttvm-netd | grep -c status=9/KILL) -gt {deaths} ]"),
        );
        // Within the deadline, by the service that systemd has started again, or by the timer.
        until(
            host,
            "! ip link show xenbr0 2>/dev/null && ! test -e /var/lib/ttvm/network/transaction.json",
        );
        connected(host);
    }
    // The client is killed in the middle of it, and nobody else knows.
    host.run("systemctl stop ttvm-netd; systemctl reset-failed ttvm-netd 2>/dev/null; true")
        .unwrap();
    host.run(
        "ttvm network set bridge --manage-uplink --confirm-within 10s >/dev/null 2>&1 & client=$!; \
         timeout 600 sh -c 'until test -e /var/lib/ttvm/network/transaction.json; do sleep 0.1; done'; \
         kill -9 $client; wait $client; [ $? = 137 ]",
    )
    .unwrap();
    until(host, "ip link show xenbr0 >/dev/null 2>&1");
    until(host, "! ip link show xenbr0 2>/dev/null");
    connected(host);
    // The service is not started again at all: the timer is what is left.
    host.run("systemctl stop ttvm-netd; systemctl reset-failed ttvm-netd 2>/dev/null; true")
        .unwrap();
    host.run("ttvm network set bridge --manage-uplink --confirm-within 10s")
        .unwrap();
    host.run("systemctl mask -q --runtime ttvm-netd; systemctl kill -s KILL ttvm-netd")
        .unwrap();
    until(host, "! ip link show xenbr0 2>/dev/null");
    host.run("systemctl unmask -q --runtime ttvm-netd").unwrap();
    connected(host);
    until(host, "! test -e /var/lib/ttvm/network/transaction.json");
    host.run("systemctl reset-failed 2>/dev/null; true").unwrap();
    assert_same(&before, &everything(host));
}

/// The real polkit and the policy of the bus.
fn who_may(host: &mut Host) {
    outside(host);
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups ";
    let call = "busctl --system call org.ttvm.Network1 /org/ttvm/Network1 org.ttvm.Network1.Manager ";
    let manager = "/org/ttvm/Network1 org.ttvm.Network1.Manager ";
    for arguments in [
        "SwitchMode 'sa{sv}ut' nat 0 0 0",
        "SwitchMode 'sa{sv}ut' bridge 1 manage_uplink b true 60 1",
        "Confirm o /org/ttvm/Network1/transaction/1",
        "Rollback o /org/ttvm/Network1/transaction/1",
        "Extend ou /org/ttvm/Network1/transaction/1 60",
        "Reconcile t 0",
    ] {
        let denied = host.sh(&format!("{nobody}{call}{arguments}")).unwrap();
        assert_ne!(denied.status, 0, "{arguments}");
        let errors = denied.errors();
        assert!(
            errors.contains("Access denied") || errors.contains("authoriz") || errors.contains("authentication"),
            "{arguments}: {errors}"
        );
    }
    host.run(&format!("{nobody}{call}Describe")).unwrap();
    host.run(&format!(
        "{nobody}busctl --system get-property org.ttvm.Network1 {manager} Mode State Conflicts"
    ))
    .unwrap();
    host.run(&format!("{nobody}ttvm network status")).unwrap();
    let denied = host.sh(&format!("{nobody}ttvm network set nat")).unwrap();
    assert_ne!(denied.status, 0);
    assert!(host.run("ttvm network status").unwrap().contains("none"));
    // Root needs nobody's word, also by busctl.
    host.run(&format!("{call}SwitchMode 'sa{{sv}}ut' nat 0 0 0")).unwrap();
    until(
        host,
        "ttvm network status --json | grep -q \"\\\"mode\\\": \\\"nat\\\"\"",
    );
    host.run("ttvm network set none").unwrap();
    // The example of a rule, which polkit reads when it is there, lets a group do some of it.
    let rule = include_bytes!("../../../packaging/examples/50-ttvm-network.rules");
    host.write("/etc/polkit-1/rules.d/50-ttvm-network.rules", rule, 0o644)
        .unwrap();
    host.run("groupadd ttvm-network && useradd -G ttvm-network someone")
        .unwrap();
    let someone = "setpriv --reuid=someone --regid=someone --init-groups ";
    until(host, &format!("{someone}ttvm network set nat --no-ask-password"));
    for arguments in ["set bridge --manage-uplink", "reconcile"] {
        let denied = host
            .sh(&format!("{someone}ttvm network {arguments} --no-ask-password"))
            .unwrap();
        assert_ne!(denied.status, 0, "{arguments}");
    }
    host.run(&format!("{someone}ttvm network set none --no-ask-password"))
        .unwrap();
    // It does not stay.
    until(host, "! systemctl is-active -q ttvm-netd");
}

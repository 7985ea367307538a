// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host loses power while its network is being changed: it comes back as it was, or as it was confirmed to be.

use super::network::{connected, outside};
use super::{cases, until};
use crate::machine::Host;

cases! {
    Installed {
        LaterTrixie: kept_after_a_power_cut;
        Both: nat_and_power_cuts, uplink_and_power_cuts;
    }
}

/// Lets the service stand still at `point`, and cuts the power there.
fn cut(host: &mut Host, command: &str, point: &str) {
    host.run(&format!(
        "systemctl stop ttvm-netd; systemctl set-environment TTVM_FAIL_POINT={point}:hang"
    ))
    .unwrap();
    host.run(&format!("sync; {{ {command}; }} >/dev/null 2>&1 </dev/null &"))
        .unwrap();
    until(
        host,
        &format!("journalctl -b -o cat -u ttvm-netd | grep -q \"standing still at {point}\""),
    );
    host.power_cut_and_boot().unwrap();
}

/// As before, and nothing is left to be undone.
fn as_before(host: &mut Host, point: &str) {
    connected(host);
    let left = host.run(
        "ls /var/lib/ttvm/network/transaction.json 2>/dev/null; ip -o link show ttbr0 2>/dev/null; \
        ip -o link show xenbr0 2>/dev/null; nft list tables; ttvm network status --json | grep '\"mode\"'",
    );
    let left = left.unwrap();
    assert_eq!(left.trim(), "\"mode\": \"none\",", "{point}");
}

fn cuts(host: &mut Host, command: &str, points: &[&str]) {
    outside(host);
    for point in points {
        cut(host, command, point);
        as_before(host, point);
    }
}

fn nat_and_power_cuts(host: &mut Host) {
    cuts(
        host,
        "ttvm network set nat --confirm-within 60s",
        &[
            "network.begun",
            "network.op.1",
            "network.op.4",
            "network.made",
            "network.pending",
        ],
    );
}

fn uplink_and_power_cuts(host: &mut Host) {
    let bridge = "ttvm network set bridge --manage-uplink --confirm-within 60s";
    cuts(
        host,
        &format!("{bridge}; ttvm network rollback"),
        &[
            "network.op.1",
            "network.op.2",
            "network.verified",
            "network.pending",
            "network.revert.1",
        ],
    );
}

/// What was confirmed comes back by itself, before guests.
fn kept_after_a_power_cut(host: &mut Host) {
    outside(host);
    let bridge = "ttvm network set bridge --manage-uplink --confirm-within 60s; ttvm network confirm";
    cut(host, bridge, "network.keeping");
    connected(host);
    host.run("ip -4 address show xenbr0 | grep -q 192.0.2.10").unwrap();
    let status = host.run("ttvm network status --json").unwrap();
    assert!(
        status.contains("\"mode\": \"bridge\"") && status.contains("\"state\": \"idle\""),
        "{status}"
    );
    host.run("ttvm network set nat --confirm-within 60s && ttvm network confirm && sync")
        .unwrap();
    host.power_cut_and_boot().unwrap();
    connected(host);
    host.run(
        "nft list table inet ttvm && ip -4 address show ttbr0 | grep -q 10.0.0.254 && systemctl is-active ttvm-dnsmasq",
    )
    .unwrap();
    let order = host.run("systemctl show -P After ttvm@x").unwrap();
    assert!(order.contains("ttvm-network.service"), "{order}");
}

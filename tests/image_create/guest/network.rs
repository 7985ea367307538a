// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the guest gets its addresses.

use std::fs;

use super::super::{Place, debugfs};

const MANAGER: &str = "etc/systemd/system/multi-user.target.wants/NetworkManager.service";
const CONNECTION: &str = "/etc/NetworkManager/system-connections/ttvm-guest.nmconnection";

fn with(name: &str, files: &[(&str, &str)]) -> Place {
    let place = Place::new(name);
    for (path, content) in files {
        place.file(path, content);
    }
    place
}

/// The image is made, and the answer says this of its network.
fn made(place: &Place, network: &str) {
    let said = place.made("--size 64M --from DIR/src");
    assert!(said.contains(&format!("\nits network: {network}\n")), "{said}");
}

/// Only netplan starts what it is for.
#[test]
fn with_netplan() {
    let place = Place::new("netplan");
    for renderer in ["networkd", "NetworkManager"] {
        place.file("etc/netplan/50-cloud-init.yaml", "network: {}\n");
        place.file("etc/systemd/system/serial-getty@hvc0.service", "");
        if renderer == "NetworkManager" {
            place.file(MANAGER, "");
        }
        let said = place.made("--size 64M --from DIR/src");
        assert!(
            said.contains("its network: netplan, with DHCP on all network cards\n"),
            "{said}"
        );
        let plan = place.content("/etc/netplan/80-ttvm-guest.yaml");
        assert!(
            plan.contains(&format!("\n  renderer: {renderer}\n")) && plan.contains("dhcp4: true"),
            "{plan}"
        );
        assert!(debugfs(&place.path("image"), "stat /etc/netplan/80-ttvm-guest.yaml").contains("Mode:  0600"));
        assert!(!place.has("/etc/netplan/50-cloud-init.yaml"));
        assert!(!place.has("/etc/systemd/network/80-ttvm-guest.network"));
        // Empty, it was masked.
        assert!(!place.has("/etc/systemd/system/serial-getty@hvc0.service"));
        fs::remove_file(place.path("image")).expect("the image goes");
    }
}

/// It leaves cards alone that the file of an ifupdown names, also if there is no ifupdown.
#[test]
fn with_network_manager() {
    let place = with(
        "manager",
        &[
            (MANAGER, ""),
            (
                "etc/network/interfaces",
                "auto eth0\niface eth0 inet static\n  address 10.0.0.1/24\n",
            ),
            ("etc/NetworkManager/system-connections/office.nmconnection", "[ipv4]\n"),
            // Also one that has come with an image.
            (&CONNECTION[1..], "[ipv4]\naddress1=10.0.0.1/24\n"),
            ("etc/sysconfig/network-scripts/ifcfg-em1", "IPADDR=10.0.0.1\n"),
        ],
    );
    made(&place, "NetworkManager, with DHCP on all network cards");
    assert_eq!(
        place.content(CONNECTION),
        "# Written by `ttvm image create`.\n[connection]\nid=ttvm-guest\ntype=ethernet\nmulti-connect=3\n\n\
         [ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n"
    );
    assert!(debugfs(&place.path("image"), &format!("stat {CONNECTION}")).contains("Mode:  0600"));
    assert!(!place.has("/etc/NetworkManager/system-connections/office.nmconnection"));
    assert!(!place.has("/etc/sysconfig/network-scripts/ifcfg-em1"));
    assert!(!place.has("/etc/sysconfig/network-scripts/ifcfg-eth0"));
    let interfaces = "# Written by `ttvm image create`.\nauto lo\niface lo inet loopback\n";
    assert_eq!(place.content("/etc/network/interfaces"), interfaces);
    // With one, cards that it names are its own.
    fs::remove_file(place.path("image")).expect("the image goes");
    place.file("sbin/ifup", "");
    made(&place, "ifupdown, with DHCP on the first network card");
    assert!(
        place
            .content("/etc/network/interfaces")
            .contains("iface eth0 inet dhcp\n")
    );
    assert!(place.has(CONNECTION));
}

#[test]
fn with_network_scripts() {
    let scripts = "etc/sysconfig/network-scripts";
    let place = with(
        "scripts",
        &[
            ("etc/sysconfig/network", "NETWORKING=yes\n"),
            (&format!("{scripts}/ifcfg-lo"), "DEVICE=lo\n"),
            (&format!("{scripts}/ifcfg-eth0"), "IPADDR=10.0.0.1\n"),
            (&format!("{scripts}/route-eth0"), "default via 10.0.0.2\n"),
            (&format!("{scripts}/ifup-eth"), "x"),
        ],
    );
    made(&place, "network-scripts, with DHCP on eth0");
    assert_eq!(
        place.content(&format!("/{scripts}/ifcfg-eth0")),
        "# Written by `ttvm image create`.\nDEVICE=eth0\nBOOTPROTO=dhcp\nONBOOT=yes\n"
    );
    assert!(!place.has(&format!("/{scripts}/route-eth0")));
    assert!(place.has(&format!("/{scripts}/ifcfg-lo")) && place.has(&format!("/{scripts}/ifup-eth")));
}

#[test]
fn with_wicked() {
    for enabled in ["multi-user.target.wants/wicked.service", "network.service"] {
        let place = with(
            "wicked",
            &[
                (&format!("etc/systemd/system/{enabled}"), ""),
                ("etc/sysconfig/network/config", "x"),
                ("etc/sysconfig/network/ifcfg-lo", "x"),
                ("etc/sysconfig/network/ifcfg-eth0", "IPADDR='10.0.0.1/24'\n"),
                ("etc/sysconfig/network/ifcfg-br0", "BRIDGE='yes'\n"),
                ("etc/sysconfig/network/routes", "default 10.0.0.2 - -\n"),
                ("etc/sysconfig/network/ifroute-eth0", "10.1.0.0/16 10.0.0.3 - -\n"),
            ],
        );
        made(&place, "wicked, with DHCP on eth0");
        assert_eq!(
            place.content("/etc/sysconfig/network/ifcfg-eth0"),
            "# Written by `ttvm image create`.\nBOOTPROTO='dhcp'\nSTARTMODE='auto'\n"
        );
        for gone in ["ifcfg-br0", "routes", "ifroute-eth0"] {
            assert!(!place.has(&format!("/etc/sysconfig/network/{gone}")), "{gone}");
        }
        for there in ["config", "ifcfg-lo"] {
            assert!(place.has(&format!("/etc/sysconfig/network/{there}")), "{there}");
        }
    }
}

/// Nobody is to think that the guest will ask for addresses.
#[test]
fn with_what_is_not_known() {
    let place = with("unknown-network", &[("etc/connman/main.conf", "x")]);
    let line = "\nits network is as in the source: nothing that is known here configures it\n";
    let said = place.made("--size 64M --from DIR/src");
    assert!(said.contains(line), "{said}");
    let said = place.session("--size 64M --from DIR/src --dry-run");
    let line = "\nwould leave the network as it is in the source: nothing that is known here configures it\n";
    assert!(said.contains(line), "{said}");
    fs::remove_file(place.path("image")).expect("the image goes");
    let said = place.made("--size 64M --from DIR/src --keep network");
    assert!(!said.contains("network"), "{said}");
}

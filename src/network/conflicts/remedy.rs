// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who dropped a packet, and the commands by which a person lets it through: each remedy is one line for the shell
//! of root, in the words of the program whose rules they are.

use super::host::{Call, Host};
use super::packet::Packet;
use super::ruleset::{Chain, Ruleset};
use super::{Actor, Conflict};

/// Whose chain it is.
pub fn actor(rules: &Ruleset, host: &Host, chain: &Chain) -> Actor {
    // With the backend "iptables" firewalld has no table of its own.
    let zones = |name: &str| ["INPUT_ZONES", "INPUT_IN_ZONES"].contains(&name);
    if chain.table == "firewalld" || rules.any_beside(chain, zones) {
        return Actor::Firewalld;
    }
    // Its commands change the rules of the kernel only while it is enabled.
    if host.ufw.is_some() && rules.any_beside(chain, |name| name.starts_with("ufw-")) {
        return Actor::Ufw;
    }
    match chain.hook.as_deref() {
        Some("forward") if rules.any_beside(chain, |name| name == "DOCKER-USER") => Actor::Docker,
        _ => Actor::Nftables,
    }
}

/// The chains of one table, and what each drops.
pub fn table(actor: Actor, bridge: &str, chains: &[(&Chain, Vec<Packet>)]) -> Option<Conflict> {
    let (first, _) = chains.first()?;
    let drops: Vec<String> = chains
        .iter()
        .map(|(chain, packets)| format!("{} (chain {})", list(packets, bridge), chain.name))
        .collect();
    let mut commands: Vec<String> = Vec::new();
    for (chain, packet) in chains
        .iter()
        .flat_map(|(chain, packets)| packets.iter().map(move |packet| (chain, packet)))
    {
        for command in accept(actor, chain, *packet, bridge) {
            if !commands.contains(&command) {
                commands.push(command);
            }
        }
    }
    let note = match actor {
        Actor::Firewalld => "or firewall = \"firewalld\" in /etc/ttvm/ttvm.toml",
        Actor::Docker => "again after each boot",
        Actor::Nftables => "and in the file these rules are loaded from",
        Actor::Ufw | Actor::Iptables | Actor::BridgeNetfilter => "",
    };
    let note = if note.is_empty() {
        String::new()
    } else {
        format!("  # {note}")
    };
    Some(Conflict {
        actor,
        what: format!(
            "table {} {}{} drops {}",
            first.family,
            first.table,
            match actor {
                Actor::Docker | Actor::Ufw | Actor::Firewalld => format!(" ({actor})"),
                _ => String::new(),
            },
            drops.join(", and ")
        ),
        remedy: commands.join(" && ") + &note,
    })
}

fn list(packets: &[Packet], bridge: &str) -> String {
    let mut words: Vec<String> = packets
        .iter()
        .map(|packet| match packet {
            Packet::Out => format!("what {bridge} sends to other networks"),
            Packet::Back => format!("what other networks answer to {bridge}"),
            Packet::Dhcp => format!("DHCP requests from {bridge}"),
            Packet::Dns | Packet::DnsTcp => format!("DNS requests from {bridge}"),
            Packet::Across | Packet::Frame => format!("what one port of {bridge} sends to another"),
        })
        .collect();
    words.dedup();
    words.join(" and ")
}

/// The commands that let `packet` through `chain`.
fn accept(actor: Actor, chain: &Chain, packet: Packet, bridge: &str) -> Vec<String> {
    match actor {
        // What is in no zone is in the default one; in another zone it may be by hand, so it is changed, not added.
        Actor::Firewalld => ["", "--permanent "]
            .map(|when| format!("firewall-cmd {when}--zone=trusted --change-interface={bridge}"))
            .to_vec(),
        Actor::Ufw => vec![match packet {
            Packet::Dhcp => format!("ufw allow in on {bridge} to any port 67 proto udp"),
            Packet::Dns | Packet::DnsTcp => format!("ufw allow in on {bridge} to any port 53"),
            Packet::Back => format!("ufw route allow out on {bridge}"),
            Packet::Out | Packet::Across | Packet::Frame => format!("ufw route allow in on {bridge}"),
        }],
        // The place Docker leaves for others (https://docs.docker.com/engine/network/packet-filtering-firewalls/).
        Actor::Docker => vec![iptables("DOCKER-USER", packet, bridge)],
        // Rules of nft in a table of iptables are shown by neither as they are: each in its own words.
        _ if chain.family == "ip" && chain.table == "filter" && ["INPUT", "FORWARD"].contains(&chain.name.as_str()) => {
            vec![iptables(&chain.name, packet, bridge)]
        }
        _ => {
            let rule = match packet {
                Packet::Out | Packet::Across => format!("iifname \"{bridge}\""),
                Packet::Back => format!("oifname \"{bridge}\" ct state established,related"),
                Packet::Dhcp => format!("iifname \"{bridge}\" udp dport 67"),
                Packet::Dns => format!("iifname \"{bridge}\" udp dport 53"),
                Packet::DnsTcp => format!("iifname \"{bridge}\" tcp dport 53"),
                Packet::Frame => format!("meta ibrname \"{bridge}\""),
            };
            let Chain {
                family, table, name, ..
            } = chain;
            vec![format!(
                "nft {}",
                quoted(&format!("insert rule {family} {table} {name} {rule} accept"))
            )]
        }
    }
}

fn iptables(chain: &str, packet: Packet, bridge: &str) -> String {
    let rule = match packet {
        Packet::Out | Packet::Across | Packet::Frame => format!("-i {bridge}"),
        Packet::Back => format!("-o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED"),
        Packet::Dhcp => format!("-i {bridge} -p udp --dport 67"),
        Packet::Dns => format!("-i {bridge} -p udp --dport 53"),
        Packet::DnsTcp => format!("-i {bridge} -p tcp --dport 53"),
    };
    format!("iptables -I {chain} {rule} -j ACCEPT")
}

/// One word for the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Bridged frames pass `chains`, whose rules are for IP.
pub fn bridge_netfilter(calls: &[&Call], bridge: &str, chains: &[&Chain]) -> Conflict {
    let settings: Vec<String> = calls.iter().map(|call| format!("{} = 1", call.name)).collect();
    let places: Vec<String> = chains
        .iter()
        .map(|chain| format!("table {} {} (chain {})", chain.family, chain.table, chain.name))
        .collect();
    let mut commands: Vec<String> = Vec::new();
    let global = || calls.iter().filter(|call| !call.own);
    for call in calls {
        commands.push(match call.own {
            true => format!("ip link set dev {bridge} type bridge {} 0", call.name),
            false => format!("sysctl -w {}=0", call.name),
        });
    }
    if global().next().is_some() {
        let lines: Vec<String> = global().map(|call| format!("'{} = 0'", call.name)).collect();
        let lines = lines.join(" ");
        commands.push(format!(
            "printf '%s\\n' {lines} > /etc/sysctl.d/90-bridge-netfilter.conf"
        ));
        // The settings exist from the time the module is loaded, which sets them to 1 (sysctl.d(5)).
        commands.push("echo br_netfilter > /etc/modules-load.d/br_netfilter.conf".to_owned());
    }
    Conflict {
        actor: Actor::BridgeNetfilter,
        what: format!(
            "frames between the ports of {bridge} pass the rules for IP ({}), where they are dropped by {}",
            settings.join(", "),
            places.join(" and ")
        ),
        remedy: commands.join(" && "),
    }
}

/// ufw, whose rules nft does not show: not loaded yet, or in the legacy iptables.
pub fn hidden_ufw(host: &Host, bridge: &str, answers: bool) -> Option<Conflict> {
    let ufw = host.ufw.as_ref()?;
    let [input, forward] = ufw.drops;
    let (mut policies, mut commands) = (Vec::new(), Vec::new());
    if forward && !ufw.has("route:allow", bridge) {
        policies.push("DEFAULT_FORWARD_POLICY");
        commands.push(format!("ufw route allow in on {bridge}"));
    }
    if input && answers && !ufw.has("allow", bridge) {
        policies.push("DEFAULT_INPUT_POLICY");
        commands.push(format!("ufw allow in on {bridge} to any port 67 proto udp"));
        commands.push(format!("ufw allow in on {bridge} to any port 53"));
    }
    (!policies.is_empty()).then(|| Conflict {
        actor: Actor::Ufw,
        what: format!(
            "ufw is enabled, though nft does not show its rules, and drops what {bridge} sends ({} in /etc/default/ufw)",
            policies.join(" and ")
        ),
        remedy: commands.join(" && "),
    })
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guests' network.

use crate::base::error::one_line;
use crate::doctor::answers::{Answers, Asked};
use crate::doctor::check::{Area, Check};
use crate::doctor::facts::Facts;
use crate::doctor::purpose::Need;
use crate::network::{Backend, Mode, State, Status};

const AREA: Area = Area::Network;

pub(in crate::doctor) fn check(facts: &Facts, answers: &Answers) -> Vec<Check> {
    let need = facts.purpose.network;
    if let Need::No(why) = need {
        return vec![Check::skipped(AREA, "mode", format!("not needed: {why}"))];
    }
    let status = match &facts.network {
        Ok(status) => status,
        Err(error) => {
            let remedy = "`ttvm network set` chooses the mode anew";
            return vec![need.wrong(AREA, "mode", one_line(error), remedy)];
        }
    };
    let mut checks = vec![mode(facts, status, need)];
    if status.desired == Mode::Nat && status.backend == Backend::Xl {
        let dhcp = facts.config.network.nat.dhcp;
        let programs = [
            (true, "nft", "install nftables", "the guests' packets are not let out"),
            (
                dhcp,
                "dnsmasq",
                "install dnsmasq-base (Debian) or dnsmasq (Fedora)",
                "guests get no addresses",
            ),
        ];
        for (_, name, remedy, harm) in programs.into_iter().filter(|(wanted, ..)| *wanted) {
            checks.push(match facts.has(name) {
                true => Check::ok(AREA, name, format!("{name} is there")),
                false => need.wrong(AREA, name, format!("{name} is not installed: {harm}"), remedy),
            });
        }
    }
    checks.extend(conflicts(answers));
    checks
}

fn mode(facts: &Facts, status: &Status, need: Need) -> Check {
    const ID: &str = "mode";
    let again = "`ttvm network reconcile` makes again what is missing";
    match status.state {
        State::Degraded => {
            let why = status
                .degraded
                .as_deref()
                .unwrap_or("it has not been made since the host was booted");
            let sentence = format!("network mode {} is not wholly in force: {why}", status.desired);
            return need.wrong(AREA, ID, sentence, again);
        }
        State::AwaitingConfirm => {
            let sentence = format!(
                "a change to network mode {} waits to be confirmed, else it is undone",
                status.mode
            );
            return Check::warn(AREA, ID, sentence, "`ttvm network confirm`, or `ttvm network rollback`");
        }
        State::Idle | State::Applying | State::RollingBack => {}
    }
    let Some(bridge) = &status.bridge else {
        // What then is there is what the host itself has made.
        return match facts.real("/sys/class/net/xenbr0").exists() {
            true => Check::ok(
                AREA,
                ID,
                "the network mode is none: guests are on the host's own bridge, xenbr0",
            ),
            false => need.wrong(
                AREA,
                ID,
                "the network mode is none, and there is no bridge for guests' network interfaces",
                "`ttvm network set nat`",
            ),
        };
    };
    match facts.real(&format!("/sys/class/net/{bridge}")).exists() {
        true => Check::ok(
            AREA,
            ID,
            format!("network mode {} is in force, guests are on {bridge}", status.mode),
        ),
        false => need.wrong(
            AREA,
            ID,
            format!(
                "network mode {} is in force, and its bridge {bridge} is not there",
                status.mode
            ),
            again,
        ),
    }
}

fn conflicts(answers: &Answers) -> Vec<Check> {
    const ID: &str = "packets";
    match &answers.conflicts {
        Asked::Answer(conflicts) if conflicts.is_empty() => {
            vec![Check::ok(AREA, ID, "nothing else on this host stops guests' packets")]
        }
        Asked::Answer(conflicts) => {
            let split = |text: &String| match text.split_once("; remedy: ") {
                Some((what, remedy)) => Check::warn(AREA, ID, what, remedy),
                None => Check::warn(AREA, ID, text.as_str(), "`ttvm network status`"),
            };
            conflicts.iter().map(split).collect()
        }
        Asked::Failed(why) => vec![Check::warn(AREA, ID, why.as_str(), "see what `nft list ruleset` says")],
        Asked::Denied => vec![Check::warn(
            AREA,
            ID,
            "what else stops guests' packets only root can find out",
            "`sudo ttvm doctor`",
        )],
        Asked::Nobody | Asked::Elsewhere => Vec::new(),
    }
}

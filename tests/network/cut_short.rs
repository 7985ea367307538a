// SPDX-License-Identifier: MIT OR Apache-2.0
//! Switches that a death cuts short.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use ttvm::network::{Mode, Network, Options, Recovered, State};

use super::{World, assert_same, everything, managed, request, sh};

/// The child of the next test: a switch that is cut short by a fail point.
#[test]
#[ignore = "run by at_every_step"]
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
        .args(["--exact", "cut_short::a_switch_in_a_child", "--ignored", "--quiet"])
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
fn at_every_step() {
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

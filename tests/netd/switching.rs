// SPDX-License-Identifier: MIT OR Apache-2.0
//! A change from beginning to end, in a network namespace of the service's own.

use std::collections::HashMap;
use std::process::{Child, Command};
use std::time::Duration;

use ttvm::netd::proxy::{ManagerProxy, NAME, PATH, Settings, TransactionProxy};
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::fdo::PropertiesProxy;
use zbus::proxy::CacheProperties;
use zbus::{Connection, ObjectPath, Variant};

use crate::bus::{Bus, manager};
use crate::{introspect, name_of, ours, shipped};

/// A network that one service after another finds.
struct Namespace {
    keeper: Child,
    path: String,
}

impl Namespace {
    fn new() -> Option<Self> {
        let nft = Command::new("unshare")
            .args(["--net", "--", "nft", "list", "ruleset"])
            .output();
        if !nft.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: needs nft and network namespaces");
            return None;
        }
        let keeper = Command::new("unshare")
            .args(["--net", "--", "sleep", "300"])
            .spawn()
            .expect("a namespace");
        let path = format!("/proc/{}/ns/net", keeper.id());
        let ours = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
        while std::fs::read_link(&path).is_ok_and(|theirs| theirs == ours) {
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(Self {
            keeper,
            path: format!("--net={path}"),
        })
    }

    fn enter(&self) -> [&str; 3] {
        ["nsenter", &self.path, "--"]
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn options() -> Settings<'static> {
    Settings::from([
        ("dhcp", Variant::from(false)),
        ("subnet", Variant::from("10.77.0.0/24")),
    ])
}

async fn transaction<'a>(connection: &Connection, path: &ObjectPath<'a>) -> TransactionProxy<'a> {
    TransactionProxy::builder(connection)
        .path(path.clone())
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .expect("a proxy")
}

async fn properties(connection: &Connection) -> PropertiesProxy<'static> {
    PropertiesProxy::builder(connection)
        .destination(NAME)
        .path(PATH)
        .build()
        .await
        .expect("a proxy")
}

fn text(value: &Variant<'_>) -> String {
    match value {
        Variant::Str(text) => text.to_string(),
        Variant::ObjectPath(path) => path.to_string(),
        other => format!("{other:?}"),
    }
}

async fn waits(manager: &ManagerProxy<'_>) {
    for _ in 0..200 {
        if manager.state().await.expect("a state") == "awaiting-confirm" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{}", manager.describe().await.expect("a description"));
}

#[tokio::test]
async fn a_change_is_kept_if_confirmed_and_undone_if_not() {
    let Some(bus) = Bus::start("switch") else { return };
    let Some(namespace) = Namespace::new() else { return };
    let mut netd = bus.netd(&namespace.enter());
    let root = bus.connect().await;
    let manager = manager(&root).await;
    let mut started = manager.receive_transaction_started().await.expect("a stream");
    let mut finished = manager.receive_transaction_finished().await.expect("a stream");
    let mut changes = properties(&root)
        .await
        .receive_properties_changed()
        .await
        .expect("a stream");
    let options = options();

    let path = manager.switch_mode("nat", &options, 60, 0).await.expect("a change");
    let signal = started.next().await.expect("a signal");
    let said = signal.args().expect("arguments");
    assert_eq!(
        (said.transaction().as_str(), *said.from(), *said.to()),
        (path.as_str(), "none", "nat")
    );
    let busy = manager.switch_mode("none", &Settings::new(), 60, 0).await;
    assert_eq!(name_of(busy), "Busy");
    waits(&manager).await;
    let mut told = HashMap::new();
    while told.get("State").is_none_or(|state| *state != "awaiting-confirm") {
        let signal = changes.next().await.expect("a signal");
        let said = signal.args().expect("arguments");
        let texts = said.changed_properties().iter();
        told.extend(texts.map(|(name, value)| ((*name).to_owned(), text(value))));
    }
    assert_eq!(told["Mode"], "nat");
    assert_eq!(told["Bridge"], "ttbr0");
    assert_eq!(told["PendingTransaction"], path.as_str());
    let change = transaction(&root, &path).await;
    assert_eq!(
        ours(&introspect(&root, &path).await),
        shipped("org.ttvm.Network1.Transaction")
    );
    assert_eq!(change.to().await.expect("a mode"), "nat");
    assert_eq!(manager.pending_transaction().await.expect("a path"), path);
    let deadline = manager.rollback_deadline_usec().await.expect("a deadline");
    assert_eq!(name_of(change.extend(5).await), "InvalidArgument");
    let later = change.extend(600).await.expect("a deadline");
    assert!(
        (500_000_000..600_000_000).contains(&(later - deadline)),
        "{deadline} {later}"
    );

    // Killed, the next one takes the change on.
    netd.kill();
    let _netd = bus.netd(&namespace.enter());
    let manager = crate::bus::manager(&root).await;
    assert_eq!(manager.state().await.expect("a state"), "awaiting-confirm");
    change.confirm().await.expect("it is kept");
    let signal = finished.next().await.expect("a signal");
    let said = signal.args().expect("arguments");
    assert_eq!(
        (said.transaction().as_str(), *said.result(), *said.error()),
        (path.as_str(), "kept", "")
    );
    assert_eq!(manager.mode().await.expect("a mode"), "nat");
    assert_eq!(manager.subnet().await.expect("a network"), "10.77.0.0/24");
    assert_eq!(
        name_of(change.confirm().await),
        "org.freedesktop.DBus.Error.UnknownObject"
    );

    // Nobody confirms.
    let path = manager
        .switch_mode("none", &Settings::new(), 10, 0)
        .await
        .expect("a change");
    let signal = tokio::time::timeout(Duration::from_secs(20), finished.next()).await;
    let signal = signal.expect("in time").expect("a signal");
    let said = signal.args().expect("arguments");
    assert_eq!(
        (said.transaction().as_str(), *said.result()),
        (path.as_str(), "rolled-back")
    );
    assert_eq!(manager.mode().await.expect("a mode"), "nat");
    let described = manager.describe().await.expect("a description");
    assert!(described.contains("\"result\":\"rolled-back\""), "{described}");

    // Undone on request.
    let path = manager
        .switch_mode("none", &Settings::new(), 60, 0)
        .await
        .expect("a change");
    waits(&manager).await;
    manager.rollback(&path).await.expect("it is undone");
    let signal = finished.next().await.expect("a signal");
    assert_eq!(*signal.args().expect("arguments").result(), "rolled-back");
    assert_eq!(manager.mode().await.expect("a mode"), "nat");

    // The same again is nothing to do.
    let same = manager.switch_mode("nat", &options, 60, 0).await.expect("an answer");
    assert_eq!(same.as_str(), "/");
}

#[tokio::test]
async fn a_change_is_undone_whoever_is_killed() {
    let Some(bus) = Bus::start("killed") else { return };
    let Some(namespace) = Namespace::new() else { return };
    let root = bus.connect().await;
    // In the middle of it.
    let mut netd = bus.netd(&[&["env", "TTVM_FAIL_POINT=network.made"], &namespace.enter()[..]].concat());
    let manager = crate::bus::manager(&root).await;
    manager.switch_mode("nat", &options(), 60, 0).await.expect("a change");
    assert_eq!(netd.exit().await, None, "it was killed");
    assert!(netd.is_gone());
    let mut netd = bus.netd(&namespace.enter());
    let manager = crate::bus::manager(&root).await;
    assert_eq!(manager.mode().await.expect("a mode"), "none");
    assert_eq!(manager.state().await.expect("a state"), "idle");
    let described = manager.describe().await.expect("a description");
    assert!(described.contains("\"result\":\"rolled-back\""), "{described}");

    // While it waits, and nobody starts the service again: what the timer runs.
    manager.switch_mode("nat", &options(), 10, 0).await.expect("a change");
    waits(&manager).await;
    let begin = std::time::Instant::now();
    netd.kill();
    let mut early = bus.netd_with(&namespace.enter(), &["rollback", "1"]);
    assert_eq!(early.exit().await, Some(0));
    assert_eq!(bus.pending(), Some("pending".to_owned()), "it was too early");
    tokio::time::sleep(Duration::from_secs(11).saturating_sub(begin.elapsed())).await;
    let mut late = bus.netd_with(&namespace.enter(), &["rollback", "1"]);
    assert_eq!(late.exit().await, Some(0));
    assert_eq!(bus.pending(), None);
    let mut boot = bus.netd_with(&namespace.enter(), &["boot"]);
    assert_eq!(boot.exit().await, Some(0));
}

#[tokio::test]
async fn what_a_crash_has_made_of_a_change_is_told_as_it_is() {
    let Some(bus) = Bus::start("crash") else { return };
    let Some(namespace) = Namespace::new() else { return };
    let root = bus.connect().await;
    let other = Settings::from([
        ("dhcp", Variant::from(false)),
        ("subnet", Variant::from("10.78.0.0/24")),
    ]);
    // Confirmed, and killed before it was kept: it is. The mode is the same before and after the second one: undone, it is
    // not told to be kept.
    for (point, settings, confirmed, result, subnet) in [
        ("network.keeping", options(), true, "kept", "10.77.0.0/24"),
        ("network.made", other, false, "rolled-back", "10.77.0.0/24"),
    ] {
        let fail_point = format!("TTVM_FAIL_POINT={point}");
        let mut netd = bus.netd(&[&["env", &fail_point], &namespace.enter()[..]].concat());
        let manager = crate::bus::manager(&root).await;
        let path = manager.switch_mode("nat", &settings, 60, 0).await.expect("a change");
        let mut said = None;
        if confirmed {
            waits(&manager).await;
            // What is on disk already may be on its way to those who answer.
            let mut error = manager.confirm(&path).await.expect_err("it was killed");
            while error.to_string().contains("still being made") {
                tokio::time::sleep(Duration::from_millis(50)).await;
                error = manager.confirm(&path).await.expect_err("it was killed");
            }
            said = Some(error);
        }
        assert_eq!(netd.exit().await, None, "it was killed, and did not say {said:?}");
        assert!(netd.is_gone());
        let mut netd = bus.netd(&namespace.enter());
        let manager = crate::bus::manager(&root).await;
        let described = manager.describe().await.expect("a description");
        assert!(described.contains(&format!("\"result\":\"{result}\"")), "{described}");
        assert_eq!(manager.subnet().await.expect("a network"), subnet);
        netd.kill();
    }
}

#[tokio::test]
async fn what_was_confirmed_is_kept_although_it_could_not_be_written_down_at_first() {
    let Some(bus) = Bus::start("obstacle") else { return };
    let Some(namespace) = Namespace::new() else { return };
    let netd = bus.netd(&namespace.enter());
    let root = bus.connect().await;
    let manager = manager(&root).await;
    let mut finished = manager.receive_transaction_finished().await.expect("a stream");
    let path = manager.switch_mode("nat", &options(), 60, 0).await.expect("a change");
    waits(&manager).await;
    let obstacle = bus.obstacle(&netd);
    std::fs::create_dir(&obstacle).expect("a directory");
    assert_eq!(name_of(manager.confirm(&path).await), "Failed");
    assert_eq!(manager.state().await.expect("a state"), "applying");
    std::fs::remove_dir(&obstacle).expect("no directory");
    // Long before its deadline.
    let signal = tokio::time::timeout(Duration::from_secs(15), finished.next()).await;
    let signal = signal.expect("in time").expect("a signal");
    assert_eq!(*signal.args().expect("arguments").result(), "kept");
    assert_eq!(manager.desired_mode().await.expect("a mode"), "nat");
    assert_eq!(bus.pending(), None);

    // The same, and whoever has confirmed it says so again.
    let path = (manager.switch_mode("none", &Settings::new(), 60, 0).await).expect("a change");
    waits(&manager).await;
    std::fs::create_dir(&obstacle).expect("a directory");
    assert_eq!(name_of(manager.confirm(&path).await), "Failed");
    std::fs::remove_dir(&obstacle).expect("no directory");
    manager.confirm(&path).await.expect("it is kept");
    let signal = finished.next().await.expect("a signal");
    assert_eq!(*signal.args().expect("arguments").result(), "kept");
}

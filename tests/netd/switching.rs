// SPDX-License-Identifier: MIT OR Apache-2.0
//! A change from beginning to end, in a network namespace of the service's own.

use std::process::Command;
use std::time::Duration;

use ttvm::netd::proxy::{ManagerProxy, Settings, TransactionProxy};
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::proxy::CacheProperties;
use zbus::{Connection, ObjectPath, Variant};

use crate::bus::{Bus, manager};
use crate::{introspect, name_of, ours, shipped};

const NAMESPACE: [&str; 3] = ["unshare", "--net", "--"];

fn possible() -> bool {
    let nft = Command::new("unshare")
        .args(["--net", "--", "nft", "list", "ruleset"])
        .output();
    let possible = nft.is_ok_and(|output| output.status.success());
    if !possible {
        eprintln!("skipped: needs nft and network namespaces");
    }
    possible
}

async fn transaction<'a>(connection: &Connection, path: &ObjectPath<'a>) -> TransactionProxy<'a> {
    TransactionProxy::builder(connection)
        .path(path.clone())
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .expect("a proxy")
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
    if !possible() {
        return;
    }
    bus.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
    let mut netd = bus.netd(&NAMESPACE);
    let root = bus.connect().await;
    let manager = manager(&root).await;
    let mut started = manager.receive_transaction_started().await.expect("a stream");
    let mut finished = manager.receive_transaction_finished().await.expect("a stream");
    let options = Settings::from([
        ("dhcp", Variant::from(false)),
        ("subnet", Variant::from("10.77.0.0/24")),
    ]);

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

    // Killed, the next one takes the change on. In another namespace it would find nothing of it.
    let enter = format!("--net=/proc/{}/ns/net", netd.id());
    let mut keeper = Command::new("nsenter")
        .args([&enter, "--", "sleep", "120"])
        .spawn()
        .expect("a process");
    std::thread::sleep(Duration::from_millis(200));
    let keep = format!("--net=/proc/{}/ns/net", keeper.id());
    netd.kill();
    let _netd = bus.netd(&["nsenter", &keep, "--"]);
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
    let _ = keeper.kill();
    let _ = keeper.wait();
}

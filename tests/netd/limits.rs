// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a caller cannot do to the service: confuse it, fill it, hold it up, keep it alive.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ttvm::netd::proxy::{NAME, PATH, Settings};
use zbus::proxy::MethodFlags;
use zbus::{ObjectPath, Variant};

use crate::bus::{Answer, Bus, manager};
use crate::name_of;

const INVALID: &str = "InvalidArgument";
const INVALID_ARGS: &str = "org.freedesktop.DBus.Error.InvalidArgs";
const LIMITS: &str = "org.freedesktop.DBus.Error.LimitsExceeded";

#[tokio::test]
async fn what_makes_no_sense_has_a_name() {
    let Some(bus) = Bus::start("malformed") else { return };
    let polkit = bus.polkit(Answer::Deny).await;
    let _netd = bus.netd(&[]);
    let nobody = bus.connect_as_nobody().await;
    let manager = manager(&nobody).await;
    let long = "x".repeat(65);
    let huge = "x".repeat(8 << 20);
    let many: Vec<String> = (0..17).map(|number| format!("option{number}")).collect();
    let one = |key, value: Variant<'static>| Settings::from([(key, value)]);
    let deep = Variant::from(vec![Variant::from(vec![Variant::from(1u8); 1000]); 1000]);
    let cases: Vec<(&str, Settings<'_>, u32, u64, &str)> = vec![
        ("router", Settings::new(), 0, 0, INVALID),
        ("", Settings::new(), 0, 0, INVALID),
        (&long, Settings::new(), 0, 0, INVALID),
        (&huge, Settings::new(), 0, 0, INVALID_ARGS),
        ("nat", Settings::new(), 9, 0, INVALID),
        ("nat", Settings::new(), 3601, 0, INVALID),
        ("nat", Settings::new(), u32::MAX, 0, INVALID),
        ("nat", Settings::new(), 60, 2, INVALID),
        ("nat", Settings::new(), 60, 1 << 63, INVALID),
        ("nat", one("colour", Variant::from("blue")), 60, 0, INVALID),
        ("nat", one("bridge", Variant::from(true)), 60, 0, INVALID),
        ("nat", one("dhcp", Variant::from("yes")), 60, 0, INVALID),
        ("nat", one("bridge", Variant::from("a/b")), 60, 0, INVALID),
        ("nat", one("bridge", Variant::from("sixteen-bytes-16")), 60, 0, INVALID),
        ("nat", one("uplink", Variant::from("-eth0")), 60, 0, INVALID),
        ("nat", one("subnet", Variant::from("10.0.0.1/24")), 60, 0, INVALID),
        ("nat", one("subnet", Variant::from("8.8.8.0/24")), 60, 0, INVALID),
        ("nat", one("dhcp", Variant::from(1u32)), 60, 0, INVALID_ARGS),
        ("nat", one("bridge", deep), 60, 0, INVALID_ARGS),
        ("nat", one("bridge", Variant::from(long.clone())), 60, 0, INVALID_ARGS),
        ("nat", one("bridge", Variant::from(huge.clone())), 60, 0, INVALID_ARGS),
        (
            "nat",
            Settings::from([(long.as_str(), Variant::from(true))]),
            60,
            0,
            INVALID_ARGS,
        ),
        (
            "nat",
            many.iter().map(|key| (key.as_str(), Variant::from(true))).collect(),
            60,
            0,
            INVALID_ARGS,
        ),
    ];
    for (mode, options, confirm_s, flags, expected) in &cases {
        let result = manager.switch_mode(mode, options, *confirm_s, *flags).await;
        let case = format!("{mode:.20} {:.60} {confirm_s} {flags}", format!("{options:?}"));
        assert_eq!(name_of(result), *expected, "{case}");
    }
    let proxy = manager.inner();
    let flags = MethodFlags::default();
    let wrong = proxy.call_with_flags::<_, _, ()>("SwitchMode", flags, &(1u8, "nat"));
    assert_eq!(name_of(wrong.await), INVALID_ARGS);
    let unknown = proxy.call_with_flags::<_, _, ()>("Destroy", flags, &());
    assert_eq!(name_of(unknown.await), "org.freedesktop.DBus.Error.UnknownMethod");
    for path in [
        "/",
        "/org/ttvm/Network1/transaction/x",
        "/org/ttvm/Network1/transaction/99999999999999999999",
    ] {
        let path = ObjectPath::try_from(path).expect("a path");
        assert_eq!(name_of(manager.confirm(&path).await), INVALID);
    }
    assert_eq!(name_of(manager.reconcile(1).await), INVALID);
    // None of it was worth asking about.
    assert_eq!(polkit.asked.lock().expect("a lock").len(), 0);
}

#[tokio::test]
async fn many_calls_leave_nothing_behind() {
    let Some(bus) = Bus::start("many") else { return };
    let _polkit = bus.polkit(Answer::Deny).await;
    let netd = bus.netd(&[]);
    let nobody = bus.connect_as_nobody().await;
    let manager = manager(&nobody).await;
    let bad = Settings::from([("colour", Variant::from("blue"))]);
    let read = async |count| {
        for _ in 0..count {
            manager.mode().await.expect("a mode");
        }
    };
    read(500).await;
    let before = netd.memory("RssAnon");
    read(10_000).await;
    for _ in 0..1000 {
        name_of(manager.switch_mode("nat", &bad, 60, 0).await);
        name_of(manager.switch_mode("nat", &Settings::new(), 60, 0).await);
    }
    let after = netd.memory("RssAnon");
    eprintln!("12,000 calls: {before} kB of its own before, {after} kB after");
    assert!(after < before + 512, "it grows: {before} kB, then {after} kB");
    // Large messages are not kept, either.
    let huge = "x".repeat(16 << 20);
    for _ in 0..8 {
        name_of(manager.switch_mode(&huge, &Settings::new(), 60, 0).await);
    }
    // The answer comes before the message goes.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let last = netd.memory("RssAnon");
    eprintln!(
        "after eight messages of 16 MiB: {last} kB of its own; with files at most {} kB",
        netd.memory("VmHWM")
    );
    assert!(
        last < after + 1024,
        "large messages are kept: {after} kB, then {last} kB"
    );
}

/// However much somebody sends, the service has little of it in memory, and answers the next call.
#[tokio::test]
async fn what_is_too_long_is_not_taken_in() {
    let Some(bus) = Bus::start("long") else { return };
    let netd = bus.netd(&[]);
    let nobody = bus.connect_as_nobody().await;
    let manager = manager(&nobody).await;
    manager.mode().await.expect("a mode");
    let before = netd.memory("VmHWM");
    let get = async |path: &str, interface: &str, property: &str| {
        let arguments = (interface, property);
        let properties = Some("org.freedesktop.DBus.Properties");
        let call = nobody.call_method(Some(NAME), path, properties, "Get", &arguments);
        tokio::time::timeout(Duration::from_secs(10), call).await
    };
    let ours = "org.ttvm.Network1.Manager";
    // A little less than fits, a little more, and the most that the bus lets through.
    let just = "x".repeat((64 << 10) - 400);
    let over = "x".repeat(64 << 10);
    let most = "x".repeat((32 << 20) - 1024);
    for name in [&just, &over] {
        name_of(get(PATH, ours, name).await.expect("an answer"));
        assert_eq!(manager.mode().await.expect("a mode"), "none");
    }
    let three = tokio::join!(get(PATH, ours, &most), get(PATH, ours, &most), get(PATH, ours, &most));
    for result in [three.0, three.1, three.2] {
        assert_eq!(name_of(result.expect("an answer")), INVALID_ARGS);
    }
    // Of this one not even the sender is read.
    let path = format!("/{}", "x".repeat(8 << 20));
    let calls = [get(&path, ours, "Mode"), get(&path, ours, "Mode")];
    for call in calls {
        assert!(tokio::time::timeout(Duration::from_secs(2), call).await.is_err());
    }
    assert_eq!(manager.mode().await.expect("a mode"), "none");
    let after = netd.memory("VmHWM");
    eprintln!("at most {before} kB before, {after} kB after");
    assert!(after < before + 4096, "it grows: {before} kB, then {after} kB");
}

#[tokio::test]
async fn one_user_can_not_hold_up_the_others() {
    let Some(bus) = Bus::start("concurrent") else { return };
    let polkit = bus.polkit(Answer::Hang).await;
    let _netd = bus.netd(&[]);
    let nobody = bus.connect_as_nobody().await;
    let theirs = manager(&nobody).await;
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let theirs = theirs.clone();
            tokio::spawn(async move { name_of(theirs.switch_mode("none", &Settings::new(), 60, 0).await) })
        })
        .collect();
    // Forty at once, four of them are asked about, and wait.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut refused = 0;
    for call in calls {
        if call.is_finished() {
            assert_eq!(call.await.expect("a task"), LIMITS);
            refused += 1;
        } else {
            call.abort();
        }
    }
    assert_eq!(refused, 36);
    assert_eq!(polkit.asked.lock().expect("a lock").len(), 4);
    // Meanwhile the others are served.
    let root = bus.connect().await;
    let ours = manager(&root).await;
    assert_eq!(ours.mode().await.expect("a mode"), "none");
    assert_eq!(
        ours.switch_mode("none", &Settings::new(), 0, 0)
            .await
            .expect("an answer")
            .as_str(),
        "/"
    );
    // The four, interactive as they are, are asked no longer once their caller is gone.
    drop((theirs, nobody));
    for _ in 0..100 {
        if polkit.cancelled.load(Ordering::Relaxed) == 4 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} are asked in vain", 4 - polkit.cancelled.load(Ordering::Relaxed));
}

#[tokio::test]
async fn one_user_can_not_take_all_looks() {
    let Some(bus) = Bus::start("looks") else { return };
    let _netd = bus.netd(&[]);
    let (nobody, root) = (bus.connect_as_nobody().await, bus.connect().await);
    let many = async |connection| {
        let manager = manager(connection).await;
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let manager = manager.clone();
                tokio::spawn(async move { manager.plan("none", &Settings::new(), 0).await })
            })
            .collect();
        let mut refused = 0;
        for call in calls {
            if let Err(error) = call.await.expect("a task") {
                assert_eq!(name_of::<()>(Err(error)), LIMITS);
                refused += 1;
            }
        }
        refused
    };
    let (of_nobody, of_root) = tokio::join!(many(&nobody), many(&root));
    assert!((1..=92).contains(&of_nobody), "{of_nobody} of 100 were refused");
    assert_eq!(of_root, 0);
    // Nobody is refused for what was.
    manager(&nobody)
        .await
        .plan("none", &Settings::new(), 0)
        .await
        .expect("a plan");
}

#[tokio::test]
async fn without_calls_it_ends() {
    let Some(bus) = Bus::start("idle") else { return };
    let mut netd = bus.netd(&[]);
    let root = bus.connect().await;
    let manager = manager(&root).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        manager.mode().await.expect("a mode");
    }
    let begin = Instant::now();
    assert_eq!(netd.exit().await, Some(0));
    let idle = begin.elapsed();
    assert!((18..=30).contains(&idle.as_secs()), "it ended after {idle:?}");
    let peer = zbus::fdo::DBusProxy::new(&root).await.expect("the bus");
    assert!(
        !peer
            .name_has_owner(NAME.try_into().expect("a name"))
            .await
            .expect("an answer")
    );
}

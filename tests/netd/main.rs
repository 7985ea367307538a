// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service on a bus of its own: who may call what, what is said to those who may not, and what nobody can do to it.

mod bus;
mod limits;
mod switching;

use bus::{Answer, Bus, manager};
use ttvm::netd::proxy::{NAME, PATH, Settings, answer};
use zbus::proxy::MethodFlags;
use zbus::{Connection, ObjectPath, Variant};

/// The name of the error that a call was answered with.
pub fn name_of<T: std::fmt::Debug>(result: zbus::Result<T>) -> String {
    let error = result.expect_err("an error");
    answer(&error).unwrap_or_else(|| panic!("no answer: {error}")).0
}

const DENIED: &str = "org.freedesktop.DBus.Error.AccessDenied";

/// The parts of an introspection that are ours.
pub fn ours(xml: &str) -> String {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in xml.lines().map(str::trim) {
        inside |= line.starts_with("<interface name=\"org.ttvm.");
        if inside {
            lines.push(line);
        }
        inside &= line != "</interface>";
    }
    lines.join("\n")
}

/// One interface of the shipped file.
pub fn shipped(interface: &str) -> String {
    let xml = ours(include_str!("../../packaging/dbus/org.ttvm.Network1.xml"));
    let begin = xml
        .find(&format!("<interface name=\"{interface}\">"))
        .expect("an interface");
    let end = begin + xml[begin..].find("</interface>").expect("its end") + "</interface>".len();
    xml[begin..end].to_owned()
}

pub async fn introspect(connection: &Connection, path: &str) -> String {
    let proxy = zbus::fdo::IntrospectableProxy::builder(connection)
        .destination(NAME)
        .path(path.to_owned())
        .build()
        .await
        .expect("a proxy");
    proxy.introspect().await.expect("an introspection")
}

#[tokio::test]
async fn it_says_of_itself_what_is_shipped() {
    let Some(bus) = Bus::start("xml") else { return };
    let _netd = bus.netd(&[]);
    let nobody = bus.connect_as_nobody().await;
    manager(&nobody).await;
    let said = ours(&introspect(&nobody, PATH).await);
    assert_eq!(
        said,
        shipped("org.ttvm.Network1.Manager"),
        "the introspection is now:\n{said}"
    );
}

#[tokio::test]
async fn everybody_may_look_and_only_root_may_be_it() {
    let Some(bus) = Bus::start("policy") else { return };
    let nobody = bus.connect_as_nobody().await;
    let taken = nobody.request_name(NAME).await;
    assert!(taken.is_err(), "somebody else can be the service");
    let mut netd = bus.netd(&[]);
    let manager = manager(&nobody).await;
    assert_eq!(manager.mode().await.expect("a mode"), "none");
    assert_eq!(manager.state().await.expect("a state"), "idle");
    assert_eq!(manager.version().await.expect("a version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(manager.pending_transaction().await.expect("a path").as_str(), "/");
    let described = manager.describe().await.expect("a description");
    assert!(described.contains("\"desired\":\"none\""), "{described}");
    manager.conflicts().await.expect("conflicts");
    manager.plan("none", &Settings::new(), 0).await.expect("a plan");
    // Nothing has a property that can be set; the bus does not even let it through.
    let set = nobody
        .call_method(
            Some(NAME),
            PATH,
            Some("org.freedesktop.DBus.Properties"),
            "Set",
            &("org.ttvm.Network1.Manager", "Mode", Variant::from("nat")),
        )
        .await;
    assert_eq!(name_of(set), DENIED);
    // There is one of it.
    let mut second = bus.netd(&[]);
    assert_eq!(second.exit().await, Some(1));
    netd.terminate();
    assert_eq!(netd.exit().await, Some(0), "SIGTERM");
}

/// The answers to everything that would change something.
async fn mutate(connection: &Connection, interactive: bool) -> Vec<(&'static str, String)> {
    let manager = manager(connection).await;
    let change = ObjectPath::try_from(format!("{PATH}/transaction/1")).expect("a path");
    let none = Settings::new();
    if interactive {
        return vec![
            ("SwitchMode", name_of(manager.switch_mode("nat", &none, 60, 0).await)),
            ("Confirm", name_of(manager.confirm(&change).await)),
            ("Rollback", name_of(manager.rollback(&change).await)),
            ("Extend", name_of(manager.extend(&change, 60).await)),
            ("Reconcile", name_of(manager.reconcile(0).await)),
        ];
    }
    let proxy = manager.inner();
    let flags = MethodFlags::default();
    // Of one user four are asked about at a time.
    let (switch, extension) = (("nat", &none, 60u32, 0u64), (&change, 60u32));
    let (switch, confirm, rollback, extend) = tokio::join!(
        proxy.call_with_flags::<_, _, ()>("SwitchMode", flags, &switch),
        proxy.call_with_flags::<_, _, ()>("Confirm", flags, &change),
        proxy.call_with_flags::<_, _, ()>("Rollback", flags, &change),
        proxy.call_with_flags::<_, _, ()>("Extend", flags, &extension),
    );
    let reconcile = proxy.call_with_flags::<_, _, ()>("Reconcile", flags, &0u64).await;
    vec![
        ("SwitchMode", name_of(switch)),
        ("Confirm", name_of(confirm)),
        ("Rollback", name_of(rollback)),
        ("Extend", name_of(extend)),
        ("Reconcile", name_of(reconcile)),
    ]
}

#[tokio::test]
async fn who_is_not_allowed_changes_nothing() {
    const REQUIRED: &str = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired";
    for (answer, interactive, expected) in [
        (Some(Answer::Deny), false, DENIED),
        (Some(Answer::Deny), true, DENIED),
        (Some(Answer::Challenge), false, REQUIRED),
        // Asked, and refused.
        (Some(Answer::Challenge), true, DENIED),
        (Some(Answer::Hang), false, DENIED),
        (None, false, DENIED),
        (None, true, DENIED),
    ] {
        let Some(bus) = Bus::start("denied") else { return };
        let polkit = match answer {
            Some(answer) => Some(bus.polkit(answer).await),
            None => None,
        };
        let _netd = bus.netd(&[]);
        let nobody = bus.connect_as_nobody().await;
        for (method, name) in mutate(&nobody, interactive).await {
            assert_eq!(name, expected, "{method}, polkit {answer:?}, interactive {interactive}");
        }
        assert_eq!(manager(&nobody).await.state().await.expect("a state"), "idle");
        let Some(polkit) = polkit else { continue };
        let asked = polkit.asked.lock().expect("a lock");
        assert_eq!(asked.len(), 5);
        for (subject, action, flags) in asked.iter() {
            assert_eq!(subject, "system-bus-name");
            assert_eq!(action, "org.ttvm.network.switch");
            assert_eq!(*flags, u32::from(interactive));
        }
    }
}

#[tokio::test]
async fn who_is_allowed_is_answered_by_the_network() {
    let Some(bus) = Bus::start("allowed") else { return };
    let polkit = bus.polkit(Answer::Allow).await;
    let _netd = bus.netd(&[]);
    let change = ObjectPath::try_from(format!("{PATH}/transaction/7")).expect("a path");
    for connection in [bus.connect_as_nobody().await, bus.connect().await] {
        let manager = manager(&connection).await;
        assert_eq!(name_of(manager.confirm(&change).await), "NoSuchTransaction");
        assert_eq!(name_of(manager.rollback(&change).await), "NoSuchTransaction");
        assert_eq!(name_of(manager.extend(&change, 60).await), "NoSuchTransaction");
    }
    // Root is not asked about.
    assert_eq!(polkit.asked.lock().expect("a lock").len(), 3);
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `make bench PART=bus`: what a read of a property takes, of our service and of systemd's for the host's name, in turns, by
//! the same client on the same bus; and what both have in memory then.

#[path = "../tests/netd/bus.rs"]
#[expect(dead_code, reason = "the tests have other questions")]
mod bus;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ttvm::netd::proxy::{NAME, PATH};
use zbus::Connection;

use bus::{Bus, Netd};

const READS: usize = 5000;
/// The two in turns, so that both have the same of whatever else goes on.
const ROUNDS: usize = 4;

/// A property of a service: its name, the object, the interface, the property.
type Property = [&'static str; 4];

const OURS: Property = [NAME, PATH, "org.ttvm.Network1.Manager", "Mode"];
const THEIRS: Property = [
    "org.freedesktop.hostname1",
    "/org/freedesktop/hostname1",
    "org.freedesktop.hostname1",
    "Hostname",
];

fn main() {
    let named = |part| std::env::args().skip(1).any(|argument| argument == part);
    let parts = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .count();
    if parts > 0 && !named("bus") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(measure());
}

async fn measure() {
    let Some(bus) = Bus::start("bench") else { return };
    let netd = bus.netd(&[]);
    let hostnamed = Command::new("/usr/lib/systemd/systemd-hostnamed")
        .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
        .stderr(Stdio::null())
        .spawn();
    let Ok(hostnamed) = hostnamed.map(Netd) else {
        eprintln!("skipped: there is no systemd-hostnamed to compare with");
        return;
    };
    let connection = bus.connect().await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    until_it_answers(&connection, OURS).await;
    until_it_answers(&connection, THEIRS).await;
    for _ in 0..ROUNDS {
        read(&connection, OURS, &mut ours).await;
        read(&connection, THEIRS, &mut theirs).await;
    }
    println!(
        "{:<44} {:>9} {:>9} {:>9}",
        "a property through the bus", "p50", "p99", "RSS"
    );
    print("ttvm-netd", ours, &netd);
    print("systemd-hostnamed", theirs, &hostnamed);
}

fn print(name: &str, mut times: Vec<Duration>, service: &Netd) {
    times.sort_unstable();
    let at = |percent: usize| format!("{} µs", times[times.len() * percent / 100].as_micros());
    let rss = format!("{:.2} MB", service.memory("VmRSS") as f64 * 1024.0 / 1e6);
    println!("{name:<44} {:>9} {:>9} {rss:>9}", at(50), at(99));
}

async fn get(connection: &Connection, property: Property) -> zbus::Result<()> {
    let [name, path, interface, property] = property;
    let properties = Some("org.freedesktop.DBus.Properties");
    let body = (interface, property);
    connection
        .call_method(Some(name), path, properties, "Get", &body)
        .await
        .map(drop)
}

async fn until_it_answers(connection: &Connection, property: Property) {
    while get(connection, property).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn read(connection: &Connection, property: Property, times: &mut Vec<Duration>) {
    for _ in 0..READS {
        let begin = Instant::now();
        get(connection, property).await.expect("a value");
        times.push(begin.elapsed());
    }
}

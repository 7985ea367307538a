// SPDX-License-Identifier: MIT OR Apache-2.0
//! `make bench`: the figures of README.md, each a ratio of two things measured in turns in one run on the emulated host.
//! All take twenty minutes; `make bench PART=grub` (or `start`, `storage`, `network`) is one part of them.

#[path = "../tests/host/machine/mod.rs"]
mod machine;
mod table;

use std::path::Path;
use std::time::Duration;

use machine::{Host, Result};
use table::{Table, is_wanted, median};

const STORAGE_RUNS: usize = 15;
const START_RUNS: usize = 11;
const NETWORK_RUNS: usize = 10;
const GRUB_RUNS: usize = 5;
/// Shell: what a guest leaves on its snapshot.
const WRITE: &str = "dd if=/dev/urandom of=/dev/xenvg/snap1 bs=1M count=4 oflag=direct 2>/dev/null\n";
const PARTS: [&str; 4] = ["storage", "start", "grub", "network"];
/// Where the difference is larger than the noise.
const FEW_RUNS: usize = 7;

fn main() -> Result<()> {
    if !PARTS.iter().any(|part| is_wanted(part)) {
        return Ok(());
    }
    // `cargo bench` adds arguments of its own.
    let deb = std::env::var("TTVM_DEB").unwrap_or_default();
    let mut host = Host::boot(Path::new(&deb))?;
    let mut table = Table::default();
    // What was measured before something failed is not lost with it.
    let measured = parts(&mut host, &mut table);
    table.print();
    measured
}

/// Measures what is wanted.
fn parts(host: &mut Host, table: &mut Table) -> Result<()> {
    if is_wanted("storage") {
        let thick = ("base", "-L 32M", "size = \"32M\"");
        storage(host, table, "thick", thick, "0.30")?;
        storage(host, table, "thin", ("tbase", "-kn -ay", ""), "0.60")?;
    }
    if is_wanted("start") {
        start(host, table)?;
    }
    if is_wanted("grub") {
        grub(host, table)?;
    }
    if is_wanted("network") {
        network(host, table)?;
    }
    sizes(table)
}

/// The lines of `output` that begin with `key`, as numbers.
fn numbers(output: &str, key: &str) -> Vec<f64> {
    let lines = output
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.trim().parse().ok());
    lines.collect()
}

/// Shell: runs `command` and prints the seconds it took behind `key`. What the command before has left to udev and to
/// the disk is none of its business.
fn timed(key: &str, command: &str) -> String {
    format!(
        "udevadm settle; sync; t=$EPOCHREALTIME; {command} || exit 1; e=$EPOCHREALTIME; echo {key} $(( (${{e/./}} - ${{t/./}}) / 1000 ))e-3\n"
    )
}

fn bash(host: &mut Host, script: &str) -> Result<String> {
    host.write("/root/bench.sh", script.as_bytes(), 0o755)?;
    host.sh_within("bash /root/bench.sh", Duration::from_secs(1800))?
        .success()
}

/// Neither of the two is always the one that runs first.
fn in_turns(run: usize, one: &str, other: &str) -> String {
    match run % 2 {
        0 => format!("{one}{other}"),
        _ => format!("{other}{one}"),
    }
}

fn guest_file(host: &mut Host, origin: &str, size: &str) -> Result<()> {
    let kernel = host.run("ls /boot/vmlinuz-*")?;
    let file = format!(
        "kernel = \"{kernel}\"\ninitrd = \"/boot/initrd-busybox-based-ram-linux.img\"\ncmdline = \"console=hvc0\"\n\
         [[disk]]\norigin = \"xenvg/{origin}\"\ntarget = \"xvda1\"\n[disk.snapshot]\nname = \"snap1\"\n{size}\n"
    );
    host.write("/etc/ttvm/guests/clientA.toml", file.as_bytes(), 0o644)
}

/// The storage step of a start beside the two plain commands, in turns, never with two snapshots at a time. A run has written to the
/// snapshot before.
fn storage(
    host: &mut Host,
    table: &mut Table,
    kind: &str,
    (origin, plain, size): (&str, &str, &str),
    limit: &str,
) -> Result<()> {
    guest_file(host, origin, size)?;
    let make_plain = format!("lvcreate -q -y -s {plain} -n plain1 xenvg/{origin} >/dev/null 2>&1");
    let remove_plain = "lvremove -q -y xenvg/plain1 >/dev/null 2>&1";
    let plain = format!(
        "{make_plain}\n{}{remove_plain}\n",
        timed("plain", &format!("{{ {remove_plain} && {make_plain}; }}"))
    );
    let snapshot = "/usr/libexec/ttvm/ttvm-snapshot";
    let ours = format!(
        "{snapshot} reset -- clientA 2>/dev/null\n{WRITE}{}{snapshot} discard -- clientA 2>/dev/null\n",
        timed("ours", &format!("{snapshot} reset -- clientA 2>/root/said"))
    );
    let mut script = String::from("lvs >/dev/null\n");
    for run in 0..STORAGE_RUNS {
        script += &in_turns(run, &plain, &ours);
    }
    script += "sed -n 's/.*(\\([0-9]*\\) commands run)/commands \\1/p' /root/said\n";
    let output = bash(host, &script)?;
    let commands = numbers(&output, "commands");
    table.ratio(
        &format!("storage step of a start ÷ lvremove && lvcreate, {kind}"),
        &numbers(&output, "ours"),
        &numbers(&output, "plain"),
        limit,
    );
    table.value(
        &format!("LVM commands run for it, {kind}"),
        String::new(),
        commands.first().map_or_else(String::new, |count| format!("{count}")),
        "",
    );
    Ok(())
}

/// `systemctl start` beside a unit that runs the three commands from a shell; and what stays in memory of both. The old
/// snapshot is there for both, as after a crash, and no other one: each more on an origin makes LVM slower. And once more
/// as it is after a clean stop, which has removed ours.
fn start(host: &mut Host, table: &mut Table) -> Result<()> {
    guest_file(host, "base", "size = \"32M\"")?;
    let unit = "[Service]\nType=oneshot\nRemainAfterExit=yes\n\
        ExecStart=/bin/sh -c 'lvremove -q -y xenvg/plain1; lvcreate -q -s -L 32M -n plain1 xenvg/base && xl create -q /root/plain.cfg'\n\
        ExecStop=-/bin/sh -c 'xl shutdown -w plain; lvremove -q -y xenvg/plain1'\n";
    host.write("/run/systemd/system/plain.service", unit.as_bytes(), 0o644)?;
    host.run(
        "ttvm guest config clientA | sed 's/clientA\"/plain\"/; s/snap1/plain1/; s/^uuid.*//' > /root/plain.cfg
         systemctl daemon-reload",
    )?;
    let plain = String::from("lvcreate -q -s -L 32M -n plain1 xenvg/base >/dev/null\n")
        + &timed("plain", "systemctl start plain")
        + "for pid in $(pgrep -x xl) $(pgrep -f '[x]l create'); do awk -v p=$pid '/^Pss:/ {print \"xlpss\", $2}' /proc/$pid/smaps_rollup; done | sort -u | head -n1\n\
           systemctl stop plain\n";
    let clean = timed("clean", "systemctl start ttvm@clientA")
        + "sleep 1; awk '/^Pss:/ {print \"pss\", $2}' /proc/$(systemctl show -P MainPID ttvm@clientA)/smaps_rollup\n\
           systemctl stop ttvm@clientA\n";
    let ours = String::from("/usr/libexec/ttvm/ttvm-snapshot reset -- clientA 2>/dev/null\n")
        + &timed("ours", "systemctl start ttvm@clientA")
        + "systemctl stop ttvm@clientA\n";
    let plain_again = String::from("lvcreate -q -s -L 32M -n plain1 xenvg/base >/dev/null; systemctl start plain\n")
        + &timed("plainrestart", "systemctl restart plain")
        + &timed(
            "plainstop",
            "{ xl shutdown -w plain && lvremove -q -y xenvg/plain1; } >/dev/null 2>&1",
        )
        + "systemctl stop plain\n";
    let ours_again = String::from("systemctl start ttvm@clientA\n")
        + &timed("restart", "systemctl restart ttvm@clientA")
        + &timed("stop", "systemctl stop ttvm@clientA");
    let mut script = String::new();
    for run in 0..START_RUNS {
        script += &in_turns(run, &plain, &ours);
        if run < FEW_RUNS {
            script += &clean;
            script += &in_turns(run, &plain_again, &ours_again);
        }
    }
    let output = bash(host, &script)?;
    let plain = numbers(&output, "plain");
    for (key, when) in [("ours", "old snapshot still there"), ("clean", "after a clean stop")] {
        table.ratio(
            &format!("systemctl start, {when} ÷ shell unit with lvremove; lvcreate; xl create"),
            &numbers(&output, key),
            &plain,
            "1.05",
        );
    }
    for (key, plain, what, limit) in [
        (
            "restart",
            "plainrestart",
            "systemctl restart ÷ that of the shell unit",
            "0.80",
        ),
        ("stop", "plainstop", "systemctl stop ÷ xl shutdown -w; lvremove", "1.0"),
    ] {
        table.ratio(what, &numbers(&output, key), &numbers(&output, plain), limit);
    }
    let (pss, xl) = (median(&numbers(&output, "pss")), median(&numbers(&output, "xlpss")));
    table.value(
        "memory per running guest: supervisor, beside xl's monitor",
        format!("PSS {pss:.0} KiB, xl {xl:.0} KiB"),
        format!("{:.2} MB", pss * 1024.0 / 1e6),
        "0.80 MB",
    );
    Ok(())
}

/// Both generators as grub-mkconfig runs them: from a third one, which has the same environment.
fn grub(host: &mut Host, table: &mut Table) -> Result<()> {
    let mut script = String::from("#!/bin/bash\nexec 3>/root/grub.times\n");
    for _ in 0..GRUB_RUNS {
        for (key, program) in [("ours", "/etc/grub.d/21_ttvm"), ("stock", "/etc/grub.d/20_linux_xen")] {
            script += &timed(key, &format!("{program} >/dev/null 2>&1")).replace("echo", "echo >&3");
        }
    }
    for (key, program) in [("ours", "/etc/grub.d/21_ttvm"), ("stock", "/etc/grub.d/20_linux_xen")] {
        script += &format!(
            "strace -f -qq -e trace=execve -o /root/trace {program} >/dev/null 2>&1; \
             echo >&3 {key}-processes $(cut -d' ' -f1 /root/trace | sort -u | wc -l)\n"
        );
    }
    host.write("/etc/grub.d/99_bench", script.as_bytes(), 0o755)?;
    let output = host.sh_within(
        "grub-mkconfig -o /root/grub.cfg >/dev/null 2>&1; rm /etc/grub.d/99_bench; cat /root/grub.times",
        Duration::from_secs(600),
    )?;
    let output = output.success()?;
    table.ratio(
        "ttvm-grub ÷ /etc/grub.d/20_linux_xen",
        &numbers(&output, "ours"),
        &numbers(&output, "stock"),
        "0.10",
    );
    let processes = |key| numbers(&output, key).first().copied().unwrap_or_default();
    table.value(
        "processes: ttvm-grub, with its shell shim",
        format!("20_linux_xen: {}", processes("stock-processes")),
        processes("ours-processes").to_string(),
        "",
    );
    exposures(host, table)
}

/// What systemd says of each unit's sandbox: less is better.
fn exposures(host: &mut Host, table: &mut Table) -> Result<()> {
    let units = [
        ("ttvm@x", "5.0"),
        ("ttvm-record@x", "3.0"),
        ("ttvm-replay@x", "3.0"),
        ("ttvm-netd", "3.5"),
        ("ttvm-boot-ok", "6.0"),
        ("ttvm-boot-deadline", "6.0"),
    ];
    for (unit, limit) in units {
        let exposure = host.run(&format!(
            "systemd-analyze security --no-pager {unit}.service | tail -n1 | grep -oE '[0-9]+[.][0-9]+ [A-Z]+'"
        ))?;
        table.value(
            &format!("systemd-analyze security {}.service", unit.trim_end_matches('x')),
            String::new(),
            exposure,
            limit,
        );
    }
    Ok(())
}

/// Switching with one guest that runs, between two bridges that are its only way out; and what is left of the service.
fn network(host: &mut Host, table: &mut Table) -> Result<()> {
    let file = "memory = \"96M\"\nkernel = \"/usr/lib/ttvm-host/vmlinux\"\ncmdline = \"console=hvc0 quiet ttvm.do=net\"\n\
        initrd = \"/boot/initrd-busybox-based-ram-linux.img\"\n[[vif]]\naddress = \"10.0.0.1\"\n";
    host.write("/etc/ttvm/guests/clientA.toml", file.as_bytes(), 0o644)?;
    host.run("systemctl start ttvm-outside && ip link add xenbr0 type bridge && ip link set xenbr0 up")?;
    host.run("ttvm network set nat && systemctl start ttvm@clientA")?;
    let mut script = String::new();
    for _ in 0..NETWORK_RUNS {
        script += &timed("bridge", "ttvm network set bridge >/dev/null");
        script += &timed("nat", "ttvm network set nat >/dev/null");
    }
    script += "for i in $(seq 100); do busctl get-property org.ttvm.Network1 /org/ttvm/Network1 org.ttvm.Network1.Manager Mode; done >/dev/null\n\
        sed -n 's/^VmRSS:/rss/p' /proc/$(systemctl show -P MainPID ttvm-netd)/status | tr -d kB\n";
    script += &timed("idle", "until ! systemctl is-active -q ttvm-netd; do sleep 0.5; done");
    script += "systemctl stop ttvm@clientA; ttvm network set none >/dev/null\n";
    let output = bash(host, &script)?;
    for (key, what) in [("bridge", "nat to bridge"), ("nat", "bridge to nat")] {
        let times = numbers(&output, key);
        table.value(
            &format!("ttvm network set, {what}, one guest moved"),
            format!("{} runs", times.len()),
            format!("{:.2} s", median(&times)),
            "",
        );
    }
    let rss = median(&numbers(&output, "rss"));
    table.value(
        "ttvm-netd after these and 100 reads: RSS",
        String::new(),
        format!("{:.2} MB", rss * 1024.0 / 1e6),
        "6 MB",
    );
    let idle = median(&numbers(&output, "idle"));
    table.value(
        "ttvm-netd ends after the last call",
        String::new(),
        format!("{idle:.1} s"),
        "30 s",
    );
    Ok(())
}

fn sizes(table: &mut Table) -> Result<()> {
    let release = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release");
    let size = |name: &str| std::fs::metadata(release.join(name)).map_or(0, |data| data.len());
    let names = [
        "ttvm",
        "ttvm-grub",
        "ttvm-snapshot",
        "ttvm-guest",
        "ttvm-boot",
        "libqemu_watch_1.so",
        "libqemu_watch_4.so",
    ];
    let all: u64 = names.iter().map(|name| size(name)).sum();
    let mb = |bytes: u64| format!("{:.2} MB", bytes as f64 / 1e6);
    table.value("size of ttvm-grub", String::new(), mb(size("ttvm-grub")), "1 MB");
    table.value("size of all binaries", String::new(), mb(all), "12 MB");
    Ok(())
}

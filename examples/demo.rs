// SPDX-License-Identifier: MIT OR Apache-2.0
//! `make demo`: the main job, shown on the emulated Xen host. The first argument is the package.

#[path = "../tests/host/machine/mod.rs"]
mod machine;

use std::path::Path;
use std::time::Instant;

use machine::{Host, Result};

fn main() -> Result<()> {
    let started = Instant::now();
    let deb = std::env::args().nth(1).unwrap_or_default();
    println!("Bringing up a Debian machine with Xen and LVM, emulated; ttvm comes onto it with dpkg.");
    let mut host = Host::boot(Path::new(&deb))?;
    println!(
        "It is up after {:.0} s, booted through ttvm's own entry.\n",
        started.elapsed().as_secs_f64()
    );
    show(&mut host, "xl info | grep -E 'xen_commandline|xen_version'")?;
    show(&mut host, "lvs xenvg")?;

    let kernel = host.run("ls /boot/vmlinuz-*")?;
    let file = format!(
        r#"memory  = "96M"
kernel  = "{kernel}"
initrd  = "/boot/initrd-busybox-based-ram-linux.img"
cmdline = "root=/dev/xvda1 ro console=hvc0 ttvm.do=read,write,read"
[[disk]]
origin   = "xenvg/base"
target   = "xvda1"
snapshot = {{ name = "snap1", size = "1G" }}
"#
    );
    host.write("/etc/ttvm/guests/clientA.toml", file.as_bytes(), 0o644)?;
    println!(
        "One file describes the guest. Its disk is a snapshot; it will read the first block, write it, read it again."
    );
    show(&mut host, "cat /etc/ttvm/guests/clientA.toml")?;
    show(&mut host, "ttvm guest check")?;

    show(&mut host, "systemctl start ttvm@clientA")?;
    let first = blocks(&mut host, 2)?;
    show(&mut host, "ttvm status")?;
    show(&mut host, "systemctl stop ttvm@clientA")?;
    show(&mut host, "lvs xenvg")?;
    println!("The snapshot is gone, the origin as it was. Once more:\n");
    show(&mut host, "systemctl start ttvm@clientA")?;
    let second = blocks(&mut host, 4)?;
    show(&mut host, "ttvm status")?;
    show(
        &mut host,
        "journalctl -u ttvm@clientA -o cat --no-pager | grep -v -e Start -e Stopp -e Deactivated -e CPU",
    )?;
    show(&mut host, "systemctl stop ttvm@clientA")?;

    let [found, written] = [first[0].as_str(), first[1].as_str()];
    println!("What the guest read from its disk (SHA-256 of the first block):");
    println!(
        "  first run    {} when it started, {} after it wrote",
        &found[..12],
        &written[..12]
    );
    println!("  second run   {} when it started", &second[2][..12]);
    let pristine = found == second[2] && found != written;
    println!(
        "\n{} {:.0} s in all.",
        if pristine {
            "The second run began on a pristine disk."
        } else {
            "FAILED: the disk was not pristine."
        },
        started.elapsed().as_secs_f64()
    );
    std::process::exit(i32::from(!pristine))
}

/// Runs a command as a person would, and shows what the person sees.
fn show(host: &mut Host, command: &str) -> Result<()> {
    let started = Instant::now();
    let output = host.run(command)?;
    println!("# {command}   ({:.1} s)", started.elapsed().as_secs_f64());
    for line in output.lines() {
        println!("  {line}");
    }
    println!();
    Ok(())
}

/// Waits until the guest's console has told of `count` blocks, and returns their digests.
fn blocks(host: &mut Host, count: usize) -> Result<Vec<String>> {
    let told = "grep -a \"first block\" /var/log/xen/console/guest-clientA.log 2>/dev/null";
    let lines = host.run(&format!(
        "timeout 60 sh -c 'until [ $({told} | wc -l) -ge {count} ]; do sleep 0.2; done'; {told} | tr -d '\\r'"
    ))?;
    Ok(lines
        .lines()
        .filter_map(|line| line.split(' ').next_back())
        .map(str::to_owned)
        .collect())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! `make shell`: a prompt in the emulated Xen host, with the package installed, to look around in. Each line is a
//! script of its own; `:restore` takes the machine back to its start, `:reboot` reboots it, `:cut` pulls its plug and boots it, `:uefi` does so with UEFI firmware, the end of
//! the input ends it. The first argument is the package.

#[path = "../tests/host/machine/mod.rs"]
mod machine;

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use machine::{Firmware, Host, Result};

fn main() -> Result<()> {
    let deb = std::env::args().nth(1).unwrap_or_default();
    let mut host = Host::boot(Path::new(&deb))?;
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let started = Instant::now();
        let end = match line.trim() {
            ":restore" => host.restore().map(|()| "restored".to_owned()),
            ":reboot" => host.reboot().map(|()| "booted".to_owned()),
            ":uefi" => host.power_cut_and_boot_by(Firmware::Uefi).map(|()| "booted".to_owned()),
            ":cut" => host.power_cut_and_boot().map(|()| "booted".to_owned()),
            script => host.sh_within(script, Duration::from_secs(600)).map(|output| {
                println!("{}", output.text());
                eprintln!("{}", output.errors());
                format!("status {}", output.status)
            }),
        };
        let end = end.unwrap_or_else(|error| error.to_string());
        println!("[{end}, {:.1} s]", started.elapsed().as_secs_f64());
        let _ = io::stdout().flush();
    }
    Ok(())
}

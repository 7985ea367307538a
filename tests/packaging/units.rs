// SPDX-License-Identifier: MIT OR Apache-2.0
//! What systemd says of each unit's sandbox, of 100: less is better.

use std::path::Path;
use std::process::Command;

#[test]
fn exposure() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("units");
    for (unit, most) in [
        ("ttvm@", 50),
        ("ttvm-record@", 30),
        ("ttvm-replay@", 30),
        ("ttvm-netd", 35),
        ("ttvm-boot-ok", 60),
        ("ttvm-boot-deadline", 60),
    ] {
        let analyzed = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(format!("--threshold={most}"))
            .arg(units.join(format!("{unit}.service")))
            .output();
        let Ok(analyzed) = analyzed else {
            println!("skipped: systemd-analyze is not installed");
            return;
        };
        let said = String::from_utf8_lossy(&analyzed.stdout);
        assert!(
            analyzed.status.success(),
            "{unit}: {}",
            said.lines().last().unwrap_or_default()
        );
    }
}

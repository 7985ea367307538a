// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is on Xen's command line, and what it means.

use crate::config::boot::BootConfig;

/// Whether an option keeps Xen from resetting the machine after a panic (xen-command-line.pandoc: `noreboot`, `reboot`).
pub(super) fn stands_still(option: &str) -> bool {
    match option.split_once('=') {
        None => option == "noreboot",
        Some(("noreboot", value)) => !["0", "no", "off", "false", "disable"].contains(&value),
        Some(("reboot", value)) => value.split(',').any(|value| value == "n" || value == "no"),
        Some(_) => false,
    }
}

/// What Xen should be told, and whether that is what counts: of two values of one option Xen takes the later.
pub fn limits(config: &BootConfig, xen_command_line: &str) -> Vec<(String, bool)> {
    let key = |option: &str| {
        let name = option.split('=').next().unwrap_or_default();
        name.strip_prefix("no-").unwrap_or(name).to_owned()
    };
    config
        .limits()
        .into_iter()
        .map(|option| {
            let mut words = xen_command_line.split_whitespace().rev();
            let last = words.find(|word| key(word) == key(&option));
            let in_force = last == Some(option.as_str());
            (option, in_force)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_the_last() {
        let config = BootConfig::default();
        let of = |line: &str| limits(&config, line).into_iter().map(|(_, is)| is).collect::<Vec<_>>();
        let ours = "watchdog sync_console dom0_max_vcpus=1 dom0_mem=500M,max:500M";
        assert_eq!(of(ours), [true; 4]);
        assert_eq!(of(&format!("dom0_mem=1G {ours}")), [true; 4]);
        assert_eq!(
            of(&format!("{ours} no-watchdog dom0_mem=2M")),
            [false, true, true, false]
        );
        assert_eq!(of(""), [false; 4]);
    }

    #[test]
    fn options_that_stand_still() {
        for option in ["noreboot", "noreboot=1", "reboot=no", "reboot=warm,n"] {
            assert!(stands_still(option), "{option}");
        }
        for option in ["noreboot=0", "reboot=acpi", "nosmp", "x=noreboot"] {
            assert!(!stands_still(option), "{option}");
        }
    }
}

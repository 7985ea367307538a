// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Xen's toolstack says of the Xen that runs (`xl info`, `xm info`).

use crate::config::types::Size;

/// The Xen that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningXen {
    /// Its version: `4.17.4`, `3.0-unstable`.
    pub version: String,
    /// What it was told at boot; `None` if it does not say.
    pub command_line: Option<String>,
    /// The memory of the machine.
    pub memory: Option<Size>,
}

impl RunningXen {
    /// Takes apart what the toolstack prints.
    pub fn parse(info: &str) -> Self {
        let value = |key: &str| {
            let mut pairs = info.lines().filter_map(|line| line.split_once(':'));
            pairs
                .find(|(name, _)| name.trim() == key)
                .map(|(_, value)| value.trim().to_owned())
        };
        let part = |key: &str| value(key).unwrap_or_default();
        Self {
            version: format!("{}.{}{}", part("xen_major"), part("xen_minor"), part("xen_extra")),
            command_line: value("xen_commandline"),
            memory: value("total_memory").and_then(|mib| mib.parse().ok()).map(Size::mib),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_xl_prints_it() {
        let info = "xen_major              : 4\nxen_minor              : 17\nxen_extra              : .4\n\
                    total_memory           : 3071\nxen_commandline        : placeholder com1=115200,8n1 watchdog\n";
        let xen = RunningXen::parse(info);
        assert_eq!(xen.version, "4.17.4");
        assert_eq!(
            xen.command_line.as_deref(),
            Some("placeholder com1=115200,8n1 watchdog")
        );
        assert_eq!(xen.memory, Some(Size::mib(3071)));
        assert_eq!(RunningXen::parse("").command_line, None);
    }
}

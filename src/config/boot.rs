// SPDX-License-Identifier: MIT OR Apache-2.0
//! `[boot]` of `/etc/ttvm/ttvm.toml`: what the boot entries say to Xen and Linux. The defaults are those of
//! the machine that time-travelling guests were first run on: one CPU and 500 MB for dom0, watchdog on,
//! console synchronous.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::host::{seconds, set};
use super::reader::{FromToml, Table};
use super::types::{Seconds, Size};

/// Less memory than this and dom0 does not reach its first process.
const LEAST_DOM0_MEM: Size = Size::mib(64);

/// The speeds (bits per second) that Xen, Linux and a 16550 agree on.
const SPEEDS: [i64; 8] = [1200, 2400, 4800, 9600, 19_200, 38_400, 57_600, 115_200];

/// `[boot]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootConfig {
    /// `dom0_mem`: what dom0 gets, at boot and at most; all there is if it is `None`.
    pub dom0_mem: Option<Size>,
    /// `dom0_max_vcpus`: virtual CPUs of dom0; as many as there are if it is `None`.
    pub dom0_max_vcpus: Option<u32>,
    /// `watchdog`: Xen panics, and so resets, when a CPU is stuck.
    pub watchdog: bool,
    /// `sync_console`: no console message is lost in a crash.
    pub sync_console: bool,
    /// `xen_options`: further options for Xen, one each; they come last and so win.
    pub xen_options: Vec<String>,
    /// `linux_options`: further options for Linux in all three entries, one each; they come last.
    pub linux_options: Vec<String>,
    /// `tt_xen`: the TT Xen image; else the newest `xen*` in `/boot/ttvm`.
    pub tt_xen: Option<PathBuf>,
    /// `tt_linux`: the TT Linux image; else the newest `vmlinuz*` in `/boot/ttvm`.
    pub tt_linux: Option<PathBuf>,
    /// `tt_initrd`: the initial RAM disk of TT Linux; else the one beside it with the same version.
    pub tt_initrd: Option<PathBuf>,
    /// `[boot.serial]`: where Xen and Linux have their console; without it both decide for themselves.
    pub serial: Option<Serial>,
    /// `[boot.ok]`: when the boot of an entry that is tried counts as a success.
    pub ok: OkConfig,
}

/// `[boot.ok]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OkConfig {
    /// `delay`: how long the host must have been up (multi-user.target reached) and stayed well.
    pub delay: Duration,
    /// `deadline`: the host is reset if it is not well this long after Linux was started.
    pub deadline: Duration,
    /// `units`: units that must be active then.
    pub units: Vec<String>,
}

impl Default for OkConfig {
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(30),
            deadline: Duration::from_secs(600),
            units: Vec::new(),
        }
    }
}

/// `[boot.serial]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial {
    /// `port`.
    pub port: SerialPort,
    /// `speed` in bits per second.
    pub speed: u32,
    /// `terminal`: GRUB shows its menu there as well.
    pub terminal: bool,
}

/// A serial port of a PC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SerialPort {
    /// The first, `ttyS0`.
    Com1,
    /// The second, `ttyS1`.
    Com2,
}

impl SerialPort {
    /// GRUB's number of it.
    pub fn unit(self) -> u8 {
        match self {
            Self::Com1 => 0,
            Self::Com2 => 1,
        }
    }

    /// Linux's name of it.
    pub fn tty(self) -> &'static str {
        match self {
            Self::Com1 => "ttyS0",
            Self::Com2 => "ttyS1",
        }
    }
}

/// Xen's name of it.
impl fmt::Display for SerialPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Com1 => "com1",
            Self::Com2 => "com2",
        })
    }
}

impl FromToml for SerialPort {
    const EXPECTED: &'static str = "\"com1\" or \"com2\"";
    fn from_toml(value: &toml::de::DeValue<'_>) -> Result<Self, String> {
        match value.as_str() {
            Some("com1") => Ok(Self::Com1),
            Some("com2") => Ok(Self::Com2),
            Some(other) => Err(format!(
                "\"{other}\" is neither {}",
                Self::EXPECTED.replace(" or ", " nor ")
            )),
            None => Err(String::new()),
        }
    }
}

impl Default for BootConfig {
    fn default() -> Self {
        Self {
            dom0_mem: Some(Size::mib(500)),
            dom0_max_vcpus: Some(1),
            watchdog: true,
            sync_console: true,
            xen_options: Vec::new(),
            linux_options: Vec::new(),
            tt_xen: None,
            tt_linux: None,
            tt_initrd: None,
            serial: None,
            ok: OkConfig::default(),
        }
    }
}

impl BootConfig {
    /// What Xen is told about its watchdog, its console and dom0.
    pub fn limits(&self) -> Vec<String> {
        let options = [
            self.watchdog.then(|| "watchdog".to_owned()),
            self.sync_console.then(|| "sync_console".to_owned()),
            self.dom0_max_vcpus.map(|count| format!("dom0_max_vcpus={count}")),
            self.dom0_mem.map(|size| format!("dom0_mem={size},max:{size}")),
        ];
        options.into_iter().flatten().collect()
    }

    /// Takes `[boot]`. What is wrong is noted in the table's file, and the default stands in for it.
    pub fn read(table: &Table<'_>) -> Self {
        let default = Self::default();
        let config = Self {
            dom0_mem: dom0_mem(table).unwrap_or(default.dom0_mem),
            dom0_max_vcpus: table
                .value::<OrOff<Vcpus>>("dom0_max_vcpus")
                .map_or(default.dom0_max_vcpus, |count| count.0.map(|count| count.0)),
            watchdog: table.value("watchdog").unwrap_or(default.watchdog),
            sync_console: table.value("sync_console").unwrap_or(default.sync_console),
            xen_options: options(table, "xen_options"),
            linux_options: options(table, "linux_options"),
            tt_xen: table.value("tt_xen"),
            tt_linux: table.value("tt_linux"),
            tt_initrd: table.value("tt_initrd"),
            serial: table.table("serial").and_then(|serial| Serial::read(&serial)),
            ok: table.table("ok").map(|ok| OkConfig::read(&ok)).unwrap_or_default(),
        };
        table.finish();
        config
    }
}

impl OkConfig {
    fn read(table: &Table<'_>) -> Self {
        let mut config = Self::default();
        set(&mut config.delay, seconds(table, "delay"));
        let deadline = table.get::<Seconds>("deadline");
        if let Some(units) = table.get::<Vec<String>>("units") {
            match units.value.iter().find(|unit| !is_unit(unit)) {
                Some(unit) => {
                    let message = format!("units: {unit:?} is not a unit's name such as \"ssh.service\"");
                    table.problem(&units.span, message);
                }
                None => config.units = units.value,
            }
        }
        table.finish();
        match deadline {
            Some(deadline) if deadline.value.0 <= config.delay => {
                let message = format!(
                    "deadline: it must be longer than delay ({} s), and than this host takes to boot",
                    config.delay.as_secs()
                );
                table.problem(&deadline.span, message);
            }
            Some(deadline) => config.deadline = deadline.value.0,
            None => config.deadline = config.deadline.max(2 * config.delay),
        }
        config
    }
}

/// Whether `name` can be a unit's (systemd.unit(5)).
fn is_unit(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    name.len() < 256 && !name.starts_with('-') && name.chars().all(legal) && name.contains('.')
}

impl Serial {
    fn read(table: &Table<'_>) -> Option<Self> {
        let port = table.require::<SerialPort>("port");
        let speed = table.get::<i64>("speed");
        let terminal = table.value("terminal").unwrap_or(false);
        table.finish();
        let speed = match speed {
            None => 115_200,
            Some(speed) if SPEEDS.contains(&speed.value) => speed.value,
            Some(speed) => {
                let known: Vec<String> = SPEEDS.iter().map(ToString::to_string).collect();
                let message = format!("speed: {} is not one of {}", speed.value, known.join(", "));
                table.problem(&speed.span, message);
                return None;
            }
        };
        Some(Self {
            port: port?.value,
            speed: u32::try_from(speed).ok()?,
            terminal,
        })
    }
}

fn dom0_mem(table: &Table<'_>) -> Option<Option<Size>> {
    let size = table.get::<OrOff<Size>>("dom0_mem")?;
    if size.value.0.is_some_and(|size| size < LEAST_DOM0_MEM) {
        let message = format!("dom0_mem: dom0 does not boot with less than {LEAST_DOM0_MEM}");
        table.problem(&size.span, message);
        return None;
    }
    Some(size.value.0)
}

/// A value, or `false` for none.
struct OrOff<T>(Option<T>);

impl<T: FromToml> FromToml for OrOff<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    fn from_toml(value: &toml::de::DeValue<'_>) -> Result<Self, String> {
        match value.as_bool() {
            Some(false) => Ok(Self(None)),
            _ => T::from_toml(value).map(|value| Self(Some(value))),
        }
    }
}

/// How many virtual CPUs dom0 may have.
struct Vcpus(u32);

impl FromToml for Vcpus {
    const EXPECTED: &'static str = "a number between 1 and 512, or false";
    fn from_toml(value: &toml::de::DeValue<'_>) -> Result<Self, String> {
        match i64::from_toml(value) {
            Ok(count @ 1..=512) => u32::try_from(count).map(Self).map_err(|error| error.to_string()),
            Ok(count) => Err(format!("{count} is not {}", Self::EXPECTED)),
            Err(_) => Err(String::new()),
        }
    }
}

fn options(table: &Table<'_>, key: &'static str) -> Vec<String> {
    let Some(list) = table.get::<Vec<String>>(key) else {
        return Vec::new();
    };
    for option in &list.value {
        if option.is_empty() || option.chars().any(|c| c.is_control() || c.is_whitespace()) {
            let message = format!("{key}: {option:?} is not one option; write each as a string of its own");
            table.problem(&list.span, message);
            return Vec::new();
        }
    }
    list.value
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::reader::Source;
    use super::*;

    fn read(text: &str) -> Result<BootConfig, Vec<String>> {
        Source::new(Path::new("t"), text.to_owned())
            .read(|_, table| Some(BootConfig::read(table)))
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn defaults_are_the_seeds() {
        let config = read("").unwrap();
        assert_eq!(config, BootConfig::default());
        assert_eq!(
            (config.dom0_mem, config.dom0_max_vcpus),
            (Some(Size::mib(500)), Some(1))
        );
        assert!(config.watchdog && config.sync_console && config.serial.is_none());
    }

    #[test]
    fn everything_can_be_said() {
        let config = read(
            "dom0_mem = \"1G\"\ndom0_max_vcpus = 2\nwatchdog = false\nsync_console = false\n\
             xen_options = [\"loglvl=all\"]\nlinux_options = [\"panic=10\"]\ntt_xen = \"/boot/tt/xen.gz\"\n\
             [serial]\nport = \"com2\"\nspeed = 9600\n",
        )
        .unwrap();
        assert_eq!(config.dom0_mem, Some(Size::mib(1024)));
        let off = read("dom0_mem = false\ndom0_max_vcpus = false\nwatchdog = false\nsync_console = false\n").unwrap();
        assert_eq!(off.limits(), [""; 0]);
        assert_eq!(config.xen_options, ["loglvl=all"]);
        assert_eq!(config.tt_xen, Some("/boot/tt/xen.gz".into()));
        let serial = config.serial.unwrap();
        assert_eq!((serial.port.tty(), serial.speed), ("ttyS1", 9600));
    }

    #[test]
    fn mistakes_have_places() {
        for (text, message) in [
            (
                "dom0_mem = \"1K\"",
                "t:1:12: dom0_mem: dom0 does not boot with less than 64M",
            ),
            (
                "xen_options = [\"a b\"]",
                "t:1:15: xen_options: \"a b\" is not one option; write each as a string of its own",
            ),
            (
                "[serial]\nport = \"com1\"\nspeed = 1",
                "t:3:9: speed: 1 is not one of 1200, ",
            ),
            (
                "[serial]\nport = \"com9\"",
                "t:2:8: port: \"com9\" is neither \"com1\" nor \"com2\"",
            ),
            (
                "tt_xen = \"xen.gz\"",
                "t:1:10: tt_xen: \"xen.gz\" is not an absolute path",
            ),
            ("dom0_memory = \"1G\"", "t:1:1: "),
        ] {
            let problems = read(text).unwrap_err();
            assert!(problems.len() == 1 && problems[0].starts_with(message), "{problems:?}");
        }
    }
}

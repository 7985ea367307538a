// SPDX-License-Identifier: MIT OR Apache-2.0
//! xl-disk-configuration(5), taken as xl's own parser takes it (tools/libs/util/libxlu_disk_l.l): at each place, the rule
//! that takes most of what is left, and of several the first.

use crate::import::disk::{Format, Spec};

/// What has a value behind an equals sign.
const KEYS: [&str; 13] = [
    "format",
    "devtype",
    "access",
    "backend",
    "backendtype",
    "specification",
    "vdev",
    "script",
    "colo-host",
    "colo-port",
    "colo-export",
    "active-disk",
    "hidden-disk",
];

/// What has been read so far.
#[derive(Default)]
struct State {
    disk: Spec,
    vdev: Option<String>,
    read_only: bool,
    backend_type: Option<String>,
    specification: Option<String>,
    /// Behind a prefix such as `phy:`, no format follows the target.
    prefixed: bool,
    access_set: bool,
    /// Of the settings that nothing is made of, those that may not be given again.
    given: Vec<String>,
}

/// Reads a disk. `Err` says what xl does not take.
pub(in crate::import) fn parse(spec: &str) -> Result<Spec, String> {
    let mut state = State::default();
    let mut rest = spec;
    while !rest.is_empty() {
        let parameter = rest.trim_start_matches([' ', '\t', '\n']);
        if parameter.len() < rest.len() {
            rest = parameter;
            continue;
        }
        if let Some(target) = rest.strip_prefix("target=") {
            // It takes everything, commas and all; but the last one is cut off.
            let target = target.strip_suffix(',').unwrap_or(target);
            save(&mut state.disk.target, "target", target)?;
            break;
        }
        if let Some(prefix) = prefix(rest) {
            state.prefix(prefix)?;
            rest = &rest[prefix.len() + 1..];
            continue;
        }
        let end = rest.find(',').map_or(rest.len(), |comma| comma + 1);
        let whole = &rest[..end];
        let mut field = whole.strip_suffix(',').unwrap_or(whole);
        if end == rest.len()
            && let Some(word) = whole.strip_suffix('=')
            && !KEYS.contains(&word)
        {
            // xl overlooks the last byte of a specification that begins nothing: its scanner has it in hand at the end.
            if word.is_empty() {
                break;
            }
            field = word;
        }
        match field.split_once('=') {
            Some((key, value)) => state.setting(key, value, field)?,
            None => match field {
                "cdrom" => state.disk.cdrom = true,
                "direct-io-safe" | "discard" | "no-discard" | "colo" | "no-colo" | "trusted" | "untrusted" => {
                    state.disk.rest.push(field.to_owned());
                }
                _ => state.positional(field)?,
            },
        }
        rest = &rest[end..];
    }
    state.finish()
}

/// The prefix that `rest` begins with, without its colon.
fn prefix(rest: &str) -> Option<&str> {
    // Only so far: a list of many fields would be looked through to its end for each of them.
    let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit()))?;
    let (word, behind) = (&rest[..end], rest[end..].strip_prefix(':')?);
    let is_word = word.starts_with(|c: char| c.is_ascii_lowercase());
    let known = [
        "raw", "qcow", "qcow2", "vhd", "iscsi", "nbd", "enbd", "drbd", "tapdisk", "tap", "tap2", "aio", "ioemu",
        "file", "phy",
    ];
    // Of an unknown word the rule takes what follows only if that is no word: `hda:cdrom` is none of these.
    let next = behind.chars().next();
    let stands = known.contains(&word) || next.is_none_or(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit()));
    (is_word && stands).then_some(word)
}

/// Keeps a value that may be given once.
fn save(place: &mut Option<String>, what: &str, value: &str) -> Result<(), String> {
    match place {
        Some(before) if !before.is_empty() => Err(format!("its {what} is given twice")),
        _ => {
            *place = Some(value.to_owned());
            Ok(())
        }
    }
}

/// Keeps a word that may be given again if it is the same.
fn same(place: &mut Option<String>, what: &str, value: &str, known: &[&str]) -> Result<(), String> {
    if !known.contains(&value) {
        return Err(format!("{value:?} is no {what} that xl knows"));
    }
    match place {
        Some(before) if before != value => Err(format!("its {what} is given twice")),
        _ => {
            *place = Some(value.to_owned());
            Ok(())
        }
    }
}

impl State {
    fn prefix(&mut self, prefix: &str) -> Result<(), String> {
        match prefix {
            "raw" | "qcow" | "qcow2" | "vhd" => self.format(prefix)?,
            "iscsi" | "nbd" | "enbd" | "drbd" => save(&mut self.disk.script, "script", &format!("block-{prefix}"))?,
            "tapdisk" | "tap" | "tap2" | "aio" | "ioemu" | "file" | "phy" => {}
            _ => return Err(format!("\"{prefix}:\" is no kind of disk that xl knows")),
        }
        self.disk.device |= prefix == "phy";
        self.prefixed = true;
        Ok(())
    }

    fn setting(&mut self, key: &str, value: &str, field: &str) -> Result<(), String> {
        match key {
            "format" => self.format(value),
            "devtype" if value == "cdrom" || value == "disk" => {
                self.disk.cdrom = value == "cdrom";
                Ok(())
            }
            "access" => self.access(value),
            "backend" => save(&mut self.disk.backend, "backend", value),
            "backendtype" => {
                self.disk.rest.push(field.to_owned());
                same(
                    &mut self.backend_type,
                    "type of backend",
                    value,
                    &["phy", "tap", "qdisk", "standalone"],
                )
            }
            "specification" => {
                self.disk.rest.push(field.to_owned());
                same(&mut self.specification, "specification", value, &["xen", "virtio"])
            }
            "vdev" => save(&mut self.vdev, "name in the guest", value),
            "script" => save(&mut self.disk.script, "script", value),
            "colo-host" | "colo-export" | "active-disk" | "hidden-disk" => self.once(key, value, field),
            "colo-port" if port(value) => {
                self.disk.rest.push(field.to_owned());
                Ok(())
            }
            _ => Err(format!("{field:?} is nothing that xl knows of a disk")),
        }
    }

    /// A setting that nothing is made of, which may be given once.
    fn once(&mut self, key: &str, value: &str, field: &str) -> Result<(), String> {
        if self.given.iter().any(|given| given == key) {
            return Err(format!("its {key} is given twice"));
        }
        // An empty one does not count.
        if !value.is_empty() {
            self.given.push(key.to_owned());
        }
        self.disk.rest.push(field.to_owned());
        Ok(())
    }

    fn format(&mut self, word: &str) -> Result<(), String> {
        let format = match word {
            "" | "raw" => Format::Raw,
            "qcow" => Format::Qcow,
            "qcow2" => Format::Qcow2,
            "vhd" => Format::Vhd,
            "empty" => Format::Empty,
            "qed" => Format::Qed,
            _ => return Err(format!("{word:?} is no format that xl knows")),
        };
        if self.disk.format != Format::Unknown && self.disk.format != format {
            return Err("its format is given twice".into());
        }
        self.disk.format = format;
        Ok(())
    }

    fn access(&mut self, word: &str) -> Result<(), String> {
        self.read_only = match word {
            "r" | "ro" => true,
            "" | "w" | "rw" => false,
            _ => return Err(format!("{word:?} is no access that xl knows: only r, ro, w and rw")),
        };
        Ok(())
    }

    /// The fields without a name: target, format, name in the guest, access.
    fn positional(&mut self, field: &str) -> Result<(), String> {
        if self.disk.target.is_none() {
            self.disk.target = Some(field.to_owned());
        } else if !self.prefixed && self.disk.format == Format::Unknown {
            if self.disk.target.as_deref() == Some("") && self.device(field)? {
                self.disk.format = Format::Empty;
            } else {
                self.format(field)?;
            }
        } else if self.vdev.is_none() {
            if !self.device(field)? {
                self.vdev = Some(field.to_owned());
            }
        } else if !self.access_set {
            self.access_set = true;
            self.access(field)?;
        } else {
            return Err(format!("{field:?} is one field too many"));
        }
        Ok(())
    }

    /// `hdc:cdrom`: both in one.
    fn device(&mut self, field: &str) -> Result<bool, String> {
        let Some((vdev, kind)) = field.rsplit_once(':') else {
            return Ok(false);
        };
        save(&mut self.vdev, "name in the guest", vdev)?;
        self.disk.cdrom = match kind {
            "cdrom" => true,
            "disk" => false,
            _ => return Err(format!("{kind:?} is no kind of device that xl knows")),
        };
        Ok(true)
    }

    fn finish(mut self) -> Result<Spec, String> {
        let target = self.disk.target.as_deref();
        if self.disk.cdrom && target.is_none_or(str::is_empty) {
            self.disk.format = Format::Empty;
        } else if self.disk.format == Format::Unknown {
            self.disk.format = Format::Raw;
        }
        if target.is_none() && !self.disk.cdrom {
            return Err("it has no target".into());
        }
        self.disk.writable = !self.read_only && !self.disk.cdrom;
        self.disk.vdev = self.vdev.ok_or("it has no name in the guest")?;
        Ok(self.disk)
    }
}

/// Whether C's atoi() makes a number of it that is not 0.
fn port(value: &str) -> bool {
    let value = value.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
    digits.trim_start_matches('0').starts_with(|c: char| c.is_ascii_digit())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a caller sends, read with bounds before anything is done with it.
//!
//! Everybody may call, and a message may have 64 KiB ([`super::socket`]). zbus's own map of variants would be many times as
//! large in memory, so that the options have a type of their own, which stops reading early.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use zbus::wire::signature::Child;
use zbus::{ObjectPath, Signature, Type};

use super::error::Error;
use super::proxy::{FLAG_FORCE, PATH};
use crate::network::{self, Mode, Options, Request};

const COUNT_MAX: usize = 16;
const LENGTH_MAX: usize = 64;
const VALID: &str = "bridge, uplink, manage_uplink, subnet, dhcp";

/// `a{sv}` of which only strings and booleans are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings(Vec<(String, Setting)>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Setting {
    Text(String),
    Flag(bool),
}

impl Type for Settings {
    const SIGNATURE: &'static Signature = &Signature::Dict {
        key: Child::Static { child: &Signature::Str },
        value: Child::Static {
            child: &Signature::Variant,
        },
    };
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Settings;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("options")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Settings, A::Error> {
                let mut entries: Vec<(String, Setting)> = Vec::new();
                while let Some(key) = map.next_key::<&str>()? {
                    if entries.len() == COUNT_MAX {
                        return Err(A::Error::custom(format!("more than {COUNT_MAX} options")));
                    }
                    let key = short(key).map_err(A::Error::custom)?.to_owned();
                    let value = map.next_value::<Setting>()?;
                    entries.push((key, value));
                }
                Ok(Settings(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Type for Setting {
    const SIGNATURE: &'static Signature = &Signature::Variant;
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl<'de> Visitor<'de> for Value {
            type Value = Setting;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a boolean")
            }
            /// A variant is its signature, and then its value.
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Setting, A::Error> {
                let missing = || A::Error::custom("an option without a value");
                match seq.next_element::<Signature>()?.ok_or_else(missing)? {
                    Signature::Str => {
                        let text = seq.next_element::<&str>()?.ok_or_else(missing)?;
                        Ok(Setting::Text(short(text).map_err(A::Error::custom)?.to_owned()))
                    }
                    Signature::Bool => Ok(Setting::Flag(seq.next_element()?.ok_or_else(missing)?)),
                    other => Err(A::Error::custom(format!(
                        "an option of type {:.16}: options are strings (s) and booleans (b)",
                        other.to_string()
                    ))),
                }
            }
        }
        deserializer.deserialize_any(Value)
    }
}

fn short(text: &str) -> Result<&str, String> {
    if text.len() > LENGTH_MAX {
        return Err(format!("a string of {} bytes: {LENGTH_MAX} is the most", text.len()));
    }
    Ok(text)
}

/// A switch, of what was sent.
pub fn request(mode: &str, settings: Settings, confirm_s: u32, flags: u64) -> Result<Request, Error> {
    let mode: Mode = short(mode).map_err(Error::invalid)?.parse().map_err(Error::from)?;
    Ok(Request {
        mode,
        options: options(settings)?,
        confirm: if confirm_s == 0 {
            Duration::ZERO
        } else {
            confirm(confirm_s)?
        },
        force: known(flags, FLAG_FORCE)? & FLAG_FORCE != 0,
    })
}

/// The time a change may wait.
pub fn confirm(seconds: u32) -> Result<Duration, Error> {
    let time = Duration::from_secs(seconds.into());
    network::may_wait(time)?;
    Ok(time)
}

/// `flags`, if all of them are of `known`.
pub fn known(flags: u64, known: u64) -> Result<u64, Error> {
    match flags & !known {
        0 => Ok(flags),
        unknown => Err(Error::invalid(format!("unknown flags {unknown:#x}"))),
    }
}

/// The number of the change whose object that is.
pub fn id_of(path: &ObjectPath<'_>) -> Result<u64, Error> {
    path.as_str()
        .strip_prefix(PATH)
        .and_then(|rest| rest.strip_prefix("/transaction/"))
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| Error::invalid(format!("{:.100} is not the object of a change", path.as_str())))
}

fn options(settings: Settings) -> Result<Options, Error> {
    let mut options = Options::default();
    for (index, (key, value)) in settings.0.iter().enumerate() {
        if settings.0[..index].iter().any(|(earlier, _)| earlier == key) {
            return Err(Error::invalid(format!("the option {key:?} is given twice")));
        }
        match key.as_str() {
            "bridge" => options.bridge = Some(parsed(key, value)?),
            "uplink" => options.uplink = Some(parsed(key, value)?),
            "manage_uplink" => options.manage_uplink = Some(flag(key, value)?),
            "subnet" => options.subnet = Some(parsed(key, value)?),
            "dhcp" => options.dhcp = Some(flag(key, value)?),
            _ => return Err(Error::invalid(format!("unknown option {key:?}; valid: {VALID}"))),
        }
    }
    Ok(options)
}

fn parsed<T: FromStr<Err: fmt::Display>>(key: &str, value: &Setting) -> Result<T, Error> {
    match value {
        Setting::Text(text) => text
            .parse()
            .map_err(|error| network::Error::InvalidArgument(format!("option {key}: {error}")).into()),
        Setting::Flag(_) => Err(Error::invalid(format!("option {key} is a string"))),
    }
}

fn flag(key: &str, value: &Setting) -> Result<bool, Error> {
    match value {
        Setting::Flag(flag) => Ok(*flag),
        Setting::Text(_) => Err(Error::invalid(format!("option {key} is a boolean"))),
    }
}

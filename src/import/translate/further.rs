// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is the toolstack's own.

use super::{Translator, xl_keys};
use crate::config::guest::verbatim;
use crate::config::guest::{Toolstack, XlValue};
use crate::import::Dialect;
use crate::import::output::{Entry, Section};
use crate::import::value::{Setting, Value};

/// What xm makes part of the kernel's command line by itself.
const COMMAND_LINE: [&str; 8] = [
    "dhcp",
    "ip",
    "netmask",
    "gateway",
    "hostname",
    "interface",
    "nfs_server",
    "nfs_root",
];

/// What xm takes for yes and no (set_bool in xm/opts.py), as xl has it.
pub(super) fn yes_or_no(text: &str) -> Option<u64> {
    match text {
        "yes" | "y" => Some(1),
        "no" | "n" => Some(0),
        _ => None,
    }
}

impl Translator<'_> {
    /// Everything else is the toolstack's, as it stands, where that takes it.
    pub(super) fn further(&mut self) -> Option<Section> {
        let toolstack = self.toolstack();
        let table = match toolstack {
            Toolstack::Xl => Some(("[xl]", verbatim::XL)),
            Toolstack::Xm => Some(("[xm]", verbatim::XM)),
            Toolstack::Qemu => None,
        };
        if toolstack == Toolstack::Xl && self.source.dialect == Dialect::Xm {
            self.rename("cpu_cap", "cap");
        }
        let mut settings: Vec<Setting> = std::mem::take(&mut self.settings).into_values().collect();
        settings.sort_by_key(|setting| setting.line);
        let mut entries = Vec::new();
        let other = toolstack == Toolstack::Xl && self.source.dialect == Dialect::Xm;
        for mut setting in settings {
            if other {
                self.respell(&mut setting);
            }
            let Setting { key, line, used, .. } = &setting;
            if toolstack != Toolstack::Xm && self.source.dialect == Dialect::Xm && COMMAND_LINE.contains(&key.as_str())
            {
                let nothing = setting.value == Value::Text("off".into()) || setting.value == Value::Text(String::new());
                if !nothing {
                    self.note(
                        *line,
                        key,
                        "xm puts it on the kernel's command line: write it into \"cmdline\"",
                    );
                }
                continue;
            }
            let unknown = toolstack == Toolstack::Xl && !xl_keys::is_known(key);
            let added = setting.added && xl_keys::is_number(key);
            let taken = match &table {
                Some((_, dialect)) => self
                    .verbatim(&setting)
                    .and_then(|value| match dialect.refuses(key, &value) {
                        Some(why) => Err(why),
                        None if unknown => Err("xl does not know it, and passes it over".to_owned()),
                        None if added => {
                            Err("xl takes no number that is put together with +=, and passed it over".to_owned())
                        }
                        None => Ok(Entry::value(key, &value).on_line(*line)),
                    }),
                None => Err("it is Xen's, and not for toolstack \"qemu\"".to_owned()),
            };
            match taken {
                Ok(entry) => entries.push(entry),
                // Other lines made use of it, and have its value.
                Err(_) if *used => {}
                Err(why) => self.note(*line, key, why),
            }
        }
        let title = table.map(|(title, _)| title).filter(|_| !entries.is_empty());
        title.map(|title| Section {
            title: Some(title),
            entries,
            ..Section::default()
        })
    }

    /// Lists of strings that have settings in them, in xl's notation.
    fn respell(&mut self, setting: &mut Setting) {
        let Value::List(items) = &mut setting.value else {
            return;
        };
        for item in items {
            if let Value::Text(text) = item {
                *text = match setting.key.as_str() {
                    "vfb" => self.screen(setting.line, text),
                    "vtpm" => self.tpm(setting.line, text),
                    _ => return,
                };
            }
        }
    }

    /// What xm calls differently.
    fn rename(&mut self, key: &str, new: &str) {
        if let Some(setting) = self.take(key) {
            let key = new.to_owned();
            self.settings.insert(key.clone(), Setting { key, ..setting });
        }
    }

    /// A value for xl or xm, as it stands.
    fn verbatim(&self, setting: &Setting) -> Result<XlValue, String> {
        let xl = self.source.dialect == Dialect::Xl;
        let text = |value: &Value| match value {
            Value::Text(text) if text.chars().any(char::is_control) => {
                Err("control characters cannot be carried over".to_owned())
            }
            Value::Text(text) => Ok(text.clone()),
            // xl does not tell numbers from strings.
            Value::Number(number) if xl => Ok(number.to_string()),
            other => Err(format!(
                "there is {} in the list, which cannot be carried over",
                other.kind()
            )),
        };
        // What is a number in quotes to one program may be another to the other: 010 is octal to xl.
        let program = if xl { Toolstack::Xl } else { Toolstack::Xm };
        if xl_keys::is_number(&setting.key)
            && program != self.toolstack()
            && let Some(number) = setting.value.number(self.source.dialect)
            && let Ok(number) = u64::try_from(number)
        {
            return Ok(XlValue::Number(number));
        }
        // xl would say that it is no number, and go on without: another guest than the file describes.
        if self.toolstack() == Toolstack::Xl
            && xl_keys::is_number(&setting.key)
            && let Value::Text(text) = &setting.value
            && setting.value.number(self.source.dialect).is_none()
        {
            return match yes_or_no(text).filter(|_| !xl) {
                Some(number) => Ok(XlValue::Number(number)),
                None => Err(format!(
                    "{text:?} is no number, and xl takes nothing else there{}",
                    if xl { ": it passed it over" } else { "" }
                )),
            };
        }
        match &setting.value {
            Value::List(items) => items.iter().map(text).collect::<Result<_, _>>().map(XlValue::List),
            Value::Number(number) => u64::try_from(*number)
                .map(XlValue::Number)
                .map_err(|_| format!("{number} is negative, which cannot be carried over")),
            Value::Flag(flag) => Err(format!(
                "xm takes no True or False, and passed it over: write {} if it is meant",
                u8::from(*flag)
            )),
            value @ Value::Text(_) => text(value).map(XlValue::Text),
            other => Err(format!("this is {}, which cannot be carried over", other.kind())),
        }
    }
}

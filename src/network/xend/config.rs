// SPDX-License-Identifier: MIT OR Apache-2.0
//! `xend-config.sxp`: which network scripts it makes xend run. What changes them is in [`edit`](super::edit).

use std::fmt;

use super::sxp::{self, Document, Form, Value};

/// The pair of scripts that a way of networking consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scripts {
    /// `network-nat` and `vif-nat`.
    Nat,
    /// `network-bridge` and `vif-bridge`.
    Bridge,
}

impl Scripts {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Nat, Self::Bridge];

    /// The script for the host.
    pub fn network(self) -> &'static str {
        self.of(Setting::Network)
    }

    /// The script for each interface of a guest.
    pub fn vif(self) -> &'static str {
        self.of(Setting::Vif)
    }

    pub(super) fn of(self, setting: Setting) -> &'static str {
        match (self, setting) {
            (Self::Nat, Setting::Network) => "network-nat",
            (Self::Nat, Setting::Vif) => "vif-nat",
            (Self::Bridge, Setting::Network) => "network-bridge",
            (Self::Bridge, Setting::Vif) => "vif-bridge",
        }
    }
}

impl fmt::Display for Scripts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} and {}", self.network(), self.vif())
    }
}

/// What there is to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    Network,
    Vif,
}

impl Setting {
    pub(super) const ALL: [Self; 2] = [Self::Network, Self::Vif];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Network => "network-script",
            Self::Vif => "vif-script",
        }
    }

    /// What Xen ships besides the scripts of [`Scripts`].
    fn others(self) -> &'static [&'static str] {
        match self {
            Self::Network => &["network-route", "network-dummy"],
            Self::Vif => &["vif-route"],
        }
    }

    fn if_missing(self) -> &'static str {
        match self {
            Self::Network => "xend sets up no network",
            Self::Vif => "xend takes vif-bridge by itself",
        }
    }
}

/// How a file has the network set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Exactly this pair.
    Is(Scripts),
    /// Something of somebody's own; in what way, a sentence each.
    Foreign(Vec<String>),
}

/// The script that xend runs when it starts, as the file has it: relative to /etc/xen/scripts, or absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkScript {
    /// Its file.
    pub file: Vec<u8>,
    /// What is passed to it after `start` or `stop`.
    pub parameters: Vec<Vec<u8>>,
}

/// A configuration file of xend as it was read.
#[derive(Debug, Clone)]
pub struct XendConfig {
    pub(super) bytes: Vec<u8>,
    pub(super) document: Document,
}

impl XendConfig {
    /// Reads the content of a file.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, sxp::Error> {
        let document = sxp::parse(&bytes)?;
        Ok(Self { bytes, document })
    }

    /// The script that xend runs when it starts; `None` if it runs none.
    pub fn network_script(&self) -> Option<NetworkScript> {
        // Split as xend does it: two spaces make an empty parameter.
        let mut parts = self
            .value(Setting::Network)
            .filter(|value| !value.is_empty())?
            .split(|byte| *byte == b' ')
            .map(<[u8]>::to_vec);
        Some(NetworkScript {
            file: parts.next()?,
            parameters: parts.collect(),
        })
    }

    /// The script that xend runs for a guest's interface that names none itself. What it has in the way of parameters
    /// is part of it.
    pub fn vif_script(&self) -> &[u8] {
        self.value(Setting::Vif).unwrap_or(b"vif-bridge")
    }

    /// Whether xend makes a network by it: it runs a script for that, or one for guests' interfaces that needs another
    /// network than a bridge.
    pub(super) fn makes_the_network(&self) -> bool {
        let name = |path: &[u8]| {
            let path = path.split(|byte| *byte == b' ').next().unwrap_or_default();
            path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec()
        };
        // It is there to do nothing.
        let script = self
            .network_script()
            .filter(|script| name(&script.file) != b"network-dummy");
        script.is_some() || name(self.vif_script()) != b"vif-bridge"
    }

    /// Which of the two ways of networking the file has, or what makes it neither.
    pub fn state(&self) -> State {
        let reasons = self.reasons();
        match self.pair() {
            Some(scripts) if reasons.is_empty() => State::Is(scripts),
            _ => State::Foreign(reasons),
        }
    }

    /// The pair that is in force, if it is one and each of the two is written once and without anything else.
    pub(super) fn pair(&self) -> Option<Scripts> {
        Scripts::ALL.into_iter().find(|scripts| {
            Setting::ALL.into_iter().all(|setting| {
                let mut active = self
                    .active(setting)
                    .map(|(_, values)| is_just(values, scripts.of(setting)));
                active.next() == Some(true) && active.next().is_none()
            })
        })
    }

    /// The forms that xend looks at for `setting`, with what follows their name.
    pub(super) fn active(&self, setting: Setting) -> impl Iterator<Item = (&Form, &[Value])> {
        let forms = self.document.forms.iter();
        forms.filter_map(move |form| Some((form, form.value.after(setting.name())?)))
    }

    /// The first form of a name wins, and of it the first value.
    fn value(&self, setting: Setting) -> Option<&[u8]> {
        match self.active(setting).next()?.1.first()? {
            Value::Word(word) => Some(word),
            Value::List(_) => None,
        }
    }

    fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for setting in Setting::ALL {
            let name = setting.name();
            let lines: Vec<String> = self.active(setting).map(|(form, _)| form.line.to_string()).collect();
            match lines.len() {
                0 => reasons.push(format!("there is no active ({name} …): {}", setting.if_missing())),
                1 => {}
                _ => reasons.push(format!(
                    "({name} …) is active more than once, in lines {}: xend takes the first",
                    lines.join(", ")
                )),
            }
            for (form, values) in self.active(setting) {
                let line = form.line;
                reasons.extend(
                    judge(values, setting)
                        .into_iter()
                        .map(|why| format!("line {line}: {why}")),
                );
                if !self.is_alone(form) {
                    reasons.push(format!("line {line}: ({name} …) shares its line with something else"));
                }
            }
        }
        for form in &self.document.forms {
            if let Some(name) = nested(&form.value) {
                let line = form.line;
                reasons.push(format!(
                    "line {line}: xend does not see the ({name} …) inside another list"
                ));
            }
        }
        let kind = |setting| {
            let (_, values) = self.active(setting).next()?;
            let (script, _) = script(values)?;
            Scripts::ALL
                .into_iter()
                .find(|scripts| scripts.of(setting).as_bytes() == script)
        };
        if let (Some(network), Some(vif)) = (kind(Setting::Network), kind(Setting::Vif))
            && network != vif
        {
            reasons.push(format!("{} and {} do not go together", network.network(), vif.vif()));
        }
        reasons
    }

    /// Whether nothing but white space is before it on its first line, and nothing but that and a comment after it on
    /// its last.
    pub(super) fn is_alone(&self, form: &Form) -> bool {
        // No further than needed: all of a file may be one line.
        let ends = |byte: &&u8| **byte == b'\n' || !sxp::is_space(**byte);
        let before = self.bytes[..form.span.start].iter().rev().find(ends);
        let after = self.bytes[form.span.end..].iter().find(ends);
        matches!(before, None | Some(b'\n')) && matches!(after, None | Some(b'\n' | b'#'))
    }
}

/// Whether `values` are `script` and nothing else.
pub(super) fn is_just(values: &[Value], script: &str) -> bool {
    matches!(values, [Value::Word(word)] if word == script.as_bytes())
}

/// The script that a form names, and its parameters.
fn script(values: &[Value]) -> Option<(&[u8], Option<&[u8]>)> {
    match values.first()? {
        Value::Word(word) => {
            let mut parts = word.splitn(2, |byte| *byte == b' ');
            Some((parts.next()?, parts.next()))
        }
        Value::List(_) => None,
    }
}

/// What is foreign about one form.
fn judge(values: &[Value], setting: Setting) -> Vec<String> {
    let name = setting.name();
    let mut reasons = Vec::new();
    match script(values) {
        _ if values.is_empty() => reasons.push(format!("({name}) names no script: {}", setting.if_missing())),
        None => reasons.push(format!("({name} …) has a list where the script's name should be")),
        Some((script, parameters)) => {
            let known = Scripts::ALL.map(|scripts| scripts.of(setting));
            if setting.others().iter().any(|other| other.as_bytes() == script) {
                reasons.push(format!("{} is neither {} nor {}", text(script), known[0], known[1]));
            } else if !known.iter().any(|known| known.as_bytes() == script) {
                reasons.push(format!("\"{}\" is not one of Xen's scripts", text(script)));
            }
            if let Some(parameters) = parameters {
                reasons.push(format!("{} has the parameters \"{}\"", text(script), text(parameters)));
            }
        }
    }
    if values.len() > 1 {
        reasons.push(format!(
            "xend takes only the first value of ({name} …) and drops the rest without a word: script and parameters have to be in one pair of quotes"
        ));
    }
    reasons
}

/// The name of a setting that is in a list inside `value`.
fn nested(value: &Value) -> Option<&'static str> {
    let Value::List(values) = value else {
        return None;
    };
    values.iter().find_map(|inner| {
        let here = Setting::ALL
            .into_iter()
            .find(|setting| inner.after(setting.name()).is_some());
        here.map(Setting::name).or_else(|| nested(inner))
    })
}

/// Bytes for a person to read.
pub(super) fn text(bytes: &[u8]) -> String {
    // A setting may go over several lines, and is shown as one.
    let spaced: Vec<u8> = (bytes.iter())
        .map(|byte| if byte.is_ascii_whitespace() { b' ' } else { *byte })
        .collect();
    crate::base::text::of_bytes(&spaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of these would take a minute if lines were counted anew for each form.
    #[test]
    fn nothing_but_settings() {
        for (form, alone) in [("(vif-script vif-nat)\n", true), ("(vif-script vif-nat)", false)] {
            let config = XendConfig::parse(form.repeat(50_000).into_bytes()).expect("a configuration");
            let State::Foreign(reasons) = config.state() else {
                panic!("it is foreign");
            };
            assert!(reasons[1].contains("in lines 1, "), "{}", reasons[1]);
            assert_eq!(reasons.len() == 2, alone);
        }
        let config = XendConfig::parse("#(vif-script\n".repeat(8000).into_bytes()).expect("a configuration");
        assert!(config.switch(Scripts::Nat, true).is_ok());
    }
}

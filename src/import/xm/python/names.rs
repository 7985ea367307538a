// SPDX-License-Identifier: MIT OR Apache-2.0
//! What names stand for. A list is shared, as Python shares it: what changes it in its place is seen under all its names.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::expression::Room;
use super::targets::Change;
use crate::import::value::{Setting, Value};

/// What a name stands for, if that is known.
enum Content {
    Known(Value),
    /// Since a line that could not be followed.
    Unknown(usize),
}

/// A value, and the names it has.
struct Slot {
    content: Content,
    names: BTreeSet<String>,
}

impl Slot {
    fn list(&self) -> bool {
        matches!(self.content, Content::Known(Value::List(_)))
    }
}

struct Binding {
    slot: usize,
    /// The line that sets it last.
    line: usize,
    /// Whether other lines make use of it.
    used: bool,
}

/// What names stand for.
#[derive(Default)]
pub(super) struct Names {
    bindings: HashMap<String, Binding>,
    slots: Vec<Slot>,
}

impl Names {
    /// The value of a name, or why it has none here.
    pub(super) fn value(&mut self, name: &str) -> Result<&Value, String> {
        let Some(binding) = self.bindings.get_mut(name) else {
            return Err(format!("nothing before it says what \"{name}\" is"));
        };
        match &self.slots[binding.slot].content {
            Content::Known(value) => {
                binding.used = true;
                Ok(value)
            }
            Content::Unknown(line) => Err(format!(
                "what \"{name}\" is depends on line {line}, which cannot be followed"
            )),
        }
    }

    /// `name = value`.
    pub(super) fn set(&mut self, name: &str, value: Value, line: usize) {
        self.bind(name, Content::Known(value), line);
    }

    /// `name = other`: if that is a list, both are the same one. Otherwise nothing is done.
    pub(super) fn share(&mut self, name: &str, other: &str, line: usize) -> bool {
        let Some(slot) = self.list(other) else {
            return false;
        };
        self.put(name, slot, line);
        true
    }

    /// `name += …` and the like, whose result is `value`. A list is changed in its place.
    pub(super) fn change(&mut self, name: &str, value: Value, line: usize, room: &mut Room) -> Result<(), String> {
        match self.list(name) {
            Some(slot) => {
                let slot = &mut self.slots[slot];
                // Each of its names has it at the end.
                room.take(value.weight().saturating_mul(slot.names.len() - 1))?;
                slot.content = Content::Known(value);
                if let Some(binding) = self.bindings.get_mut(name) {
                    binding.line = line;
                }
            }
            None => self.set(name, value, line),
        }
        Ok(())
    }

    /// Forgets what a line that cannot be followed may have changed; the names whose value is lost with that.
    pub(super) fn forget(&mut self, name: &str, change: Change, line: usize) -> Vec<String> {
        match (change, self.list(name)) {
            (Change::Augmented | Change::Touched, Some(slot)) => {
                let slot = &mut self.slots[slot];
                slot.content = Content::Unknown(line);
                slot.names.iter().cloned().collect()
            }
            // Only lists can be changed from outside.
            (Change::Touched, None) => Vec::new(),
            (Change::Bound | Change::Augmented, _) => {
                let known = self.is_known(name);
                self.bind(name, Content::Unknown(line), line);
                known.then(|| name.to_owned()).into_iter().collect()
            }
        }
    }

    /// The settings that are known, and the lines of those that are not.
    pub(super) fn finish(self) -> (Vec<Setting>, BTreeMap<String, usize>) {
        let (mut settings, mut unknown) = (Vec::new(), BTreeMap::new());
        for (key, Binding { slot, line, used }) in self.bindings {
            match &self.slots[slot].content {
                Content::Known(value) => settings.push(Setting {
                    key,
                    value: value.clone(),
                    line,
                    added: false,
                    used,
                }),
                Content::Unknown(line) => drop(unknown.insert(key, *line)),
            }
        }
        settings.sort_by(|a, b| (a.line, &a.key).cmp(&(b.line, &b.key)));
        (settings, unknown)
    }

    fn is_known(&self, name: &str) -> bool {
        self.bindings
            .get(name)
            .is_some_and(|binding| matches!(self.slots[binding.slot].content, Content::Known(_)))
    }

    /// Where the list of that name is.
    fn list(&self, name: &str) -> Option<usize> {
        let slot = self.bindings.get(name)?.slot;
        self.slots[slot].list().then_some(slot)
    }

    fn bind(&mut self, name: &str, content: Content, line: usize) {
        let own = self.bindings.get(name).map(|binding| binding.slot);
        let slot = match own.filter(|slot| self.slots[*slot].names.len() == 1) {
            // No other name has what it was before.
            Some(slot) => {
                self.slots[slot].content = content;
                if let Some(binding) = self.bindings.get_mut(name) {
                    (binding.line, binding.used) = (line, false);
                }
                return;
            }
            None => {
                let names = BTreeSet::new();
                self.slots.push(Slot { content, names });
                self.slots.len() - 1
            }
        };
        self.put(name, slot, line);
    }

    fn put(&mut self, name: &str, slot: usize, line: usize) {
        let used = false;
        if let Some(before) = self.bindings.insert(name.to_owned(), Binding { slot, line, used }) {
            self.slots[before.slot].names.remove(name);
        }
        self.slots[slot].names.insert(name.to_owned());
    }
}

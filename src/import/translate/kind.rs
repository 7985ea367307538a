// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether the guest is paravirtual, or the whole machine is emulated for it.

use super::Translator;
use crate::config::guest::{GuestType, Toolstack};
use crate::import::Dialect;
use crate::import::error::Error;
use crate::import::output::Entry;

impl Translator<'_> {
    pub(super) fn kind(&mut self) -> Result<GuestType, Error> {
        let (builder, kind) = (self.text("builder"), self.text("type"));
        if self.source.dialect == Dialect::Xm {
            if let Some((_, line)) = kind {
                self.note(line, "type", "xm does not know it, and takes builder");
            }
            self.note_unknown("builder", "taken for \"linux\"");
            let builder = builder.map(|(word, line)| match word.as_str() {
                "hvm" => (GuestType::Hvm, line, "builder"),
                "" | "linux" | "generic" => (GuestType::Pv, line, "builder"),
                _ => {
                    let why = format!("{word:?} is not known here: taken for \"linux\"");
                    self.note(line, "builder", why);
                    (GuestType::Pv, line, "builder")
                }
            });
            return self.of_kind(builder);
        }
        let kind = kind.map(|(word, line)| match word.as_str() {
            "pv" => (GuestType::Pv, line, "type"),
            "pvh" => (GuestType::Pvh, line, "type"),
            "hvm" => (GuestType::Hvm, line, "type"),
            _ => {
                self.note(line, "type", format!("{word:?} is no type of guest: taken for \"pv\""));
                (GuestType::Pv, line, "type")
            }
        });
        let builder = builder.map(|(word, line)| match word.as_str() {
            "hvm" => (GuestType::Hvm, line, "builder"),
            "generic" => (GuestType::Pv, line, "builder"),
            _ => {
                let why = format!("{word:?} is no builder that xl knows: taken for \"generic\"");
                self.note(line, "builder", why);
                (GuestType::Pv, line, "builder")
            }
        });
        match (kind, builder) {
            (Some((kind, line, _)), Some((other, builder, _))) if kind != other => Err(Error::Contradiction {
                path: self.source.path.to_owned(),
                line,
                builder,
            }),
            (kind, builder) => self.of_kind(kind.or(builder)),
        }
    }

    /// Writes down what the guest is, which `said` where it is said, and by which key.
    fn of_kind(&mut self, said: Option<(GuestType, usize, &'static str)>) -> Result<GuestType, Error> {
        let Some((kind, line, key)) = said else {
            return Ok(GuestType::Pv);
        };
        match self.toolstack() {
            _ if kind == GuestType::Pv => {}
            Toolstack::Xm => {
                return Err(Error::Kind {
                    path: self.source.path.to_owned(),
                    line,
                });
            }
            Toolstack::Xl => self.top.push(Entry::text("type", kind.as_str()).on_line(line)),
            Toolstack::Qemu => {
                let why = format!(
                    "{:?} is Xen's: what an emulated machine boots, \"kernel\" says",
                    kind.as_str()
                );
                self.note(line, key, why);
            }
        }
        Ok(kind)
    }
}

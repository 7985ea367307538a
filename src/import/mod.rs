// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of xm and xl become guests' files. xm's are Python, of which the plain part is evaluated here and nothing is ever
//! executed; xl's have a language of their own. What cannot be carried over is said, line by line.

mod disk;
mod error;
mod guess;
mod output;
mod plan;
mod shlex;
mod text;
mod translate;
mod value;
mod vif;
mod xl;
mod xm;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

pub use disk::{Format, Spec};
pub use error::{Error, Mistake};
pub use plan::{Asked, Known, Plan, Request, plan};
pub use text::Place;
pub use value::{Document, Note, Setting, Value};

use text::Text;

/// Files of guests are some hundred bytes long.
const LIMIT: u64 = 1 << 20;

/// Whose language a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Python, which xm executes.
    Xm,
    /// That of xl.cfg(5).
    Xl,
}

impl Dialect {
    /// The program's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Xm => "xm",
            Self::Xl => "xl",
        }
    }
}

/// Whether `path` stands for the standard input.
fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Reads the file at `path`, up to a limit.
fn content(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |action| {
        move |source| Error::File {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let file: Box<dyn Read> = match is_stdin(path) {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).map_err(failed("open"))?),
    };
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(failed("read"))?;
    if bytes.len() as u64 > LIMIT {
        return Err(Error::Large { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Reads `bytes` in this dialect.
pub fn parse(bytes: &[u8], dialect: Dialect) -> Result<Document, Mistake> {
    let text = Text::new(bytes);
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(Mistake {
            place: text.place(at),
            why: "this is a NUL: the file is no text".into(),
        });
    }
    match dialect {
        Dialect::Xm => xm::python::read(&text),
        Dialect::Xl => xl::read(&text),
    }
}

/// Reads a disk in this dialect. `Err` says what is not understood of it.
pub fn parse_disk(spec: &str, dialect: Dialect) -> Result<Spec, String> {
    match dialect {
        Dialect::Xm => xm::disk::parse(spec),
        Dialect::Xl => xl::disk::parse(spec),
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! xm's language: the part of Python 2 that needs nothing executed. Assignments of what can be reckoned from the file alone are
//! followed; everything else is noted, and whatever it may have set counts as unknown.

mod expression;
mod format;
mod lexer;
mod literal;
mod names;
mod statement;
mod targets;

use crate::import::error::Mistake;
use crate::import::text::Text;
use crate::import::value::Document;

/// Reads the file.
pub(in crate::import) fn read(text: &Text<'_>) -> Result<Document, Mistake> {
    let lines = lexer::lines(text)?;
    statement::follow(text, &lines)
}

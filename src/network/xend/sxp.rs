// SPDX-License-Identifier: MIT OR Apache-2.0
//! The language of xend's configuration, read as xend's own parser (`sxp.py`) reads it, with all its oddities, and with
//! the places in the file that everything came from. Only where a file ends inside a list xend may drop that list without
//! a word; here it is an error.
//!
//! It is a language of bytes: a file may be latin-1 as well as UTF-8.

use std::ops::Range;

/// ctrl-D: what comes after it is not read.
pub const END: u8 = 4;

/// Lists inside lists are no deeper in any file that a person has written. More of them would only exhaust the stack.
const MAX_DEPTH: usize = 64;

/// Why xend would not take the file, or would not read it as it looks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Error {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub why: &'static str,
}

/// What an expression stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// An atom or a string: xend does not tell one from the other.
    Word(Vec<u8>),
    /// `( … )`
    List(Vec<Value>),
}

impl Value {
    /// What follows `name`, if it is a list that begins with it.
    pub fn after(&self, name: &str) -> Option<&[Value]> {
        match self {
            Self::List(values) => match values.split_first()? {
                (Self::Word(word), rest) if word == name.as_bytes() => Some(rest),
                _ => None,
            },
            Self::Word(_) => None,
        }
    }
}

/// An expression of the top level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// The bytes it is written with.
    pub span: Range<usize>,
    /// The line it begins in, counted from 1.
    pub line: usize,
    /// What it stands for.
    pub value: Value,
}

/// What is in a file. The bytes that belong to no form and no comment are white space.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Document {
    /// In their order.
    pub forms: Vec<Form>,
    /// The comments outside of forms, from `#` to before the end of the line.
    pub comments: Vec<Range<usize>>,
    /// Where xend stops to read: at a ctrl-D, or at the end of the file.
    pub end: usize,
}

/// The number of the line that `at` is in, counted from 1.
pub fn line(bytes: &[u8], at: usize) -> usize {
    1 + bytes.iter().take(at).filter(|byte| **byte == b'\n').count()
}

/// Whether it only parts what is before and after it.
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// Reads a whole file.
pub fn parse(bytes: &[u8]) -> Result<Document, Error> {
    let mut document = Document {
        forms: Vec::new(),
        comments: Vec::new(),
        end: bytes.len(),
    };
    // The lists that are open, each with the place and the line of its "(".
    let mut open: Vec<((usize, usize), Vec<Value>)> = Vec::new();
    let mut at = 0;
    // Counted along: to count from the beginning for each form would take long in a file of many.
    let (mut here, mut counted) = (1, 0);
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        here += line(&bytes[counted..start], usize::MAX) - 1;
        counted = start;
        at += 1;
        let error = |why| Error { line: here, why };
        let (begin, value) = match byte {
            _ if is_space(byte) => continue,
            b'#' => {
                at = end_of_line(bytes, start);
                if open.is_empty() {
                    document.comments.push(start..at);
                }
                continue;
            }
            b'(' if open.len() == MAX_DEPTH => return Err(error("there are too many lists inside each other")),
            b'(' => {
                open.push(((start, here), Vec::new()));
                continue;
            }
            b')' => match open.pop() {
                Some((begin, values)) => (begin, Value::List(values)),
                None => return Err(error("there is a \")\" without its \"(\"")),
            },
            b'\'' | b'"' => {
                let (word, end) = string(bytes, at, byte).map_err(error)?;
                at = end;
                ((start, here), Value::Word(word))
            }
            0x21..=0x7e => {
                at = end_of_atom(bytes, at);
                ((start, here), Value::Word(bytes[start..at].to_vec()))
            }
            END => {
                document.end = start;
                break;
            }
            _ => return Err(error("such a character can only be in a comment or in quotes")),
        };
        match open.last_mut() {
            Some((_, values)) => values.push(value),
            None => {
                let (begin, line) = begin;
                document.forms.push(Form {
                    span: begin..at,
                    line,
                    value,
                });
            }
        }
    }
    match open.first() {
        Some(((_, line), _)) => Err(Error {
            line: *line,
            why: "the \"(\" is never closed",
        }),
        None => Ok(document),
    }
}

/// Where the line that `at` is in ends: at its `\n`, or where there is nothing more.
pub fn end_of_line(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
}

/// Of an atom that has begun before `at`. A quote does not end one, and neither does a byte that could not begin one.
/// (Before Xen 4.1 a `!` did; no script's name has one.)
fn end_of_atom(bytes: &[u8], at: usize) -> usize {
    let ends = |byte: &u8| b"{}()<>[];#".contains(byte) || is_space(*byte);
    bytes[at..]
        .iter()
        .position(ends)
        .map_or(bytes.len(), |length| at + length)
}

/// A string whose opening quote is before `at`, and where it ends.
fn string(bytes: &[u8], mut at: usize, quote: u8) -> Result<(Vec<u8>, usize), &'static str> {
    let get = |at: usize| bytes.get(at).copied().ok_or("the string is never closed");
    let mut word = Vec::new();
    loop {
        let byte = get(at)?;
        at += 1;
        if byte == quote {
            return Ok((word, at));
        }
        if byte != b'\\' {
            word.push(byte);
            continue;
        }
        let escaped = get(at)?;
        at += 1;
        word.push(match escaped {
            b'a' => 7,
            b'b' => 8,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 11,
            b'f' => 12,
            b'r' => b'\r',
            b'\\' | b'\'' | b'"' => escaped,
            b'x' => {
                let (Some(high), Some(low)) = (hex(get(at)?), hex(get(at + 1)?)) else {
                    return Err("xend fails at a \"\\x\" without two hexadecimal digits");
                };
                at += 2;
                high * 16 + low
            }
            b'0'..=b'7' => {
                let digits = bytes[at - 1..].iter().take(3);
                let digits: Vec<u8> = digits
                    .take_while(|byte| (b'0'..=b'7').contains(byte))
                    .copied()
                    .collect();
                at += digits.len() - 1;
                let code = digits.iter().fold(0, |code, digit| code * 8 + u32::from(digit - b'0'));
                u8::try_from(code).map_err(|_| "an octal escape is at most \\377")?
            }
            // The character itself is lost.
            _ => b'\\',
        });
    }
}

/// What xend takes a hexadecimal digit for: its letters begin at 0, by mistake.
fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A'),
        b'a'..=b'f' => Some(digit - b'a'),
        _ => None,
    }
}

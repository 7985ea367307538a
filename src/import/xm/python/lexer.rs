// SPDX-License-Identifier: MIT OR Apache-2.0
//! Python's logical lines and their tokens.

use super::literal;
use crate::import::error::Mistake;
use crate::import::text::Text;

/// A token, and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Name(String),
    /// `None`: it does not fit into 64 bits.
    Integer(Option<i64>),
    Fraction(String),
    /// A string, or why it cannot be one here.
    Text(Result<String, &'static str>),
    Sign(&'static str),
}

impl Token {
    pub(super) fn is(&self, sign: &str) -> bool {
        matches!(self.kind, Kind::Sign(own) if own == sign)
    }

    pub(super) fn name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Name(name) => Some(name),
            _ => None,
        }
    }
}

/// A logical line: it goes on over the ends of lines that are in brackets or behind a backslash.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) indent: usize,
    /// At least one.
    pub(super) tokens: Vec<Token>,
}

/// The longest first.
const SIGNS: [&str; 47] = [
    "**=", "//=", "<<=", ">>=", "...", "**", "//", "<<", ">>", "<=", ">=", "==", "!=", "<>", "+=", "-=", "*=", "/=",
    "%=", "&=", "|=", "^=", "->", "+", "-", "*", "/", "%", "(", ")", "[", "]", "{", "}", ",", ":", ".", ";", "@", "=",
    "<", ">", "&", "|", "^", "~", "`",
];

/// The file's logical lines.
pub(super) fn lines(text: &Text<'_>) -> Result<Vec<Line>, Mistake> {
    let mut lexer = Lexer {
        text,
        at: if text.bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 },
        open: Vec::new(),
    };
    let mut lines = Vec::new();
    while lexer.at < text.bytes.len() {
        if let Some(line) = lexer.line()? {
            lines.push(line);
        }
    }
    Ok(lines)
}

struct Lexer<'a> {
    text: &'a Text<'a>,
    at: usize,
    /// The brackets that are open, and where.
    open: Vec<(u8, usize)>,
}

impl Lexer<'_> {
    fn mistake<T>(&self, at: usize, why: impl Into<String>) -> Result<T, Mistake> {
        Err(Mistake {
            place: self.text.place(at),
            why: why.into(),
        })
    }

    fn peek(&self) -> u8 {
        self.text.at(self.at)
    }

    /// Steps over the end of a line, if there is one.
    fn newline(&mut self) -> bool {
        match self.peek() {
            b'\n' => self.at += 1,
            b'\r' => self.at += 1 + usize::from(self.text.at(self.at + 1) == b'\n'),
            _ => return false,
        }
        true
    }

    /// A logical line, `None` if it is empty.
    fn line(&mut self) -> Result<Option<Line>, Mistake> {
        let indent = self.indent();
        let mut tokens = Vec::new();
        while self.at < self.text.bytes.len() {
            if self.newline() {
                if self.open.is_empty() {
                    break;
                }
                continue;
            }
            match self.peek() {
                b' ' | b'\t' | 0x0c => self.at += 1,
                b'#' => {
                    while self.at < self.text.bytes.len() && !matches!(self.peek(), b'\n' | b'\r') {
                        self.at += 1;
                    }
                }
                b'\\' => {
                    let begin = self.at;
                    self.at += 1;
                    if !self.newline() {
                        return self.mistake(begin, "behind a backslash the line must end");
                    }
                }
                _ => tokens.push(self.token()?),
            }
        }
        if self.at >= self.text.bytes.len()
            && let Some((sign, at)) = self.open.last()
        {
            return self.mistake(*at, format!("this {:?} is never closed", char::from(*sign)));
        }
        Ok((!tokens.is_empty()).then_some(Line { indent, tokens }))
    }

    fn indent(&mut self) -> usize {
        let mut column = 0;
        loop {
            match self.peek() {
                b' ' => column += 1,
                b'\t' => column = (column / 8 + 1) * 8,
                0x0c => column = 0,
                _ => return column,
            }
            self.at += 1;
        }
    }

    fn token(&mut self) -> Result<Token, Mistake> {
        let at = self.at;
        let kind = match self.peek() {
            b'0'..=b'9' => self.number(),
            b'.' if self.text.at(at + 1).is_ascii_digit() => self.number(),
            b'"' | b'\'' => self.string("")?,
            byte if byte == b'_' || byte.is_ascii_alphabetic() => {
                let name = self.word();
                let prefix = ["r", "u", "b", "ur", "br"].contains(&name.to_ascii_lowercase().as_str());
                if prefix && matches!(self.peek(), b'"' | b'\'') {
                    self.string(&name.to_ascii_lowercase())?
                } else {
                    Kind::Name(name)
                }
            }
            _ => self.sign()?,
        };
        Ok(Token { kind, at })
    }

    fn word(&mut self) -> String {
        let rest = &self.text.bytes[self.at..];
        let length = rest
            .iter()
            .position(|byte| !(*byte == b'_' || byte.is_ascii_alphanumeric()));
        let length = length.unwrap_or(rest.len());
        self.at += length;
        String::from_utf8_lossy(&rest[..length]).into_owned()
    }

    /// A number, with everything that sticks to it.
    fn number(&mut self) -> Kind {
        let begin = self.at;
        loop {
            self.word();
            let exponent = self.at > begin
                && matches!(self.text.at(self.at - 1), b'e' | b'E')
                && matches!(self.peek(), b'+' | b'-')
                && !self.text.bytes[begin..self.at].starts_with(b"0x");
            if !(self.peek() == b'.' || exponent) {
                break;
            }
            self.at += 1;
        }
        literal::number(&String::from_utf8_lossy(&self.text.bytes[begin..self.at]))
    }

    /// A string, whose prefix has been read.
    fn string(&mut self, prefix: &str) -> Result<Kind, Mistake> {
        let begin = self.at;
        let quote = self.peek();
        let triple = self.text.bytes[begin..].starts_with(&[quote; 3]);
        let length = if triple { 3 } else { 1 };
        self.at += length;
        let content = self.at;
        loop {
            if self.at >= self.text.bytes.len() || !triple && matches!(self.peek(), b'\n' | b'\r') {
                return self.mistake(begin, "this string does not end");
            }
            match self.peek() {
                b'\\' => {
                    self.at += 1;
                    if !self.newline() {
                        self.at += 1;
                    }
                }
                byte if byte == quote && (!triple || self.text.bytes[self.at..].starts_with(&[quote; 3])) => break,
                _ => self.at += 1,
            }
        }
        let raw = self.text.bytes.get(content..self.at).unwrap_or_default();
        self.at += length;
        Ok(Kind::Text(literal::string(raw, prefix)))
    }

    fn sign(&mut self) -> Result<Kind, Mistake> {
        let rest = &self.text.bytes[self.at..];
        let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(sign.as_bytes())) else {
            return self.mistake(self.at, format!("{} cannot stand here", self.text.shown(self.at)));
        };
        match sign.as_bytes() {
            [open @ (b'(' | b'[' | b'{')] => self.open.push((*open, self.at)),
            [close @ (b')' | b']' | b'}')] => {
                let open = match close {
                    b')' => b'(',
                    b']' => b'[',
                    _ => b'{',
                };
                if self.open.pop().map(|(sign, _)| sign) != Some(open) {
                    return self.mistake(self.at, format!("this {sign:?} closes nothing"));
                }
            }
            _ => {}
        }
        self.at += sign.len();
        Ok(Kind::Sign(sign))
    }
}

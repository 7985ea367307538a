// SPDX-License-Identifier: MIT OR Apache-2.0
//! xl's own language (xl.cfg(5)), taken exactly as its parser takes it (tools/libs/util/libxlu_cfg_l.l and _y.y), with
//! three limits of ours: no NUL, text in UTF-8, and lists not too deep in one another.

pub(super) mod disk;

use std::collections::HashMap;

use super::error::Mistake;
use super::text::Text;
use super::value::{Document, Setting, Value};

/// How deep lists may be in one another. xl's parser gives up somewhere in the thousands.
const DEPTH: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Key(String),
    /// A string or a number; the language does not tell them apart.
    Atom(String),
    /// One of `, [ ] = ;`.
    Sign(u8),
    Add,
    Newline,
    End,
}

/// Reads the file.
pub(super) fn read(text: &Text<'_>) -> Result<Document, Mistake> {
    let mut reader = Reader {
        text,
        at: 0,
        token: Token::End,
        begin: 0,
    };
    reader.next()?;
    reader.file()
}

struct Reader<'a> {
    text: &'a Text<'a>,
    /// Behind the token.
    at: usize,
    token: Token,
    /// Where the token begins.
    begin: usize,
}

impl Reader<'_> {
    fn mistake<T>(&self, at: usize, why: impl Into<String>) -> Result<T, Mistake> {
        Err(Mistake {
            place: self.text.place(at),
            why: why.into(),
        })
    }

    /// While bytes are of a kind.
    fn take(&mut self, of: impl Fn(u8) -> bool) -> String {
        let rest = &self.text.bytes[self.at..];
        let length = rest.iter().position(|byte| !of(*byte)).unwrap_or(rest.len());
        self.at += length;
        String::from_utf8_lossy(&rest[..length]).into_owned()
    }

    fn next(&mut self) -> Result<(), Mistake> {
        self.take(|byte| byte == b' ' || byte == b'\t');
        self.begin = self.at;
        let bytes = self.text.bytes;
        self.token = match self.text.at(self.at) {
            _ if self.at == bytes.len() => Token::End,
            b'a'..=b'z' => {
                Token::Key(self.take(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._".contains(&b)))
            }
            b'0'..=b'9' => Token::Atom(self.take(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f' | b'x'))),
            sign @ (b',' | b'[' | b']' | b'=' | b';') => {
                self.at += 1;
                Token::Sign(sign)
            }
            b'+' if self.text.at(self.at + 1) == b'=' => {
                self.at += 2;
                Token::Add
            }
            b'\n' => {
                self.at += 1;
                Token::Newline
            }
            // Whatever it is, xl overlooks the last byte of a file that begins nothing: its lexer has it in hand when the
            // file ends.
            _ if self.at + 1 == bytes.len() => {
                self.at += 1;
                Token::End
            }
            b'#' => {
                self.take(|byte| byte != b'\n');
                if self.at == bytes.len() {
                    return self.mistake(
                        self.begin,
                        "a comment on the last line needs an end of the line behind it",
                    );
                }
                self.at += 1;
                Token::Newline
            }
            quote @ (b'"' | b'\'') => Token::Atom(self.string(quote)?),
            b'\r' => {
                let why = "'\\r' cannot stand here: lines must end with '\\n' alone, and not as on Windows";
                return self.mistake(self.at, why);
            }
            _ => return self.mistake(self.at, format!("{} cannot stand here", self.text.shown(self.at))),
        };
        Ok(())
    }

    /// A string in quotes, on one line.
    fn string(&mut self, quote: u8) -> Result<String, Mistake> {
        let begin = self.at;
        let mut content = Vec::new();
        self.at += 1;
        loop {
            let byte = self.text.at(self.at);
            if self.at >= self.text.bytes.len() || byte == b'\n' {
                return self.mistake(begin, "this string does not end on its line");
            }
            self.at += 1;
            match byte {
                b'\\' => self.escape(&mut content)?,
                _ if byte == quote => break,
                _ => content.push(byte),
            }
        }
        match String::from_utf8(content) {
            Ok(content) => Ok(content),
            Err(_) => self.mistake(begin, "this string is not in UTF-8"),
        }
    }

    fn escape(&mut self, content: &mut Vec<u8>) -> Result<(), Mistake> {
        let byte = self.text.at(self.at);
        self.at += 1;
        let plain = match byte {
            b'"' | b'\'' | b'\\' => byte,
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            // The number that follows the first digit, read as a decimal one, and then forgotten: that is what xl does.
            b'0'..=b'7' => {
                let rest = self.text.bytes.get(self.at..).unwrap_or_default();
                let length = strtoul(&rest[..rest.len().min(3)]);
                if length < 2 {
                    return self.mistake(self.at - 2, "xl takes no such escape; write the character itself");
                }
                self.at += length;
                return Ok(());
            }
            // \x as well, which is broken in xl.
            _ => return self.mistake(self.at - 2, "xl takes no such escape; write the character itself"),
        };
        content.push(plain);
        Ok(())
    }

    fn is(&self, sign: u8) -> bool {
        self.token == Token::Sign(sign)
    }

    fn file(&mut self) -> Result<Document, Mistake> {
        let mut found: HashMap<String, Setting> = HashMap::new();
        loop {
            match &self.token {
                Token::End => break,
                Token::Newline | Token::Sign(b';') => self.next()?,
                Token::Key(key) => {
                    let key = key.clone();
                    let setting = self.assignment(key, &mut found)?;
                    found.insert(setting.key.clone(), setting);
                    if !(self.is(b';') || matches!(self.token, Token::Newline | Token::End)) {
                        return self.mistake(self.begin, "this value should end here, with its line");
                    }
                }
                _ => {
                    let what = "expected a key: lower-case letters, digits, \"_\" and \".\"";
                    return self.mistake(self.begin, what);
                }
            }
        }
        let mut settings: Vec<Setting> = found.into_values().collect();
        settings.sort_by(|a, b| (a.line, &a.key).cmp(&(b.line, &b.key)));
        Ok(Document {
            settings,
            ..Document::default()
        })
    }

    fn assignment(&mut self, key: String, found: &mut HashMap<String, Setting>) -> Result<Setting, Mistake> {
        let begin = self.begin;
        self.next()?;
        let added = match self.token {
            Token::Sign(b'=') => false,
            Token::Add => true,
            _ => return self.mistake(self.begin, format!("expected \"=\" behind \"{key}\"")),
        };
        self.next()?;
        let line = self.text.line(self.begin);
        let value = self.value(0)?;
        // Taken out, so that a long row of additions copies nothing.
        let before = if added { found.remove(&key) } else { None };
        let value = match before {
            None => value,
            Some(before) => match joined(before.value, value) {
                Some(value) => value,
                None => return self.mistake(begin, format!("{key}: a list and a string cannot be put together")),
            },
        };
        Ok(Setting {
            key,
            value,
            line,
            added,
            used: false,
        })
    }

    fn value(&mut self, depth: usize) -> Result<Value, Mistake> {
        if let Token::Atom(text) = &self.token {
            let text = text.clone();
            let raw = self.text.at(self.begin).is_ascii_digit();
            self.next()?;
            return Ok(match text.parse::<i64>() {
                Ok(number) if raw && number.to_string() == text => Value::Number(number),
                _ => Value::Text(text),
            });
        }
        if !self.is(b'[') {
            return self.mistake(self.begin, "expected a string in quotes, a number or a list");
        }
        if depth == DEPTH {
            return self.mistake(self.begin, format!("lists are more than {DEPTH} deep in one another"));
        }
        self.next()?;
        let mut items = Vec::new();
        self.newlines()?;
        while !self.is(b']') {
            items.push(self.value(depth + 1)?);
            self.newlines()?;
            if self.is(b',') {
                self.next()?;
                self.newlines()?;
            } else if !self.is(b']') {
                return self.mistake(self.begin, "expected \",\" or \"]\"");
            }
        }
        self.next()?;
        Ok(Value::List(items))
    }

    fn newlines(&mut self) -> Result<(), Mistake> {
        while self.token == Token::Newline {
            self.next()?;
        }
        Ok(())
    }
}

/// How many bytes C's strtoul() reads of this as a decimal number.
fn strtoul(bytes: &[u8]) -> usize {
    let white = bytes.iter().take_while(|b| matches!(b, b' ' | 9..=13)).count();
    let sign = usize::from(matches!(bytes.get(white), Some(b'+' | b'-')));
    let digits = bytes[white + sign..].iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 { 0 } else { white + sign + digits }
}

/// `+=`: one string or list behind the other.
fn joined(before: Value, value: Value) -> Option<Value> {
    match (before, value) {
        (Value::List(mut before), Value::List(items)) => {
            before.extend(items);
            Some(Value::List(before))
        }
        (Value::List(_), _) | (_, Value::List(_)) => None,
        (before, value) => {
            let mut text = atom(before);
            text.push_str(&atom(value));
            Some(Value::Text(text))
        }
    }
}

/// A string or number as xl keeps it.
fn atom(value: Value) -> String {
    match value {
        Value::Text(text) => text,
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Option<Vec<(String, Value)>> {
        let document = read(&Text::new(text.as_bytes())).ok()?;
        Some(document.settings.into_iter().map(|it| (it.key, it.value)).collect())
    }

    /// As libxlutil 4.17 was seen to do; tests/import compares with it where it is installed.
    #[test]
    fn what_xl_takes() {
        let text = |text: &str| Value::Text(text.to_owned());
        for (file, value) in [
            ("a=256", Value::Number(256)),
            ("a=010", text("010")),
            ("a='x'; a = \"y\"", text("y")),
            ("a='x'\na+='y'", text("xy")),
            ("a=1;a+=2", text("12")),
            ("a=['x',\n# one\n'y',\n]", Value::List(vec![text("x"), text("y")])),
            (
                "a=[1]\na+=[[2]]",
                Value::List(vec![Value::Number(1), Value::List(vec![Value::Number(2)])]),
            ),
            ("a='\\t\\'\\101'", text("\t'")),
            ("a=1\n#", Value::Number(1)),
            ("a=1-", Value::Number(1)),
        ] {
            assert_eq!(values(file), Some(vec![("a".into(), value)]), "{file}");
        }
        assert_eq!(values("\n;;# nothing\n"), Some(Vec::new()));
        for file in [
            "a=1\n# no end",
            "a=1\r\n",
            "A=1",
            "a=-1",
            "a=(1)",
            "a=True",
            "a='%s' % 1",
            "a='b' 'c'",
            "a=u'b'",
            "a='''b'''",
            "a=1.5",
            "a='\\x41'",
            "a='\\q'",
            "a='b\n'",
            "a=[,]",
            "a=[1 2]",
            "a=1 b=2",
            "a=\n1",
            "a=[1];a+='2'",
            "\u{feff}a=1",
            "a",
            "a=[1",
        ] {
            assert_eq!(values(file), None, "{file}");
        }
    }
}

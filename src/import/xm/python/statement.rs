// SPDX-License-Identifier: MIT OR Apache-2.0
//! Following a file line by line. What is no assignment of a value that can be reckoned is noted, and every name that it could
//! set is unknown from there on.

use super::expression::{Refusal, Room, evaluate, operate};
use super::lexer::{Kind, Line, Token};
use super::names::Names;
use super::targets::{COMPOUND, WORDS, targets};
use crate::import::error::Mistake;
use crate::import::text::Text;
use crate::import::value::{Document, Note};

/// So many lines that cannot be read make no guest's file.
const NOTES: usize = 1000;

/// Words that go on with what another began.
const FOLLOWING: [&str; 4] = ["elif", "else", "except", "finally"];

/// Follows the lines of a file.
pub(super) fn follow(text: &Text<'_>, lines: &[Line]) -> Result<Document, Mistake> {
    let mut follower = Follower {
        text,
        names: Names::default(),
        room: Room::new(),
        notes: Vec::new(),
    };
    let mut rest = lines;
    while let Some(line) = rest.first() {
        if line.indent > 0 {
            return Err(follower.mistake(
                line.tokens[0].at,
                "this line is indented, and nothing above it asks for that",
            ));
        }
        let length = 1 + block(rest);
        follower.line(&rest[..length])?;
        rest = &rest[length..];
    }
    Ok(follower.document())
}

/// How many lines belong to the first: those that are indented, if it ends with a colon, and what goes on with it.
fn block(lines: &[Line]) -> usize {
    let begins = |line: &Line| line.tokens.last().is_some_and(|token| token.is(":"));
    let follows = |line: &Line| line.tokens[0].name().is_some_and(|name| FOLLOWING.contains(&name));
    let Some((first, rest)) = lines.split_first() else {
        return 0;
    };
    let mut inside = begins(first);
    let compound = first.tokens[0].name().is_some_and(|name| WORDS.contains(&name));
    rest.iter()
        .take_while(|line| {
            if line.indent > 0 {
                return inside;
            }
            inside = begins(line);
            compound && follows(line)
        })
        .count()
}

struct Follower<'a> {
    text: &'a Text<'a>,
    names: Names,
    room: Room,
    notes: Vec<Note>,
}

impl Follower<'_> {
    fn mistake(&self, at: usize, why: &str) -> Mistake {
        Mistake {
            place: self.text.place(at),
            why: why.to_owned(),
        }
    }

    /// One logical line with what is indented below it.
    fn line(&mut self, lines: &[Line]) -> Result<(), Mistake> {
        let [line] = lines else {
            let first = &lines[0].tokens[0];
            let last = lines.last().and_then(|line| line.tokens.last()).unwrap_or(first);
            let why = format!(
                "\"{}\" up to line {} needs Python, which is not run: see what it sets, and write that",
                first.name().unwrap_or("this"),
                self.text.line(last.at)
            );
            let parts = lines.iter().map(|line| &line.tokens[..]);
            return self.unknown(parts, Refusal { at: first.at, why });
        };
        // Whatever stands behind the colon depends on what is before it.
        let whole = [&line.tokens[..]];
        let compound = line.tokens[0].name().is_some_and(|name| COMPOUND.contains(&name));
        let statements = if compound { whole.to_vec() } else { split(&line.tokens) };
        for statement in statements {
            if let Err(refusal) = self.statement(statement) {
                self.unknown(std::iter::once(statement), refusal)?;
            }
        }
        Ok(())
    }

    /// Notes what cannot be followed, and forgets every name it may set.
    fn unknown<'t>(&mut self, parts: impl Iterator<Item = &'t [Token]>, refusal: Refusal) -> Result<(), Mistake> {
        if self.notes.len() == NOTES {
            return Err(self.mistake(refusal.at, "there are too many lines that cannot be followed"));
        }
        let mut note = Note::at(self.text.place(refusal.at), refusal.why);
        let mut lost = Vec::new();
        for (index, part) in parts.enumerate() {
            if let [first, next, ..] = part
                && index == 0
                && next.is("=")
            {
                note.key = first.name().map(str::to_owned);
            }
            let tokens: Vec<&Token> = part.iter().collect();
            for (name, change) in targets(&tokens) {
                lost.extend(self.names.forget(name, change, note.line));
            }
        }
        if !lost.is_empty() {
            note.why.push_str("; so it is not known what becomes of ");
            note.why.push_str(&lost.join(", "));
        }
        self.notes.push(note);
        Ok(())
    }

    fn statement(&mut self, tokens: &[Token]) -> Result<(), Refusal> {
        let Some(first) = tokens.first() else {
            return Ok(());
        };
        let refuse = |why: String| Err(Refusal { at: first.at, why });
        // A text by itself is a comment.
        if tokens.iter().all(|token| matches!(token.kind, Kind::Text(_)))
            || matches!(tokens, [one] if one.name() == Some("pass"))
        {
            return Ok(());
        }
        if let Some(word) = first.name().filter(|name| WORDS.contains(name)) {
            return refuse(format!(
                "\"{word}\" needs Python, which is not run: see what it does, and write that"
            ));
        }
        let end = tokens.last().map_or(0, |token| token.at + 1);
        let line = self.text.line(first.at);
        let mut targets = Vec::new();
        let mut rest = tokens;
        while let [name, equals, behind @ ..] = rest
            && let Some(name) = name.name()
            && equals.is("=")
        {
            targets.push(name);
            rest = behind;
        }
        if !targets.is_empty() {
            let value = evaluate(rest, end, &mut self.names, &mut self.room)?;
            let mut same = alias(rest);
            for target in targets {
                let size = value.weight();
                self.room.take(size).map_err(|why| Refusal { at: first.at, why })?;
                if !same.is_some_and(|other| self.names.share(target, other, line)) {
                    self.names.set(target, value.clone(), line);
                }
                same = same.or(Some(target));
            }
            return Ok(());
        }
        if let [name, sign, behind @ ..] = tokens
            && let (Some(name), Kind::Sign(sign)) = (name.name(), sign.kind.clone())
            && let Some(operator @ ("+" | "-" | "*" | "/" | "//" | "%")) = sign.strip_suffix('=')
        {
            let fail = |why| Refusal { at: first.at, why };
            let right = evaluate(behind, end, &mut self.names, &mut self.room)?;
            let left = self.names.value(name).map_err(fail)?.clone();
            let value = operate(operator, &left, &right, &mut self.room).map_err(fail)?;
            self.names.change(name, value, line, &mut self.room).map_err(fail)?;
            return Ok(());
        }
        if tokens.get(1).is_some_and(|token| token.is("(") || token.is(".")) {
            return refuse("this is a call, and ttvm runs no Python: see what it does, and write that".into());
        }
        refuse("this is no assignment to a name, and cannot be followed".into())
    }

    fn document(self) -> Document {
        let (settings, unknown) = self.names.finish();
        Document {
            settings,
            unknown,
            notes: self.notes,
        }
    }
}

/// The name that is all of an expression: its value is not a new one.
fn alias(tokens: &[Token]) -> Option<&str> {
    match tokens {
        [one] => one.name(),
        [open, inner @ .., close] if open.is("(") && close.is(")") => alias(inner),
        _ => None,
    }
}

/// The statements of a line: between the semicolons that are in no brackets.
fn split(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0_usize;
    tokens
        .split(|token| {
            if let Kind::Sign(sign) = token.kind {
                match sign {
                    "(" | "[" | "{" => depth += 1,
                    ")" | "]" | "}" => depth = depth.saturating_sub(1),
                    _ => {}
                }
            }
            depth == 0 && token.is(";")
        })
        .collect()
}

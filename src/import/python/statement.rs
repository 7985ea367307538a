// SPDX-License-Identifier: MIT OR Apache-2.0
//! Following a file line by line. What is no assignment of a value that can be reckoned is noted, and every name that it could
//! set is unknown from there on.

use std::collections::HashMap;

use super::expression::{Refusal, Room, evaluate, operate};
use super::lexer::{Kind, Line, Token};
use crate::import::error::Mistake;
use crate::import::text::Text;
use crate::import::value::{Document, Note, Setting, Value};

/// So many lines that can not be read make no guest's file.
const NOTES: usize = 1000;

/// Words that begin a statement which is no assignment.
const WORDS: [&str; 29] = [
    "and", "as", "assert", "break", "class", "continue", "def", "del", "elif", "else", "except", "exec", "finally",
    "for", "from", "global", "if", "import", "in", "is", "lambda", "not", "or", "print", "raise", "return", "try",
    "while", "with",
];
/// Those of them that go on with what another began.
const FOLLOWING: [&str; 4] = ["elif", "else", "except", "finally"];
/// Behind these stands a name that is set.
const SETTING: [&str; 7] = ["import", "as", "def", "class", "for", "global", "del"];

enum Binding {
    Known {
        value: Value,
        line: usize,
        used: bool,
    },
    /// Since a line that could not be followed.
    Unknown(usize),
}

/// What names stand for.
#[derive(Default)]
pub(super) struct Names(HashMap<String, Binding>);

impl Names {
    /// The value of a name, or why it has none here.
    pub(super) fn value(&mut self, name: &str) -> Result<&Value, String> {
        match self.0.get_mut(name) {
            Some(Binding::Known { value, used, .. }) => {
                *used = true;
                Ok(value)
            }
            Some(Binding::Unknown(line)) => Err(format!(
                "what \"{name}\" is depends on line {line}, which can not be followed"
            )),
            None => Err(format!("nothing before it says what \"{name}\" is")),
        }
    }

    fn set(&mut self, name: &str, value: Value, line: usize) {
        let used = false;
        self.0.insert(name.to_owned(), Binding::Known { value, line, used });
    }
}

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
            let all: Vec<&Token> = lines.iter().flat_map(|line| &line.tokens).collect();
            let last = self.text.line(all.last().map_or(0, |token| token.at));
            let word = lines[0].tokens[0].name().unwrap_or("this");
            let why = format!(
                "\"{word}\" up to line {last} needs Python, which is not run: see what it sets, and write that"
            );
            return self.unknown(&all, Refusal { at: all[0].at, why });
        };
        for statement in split(&line.tokens) {
            if let Err(refusal) = self.statement(statement) {
                let all: Vec<&Token> = statement.iter().collect();
                self.unknown(&all, refusal)?;
            }
        }
        Ok(())
    }

    /// Notes what can not be followed, and forgets every name it may set.
    fn unknown(&mut self, tokens: &[&Token], refusal: Refusal) -> Result<(), Mistake> {
        if self.notes.len() == NOTES {
            return Err(self.mistake(refusal.at, "there are too many lines that can not be followed"));
        }
        let mut note = Note::at(self.text.place(refusal.at), refusal.why);
        let (mut depth, mut lost) = (0_usize, Vec::new());
        for (index, token) in tokens.iter().enumerate() {
            let name = match &token.kind {
                Kind::Sign("(" | "[" | "{") => {
                    depth += 1;
                    continue;
                }
                Kind::Sign(")" | "]" | "}") => {
                    depth = depth.saturating_sub(1);
                    continue;
                }
                Kind::Name(name) if !WORDS.contains(&name.as_str()) => name,
                _ => continue,
            };
            let before = index.checked_sub(1).map(|before| &tokens[before].kind);
            let set = match (before, tokens.get(index + 1).map(|next| &next.kind)) {
                (Some(Kind::Name(word)), _) if SETTING.contains(&word.as_str()) => true,
                (Some(Kind::Sign(",")), _) | (_, Some(Kind::Sign(","))) if depth == 0 => true,
                (_, Some(Kind::Sign(sign))) => sign.ends_with('='),
                _ => false,
            };
            if set && let Some(Binding::Known { .. }) = self.names.0.insert(name.clone(), Binding::Unknown(note.line)) {
                lost.push(name.as_str());
            }
        }
        if !lost.is_empty() {
            note.why.push_str("; so it is not known what becomes of ");
            note.why.push_str(&lost.join(", "));
        }
        if let [first, next, ..] = tokens
            && next.is("=")
        {
            note.key = first.name().map(str::to_owned);
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
            for target in targets {
                let size = value.weight();
                self.room.take(size).map_err(|why| Refusal { at: first.at, why })?;
                self.names.set(target, value.clone(), line);
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
            self.names.set(name, value, line);
            return Ok(());
        }
        if tokens.get(1).is_some_and(|token| token.is("(") || token.is(".")) {
            return refuse("this is a call, and ttvm runs no Python: see what it does, and write that".into());
        }
        refuse("this is no assignment to a name, and can not be followed".into())
    }

    fn document(self) -> Document {
        let mut settings = Vec::new();
        for (key, binding) in self.names.0 {
            if let Binding::Known { value, line, used } = binding {
                settings.push(Setting {
                    key,
                    value,
                    line,
                    added: false,
                    used,
                });
            }
        }
        settings.sort_by(|a, b| (a.line, &a.key).cmp(&(b.line, &b.key)));
        Document {
            settings,
            notes: self.notes,
        }
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

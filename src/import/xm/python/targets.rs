// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which names a statement may set that cannot be followed. Rather one too many than one too few: of a name that is thought to
//! be unknown a person is told, and a value that is out of date is believed.

use super::lexer::{Kind, Token};

/// Words that begin a statement which is no assignment.
pub(super) const WORDS: [&str; 29] = [
    "and", "as", "assert", "break", "class", "continue", "def", "del", "elif", "else", "except", "exec", "finally",
    "for", "from", "global", "if", "import", "in", "is", "lambda", "not", "or", "print", "raise", "return", "try",
    "while", "with",
];
/// Those of them that have other statements behind a colon.
pub(super) const COMPOUND: [&str; 11] = [
    "class", "def", "elif", "else", "except", "finally", "for", "if", "try", "while", "with",
];
/// Behind these stand names that are set.
const SETTING: [&str; 8] = ["import", "as", "def", "class", "for", "global", "del", "except"];
/// Signs that end with `=`, and of whose left side something becomes.
const AUGMENTED: [&str; 12] = [
    "+=", "-=", "*=", "/=", "//=", "%=", "**=", "<<=", ">>=", "&=", "|=", "^=",
];

/// What becomes of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It stands for something else.
    Bound,
    /// `+=` and the like: what it stands for is changed, or it stands for something else.
    Augmented,
    /// Something is done with what it stands for.
    Touched,
}

/// The names that these tokens may change, which are one statement or several with colons and semicolons between them.
pub(super) fn targets<'a>(tokens: &[&'a Token]) -> Vec<(&'a str, Change)> {
    let tokens = located(tokens);
    let mut found = Vec::new();
    for piece in tokens.split(|token| token.depth == 0 && (token.is(":") || token.is(";"))) {
        statement(piece, &mut found);
    }
    found
}

/// A token, and what it is in.
struct Located<'a> {
    token: &'a Token,
    /// How many brackets it is in.
    depth: usize,
    /// Whether one of them is an index or holds the arguments of a call.
    inside: bool,
    /// Whether it follows a dot.
    attribute: bool,
}

impl Located<'_> {
    fn is(&self, sign: &str) -> bool {
        self.token.is(sign)
    }
}

fn located<'a>(tokens: &[&'a Token]) -> Vec<Located<'a>> {
    // Of each bracket that is open, whether it is an index or a call, or in one.
    let mut open: Vec<bool> = Vec::new();
    let mut before: Option<&Token> = None;
    let mut all = Vec::with_capacity(tokens.len());
    for token in tokens {
        if let Kind::Sign(")" | "]" | "}") = token.kind {
            open.pop();
        }
        all.push(Located {
            token,
            depth: open.len(),
            inside: open.last().copied().unwrap_or(false),
            attribute: before.is_some_and(|before| before.is(".")),
        });
        if let Kind::Sign("(" | "[" | "{") = token.kind {
            let behind_a_value = before.is_some_and(|before| match &before.kind {
                Kind::Name(name) => !WORDS.contains(&name.as_str()),
                Kind::Text(_) => true,
                Kind::Sign(sign) => matches!(*sign, ")" | "]"),
                _ => false,
            });
            open.push(behind_a_value || open.last().copied().unwrap_or(false));
        }
        before = Some(token);
    }
    all
}

fn statement<'a>(piece: &[Located<'a>], found: &mut Vec<(&'a str, Change)>) {
    let sign = |token: &Located<'_>| match token.token.kind {
        Kind::Sign("=") if token.depth == 0 => Some(Change::Bound),
        Kind::Sign(sign) if token.depth == 0 && AUGMENTED.contains(&sign) => Some(Change::Augmented),
        _ => None,
    };
    let assigned = piece.iter().rposition(|token| sign(token).is_some());
    let change = assigned.and_then(|at| sign(&piece[at]));
    // Whether the names that follow are set, by a word that says so.
    let mut setting = false;
    for (index, token) in piece.iter().enumerate() {
        let Some(name) = token.token.name() else {
            continue;
        };
        if WORDS.contains(&name) {
            setting = SETTING.contains(&name);
            continue;
        }
        if token.attribute {
            continue;
        }
        let next = piece.get(index + 1);
        if next.is_some_and(|next| next.is(".") || next.is("[")) && !setting {
            found.push((name, Change::Touched));
            continue;
        }
        match change {
            _ if setting && next.is_some_and(|next| next.is("[")) => found.push((name, Change::Touched)),
            _ if setting => {
                found.push((name, Change::Bound));
                // Of `def f(a, b)` the arguments are its own.
                setting = !next.is_some_and(|next| next.is("("));
            }
            Some(change) if assigned.is_some_and(|at| index < at) && !token.inside => found.push((name, change)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::text::Text;
    use crate::import::xm::python::lexer;

    #[test]
    fn what_a_statement_may_change() {
        for (statement, expected) in [
            ("a = f()", "a="),
            ("a = b = f()", "a= b="),
            ("VG, LV = f()", "VG= LV="),
            ("(a, [b, c]) = f()", "a= b= c="),
            ("a += f()", "a+"),
            ("a.b = 1", "a."),
            ("a[i] = c", "a."),
            ("a.append(b)", "a."),
            ("f(a=1, b=2)", ""),
            ("f(a)[0] = 1", "f="),
            ("if a >= 512: b = 1", "b="),
            ("if a == 1 or a != 2 and a <= 3: b = 1; c += 1", "b= c+"),
            ("print a, b", ""),
            ("assert a, b", ""),
            ("return a, b", ""),
            ("import os, re", "os= re="),
            ("import os.path as p", "os= p="),
            ("from a.b import (c, d as e)", "a. c= d= e="),
            ("for a, b in c.d: e = a", "a= b= c. e="),
            ("def f(a, b=1): return a", "f="),
            ("class A(B): pass", "A="),
            ("del a, b[0]", "a= b."),
            ("global a, b", "a= b="),
            ("with open(a) as b: pass", "b="),
            ("except A, e: pass", "A= e="),
            ("c = [x for x in y]", "c= x="),
            ("a = lambda b: b", "a="),
        ] {
            let text = Text::new(statement.as_bytes());
            let lines = lexer::lines(&text).expect("a line");
            let tokens: Vec<&Token> = lines[0].tokens.iter().collect();
            let shown = |(name, change): (&str, Change)| {
                let sign = match change {
                    Change::Bound => "=",
                    Change::Augmented => "+",
                    Change::Touched => ".",
                };
                format!("{name}{sign}")
            };
            let found: Vec<String> = targets(&tokens).into_iter().map(shown).collect();
            let expected: Vec<&str> = expected.split_whitespace().collect();
            assert_eq!(found, expected, "{statement}");
        }
    }
}

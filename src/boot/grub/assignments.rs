// SPDX-License-Identifier: MIT OR Apache-2.0
//! /etc/default/grub of another tree, which may be anybody's: its assignments are read by the rules of a shell, and nothing
//! in it is run. What is no plain assignment is said.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// Words with which a shell begins something that goes over several commands.
const COMPOUND: [&str; 8] = ["if", "case", "for", "while", "until", "{", "(", "function"];

/// What all values together may have of other ones. A few lines double a value so often that no memory holds it, and no program
/// can be handed more than this (execve(2)).
const ROOM: usize = 1 << 20;

/// Why a word cannot be had without a shell.
struct Shell;

/// Adds what `text` assigns to `variables`, and what it says else to `notes`, of the file `name`.
pub fn read(text: &str, name: &str, variables: &mut BTreeMap<String, String>, notes: &mut Vec<String>) {
    let mut reader = Reader {
        rest: text.chars().peekable(),
        line: 1,
        room: ROOM,
    };
    while let Some(first) = reader.begin() {
        let line = reader.line;
        let mut note = |what: &str| notes.push(format!("{name}:{line}: {what}"));
        match reader.command(first, variables) {
            Command::Assignments(assignments) => {
                for (variable, value) in assignments {
                    match value {
                        Some(value) => drop(variables.insert(variable, value)),
                        None => {
                            note(&format!(
                                "{variable} is what a shell makes of it, and none is run: it counts as not set"
                            ));
                            variables.remove(&variable);
                        }
                    }
                }
            }
            Command::Other(word) if COMPOUND.contains(&word.as_str()) || word.contains("()") => {
                note(&format!("from {word:?} on this is a program, and it is not run"));
                return;
            }
            Command::Other(word) => note(&format!("{word:?} is no assignment, and it is not run")),
        }
    }
}

/// One command.
enum Command {
    /// Variables, with values where those can be had.
    Assignments(Vec<(String, Option<String>)>),
    /// Something else, which begins so.
    Other(String),
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
    /// What values may still have of others.
    room: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        self.line += usize::from(next == '\n');
        Some(next)
    }

    /// The first character of the next command.
    fn begin(&mut self) -> Option<char> {
        loop {
            match *self.rest.peek()? {
                '#' => self.skip_line(),
                c if c.is_whitespace() || c == ';' => drop(self.next()),
                c => return Some(c),
            }
        }
    }

    fn skip_line(&mut self) {
        while self.rest.peek().is_some_and(|c| *c != '\n') {
            self.next();
        }
    }

    fn command(&mut self, first: char, variables: &BTreeMap<String, String>) -> Command {
        if matches!(first, '{' | '(') {
            return Command::Other(first.to_string());
        }
        let mut assignments = Vec::new();
        // Those of the same command are there already for a shell.
        let mut here = BTreeMap::new();
        let mut exported = false;
        loop {
            while self.rest.peek().is_some_and(|c| matches!(c, ' ' | '\t')) {
                self.next();
            }
            match self.rest.peek() {
                None | Some('\n' | ';') => return Command::Assignments(assignments),
                Some('#') => {
                    self.skip_line();
                    return Command::Assignments(assignments);
                }
                Some(_) => {}
            }
            let name = self.name();
            if !name.is_empty() && self.rest.peek() == Some(&'=') {
                self.next();
                let value = self.value(&[&here, variables]).ok();
                if let Some(value) = &value {
                    here.insert(name.clone(), value.clone());
                }
                assignments.push((name, value));
                continue;
            }
            if name == "export" && assignments.is_empty() && !exported {
                exported = true;
                continue;
            }
            // All are exported.
            if exported && self.rest.peek().is_none_or(|c| matches!(c, ' ' | '\t' | '\n' | ';')) {
                continue;
            }
            let mut word = name;
            while let Some(c) = self.rest.peek().filter(|c| !c.is_whitespace() && **c != ';') {
                word.push(*c);
                self.next();
            }
            self.skip_line();
            return Command::Other(word);
        }
    }

    /// As far as it is one.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.rest.peek().copied() {
            let fits = c == '_' || c.is_ascii_alphabetic() || c.is_ascii_digit() && !name.is_empty();
            if !fits {
                break;
            }
            name.push(c);
            self.next();
        }
        name
    }

    /// A value, to its end in any case.
    fn value(&mut self, variables: &[&BTreeMap<String, String>; 2]) -> Result<String, Shell> {
        let (mut value, mut plain) = (String::new(), true);
        while let Some(c) = self.rest.peek().copied() {
            match c {
                ' ' | '\t' | '\n' | ';' => break,
                '\'' => {
                    self.next();
                    loop {
                        match self.next().ok_or(Shell)? {
                            '\'' => break,
                            c => value.push(c),
                        }
                    }
                }
                '"' => {
                    self.next();
                    loop {
                        match self.rest.peek().copied().ok_or(Shell)? {
                            '"' => {
                                self.next();
                                break;
                            }
                            '\\' => {
                                self.next();
                                match self.next().ok_or(Shell)? {
                                    '\n' => {}
                                    c @ ('$' | '`' | '"' | '\\') => value.push(c),
                                    c => value.extend(['\\', c]),
                                }
                            }
                            '$' | '`' => plain &= self.expand(&mut value, variables),
                            c => {
                                self.next();
                                value.push(c);
                            }
                        }
                    }
                }
                '\\' => {
                    self.next();
                    match self.next().ok_or(Shell)? {
                        '\n' => {}
                        c => value.push(c),
                    }
                }
                '$' | '`' => plain &= self.expand(&mut value, variables),
                // A home directory, a pipe, a redirection, another process.
                '~' | '&' | '|' | '<' | '>' | '(' | ')' => {
                    self.next();
                    plain = false;
                }
                c => {
                    self.next();
                    value.push(c);
                }
            }
        }
        if plain { Ok(value) } else { Err(Shell) }
    }

    /// `$NAME` and `${NAME}`; `false` if it is something that only a shell can do, which is gone past, or too much.
    fn expand(&mut self, value: &mut String, variables: &[&BTreeMap<String, String>; 2]) -> bool {
        let closing = match self.next() {
            Some('$') => match self.rest.peek() {
                Some('{') => {
                    self.next();
                    Some('}')
                }
                Some('(') => {
                    self.past(')');
                    return false;
                }
                _ => None,
            },
            _ => {
                self.past('`');
                return false;
            }
        };
        let name = self.name();
        match closing {
            Some(closing) if self.rest.peek() != Some(&closing) => {
                self.past(closing);
                return false;
            }
            Some(_) => drop(self.next()),
            // A dollar alone is one.
            None if name.is_empty() => value.push('$'),
            None => {}
        }
        if let Some(known) = variables.iter().find_map(|variables| variables.get(&name)) {
            let Some(room) = self.room.checked_sub(known.len()) else {
                return false;
            };
            self.room = room;
            value.push_str(known);
        }
        true
    }

    /// Past the end of what only a shell understands.
    fn past(&mut self, end: char) {
        let mut depth = 0;
        while let Some(c) = self.next() {
            depth += usize::from(c == '(' && end == ')');
            if c == end {
                if depth <= 1 {
                    return;
                }
                depth -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> (BTreeMap<String, String>, Vec<String>) {
        let (mut variables, mut notes) = (BTreeMap::new(), Vec::new());
        read(text, "grub", &mut variables, &mut notes);
        (variables, notes)
    }

    /// As a shell has them.
    #[test]
    fn plain_assignments() {
        let text = "# GRUB\nGRUB_A=5\nGRUB_B=\"a b\" # why\nexport GRUB_C='c $x'; GRUB_D=d\nexport GRUB_A\n\
            GRUB_E=\"$GRUB_B \\\"${GRUB_A}\\\" \\$x\"\nGRUB_F=\nGRUB_G=a\\ b\\\nc\nGRUB_H=\"two\nlines\"\n  GRUB_I='it'\"'\"'s'\n";
        let (variables, notes) = values(text);
        assert!(notes.is_empty(), "{notes:?}");
        for (name, value) in [
            ("GRUB_A", "5"),
            ("GRUB_B", "a b"),
            ("GRUB_C", "c $x"),
            ("GRUB_D", "d"),
            ("GRUB_E", "a b \"5\" $x"),
            ("GRUB_F", ""),
            ("GRUB_G", "a bc"),
            ("GRUB_H", "two\nlines"),
            ("GRUB_I", "it's"),
        ] {
            assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
        }
    }

    /// Each of these would take gigabytes, or minutes.
    #[test]
    fn more_than_anybody_writes() {
        let (variables, notes) = values(&format!("A=xxxxxxxxxxxxxxxx\n{}B=b\n", "A=$A$A\n".repeat(64)));
        assert!(variables["A"].len() <= ROOM && variables["B"] == "b");
        assert!(notes[0].ends_with("it counts as not set"), "{notes:?}");
        for separator in [" ", "\n"] {
            let many: String = (0..20_000).map(|number| format!("A{number}=$A{separator}")).collect();
            assert_eq!(values(&many).0.len(), 20_000);
        }
    }

    #[test]
    fn what_only_a_shell_can_do() {
        let text = "GRUB_DISTRIBUTOR=`lsb_release -i -s 2> /dev/null || echo Debian`\nGRUB_A=1\nGRUB_A=\"$(touch /tmp/x; (true))\"\n\
            touch /tmp/pwned\nGRUB_B=${GRUB_X:-y}\nGRUB_C=c\n. /etc/other\nGRUB_D=d true\nif true; then\nGRUB_E=e\nfi\nGRUB_F=f\n";
        let (variables, notes) = values(text);
        assert_eq!(
            variables.into_iter().collect::<Vec<_>>(),
            [("GRUB_C".to_owned(), "c".to_owned())]
        );
        let notes: Vec<&str> = notes.iter().map(String::as_str).collect();
        let unset = "is what a shell makes of it, and none is run: it counts as not set";
        assert_eq!(
            notes,
            [
                &format!("grub:1: GRUB_DISTRIBUTOR {unset}"),
                &format!("grub:3: GRUB_A {unset}"),
                "grub:4: \"touch\" is no assignment, and it is not run",
                &format!("grub:5: GRUB_B {unset}"),
                "grub:7: \".\" is no assignment, and it is not run",
                "grub:8: \"true\" is no assignment, and it is not run",
                "grub:9: from \"if\" on this is a program, and it is not run",
            ]
        );
        // Nothing is read for ever, and nothing ends the program.
        for odd in [
            "GRUB_A='",
            "GRUB_A=\"",
            "GRUB_A=\\",
            "GRUB_A=$(",
            "GRUB_A=`",
            "GRUB_A=${",
            "(",
            "=",
            "$",
            "\"a\"=b",
        ] {
            values(odd);
        }
    }
}

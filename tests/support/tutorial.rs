// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands of man/ttvm.7, with what the page says that they print.

/// A command of the page.
#[derive(Debug)]
pub struct Command {
    /// What stands before it: `$` for a user, `#` for root.
    pub prompt: char,
    /// What is typed.
    pub line: String,
    /// The lines below it.
    pub shown: Vec<String>,
}

/// All of them, in their order.
pub fn commands() -> Vec<Command> {
    let page = include_str!("../../man/ttvm.7");
    let mut commands: Vec<Command> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match line {
            ".EX" | ".EE" => {
                inside = line == ".EX";
                continue;
            }
            _ if !inside => continue,
            _ => {}
        }
        let line = line
            .replace("\\-", "-")
            .replace("\\(aq", "'")
            .replace("\\(ga", "`")
            .replace("\\&", "");
        match line.split_at_checked(2) {
            Some((prompt @ ("$ " | "# "), typed)) => commands.push(Command {
                prompt: if prompt == "$ " { '$' } else { '#' },
                line: typed.to_owned(),
                shown: Vec::new(),
            }),
            _ => {
                let command = commands.last_mut().expect("what is shown is of a command");
                command.shown.push(line);
            }
        }
    }
    commands
}

impl Command {
    /// Fails unless `printed` has every line that the page shows, up to the first word of each that is of one machine and day: a
    /// number, a version, a path.
    pub fn expect(&self, printed: &str) {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let printed = printed.lines().map(words).collect::<Vec<_>>().join("\n");
        for line in self.shown.iter().filter(|line| *line != "...") {
            let own = |word: &&str| word.contains(|c: char| c.is_ascii_digit() || c == '/');
            let general: Vec<&str> = line.split_whitespace().take_while(|word| !own(word)).collect();
            let general = general.join(" ");
            assert!(
                printed.contains(&general),
                "{}: {general:?} is not in\n{printed}",
                self.line
            );
        }
    }
}

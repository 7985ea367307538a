// SPDX-License-Identifier: MIT OR Apache-2.0
//! The console in a page: each line with its position, as text that does nothing.

use std::collections::VecDeque;
use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;

use super::html::Text;
use super::{position, time};
use crate::recording::log::activity::{Clock, Line};
use crate::recording::replay::verdict::grouped;

/// Of the beginning of a console, and again of its end, so many bytes of the page. A browser shows both at once.
const SHARE: usize = 1 << 20;

/// Lines of a piece.
const PIECE: usize = 100;

/// Of more lines than this, a browser lays out only the pieces that are looked at, and may tell a screen reader of no others.
const LONG: usize = 2000;

/// Columns between two stops of a tabulator.
const TABULATOR: usize = 8;

/// What a line takes in the page beside its text: its position, twice or three times, its time, and the marks around them.
const BESIDE: usize = 110;

/// A line that is shown.
struct Row {
    /// Its position.
    at: Option<u64>,
    /// The last position up to here: a line without one came behind it.
    reached: Option<u64>,
    /// Whether that is the name of a place in the page. Lines that began at the very same instruction have one place.
    is_place: bool,
    /// What is shown of it.
    text: String,
    /// Bytes of it that are not.
    more: u64,
}

impl Row {
    fn size(&self) -> usize {
        self.text.len() + BESIDE
    }

    fn write(&self, clock: Option<&Clock>, page: &mut String) {
        let _ = match self.at {
            None => write!(page, "<li>"),
            Some(at) => {
                let shown = position(at);
                let time = clock.and_then(|clock| clock.at(at)).map(time).unwrap_or_default();
                match self.is_place {
                    true => write!(
                        page,
                        "<li id=\"i-{at}\"><a href=\"#i-{at}\">{shown}</a><span>{time}</span>"
                    ),
                    false => write!(page, "<li><span>{shown}</span><span>{time}</span>"),
                }
            }
        };
        let _ = write!(page, "<code>{}</code>", self.text);
        if self.more > 0 {
            let _ = write!(page, " <i>and {} bytes more</i>", grouped(self.more));
        }
        page.push_str("</li>\n");
    }
}

/// What is shown of a console.
#[derive(Default)]
pub(super) struct Console {
    head: Vec<Row>,
    head_size: usize,
    tail: VecDeque<Row>,
    tail_size: usize,
    /// Lines between both that are not shown.
    left_out: u64,
    lines: u64,
    /// The last position.
    last: Option<u64>,
}

impl Console {
    /// The next line.
    pub(super) fn push(&mut self, line: &Line) {
        self.lines += 1;
        let is_place = self.last < line.instructions;
        self.last = self.last.max(line.instructions);
        let row = Row {
            at: line.instructions,
            reached: self.last,
            is_place,
            text: Text(plain(&String::from_utf8_lossy(&line.text))).to_string(),
            more: line.length - line.text.len() as u64,
        };
        if self.tail.is_empty() && self.head_size + row.size() <= SHARE {
            self.head_size += row.size();
            self.head.push(row);
            return;
        }
        self.tail_size += row.size();
        self.tail.push_back(row);
        while self.tail_size > SHARE
            && let Some(row) = self.tail.pop_front()
        {
            self.tail_size -= row.size();
            self.left_out += 1;
        }
    }

    /// How many lines there are.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    /// The first place in the page that is not before `from`, and not behind `to` instructions.
    pub(super) fn place(&self, from: u64, to: u64) -> Option<u64> {
        let is_before = |row: &Row| row.reached < Some(from);
        let head = self.head.iter().skip(self.head.partition_point(is_before));
        let tail = self.tail.iter().skip(self.tail.partition_point(is_before));
        // The line that got there first may be one of those that are left out.
        let place = head.chain(tail).find(|row| row.is_place)?;
        place.at.filter(|at| *at < to)
    }

    /// The last place in the page that is before `to` instructions.
    pub(super) fn before(&self, to: u64) -> Option<u64> {
        let is_before = |row: &&Row| row.is_place && row.at < Some(to);
        let rows = self.tail.iter().rev().chain(self.head.iter().rev());
        rows.into_iter().find(is_before)?.at
    }

    /// Writes it, of a run in which it is that time.
    pub(super) fn write(&self, clock: Option<&Clock>, page: &mut String) {
        let is_long = self.head.len() + self.tail.len() > LONG;
        pieces(self.head.iter(), is_long, clock, page);
        if self.left_out > 0 {
            let _ = writeln!(
                page,
                "<p class=\"gap\">{} lines are left out here; <code>console.log</code> of the recording has them.</p>",
                grouped(self.left_out)
            );
        }
        pieces(self.tail.iter(), is_long, clock, page);
    }
}

fn pieces<'a>(rows: impl Iterator<Item = &'a Row>, is_long: bool, clock: Option<&Clock>, page: &mut String) {
    let mut rows = rows.peekable();
    while rows.peek().is_some() {
        page.push_str(if is_long {
            "<ol class=\"console long\">\n"
        } else {
            "<ol class=\"console\">\n"
        });
        rows.by_ref().take(PIECE).for_each(|row| row.write(clock, page));
        page.push_str("</ol>\n");
    }
}

/// A line without the sequences that move a terminal's cursor or change its colours, and with spaces for tabulators. Other
/// control characters stay, and are seen.
fn plain(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut columns = 0;
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' if skip(&mut rest) => {}
            '\t' => {
                let width = TABULATOR - columns % TABULATOR;
                plain.extend(std::iter::repeat_n(' ', width));
                columns += width;
            }
            c => {
                plain.push(c);
                columns += 1;
            }
        }
    }
    plain
}

/// Passes over what follows an escape, if that is a sequence of ECMA-48 without a text in it: `ESC [ 1 ; 31 m`, `ESC c`.
fn skip(rest: &mut Peekable<Chars<'_>>) -> bool {
    let mut ahead = rest.clone();
    let is_whole = match ahead.next() {
        Some('[') => {
            while ahead.next_if(|c| (' '..='?').contains(c)).is_some() {}
            ahead.next().is_some_and(|c| ('@'..='~').contains(&c))
        }
        // What begins a text, up to its own end, is no such sequence.
        Some('P' | 'X' | ']' | '^' | '_') => false,
        Some(' '..='/') => {
            while ahead.next_if(|c| (' '..='/').contains(c)).is_some() {}
            ahead.next().is_some_and(|c| ('0'..='~').contains(&c))
        }
        Some('0'..='~') => true,
        _ => false,
    };
    if is_whole {
        *rest = ahead;
    }
    is_whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_sequences() {
        for (line, shown) in [
            ("[\u{1b}[0;32m  OK  \u{1b}[0m] Started", "[  OK  ] Started"),
            ("\u{1b}c\u{1b}[?7l\u{1b}[2JSeaBIOS", "SeaBIOS"),
            ("\u{1b}(Bx\u{1b}[", "x\u{1b}["),
            ("\u{1b}]0;title\u{7}x", "\u{1b}]0;title\u{7}x"),
            ("\u{1b}[3\u{0}1mx", "\u{1b}[3\u{0}1mx"),
            ("ab\tc\t\td", "ab      c               d"),
        ] {
            assert_eq!(plain(line), shown);
        }
    }

    fn line(at: u64, text: &str) -> Line {
        Line {
            instructions: Some(at),
            text: text.as_bytes().to_vec(),
            length: text.len() as u64,
        }
    }

    #[test]
    fn a_line_and_its_place() {
        let mut console = Console::default();
        console.push(&line(1_000_000, "<b>\u{202e}\u{1b}[1m"));
        console.push(&Line {
            length: 5005,
            ..line(1_000_000, "twice")
        });
        let mut page = String::new();
        console.write(Some(&Clock::Fixed(3)), &mut page);
        assert_eq!(
            page,
            "<ol class=\"console\">\n\
             <li id=\"i-1000000\"><a href=\"#i-1000000\">1_000_000</a><span>0.008s</span><code>&lt;b&gt;\\u{202e}</code></li>\n\
             <li><span>1_000_000</span><span>0.008s</span><code>twice</code> <i>and 5,000 bytes more</i></li>\n\
             </ol>\n"
        );
        assert_eq!(console.place(0, 2_000_000), Some(1_000_000));
        assert_eq!(
            (console.before(1_000_000), console.before(1_000_001)),
            (None, Some(1_000_000))
        );
        assert_eq!(
            (console.place(0, 1_000_000), console.place(1_000_001, u64::MAX)),
            (None, None)
        );
    }

    #[test]
    fn lines_without_a_position() {
        let mut console = Console::default();
        for at in [None, Some(10), None, None, Some(20), Some(20), None, Some(30), None] {
            console.push(&Line {
                instructions: at,
                ..line(0, "x")
            });
        }
        for (from, to, place) in [
            (0, 10, None),
            (0, 11, Some(10)),
            (10, 20, Some(10)),
            (11, 21, Some(20)),
            (20, 30, Some(20)),
            (21, 31, Some(30)),
            (31, u64::MAX, None),
        ] {
            assert_eq!(console.place(from, to), place, "{from} to {to}");
        }
    }

    #[test]
    fn a_long_one_keeps_its_beginning_and_its_end() {
        let mut console = Console::default();
        for at in 0..40_000 {
            console.push(&line(at, &"x".repeat(60)));
        }
        let mut page = String::new();
        console.write(None, &mut page);
        assert!(page.len() < 2 * SHARE + SHARE / 16, "{}", page.len());
        assert!(page.contains("id=\"i-0\"") && page.contains("id=\"i-39999\""));
        let shown = page.matches("<li ").count() as u64;
        assert_eq!(shown + console.left_out, console.lines());
        assert!(page.contains(&format!("{} lines are left out here", grouped(console.left_out))));
    }
}

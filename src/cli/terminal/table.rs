// SPDX-License-Identifier: MIT OR Apache-2.0
//! Columns of text, as wide as they need to be; coloured where a terminal shows them.

use std::io::{self, IsTerminal, Write};

/// What a cell says besides its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Tone {
    /// Nothing.
    Plain,
    /// It is well.
    Good,
    /// It will be otherwise in a moment.
    Passing,
    /// Somebody should look at it.
    Bad,
}

impl Tone {
    /// The escape sequence that begins it (ECMA-48, SGR): green, yellow, bold red.
    fn escape(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("\x1b[32m"),
            Self::Passing => Some("\x1b[33m"),
            Self::Bad => Some("\x1b[1;31m"),
        }
    }
}

/// A part of a row.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(in crate::cli) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// Whether what is written to standard output may have colours: on a terminal that has some, unless somebody wants none
/// (https://no-color.org).
pub(in crate::cli) fn has_colours() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    io::stdout().is_terminal() && set("NO_COLOR").is_none() && set("TERM").is_some_and(|term| term != "dumb")
}

/// Prints `rows` below `head`; the last column is not padded.
pub(in crate::cli) fn print(head: &[&str], rows: &[Vec<impl Into<Cell> + Clone>]) -> io::Result<()> {
    let rows: Vec<Vec<Cell>> = (rows.iter())
        .map(|row| row.iter().cloned().map(Into::into).collect())
        .collect();
    let mut out = io::stdout().lock();
    for line in lines(head, &rows, usize::MAX, has_colours()) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// The lines of a table, cut off where they are wider than `width` characters.
pub(in crate::cli) fn lines(head: &[&str], rows: &[Vec<Cell>], width: usize, colours: bool) -> Vec<String> {
    let head = head.iter().map(|text| Cell::from((*text).to_owned())).collect();
    let rows: Vec<Vec<Cell>> = std::iter::once(&head)
        .chain(rows)
        .map(|row| row.iter().map(plain).collect())
        .collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0)
        })
        .collect();
    rows.iter().map(|row| line(row, &widths, width, colours)).collect()
}

fn plain(cell: &Cell) -> Cell {
    Cell::toned(crate::base::text::line(&cell.text), cell.tone)
}

fn line(row: &[Cell], widths: &[usize], width: usize, colours: bool) -> String {
    let mut text = String::new();
    let mut left = width;
    // Spaces are written before what follows them, if anything does.
    let mut gap = 0;
    for (cell, column) in row.iter().zip(widths) {
        let length = cell.text.chars().count();
        if length > 0 && left <= gap {
            break;
        }
        if length > 0 {
            text.extend(std::iter::repeat_n(' ', gap));
            left -= gap;
            let shown = cut(&cell.text, left);
            left -= shown.chars().count();
            match cell.tone.escape().filter(|_| colours) {
                Some(escape) => text.extend([escape, &shown, "\x1b[0m"]),
                None => text.push_str(&shown),
            }
            gap = 0;
        }
        gap += column - length + 2;
    }
    text
}

/// The beginning of `text`, with a sign that there is more of it if there is.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut shown: String = text.chars().take(width.saturating_sub(1)).collect();
    shown.push('…');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<Cell>> {
        vec![
            vec![
                "a".to_owned().into(),
                Cell::toned("running", Tone::Good),
                "\x1b[2J".to_owned().into(),
            ],
            vec![
                "longer".to_owned().into(),
                Cell::toned("failed", Tone::Bad),
                String::new().into(),
            ],
        ]
    }

    #[test]
    fn as_wide_as_needed() {
        assert_eq!(
            lines(&["GUEST", "STATE", "WHY"], &rows(), usize::MAX, false),
            ["GUEST   STATE    WHY", "a       running  \\u{1b}[2J", "longer  failed"]
        );
    }

    #[test]
    fn no_wider_than_the_terminal() {
        for width in 1..30 {
            for line in lines(&["GUEST", "STATE", "WHY"], &rows(), width, false) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
        assert_eq!(
            lines(&["GUEST", "STATE", "WHY"], &rows(), 20, false)[1],
            "a       running  \\u…"
        );
        assert_eq!(
            lines(&["GUEST", "STATE", "WHY"], &rows(), 17, false)[1],
            "a       running"
        );
    }

    #[test]
    fn colours_do_not_move_columns() {
        let coloured = lines(&["GUEST", "STATE", "WHY"], &rows(), usize::MAX, true);
        assert_eq!(coloured[1], "a       \x1b[32mrunning\x1b[0m  \\u{1b}[2J");
        assert_eq!(coloured[2], "longer  \x1b[1;31mfailed\x1b[0m");
    }
}

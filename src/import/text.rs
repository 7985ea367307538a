// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file's bytes, and where in it something stands.

use std::cell::Cell;

/// A file that is read.
pub(super) struct Text<'a> {
    pub(super) bytes: &'a [u8],
    /// Where each line begins.
    lines: Vec<usize>,
    /// The place asked for last, and where it is in the bytes: the next one is often on the same line, which may be long.
    last: Cell<(usize, Place)>,
}

/// A line and a column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl<'a> Text<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let ends = bytes.iter().enumerate().filter(|(at, byte)| match byte {
            b'\n' => true,
            // Alone, it ends a line for Python.
            b'\r' => bytes.get(at + 1) != Some(&b'\n'),
            _ => false,
        });
        let lines = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        let last = Cell::new((0, Place { line: 1, column: 1 }));
        Self { bytes, lines, last }
    }

    /// The byte at `at`; 0, which no file has that is read, behind the end.
    pub(super) fn at(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|begin| *begin <= at)
    }

    pub(super) fn place(&self, at: usize) -> Place {
        let at = at.min(self.bytes.len());
        let line = self.line(at);
        let begin = self.lines.get(line - 1).copied().unwrap_or(0);
        let (begin, column) = match self.last.get() {
            (last, place) if place.line == line && last <= at => (last, place.column),
            _ => (begin, 1),
        };
        let between = &self.bytes[begin..at];
        // Of a character of several bytes, all but the first are 0b10……….
        let column = column + between.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        let place = Place { line, column };
        self.last.set((at, place));
        place
    }

    /// The character at `at`, as messages show it.
    pub(super) fn shown(&self, at: usize) -> String {
        let end = self.bytes.len().min(at + 4);
        let part = String::from_utf8_lossy(&self.bytes[at.min(end)..end]);
        part.chars().next().map_or_else(String::new, |c| format!("{c:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let text = Text::new("a\r\né=1\rb\n".as_bytes());
        let place = |at| {
            let place = text.place(at);
            (place.line, place.column)
        };
        assert_eq!(place(0), (1, 1));
        assert_eq!(place(3), (2, 1));
        assert_eq!(place(5), (2, 2), "é is one column");
        assert_eq!(place(8), (3, 1), "a line ends at a lone \\r");
        assert_eq!(place(10), (4, 1));
        assert_eq!((place(5), place(4), place(3)), ((2, 2), (2, 2), (2, 1)), "in any order");
        assert_eq!((text.at(0), text.at(99)), (b'a', 0));
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures, and what is asked for on the command line.

/// Whether the command line names this part, or none.
pub fn is_wanted(part: &str) -> bool {
    let mut named = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .peekable();
    named.peek().is_none() || named.any(|name| name == part)
}

/// Figures as they come in.
#[derive(Default)]
pub struct Table(Vec<[String; 4]>);

impl Table {
    /// Two medians and their ratio.
    pub fn ratio(&mut self, what: &str, ours: &[f64], theirs: &[f64], limit: &str) {
        let (ours, theirs) = (median(ours), median(theirs));
        self.0.push([
            what.into(),
            format!("{ours:.3} s ÷ {theirs:.3} s"),
            format!("{:.3}", ours / theirs),
            limit.into(),
        ]);
    }

    /// One figure.
    pub fn value(&mut self, what: &str, detail: String, value: String, limit: &str) {
        self.0.push([what.into(), detail, value, limit.into()]);
    }

    /// Prints all.
    pub fn print(&self) {
        let head = ["figure", "measured (medians)", "value", "at most"].map(String::from);
        let width = |column: usize| {
            let cells = self.0.iter().chain([&head]).map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths = [0, 1, 2, 3].map(width);
        for row in [&head].into_iter().chain(&self.0) {
            let cells: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            println!("{}", cells.join("   ").trim_end());
        }
    }
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The run from left to right: what happened in each section of it, drawn, and the same as a table.
//!
//! The drawing is as wide as there is room: what is horizontal in it is a share of the whole, what is vertical are pixels, and
//! only the bars are stretched. All lanes have the same axis, and each has a scale of its own that begins at nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::console::Console;
use super::{plural, position, time};
use crate::recording::log::activity::{Activity, Counts};
use crate::recording::replay::verdict::grouped;

/// Ticks of the axis that are aimed at, where there is room for all.
const TICKS: u64 = 8;

/// Sections that are one row of the table.
const ROW: usize = 10;

/// The height of bars, in pixels.
const BARS: f64 = 36.0;

/// What happened only once among many is still seen.
const SMALLEST: f64 = 1.5;

/// From one lane to the next.
const LANE: u32 = 64;

/// The lane of marks.
const MARKS: u32 = 42;

/// The axis with what is written at it.
const AXIS: u32 = 38;

/// Above the first lane, where it is written that a replay diverged.
const HEAD: u32 = 18;

/// One kind of thing that happens.
struct Lane {
    /// What it is called where it stands alone.
    name: &'static str,
    /// One of them, as part of a sentence.
    one: &'static str,
    of: fn(&Counts) -> u64,
}

const CONSOLE: Lane = Lane {
    name: "Console lines",
    one: "line",
    of: |counts| counts.lines,
};
const TYPED: Lane = Lane {
    name: "Bytes typed",
    one: "typed byte",
    of: |counts| counts.typed,
};
const DISK: Lane = Lane {
    name: "Disk requests done",
    one: "disk request",
    of: |counts| counts.disk,
};
const PACKETS: Lane = Lane {
    name: "Packets received",
    one: "packet",
    of: |counts| counts.packets,
};
const INTERRUPTS: Lane = Lane {
    name: "Interrupts",
    one: "interrupt",
    of: |counts| counts.interrupts,
};

/// A run that is drawn.
pub(super) struct Timeline<'a> {
    pub(super) activity: &'a Activity,
    pub(super) console: &'a Console,
    /// Where checkpoints are.
    pub(super) checkpoints: &'a [u64],
    /// Where branches leave it.
    pub(super) branches: &'a [u64],
    /// Where replays are compared.
    pub(super) compared: &'a BTreeSet<u64>,
    /// Up to where a replay that diverged is known to have been the same, and where it was seen not to be.
    pub(super) diverged: Option<(Option<u64>, u64)>,
    /// Whether the machine has disks.
    pub(super) disks: bool,
    /// Whether it has networks.
    pub(super) networks: bool,
}

impl Timeline<'_> {
    /// What the machine can have, and of what is typed only what there was.
    fn lanes(&self) -> Vec<Lane> {
        let typed = self.activity.total().typed > 0;
        let lanes = [
            (CONSOLE, true),
            (TYPED, typed),
            (DISK, self.disks),
            (PACKETS, self.networks),
            (INTERRUPTS, true),
        ];
        lanes
            .into_iter()
            .filter_map(|(lane, is_there)| is_there.then_some(lane))
            .collect()
    }

    /// Writes the drawing and the table.
    pub(super) fn write(&self, page: &mut String) {
        let lanes = self.lanes();
        let activity = self.activity;
        let count = activity.sections.len();
        let _ = write!(
            page,
            "<figure>\n<figcaption>Each bar is {} instructions{}, and leads to the console there. The time is that of the instructions: \
             while the guest waited, its own clock went ahead of it.</figcaption>\n",
            grouped(activity.width),
            (activity.clock.at(activity.width)).map_or_else(String::new, |it| format!(" ({it:.1?})"))
        );
        page.push_str("<div class=\"timeline\">\n");
        self.draw(&lanes, page);
        self.places(&lanes, page);
        page.push_str("</div>\n");
        let _ = writeln!(
            page,
            "<div id=\"scrubber\" hidden><label for=\"scrub\">Look at a part of the run</label>\
             <input type=\"range\" id=\"scrub\" min=\"0\" max=\"{}\" value=\"0\"><p><output id=\"readout\" for=\"scrub\"></output> \
             <a id=\"there\" hidden>its console</a></p></div>",
            count - 1
        );
        self.table(&lanes, page);
        page.push_str("</figure>\n");
    }

    fn draw(&self, lanes: &[Lane], page: &mut String) {
        let axis = self.axis(lanes.len());
        let _ = writeln!(
            page,
            "<svg class=\"drawing\" width=\"100%\" height=\"{}\" role=\"img\" aria-label=\"{}\">",
            axis + AXIS,
            self.words(lanes)
        );
        self.grid(axis, page);
        for (number, lane) in (0..).zip(lanes) {
            self.lane(lane, HEAD + number * LANE, page);
        }
        self.marks(axis - MARKS, page);
        self.divergence(axis, page);
        page.push_str("</svg>\n");
    }

    /// Where the axis is.
    fn axis(&self, lanes: usize) -> u32 {
        HEAD + LANE * u32::try_from(lanes).unwrap_or_default() + MARKS
    }

    /// What somebody is told who does not see it.
    fn words(&self, lanes: &[Lane]) -> String {
        let total = self.activity.total();
        let counts: Vec<String> = lanes.iter().map(|lane| plural((lane.of)(&total), lane.one)).collect();
        let checkpoints = plural(self.checkpoints.len() as u64, "checkpoint");
        let branches = Self::leaving(self.branches.len());
        let diverged = match self.diverged {
            Some((_, at)) => format!("; a replay diverged after {} instructions", grouped(at)),
            None => String::new(),
        };
        format!(
            "The run in {} instructions: {}, {checkpoints}{branches}{diverged}. The table below has its parts.",
            grouped(self.activity.end),
            counts.join(", ")
        )
    }

    fn grid(&self, axis: u32, page: &mut String) {
        let step = step(self.activity.end);
        let ticks = (0..)
            .map_while(|tick: u64| tick.checked_mul(step))
            .take_while(|at| *at <= self.activity.end);
        for (number, at) in ticks.enumerate() {
            let x = self.share(at);
            // Every other one is left out where there is no room.
            let class = if number % 2 == 1 { " odd" } else { "" };
            // What would not fit at an end is written towards the middle.
            let anchor = match at {
                0 => "start",
                at if at > self.activity.end / 100 * 96 => "end",
                _ => "middle",
            };
            let _ = write!(
                page,
                "<g class=\"tick{class}\"><line x1=\"{x}\" x2=\"{x}\" y1=\"{HEAD}\" y2=\"{axis}\"/>\
                 <text x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
                axis + 16,
                short(at)
            );
            if let Some(time) = self.time_at(at) {
                let time = rounded(&time);
                let _ = write!(
                    page,
                    "<text x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{time}</text>",
                    axis + 31
                );
            }
            page.push_str("</g>\n");
        }
    }

    fn lane(&self, lane: &Lane, top: u32, page: &mut String) {
        let values = self.activity.sections.iter().map(lane.of);
        let most = values.clone().max().unwrap_or_default();
        let most_of = match most {
            0 => "none".to_owned(),
            most => format!(
                "{} in all, {} in a bar at most",
                grouped(values.clone().sum()),
                grouped(most)
            ),
        };
        let (label, plot) = (top + 13, top + 18);
        // The last section may be shorter: what is behind the end is cut off.
        let width = self.activity.end.max(1) as f64 / self.activity.width as f64;
        let _ = write!(
            page,
            "<text x=\"0\" y=\"{label}\" class=\"name\">{}</text><text x=\"100%\" y=\"{label}\" text-anchor=\"end\">{most_of}</text>\n\
             <svg y=\"{plot}\" width=\"100%\" height=\"{BARS}\" viewBox=\"0 0 {width:.4} {BARS}\" preserveAspectRatio=\"none\">\
             <path class=\"bars\" d=\"",
            lane.name
        );
        for (number, value) in values.enumerate().filter(|(_, value)| *value > 0) {
            let height = (BARS * value as f64 / most as f64).max(SMALLEST);
            let _ = write!(page, "M{number} {BARS}v-{height:.1}h1v{height:.1}z");
        }
        let _ = writeln!(
            page,
            "\"/></svg><line class=\"base\" x1=\"0\" x2=\"100%\" y1=\"{0}\" y2=\"{0}\"/>",
            f64::from(plot) + BARS
        );
    }

    /// So many branches, as the rest of a sentence.
    fn leaving(count: usize) -> String {
        match count {
            0 => String::new(),
            1 => ", 1 branch".to_owned(),
            count => format!(", {count} branches"),
        }
    }

    fn marks(&self, top: u32, page: &mut String) {
        let (label, middle) = (top + 13, top + 29);
        let _ = writeln!(
            page,
            "<text x=\"0\" y=\"{label}\" class=\"name\">Checkpoints</text><text x=\"100%\" y=\"{label}\" text-anchor=\"end\">{}{}; \
             compared at {}</text>",
            match self.checkpoints.len() {
                0 => "none".to_owned(),
                count => count.to_string(),
            },
            Self::leaving(self.branches.len()),
            plural(self.compared.len() as u64, "moment")
        );
        // Many would be many lines on top of each other.
        let of_sections: BTreeMap<usize, u64> = (self.compared.iter().rev())
            .map(|at| (self.activity.section(*at), *at))
            .collect();
        for at in of_sections.into_values() {
            let x = self.share(at);
            let _ = write!(
                page,
                "<line class=\"compared\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/>",
                middle - 7,
                middle + 7
            );
        }
        for at in self.checkpoints {
            let _ = write!(page, "<circle cx=\"{}\" cy=\"{middle}\" r=\"4\"/>", self.share(*at));
        }
        for at in self.branches {
            let _ = write!(
                page,
                "<ellipse cx=\"{}\" cy=\"{middle}\" rx=\"4\" ry=\"8\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"2\"/>",
                self.share(*at)
            );
        }
        page.push('\n');
    }

    fn divergence(&self, axis: u32, page: &mut String) {
        let Some((same, at)) = self.diverged else { return };
        let x = self.share(at);
        if let Some(same) = same {
            let _ = write!(
                page,
                "<rect class=\"doubt\" x=\"{}\" width=\"{}\" y=\"{HEAD}\" height=\"{}\"/>",
                self.share(same),
                self.share(at.saturating_sub(same)),
                axis - HEAD
            );
        }
        let anchor = match at.saturating_mul(2) > self.activity.end {
            true => "end",
            false => "start",
        };
        let _ = writeln!(
            page,
            "<line class=\"diverged\" x1=\"{x}\" x2=\"{x}\" y1=\"4\" y2=\"{axis}\"/>\
             <text class=\"diverged\" x=\"{x}\" dx=\"{}\" y=\"13\" text-anchor=\"{anchor}\">a replay diverged</text>",
            if anchor == "end" { -5 } else { 5 }
        );
    }

    /// Over the drawing, each section by itself: what it has, and the way to its console.
    fn places(&self, lanes: &[Lane], page: &mut String) {
        let axis = self.axis(lanes.len());
        let _ = writeln!(
            page,
            "<svg class=\"places\" id=\"places\" width=\"100%\" height=\"{axis}\" aria-hidden=\"true\">"
        );
        let width = self.share(self.activity.width);
        for (from, to, counts) in self.parts(1) {
            let place = self.console.place(from, to);
            if let Some(place) = place {
                let _ = write!(page, "<a href=\"#i-{place}\" tabindex=\"-1\">");
            }
            let _ = write!(
                page,
                "<rect x=\"{}\" width=\"{width}\" height=\"{axis}\"><title>{}</title></rect>",
                self.share(from),
                self.sentence(from, to, &counts, lanes)
            );
            page.push_str(if place.is_some() { "</a>\n" } else { "\n" });
        }
        let _ = writeln!(page, "<line id=\"cursor\" y1=\"{HEAD}\" y2=\"{axis}\"/></svg>");
    }

    /// So many sections at a time: where they begin and end, and what they have.
    fn parts(&self, sections: usize) -> impl Iterator<Item = (u64, u64, Counts)> {
        let parts = self.activity.sections.chunks(sections).enumerate();
        parts.map(move |(number, part)| {
            let from = (number * sections) as u64 * self.activity.width;
            let to = from.saturating_add(part.len() as u64 * self.activity.width);
            let counts = part.iter().fold(Counts::default(), |sum, it| sum.and(*it));
            // What happened with the last instruction is in the last section.
            (
                from,
                if to >= self.activity.end {
                    self.activity.end.saturating_add(1)
                } else {
                    to
                },
                counts,
            )
        })
    }

    fn sentence(&self, from: u64, to: u64, counts: &Counts, lanes: &[Lane]) -> String {
        let to = to.min(self.activity.end);
        let times = match (self.time_at(from), self.time_at(to)) {
            (Some(from), Some(to)) => format!(" ({from} to {to})"),
            _ => String::new(),
        };
        let happened = lanes.iter().filter(|lane| (lane.of)(counts) > 0);
        let happened: Vec<String> = happened.map(|lane| plural((lane.of)(counts), lane.one)).collect();
        let what = match happened.is_empty() {
            true => "nothing".to_owned(),
            false => happened.join(", "),
        };
        format!("{} to {}{times}: {what}", position(from), position(to))
    }

    fn table(&self, lanes: &[Lane], page: &mut String) {
        page.push_str(
            "<details><summary>The same as a table</summary>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" \
             aria-label=\"The timeline as a table\"><table class=\"numbers\"><thead><tr><th scope=\"col\">From</th>\
             <th scope=\"col\">Time</th>",
        );
        for lane in lanes {
            let _ = write!(page, "<th scope=\"col\">{}</th>", lane.name);
        }
        page.push_str("<th scope=\"col\">Checkpoints</th></tr></thead><tbody>\n");
        for (from, to, counts) in self.parts(ROW) {
            let from_cell = match self.console.place(from, to) {
                Some(place) => format!("<a href=\"#i-{place}\">{}</a>", position(from)),
                None => position(from),
            };
            let time = self.time_at(from).unwrap_or_default();
            let _ = write!(page, "<tr><th scope=\"row\">{from_cell}</th><td>{time}</td>");
            for lane in lanes {
                let _ = write!(page, "<td>{}</td>", grouped((lane.of)(&counts)));
            }
            let checkpoints = self.checkpoints.iter().filter(|at| (from..to).contains(at)).count();
            let branches = self.branches.iter().filter(|at| (from..to).contains(at)).count();
            let branches = Self::leaving(branches);
            let diverged = match self.diverged {
                Some((_, at)) if (from..to).contains(&at) => " <strong class=\"bad\">a replay diverged</strong>",
                _ => "",
            };
            let _ = writeln!(page, "<td>{checkpoints}{branches}{diverged}</td></tr>");
        }
        page.push_str("</tbody></table></div></details>\n");
    }

    fn time_at(&self, instructions: u64) -> Option<String> {
        self.activity.clock.at(instructions).map(time)
    }

    /// Where a moment is on the axis.
    fn share(&self, instructions: u64) -> String {
        let share = instructions.min(self.activity.end) as f64 / self.activity.end.max(1) as f64;
        format!("{:.3}%", share * 100.0)
    }
}

/// From one tick to the next: 1, 2, 2.5 or 5 times a power of ten.
fn step(end: u64) -> u64 {
    let least = (end / TICKS).max(1);
    let power = 10u64.pow(least.ilog10());
    let round = [10, 20, 25, 50, 100].map(|tenths| u128::from(power) * tenths / 10);
    let round = round.map(|step| u64::try_from(step).unwrap_or(u64::MAX));
    round.into_iter().find(|step| *step >= least).unwrap_or(u64::MAX)
}

/// A time without the zeros at its end: `4s`.
fn rounded(time: &str) -> String {
    let number = time.trim_end_matches('s');
    format!("{}s", number.trim_end_matches('0').trim_end_matches('.'))
}

/// A round number of instructions, short: `250 M`, `1.5 G`.
fn short(count: u64) -> String {
    let units = [
        (1_000_000_000_000, "T"),
        (1_000_000_000, "G"),
        (1_000_000, "M"),
        (1000, "k"),
    ];
    match units.iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) => format!("{} {name}", (count as f64 / *unit as f64 * 100.0).round() / 100.0),
        None => count.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks() {
        for (end, wanted) in [
            (0, 1),
            (1, 1),
            (10, 1),
            (95, 20),
            (20, 2),
            (1_966_196_653, 250_000_000),
            (u64::MAX, 2_500_000_000_000_000_000),
        ] {
            assert_eq!(step(end), wanted, "{end}");
        }
        for (count, shown) in [
            (0, "0"),
            (999, "999"),
            (2000, "2 k"),
            (250_000_000, "250 M"),
            (1_500_000_000, "1.5 G"),
            (5_000_000_000_000_000_000, "5000000 T"),
        ] {
            assert_eq!(short(count), shown);
        }
        for (time, shown) in [("0.000s", "0s"), ("10.000s", "10s"), ("1.250s", "1.25s")] {
            assert_eq!(rounded(time), shown);
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! A recording and what its replays came to as one page for a browser: nothing is fetched, nothing of it is needed but a
//! browser, and nothing that the guest or the recording says can be more than text.
//!
//! ```text
//! html       text of others in a page
//! timeline   the run from left to right, and as a table
//! console    its lines, each with its position
//! page.css   how it looks: light and dark, wide, narrow and printed
//! page.js    what moves: without it, everything is there to be read
//! ```
//!
//! The same recording and replays give the same page.

mod console;
mod html;
mod timeline;

use std::fmt::{Display, Write};
use std::time::Duration;

use crate::base::clock::{Calendar, duration};
use crate::base::progress::Progress;
use crate::base::text::bytes;
use crate::config::guest::Shift;
use crate::config::types::Size;
use crate::file::digest::Digest;
use crate::recording::checkpoints::{Checkpoint, Checkpoints};
use crate::recording::library::manifest::{FileDigest, Manifest, Outcome};
use crate::recording::log::activity::{Activity, Clock};
use crate::recording::replay::verdict::{Replays, grouped, proved};
use crate::recording::session::Error;
use crate::recording::{Divergence, Entry, Recording, Verdict};
use console::Console;
use html::Text;
use timeline::Timeline;

/// What a page begins with. A file that does is one of ours.
pub const MARK: &str = "<!DOCTYPE html>\n<!-- ttvm report -->\n";

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What a browser lets a page do that says so: apply this style and run this script, by their digests, and nothing else. It
/// fetches nothing, whatever is in the page.
const POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; \
    style-src 'sha256-rPT7iKL9X/I43OEb2JcAdF4JAWPGq2qcCDVZBgpNY7M='; \
    script-src 'sha256-8S/Db8GKeod/jGa5746LfXriy4ZcFLQAOpWZ8y3c6MU='";

/// The page of `recording`. Its log and its console are read, and have to be what was recorded.
///
/// # Errors
///
/// If something of it cannot be read or is not what was recorded, or `progress` called it off.
pub fn page(recording: &Recording, progress: &mut Progress<'_>) -> Result<String, Error> {
    let manifest = recording.manifest();
    let result = manifest.result.as_ref().ok_or(Error::Interrupted)?;
    let checkpoints = Checkpoints::load(recording.directory())?;
    let mut console = Console::default();
    let activity = recording.activity(&mut |line| console.push(&line), progress)?;
    let report = Report {
        recording,
        manifest,
        result,
        replays: recording.replays(),
        checkpoints: checkpoints.as_ref().map_or(&[], Checkpoints::all),
        branches: recording.branches()?,
        console,
        activity,
    };
    let mut page = String::new();
    report.write(&mut page);
    Ok(page)
}

struct Report<'a> {
    recording: &'a Recording,
    manifest: &'a Manifest,
    result: &'a Outcome,
    replays: Option<Replays>,
    checkpoints: &'a [Checkpoint],
    branches: Vec<Entry>,
    console: Console,
    activity: Option<Activity>,
}

impl Report<'_> {
    fn write(&self, page: &mut String) {
        let (guest, id) = (self.recording.guest(), self.recording.id());
        let _ = write!(
            page,
            "{MARK}<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>{guest} {id}: a recorded run</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        );
        self.header(page);
        page.push_str("<main>\n");
        self.timeline(page);
        self.replays(page);
        self.checkpoints(page);
        self.branches(page);
        self.console(page);
        self.machine(page);
        self.files(page);
        let _ = write!(
            page,
            "</main>\n<footer>Made by <code>ttvm report</code> {}.</footer>\n\
             <p id=\"go\" role=\"status\" hidden>To be there: <code id=\"command\" data-command=\"{} --at \"></code></p>\n\
             <script>{SCRIPT}</script>\n</body>\n</html>\n",
            env!("CARGO_PKG_VERSION"),
            self.replay()
        );
    }

    /// The command that replays it.
    fn replay(&self) -> String {
        format!("ttvm replay {} {}", self.recording.guest(), self.recording.id())
    }

    fn header(&self, page: &mut String) {
        let (guest, id) = (self.recording.guest(), self.recording.id());
        let (class, word, what) = self.verdict();
        let _ = write!(
            page,
            "<a class=\"skip\" href=\"#console\">To the console</a>\n<header>\n<p class=\"kind\">Recorded run</p>\n<h1>{guest}</h1>\n\
             <p class=\"id\">{id}, {}, {}</p>\n<p class=\"verdict {class}\"><strong>{word}</strong> {what}</p>\n<dl class=\"figures\">\n",
            date(self.manifest.run.started),
            ended(self.result)
        );
        let mut figure = |name: &str, value: String| {
            let _ = writeln!(page, "<div><dt>{name}</dt><dd>{value}</dd></div>");
        };
        if let Some(count) = self.result.instructions {
            figure("Instructions", grouped(count));
        }
        if let Some(time) = self.result.instructions.and_then(|end| self.time_at(end)) {
            figure("Guest time", time);
        }
        figure("Recorded in", self.length());
        figure("Console", plural(self.console.lines(), "line"));
        if let Some(activity) = &self.activity {
            let total = activity.total();
            if !self.manifest.disks.is_empty() {
                figure("Disk requests", grouped(total.disk));
            }
            if !self.manifest.vifs.is_empty() {
                figure("Packets received", grouped(total.packets));
            }
        }
        figure("Log", bytes(self.result.log.size));
        figure("Memory", Size::from_bytes(self.manifest.engine.memory).to_string());
        page.push_str("</dl>\n");
        page.push_str("<nav aria-label=\"Parts of this page\"><ul>");
        for (id, name) in [
            ("timeline", "Timeline"),
            ("replays", "Replays"),
            ("checkpoints", "Checkpoints"),
            ("branches", "Branches"),
            ("console", "Console"),
            ("machine", "Machine"),
            ("files", "Files"),
        ] {
            if id == "branches" && self.branches.is_empty() {
                continue;
            }
            let _ = write!(page, "<li><a href=\"#{id}\">{name}</a></li>");
        }
        page.push_str("</ul></nav>\n</header>\n");
    }

    /// What its newest replay came to: how that looks, in a word, and in a sentence.
    fn verdict(&self) -> (&'static str, &'static str, String) {
        let Some(replays) = &self.replays else {
            return ("none", "NOT REPLAYED YET", String::new());
        };
        match &replays.newest {
            Verdict::Identical {
                instructions,
                from,
                moments,
                memory,
                disks,
            } => {
                let times = match replays.identical {
                    0 | 1 => "a replay was".to_owned(),
                    count => format!("{} replays in a row were", grouped(count.into())),
                };
                let proved = proved(*instructions, *from, *moments, *memory, *disks);
                ("good", "IDENTICAL", format!("{times} the same run{proved}"))
            }
            Verdict::Diverged { at } => ("bad", "DIVERGED", Text(headline(at)).to_string()),
        }
    }

    fn clock(&self) -> Option<&Clock> {
        self.activity.as_ref().map(|activity| &activity.clock)
    }

    fn time_at(&self, instructions: u64) -> Option<String> {
        self.clock()?.at(instructions).map(time)
    }

    fn length(&self) -> String {
        duration(self.result.ended.saturating_sub(self.manifest.run.started))
    }

    fn diverged(&self) -> Option<&Divergence> {
        match &self.replays.as_ref()?.newest {
            Verdict::Diverged { at } => Some(at),
            Verdict::Identical { .. } => None,
        }
    }

    /// Where that was: up to where it is known to have been the same, and where it was seen not to be.
    fn divergence(&self) -> Option<(Option<u64>, u64)> {
        self.diverged()?.place(self.result.instructions?)
    }

    fn timeline(&self, page: &mut String) {
        page.push_str("<section aria-labelledby=\"timeline\">\n<h2 id=\"timeline\">Timeline</h2>\n");
        match &self.activity {
            Some(activity) => {
                let checkpoints: Vec<u64> = (self.checkpoints.iter())
                    .map(|checkpoint| checkpoint.moment.instructions)
                    .collect();
                let branches: Vec<u64> = (self.branches.iter())
                    .filter_map(|entry| entry.parent().map(|parent| parent.instructions))
                    .collect();
                Timeline {
                    branches: &branches,
                    activity,
                    console: &self.console,
                    checkpoints: &checkpoints,
                    compared: &self.recording.compared_at(),
                    diverged: self.divergence(),
                    disks: !self.manifest.disks.is_empty(),
                    networks: !self.manifest.vifs.is_empty(),
                }
                .write(page);
            }
            None => page.push_str("<p>The log of a run on TT Xen is not read here: there is no timeline.</p>\n"),
        }
        page.push_str("</section>\n");
    }

    fn replays(&self, page: &mut String) {
        page.push_str("<section aria-labelledby=\"replays\">\n<h2 id=\"replays\">Replays</h2>\n");
        let command = self.replay();
        let Some(replays) = &self.replays else {
            let _ = write!(
                page,
                "<p>Nobody has replayed it to its end yet. <code>{command} --verify</code> does, and says whether it is the same \
                 run.</p>\n</section>\n"
            );
            return;
        };
        let mut rows = Rows::begin(page);
        match &replays.newest {
            Verdict::Diverged { at } => rows.text("Newest", &format!("diverged: {}", headline(at))),
            identical @ Verdict::Identical { .. } => rows.text("Newest", &identical.to_string()),
        }
        if let Some(Divergence::Memory { differences, .. }) = self.diverged() {
            for difference in differences {
                rows.text("What differs", difference);
            }
        }
        if let Some((same, at)) = self.divergence() {
            same.iter()
                .for_each(|same| rows.text("Still the same", &position(*same)));
            rows.text("Not any more", &position(at));
            if let Some(line) = self.console.before(at) {
                rows.link("Last line before it", line);
            }
        }
        let name = if replays.unexplained { "Looked for" } else { "Because" };
        rows.texts(name, &replays.explanation);
        rows.text("Ended", &date(replays.when));
        if replays.identical > 0 {
            rows.text("Identical in a row", &replays.identical.to_string());
        }
        for engine in &replays.engines {
            rows.text("Identical on", engine);
        }
        rows.end();
        if self.diverged().is_some() && (replays.unexplained || replays.explanation.is_empty()) {
            let _ = writeln!(
                page,
                "<p><code>{command} --verify --explain</code> looks for the first instruction that went another way.</p>"
            );
        }
        page.push_str("</section>\n");
    }

    fn checkpoints(&self, page: &mut String) {
        page.push_str("<section aria-labelledby=\"checkpoints\">\n<h2 id=\"checkpoints\">Checkpoints</h2>\n");
        if self.checkpoints.is_empty() {
            page.push_str("<p>None. The first replay makes them, and a replay to a point begins at the last one before it.</p>\n</section>\n");
            return;
        }
        let _ = writeln!(
            page,
            "<p>A replay to a point of the run begins at the last one before it.</p>\n<details><summary>{}</summary>\n\
             <div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Checkpoints\"><table class=\"numbers\"><thead><tr>\
             <th scope=\"col\">Position</th><th scope=\"col\">Time</th><th scope=\"col\">Digest of the memory</th></tr></thead><tbody>",
            plural(self.checkpoints.len() as u64, "checkpoint")
        );
        for Checkpoint { moment, .. } in self.checkpoints {
            let at = moment.instructions;
            let _ = writeln!(
                page,
                "<tr id=\"c-{at}\"><th scope=\"row\"><a href=\"#c-{at}\">{}</a></th><td>{}</td><td class=\"digest\">{}</td></tr>",
                position(at),
                self.time_at(at).unwrap_or_default(),
                moment.memory
            );
        }
        page.push_str("</tbody></table></div></details>\n</section>\n");
    }

    /// Who has left this run, and where.
    fn branches(&self, page: &mut String) {
        if self.branches.is_empty() {
            return;
        }
        page.push_str(
            "<section aria-labelledby=\"branches\">\n<h2 id=\"branches\">Branches</h2>\n\
             <p>Runs that are this one up to a position, and another from there.</p>\n\
             <div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Branches\"><table><thead><tr>\
             <th scope=\"col\">Position</th><th scope=\"col\">Time</th><th scope=\"col\">Recording</th><th scope=\"col\">Ended</th>\
             <th scope=\"col\">Replayed</th></tr></thead><tbody>\n",
        );
        for entry in &self.branches {
            let at = entry.parent().map_or(0, |parent| parent.instructions);
            let result = entry.manifest.as_ref().and_then(|manifest| manifest.result.as_ref());
            let replays = entry.replays.as_ref().map_or_else(String::new, ToString::to_string);
            let _ = writeln!(
                page,
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{} {}</td><td>{}</td><td>{}</td></tr>",
                position(at),
                self.time_at(at).unwrap_or_default(),
                entry.guest,
                entry.id,
                result.map_or_else(|| "not yet".to_owned(), ended),
                Text(&replays)
            );
        }
        page.push_str("</tbody></table></div>\n</section>\n");
    }

    fn console(&self, page: &mut String) {
        page.push_str("<section aria-labelledby=\"console\">\n<h2 id=\"console\">Console</h2>\n");
        if self.console.lines() == 0 {
            page.push_str("<p>The guest printed nothing.</p>\n");
        } else if self.activity.is_some() {
            let _ = writeln!(
                page,
                "<p>Each line has its position, the instructions that the guest had executed before it began to print it, and the time of \
                 so many. <code>{} --at <var>POSITION</var></code> goes there; a link to a position is a link to its line.</p>",
                self.replay()
            );
        }
        if !self.result.console_complete {
            page.push_str("<p>The end of what was printed is lost: the run was cut off.</p>\n");
        }
        self.console.write(self.clock(), page);
        page.push_str("</section>\n");
    }

    fn machine(&self, page: &mut String) {
        let (run, engine) = (&self.manifest.run, &self.manifest.engine);
        page.push_str("<section aria-labelledby=\"machine\">\n<h2 id=\"machine\">Run and machine</h2>\n");
        let mut rows = Rows::begin(page);
        if self.manifest.guest != *self.recording.guest() {
            rows.text("Recorded as", self.manifest.guest.as_str());
        }
        if let Some(parent) = &self.manifest.parent {
            let at = position(parent.instructions);
            rows.text("Branch of", &format!("{} {}, at {at}", parent.guest, parent.id));
        }
        rows.text("Began", &date(run.started));
        let ended = format!(
            "{}, after {}: {}",
            date(self.result.ended),
            self.length(),
            ended(self.result)
        );
        rows.text("Ended", &ended);
        if let Some(began) = engine.began {
            rows.text(
                "Guest's time of day",
                &format!("{} at its first instruction", date(began)),
            );
        }
        rows.text("Engine", &format!("{} {}", engine.toolstack.as_str(), engine.version));
        rows.text("Machine", &engine.machine);
        rows.text("Processor", &engine.cpu);
        match engine.icount.parse() {
            Ok(Shift::Fixed(shift)) => rows.text("An instruction takes", &format!("{} ns", 1u64 << shift)),
            _ => rows.text("icount", &engine.icount),
        }
        rows.text("Memory", &Size::from_bytes(engine.memory).to_string());
        if let Some(cmdline) = &engine.cmdline {
            rows.text("Kernel's command line", cmdline);
        }
        rows.text("Network", &run.network);
        for vif in &self.manifest.vifs {
            rows.text("Network card", &vif.mac.to_string());
        }
        rows.text("Recorded by", &format!("ttvm {}", run.ttvm));
        if self.recording.is_imported() {
            rows.text("Came from", "another host: the paths below are its maker's");
        }
        rows.end();
        page.push_str("</section>\n");
    }

    fn files(&self, page: &mut String) {
        page.push_str(
            "<section aria-labelledby=\"files\">\n<h2 id=\"files\">Files and digests</h2>\n<div class=\"wide\" tabindex=\"0\" \
             role=\"region\" aria-label=\"Files and digests\"><table><thead><tr><th scope=\"col\">What</th><th scope=\"col\">Where it \
             was</th><th scope=\"col\">Size</th><th scope=\"col\">Digest</th></tr></thead><tbody>\n",
        );
        let mut row = |what: &str, path: &dyn Display, size: Option<u64>, digest: &Digest| {
            let _ = writeln!(
                page,
                "<tr><th scope=\"row\">{}</th><td class=\"path\">{}</td><td class=\"number\">{}</td><td class=\"digest\">{digest}</td></tr>",
                Text(what),
                Text(path.to_string()),
                size.map(bytes).unwrap_or_default()
            );
        };
        let mut file = |what: &str, file: &FileDigest| row(what, &file.path.display(), Some(file.size), &file.digest);
        file("Log", &self.result.log);
        file("Console", &self.result.console);
        file("Guest's file", &self.manifest.guest_file);
        let (kernel, initrd) = (&self.manifest.kernel, &self.manifest.initrd);
        for (what, some) in [("Kernel", kernel), ("Initial RAM disk", initrd)] {
            some.iter().for_each(|it| file(what, it));
        }
        self.manifest.engine.firmware.iter().for_each(|it| file("Firmware", it));
        for disk in &self.manifest.disks {
            let name = format!("Disk {}", disk.target);
            row(&name, &disk.origin, Some(disk.size), &disk.digest);
            if let Some(end) = &disk.end {
                row(&format!("{name} at the end"), &"", None, end);
            }
        }
        row("Configuration of the engine", &"", None, &self.manifest.engine.config);
        page.push_str("</tbody></table></div>\n</section>\n");
    }
}

/// A table of names and values.
struct Rows<'a>(&'a mut String);

impl<'a> Rows<'a> {
    fn begin(page: &'a mut String) -> Self {
        page.push_str("<table class=\"facts\"><tbody>\n");
        Self(page)
    }

    fn text(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.0, "<tr><th scope=\"row\">{name}</th><td>{}</td></tr>", Text(value));
    }

    /// Several values of one name.
    fn texts(&mut self, name: &str, values: &[String]) {
        for (at, value) in values.iter().enumerate() {
            let head = match (at, values.len()) {
                (0, 1) => format!("<th scope=\"row\">{name}</th>"),
                (0, rows) => format!("<th scope=\"row\" rowspan=\"{rows}\">{name}</th>"),
                _ => String::new(),
            };
            let _ = writeln!(self.0, "<tr>{head}<td>{}</td></tr>", Text(value));
        }
    }

    /// The way to a line of the console.
    fn link(&mut self, name: &str, line: u64) {
        let _ = writeln!(
            self.0,
            "<tr><th scope=\"row\">{name}</th><td><a href=\"#i-{line}\">{}</a></td></tr>",
            position(line)
        );
    }

    fn end(self) {
        self.0.push_str("</tbody></table>\n");
    }
}

/// What a divergence was, without the list of what differs.
fn headline(at: &Divergence) -> String {
    let mut at = at.clone();
    if let Divergence::Memory { differences, .. } = &mut at {
        differences.clear();
    }
    at.to_string()
}

/// How the run ended.
fn ended(result: &Outcome) -> String {
    result.exit.to_string()
}

/// Instructions as `ttvm replay --at` takes them, and as a double click marks them.
fn position(instructions: u64) -> String {
    grouped(instructions).replace(',', "_")
}

/// A time of the run as `ttvm replay --at` takes it.
fn time(time: Duration) -> String {
    format!("{:.3}s", time.as_secs_f64())
}

/// A time of the host. A page is for others, too: it is in UTC.
fn date(seconds: u64) -> String {
    let Calendar {
        date: (year, month, day),
        time: (hour, minute, second),
    } = Calendar::of(seconds);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// `1 line`, `1,058 lines`.
fn plural(count: u64, one: &str) -> String {
    let more = if count == 1 { "" } else { "s" };
    format!("{} {one}{more}", grouped(count))
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding};
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_policy_knows_the_style_and_the_script() {
        for (what, text) in [("style", STYLE), ("script", SCRIPT)] {
            let source = format!("{what}-src 'sha256-{}'", Base64::encode_string(&Sha256::digest(text)));
            assert!(POLICY.contains(&source), "put into POLICY: {source}");
            assert!(!text.contains("</"), "it would end there");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(position(1_234_567), "1_234_567");
        assert_eq!(time(Duration::from_micros(61_234_567)), "61.235s");
        assert_eq!(date(1_795_612_020), "2026-11-25 13:07:00 UTC");
        assert_eq!(
            [plural(0, "line"), plural(1, "line"), plural(1058, "line")],
            ["0 lines", "1 line", "1,058 lines"]
        );
    }
}

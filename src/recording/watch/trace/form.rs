// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a trace is written: lines for people, lines of JSON, and what other programs open.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::super::symbols::Symbols;
use super::{Call, Entry};
use crate::config::guest::Shift;
use crate::recording::library::manifest::Manifest;
use crate::recording::replay::verdict::grouped;

/// How.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// A line for each thing, for people.
    #[default]
    Text,
    /// The same as JSON.
    Json,
    /// One list as Chrome's tracing and Perfetto open it (Trace Event Format).
    Chrome,
    /// Packets, as libpcap has them.
    Pcap,
}

/// What a file of packets begins with: written with the least byte first, in microseconds, version 2.4.
const PCAP: [u32; 6] = [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 1 << 17, 1];

/// Writes a trace.
pub struct Writer<W> {
    out: W,
    form: Form,
    symbols: Symbols,
    time: Time,
    /// Whether something was written.
    has_begun: bool,
    /// The address spaces that were seen, by number.
    spaces: BTreeMap<u64, usize>,
    /// The threads in them.
    threads: BTreeMap<(u64, u64), usize>,
}

/// An address, or what is in memory, in JSON. Many programs that read it have no whole numbers of 64 bits.
pub fn word(word: u64) -> String {
    format!("{word:#x}")
}

impl super::Write {
    /// It as JSON, with the names that are known.
    pub fn json(&self, symbols: &Symbols) -> Value {
        json!({
            "at": self.at,
            "address": word(self.address),
            "symbol": symbols.name(self.address),
            "to": word(self.to),
            "size": self.size,
            "value": self.value.map(word),
            "space": word(self.space),
        })
    }
}

/// What time it is after so many instructions.
#[derive(Debug, Clone, Copy)]
struct Time {
    /// Seconds since 1970 at the beginning.
    began: u64,
    /// The logarithm of how many nanoseconds an instruction takes. A guest that waited is ahead of that.
    shift: u8,
}

impl Time {
    fn nanoseconds(self, at: u64) -> u128 {
        u128::from(at) << self.shift
    }

    fn microseconds(self, at: u64) -> f64 {
        self.nanoseconds(at) as f64 / 1000.0
    }
}

impl<W: Write> Writer<W> {
    /// Of a run of `manifest`, whose addresses have the names `symbols`.
    pub fn new(out: W, form: Form, symbols: Symbols, manifest: &Manifest) -> Self {
        let shift = match manifest.engine.icount.parse() {
            Ok(Shift::Fixed(shift)) => shift,
            _ => 0,
        };
        Self {
            out,
            form,
            symbols,
            time: Time {
                began: manifest.engine.began.unwrap_or_default(),
                shift,
            },
            has_begun: false,
            spaces: BTreeMap::new(),
            threads: BTreeMap::new(),
        }
    }

    /// Writes what happened.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        match self.form {
            Form::Text => {
                let line = self.line(entry);
                writeln!(self.out, "{line}")
            }
            Form::Json => {
                let line = self.json(entry);
                writeln!(self.out, "{line}")
            }
            Form::Chrome => self.chrome(entry),
            Form::Pcap => self.pcap(entry),
        }
    }

    /// Writes what comes behind all of it.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn end(mut self) -> io::Result<()> {
        match (self.form, self.has_begun) {
            (Form::Chrome, true) => writeln!(self.out, "\n]")?,
            (Form::Chrome, false) => writeln!(self.out, "[]")?,
            (Form::Pcap, false) => self.pcap_head()?,
            _ => {}
        }
        self.out.flush()
    }

    fn line(&self, entry: &Entry) -> String {
        match entry {
            Entry::Block { at, address, length } => {
                format!("{:>15}  {}  {length} instructions", grouped(*at), self.place(*address))
            }
            Entry::Instruction { at, address } => format!("{:>15}  {}", grouped(*at), self.place(*address)),
            Entry::Write(write) => format!(
                "{:>15}  {:#x}  {}  wrote {} bytes to {}{}",
                grouped(write.at),
                write.space,
                self.place(write.address),
                write.size,
                self.place(write.to),
                write
                    .value
                    .map_or_else(|| ", a device".to_owned(), |value| format!(": {value:#x}"))
            ),
            Entry::Call(call) => format!("{:>15}  {:#x}  {call}", grouped(call.at), call.space),
            Entry::Disk { at, request } => format!("{:>15}  request {request} is done", grouped(*at)),
            Entry::Packet { at, network, frame } => format!(
                "{:>15}  interface {network}: {} bytes from {} to {}, type {:#06x}",
                grouped(*at),
                frame.len(),
                mac(frame, 6),
                mac(frame, 0),
                kind(frame)
            ),
        }
    }

    /// An address, and what it is in.
    fn place(&self, address: u64) -> String {
        match self.symbols.name(address) {
            Some(name) => format!("{address:#x} {name}"),
            None => format!("{address:#x}"),
        }
    }

    fn json(&self, entry: &Entry) -> Value {
        match entry {
            Entry::Block { at, address, length } => {
                json!({ "at": at, "address": word(*address), "symbol": self.symbols.name(*address), "instructions": length })
            }
            Entry::Instruction { at, address } => {
                json!({ "at": at, "address": word(*address), "symbol": self.symbols.name(*address) })
            }
            Entry::Write(write) => write.json(&self.symbols),
            Entry::Call(call) => json!({
                "at": call.at,
                "until": call.until,
                "address": word(call.address),
                "space": word(call.space),
                "thread": word(call.thread),
                "call": call.name(),
                "number": call.number,
                "arguments": call.arguments.iter().copied().map(word).collect::<Vec<_>>(),
                "result": call.result.map(u64::cast_signed),
            }),
            Entry::Disk { at, request } => json!({ "at": at, "request": request }),
            Entry::Packet { at, network, frame } => {
                json!({ "at": at, "interface": network, "size": frame.len(), "frame": hex(frame) })
            }
        }
    }

    /// Each thing is a slice of time; each address space is a process.
    fn chrome(&mut self, entry: &Entry) -> io::Result<()> {
        let (name, at, until, (process, thread)) = match entry {
            Entry::Block { at, address, length } => {
                let name = self.symbols.name(*address).unwrap_or_else(|| format!("{address:#x}"));
                (name, *at, at.saturating_add((*length).into()), (0, 0))
            }
            Entry::Instruction { at, address } => (self.place(*address), *at, at.saturating_add(1), (0, 0)),
            Entry::Call(call) => (
                call.name(),
                call.at,
                call.until.unwrap_or(call.at.saturating_add(1)),
                self.thread(call)?,
            ),
            Entry::Write(write) => (self.place(write.address), write.at, write.at.saturating_add(1), (0, 0)),
            Entry::Disk { at, request } => (format!("request {request}"), *at, *at, (0, 0)),
            Entry::Packet { at, network, .. } => (format!("interface {network}"), *at, *at, (0, 0)),
        };
        let (from, to) = (self.time.microseconds(at), self.time.microseconds(until));
        let event = json!({
            "name": name,
            "ph": "X",
            "ts": from,
            "dur": to - from,
            "pid": process,
            "tid": thread,
            "args": self.json(entry),
        });
        self.element(&event)
    }

    /// The numbers of a call's address space and of its thread: two threads may be in calls at once. The name of a space is told when it
    /// is seen first.
    fn thread(&mut self, call: &Call) -> io::Result<(usize, usize)> {
        let next = self.threads.len() + 1;
        let thread = *self.threads.entry((call.space, call.thread)).or_insert(next);
        let next = self.spaces.len() + 1;
        if let Some(number) = self.spaces.get(&call.space) {
            return Ok((*number, thread));
        }
        self.spaces.insert(call.space, next);
        let name = format!("address space {:#x}", call.space);
        self.element(&json!({ "name": "process_name", "ph": "M", "pid": next, "args": { "name": name } }))?;
        Ok((next, thread))
    }

    fn element(&mut self, value: &Value) -> io::Result<()> {
        let before = if self.has_begun { ",\n" } else { "[\n" };
        self.has_begun = true;
        write!(self.out, "{before}{value}")
    }

    fn pcap(&mut self, entry: &Entry) -> io::Result<()> {
        let Entry::Packet { at, frame, .. } = entry else {
            return Ok(());
        };
        if !self.has_begun {
            self.pcap_head()?;
        }
        let microseconds = u128::from(self.time.began) * 1_000_000 + self.time.nanoseconds(*at) / 1000;
        let length = frame.len() as u32;
        // Seconds have 32 bits there.
        let (seconds, rest) = ((microseconds / 1_000_000) as u32, (microseconds % 1_000_000) as u32);
        self.words(&[seconds, rest, length, length])?;
        self.out.write_all(frame)
    }

    fn pcap_head(&mut self) -> io::Result<()> {
        self.has_begun = true;
        self.words(&PCAP)
    }

    fn words(&mut self, words: &[u32]) -> io::Result<()> {
        words
            .iter()
            .try_for_each(|word| self.out.write_all(&word.to_le_bytes()))
    }
}

fn mac(frame: &[u8], from: usize) -> String {
    let bytes = frame.iter().skip(from).take(6);
    bytes.map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn kind(frame: &[u8]) -> u16 {
    frame
        .get(12..14)
        .map_or(0, |kind| u16::from_be_bytes([kind[0], kind[1]]))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Into text it never fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

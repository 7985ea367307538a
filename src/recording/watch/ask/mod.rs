// SPDX-License-Identifier: MIT OR Apache-2.0
//! Questions to a recorded run, and the answers: who wrote to an address last, when an address was executed first, who wrote a
//! sector of a disk.

mod executed;
mod sector;

use std::ops::ControlFlow;
use std::str::FromStr;

use qemu_watch::{Record, Watch};

pub use sector::{Written, who_wrote};

use super::Watcher;
use super::symbols::Symbols;
use super::trace::Write;
use crate::config::types::Target;
use crate::recording::log::point::{NotAPoint, Point};
use crate::recording::session::{Error, Listener};
use executed::Executed;

/// An address in the guest, as a person names it: `0xffffffff81000000`, `do_exit`, `do_exit+0x12`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// By its number.
    Address(u64),
    /// By the name of what is there, and how far behind its beginning.
    Symbol(String, u64),
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// `last write to ADDRESS before POINT`
    LastWrite {
        /// Where.
        to: Place,
        /// Before when.
        before: Point,
    },
    /// `first execution of ADDRESS`
    FirstExecution {
        /// Of the instruction there.
        of: Place,
    },
    /// `who wrote sector DISK:NUMBER`
    WhoWrote {
        /// The disk, by its name in the guest.
        disk: Target,
        /// The sector of 512 bytes, from 0.
        sector: u64,
    },
}

/// Why a text is no question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAQuestion {
    /// It has none of the known forms.
    #[error(
        "ask \"last write to ADDRESS before POINT\", \"first execution of ADDRESS\", or \"who wrote sector vda:2048\""
    )]
    Unknown,
    /// That is no address.
    #[error("\"{0}\" is no address: write 0xffffffff81000000, do_exit or do_exit+0x12")]
    NoPlace(String),
    /// That is no sector.
    #[error("\"{0}\" is no sector of a disk: write vda:2048")]
    NoSector(String),
    /// That is no point.
    #[error(transparent)]
    NoPoint(#[from] NotAPoint),
}

impl FromStr for Place {
    type Err = NotAQuestion;
    fn from_str(text: &str) -> Result<Self, NotAQuestion> {
        let wrong = || NotAQuestion::NoPlace(text.to_owned());
        if let Some(address) = number(text) {
            return Ok(Self::Address(address));
        }
        let (name, behind) = match text.split_once('+') {
            Some((name, behind)) => (name, number(behind).ok_or_else(wrong)?),
            None => (text, 0),
        };
        let mut letters = name.chars();
        let is_name = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && letters.all(|c| c.is_ascii_alphanumeric() || "_.$".contains(c));
        match is_name {
            true => Ok(Self::Symbol(name.to_owned(), behind)),
            false => Err(wrong()),
        }
    }
}

/// As Rust and C write it.
fn number(text: &str) -> Option<u64> {
    let digits = text.replace('_', "");
    match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => digits.parse().ok(),
    }
}

impl Place {
    /// Where it is.
    ///
    /// # Errors
    ///
    /// If no symbol has that name.
    pub fn address(&self, symbols: &Symbols) -> Result<u64, Error> {
        match self {
            Self::Address(address) => Ok(*address),
            Self::Symbol(name, behind) => symbols
                .address(name)
                .map(|address| address.wrapping_add(*behind))
                .ok_or_else(|| Error::NoSymbol { name: name.clone() }),
        }
    }
}

impl FromStr for Question {
    type Err = NotAQuestion;
    fn from_str(text: &str) -> Result<Self, NotAQuestion> {
        let text = text.trim().trim_end_matches('?').trim_end();
        if let Some(rest) = text.strip_prefix("last write to ") {
            let (to, before) = match rest.split_once(" before ") {
                Some((to, before)) => (to, before.trim().parse()?),
                None => (rest, Point::End { before: 0 }),
            };
            let to = to.trim().parse()?;
            return Ok(Self::LastWrite { to, before });
        }
        if let Some(rest) = text.strip_prefix("first execution of ") {
            return Ok(Self::FirstExecution {
                of: rest.trim().parse()?,
            });
        }
        let Some(rest) = text.strip_prefix("who wrote sector ") else {
            return Err(NotAQuestion::Unknown);
        };
        let wrong = || NotAQuestion::NoSector(rest.to_owned());
        let (disk, sector) = rest.trim().split_once(':').ok_or_else(wrong)?;
        Ok(Self::WhoWrote {
            disk: disk.parse().map_err(|_| wrong())?,
            sector: number(sector).ok_or_else(wrong)?,
        })
    }
}

/// The last write to the byte at `to`, of those before the run had `before` instructions. Parts of the run are watched from there
/// backwards, until it is found.
///
/// # Errors
///
/// If a replay fails, or was another run.
pub fn last_write(
    watcher: &Watcher<'_>,
    to: u64,
    before: u64,
    listener: &mut dyn Listener,
) -> Result<Option<Write>, Error> {
    last(watcher, &Watch::Writes(to..to.saturating_add(1)), before, listener)
}

/// The last write that is watched for before the run had `before` instructions.
fn last(
    watcher: &Watcher<'_>,
    watch: &Watch,
    before: u64,
    listener: &mut dyn Listener,
) -> Result<Option<Write>, Error> {
    for part in watcher.parts(before).into_iter().rev() {
        let mut last = None;
        let mut take = |record: Record| {
            last = Write::of(&record).or(last);
            ControlFlow::Continue(())
        };
        watcher.watch(watch.clone(), part, &mut take, listener)?;
        if last.is_some() {
            return Ok(last);
        }
    }
    Ok(None)
}

/// How many instructions the guest had executed before the one at `address` for the first time. The first such question to a recording
/// replays all of it, for what was executed at all; then the part is watched in which that can have been.
///
/// # Errors
///
/// If the replay fails, or was another run.
pub fn first_execution(watcher: &Watcher<'_>, address: u64, listener: &mut dyn Listener) -> Result<Option<u64>, Error> {
    let Some(since) = Executed::of(watcher, listener)?.since(address) else {
        return Ok(None);
    };
    let mut first = None;
    let mut take = |record: Record| {
        first = Some(record.at());
        ControlFlow::Break(())
    };
    watcher.watch(Watch::Instruction(address), since..watcher.end(), &mut take, listener)?;
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_ask() {
        let ask = |text: &str| text.parse::<Question>();
        assert_eq!(
            ask("last write to 0xffff_8000 before 'login:'"),
            Ok(Question::LastWrite {
                to: Place::Address(0xffff_8000),
                before: Point::Text(b"login:".to_vec()),
            })
        );
        assert_eq!(
            ask(" last write to jiffies+8?"),
            Ok(Question::LastWrite {
                to: Place::Symbol("jiffies".to_owned(), 8),
                before: Point::End { before: 0 },
            })
        );
        assert_eq!(
            ask("first execution of do_exit.constprop.0"),
            Ok(Question::FirstExecution {
                of: Place::Symbol("do_exit.constprop.0".to_owned(), 0)
            })
        );
        assert_eq!(ask("why"), Err(NotAQuestion::Unknown));
        assert_eq!(
            ask("first execution of 12x"),
            Err(NotAQuestion::NoPlace("12x".to_owned()))
        );
        assert_eq!(
            ask("who wrote sector vda:2048"),
            Ok(Question::WhoWrote {
                disk: "vda".parse().expect("a disk"),
                sector: 2048,
            })
        );
        assert_eq!(
            ask("who wrote sector vda"),
            Err(NotAQuestion::NoSector("vda".to_owned()))
        );
        assert!(matches!(
            ask("last write to 1 before 12"),
            Ok(Question::LastWrite {
                before: Point::Instructions(12),
                ..
            })
        ));
        assert!(matches!(
            ask("last write to 1 before 1.5"),
            Err(NotAQuestion::NoPoint(_))
        ));
    }
}

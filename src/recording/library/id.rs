// SPDX-License-Identifier: MIT OR Apache-2.0
//! A recording's name.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::base::clock::Calendar;

/// When a recording began, `YYYYMMDD-HHMMSS` in UTC; with `-2`, `-3` and so on if that was taken. It is the name of a
/// directory. They sort in the order of making.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    time: String,
    number: u32,
}

/// Why a text is no [`Id`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the id of a recording, such as 20261125-130700")]
pub struct NotAnId(String);

impl Id {
    /// The `number`th (from 1) recording that began at `seconds` since 1970.
    pub fn new(seconds: u64, number: u32) -> Self {
        let Calendar {
            date: (year, month, day),
            time: (hour, minute, second),
        } = Calendar::of(seconds);
        Self {
            time: format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}"),
            number,
        }
    }
}

/// Whether `text` may be the beginning of an [`Id`].
pub(super) fn is_prefix(text: &str) -> bool {
    !text.is_empty() && text.len() <= 26 && text.chars().all(|c| c.is_ascii_digit() || c == '-')
}

impl FromStr for Id {
    type Err = NotAnId;
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let wrong = || NotAnId(text.to_owned());
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let (time, rest) = text.split_at_checked(15).ok_or_else(wrong)?;
        let shaped = time
            .split_once('-')
            .is_some_and(|(day, second)| (day.len(), second.len()) == (8, 6) && digits(day) && digits(second));
        // One spelling for each.
        let number = match rest.strip_prefix('-') {
            None if rest.is_empty() => Some(1),
            Some(number) if digits(number) && !number.starts_with('0') => {
                number.parse().ok().filter(|number| *number > 1)
            }
            _ => None,
        };
        match number {
            Some(number) if shaped => Ok(Self {
                time: time.to_owned(),
                number,
            }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.time)?;
        match self.number {
            1 => Ok(()),
            number => write!(f, "-{number}"),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let id = |seconds| Id::new(seconds, 1).to_string();
        assert_eq!(id(0), "19700101-000000");
        assert_eq!(id(951_782_400), "20000229-000000");
        assert_eq!(id(1_709_251_199), "20240229-235959");
        assert_eq!(id(1_795_611_430), "20261125-125710");
        assert_eq!(id(4_107_542_400), "21000301-000000");
    }

    #[test]
    fn names_of_directories() {
        for good in ["20261125-130700", "20261125-130700-2", "20261125-130700-11"] {
            assert_eq!(good.parse::<Id>().map(|id| id.to_string()).as_deref(), Ok(good));
        }
        for bad in [
            "",
            ".",
            "..",
            "20261125",
            "20261125-13070",
            "20261125-130700-",
            "20261125-130700-0",
            "20261125-130700-1",
            "20261125-130700-02",
            "20261125-130700-99999999999",
            "20261125-130700/",
            "20261125/130700",
            "2026112-5130700",
            "+0261125-130700",
            ".removing-20261125-130700",
            "2026112ä-130700",
        ] {
            assert!(bad.parse::<Id>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_order_of_making() {
        let mut ids: Vec<Id> = [
            "20261125-130700-10",
            "20261125-130701",
            "20261125-130700-2",
            "20261125-130700",
        ]
        .iter()
        .filter_map(|id| id.parse().ok())
        .collect();
        ids.sort();
        let sorted: Vec<String> = ids.iter().map(Id::to_string).collect();
        assert_eq!(
            sorted,
            [
                "20261125-130700",
                "20261125-130700-2",
                "20261125-130700-10",
                "20261125-130701"
            ]
        );
    }
}

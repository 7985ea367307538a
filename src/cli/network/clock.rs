// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deadlines as a person reads them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cli::terminal::clock;

/// The time until `usec`, in µs since 1970; none if that is over.
pub(super) fn left(usec: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_micros(usec).saturating_sub(now)
}

/// `HH:MM:SS` of `usec` on this host's clock. Nothing waits longer than an hour, so the day is not said.
pub(super) fn time(usec: u64) -> String {
    let seconds = usec / 1_000_000;
    match clock::parts(seconds) {
        Some(parts) => format!("{:02}:{:02}:{:02}", parts.tm_hour, parts.tm_min, parts.tm_sec),
        None => format!("@{seconds}"),
    }
}

/// What happens if nobody does anything.
pub(super) fn undecided(deadline_usec: u64) -> String {
    match deadline_usec {
        0 => "The change is undone at its deadline unless it is confirmed: ttvm network confirm".to_owned(),
        usec => format!(
            "The change is undone at {} unless it is confirmed: ttvm network confirm",
            time(usec)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_day() {
        // Whatever the zone, two times an hour and a second apart differ so.
        let seconds = |usec| {
            let text = time(usec);
            let parts: Vec<u64> = text.split(':').filter_map(|part| part.parse().ok()).collect();
            (parts[0] * 60 + parts[1]) * 60 + parts[2]
        };
        let noon = 1_700_000_000_000_000;
        let difference = seconds(noon + 3_601_000_000) + 86_400 - seconds(noon);
        assert_eq!(difference % 86_400, 3601);
        assert_eq!(left(noon), Duration::ZERO);
    }
}

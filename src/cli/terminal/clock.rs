// SPDX-License-Identifier: MIT OR Apache-2.0
//! Times on this host's clock, as a person reads them.

use nix::libc::{localtime_r, time_t, tm};

/// The parts of `seconds` since 1970; `None` for a time that no clock shows.
pub(in crate::cli) fn parts(seconds: u64) -> Option<tm> {
    let time = time_t::try_from(seconds).ok()?;
    let mut parts = std::mem::MaybeUninit::<tm>::zeroed();
    // SAFETY: both point to what localtime_r(3) asks for; a tm of zeros is a valid one, so it may also fail.
    unsafe {
        let answer = localtime_r(&raw const time, parts.as_mut_ptr());
        (!answer.is_null()).then(|| parts.assume_init())
    }
}

/// `YYYY-MM-DD HH:MM:SS`.
pub(in crate::cli) fn date_and_time(seconds: u64) -> String {
    let Some(parts) = parts(seconds) else {
        return format!("@{seconds}");
    };
    // Months are counted from 0, years from 1900.
    let (year, month) = (i64::from(parts.tm_year) + 1900, parts.tm_mon + 1);
    format!(
        "{year:04}-{month:02}-{:02} {:02}:{:02}:{:02}",
        parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec
    )
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The clock that deadlines are on: it goes on while the host is asleep, which the executor's does not.

use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

/// Time since boot.
pub fn now() -> Duration {
    // It fails only for a clock that does not exist.
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Waits until that time since boot; if the host sleeps meanwhile, no longer than until it is awake again.
pub async fn until(time: Duration) {
    match timer(time) {
        Ok(timer) => {
            // It is readable once the time is over.
            if timer.readable().await.is_ok() {
                return;
            }
        }
        Err(error) => tracing::warn!("no timer on the clock that goes on while the host is asleep: {error}"),
    }
    tokio::time::sleep(time.saturating_sub(now())).await;
}

fn timer(time: Duration) -> std::io::Result<AsyncFd<OwnedFd>> {
    let timer = TimerFd::new(
        ClockId::CLOCK_BOOTTIME,
        TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
    )?;
    // Zero would be never.
    let time = TimeSpec::from(time.max(Duration::from_nanos(1)));
    timer.set(Expiration::OneShot(time), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
    // SAFETY: an OwnedFd is open and the same one for as long as it lives.
    Ok(unsafe { AsyncFd::register(OwnedFd::from(timer)) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_waits_as_long_as_it_should() {
        let begin = now();
        until(Duration::ZERO).await;
        until(begin).await;
        assert!(now() - begin < Duration::from_secs(1));
        until(begin + Duration::from_millis(300)).await;
        let waited = now() - begin;
        assert!((300..2000).contains(&waited.as_millis()), "{waited:?}");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much of something each user has at the same time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Who is not counted, and whose number the service's own work goes by.
pub const ROOT: u32 = 0;

/// Counts for each user, up to a limit.
pub struct Users {
    counts: Mutex<HashMap<u32, u32>>,
    limit: u32,
}

/// One more of a user's, until it is dropped.
pub struct Counted<'a> {
    users: &'a Users,
    uid: u32,
}

impl Users {
    /// With this limit for each.
    pub fn new(limit: u32) -> Self {
        Self {
            counts: Mutex::default(),
            limit,
        }
    }

    /// One more of this user's; `None` if there are too many.
    pub fn count(&self, uid: u32) -> Option<Counted<'_>> {
        let mut counts = self.counts();
        let count = counts.entry(uid).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Counted { users: self, uid })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<u32, u32>> {
        // Nothing that can panic happens under it.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut counts = self.users.counts();
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

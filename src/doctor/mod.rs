// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether this host is ready for what it is to do, and if not, what exactly to do.
//!
//! ```text
//! facts     what files say: settings, guests, and what follows from them for this host (purpose)
//! answers   what programs and the kernel say: each is asked once, and only if somebody needs it
//! checks    the checks, a file for each subject: pure functions of both
//! fix       what can be done about some of them, and undone
//! ```
//!
//! A check is for somebody: that Xen does not run is nothing wrong where no guest runs on Xen.

mod answers;
mod check;
mod checks;
mod facts;
mod fix;
mod purpose;

use checks::{boot, guests, host, network, recordings, snapshots, xen};

pub use answers::{Answers, Asked, Socket};
pub use check::{Area, Check, State};
pub use facts::Facts;
pub use fix::{Dmeventd, Error, Fix};

/// Looks at everything, in the order of the areas.
pub fn examine(facts: &Facts, answers: &Answers) -> Vec<Check> {
    let areas = [
        host::check(facts, answers),
        xen::check(facts, answers),
        boot::check(facts, answers),
        snapshots::check(facts, answers),
        network::check(facts, answers),
        recordings::check(facts, answers),
        guests::check(facts, answers),
    ];
    areas.into_iter().flatten().collect()
}

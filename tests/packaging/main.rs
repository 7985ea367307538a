// SPDX-License-Identifier: MIT OR Apache-2.0
//! The packages through their lives: installed, upgraded, downgraded, removed, in small Debian root file systems in which nothing
//! runs. `make deb` and `make rpm` come first. Guests that run and networks that change are in tests/host/cases/package.rs.

mod deb;
mod first_use;
mod root;
mod rpm;
#[path = "../support/terminal.rs"]
mod terminal;
mod units;

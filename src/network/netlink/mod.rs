// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's network (rtnetlink(7)): links, addresses, routes, neighbours.

/// Why the kernel did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection.
    #[error("can not talk to the kernel's network")]
    Io(#[from] std::io::Error),
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! How guests reach the world: NAT or a bridge, and the way from one to the other.

pub mod xend;

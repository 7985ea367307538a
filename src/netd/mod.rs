// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service `org.ttvm.Network1`.

pub mod proxy;

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of xm and xl become guests: what a person sees, hostile files, and comparisons with xl's own parser and with Python.

mod hostile;
mod oracle;
mod python;
mod random;
mod sessions;
mod volumes;
mod xlu;

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages of the kernel as text in a file: hexadecimal, so that nothing the kernel said is lost, also what we do not
//! know the meaning of.

use std::fmt::Write;

use netlink_packet_core::{Emitable, Parseable};
use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

pub(super) fn serialize<M: Emitable, S: Serializer>(message: &M, serializer: S) -> Result<S::Ok, S::Error> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    serializer.serialize_str(&text)
}

pub(super) fn deserialize<'de, M: Parseable<[u8]>, D: Deserializer<'de>>(deserializer: D) -> Result<M, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes: Option<Vec<u8>> = text
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let bytes = bytes.ok_or_else(|| D::Error::custom("not hexadecimal"))?;
    M::parse(&bytes).map_err(D::Error::custom)
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The arguments of the service's methods, as they come over the bus. The first byte is the order of bytes, the second says whose
//! arguments they are.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ttvm::netd::options::{Settings, confirm, id_of, known, request};
use ttvm_fuzz::{PARSER, watch};
use zbus::ObjectPath;
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{BE, LE};

fuzz_target!(|data: &[u8]| {
    let [order, method, body @ ..] = data else { return };
    let context = Context::new(if order & 1 == 0 { LE } else { BE }, 0);
    let message = Data::new(body, context);
    watch(data, PARSER, || match method % 3 {
        0 => {
            if let Ok(((mode, settings, confirm, flags), _)) = message.deserialize::<(&str, Settings, u32, u64)>()
                && let Err(error) = request(mode, settings, confirm, flags)
            {
                drop(error.to_string());
            }
        }
        1 => {
            if let Ok(((mode, settings, flags), _)) = message.deserialize::<(&str, Settings, u64)>() {
                drop(request(mode, settings, 0, flags));
            }
        }
        _ => {
            if let Ok(((path, seconds), _)) = message.deserialize::<(ObjectPath<'_>, u32)>() {
                drop((id_of(&path), confirm(seconds), known(seconds.into(), 1)));
            }
        }
    });
});

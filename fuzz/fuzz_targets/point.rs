// SPDX-License-Identifier: MIT OR Apache-2.0
//! A moment of a run as a person names it, and a question to a run. Behind a NUL, what the run printed, and behind another one, its
//! log.

#![no_main]

use libfuzzer_sys::fuzz_target;
use replay_log::Devices;
use ttvm::recording::ask::Question;
use ttvm::recording::point::{Point, resolve};
use ttvm::recording::symbols::Symbols;
use ttvm_fuzz::{PARSER, watch};

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (said, console, log) = (next(), next(), next());
    let said = String::from_utf8_lossy(said);
    watch(data, PARSER, || {
        match said.parse::<Question>() {
            Ok(Question::LastWrite { to: place, .. } | Question::FirstExecution { of: place }) => {
                drop(place.address(&Symbols::default()).map_err(|error| error.to_string()));
            }
            Ok(Question::WhoWrote { .. }) => {}
            Err(error) => drop(error.to_string()),
        }
        let point: Point = match said.parse() {
            Ok(point) => point,
            Err(error) => return drop(error.to_string()),
        };
        let text = point.to_string();
        let is_exact = !matches!(point, Point::Text(_));
        assert!(
            !is_exact || text.parse() == Ok(point.clone()),
            "{point:?} is written {text}"
        );
        let devices = Devices { networks: 1, disks: 1 };
        for end in [0, 1 << 20, u64::MAX] {
            drop(resolve(&point, log, devices, console, end).map_err(|error| error.to_string()));
        }
    });
});

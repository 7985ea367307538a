// SPDX-License-Identifier: MIT OR Apache-2.0
//! xend's configuration, and changing it: what comes out must be what was wanted.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ttvm::network::xend::{Scripts, XendConfig};
use ttvm_fuzz::{PARSER, watch};

fuzz_target!(|data: &[u8]| {
    watch(data, PARSER, || {
        let config = match XendConfig::parse(data.to_vec()) {
            Ok(config) => config,
            Err(error) => return drop(error.to_string()),
        };
        drop((config.state(), config.network_script(), config.vif_script().len()));
        // One of the four ways; each input would take its time four times.
        let scripts = Scripts::ALL[data.len() % 2];
        match config.switch(scripts, (data.len() / 2).is_multiple_of(2)) {
            Err(error) => drop(error.to_string()),
            Ok(bytes) => {
                let after = XendConfig::parse(bytes).expect("what was written can be read");
                let network = after.network_script().expect("a script");
                assert_eq!(network.file, scripts.network().as_bytes());
                assert_eq!(after.vif_script(), scripts.vif().as_bytes());
            }
        }
    });
});

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The outer end of `rootfs/usr/lib/ttvm-host/agent`, which describes the protocol.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::lines::Lines;
use super::{Error, Output, Result};

/// How much later than a script's own deadline its answer may come.
const GRACE: Duration = Duration::from_secs(60);

pub struct Agent {
    lines: Lines,
    last_id: u64,
}

impl Agent {
    pub fn new(socket: UnixStream) -> Self {
        Self {
            lines: Lines::new(socket),
            last_id: 0,
        }
    }

    /// Waits for the agent of another boot than `before` to come up, of a kernel that was told `wanted`. Until then
    /// nothing may be sent: the old one, still there while the host shuts down, would take it.
    pub fn wait_boot(&mut self, before: &str, wanted: &str, deadline: Instant) -> Result<()> {
        loop {
            let message = self.lines.next(deadline)?;
            let told = message["command_line"].as_str().unwrap_or_default();
            if message["boot"].as_str().is_some_and(|boot| boot != before) && told.contains(wanted) {
                return Ok(());
            }
        }
    }

    pub fn sh(&mut self, script: &str, input: &[u8], deadline: Duration) -> Result<Output> {
        self.last_id += 1;
        let request = json!({
            "id": self.last_id,
            "script": characters(script.as_bytes()),
            "input": characters(input),
            "deadline": deadline.as_secs_f64(),
        });
        let end = Instant::now() + deadline + GRACE;
        self.lines.send(&request, end)?;
        loop {
            let reply = self.lines.next(end)?;
            if reply.get("boot").is_some() {
                return Err(Error::new(format!(
                    "the host, or its agent, started anew during:\n{script}"
                )));
            }
            // Any other is the late answer to a request that was given up.
            if reply["id"] != self.last_id {
                continue;
            }
            let output = Output {
                status: reply["status"]
                    .as_i64()
                    .and_then(|status| status.try_into().ok())
                    .unwrap_or(i32::MIN),
                stdout: bytes(&reply["stdout"])?,
                stderr: bytes(&reply["stderr"])?,
                script: script.to_owned(),
            };
            if reply["late"] == true {
                let text = output.success().err().map(|e| e.to_string()).unwrap_or_default();
                return Err(Error::new(format!("killed after {} s: {text}", deadline.as_secs_f64())));
            }
            return Ok(output);
        }
    }
}

fn characters(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn bytes(text: &Value) -> Result<Vec<u8>> {
    let bytes: Option<Vec<u8>> = text
        .as_str()
        .and_then(|text| text.chars().map(|c| u8::try_from(c).ok()).collect());
    bytes.ok_or_else(|| Error::new("an answer of the agent that makes no sense"))
}

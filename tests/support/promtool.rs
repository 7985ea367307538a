// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prometheus's own word on figures.

use std::io::Write;
use std::process::{Command, Stdio};

/// Fails unless promtool, where it is installed, has nothing to say about `figures`.
#[track_caller]
pub fn approves(figures: &str) {
    let Some(program) = ttvm::run::find("/".as_ref(), "promtool") else {
        println!("skipped: there is no promtool (package prometheus)");
        return;
    };
    let mut child = Command::new(program)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    let mut input = child.stdin.take().expect("its input");
    input.write_all(figures.as_bytes()).expect("figures");
    drop(input);
    let output = child.wait_with_output().expect("its end");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}\n{figures}");
}

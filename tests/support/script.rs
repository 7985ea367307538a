// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scripts that tests write and have run.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a script that can be run. Another process does: whatever another thread starts at that moment would have our descriptor
/// for writing until it is another program, and the kernel runs nothing that somebody writes to (ETXTBSY, execve(2)).
pub fn write(path: &Path, text: &str) {
    let mut writer = Command::new("install")
        .args(["-m", "755", "/dev/stdin"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("install");
    let pipe = writer.stdin.take();
    pipe.expect("a pipe").write_all(text.as_bytes()).expect("a script");
    assert!(writer.wait().expect("its end").success(), "{}", path.display());
}

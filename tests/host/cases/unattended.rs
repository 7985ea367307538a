// SPDX-License-Identifier: MIT OR Apache-2.0
//! A fresh Debian that becomes a good host by itself: by the file for cloud-init, and by the play for Ansible, as both are in
//! examples/unattended. What they install is in the machine already, but for the package, which lies where it would be fetched to.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use base64ct::{Base64, Encoding};
use serde_json::{Value, json};

use super::doctor::doctor;
use super::{cases, until};
use crate::machine::{Host, Output, Result, Suite};

cases! {
    Plain {
        Both: cloud_init, ansible;
    }
}

/// It has come back under Xen, which it keeps, and there is nothing that the doctor would do.
fn is_good(host: &mut Host) {
    until(
        host,
        "ttvm boot status --json | grep -q \"\\\"default\\\": \\\"ttvm-ttxen-linux\\\"\"",
    );
    let said = doctor(host, "", 0);
    assert!(said.ends_with("doctor: all ok"), "{said}");
}

/// The commands of the file for cloud-init.
fn cloud_init(host: &mut Host) {
    let file = include_str!("../../../examples/unattended/cloud-init.yaml");
    let script = file.split("\nruncmd:\n  - |\n").nth(1).expect("a script");
    let lines = script.lines().map_while(|line| line.strip_prefix("    "));
    let lines: Vec<&str> = lines.filter(|line| !line.starts_with("wget ")).collect();
    assert!(lines.len() > 5 && lines[0] == "set -e", "{file}");
    // There is no archive to install from here.
    let script = lines.join("\n").replace("apt-get install -y", "dpkg -i");
    host.run(&script).unwrap();
    host.run("test -e /run/ttvm-to-reboot && systemctl is-enabled -q dm-event.socket")
        .unwrap();
    host.reboot().unwrap();
    is_good(host);
}

/// An archive in a directory of the host, with what Ansible's module needs to ask apt, from where this machine has its packages.
fn archive(host: &mut Host, directory: &Path) {
    let suite = host.suite().name();
    let script = "mkdir -p lists/partial
        echo \"deb $(apt-get indextargets --format '$(REPO_URI)' | head -n 1) $SUITE main\" >list
        from() { apt-get -qq -o Dir::Etc::SourceList=$PWD/list -o Dir::Etc::SourceParts=- -o Dir::State::Lists=$PWD/lists \
            -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root \"$@\"; }
        from update
        from download python3-apt python-apt-common distro-info-data
        dpkg-scanpackages -m . >Packages 2>/dev/null
        tar -cf archive.tar *.deb Packages";
    let made = Command::new("sh")
        .args(["-ec", script])
        .env("SUITE", suite)
        .current_dir(directory)
        .status();
    assert!(made.is_ok_and(|status| status.success()), "no archive of {suite}");
    host.push(&directory.join("archive.tar"), "/root/archive.tar", 0o644)
        .unwrap();
    host.run(
        "set -e; mkdir /srv/archive; tar -C /srv/archive -xf /root/archive.tar; rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
         echo 'deb [trusted=yes] file:/srv/archive ./' >/etc/apt/sources.list",
    )
    .unwrap();
}

/// What Ansible asks of the host, and what it gets. A reboot is made as this machine is rebooted.
fn answered(host: &mut Host, question: &Value) -> Result<Output> {
    let bytes = |key: &str| Base64::decode_vec(question[key].as_str().unwrap_or_default()).expect("base64");
    if let Some(path) = question["write"].as_str() {
        host.write(path, &bytes("data"), 0o600)?;
        return host.sh("");
    }
    let script = question["run"].as_str().expect("a command");
    if script.contains("shutdown -r ") {
        host.reboot()?;
        return host.sh("");
    }
    assert!(bytes("input").is_empty(), "{script}");
    host.sh(script)
}

/// Answers whoever connects, one after the other, until somebody says that it is enough: that is returned.
fn serve(host: &mut Host, listener: &UnixListener) -> Value {
    loop {
        let (mut stream, _) = listener.accept().expect("a connection");
        let lines = BufReader::new(stream.try_clone().expect("the connection")).lines();
        for line in lines.map_while(std::result::Result::ok) {
            let question: Value = serde_json::from_str(&line).expect("a question");
            if let Some(end) = question.get("ended") {
                return end.clone();
            }
            let output = answered(host, &question).unwrap();
            let answer = json!({
                "status": output.status,
                "stdout": Base64::encode_string(&output.stdout),
                "stderr": Base64::encode_string(&output.stderr),
            });
            if writeln!(stream, "{answer}").is_err() {
                break;
            }
        }
    }
}

/// The first ansible-core whose modules run under the Python of Debian 13.
const FOR_PYTHON_3_13: (u32, u32) = (2, 16);

/// The version of ansible-core, if there is one.
fn ansible_core() -> Option<(u32, u32)> {
    let output = Command::new("ansible-playbook").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers = text.split_once("[core ")?.1.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The play, run by a real Ansible, which reaches the host through its agent. The second time, nothing is left to be changed.
fn ansible(host: &mut Host) {
    let Some(version) = ansible_core() else {
        println!("skipped: there is no ansible-playbook (ansible-core)");
        return;
    };
    if host.suite() == Suite::Trixie && version < FOR_PYTHON_3_13 {
        println!(
            "skipped: ansible-core {}.{} is too old for the Python of Debian 13",
            version.0, version.1
        );
        return;
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ansible-{}", host.suite().name()));
    drop(fs::remove_dir_all(&directory));
    fs::create_dir_all(&directory).expect("a directory");
    archive(host, &directory);
    let inventory =
        "[ttvm]\nhost ansible_connection=agent ansible_python_interpreter=/usr/bin/python3 ansible_become=false\n";
    fs::write(directory.join("inventory"), inventory).expect("a file");
    let socket = directory.join("agent");
    let listener = UnixListener::bind(&socket).expect("a socket");
    for round in ["first", "second"] {
        let log = directory.join(round);
        let said = File::create(&log).expect("a file");
        let mut child = Command::new("ansible-playbook")
            .args(["-i", "inventory", "-e", &format!("ttvm_deb={}", Host::DEB)])
            .arg(project.join("examples/unattended/ansible.yaml"))
            .current_dir(&directory)
            .env("ANSIBLE_CONNECTION_PLUGINS", project.join("tests/host/ansible"))
            .env("ANSIBLE_HOME", directory.join("home"))
            .env("ANSIBLE_NOCOLOR", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("TTVM_AGENT", &socket)
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("the file"))
            .stderr(said)
            .spawn()
            .expect("Ansible");
        let end = socket.clone();
        let waits = std::thread::spawn(move || {
            let status = child.wait().expect("its end").code();
            let mut stream = UnixStream::connect(end).expect("the socket");
            writeln!(stream, "{}", json!({ "ended": status })).expect("its end is told");
        });
        let status = serve(host, &listener);
        waits.join().expect("nothing else");
        let said = fs::read_to_string(&log).expect("what it said");
        assert_eq!(status, 0, "{said}");
        if round == "second" {
            assert!(said.contains(" changed=0 "), "{said}");
        }
        is_good(host);
    }
}

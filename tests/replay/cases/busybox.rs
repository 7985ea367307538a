// SPDX-License-Identifier: MIT OR Apache-2.0
//! Guests made by `ttvm initrd busybox`, in a machine with as little memory as Xen's have.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde_json::Value;
use ttvm::qemu::qmp::Qmp;

use super::super::Outcome;
use super::super::lab::{GUEST, Lab, Place, console_says};

/// No guest takes so long, however loaded the machine is.
const LIMIT: Duration = Duration::from_secs(240);

/// One by QEMU's user network.
const NETWORK: &str = "-netdev user,id=net -device virtio-net-pci,netdev=net,romfile=";

/// A place in whose `image` the guest is.
fn made(lab: &Lab, options: &[&str]) -> Place {
    let place = lab.place();
    lab.copy_system(&place.path("system"));
    let (system, image) = (place.path("system"), place.path("image"));
    let command = ["--root", system.to_str().expect("a path"), "initrd", "busybox", "-o"];
    let args = [&command[..], &[image.to_str().expect("a path")], options].concat();
    place.run(&args).expect(0, &["made "]);
    place
}

/// A machine. Dropped, it is switched off.
struct Machine {
    process: Child,
    printed: Receiver<Vec<u8>>,
    /// What was printed since the last thing waited for.
    console: String,
    until: Instant,
    qmp: Qmp,
}

impl Machine {
    fn start(place: &Place, cmdline: &str, devices: &str) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let fd = theirs.as_raw_fd();
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args("-nodefaults -no-user-config -display none -M pc,accel=tcg -m 96M -no-reboot".split(' '))
            .args(["-serial", "stdio", "-mon", "chardev=qmp,mode=control"])
            .args(["-chardev", &format!("socket,id=qmp,fd={fd}")])
            .args(devices.split_whitespace())
            .arg("-kernel")
            .arg(place.path("vmlinuz"))
            .arg("-initrd")
            .arg(place.path("image"))
            .args(["-append", &format!("console=ttyS0 panic=-1 quiet {cmdline}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // SAFETY: two system calls.
        unsafe {
            command.pre_exec(move || {
                set_pdeathsig(Signal::SIGKILL)?;
                fcntl(
                    std::os::fd::BorrowedFd::borrow_raw(fd),
                    FcntlArg::F_SETFD(FdFlag::empty()),
                )?;
                Ok(())
            });
        }
        let mut process = command.spawn().expect("QEMU");
        drop(theirs);
        let (sender, printed) = channel();
        let mut stdout = process.stdout.take().expect("a pipe");
        std::thread::spawn(move || {
            let mut bytes = vec![0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut bytes) {
                if sender.send(bytes[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            process,
            printed,
            console: String::new(),
            until: Instant::now() + LIMIT,
            qmp: Qmp::open(ours).expect("QMP"),
        }
    }

    /// Waits until the guest prints `text`.
    #[track_caller]
    fn says(&mut self, text: &str) {
        loop {
            if let Some(at) = self.console.find(text) {
                self.console.drain(..at + text.len());
                return;
            }
            let left = self.until.saturating_duration_since(Instant::now());
            match self.printed.recv_timeout(left) {
                Ok(bytes) => self.console += &String::from_utf8_lossy(&bytes),
                Err(why) => panic!("in vain: waiting for {text:?} ({why}):\n{}", self.console),
            }
        }
    }

    /// Answers a question for a password: what is typed while it is asked is thrown away, and nothing tells when that is over.
    #[track_caller]
    fn answers(&mut self, password: &str) {
        self.says("Password: ");
        std::thread::sleep(Duration::from_secs(1));
        self.types(password);
    }

    fn types(&mut self, line: &str) {
        let keyboard = self.process.stdin.as_mut().expect("a pipe");
        keyboard.write_all(format!("{line}\n").as_bytes()).expect("a line");
    }

    /// Waits for the machine's end.
    #[track_caller]
    fn ends(mut self) -> ExitStatus {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            match self.printed.recv_timeout(left) {
                Ok(bytes) => self.console += &String::from_utf8_lossy(&bytes),
                Err(RecvTimeoutError::Disconnected) => return self.process.wait().expect("its end"),
                Err(RecvTimeoutError::Timeout) => panic!("it does not end:\n{}", self.console),
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

pub fn login_and_poweroff(lab: &Lab) -> Outcome {
    let place = made(lab, &[]);
    let mut machine = Machine::start(&place, "ttvm.guest=clientA", NETWORK);
    machine.says("clientA login: ");
    machine.types("root");
    machine.answers("wrong");
    machine.says("Login incorrect");
    machine.says("clientA login: ");
    machine.types("root");
    machine.answers("root");
    machine.says("root@clientA:~# ");
    machine.types("until ip -4 addr show dev eth0 | grep inet; do sleep 0.2; done");
    machine.says("inet 10.0.2.15/24");
    machine.types("ip route; cat /etc/resolv.conf; ping -c 1 10.0.2.2");
    machine.says("default via 10.0.2.2 dev eth0");
    machine.says("nameserver 10.0.2.3");
    machine.says("1 packets received");
    // It was told to no console but this one.
    machine.types("ps | grep -c '[g]etty'; stat -c '%a %U' /etc/shadow; ls /lib/modules/$(uname -r)/modules.dep");
    machine.says("600 root");
    machine.says("/modules.dep");
    machine.types("poweroff");
    assert!(machine.ends().success());
    Ok(())
}

pub fn power_button(lab: &Lab) -> Outcome {
    let place = made(lab, &["--autologin"]);
    let mut machine = Machine::start(&place, "ip=10.0.2.77::10.0.2.2:255.255.255.0:box", NETWORK);
    machine.says(":~# ");
    machine.types(
        "until ip -4 addr show dev eth0 | grep inet; do sleep 0.2; done; ip route; hostname; ping -c 1 10.0.2.2",
    );
    machine.says("inet 10.0.2.77/24");
    machine.says("default via 10.0.2.2 dev eth0");
    machine.says("\nbox");
    machine.says("1 packets received");
    machine
        .qmp
        .execute("system_powerdown", Value::Null)
        .expect("the button");
    assert!(machine.ends().success());
    Ok(())
}

/// Nobody waits for a network that is not there.
pub fn no_network(lab: &Lab) -> Outcome {
    let place = made(lab, &["--autologin"]);
    let mut machine = Machine::start(&place, "", "");
    machine.says("root@ram:~# ");
    machine.types("ip -4 addr show dev lo; free");
    machine.says("inet 127.0.0.1/8");
    machine.types("reboot");
    assert!(machine.ends().success());
    Ok(())
}

/// In the machine that guests are recorded in.
pub fn recorded(lab: &Lab) -> Outcome {
    let place = made(lab, &[]);
    std::fs::copy(place.path("image"), place.path("initrd")).expect("the image");
    place.describe("none", "");
    let running = place.start(&["record", GUEST], "recording as");
    console_says(&place, "ram login: ");
    running.signal(Signal::SIGINT);
    running.end().expect(0, &["recorded demo "]);
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    Ok(())
}

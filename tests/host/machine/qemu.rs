// SPDX-License-Identifier: MIT OR Apache-2.0
//! The emulator: its process, its monitor (QMP), and what one does with a whole machine.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};
use serde_json::{Value, json};

use super::agent::Agent;
use super::lines::Lines;
use super::{Context, Error, Output, Result, layers, quoted};

const QEMU: &str = "qemu-system-x86_64";
/// For one command of the monitor; saving and loading a machine are among them.
const MONITOR: Duration = Duration::from_secs(120);
/// From the end of the agent's connection to that of the monitor's, when an emulator ends.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// The volume group is activated by a unit of its own that nothing waits for, a thin volume last.
const VOLUMES: &str = "timeout 900 sh -c 'until [ -e /dev/xenvg/tbase ] && ! systemctl is-active -q lvm-activate-xenvg; do sleep 0.5; done'";
/// How often a machine that boots is looked at, whether it stands still for good.
const LOOK: Duration = Duration::from_secs(15);
/// What Linux says when the emulator is at fault: it loses a timer now and then; and it can execute the first byte of an
/// instruction that another processor is just rewriting (text_poke in Linux's arch/x86/kernel/alternative.c), seen with 6.12.
/// Nobody can go on from there.
const FAULTS: [&str; 2] = ["rcu_preempt kthread timer wakeup didn't happen", "Oops: int3"];
/// A piece of a file on its way in.
const PIECE: usize = 1 << 20;

/// Debian's package ovmf: UEFI firmware that remembers nothing, so that a machine's snapshots need not hold its memory.
const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

/// What boots the disks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    Bios,
    /// Finds GRUB on a disk of its own.
    Uefi,
}

/// A machine. Each of its boots has an emulator of its own: where one has run code already, it looks at every write into
/// that memory, and Xen takes half a minute instead of three seconds to put dom0 there.
pub struct Machine {
    parts: Parts,
    firmware: Firmware,
    emulator: Emulator,
    /// What was asked of it, and how long each took.
    pub spent: Vec<(String, Duration)>,
}

/// What outlives an emulator.
struct Parts {
    base: PathBuf,
    disks: [PathBuf; 2],
    console: File,
    stderr: File,
}

struct Emulator {
    /// Where its part of the console begins.
    begun: usize,
    process: Process,
    monitor: Lines,
    agent: Agent,
}

impl Parts {
    /// From the disks, or from a snapshot of the whole machine.
    fn start(&self, firmware: Firmware, snapshot: Option<&str>) -> Result<Emulator> {
        let begun = contents(&self.console).len();
        let (monitor, monitor_end) = UnixStream::pair().context("socket")?;
        let (agent, agent_end) = UnixStream::pair().context("socket")?;

        let mut command = Command::new(QEMU);
        command.args([
            "-name",
            "ttvm-host",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
        ]);
        // With -cpu max, or with less memory, Xen's dom0 dies or crawls under TCG.
        command.args([
            "-M",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "qemu64,+svm,+npt",
            "-smp",
            "2",
            "-m",
            "3072",
            "-action",
            "reboot=shutdown",
        ]);
        for (name, disk) in ["root", "data"].iter().zip(&self.disks) {
            // cache=unsafe saves the host's fsync only: what the guest has flushed survives the death of the emulator.
            command.arg("-drive").arg(format!(
                "if=virtio,id={name},format=qcow2,cache=unsafe,file={},backing.driver=raw,backing.file.filename={}",
                commas(disk),
                commas(&self.base.join(name).with_extension("raw")),
            ));
        }
        command.arg("-chardev").arg(format!(
            "file,id=console,append=on,path={}",
            layers::path_of(&self.console).display()
        ));
        command.args(["-serial", "chardev:console"]);
        command
            .arg("-chardev")
            .arg(format!("socket,id=monitor,fd={}", monitor_end.as_raw_fd()));
        command.args(["-mon", "chardev=monitor,mode=control"]);
        command
            .arg("-chardev")
            .arg(format!("socket,id=agent,fd={}", agent_end.as_raw_fd()));
        command.args([
            "-device",
            "virtio-serial-pci",
            "-device",
            "virtserialport,chardev=agent,name=org.ttvm.agent",
        ]);
        if firmware == Firmware::Uefi {
            command.args(["-bios", OVMF, "-drive"]).arg(format!(
                "if=virtio,format=raw,readonly=on,file={}",
                commas(&self.base.join("esp.raw"))
            ));
        }
        if let Some(snapshot) = snapshot {
            command.args(["-loadvm", snapshot]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(self.stderr.try_clone().context("emulator's log")?);
        let process = Process::start(command, [monitor_end.as_raw_fd(), agent_end.as_raw_fd()])?;

        let mut emulator = Emulator {
            begun,
            process,
            monitor: Lines::new(monitor),
            agent: Agent::new(agent),
        };
        // Ours must be the only open ends, else their closing is not seen.
        drop((monitor_end, agent_end));
        emulator
            .monitor
            .next(Instant::now() + MONITOR)
            .map_err(|e| self.explain(e))?;
        emulator
            .execute("qmp_capabilities", &json!({}))
            .map_err(|e| self.explain(e))?;
        Ok(emulator)
    }

    /// An error of the connection is best explained by what the emulator and the machine said last.
    fn explain(&self, error: Error) -> Error {
        let console = contents(&self.console);
        let from = console.char_indices().rev().nth(1500).map_or(0, |(at, _)| at);
        Error::new(format!(
            "{error}\n--- emulator\n{}--- end of the console\n{}",
            contents(&self.stderr),
            &console[from..]
        ))
    }
}

impl Emulator {
    /// One QMP command.
    fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let deadline = Instant::now() + MONITOR;
        let request = json!({ "execute": command, "arguments": arguments });
        self.monitor.send(&request, deadline)?;
        loop {
            let mut reply = self.monitor.next(deadline)?;
            if reply.get("event").is_some() {
                continue;
            } else if let Some(error) = reply.get("error") {
                return Err(Error::new(format!("{command}: {}", error["desc"])));
            } else {
                return Ok(reply["return"].take());
            }
        }
    }

    /// Whether it has ended because the machine asked for a reset, which is the last that it says.
    fn was_reset(&mut self) -> bool {
        let deadline = Instant::now() + LAST_WORDS;
        let mut reset = false;
        while let Ok(message) = self.monitor.next(deadline) {
            reset = message["event"] == "SHUTDOWN" && message["data"]["reason"] == "guest-reset";
        }
        reset && self.process.wait().is_ok()
    }
}

impl Machine {
    /// Starts the emulator on `disks` (root and data overlays over the raw ones in `base`).
    pub fn start(base: &Path, disks: &[PathBuf; 2], firmware: Firmware, snapshot: Option<&str>) -> Result<Self> {
        let parts = Parts {
            base: base.to_owned(),
            disks: disks.clone(),
            console: layers::unnamed_file(base)?,
            stderr: layers::unnamed_file(base)?,
        };
        let emulator = parts.start(firmware, snapshot)?;
        Ok(Self {
            parts,
            firmware,
            emulator,
            spent: Vec::new(),
        })
    }

    /// One command of the human monitor; these know about snapshots of the whole machine.
    pub fn monitor(&mut self, line: &str) -> Result<()> {
        match self
            .emulator
            .execute("human-monitor-command", &json!({ "command-line": line }))
            .map_err(|e| self.parts.explain(e))?
            .as_str()
        {
            None | Some("") => Ok(()),
            Some(text) => Err(Error::new(format!("{line}: {}", text.trim()))),
        }
    }

    pub fn sh(&mut self, script: &str, input: &[u8], deadline: Duration) -> Result<Output> {
        let start = Instant::now();
        let output = self.emulator.agent.sh(script, input, deadline);
        self.spent.push((script.to_owned(), start.elapsed()));
        output.map_err(|e| self.parts.explain(e))
    }

    pub fn write(&mut self, guest: &str, data: &[u8], mode: u32) -> Result<()> {
        let (name, partial) = (quoted(guest), quoted(&format!("{guest}.partial")));
        self.sh(&format!("umask 077; : >{partial}"), b"", MONITOR)?.success()?;
        for piece in data.chunks(PIECE) {
            self.sh(&format!("cat >>{partial}"), piece, MONITOR)?.success()?;
        }
        self.sh(
            &format!("chmod {mode:o} {partial} && mv -T {partial} {name}"),
            b"",
            MONITOR,
        )?
        .success()
        .map(drop)
    }

    /// Waits for the agent of another boot than `before`, of a kernel that was told `wanted`, then for systemd to have
    /// started everything.
    pub fn wait_booted(&mut self, before: &str, wanted: &str, deadline: Instant) -> Result<()> {
        loop {
            let look = deadline.min(Instant::now() + LOOK);
            let Err(error) = self.emulator.agent.wait_boot(before, wanted, look) else {
                break;
            };
            if look < deadline && Instant::now() >= look {
                if !self.is_at_fault() {
                    continue;
                }
                eprintln!("ttvm host: the emulator is at fault: the machine is started once more");
                self.emulator.process.kill();
            } else if !self.emulator.was_reset() {
                return Err(self.parts.explain(error));
            }
            self.emulator = self.parts.start(self.firmware, None)?;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let state = self.sh(
            &format!("systemctl is-system-running --wait; systemctl --failed --no-legend --plain; {VOLUMES}"),
            b"",
            left,
        )?;
        match state.text().split_once('\n') {
            None if state.text() == "running" => Ok(()),
            Some(("degraded", failed)) => {
                eprintln!("ttvm host: units that failed in the booted host:\n{failed}");
                Ok(())
            }
            _ => Err(Error::new(format!("the host booted into the state {:?}", state.text()))),
        }
    }

    /// Whether what the machine has shown since its emulator was started is the emulator's fault.
    pub fn is_at_fault(&self) -> bool {
        let console = contents(&self.parts.console);
        let shown = console.get(self.emulator.begun..).unwrap_or_default();
        FAULTS.iter().any(|fault| shown.contains(fault))
    }

    /// Reboots, and waits for a kernel that is told `wanted`, however many boots that takes.
    pub fn reboot(&mut self, wanted: &str, deadline: Instant) -> Result<()> {
        let before = self
            // Not at once: the agent would be stopped before it has answered. A timer's own accuracy is a minute.
            .sh(
                "cat /proc/sys/kernel/random/boot_id && \
                 systemd-run -q --on-active=200ms --timer-property=AccuracySec=1ms systemctl reboot",
                b"",
                MONITOR,
            )?
            .success()?;
        self.wait_booted(&before, wanted, deadline)
    }

    /// Ends the emulator in an orderly way: its files are complete afterwards. The guest notices nothing.
    pub fn quit(mut self) -> Result<()> {
        let emulator = &mut self.emulator;
        emulator
            .execute("quit", &json!({}))
            .map_err(|e| self.parts.explain(e))?;
        let deadline = Instant::now() + MONITOR;
        // Its end of the socket closes when it is gone.
        while emulator.monitor.next(deadline).is_ok() {}
        emulator.process.wait()
    }

    /// Ends it like a power failure.
    pub fn kill(&mut self) {
        self.emulator.process.kill();
    }

    pub fn console(&self) -> String {
        contents(&self.parts.console)
    }
}

/// A child process that ends with us, however we end.
struct Process {
    stop: Option<Sender<Stop>>,
    keeper: Option<JoinHandle<io::Result<()>>>,
}

enum Stop {
    Wait,
}

impl Process {
    fn start(mut command: Command, inherited: [RawFd; 2]) -> Result<Self> {
        let parent = Pid::this();
        let in_child = move || {
            // Else a killed test would leave an emulator behind.
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if getppid() != parent {
                return Err(io::Error::other("the parent has ended"));
            }
            for fd in inherited {
                // SAFETY: the parent keeps both open until the child is started.
                let fd = unsafe { BorrowedFd::borrow_raw(fd) };
                fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            Ok(())
        };
        // SAFETY: in_child makes system calls only; it neither allocates nor locks.
        unsafe { command.pre_exec(in_child) };

        // That signal comes at the end of the *thread* that made the child, so a thread of its own does, and stays.
        let (stop, stopped) = mpsc::channel();
        let (started, start) = mpsc::channel();
        let keeper = thread::spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return Ok(());
                }
            };
            let _ = started.send(Ok(()));
            if stopped.recv().is_err() {
                child.kill()?;
            }
            child.wait().map(drop)
        });
        start
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("no thread")))
            .context(QEMU)?;
        Ok(Self {
            stop: Some(stop),
            keeper: Some(keeper),
        })
    }

    /// Waits for a child that is about to end.
    fn wait(&mut self) -> Result<()> {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(Stop::Wait);
        }
        self.join()
    }

    fn kill(&mut self) {
        drop(self.stop.take());
        let _ = self.join();
    }

    fn join(&mut self) -> Result<()> {
        match self.keeper.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result.context(QEMU),
            Some(Err(_)) => Err(Error::new("the thread that keeps the emulator panicked")),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A comma ends a value in QEMU's options, two are one.
fn commas(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

fn contents(file: &File) -> String {
    let mut data = vec![0; file.metadata().map_or(0, |m| m.len() as usize)];
    let n = file.read_at(&mut data, 0).unwrap_or(0);
    String::from_utf8_lossy(&data[..n]).into_owned()
}

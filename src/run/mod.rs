// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one place that runs other programs: absolute paths looked up once, a clean environment, no shell,
//! a deadline, and an error that carries the command, how it ended and what it printed.

pub mod child;
mod watched;

use std::fmt;
use std::io::{self, Seek, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::SigSet;
use watched::{End, Watched};

/// Where system programs live; the caller's PATH is not asked.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A program on this system, by the names it may have. Define one constant per program.
pub struct Program {
    names: &'static [&'static str],
    path: OnceLock<Option<PathBuf>>,
}

impl Program {
    /// A program known by the first of `names` that exists (`grub-probe`, else `grub2-probe`).
    pub const fn new(names: &'static [&'static str]) -> Self {
        Self {
            names,
            path: OnceLock::new(),
        }
    }

    /// Its absolute path.
    pub fn path(&self) -> Result<&PathBuf, Error> {
        self.path
            .get_or_init(|| self.names.iter().find_map(|name| find(Path::new("/"), name)))
            .as_ref()
            .ok_or(Error::NotInstalled { program: self.names[0] })
    }
}

/// Where the system in the tree that begins at `root` has the program `name`.
pub fn find(root: &Path, name: &str) -> Option<PathBuf> {
    let place = |directory: &&str| root.join(&directory[1..]).join(name);
    DIRECTORIES.iter().map(place).find(|path| path.is_file())
}

/// What went wrong with a program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such file in [`DIRECTORIES`].
    #[error("{program} is not installed (looked in {}): install the package that has it", DIRECTORIES.join(", "))]
    NotInstalled {
        /// First of the names looked for.
        program: &'static str,
    },
    /// fork, exec, pipe or poll failed.
    #[error("cannot run `{command}`")]
    Io {
        /// The whole command line.
        command: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It ended with a status other than 0.
    #[error("`{command}` {}{}", ended(*status), quoted(stderr))]
    Failed {
        /// The whole command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed on stderr.
        stderr: String,
    },
    /// It did not end in time and was made to.
    #[error("`{command}` did not end within {} s and was stopped{}", limit.as_secs(), quoted(stderr))]
    Deadline {
        /// The whole command line.
        command: String,
        /// The time it was given.
        limit: Duration,
        /// What it had printed on stderr.
        stderr: String,
    },
    /// The caller's cancel descriptor became readable; the program was made to end.
    #[error("`{command}` was stopped on request")]
    Cancelled {
        /// The whole command line.
        command: String,
    },
}

fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("failed with exit status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

fn quoted(stderr: &str) -> String {
    let text = stderr.trim();
    if text.is_empty() {
        return String::new();
    }
    // The end of a long output says why; its beginning says how it went.
    let tail = text.char_indices().rev().nth(1999).map_or(text, |(at, _)| &text[at..]);
    format!(
        ":\n    {}",
        tail.lines().map(str::trim).collect::<Vec<_>>().join("\n    ")
    )
}

/// What a program that ended well printed.
#[derive(Debug)]
pub struct Output {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error: text here is not a failure (LVM warns).
    pub stderr: String,
}

/// Programs started by this process so far.
pub fn spawned() -> usize {
    SPAWNED.load(Ordering::Relaxed)
}

static SPAWNED: AtomicUsize = AtomicUsize::new(0);

/// A command line in the making.
pub struct Command<'a> {
    /// What messages call it.
    name: String,
    path: Result<PathBuf, Error>,
    args: Vec<String>,
    env: Vec<(&'static str, String)>,
    input: Option<&'a str>,
    limit: Duration,
    cancel: Option<BorrowedFd<'a>>,
    terminal: bool,
}

impl<'a> Command<'a> {
    /// `program` without arguments, with a deadline of 30 s.
    pub fn new(program: &Program) -> Self {
        Self::of(program.names[0].to_owned(), program.path().cloned())
    }

    /// The same for a file known by its absolute path, such as a script that a configuration file names.
    pub fn file(path: PathBuf) -> Self {
        Self::of(path.display().to_string(), Ok(path))
    }

    fn of(name: String, path: Result<PathBuf, Error>) -> Self {
        Self {
            name,
            path,
            args: Vec::new(),
            env: Vec::new(),
            input: None,
            limit: Duration::from_secs(30),
            cancel: None,
            terminal: false,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to the otherwise clean environment.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Gives it something to read; otherwise there is nothing.
    #[must_use]
    pub fn input(mut self, text: &'a str) -> Self {
        self.input = Some(text);
        self
    }

    /// Leaves it our standard input: whoever sits there may be asked for a password (systemctl has polkit do so).
    #[must_use]
    pub fn on_the_terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// Sets the deadline.
    #[must_use]
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Ends the program when `fd` becomes readable (a signalfd).
    #[must_use]
    pub fn cancel_on(mut self, fd: BorrowedFd<'a>) -> Self {
        self.cancel = Some(fd);
        self
    }

    /// Runs it to its end. Only exit status 0 is `Ok`.
    pub fn run(self) -> Result<Output, Error> {
        let (stdout, stderr) = self.finish()?;
        Ok(Output {
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr,
        })
    }

    /// The same for a program that prints no text: its standard output.
    pub fn run_for_bytes(self) -> Result<Vec<u8>, Error> {
        Ok(self.finish()?.0)
    }

    fn finish(self) -> Result<(Vec<u8>, String), Error> {
        let command = self.to_string();
        let path = self.path?;
        let io = |source| Error::Io {
            command: command.clone(),
            source,
        };
        let mut process = std::process::Command::new(path);
        process
            .args(&self.args)
            .env_clear()
            .env("PATH", DIRECTORIES.join(":"))
            .env("LC_ALL", "C")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(match self.input {
                Some(text) => Stdio::from(memory_file(text).map_err(io)?),
                None if self.terminal => Stdio::inherit(),
                None => Stdio::null(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A child inherits what its parent has blocked, and would then not end when it is told to.
        // SAFETY: sigprocmask is async-signal-safe; nothing is allocated between fork and exec.
        unsafe { process.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?)) };
        SPAWNED.fetch_add(1, Ordering::Relaxed);
        let mut child = process.spawn().map_err(io)?;
        let watched = Watched::new(&mut child).map_err(io)?;
        let (status, end, stdout, stderr) = watched.finish(&mut child, self.limit, self.cancel).map_err(io)?;
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        match end {
            End::Cancelled => Err(Error::Cancelled { command }),
            End::Deadline => Err(Error::Deadline {
                command,
                limit: self.limit,
                stderr,
            }),
            End::Itself if status.success() => Ok((stdout, stderr)),
            End::Itself => Err(Error::Failed {
                command,
                status,
                stderr,
            }),
        }
    }
}

/// A file that is only in memory: unlike a pipe it cannot be full.
fn memory_file(text: &str) -> io::Result<std::fs::File> {
    let mut file = std::fs::File::from(memfd_create(c"input", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// The command line as a person would type it.
impl fmt::Display for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for arg in &self.args {
            let plain = !arg.is_empty()
                && arg
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_./=:,+%@".contains(c));
            if plain {
                write!(f, " {arg}")?;
            } else {
                write!(f, " '{}'", arg.replace('\'', r"'\''"))?;
            }
        }
        Ok(())
    }
}

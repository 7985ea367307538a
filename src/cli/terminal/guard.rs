// SPDX-License-Identifier: MIT OR Apache-2.0
//! A terminal that is as before when we are gone, whatever ends us: a process of its own waits for that, because nobody who is killed
//! puts anything right.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::termios::{SetArg, Termios, tcsetattr};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, read, setsid, write};

/// How a terminal was.
#[derive(Clone, Copy)]
struct Before {
    /// What brings its screen back.
    screen: &'static str,
    /// The settings of the one that is the standard input.
    settings: Option<libc::termios>,
}

impl Before {
    /// By system calls alone.
    fn restore(&self) {
        if let Some(settings) = self.settings {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &Termios::from(settings));
        }
        let _ = write(io::stdout(), self.screen.as_bytes());
    }
}

/// Dropped, it has nothing to put right any more.
pub(in crate::cli) struct Guard {
    done: PipeWriter,
    over: Arc<AtomicBool>,
    child: Pid,
}

impl Guard {
    /// Guards a terminal whose screen comes back by `screen`, written to the standard output, and whose `settings` were those, if it is the
    /// standard input. `None` where no process can be had: then it is as for every other program.
    pub(in crate::cli) fn begin(screen: &'static str, settings: Option<Termios>) -> Option<Self> {
        let before = Before {
            screen,
            settings: settings.map(libc::termios::from),
        };
        let (alive, done) = io::pipe().ok()?;
        // SAFETY: the child makes system calls alone until it ends (signal-safety(7)).
        let child = match unsafe { fork() }.ok()? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                drop(done);
                wait(&alive, before);
            }
        };
        drop(alive);
        let over = Arc::new(AtomicBool::new(false));
        say_it_there(before, &done, &over);
        Some(Self { done, over, child })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.done.write_all(&[1]);
        let _ = waitpid(self.child, None);
    }
}

/// Waits for the end of all who have the other end of the pipe, and puts the terminal right unless somebody says before that it is.
fn wait(alive: &PipeReader, before: Before) -> ! {
    // What ends everybody at this terminal does not end us.
    let _ = setsid();
    let mut byte = [0];
    let said = loop {
        match read(alive, &mut byte) {
            Err(Errno::EINTR) => {}
            said => break said,
        }
    };
    if said == Ok(0) {
        before.restore();
    }
    // SAFETY: it never returns, and nothing of the parent's is to be run at its end.
    unsafe { libc::_exit(0) }
}

/// A panic is said on the screen that stays.
fn say_it_there(before: Before, done: &PipeWriter, over: &Arc<AtomicBool>) {
    let Ok(done) = done.try_clone() else { return };
    let over = Arc::clone(over);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !over.swap(true, Ordering::Relaxed) {
            before.restore();
            let _ = (&done).write_all(&[1]);
        }
        hook(panic);
    }));
}

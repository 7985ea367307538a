// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program that is somebody else's, shut in by the kernel before its first instruction: nothing here relies on what it does to
//! itself.
//!
//! Two locks, because neither has all of the door. Landlock closes the files: what the program may open is what it was given. It
//! does not know of attributes of files, nor, on the kernels of today, of sockets that have a name; so the system calls that a
//! machine needs are listed, and no other works. Both stay for all that the program becomes or starts.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    Scope,
};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::base::error::{Classify, Exit};

/// What of Landlock is used as far as the kernel has it; the first version of it has to be there.
const LANDLOCK: ABI = ABI::V6;

/// What acts on the program's own memory and threads, on descriptors that it has, or on the clock; and what opens and looks at
/// files, which Landlock judges.
const CALLS: &[libc::c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munmap,
    // Itself and its threads.
    libc::SYS_execve,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_prctl,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_seccomp,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_umask,
    // The clock, and chance.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    libc::SYS_times,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // Descriptors. Of sockets, those that it was handed.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_ioctl,
    libc::SYS_listen,
    libc::SYS_lseek,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_signalfd4,
    libc::SYS_write,
    libc::SYS_writev,
    // Files.
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchdir,
    libc::SYS_getcwd,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_statfs,
    libc::SYS_statx,
];

/// The same under names that only this processor's Linux still has.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[libc::c_long] = &[];

/// Of fcntl: having the kernel send signals to others, which may be any signal (F_SETOWN, F_SETSIG, F_SETOWN_EX); and leases, which
/// stop others (F_SETLEASE).
const FOREIGN_SIGNALS: [u64; 4] = [8, 10, 15, 1024];

/// Of ioctl: typing on a terminal (TIOCSTI, TIOCLINUX), the same signals (FIOSETOWN, SIOCSPGRP, FIOASYNC), and attributes of files
/// that are open for reading alone (FS_IOC_SETFLAGS and its form of 32 bits, FS_IOC_FSSETXATTR, FS_IOC_ENABLE_VERITY).
const CHANGES: [u64; 9] = [
    0x5412,
    0x541c,
    0x8901,
    0x8902,
    0x5452,
    0x4008_6602,
    0x4004_6602,
    0x401c_5820,
    0x4080_6685,
];

/// Why a program cannot be shut in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel cannot.
    #[error(
        "this kernel has no Landlock, without which somebody else's program is not run: boot one that has it (`lsm=landlock,…` on its command line; Debian's and Fedora's have), or use the QEMU that is installed"
    )]
    Unsupported,
    /// It does not say what it is to open.
    #[error("what a program may open cannot be told to the kernel")]
    Files(#[from] RulesetError),
    /// A descriptor cannot be asked how it is open.
    #[error("a file that is handed to a program cannot be asked how it is open")]
    Descriptor(#[source] io::Error),
    /// The list of system calls does not become a filter.
    #[error("the filter of system calls cannot be made")]
    Calls(#[from] BackendError),
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Unsupported => Exit::Refused,
            _ => Exit::Failed,
        }
    }
}

/// What a program is shut in with.
#[derive(Debug)]
pub struct Confinement {
    files: OwnedFd,
    calls: BpfProgram,
}

impl Confinement {
    /// For a program that may read and execute what is in `directory`, and open each of `files` as it is open here.
    pub fn new<'a>(directory: BorrowedFd<'_>, files: impl Iterator<Item = BorrowedFd<'a>>) -> Result<Self, Error> {
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .scope(Scope::from_all(LANDLOCK))?
            .create()?
            .add_rule(PathBeneath::new(directory, AccessFs::from_read(LANDLOCK)))?;
        for file in files {
            rules = rules.add_rule(PathBeneath::new(file, rights(file)?))?;
        }
        let files: Option<OwnedFd> = rules.into();
        Ok(Self {
            files: files.ok_or(Error::Unsupported)?,
            calls: filter()?,
        })
    }

    /// Shuts in this process, or the thread that calls. Makes system calls only: it may be called between fork and exec. The
    /// process can gain no rights any more.
    pub(super) fn enter(&self) -> io::Result<()> {
        // SAFETY: it takes two integers, and the descriptor is ours.
        let entered = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.files.as_fd().as_raw_fd(), 0) };
        Errno::result(entered)?;
        seccompiler::apply_filter(&self.calls).map_err(|_| io::Error::last_os_error())
    }
}

/// What a descriptor that is open so may do, and no more.
fn rights(file: BorrowedFd<'_>) -> Result<BitFlags<AccessFs>, Error> {
    let flags = fcntl(file, FcntlArg::F_GETFL).map_err(|errno| Error::Descriptor(errno.into()))?;
    Ok(match OFlag::from_bits_retain(flags) & OFlag::O_ACCMODE {
        OFlag::O_RDONLY => AccessFs::ReadFile.into(),
        _ => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate,
    })
}

/// Whatever is not listed is not there, as on an older kernel: programs know how to do without.
fn filter() -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<_, _> = CALLS.iter().chain(OLD_CALLS).map(|call| (*call, Vec::new())).collect();
    // Threads, and no processes.
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, only_if(0, SeccompCmpOp::MaskedEq(thread), thread)?);
    // To end itself by abort(). Before Landlock knew of signals (Linux 6.12), it could end others of its user so.
    rules.insert(libc::SYS_tgkill, only_if(2, SeccompCmpOp::Eq, libc::SIGABRT as u64)?);
    // Its own limits, not those of others.
    rules.insert(libc::SYS_prlimit64, only_if(0, SeccompCmpOp::Eq, 0)?);
    // It does not outlive us.
    rules.insert(libc::SYS_prctl, unless(0, &[libc::PR_SET_PDEATHSIG as u64])?);
    rules.insert(libc::SYS_fcntl, unless(1, &FOREIGN_SIGNALS)?);
    rules.insert(libc::SYS_ioctl, unless(1, &CHANGES)?);
    rules.insert(libc::SYS_openat, opening(2)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, opening(1)?);
    let architecture = std::env::consts::ARCH.try_into()?;
    let other = SeccompAction::Errno(libc::ENOSYS as u32);
    SeccompFilter::new(rules, other, SeccompAction::Allow, architecture)?.try_into()
}

/// Opening for reading or writing, `flags` being the number of that argument. Of a file that is opened for neither, Landlock asks
/// nothing; nor, before Linux 6.2, of one that is emptied.
fn opening(flags: u8) -> Result<Vec<SeccompRule>, BackendError> {
    let emptied = libc::O_TRUNC as u64;
    let mask = libc::O_ACCMODE as u64 | emptied;
    let [read, write, both] = [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR].map(|mode| mode as u64);
    let mut rules = Vec::new();
    for good in [read, write, both, write | emptied, both | emptied] {
        rules.extend(only_if(flags, SeccompCmpOp::MaskedEq(mask), good)?);
    }
    Ok(rules)
}

/// If the argument of that number is none of `values`.
fn unless(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, BackendError> {
    let condition = |value: &u64| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *value);
    let conditions: Result<Vec<_>, _> = values.iter().map(condition).collect();
    Ok(vec![SeccompRule::new(conditions?)?])
}

/// If the argument of that number compares so.
fn only_if(argument: u8, how: SeccompCmpOp, value: u64) -> Result<Vec<SeccompRule>, BackendError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value)?;
    Ok(vec![SeccompRule::new(vec![condition])?])
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Read, Write};
    use std::path::Path;

    use super::*;
    use crate::run::child::{Child, Start, Streams};

    /// Tries what a hostile program would, and prints what it could do. `$ARGV[0]` is a directory of ours; descriptor 3 is what
    /// `$ARGV[1]` says.
    const HOSTILE: &str = r#"
        $| = 1;
        my ($there, $handed) = @ARGV;
        sub could { print "$_[0]\n" if $_[1] }
        could("read", open(my $a, "<", "$there/secret"));
        could("list", opendir(my $b, $there));
        could("write", open(my $c, ">", "$there/new"));
        could("append", open(my $d, ">>", "$there/secret"));
        could("open for nothing", sysopen(my $m, "$there/secret", 3));
        could("empty", sysopen(my $n, "$there/secret", 3 | 512));
        could("empty what is only read", sysopen(my $o, $handed, 512));
        could("outlive", syscall(157, 1, 0) == 0);
        could("signals", fcntl(STDOUT, 8, getppid()));
        could("remove", unlink("$there/secret"));
        could("rename", rename("$there/secret", "$there/other"));
        could("link", link("$there/secret", "$there/hard"));
        could("symlink", symlink("/", "$there/soft"));
        could("mkdir", mkdir("$there/directory"));
        could("chmod", chmod(0777, "$there/secret"));
        could("touch", utime(1, 1, "$there/secret"));
        could("truncate", truncate("$there/secret", 0));
        could("passwd", open(my $e, "<", "/etc/passwd"));
        could("proc", open(my $f, "<", "/proc/self/environ"));
        could("parent", open(my $g, "<", "/proc/" . getppid() . "/maps"));
        could("fork", defined(fork()));
        could("signal", kill(0, getppid()));
        could("run", exec { "$there/program" } "program");
        for my $family (1, 2, 10, 16) { could("socket $family", socket(my $s, $family, 1, 0)) }
        could("pair", socketpair(my $h, my $i, 1, 1, 0));
        could("over what is only read", open(my $j, "+<", $handed));
        could("over what it was handed", open(my $k, "<", $handed));
        could("its own", open(my $l, "<", "/usr/bin/perl"));
        exec("/usr/bin/printf", "again\n");
    "#;

    fn run(directory: &Path) -> String {
        let usr = File::open("/usr").expect("/usr");
        let handed = File::open(directory.join("handed")).expect("a file");
        let null = File::options().write(true).open("/dev/null").expect("/dev/null");
        let (mut output, stdout) = std::io::pipe().expect("a pipe");
        let files = [handed.as_fd()];
        let start = Start {
            inherited: &files,
            confinement: Some(Confinement::new(usr.as_fd(), files.into_iter()).expect("a confinement")),
            ..Start::default()
        };
        let name = format!("/proc/self/fd/{}", handed.as_raw_fd());
        let arguments = ["-", &directory.display().to_string(), &name].map(str::to_owned);
        let (stdin, mut script) = std::io::pipe().expect("a pipe");
        script.write_all(HOSTILE.as_bytes()).expect("less than a pipe takes");
        drop(script);
        let streams = Streams {
            stdin: stdin.into(),
            stdout: stdout.into(),
            stderr: null.into(),
        };
        let mut child = Child::spawn_as(Path::new("/usr/bin/perl"), &arguments, streams, start).expect("perl");
        let mut said = String::new();
        output.read_to_string(&mut said).expect("its output");
        child.wait().expect("its end");
        said
    }

    #[test]
    fn a_hostile_program() {
        if !Path::new("/usr/bin/perl").is_file() {
            return;
        }
        let directory = tempdir();
        for (name, content) in [
            ("secret", "secret"),
            ("handed", "handed"),
            ("program", "#!/usr/bin/perl\nprint 1"),
        ] {
            fs::write(directory.join(name), content).expect(name);
        }
        let mode = |name: &str| fs::metadata(directory.join(name)).expect(name).permissions();
        let before = mode("secret");
        assert_eq!(run(&directory), "over what it was handed\nits own\nagain\n");
        assert_eq!(mode("secret"), before);
        assert_eq!(fs::read(directory.join("secret")).expect("it is there"), b"secret");
        fs::remove_dir_all(directory).expect("it goes");
    }

    fn tempdir() -> std::path::PathBuf {
        let directory = std::env::temp_dir().join(format!("ttvm-confinement-{}", std::process::id()));
        drop(fs::remove_dir_all(&directory));
        fs::create_dir(&directory).expect("a directory");
        directory
    }
}

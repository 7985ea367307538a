// SPDX-License-Identifier: MIT OR Apache-2.0
//! A cluster of two hosts that are this one: munged, slurmctld and two slurmd, on the loopback interface alone, with their files in a
//! directory of their own.
//!
//! Each is in a namespace of process numbers of its own. Whoever ends the first process there ends all, as a host does that loses power.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::unistd::geteuid;

use super::Skipped;
use super::lab::until;

/// The two hosts.
pub const HOSTS: [&str; 2] = ["n1", "n2"];

/// A cluster. Dropped, nothing is left of it.
pub struct Cluster {
    directory: PathBuf,
    daemons: BTreeMap<&'static str, Child>,
}

impl Cluster {
    /// Starts one. `Err` with what is missing for it.
    pub fn start() -> Result<Self, Skipped> {
        let is_there = |name| ttvm::run::find(Path::new("/"), name).is_some();
        if !["munged", "slurmctld", "slurmd", "sbatch"].into_iter().all(is_there) {
            return Err(Skipped("Slurm is not installed (slurm-wlm, munge)"));
        }
        if !geteuid().is_root() {
            return Err(Skipped("only root may start what Slurm consists of"));
        }
        let directory = std::env::temp_dir().join(format!("ttvm-slurm-{}", std::process::id()));
        let mut cluster = Self {
            directory,
            daemons: BTreeMap::new(),
        };
        cluster.prepare();
        let munge = |name: &str| cluster.path("munge").join(name).display().to_string();
        let socket = cluster.path("socket/munge");
        let arguments = [
            "--foreground".to_owned(),
            // /tmp is writable for everybody.
            "--force".to_owned(),
            format!("--key-file={}", munge("key")),
            format!("--pid-file={}", munge("pid")),
            format!("--log-file={}", munge("log")),
            format!("--seed-file={}", munge("seed")),
            format!("--socket={}", socket.display()),
        ];
        cluster.daemon("munged", "munged", &arguments);
        until("munged listens", || socket.exists());
        cluster.daemon("slurmctld", "slurmctld", &["-D".to_owned()]);
        for host in HOSTS {
            cluster.daemon(host, "slurmd", &["-D".to_owned(), "-N".to_owned(), host.to_owned()]);
        }
        until("both hosts are ready", || {
            cluster.ask("sinfo", &["--noheader", "--Node", "--format=%T"]).trim() == "idle\nidle"
        });
        Ok(cluster)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Its configuration.
    pub fn conf(&self) -> PathBuf {
        self.path("slurm.conf")
    }

    /// Where tasks have the files of their machines.
    pub fn scratch(&self) -> PathBuf {
        self.path("scratch")
    }

    fn prepare(&self) {
        for (name, mode) in [
            ("", 0o755),
            ("munge", 0o700),
            ("socket", 0o755),
            ("state", 0o700),
            ("n1", 0o755),
            ("n2", 0o755),
            ("scratch", 0o1777),
        ] {
            fs::create_dir(self.path(name)).expect(name);
            fs::set_permissions(self.path(name), PermissionsExt::from_mode(mode)).expect(name);
        }
        let key = self.path("munge/key");
        fs::write(&key, [7; 128]).expect("a key");
        fs::set_permissions(&key, PermissionsExt::from_mode(0o400)).expect("its mode");
        // All at once, so that they differ.
        let ports = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let [controller, first, second] = ports.map(|it| it.local_addr().expect("its number").port());
        let here = self.directory.display();
        // As long as a credential lives, 120 s if nothing is said, a task waits before it is begun again.
        let text = format!(
            "ClusterName=ttvm\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort={controller}\nSlurmUser=root\nSlurmdUser=root\n\
             AuthType=auth/munge\nAuthInfo=socket={here}/socket/munge,cred_expire=20\nCredType=cred/munge\nCommunicationParameters=NoCtldInAddrAny\n\
             StateSaveLocation={here}/state\nSlurmdSpoolDir={here}/%n\nSlurmctldPidFile={here}/slurmctld.pid\nSlurmdPidFile={here}/%n.pid\n\
             ProctrackType=proctrack/pgid\nTaskPlugin=task/none\nSelectType=select/cons_tres\nSelectTypeParameters=CR_Core\n\
             MpiDefault=none\nJobAcctGatherType=jobacct_gather/none\nAccountingStorageType=accounting_storage/none\nSwitchType=switch/none\n\
             SlurmdTimeout=5\nMessageTimeout=5\nKillWait=2\nMinJobAge=3600\n\
             NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={first} CPUs=1\n\
             NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={second} CPUs=1\n\
             PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"
        );
        fs::write(self.conf(), text).expect("a configuration");
    }

    fn daemon(&mut self, name: &'static str, program: &str, arguments: &[String]) {
        let log = File::create(self.path(&format!("{name}.log"))).expect("a log");
        let child = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "--mount-proc", "--", program])
            .args(arguments)
            .env("SLURM_CONF", self.conf())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            // What is typed at a terminal is not for them.
            .process_group(0)
            .spawn();
        self.daemons.insert(name, child.expect("unshare"));
    }

    /// A daemon and all that it has begun are gone, at once.
    pub fn kill(&mut self, name: &str) {
        let mut child = self.daemons.remove(name).expect(name);
        child.kill().expect("kill");
        child.wait().expect("its end");
    }

    /// What one of Slurm's programs says.
    pub fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        let said = command.args(arguments).env("SLURM_CONF", self.conf()).output();
        String::from_utf8_lossy(&said.expect(program).stdout).into_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in ["slurmctld.log", "n1.log", "n2.log"] {
                let text = super::lab::contents(&self.path(log));
                let from = text.len().saturating_sub(4000);
                println!("{log}: …{}", text.get(from..).unwrap_or(&text));
            }
        }
        for child in self.daemons.values_mut() {
            drop(child.kill());
            drop(child.wait());
        }
        drop(fs::remove_dir_all(&self.directory));
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Switches on a host whose xend and scripts are stand-ins.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ttvm::base::error::{Classify, Exit, chain};
use ttvm::config::types::Mac;
use ttvm::network::xend::{Error, Scripts, State, Switched, Xend, vif_line};
use ttvm::network::{Backend, Mode, Network, Options, Request};

use super::{CONFIG, fixture};

/// A host whose xend and scripts write down how they are called.
struct Host(PathBuf);

impl Host {
    fn new(name: &str, config: &[u8]) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("xend-{name}"));
        let _ = fs::remove_dir_all(&root);
        for directory in ["etc/xen/scripts", "usr/sbin", "fail", "edit"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        let scripts = Scripts::ALL.map(|scripts| format!("etc/xen/scripts/{}", scripts.network()));
        for name in scripts.iter().map(String::as_str).chain(["usr/sbin/xend"]) {
            symlink(
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/xend/stand-in.sh"),
                root.join(name),
            )
            .unwrap();
        }
        fs::write(root.join(CONFIG), config).unwrap();
        Self(root)
    }

    fn xend(&self) -> Xend {
        Xend::find(&self.0).unwrap()
    }

    fn config(&self) -> Vec<u8> {
        fs::read(self.0.join(CONFIG)).unwrap()
    }

    fn fail(&self, step: &str) {
        fs::write(self.0.join("fail").join(step), "").unwrap();
    }

    /// What was run since this was asked last.
    fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.0.join("log")).unwrap_or_default();
        let _ = fs::remove_file(self.0.join("log"));
        log.lines().map(str::to_owned).collect()
    }

    fn refused(&self, to: Scripts, force: bool, attached: usize) -> Error {
        let before = self.config();
        let error = self.xend().switch(to, force, attached).unwrap_err();
        assert_eq!(self.config(), before, "{}", chain(&error));
        error
    }
}

#[test]
fn steps_in_their_order() {
    let stock = fixture("03-stock-4.1");
    let host = Host::new("order", &stock);
    fs::set_permissions(host.0.join(CONFIG), PermissionsExt::from_mode(0o640)).unwrap();
    let plan = host.xend().plan(Scripts::Nat, false, 0).unwrap();
    let plan: Vec<String> = plan
        .iter()
        .map(|step| step.replace(host.0.to_str().unwrap(), ""))
        .collect();
    assert_eq!(
        plan,
        [
            "copy /etc/xen/xend-config.sxp to /var/lib/ttvm/xend-config.sxp.before",
            "run `/etc/xen/scripts/network-bridge stop`",
            "/etc/xen/xend-config.sxp: line 36: comment out (network-script network-bridge)",
            "/etc/xen/xend-config.sxp: line 49: take the # away from (network-script network-nat)",
            "/etc/xen/xend-config.sxp: line 39: comment out (vif-script vif-bridge)",
            "/etc/xen/xend-config.sxp: line 50: take the # away from (vif-script vif-nat)",
            "run `/usr/sbin/xend restart`",
        ]
    );
    assert!(host.log().is_empty());

    let switched = host.xend().switch(Scripts::Nat, false, 0).unwrap();
    assert!(switched.is_change() && switched.from == Some(Scripts::Bridge) && switched.to == Scripts::Nat);
    assert_eq!(
        host.log(),
        ["network-bridge stop [network-bridge]", "xend restart [network-nat]"]
    );
    assert_eq!(host.xend().state().unwrap(), State::Is(Scripts::Nat));
    assert_eq!(
        fs::read(host.0.join("var/lib/ttvm/xend-config.sxp.before")).unwrap(),
        stock
    );
    assert_eq!(fs::metadata(host.0.join(CONFIG)).unwrap().mode() & 0o777, 0o640);

    let same = host.xend().switch(Scripts::Nat, false, 3).unwrap();
    assert!(!same.is_change() && host.xend().plan(Scripts::Nat, false, 0).unwrap().is_empty());
    host.xend().revert(&same).unwrap();
    assert!(host.log().is_empty());

    // The way back works in another process, and twice.
    let switched: Switched = serde_json::from_str(&serde_json::to_string(&switched).unwrap()).unwrap();
    host.xend().revert(&switched).unwrap();
    assert_eq!(host.config(), stock);
    assert_eq!(
        host.log(),
        ["network-nat stop [network-nat]", "xend restart [network-bridge]"]
    );
    host.xend().revert(&switched).unwrap();
    assert_eq!(host.config(), stock);
    assert_eq!(host.log(), ["xend restart [network-bridge]"]);
    let left = fs::read_dir(host.0.join("etc/xen")).unwrap().count();
    assert_eq!(left, 2, "no temporary file");
}

#[test]
fn parameters_are_passed() {
    let host = Host::new("parameters", &fixture("11-quoted-parameters"));
    let error = host.refused(Scripts::Nat, false, 0);
    assert_eq!(error.exit(), Exit::Refused);
    assert!(chain(&error).contains("line 1: network-bridge has the parameters \"netdev=eth1 bridge=xenbr7\""));
    assert!(host.log().is_empty());
    let switched = host.xend().switch(Scripts::Nat, true, 0).unwrap();
    let stop = "network-bridge stop netdev=eth1 bridge=xenbr7 ['network-bridge netdev=eth1 bridge=xenbr7']";
    // Not by the name of either way: what it was can only be put back whole.
    assert_eq!(switched.from, None);
    assert_eq!(host.log()[0], stop);
    host.xend().revert(&switched).unwrap();
    assert_eq!(host.config(), fixture("11-quoted-parameters"));
}

#[test]
fn a_step_that_fails() {
    let stock = fixture("04-stock-4.4");
    let host = Host::new("stop", &stock);
    host.fail("network-bridge-stop");
    let error = host.refused(Scripts::Nat, false, 0);
    assert!(matches!(&error, Error::Undone(_)), "{}", chain(&error));
    assert!(chain(&error).contains("no network-bridge today"), "{}", chain(&error));
    assert_eq!(
        host.log(),
        [
            "network-bridge stop [network-bridge]",
            "network-bridge start [network-bridge]"
        ]
    );

    // Somebody changes the file while the old network is stopped.
    let host = Host::new("edit", &stock);
    fs::write(host.0.join("edit/network-bridge-stop"), "echo '# mine' >>\"$config\"\n").unwrap();
    let error = host.xend().switch(Scripts::Nat, false, 0).unwrap_err();
    assert!(
        chain(&error).contains("somebody else has changed it meanwhile"),
        "{}",
        chain(&error)
    );
    assert_eq!(host.config(), [&stock[..], b"# mine\n"].concat());
    assert_eq!(
        host.log(),
        [
            "network-bridge stop [network-bridge]",
            "network-bridge start [network-bridge]"
        ]
    );

    // xend fails with the new network only.
    let host = Host::new("restart", &stock);
    fs::write(host.0.join("edit/xend-restart"), "case $now in *nat) exit 4;; esac\n").unwrap();
    let error = host.refused(Scripts::Nat, false, 0);
    assert!(matches!(&error, Error::Undone(_)), "{}", chain(&error));
    assert_eq!(
        host.log(),
        [
            "network-bridge stop [network-bridge]",
            "xend restart [network-nat]",
            "network-nat stop [network-nat]",
            "xend restart [network-bridge]"
        ]
    );

    let host = Host::new("stuck", &stock);
    host.fail("xend-restart");
    host.fail("network-nat-stop");
    let error = host.refused(Scripts::Nat, false, 0);
    assert!(matches!(&error, Error::Stuck { .. }), "{}", chain(&error));
    assert_eq!(chain(&error).matches("no xend today").count(), 2, "{}", chain(&error));
    assert_eq!(host.log().len(), 4);

    let host = Host::new("no-xend", &stock);
    fs::remove_file(host.0.join("usr/sbin/xend")).unwrap();
    let error = host.refused(Scripts::Nat, false, 0);
    assert!(chain(&error).contains("xend is not installed"), "{}", chain(&error));
    assert!(host.log().is_empty());
}

#[test]
fn interrupted_half_way() {
    let stock = fixture("04-stock-4.4");
    let host = Host::new("half", &stock);
    let prepared = host.xend().prepare(Scripts::Nat, false, 0).unwrap();
    assert!(host.log().is_empty());
    let switched = host.xend().switch(Scripts::Nat, false, 0).unwrap();
    assert_eq!(prepared, switched);
    host.log();
    // Before the file was written: only xend has to bring the old network up again.
    fs::write(host.0.join(CONFIG), &stock).unwrap();
    host.xend().revert(&switched).unwrap();
    assert_eq!(host.log(), ["xend restart [network-bridge]"]);
    // Before xend was restarted: the new script has nothing to stop, and says so.
    let switched = host.xend().switch(Scripts::Nat, false, 0).unwrap();
    host.log();
    host.fail("network-nat-stop");
    host.xend().revert(&switched).unwrap();
    assert_eq!((host.log().len(), host.config()), (2, stock.clone()));
    // What somebody has added in the meantime stays.
    let switched = host.xend().switch(Scripts::Nat, false, 0).unwrap();
    fs::write(host.0.join(CONFIG), [&host.config()[..], b"# mine\n"].concat()).unwrap();
    host.xend().revert(&switched).unwrap();
    assert_eq!(host.config(), [&stock[..], b"# mine\n"].concat());
    // Unless it is about the network.
    let switched = host.xend().switch(Scripts::Nat, false, 0).unwrap();
    fs::write(host.0.join(CONFIG), fixture("14-own-script")).unwrap();
    host.xend().revert(&switched).unwrap_err();
    assert_eq!(host.config(), fixture("14-own-script"));
}

#[test]
fn guests_on_the_bridge() {
    let host = Host::new("guests", &fixture("04-stock-4.4"));
    let error = host.refused(Scripts::Nat, false, 2);
    assert!(matches!(error, Error::Attached { count: 2 }) && error.exit() == Exit::Refused);
    assert!(host.xend().plan(Scripts::Nat, false, 2).is_err());
    host.xend().switch(Scripts::Nat, true, 2).unwrap();
    host.xend().switch(Scripts::Bridge, false, 2).unwrap();
}

#[test]
fn links_and_missing_files() {
    let stock = fixture("04-stock-4.4");
    let host = Host::new("link", &stock);
    fs::rename(host.0.join(CONFIG), host.0.join("shared.sxp")).unwrap();
    symlink("../../shared.sxp", host.0.join(CONFIG)).unwrap();
    host.xend().switch(Scripts::Nat, false, 0).unwrap();
    assert!(host.0.join(CONFIG).is_symlink());
    assert_ne!(fs::read(host.0.join("shared.sxp")).unwrap(), stock);
    fs::remove_file(host.0.join("shared.sxp")).unwrap();
    let error = host.xend().switch(Scripts::Nat, true, 0).unwrap_err();
    assert!(
        chain(&error).contains("a link to a file that does not exist"),
        "{}",
        chain(&error)
    );

    // Without a file xend has its defaults, and none is there again after the way back.
    fs::remove_file(host.0.join(CONFIG)).unwrap();
    host.log();
    assert!(matches!(host.xend().state().unwrap(), State::Foreign(_)));
    let switched = host.xend().switch(Scripts::Nat, true, 0).unwrap();
    assert_eq!(host.config(), b"(network-script network-nat)\n(vif-script vif-nat)\n");
    host.xend().revert(&switched).unwrap();
    assert!(!host.0.join(CONFIG).exists());
    assert_eq!(
        host.log(),
        [
            "xend restart [network-nat]",
            "network-nat stop [network-nat]",
            "xend restart []"
        ]
    );

    assert!(Xend::find(host.0.join("fail")).is_none());
}

/// Another file in xend's environment may be the one that counts. (The environment is the process's: it takes another.)
#[test]
fn another_file_in_the_environment() {
    if std::env::var_os("XEND_CONFIG").is_none() {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "another_file_in_the_environment"])
            .env("XEND_CONFIG", "/opt/xend.sxp")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let host = Host::new("environment", &fixture("04-stock-4.4"));
    let error = host.refused(Scripts::Nat, false, 0);
    assert!(
        chain(&error).contains("XEND_CONFIG is /opt/xend.sxp"),
        "{}",
        chain(&error)
    );
    assert!(matches!(host.xend().state().unwrap(), State::Foreign(reasons) if reasons.len() == 1));
    host.xend().switch(Scripts::Nat, true, 0).unwrap();
    assert_eq!(host.log().len(), 2);
}

/// An access list or a label is not lost with the old file.
#[test]
fn attributes_are_kept() {
    use nix::libc;
    let host = Host::new("attributes", &fixture("04-stock-4.4"));
    let path = std::ffi::CString::new(host.0.join(CONFIG).to_str().unwrap()).unwrap();
    let (name, value) = (c"user.ttvm", b"kept");
    // SAFETY: strings that end with a NUL, and a value of the length that is said.
    let set = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if set != 0 {
        eprintln!("not tested: this file system has no attributes for users");
        return;
    }
    host.xend().switch(Scripts::Nat, false, 0).unwrap();
    let mut read = [0u8; 16];
    // SAFETY: as above; `read` has the length that is said.
    let size = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), read.as_mut_ptr().cast(), read.len()) };
    assert_eq!((size, &read[..4]), (4, &value[..]));
}

#[test]
fn interfaces_of_guests() {
    let mac: Mac = "00:16:3e:00:00:07".parse().unwrap();
    let bridge = "xenbr0".parse().unwrap();
    let address = |text: &str| Some(text.parse().unwrap());
    assert_eq!(
        vif_line(Scripts::Bridge, mac, Some(&bridge), None).unwrap(),
        "vif = ['mac=00:16:3e:00:00:07,bridge=xenbr0,script=vif-bridge']"
    );
    assert_eq!(
        vif_line(Scripts::Nat, mac, Some(&bridge), address("10.0.0.1")).unwrap(),
        "vif = ['mac=00:16:3e:00:00:07,ip=10.0.0.1,script=vif-nat']"
    );
    assert!(vif_line(Scripts::Nat, mac, None, None).is_err());
    for far in ["10.0.0.0", "10.0.0.128", "10.0.0.200"] {
        let error = vif_line(Scripts::Nat, mac, None, address(far)).unwrap_err();
        assert!(error.to_string().contains("between 1 and 127"), "{error}");
    }
}

/// The modes on a host with xend, as one change each, with the way back.
#[test]
fn modes() {
    let stock = fixture("03-stock-4.1");
    let host = Host::new("modes", &stock);
    let network = Network::new(&host.0);
    let switch = |mode, confirm| {
        let request = Request {
            mode,
            options: Options::default(),
            confirm: Duration::from_secs(confirm),
            force: false,
        };
        network.begin(&request)?.map(|begun| network.apply(begun)).transpose()
    };
    let status = || network.status().unwrap();
    assert_eq!((status().mode, status().backend), (Mode::None, Backend::Xend));
    // xend's scripts may move the uplink: nobody is sure to be able to take that back.
    let refused = switch(Mode::Nat, 0).unwrap_err();
    assert_eq!(refused.name(), "InvalidArgument", "{refused}");
    switch(Mode::Nat, 30).unwrap().unwrap();
    assert_eq!(
        host.log(),
        ["network-bridge stop [network-bridge]", "xend restart [network-nat]"]
    );
    network.rollback(status().pending.unwrap().id, "a test").unwrap();
    assert_eq!(host.config(), stock);
    assert_eq!(
        host.log(),
        ["network-nat stop [network-nat]", "xend restart [network-bridge]"]
    );
    // To and fro; `none` takes it all back at once.
    for mode in [Mode::Nat, Mode::Bridge, Mode::Nat] {
        switch(mode, 30).unwrap().unwrap();
        network.confirm(status().pending.unwrap().id).unwrap();
        assert_eq!(status().mode, mode);
    }
    assert_eq!(switch(Mode::Nat, 30).unwrap(), None, "nothing to do");
    host.log();
    switch(Mode::None, 30).unwrap().unwrap();
    network.confirm(status().pending.unwrap().id).unwrap();
    assert_eq!(
        host.log(),
        ["network-nat stop [network-nat]", "xend restart [network-bridge]"]
    );
    assert_eq!(host.config(), stock);
    // An old script that does not stop: everything is as before.
    host.fail("network-bridge-stop");
    let failed = switch(Mode::Nat, 30).unwrap_err();
    assert_eq!(failed.name(), "ApplyFailed", "{failed}");
    assert_eq!(host.config(), stock);
    assert_eq!((status().mode, status().pending), (Mode::None, None));
    // A xend that makes no network: the host has made it, and the modes are as without xend.
    for config in [
        &b"#(network-script network-bridge)\n(vif-script vif-bridge)\n"[..],
        b"(network-script network-dummy)\n(vif-script 'vif-bridge bridge=xenbr0')\n",
        b"(xend-unix-server yes)\n",
    ] {
        let host = Host::new("modes-none", config);
        let network = Network::new(&host.0);
        assert_eq!(network.status().unwrap().backend, Backend::Xl);
        let request = Request {
            mode: Mode::Bridge,
            options: Options {
                bridge: Some("no-such-bridge".parse().unwrap()),
                ..Options::default()
            },
            confirm: Duration::from_secs(30),
            force: false,
        };
        // Not xend is asked, but the kernel.
        let error = network.plan(&request).unwrap_err();
        assert!(
            error.to_string().contains("there is no bridge no-such-bridge"),
            "{error}"
        );
        assert!(host.log().is_empty() && host.config() == config);
    }
    for config in [&b"(vif-script vif-nat)\n"[..], b"(network-script network-route)\n"] {
        let host = Host::new("modes-other", config);
        assert_eq!(Network::new(&host.0).status().unwrap().backend, Backend::Xend);
    }
    // Something of a person's own is refused, and left alone.
    let host = Host::new("modes-foreign", b"(network-script my-own)\n(vif-script vif-bridge)\n");
    let network = Network::new(&host.0);
    let request = Request {
        mode: Mode::Nat,
        options: Options::default(),
        confirm: Duration::from_secs(30),
        force: false,
    };
    assert_eq!(network.plan(&request).unwrap_err().name(), "ForeignConfiguration");
    assert!(host.log().is_empty());
}

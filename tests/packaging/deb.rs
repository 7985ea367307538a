// SPDX-License-Identifier: MIT OR Apache-2.0
//! The package for Debian, on Debian 12 and 13.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::root::{ENABLED, Kind, Root, difference, project, succeeds, text};

const SUITES: [&str; 2] = ["bookworm", "trixie"];
/// What it needs is missing, so that what its scripts do without it is seen.
const INSTALL: &str = "dpkg -i --force-depends /new.deb";

pub(crate) fn package() -> PathBuf {
    let version = env!("CARGO_PKG_VERSION");
    let architecture = succeeds(Command::new("dpkg").arg("--print-architecture"));
    let path = project(&format!("target/debian/ttvm_{version}_{}.deb", architecture.trim()));
    assert!(path.exists(), "no {}: `make deb` first", path.display());
    path
}

/// A root file system with the package, and the one before it, ready to be installed; and what is in it.
fn root(suite: &str, kind: Kind, name: &str) -> (Root, std::collections::BTreeSet<String>) {
    let root = Root::new(suite, kind, name);
    fs::copy(package(), root.at("new.deb")).expect("a copy");
    succeeds(
        Command::new(project("tests/fixtures/package/old.sh"))
            .arg(root.at("new.deb"))
            .arg(root.at("old.deb")),
    );
    let everything = root.everything();
    (root, everything)
}

/// All files of the package are there, and as they were packed.
fn complete(root: &Root, version: &str) {
    assert_eq!(
        root.run("dpkg-query -W -f '${Version} ${db:Status-Abbrev}' ttvm")
            .trim(),
        format!("{version} ii")
    );
    let missing = root.run("dpkg -L ttvm | while read -r file; do [ -e \"$file\" ] || echo \"$file\"; done");
    assert_eq!(missing, "");
    let changed = root.run("dpkg --verify ttvm");
    assert!(
        changed.lines().all(|line| line.ends_with(" c /etc/ttvm/ttvm.toml")),
        "{changed}"
    );
    assert_eq!(
        root.run("ttvm --version").trim(),
        format!("ttvm {}", env!("CARGO_PKG_VERSION"))
    );
    let units = root.run("ls /lib/systemd/system/ttvm* /usr/lib/systemd/system/ttvm*");
    let units = units.lines().count();
    assert_eq!(units, 2 * fs::read_dir(project("units")).expect("units").count());
}

fn no_complaint(output: &str) {
    for line in output.lines() {
        assert!(
            !["error", "fail", "not found", "cannot", "Traceback"]
                .iter()
                .any(|word| line.to_lowercase().contains(word)),
            "{output}"
        );
    }
}

fn life(suite: &str, kind: Kind) {
    let (root, before) = root(suite, kind, "life");
    no_complaint(&root.run(INSTALL));
    complete(&root, env!("CARGO_PKG_VERSION"));
    assert_eq!(root.enabled(), ENABLED);
    // Whoever asks systemd gets the same answer as who looks at the links.
    if kind == Kind::Systemd {
        let states = "systemctl is-enabled ttvm-network.service ttvm-network-again.service";
        assert_eq!(root.run(states), "enabled\nenabled\n");
        assert_eq!(root.run("systemctl is-enabled ttvm.target || :"), "disabled\n");
    }
    assert_eq!(root.has_user(), kind == Kind::Systemd);

    // A person's own settings survive everything but a purge, their guests that as well.
    root.write("etc/ttvm/ttvm.toml", "# mine\n");
    root.write("etc/ttvm/guests/mine.toml", "kernel = \"/boot/none\"\n");
    root.run("rm /etc/systemd/system/multi-user.target.wants/ttvm-network.service");
    no_complaint(&root.run(INSTALL));
    assert_eq!(root.read("etc/ttvm/ttvm.toml"), "# mine\n");
    assert_eq!(root.enabled(), [ENABLED[0], ENABLED[2]]);

    no_complaint(&root.run("dpkg -r ttvm"));
    assert!(!root.exists("usr/bin/ttvm") && !root.exists("usr/lib/systemd/system/ttvm@.service"));
    assert_eq!(root.run("/etc/grub.d/21_ttvm"), "", "it stays, and does nothing");
    assert_eq!(root.read("etc/ttvm/ttvm.toml"), "# mine\n");
    // State of its own, as if it had run.
    root.write("var/lib/ttvm/network/state.json", "{}");
    root.write("run/lock/ttvm/x", "");
    root.run("mkdir -p /etc/systemd/system/ttvm.target.wants && ln -s /lib/x /etc/systemd/system/ttvm.target.wants/ttvm@mine.service");
    no_complaint(&root.run("dpkg -P ttvm"));
    assert_eq!(
        difference(&before, &root.everything()),
        [
            "+ ./etc/ttvm/guests drwxr-xr-x 0:0",
            "+ ./etc/ttvm drwxr-xr-x 0:0",
            "+ ./etc/ttvm/guests/mine.toml -rw-r--r-- 0:0 22 "
        ]
        .map(str::to_owned)
        .into_iter()
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>()
    );
    assert_eq!(
        root.run("dpkg-query -W -f '${db:Status-Abbrev}' ttvm 2>/dev/null || :"),
        ""
    );
}

#[test]
fn life_in_a_container() {
    for suite in SUITES {
        life(suite, Kind::Bare);
    }
}

#[test]
fn life_with_systemd_that_does_not_run() {
    for suite in SUITES {
        life(suite, Kind::Systemd);
    }
}

/// The units of 0.1.0 were in /lib, which is /usr/lib by another name: none may be lost on the way, in either direction.
#[test]
fn upgrade_from_0_1_0_and_back() {
    for suite in SUITES {
        let (root, before) = root(suite, Kind::Systemd, "upgrade");
        let old = "dpkg -i --force-depends --force-downgrade /old.deb";
        no_complaint(&root.run(old));
        complete(&root, "0.1.0-1");
        assert_eq!(root.enabled(), ENABLED);
        root.write("etc/ttvm/ttvm.toml", "# mine\n");
        root.run("systemctl --quiet disable ttvm-network-again.service && systemctl --quiet enable ttvm@mine.service");
        let chosen = [
            "multi-user.target.wants/ttvm-network.service",
            "multi-user.target.wants/ttvm@mine.service",
            "ttvm.target.wants/ttvm@mine.service",
        ];
        assert_eq!(root.enabled(), chosen);

        for _ in 0..2 {
            no_complaint(&root.run(INSTALL));
            complete(&root, env!("CARGO_PKG_VERSION"));
            assert_eq!(root.enabled(), chosen);
            assert_eq!(root.read("etc/ttvm/ttvm.toml"), "# mine\n");
            no_complaint(&root.run(old).replace("downgrading", ""));
            complete(&root, "0.1.0-1");
            assert_eq!(root.enabled(), chosen);
        }
        no_complaint(&root.run(INSTALL));
        no_complaint(&root.run("dpkg -P ttvm"));
        assert_eq!(difference(&before, &root.everything()), Vec::<String>::new(), "{suite}");
    }
}

/// Whoever purges 0.1.0 after a downgrade has nothing of the newer one left either.
#[test]
fn purge_after_a_downgrade() {
    for suite in SUITES {
        let (root, before) = root(suite, Kind::Bare, "downgrade");
        root.run(INSTALL);
        root.run("dpkg -i --force-depends --force-downgrade /old.deb");
        no_complaint(&root.run("dpkg -P ttvm"));
        assert_eq!(difference(&before, &root.everything()), Vec::<String>::new(), "{suite}");
    }
}

/// A boot menu that cannot be written stops nothing; what `ttvm boot` has chosen goes with the package.
#[test]
fn a_boot_menu_that_can_not_be_written() {
    let (root, _) = root("bookworm", Kind::Bare, "grub");
    root.write("boot/grub/grub.cfg", "");
    root.program(
        "usr/sbin/update-grub",
        "echo update-grub >> /calls\necho broken >&2\nexit 1",
    );
    root.program(
        "usr/bin/grub-editenv",
        "[ \"$2\" = list ] && printf 'saved_entry=ttvm-linux\\nnext_entry=other\\n' || echo \"grub-editenv $*\" >> /calls",
    );
    root.run(INSTALL);
    assert_eq!(root.calls(), "update-grub\n");
    root.write("etc/default/grub.d/zz-ttvm.cfg", "# Written by `ttvm boot default`\n");
    root.run("dpkg -r ttvm");
    assert_eq!(root.calls(), "grub-editenv - unset saved_entry\nupdate-grub\n");
    assert!(!root.exists("etc/default/grub.d/zz-ttvm.cfg"));
    root.write("etc/default/grub.d/zz-ttvm.cfg", "# An owner's\n");
    root.run(INSTALL);
    root.run("dpkg -P ttvm");
    assert!(root.exists("etc/default/grub.d/zz-ttvm.cfg"));
}

/// As if systemd ran: what it is told. On upgrade guests run on, on removal they are stopped, and a change of the network that
/// cannot be undone keeps the package where it is.
#[test]
fn what_systemd_is_told() {
    let (root, _) = root("trixie", Kind::Systemd, "systemd");
    root.run("dpkg -i --force-depends /old.deb && mkdir -p /run/systemd/system");
    for program in [
        "usr/bin/systemctl",
        "usr/bin/deb-systemd-invoke",
        "usr/bin/systemd-tmpfiles",
        "usr/bin/systemd-sysusers",
    ] {
        root.recorder(program);
    }
    root.run(INSTALL);
    let calls = root.calls();
    for line in calls.lines() {
        assert!(
            [
                "systemctl --system daemon-reload",
                "systemctl daemon-reload",
                "systemd-tmpfiles --create ttvm.conf",
                "systemd-sysusers ttvm.conf"
            ]
            .contains(&line),
            "{calls}"
        );
    }
    assert!(
        ["daemon-reload", "systemd-tmpfiles", "systemd-sysusers"]
            .iter()
            .all(|call| calls.contains(call)),
        "{calls}"
    );

    root.program("usr/bin/ttvm", "echo \"ttvm $*\" >> /calls");
    root.write("var/lib/ttvm/network/transaction.json", "{}");
    root.write("var/lib/ttvm/network/state.json", "{}");
    let refused = root.sh("dpkg -r ttvm");
    assert!(!refused.status.success());
    assert!(
        text(&refused).contains("a change of the network cannot be undone"),
        "{}",
        text(&refused)
    );
    assert!(root.calls().contains("ttvm network rollback --no-ask-password\n"));
    root.program(
        "usr/bin/ttvm",
        "echo \"ttvm $*\" >> /calls; rm -f /var/lib/ttvm/network/transaction.json",
    );
    root.run("dpkg -r ttvm");
    assert_eq!(
        root.calls()
            .lines()
            .filter(|line| !line.contains("daemon-reload"))
            .collect::<Vec<_>>(),
        [
            "deb-systemd-invoke stop ttvm.target ttvm@*.service ttvm-metrics.timer",
            "ttvm network rollback --no-ask-password",
            "ttvm network set none --keep --no-ask-password",
            "deb-systemd-invoke stop ttvm-netd.service ttvm-dnsmasq.service ttvm-network.service",
        ]
    );
    root.run("dpkg -P ttvm");
    assert!(!root.exists("var/lib/ttvm"));
}

/// Everything it asks for is there, by the lists of both releases.
#[test]
fn apt_finds_what_it_depends_on() {
    for suite in SUITES {
        let (root, _) = root(suite, Kind::Lists, "apt");
        let plan = root.run("apt-get -s -o APT::Sandbox::User=root install /new.deb");
        for name in [
            "ttvm",
            "lvm2",
            "nftables",
            "dbus",
            "grub-common",
            "xen-system-amd64",
            "qemu-system-x86",
            "dnsmasq-base",
            "polkitd",
        ] {
            assert!(plan.contains(&format!("\nInst {name} (")), "{suite}: {name}\n{plan}");
        }
        let plan = root.run("apt-get -s -o APT::Sandbox::User=root --no-install-recommends install /new.deb");
        assert!(!plan.contains("\nInst xen-"), "{suite}\n{plan}");
    }
}

/// What editors and patches leave is somebody's, also beside what debhelper made; and a file may go meanwhile, as those of tests do.
#[test]
fn cleaning_takes_what_debhelper_made_alone() {
    let tree = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packaging-clean");
    if tree.exists() {
        fs::remove_dir_all(&tree).expect("removed");
    }
    fs::create_dir_all(tree.join("units")).expect("a directory");
    succeeds(Command::new("cp").arg("-r").arg(project("debian")).arg(&tree));
    let theirs = ["debian/rules.orig", "units/new.bak", "notes~"];
    let made = [
        "debian/files",
        "debian/ttvm.substvars",
        "debian/ttvm.postinst.debhelper",
    ];
    for name in theirs.iter().chain(&made) {
        fs::write(tree.join(name), "").expect("a file");
    }
    succeeds(Command::new("debian/rules").arg("clean").current_dir(&tree));
    assert!(theirs.iter().all(|name| tree.join(name).exists()));
    assert!(!made.iter().any(|name| tree.join(name).exists()));
    fs::remove_dir_all(&tree).expect("removed");
}

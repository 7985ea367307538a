// SPDX-License-Identifier: MIT OR Apache-2.0
//! The package for Fedora. No Fedora is to be had here: its scriptlets run in a Debian root that rpm looks after (`rpm --root`),
//! whose shell, coreutils and systemctl are Debian's. What Fedora has beside them are stand-ins that write down how they are called:
//! grub2-mkconfig, grub2-editenv, and systemd-update-helper.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use crate::root::{ENABLED, Kind, Root, difference, project, succeeds, text};

const MKCONFIG: &str = "grub2-mkconfig -o /boot/grub2/grub.cfg\n";

fn package() -> PathBuf {
    let directory = project("target/rpm");
    let start = format!("ttvm-{}-", env!("CARGO_PKG_VERSION"));
    fs::read_dir(&directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&start))
        })
        .unwrap_or_else(|| panic!("no {start}*.rpm in {}: `make rpm` first", directory.display()))
}

/// The same under a higher version, made once.
static NEWER: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packaging-newer");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a directory");
    let spec = fs::read_to_string(project("packaging/rpm/ttvm.spec")).expect("a spec file");
    let version = format!("Version:        {}\n", env!("CARGO_PKG_VERSION"));
    assert!(spec.contains(&version));
    let path = directory.join("ttvm.spec");
    fs::write(&path, spec.replace(&version, "Version:        9.0\n")).expect("a file");
    succeeds(
        Command::new("rpmbuild")
            .args(["-bb", "--quiet", "--nodeps", "--build-in-place", "--define"])
            .arg(format!("_topdir {}", directory.display()))
            .args([
                "--define",
                "_rpmfilename newer.rpm",
                "--define",
                "_binary_payload w1.gzdio",
            ])
            .arg(path)
            // What `make rpm` has packed, not something that is built now.
            .env("BINDIR", "target/release")
            .current_dir(project(".")),
    );
    directory.join("RPMS/newer.rpm")
});

/// A root that rpm looks after, with GRUB's stand-ins.
fn root(kind: Kind, name: &str) -> Root {
    let root = Root::new("bookworm", kind, &format!("rpm-{name}"));
    // dpkg's files stay, rpm does not know them; GRUB is there.
    root.write("boot/grub2/grub.cfg", "");
    root.recorder("usr/sbin/grub2-mkconfig");
    // Fedora's systemd has it, with its own.
    root.write("usr/lib/systemd/catalog/systemd.catalog", "");
    root.program(
        "usr/bin/grub2-editenv",
        "[ \"$2\" = list ] && printf 'saved_entry=ttvm-linux\\nnext_entry=other\\n' || echo \"grub2-editenv $*\" >> /calls",
    );
    rpm(&root, &["--initdb"]);
    root
}

fn try_rpm(root: &Root, arguments: &[&str]) -> Output {
    // What it needs is dpkg's here, and rpm is told that this is meant.
    let (forced, arguments): (&[&str], _) = match arguments {
        ["-i" | "-U" | "-e", ..] => (&["--nodeps", "--force-debian"], arguments),
        ["-V", ..] => (&["--nodeps"], arguments),
        _ => (&[], arguments),
    };
    root.apart()
        .arg("rpm")
        .arg("--root")
        .arg(&root.path)
        .args(forced)
        .args(arguments)
        .output()
        .expect("unshare runs")
}

/// No scriptlet may fail, and rpm takes the failure of some for a warning.
fn rpm(root: &Root, arguments: &[&str]) {
    let output = try_rpm(root, arguments);
    let text = text(&output);
    assert!(output.status.success(), "rpm {arguments:?}: {}\n{text}", output.status);
    assert!(
        !text.contains("scriptlet failed") && !text.contains("error:"),
        "rpm {arguments:?}:\n{text}"
    );
}

fn path(file: &Path) -> &str {
    file.to_str().expect("a path")
}

/// All files of the package are there, and as they were packed, but for those a person has changed.
fn complete(root: &Root, version: &str) {
    let known = try_rpm(root, &["-q", "--queryformat", "%{VERSION}", "ttvm"]);
    assert_eq!(text(&known), version);
    let verified = text(&try_rpm(root, &["-V", "ttvm"]));
    assert!(
        verified.lines().all(|line| line.contains(" c /etc/ttvm/ttvm.toml")),
        "{verified}"
    );
    assert_eq!(
        root.run("ttvm --version").trim(),
        format!("ttvm {}", env!("CARGO_PKG_VERSION"))
    );
    for unit in fs::read_dir(project("units")).expect("units").flatten() {
        assert!(root.at("usr/lib/systemd/system").join(unit.file_name()).exists());
    }
}

#[test]
fn life() {
    for kind in [Kind::Bare, Kind::Systemd] {
        let root = root(kind, "life");
        let before = root.everything();
        rpm(&root, &["-i", path(&package())]);
        complete(&root, env!("CARGO_PKG_VERSION"));
        assert_eq!(root.calls(), MKCONFIG);
        let enabled: &[&str] = match kind {
            Kind::Systemd => &ENABLED,
            // Nobody is there who could.
            Kind::Bare | Kind::Lists => &[],
        };
        assert_eq!(root.enabled(), enabled);
        assert_eq!(root.run("/etc/grub.d/21_ttvm 2>/dev/null"), "");
        // A kernel is installed.
        root.run("/usr/lib/kernel/install.d/95-ttvm.install add 6.1 /boot/efi/x");
        assert_eq!(root.calls(), MKCONFIG);

        // What its owner has set stays.
        root.write("etc/ttvm/ttvm.toml", "# mine\n");
        root.write("etc/ttvm/guests/mine.toml", "kernel = \"/boot/none\"\n");
        if kind == Kind::Systemd {
            root.run("systemctl --quiet disable ttvm-network.service");
        }
        rpm(&root, &["-U", path(&NEWER)]);
        complete(&root, "9.0");
        assert_eq!(root.calls(), MKCONFIG);
        assert_eq!(root.read("etc/ttvm/ttvm.toml"), "# mine\n");
        let enabled: &[&str] = match kind {
            Kind::Systemd => &[ENABLED[0], ENABLED[2]],
            Kind::Bare | Kind::Lists => &[],
        };
        assert_eq!(root.enabled(), enabled);

        rpm(&root, &["-U", "--oldpackage", path(&package())]);
        complete(&root, env!("CARGO_PKG_VERSION"));
        assert_eq!(root.calls(), MKCONFIG);
        assert_eq!(root.enabled(), enabled);

        root.write("var/lib/ttvm/recordings/mine/x", "");
        rpm(&root, &["-e", "ttvm"]);
        assert_eq!(root.calls(), format!("grub2-editenv - unset saved_entry\n{MKCONFIG}"));
        assert_eq!(root.enabled(), Vec::<String>::new());
        // rpm knows no purge: what a person made and what was recorded is theirs.
        let left: Vec<String> = difference(&before, &root.everything())
            .iter()
            .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
            .collect();
        let expected = [
            "+ ./etc/ttvm",
            "+ ./etc/ttvm/guests",
            "+ ./etc/ttvm/guests/mine.toml",
            "+ ./etc/ttvm/ttvm.toml.rpmsave",
            "+ ./var/lib/ttvm",
            "+ ./var/lib/ttvm/recordings",
            "+ ./var/lib/ttvm/recordings/mine",
            "+ ./var/lib/ttvm/recordings/mine/x",
        ];
        // Directories of packages that it requires, or of Fedora's `filesystem`, which are not there.
        let others = [
            "+ ./etc/grub.d",
            "+ ./usr/lib/kernel",
            "+ ./usr/lib/kernel/install.d",
            "+ ./usr/lib/systemd",
            "+ ./usr/lib/systemd/system",
            "+ ./usr/lib/systemd/system-preset",
            "+ ./usr/lib/sysusers.d",
            "+ ./usr/share/dbus-1",
            "+ ./usr/share/dbus-1/interfaces",
            "+ ./usr/share/dbus-1/system-services",
            "+ ./usr/share/dbus-1/system.d",
            "+ ./usr/share/fish",
            "+ ./usr/share/fish/vendor_completions.d",
            "+ ./usr/share/licenses",
            "+ ./usr/share/zsh",
            "+ ./usr/share/zsh/site-functions",
        ];
        let ours: Vec<_> = left.iter().filter(|line| !others.contains(&line.as_str())).collect();
        assert_eq!(ours, expected);
    }
}

/// As if systemd ran: what it is told. On upgrade guests run on, on removal they are stopped, and a change of the network that
/// cannot be undone keeps the package where it is.
#[test]
fn what_systemd_is_told() {
    let root = root(Kind::Systemd, "told");
    root.run("mkdir -p /run/systemd/system");
    for program in [
        "usr/bin/systemctl",
        "usr/bin/systemd-tmpfiles",
        "usr/bin/systemd-sysusers",
        "usr/lib/systemd/systemd-update-helper",
    ] {
        root.recorder(program);
    }
    let reloaded =
        format!("systemd-sysusers ttvm.conf\nsystemctl daemon-reload\nsystemd-tmpfiles --create ttvm.conf\n{MKCONFIG}");
    rpm(&root, &["-i", path(&package())]);
    let units = "ttvm-network.service ttvm-network-again.service";
    assert_eq!(
        root.calls(),
        format!("systemd-update-helper install-system-units {units}\n{reloaded}")
    );
    rpm(&root, &["-U", path(&NEWER)]);
    assert_eq!(root.calls(), format!("systemctl daemon-reload\n{reloaded}"));

    root.program("usr/bin/ttvm", "echo \"ttvm $*\" >> /calls");
    root.write("var/lib/ttvm/network/transaction.json", "{}");
    root.write("var/lib/ttvm/network/state.json", "{}");
    let refused = try_rpm(&root, &["-e", "ttvm"]);
    assert!(!refused.status.success());
    assert!(
        text(&refused).contains("a change of the network cannot be undone"),
        "{}",
        text(&refused)
    );
    assert_eq!(
        root.calls(),
        "systemctl stop ttvm.target ttvm@*.service ttvm-metrics.timer\nttvm network rollback --no-ask-password\n"
    );
    complete_but_for_the_stand_in(&root);

    root.program(
        "usr/bin/ttvm",
        "echo \"ttvm $*\" >> /calls; rm -f /var/lib/ttvm/network/transaction.json",
    );
    rpm(&root, &["-e", "ttvm"]);
    assert_eq!(
        root.calls(),
        format!(
            "systemctl stop ttvm.target ttvm@*.service ttvm-metrics.timer\n\
             ttvm network rollback --no-ask-password\n\
             ttvm network set none --keep --no-ask-password\n\
             systemctl stop ttvm-netd.service ttvm-dnsmasq.service\n\
             systemd-update-helper remove-system-units {units} ttvm-metrics.timer\n\
             systemctl daemon-reload\n\
             grub2-editenv - unset saved_entry\n{MKCONFIG}"
        )
    );
}

fn complete_but_for_the_stand_in(root: &Root) {
    let verified = text(&try_rpm(root, &["-V", "ttvm"]));
    assert!(
        verified.lines().all(|line| line.ends_with(" /usr/bin/ttvm")),
        "{verified}"
    );
}

/// A boot menu that cannot be written stops nothing, and none is made where there is none.
#[test]
fn a_boot_menu_that_can_not_be_written() {
    let root = root(Kind::Bare, "grub");
    root.program("usr/sbin/grub2-mkconfig", "echo grub2-mkconfig >> /calls\nexit 1");
    root.write("etc/default/grub.d/zz-ttvm.cfg", "# An owner's\n");
    rpm(&root, &["-i", path(&package())]);
    assert_eq!(root.calls(), "grub2-mkconfig\n");
    rpm(&root, &["-e", "ttvm"]);
    assert_eq!(root.calls(), "grub2-editenv - unset saved_entry\ngrub2-mkconfig\n");
    assert!(root.exists("etc/default/grub.d/zz-ttvm.cfg"));

    fs::remove_file(root.at("boot/grub2/grub.cfg")).expect("it goes");
    root.write("etc/default/grub.d/zz-ttvm.cfg", "# Written by `ttvm boot default`\n");
    rpm(&root, &["-i", path(&package())]);
    assert_eq!(root.calls(), "");
    rpm(&root, &["-e", "ttvm"]);
    assert_eq!(root.calls(), "grub2-editenv - unset saved_entry\n");
    assert!(!root.exists("etc/default/grub.d/zz-ttvm.cfg"));
}

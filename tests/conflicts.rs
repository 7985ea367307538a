// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stops guests' packets. Each directory in `fixtures/conflicts` holds one host:
//!
//! - `question`: `routed` or `bridged`, the bridge, `zone` if firewalld's zone is ours, and `silent` if the host answers
//!   neither DHCP nor DNS there;
//! - `rules.nft`, `rules.iptables`: its packet filters, for nft and iptables-nft-restore;
//! - `nft.json`: what `nft -j -t list ruleset` prints then (no file: there is no nft). Those of ufw and firewalld
//!   were taken while ufw 0.36.2 and firewalld 1.3.3 ran; 22 is made up, as a later nft may print;
//! - `tree`: its files, `PATH = CONTENT` (`\n` is a line end);
//! - `conflicts`: what is to be found, `ACTOR: SENTENCE`.
//!
//! With TTVM_UPDATE=1 `nft.json` and `conflicts` are written instead; read the difference before it is committed.
//!
//! The tests that load rules run themselves again in namespaces of their own (see lab), for which they need root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ttvm::base::error::chain;
use ttvm::config::types::InterfaceName;
use ttvm::network::conflicts::{Actor, Conflict, Question, Traffic, find, find_in};
use ttvm::network::firewalld;

#[path = "conflicts/lab.rs"]
mod lab;

use lab::{Lab, isolated, sh, start, wait_for};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/conflicts");

struct Fixture {
    path: PathBuf,
    mode: Traffic,
    bridge: InterfaceName,
    ours: bool,
    answers: bool,
}

impl Fixture {
    fn all() -> Vec<Self> {
        let entries = fs::read_dir(FIXTURES).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.is_dir());
        paths.sort();
        assert!(paths.len() >= 22, "{paths:?}");
        paths.into_iter().map(Self::at).collect()
    }

    fn named(name: &str) -> Self {
        Self::at(Path::new(FIXTURES).join(name))
    }

    fn at(path: PathBuf) -> Self {
        let question = fs::read_to_string(path.join("question")).unwrap();
        let words: Vec<&str> = question.split_whitespace().collect();
        Self {
            mode: match words[0] {
                "routed" => Traffic::Routed,
                "bridged" => Traffic::Bridged,
                other => panic!("{other}"),
            },
            bridge: words[1].parse().unwrap(),
            ours: words[2..].contains(&"zone"),
            answers: !words[2..].contains(&"silent"),
            path,
        }
    }

    fn question(&self) -> Question<'_> {
        Question {
            mode: self.mode,
            bridge: &self.bridge,
            answers: self.answers,
            zone_of_bridge_is_ours: self.ours,
        }
    }

    fn tree(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.path.join("tree")).unwrap_or_default();
        let pairs = text.lines().map(|line| line.split_once(" = ").unwrap());
        pairs
            .map(|(path, content)| (path.to_owned(), content.replace("\\n", "\n") + "\n"))
            .collect()
    }

    fn find(&self, rules: Option<&str>) -> String {
        let name = self.path.file_name().unwrap().to_str().unwrap();
        let thread = format!("{:?}", std::thread::current().id()).replace(['(', ')'], "");
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{thread}-conflicts-{name}"));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        for (path, content) in self.tree() {
            fs::create_dir_all(root.join(&path).parent().unwrap()).unwrap();
            fs::write(root.join(path), content).unwrap();
        }
        lines(&find_in(&root, rules, &self.question()).unwrap_or_else(|error| panic!("{name}: {}", chain(&error))))
    }

    /// Loads its rules; false if it has none.
    fn load(&self) -> bool {
        sh("nft flush ruleset");
        let (nft, iptables) = (self.path.join("rules.nft"), self.path.join("rules.iptables"));
        if nft.exists() {
            sh(&format!("nft -f '{}'", nft.display()));
        } else if iptables.exists() {
            sh(&format!("iptables-nft-restore '{}'", iptables.display()));
        } else {
            return false;
        }
        true
    }
}

fn lines(conflicts: &[Conflict]) -> String {
    let line = |conflict: &Conflict| format!("{}: {conflict}\n", conflict.actor);
    conflicts.iter().map(line).collect()
}

/// Compares `text` with the file, or writes it there.
fn expect(path: &Path, text: &str) {
    if std::env::var_os("TTVM_UPDATE").is_some() {
        fs::write(path, text).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(expected, text, "{} is not what came out", path.display());
}

#[test]
fn every_fixture() {
    for fixture in Fixture::all() {
        let rules = fs::read_to_string(fixture.path.join("nft.json")).ok();
        expect(&fixture.path.join("conflicts"), &fixture.find(rules.as_deref()));
    }
}

#[test]
fn is_serialized_for_other_programs() {
    let conflict = Conflict {
        actor: Actor::BridgeNetfilter,
        what: "this".to_owned(),
        remedy: "that".to_owned(),
    };
    let json = r#"{"actor":"bridge-netfilter","what":"this","remedy":"that"}"#;
    assert_eq!(serde_json::to_string(&conflict).unwrap(), json);
    assert_eq!(conflict.to_string(), "this; remedy: that");
}

#[test]
fn output_that_is_no_json_is_an_error() {
    let fixture = Fixture::named("05-nft-drop");
    let error = find_in(Path::new("/nonexistent"), Some("table inet x {"), &fixture.question()).unwrap_err();
    assert!(chain(&error).starts_with("cannot understand what `nft -j list ruleset` prints\n  because: "));
}

/// The rules of the fixtures, as the nft of this machine prints them, lead to the same.
#[test]
fn rules_as_nft_prints_them() {
    if !isolated("rules_as_nft_prints_them", &["nft", "iptables-nft"]) {
        return;
    }
    for fixture in Fixture::all() {
        if !fixture.load() {
            continue;
        }
        let printed = sh("nft -j -t list ruleset");
        if std::env::var_os("TTVM_UPDATE").is_some() {
            // An object a line.
            let objects = ["table", "chain", "rule", "set", "map"];
            let break_before =
                |text: String, name: &&str| text.replace(&format!("}}, {{\"{name}\""), &format!("}},\n{{\"{name}\""));
            let text = objects.iter().fold(printed.clone(), break_before);
            fs::write(fixture.path.join("nft.json"), text).unwrap();
        }
        expect(&fixture.path.join("conflicts"), &fixture.find(Some(&printed)));
    }
}

/// After the commands that are printed there is nothing left to print.
#[test]
fn remedies_are_the_commands() {
    if !isolated("remedies_are_the_commands", &["nft", "iptables-nft", "sysctl"]) {
        return;
    }
    let labs = [Lab::new("ttbr0", "10.20.0"), Lab::new("xenbr0", "10.21.0")];
    let mut tried = 0;
    for fixture in Fixture::all() {
        let name = fixture.path.file_name().unwrap().to_str().unwrap().to_owned();
        let expected = fs::read_to_string(fixture.path.join("conflicts")).unwrap();
        // Those two are about what this machine has not.
        if ["10-ufw-not-shown", "20-legacy"].contains(&&*name) || !fixture.load() {
            continue;
        }
        let bridges = Path::new("/proc/sys/net/bridge");
        if !bridges.exists() && fixture.path.join("tree").exists() {
            eprintln!("{name} is skipped: this kernel has no br_netfilter");
            continue;
        }
        for version in ["iptables", "ip6tables"] {
            // Off, unless the fixture says otherwise.
            drop(fs::write(bridges.join(format!("bridge-nf-call-{version}")), "0"));
        }
        for (path, content) in fixture.tree() {
            let path = Path::new("/").join(path);
            fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        let lab = labs.iter().find(|lab| lab.bridge == fixture.bridge.as_str()).unwrap();
        cure(&fixture.question(), lab, &expected, &name);
        tried += 1;
    }
    assert!(tried >= 8, "{tried}");
}

/// Finds what is expected, does what is said, and finds nothing; and the packets of guests agree.
fn cure(question: &Question<'_>, lab: &Lab, expected: &str, name: &str) {
    let root = Path::new("/");
    let conflicts = find(root, question).unwrap();
    assert_eq!(lines(&conflicts), expected, "{name}");
    let passes = || lab.stopped(question.mode == Traffic::Routed);
    let before = passes();
    assert_eq!(before.is_empty(), conflicts.is_empty(), "{name}: {before:?}");
    for conflict in &conflicts {
        let output = Command::new("/bin/sh")
            .args(["-e", "-c", &conflict.remedy])
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        if conflict.remedy.contains("ibrname") && stderr.contains("Operation not supported") {
            eprintln!("the remedy of {name} is skipped: this kernel has no nft_meta_bridge");
            return;
        }
        assert!(output.status.success(), "{name}: {}\n{stderr}", conflict.remedy);
    }
    assert_eq!(lines(&find(root, question).unwrap()), "", "{name}");
    assert!(passes().is_empty(), "{name}: {:?}", passes());
}

#[test]
fn ufw_for_real() {
    if !isolated("ufw_for_real", &["nft", "iptables-nft", "ufw"]) {
        return;
    }
    let fixture = Fixture::named("09-ufw");
    let lab = Lab::new("ttbr0", "10.20.0");
    sh("ufw --force enable");
    let expected = fs::read_to_string(fixture.path.join("conflicts")).unwrap();
    cure(&fixture.question(), &lab, &expected, "ufw");
    // What it wrote is found without its rules as well.
    sh("nft flush ruleset");
    assert_eq!(lines(&find(Path::new("/"), &fixture.question()).unwrap()), "");
    sh("ufw --force reset");
    sh("ufw --force enable && nft flush ruleset");
    let hidden = find(Path::new("/"), &fixture.question()).unwrap();
    assert_eq!(
        hidden.iter().map(|conflict| conflict.actor).collect::<Vec<_>>(),
        [Actor::Ufw]
    );
}

/// A bus of type "system", with firewalld's own policy on it.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/ttvm-test-bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
  </policy>
  <include ignore_missing="yes">/usr/share/dbus-1/system.d/FirewallD.conf</include>
  <include ignore_missing="yes">/etc/dbus-1/system.d/FirewallD.conf</include>
</busconfig>
"#;

#[test]
fn firewalld_for_real() {
    if !isolated("firewalld_for_real", &["nft", "firewalld", "dbus-daemon", "busctl"]) {
        return;
    }
    let bridge: InterfaceName = "ttbr0".parse().unwrap();
    let question = |ours| Question {
        mode: Traffic::Routed,
        bridge: &bridge,
        answers: true,
        zone_of_bridge_is_ours: ours,
    };
    let found = |ours| lines(&find(Path::new("/"), &question(ours)).unwrap());
    let lab = Lab::new("ttbr0", "10.20.0");
    fs::write("/run/bus.conf", BUS).unwrap();
    let mut bus = start("dbus-daemon", &["--nofork", "--config-file=/run/bus.conf"]);
    wait_for("the bus", || Path::new("/run/ttvm-test-bus").exists());

    assert!(!firewalld::is_running().unwrap());
    assert_eq!(firewalld::zone_of(&bridge).unwrap(), None);
    assert!(matches!(
        firewalld::add("trusted", &bridge),
        Err(firewalld::Error::NotRunning)
    ));
    firewalld::remove("trusted", &bridge).unwrap();

    let mut daemon = start("firewalld", &["--nofork", "--nopid"]);
    wait_for("firewalld", || firewalld::is_running().unwrap());
    assert_eq!(firewalld::zone_of(&bridge).unwrap(), None);
    let expected = fs::read_to_string(Path::new(FIXTURES).join("11-firewalld/conflicts")).unwrap();
    assert_eq!(found(false), expected);

    for _ in 0..2 {
        firewalld::add("trusted", &bridge).unwrap();
        assert_eq!(firewalld::zone_of(&bridge).unwrap().as_deref(), Some("trusted"));
    }
    assert_eq!((found(false), found(true)), (String::new(), String::new()));

    let other = firewalld::add("public", &bridge).unwrap_err();
    let text = "ttbr0 is in the zone trusted of firewalld already; take it out with ";
    assert!(other.to_string().starts_with(text), "{other}");
    let none = firewalld::add("nosuch", &"ttbr1".parse().unwrap()).unwrap_err();
    assert!(matches!(none, firewalld::Error::NoSuchZone(_)), "{none}");
    // What is in another zone stays there.
    firewalld::remove("public", &bridge).unwrap();
    assert_eq!(firewalld::zone_of(&bridge).unwrap().as_deref(), Some("trusted"));
    for _ in 0..2 {
        firewalld::remove("trusted", &bridge).unwrap();
        assert_eq!(firewalld::zone_of(&bridge).unwrap(), None);
    }

    cure(&question(false), &lab, &expected, "firewalld");
    // It is kept over a reload, unlike what is added for a running firewalld only.
    sh("firewall-cmd --reload");
    assert_eq!(found(false), "");
    for child in [&mut daemon, &mut bus] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(matches!(firewalld::zone_of(&bridge), Err(firewalld::Error::Call(_))));
}

#[test]
fn zones_have_names() {
    let bridge: InterfaceName = "ttbr0".parse().unwrap();
    for bad in ["", "a b", "-x", "/x", "x/", "x.y", "zone;reboot", "exactly-18-letters"] {
        let error = firewalld::add(bad, &bridge).unwrap_err();
        assert!(matches!(error, firewalld::Error::ZoneName(_)), "{bad}: {error}");
    }
}

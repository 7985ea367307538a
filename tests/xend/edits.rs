// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of a configuration, whatever is in it.

use std::fs;
use std::path::Path;

use ttvm::network::xend::{Scripts, State, XendConfig};

use super::{CONFIG, FIXTURES, fixture};

/// What must be true of every outcome.
pub fn check(old: &[u8], new: &[u8], to: Scripts) {
    let shown = || {
        format!(
            "{}\n--->\n{}",
            String::from_utf8_lossy(old),
            String::from_utf8_lossy(new)
        )
    };
    let config = XendConfig::parse(new.to_vec()).unwrap_or_else(|error| panic!("{error}: {}", shown()));
    let script = config.network_script().unwrap_or_else(|| panic!("{}", shown()));
    assert_eq!(script.file, to.network().as_bytes(), "{}", shown());
    assert!(script.parameters.is_empty(), "{}", shown());
    assert_eq!(config.vif_script(), to.vif().as_bytes(), "{}", shown());
    // Switching again changes nothing, unless something is left that xend does not look at.
    assert_eq!(config.switch(to, true).unwrap(), new, "{}", shown());
    // Marks and new lines are all that is new, so nothing but marks is ever lost.
    let kept: Vec<u8> = new.to_vec();
    let mut rest = kept.iter();
    for byte in old.iter().filter(|byte| **byte != b'#') {
        assert!(rest.any(|other| other == byte), "{}", shown());
    }
}

/// What Xen ships goes there and back, every byte of it.
#[test]
fn there_and_back() {
    for name in [
        "01-stock-3.0.4",
        "02-stock-3.4",
        "03-stock-4.1",
        "04-stock-4.4",
        "07-crlf",
        "08-latin-1",
        "30-nat",
    ] {
        let bytes = fixture(name);
        let config = XendConfig::parse(bytes.clone()).unwrap();
        let State::Is(from) = config.state() else {
            panic!("{name}");
        };
        let to = if from == Scripts::Nat {
            Scripts::Bridge
        } else {
            Scripts::Nat
        };
        let there = config.switch(to, false).unwrap();
        assert_ne!(there, bytes, "{name}");
        assert_eq!(config.switch(from, false).unwrap(), bytes, "{name}");
        let there = XendConfig::parse(there).unwrap();
        assert_eq!(there.state(), State::Is(to), "{name}");
        let back = there.switch(from, false).unwrap();
        if name != "30-nat" {
            assert_eq!(back, bytes, "{name}");
        }
    }
}

/// Files in which the lines have to be added do not grow each time.
#[test]
fn no_growth() {
    for name in [
        "05-debian-all-commented",
        "09-no-final-newline",
        "13-several-active",
        "14-own-script",
        "24-empty",
    ] {
        let mut bytes = fs::read(Path::new(FIXTURES).join(name).join("tree").join(CONFIG)).unwrap();
        let mut lengths = Vec::new();
        for round in 0..5 {
            for to in Scripts::ALL {
                bytes = XendConfig::parse(bytes).unwrap().switch(to, round == 0).unwrap();
                lengths.push(bytes.len());
            }
        }
        assert!(
            lengths[2..].iter().all(|length| *length == lengths[1]),
            "{name}: {lengths:?}"
        );
    }
}

/// Numbers that are as good as random, and the same each time (Knuth's MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

#[test]
fn unrelated_lines_stay() {
    let unrelated = [
        "",
        "   \t ",
        "# (network-script network-nat)",
        "# text (vif-script vif-bridge)",
        "#(network-script network-nat) and more",
        "#(vif-script vif-nat extra)",
        "#(network-script 'network-bridge netdev=eth1')",
        "(dom0-cpus 2) # (",
        "(vncpasswd \"a)#(\")",
        "(list (of (lists)) 'and \\' more')",
        "word another {x} #)",
        "#(((",
        "#'",
    ];
    let mut numbers = Numbers(1);
    for round in 0..400 {
        let stock = fixture(numbers.of(&["01-stock-3.0.4", "02-stock-3.4", "03-stock-4.1", "04-stock-4.4"]));
        let mut lines: Vec<String> = String::from_utf8(stock).unwrap().lines().map(str::to_owned).collect();
        for _ in 0..numbers.below(30) {
            let at = numbers.below(lines.len() + 1);
            lines.insert(at, numbers.of(&unrelated).to_owned());
        }
        let end = numbers.of(&["\n", "\r\n"]);
        let mut text = lines.join(end);
        text.push_str(numbers.of(&["", end]));
        let old = XendConfig::parse(text.clone().into_bytes()).unwrap();
        assert_eq!(old.state(), State::Is(Scripts::Bridge), "{round}: {text}");
        let new = String::from_utf8(old.switch(Scripts::Nat, false).unwrap()).unwrap();
        check(text.as_bytes(), new.as_bytes(), Scripts::Nat);
        assert_eq!(new.split('\n').count(), text.split('\n').count(), "{round}");
        let changed: Vec<_> = text
            .split('\n')
            .zip(new.split('\n'))
            .filter(|(old, new)| old != new)
            .collect();
        assert_eq!(changed.len(), 4, "{round}: {changed:?}");
        for (old, new) in changed {
            assert!(
                *new == format!("#{old}") || *old == format!("#{new}"),
                "{round}: {old} -> {new}"
            );
        }
        let new = XendConfig::parse(new.into_bytes()).unwrap();
        assert_eq!(new.state(), State::Is(Scripts::Nat), "{round}");
        assert_eq!(
            new.switch(Scripts::Bridge, false).unwrap(),
            text.into_bytes(),
            "{round}"
        );
    }
}

/// Whatever is in a file: it is refused, or comes out as it should.
#[test]
fn any_bytes() {
    let pieces = [
        "(",
        ")",
        "(",
        ")",
        "'",
        "\"",
        "#",
        "#(",
        "\n",
        "\n",
        "\r\n",
        "\r",
        " ",
        "\t",
        "\\",
        "\\x4",
        "\\377",
        "\\400",
        "\u{4}",
        "\u{e9}",
        "\0",
        "{",
        "!",
        "network-script",
        "vif-script",
        "network-nat",
        "network-bridge",
        "vif-nat",
        "vif-bridge",
        "(network-script network-nat)",
        "#(network-script network-nat)\n",
        "(vif-script vif-bridge)\n",
        "(network-script network-bridge)\n",
        "#(vif-script\n#vif-nat)",
        "(network-script\n'network-bridge')",
        "x",
    ];
    let stock = fixture("04-stock-4.4");
    let mut numbers = Numbers(2);
    let mut switched = 0;
    for round in 0..12_000 {
        let mut bytes = Vec::new();
        if round % 3 == 0 {
            bytes = stock.clone();
            for _ in 0..=numbers.below(4) {
                let at = numbers.below(bytes.len());
                match numbers.below(3) {
                    0 => bytes[at] = numbers.below(256) as u8,
                    1 => drop(bytes.drain(at..(at + numbers.below(40)).min(bytes.len()))),
                    _ => drop(bytes.splice(at..at, numbers.of(&pieces).bytes())),
                }
            }
        } else {
            for _ in 0..numbers.below(16) {
                bytes.extend(numbers.of(&pieces).bytes());
            }
        }
        let Ok(config) = XendConfig::parse(bytes.clone()) else {
            continue;
        };
        if let State::Foreign(reasons) = config.state() {
            assert!(!reasons.is_empty(), "{}", String::from_utf8_lossy(&bytes));
        }
        for (to, force) in [
            (Scripts::Nat, false),
            (Scripts::Bridge, false),
            (Scripts::Nat, true),
            (Scripts::Bridge, true),
        ] {
            match config.switch(to, force) {
                Ok(new) => {
                    check(&bytes, &new, to);
                    switched += 1;
                }
                Err(error) => assert!(
                    !error.to_string().contains("without changing something else"),
                    "{error}: {}",
                    String::from_utf8_lossy(&bytes)
                ),
            }
        }
    }
    assert!(switched > 5_000, "{switched}");
}

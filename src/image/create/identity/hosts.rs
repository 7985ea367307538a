// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's name, and that of the host in `/etc/hosts`.

use super::Identity;
use crate::image::create::edits::Edits;

impl Identity<'_> {
    pub(super) fn hostname(&self, edits: &mut Edits) {
        edits.file("etc/hostname", format!("{}\n", self.name));
        if let Some(hosts) = self.found.content("etc/hosts") {
            let old = self.found.content("etc/hostname").and_then(own_label);
            edits.file("etc/hosts", renamed(hosts, old, self.name.as_str()));
        }
    }
}

/// The first part of the name in `/etc/hostname`, which may have a domain, and comments before it (hostname(5)). Every host is
/// called `localhost` besides, so that is nobody's.
fn own_label(hostname: &[u8]) -> Option<&[u8]> {
    let lines = hostname.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let name = lines
        .into_iter()
        .find(|line| !line.is_empty() && !line.starts_with(b"#"))?;
    let label = name.split(|byte| *byte == b'.').next()?;
    (!label.is_empty() && !label.eq_ignore_ascii_case(b"localhost")).then_some(label)
}

/// `/etc/hosts` with another name in place of the old one, each with or without a domain; names are the same in capitals. If the
/// new one then is nowhere, it is added (hosts(5)).
fn renamed(hosts: &[u8], old: Option<&[u8]>, new: &str) -> Vec<u8> {
    let mut text = Vec::with_capacity(hosts.len());
    let mut is_there = false;
    for line in hosts.split_inclusive(|byte| *byte == b'\n') {
        let end = line.iter().position(|byte| *byte == b'#').unwrap_or(line.len());
        let (entry, comment) = line.split_at(end);
        let mut is_address = true;
        for part in entry.split_inclusive(u8::is_ascii_whitespace) {
            let word = part.trim_ascii_end();
            let domain = old.and_then(|old| domain(word, old));
            match domain.filter(|_| !is_address) {
                Some(domain) => {
                    text.extend_from_slice(new.as_bytes());
                    text.extend_from_slice(domain);
                    is_there = true;
                }
                None => {
                    text.extend_from_slice(word);
                    is_there |= !is_address && word.eq_ignore_ascii_case(new.as_bytes());
                }
            }
            text.extend_from_slice(&part[word.len()..]);
            is_address &= word.is_empty();
        }
        text.extend_from_slice(comment);
    }
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    if !is_there {
        text.extend_from_slice(format!("127.0.1.1\t{new}\n").as_bytes());
    }
    text
}

/// What follows the label that a name begins with: nothing, or a domain.
fn domain<'a>(name: &'a [u8], label: &[u8]) -> Option<&'a [u8]> {
    let (start, domain) = name.split_at_checked(label.len())?;
    let follows = domain.is_empty() || domain.starts_with(b".");
    (follows && start.eq_ignore_ascii_case(label)).then_some(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn becomes(hostname: &str, hosts: &[u8], expected: &[u8]) {
        let text = renamed(hosts, own_label(hostname.as_bytes()), "clientA");
        assert_eq!(text, expected, "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn a_host_gets_another_name() {
        let hosts = b"127.0.0.1\tlocalhost\n127.0.1.1\told.example.org old # old\n# old\n10.0.0.1 older\n";
        let expected = b"127.0.0.1\tlocalhost\n127.0.1.1\tclientA.example.org clientA # old\n# old\n10.0.0.1 older\n";
        for hostname in ["old\n", "old.example.org\n", "# Our host\n\n OLD \n", "Old.other"] {
            becomes(hostname, hosts, expected);
        }
        becomes(
            "old",
            b"# K\xf6ln\n::1 OLD.example.org",
            b"# K\xf6ln\n::1 clientA.example.org\n",
        );
    }

    #[test]
    fn every_host_is_localhost() {
        for hostname in ["localhost\n", "localhost.localdomain", "LOCALHOST", "", "#\n"] {
            becomes(
                hostname,
                b"127.0.0.1 localhost localhost.localdomain\n",
                b"127.0.0.1 localhost localhost.localdomain\n127.0.1.1\tclientA\n",
            );
        }
    }

    #[test]
    fn a_name_is_there_once() {
        becomes("x", b"10.0.0.1 other\n", b"10.0.0.1 other\n127.0.1.1\tclientA\n");
        becomes("x", b"10.0.0.1 clienta\n", b"10.0.0.1 clienta\n");
        // An address is no name.
        becomes("10", b" 10.0.0.1 ten\n", b" 10.0.0.1 ten\n127.0.1.1\tclientA\n");
    }
}

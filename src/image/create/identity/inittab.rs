// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of init, of System V or of busybox: what it starts, and on which terminals.

/// A table of init.
#[derive(PartialEq, Eq)]
pub(super) struct Table {
    pub(super) text: String,
    is_busybox: bool,
}

/// The fields of a line, which are ID:RUNLEVELS:ACTION:PROCESS (inittab(5)).
fn fields(line: &str) -> Option<[&str; 4]> {
    let mut fields = line.trim_start().splitn(4, ':');
    let fields = [fields.next()?, fields.next()?, fields.next()?, fields.next()?];
    (!fields[0].starts_with('#')).then_some(fields)
}

impl Table {
    /// Busybox knows no runlevels, and calls the field a terminal that is an id to System V
    /// (<https://git.busybox.net/busybox/tree/examples/inittab>).
    pub(super) fn of(text: &str) -> Self {
        let mut lines = text.lines().filter_map(fields).peekable();
        Self {
            text: text.trim_end().to_owned() + "\n",
            is_busybox: lines.peek().is_some() && lines.all(|[_, runlevels, ..]| runlevels.is_empty()),
        }
    }

    /// A login on both consoles, each only where it is.
    pub(super) fn logins(&mut self, getty: &str) {
        for (letter, terminal) in [('h', "hvc0"), ('T', "ttyS0")] {
            let named = |line: &str| !line.trim_start().starts_with('#') && line.contains(terminal);
            if self.text.lines().any(named) {
                continue;
            }
            let process = format!(
                "/bin/sh -c '[ -c /dev/{terminal} ] || exec sleep 100000; exec {getty} 115200 {terminal} linux'"
            );
            // Busybox would open the terminal itself, and try again each second where there is none.
            let (id, runlevels) = match self.is_busybox {
                true => (String::new(), ""),
                false => (self.free_id(letter), "2345"),
            };
            self.text.push_str(&format!("{id}:{runlevels}:respawn:{process}\n"));
        }
    }

    /// A process that is waited for at each boot, before what the runlevel has.
    pub(super) fn at_boot(&mut self, id: &str, process: &str) {
        if self.text.lines().filter_map(fields).any(|[.., known]| known == process) {
            return;
        }
        let line = match self.is_busybox {
            true => format!("::sysinit:{process}\n"),
            false => format!("{id}::bootwait:{process}\n"),
        };
        self.text.push_str(&line);
    }

    /// System V takes no notice of a line whose id another one has.
    fn free_id(&self, letter: char) -> String {
        let is_taken = |id: &String| self.text.lines().filter_map(fields).any(|[taken, ..]| taken == id);
        let ids = (0..1000).map(|number| format!("{letter}{number}"));
        ids.into_iter().find(|id| !is_taken(id)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_logins(text: &str) -> String {
        let mut table = Table::of(text);
        table.logins("/sbin/getty");
        table.text
    }

    #[test]
    fn a_login_on_each_console_once() {
        let once = with_logins("id:2:initdefault:\n#T0:23:respawn:/sbin/getty ttyS0\n");
        assert_eq!(once.matches("respawn:/bin/sh").count(), 2);
        assert!(once.contains("\nh0:2345:") && once.contains("\nT0:2345:"), "{once}");
        assert_eq!(with_logins(&once), once);
    }

    #[test]
    fn ids_are_free() {
        let text = with_logins("si::sysinit:/etc/init.d/rcS\nh0:2:respawn:x\nT0:23:off:y\nT1:23:off:y\n");
        assert!(
            text.contains("\nh1:2345:respawn:") && text.contains("\nT2:2345:respawn:"),
            "{text}"
        );
    }

    #[test]
    fn busybox_has_no_runlevels() {
        let alpine =
            "::sysinit:/sbin/openrc sysinit\n::wait:/sbin/openrc default\ntty1::respawn:/sbin/getty 38400 tty1\n";
        let text = with_logins(alpine);
        assert!(text.contains("\n::respawn:/bin/sh -c '[ -c /dev/hvc0 ]"), "{text}");
        assert_eq!(with_logins(&text), text);
    }

    #[test]
    fn once_at_boot() {
        for (text, line) in [
            ("id:2:initdefault:\n", "x::bootwait:make\n"),
            ("::sysinit:a\n", "::sysinit:make\n"),
        ] {
            let mut table = Table::of(text);
            table.at_boot("x", "make");
            table.at_boot("x", "make");
            assert_eq!(table.text, format!("{text}{line}"));
        }
    }
}

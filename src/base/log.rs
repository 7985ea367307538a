// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where messages go: to the journal with their fields when systemd runs us, else to stderr as plain lines.
//!
//! Field names are the journal's: `tracing::info!(ttvm_guest = %name, ttvm_lv = %volume, "…")` becomes
//! `TTVM_GUEST=` and `TTVM_LV=`.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use libsystemd::logging::connected_to_journal;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Sends all messages of this process to the journal or to stderr, in the name of `program`. `unit` is the unit
/// this process belongs to, if it is run by one.
pub fn init(program: &'static str, unit: Option<&str>) {
    let journal = connected_to_journal()
        .then(tracing_journald::layer)
        .and_then(Result::ok);
    let subscriber = tracing_subscriber::registry();
    let result = match journal {
        Some(journal) => {
            let journal = journal
                .with_syslog_identifier(program.to_owned())
                .with_field_prefix(None);
            // journald finds the unit of a message by looking at its sender's cgroup, which is gone if the sender
            // ended right after: https://github.com/systemd/systemd/issues/2913. `journalctl -u` also takes
            // messages of root that name the unit as their object.
            let journal = match unit {
                Some(unit) => journal.with_custom_fields([("OBJECT_SYSTEMD_UNIT", unit)]),
                None => journal,
            };
            tracing::subscriber::set_global_default(subscriber.with(journal))
        }
        None => tracing::subscriber::set_global_default(subscriber.with(Stderr { program })),
    };
    // A second call keeps the first choice.
    drop(result);
}

/// Plain lines on stderr: `ttvm: message`.
struct Stderr {
    program: &'static str,
}

impl<S: Subscriber> Layer<S> for Stderr {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            Level::INFO => "",
            Level::DEBUG | Level::TRACE => return,
        };
        let mut message = Message(String::new());
        event.record(&mut message);
        // Whoever was to read it may be gone, or the disk be full: that is no reason to end, least of all in the middle of something.
        let _ = writeln!(
            io::stderr(),
            "{}: {level}{}",
            self.program,
            crate::base::text::lines(&message.0)
        );
    }
}

/// Picks the message out of an event; its fields are for the journal.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String cannot fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

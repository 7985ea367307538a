// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm network` on a bus of its own: what is wrong on the command line, and how it tells what the service answers. The
//! service is one that says what a test wants it to say.

#[path = "support/bus.rs"]
mod bus;

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use bus::Bus;
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zbus::object_server::SignalEmitter;
use zbus::{BoxDBusError, ObjectPath, OwnedObjectPath, OwnedVariant};

const CHANGE: &str = "/org/ttvm/Network1/transaction/7";

/// What `ttvm network` prints on `bus`, and how it ends.
fn session(bus: &str, line: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ttvm"))
        .args(line.split_whitespace())
        .env("DBUS_SYSTEM_BUS_ADDRESS", bus)
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .output()
        .expect("ttvm runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    format!("{}{}[{code}]\n", text(&output.stdout), text(&output.stderr))
}

#[test]
fn mistakes_on_the_command_line() {
    let help = "\n\nFor more information, try '--help'.\n[2]\n";
    let cases = [
        (
            "network set router",
            "error: invalid value 'router' for '<MODE>'\n  [possible values: nat, bridge, none]",
        ),
        (
            "network set nat --subnet 10.0.0.1/24",
            "error: invalid value '10.0.0.1/24' for '--subnet <NETWORK>': \"10.0.0.1/24\" is not a network for guests: the network that address is in is 10.0.0.0/24",
        ),
        (
            "network plan bridge --bridge a/b",
            "error: invalid value 'a/b' for '--bridge <NAME>': \"a/b\" is not an interface name: 1 to 15 letters, digits, \"_\", \".\" or \"-\"",
        ),
        (
            "network set nat --confirm-within soon",
            "error: invalid value 'soon' for '--confirm-within <TIME>': \"soon\" is not a time: write \"45s\" or \"2min\"",
        ),
        (
            "network set nat --confirm-within 61min",
            "error: invalid value '61min' for '--confirm-within <TIME>': a change can wait from 10s to 1h",
        ),
        (
            "network extend 9s",
            "error: invalid value '9s' for '<TIME>': a change can wait from 10s to 1h",
        ),
        (
            "network set nat --dhcp=maybe",
            "error: invalid value 'maybe' for '--dhcp[=<BOOL>]'\n  [possible values: true, false]",
        ),
        (
            "network set nat --keep --confirm-within 1h",
            "error: the argument '--keep' cannot be used with '--confirm-within <TIME>'\n\nUsage: ttvm network set --keep <MODE>",
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(
            session("unix:path=/nonexistent", line),
            format!("{expected}{help}"),
            "{line}"
        );
    }
}

#[test]
fn no_bus() {
    let expected = "ttvm: cannot reach the system bus, by which the service org.ttvm.Network1 is asked: no such file or directory; see `systemctl status dbus`\n[1]\n";
    for line in ["network status", "network set nat", "network confirm"] {
        assert_eq!(session("unix:path=/nonexistent", line), expected, "{line}");
    }
    let said = session("unix:path=/nonexistent", "network attachments --json");
    assert!(
        said.starts_with("{\n  \"error\": {\n    \"kind\": \"failed\",") && said.ends_with(expected),
        "{said}"
    );
    assert_eq!(
        session("unix:path=/nonexistent", "--root /tmp network status"),
        "ttvm: `ttvm network` asks the service of this host: --root cannot be used with it\n[2]\n"
    );
}

/// What becomes of a change.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Nothing,
    Kept,
    Undone,
    Waits,
    Dies,
    Denied,
    InUse,
}

struct Service {
    fate: Fate,
    state: &'static str,
}

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.ttvm.Network1.Error")]
enum Refusal {
    SubnetInUse(String),
    NoSuchTransaction(String),
}

#[zbus::interface(name = "org.ttvm.Network1.Manager")]
impl Service {
    async fn describe(&self) -> String {
        "{\"mode\":\"nat\",\"desired\":\"nat\",\"state\":\"awaiting-confirm\",\"backend\":\"xl\",\"bridge\":\"ttbr0\",\
         \"uplink\":null,\"subnet\":\"10.0.0.0/24\",\"pending\":null,\"conflicts\":[\"Docker drops it; remedy: x\"],\
         \"version\":\"0.1.0\",\"last\":{\"id\":6,\"result\":\"rolled-back\",\"error\":\"not confirmed in time\"}}"
            .to_owned()
    }

    async fn plan(
        &self,
        mode: String,
        options: HashMap<String, OwnedVariant>,
        _flags: u64,
    ) -> (String, String, Vec<String>, Vec<String>, Vec<String>, bool) {
        let mut keys: Vec<String> = options.into_keys().collect();
        keys.sort();
        let steps = vec![format!("make a bridge ({})", keys.join(", "))];
        (
            "none".to_owned(),
            mode,
            steps,
            vec!["forget".to_owned()],
            vec!["careful".to_owned()],
            self.fate == Fate::Waits,
        )
    }

    async fn switch_mode(
        &mut self,
        _mode: String,
        _options: HashMap<String, OwnedVariant>,
        confirm_s: u32,
        _flags: u64,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, BoxDBusError> {
        let change = ObjectPath::try_from(CHANGE).expect("a path");
        match self.fate {
            Fate::Nothing => return Ok(ObjectPath::try_from("/").expect("a path").into()),
            Fate::Denied => return Err(Box::new(zbus::fdo::Error::AccessDenied("no".to_owned()))),
            Fate::InUse => {
                return Err(Box::new(Refusal::SubnetInUse(
                    "10.0.0.0/24 is taken; choose another".to_owned(),
                )));
            }
            // Both before the answer: the client must have been listening.
            Fate::Kept => Self::transaction_finished(&emitter, change.clone(), "kept", "").await?,
            Fate::Undone => {
                Self::transaction_finished(&emitter, change.clone(), "rolled-back", "it did not work").await?;
            }
            Fate::Waits => {
                assert_eq!(confirm_s, 60);
                self.state = "awaiting-confirm";
                self.state_changed(&emitter).await?;
            }
            Fate::Dies => drop(emitter.connection().release_name("org.ttvm.Network1").await),
        }
        Ok(change.into())
    }

    async fn confirm(&self, _change: OwnedObjectPath) -> Result<(), Refusal> {
        match self.fate {
            Fate::Waits => Ok(()),
            _ => Err(Refusal::NoSuchTransaction("it is over".to_owned())),
        }
    }

    async fn rollback(&self, _change: OwnedObjectPath) {}

    async fn extend(&self, change: OwnedObjectPath, confirm_s: u32) -> u64 {
        assert_eq!((change.as_str(), confirm_s), (CHANGE, 120));
        1_700_000_000_000_000
    }

    async fn reconcile(&self, _flags: u64) -> Vec<String> {
        vec!["made the bridge".to_owned()]
    }

    async fn list_attachments(&self) -> Vec<(u32, u32, String, String, String, String, String)> {
        let text = str::to_owned;
        vec![
            (
                3,
                0,
                text("clientA"),
                text("vif3.0"),
                text("ttbr0"),
                text("vif-bridge"),
                text(""),
            ),
            (
                4,
                0,
                text(""),
                text("vif4.0"),
                text(""),
                text("vif-nat"),
                text("it is not ttvm's"),
            ),
        ]
    }

    #[zbus(property)]
    async fn state(&self) -> &str {
        self.state
    }

    #[zbus(property)]
    async fn mode(&self) -> &str {
        "nat"
    }

    #[zbus(property)]
    async fn pending_transaction(&self) -> OwnedObjectPath {
        let path = if self.fate == Fate::Nothing { "/" } else { CHANGE };
        ObjectPath::try_from(path).expect("a path").into()
    }

    #[zbus(property, name = "RollbackDeadlineUSec")]
    async fn rollback_deadline_usec(&self) -> u64 {
        1_700_000_000_000_000
    }

    #[zbus(signal)]
    async fn transaction_finished(
        emitter: &SignalEmitter<'_>,
        transaction: ObjectPath<'_>,
        result: &str,
        error: &str,
    ) -> zbus::Result<()>;
}

/// What `ttvm` prints where the service does `fate`.
fn with_service(name: &str, fate: Fate, line: &str) -> String {
    let line = line.to_owned();
    serving(name, fate, move |bus| session(bus, &line))
}

/// Does something on a bus where the service does `fate`.
fn serving(name: &str, fate: Fate, client: impl FnOnce(&str) -> String + Send + 'static) -> String {
    let bus = Bus::start(name);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let address = bus.address.clone();
    let state = "applying";
    runtime.block_on(async {
        let _connection = zbus::connection::Builder::address(address.as_str())
            .serve_at("/org/ttvm/Network1", Service { fate, state })
            .name("org.ttvm.Network1")
            .build()
            .await
            .expect("the service is on the bus");
        tokio::task::spawn_blocking(move || client(&address))
            .await
            .expect("a session")
    })
}

/// What somebody does who is asked: on the terminal, or to the process.
type Reaction = fn(&mut File, Pid);

/// What `ttvm network set nat` shows on a terminal on which somebody does `reaction` when asked.
fn on_terminal(name: &str, reaction: Reaction) -> String {
    serving(name, Fate::Waits, move |bus| {
        let terminal = openpty(None, None).expect("a terminal");
        let side = || Stdio::from(terminal.slave.try_clone().expect("a descriptor"));
        let mut ttvm = Command::new(env!("CARGO_BIN_EXE_ttvm"))
            .args(["network", "set", "nat", "--dhcp=false"])
            .envs([("DBUS_SYSTEM_BUS_ADDRESS", bus), ("TZ", "UTC"), ("TERM", "dumb")])
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("ttvm runs");
        drop(terminal.slave);
        let mut terminal = File::from(terminal.master);
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        let mut reaction = Some(reaction);
        // The terminal's end is an error: nobody has it open on the other side.
        while let Ok(count @ 1..) = terminal.read(&mut buffer) {
            text.extend_from_slice(&buffer[..count]);
            if text.ends_with(b"[y/N] ")
                && let Some(reaction) = reaction.take()
            {
                reaction(&mut terminal, Pid::from_raw(ttvm.id().cast_signed()));
            }
        }
        let code = ttvm.wait().expect("it ends").code().unwrap_or(-1);
        let text = String::from_utf8_lossy(&text).replace("\r\n", "\n");
        let asked = text.split_once("unless it is confirmed\n").expect(&text).1;
        format!("{asked}[{code}]\n")
    })
}

const PLAN: &str = "warning: careful\nfrom none to nat:\n  make a bridge (dhcp)\nonce it is kept:\n  forget\n";

#[test]
fn changes_that_end() {
    let set = |name, fate| with_service(name, fate, "network set nat --dhcp=false");
    assert_eq!(set("nothing", Fate::Nothing), "nothing to do\n[0]\n");
    assert_eq!(set("kept", Fate::Kept), format!("{PLAN}kept\n[0]\n"));
    assert_eq!(
        set("undone", Fate::Undone),
        format!("{PLAN}ttvm: it did not work\n[1]\n")
    );
    assert_eq!(
        set("in-use", Fate::InUse),
        "ttvm: 10.0.0.0/24 is taken; choose another\n[4]\n"
    );
    assert_eq!(
        set("denied", Fate::Denied),
        "ttvm: you may not do this: run it as root\n[1]\n"
    );
}

#[test]
fn changes_that_do_not() {
    let set = |name, fate| with_service(name, fate, "network set nat --dhcp=false");
    assert_eq!(
        set("waits", Fate::Waits),
        format!(
            "{PLAN}the host's own addresses move: it is undone unless it is confirmed\n\
             The change is undone at 22:13:20 unless it is confirmed: ttvm network confirm\n[0]\n"
        )
    );
    assert_eq!(
        set("dies", Fate::Dies),
        format!(
            "{PLAN}ttvm: the service has ended while it made the change; what was begun is undone when it runs again, at the change's deadline at the latest. See `journalctl -u ttvm-netd` and `ttvm network status`\n[1]\n"
        )
    );
}

#[test]
fn questions() {
    let ask = |name, fate, line| with_service(name, fate, line);
    assert_eq!(
        ask(
            "dry-run",
            Fate::Kept,
            "network set nat --dry-run --dhcp --subnet 10.1.0.0/24"
        ),
        PLAN.replace("(dhcp)", "(dhcp, subnet)") + "[0]\n"
    );
    assert_eq!(
        ask("status", Fate::Nothing, "network status"),
        "        Mode: nat
       State: a change waits to be confirmed
      Bridge: ttbr0
      Uplink: -
      Subnet: 10.0.0.0/24, this host is 10.0.0.254
      Change: none
 Last change: was undone: not confirmed in time
  Interfaces: 2, of which 1 do not follow the mode
    Conflict: Docker drops it; remedy: x
[0]
"
    );
    assert_eq!(
        ask("attachments", Fate::Nothing, "network attachments"),
        "DOMID  GUEST    VIF     BRIDGE  SCRIPT      MODE
3      clientA  vif3.0  ttbr0   vif-bridge  follows
4      -        vif4.0  -       vif-nat     stays: it is not ttvm's
[0]
"
    );
    assert_eq!(
        ask("extend", Fate::Waits, "network extend 2min"),
        "The change is undone at 22:13:20 unless it is confirmed: ttvm network confirm\n[0]\n"
    );
    assert_eq!(
        ask("reconcile", Fate::Waits, "network reconcile"),
        "made the bridge\n[0]\n"
    );
    assert_eq!(ask("over", Fate::Kept, "network confirm"), "ttvm: it is over\n[4]\n");
    assert_eq!(
        ask("none-pending", Fate::Nothing, "network confirm"),
        "ttvm: there is no change to be confirmed or undone\n[4]\n"
    );
}

#[test]
fn a_question_on_a_terminal() {
    let question = "It is undone in 0 s.\nKeep this change? [y/N] ";
    let undecided = "The change is undone at 22:13:20 unless it is confirmed: ttvm network confirm";
    let cases: [(&str, Reaction, String); 5] = [
        (
            "yes",
            |terminal, _| type_in(terminal, "y\n"),
            "y\nkept\n[0]\n".to_owned(),
        ),
        (
            "enter",
            |terminal, _| type_in(terminal, "\n"),
            "\nttvm: the change was undone: everything is as before\n[1]\n".to_owned(),
        ),
        (
            "again",
            |terminal, _| type_in(terminal, "what?\nyes\n"),
            format!("what?\nyes\n{question}kept\n[0]\n"),
        ),
        (
            "end",
            |terminal, _| type_in(terminal, "\x04"),
            format!("\n{undecided}\n[0]\n"),
        ),
        (
            "interrupt",
            |_, ttvm| kill(ttvm, Signal::SIGINT).expect("a signal"),
            format!("\n{undecided}\n[0]\n"),
        ),
    ];
    for (name, reaction, expected) in cases {
        assert_eq!(on_terminal(name, reaction), format!("{question}{expected}"), "{name}");
    }
}

fn type_in(terminal: &mut File, text: &str) {
    terminal.write_all(text.as_bytes()).expect("somebody types");
}

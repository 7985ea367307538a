// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our own nft table, `inet ttvm`: what guests behind the NAT bridge may send, and in whose name.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Change, Context};
use crate::config::network::Subnet;
use crate::config::types::InterfaceName;
use crate::network::Error;
use crate::run::{self, Command, Program};

static NFT: Program = Program::new(&["nft"]);

/// `add` makes sure that there is something to delete: one transaction, whether the table is there or not. nft before
/// 1.0.7 has no `destroy`.
const REMOVE: &str = "add table inet ttvm\ndelete table inet ttvm\n";

/// The table for one bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// The guests' bridge.
    pub bridge: InterfaceName,
    /// The guests' network.
    pub subnet: Subnet,
    /// Interfaces whose packets the kernel forwards for guests only.
    pub guarded: Vec<String>,
}

impl Firewall {
    /// `Ok` if nft has words for it.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] if an interface has a name that no rule can have.
    pub fn check(&self) -> Result<(), Error> {
        self.table().map(drop)
    }

    fn table(&self) -> Result<String, Error> {
        let (bridge, subnet) = (self.bridge.as_str(), self.subnet);
        let mut guards = String::new();
        for name in &self.guarded {
            guards += &format!("\t\tiifname {} oifname != \"{bridge}\" drop\n", quoted(name)?);
        }
        // The last chain mends what a paravirtual guest before Linux 2.6.39 trips over: its DHCP client reads raw packets
        // and does not know that their checksum was left to hardware there is none of
        // (https://bugzilla.redhat.com/show_bug.cgi?id=231047).
        Ok(format!(
            r#"table inet ttvm {{
	chain forward {{
		type filter hook forward priority filter; policy accept;
		iifname "{bridge}" ip saddr {subnet} accept
		iifname "{bridge}" drop
		oifname "{bridge}" ct state established,related accept
		oifname "{bridge}" drop
{guards}	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {subnet} oifname != "{bridge}" ip daddr != 224.0.0.0/4 masquerade
	}}
	chain checksum {{
		type filter hook postrouting priority 0; policy accept;
		oifname "{bridge}" udp sport 67 udp dport 68 udp checksum set 0
	}}
}}
"#
        ))
    }

    /// How often the table, as nft prints it, has the bridge and the network in it.
    fn marks(&self, text: &str) -> [usize; 2] {
        let (bridge, subnet) = (format!("\"{}\"", self.bridge), format!("ip saddr {} ", self.subnet));
        [bridge, subnet].map(|mark| text.matches(&mark).count())
    }
}

/// The name of an interface as nft reads it. The kernel allows any but those with blanks, `/` and `:` (dev_valid_name in
/// net/core/dev.c). Between quotes nothing is special to nft but the next quote, which cannot be escaped, and `*` at the end,
/// which stands for all names that begin so unless there is a backslash before it (scanner.l, expr_evaluate_string).
fn quoted(name: &str) -> Result<String, Error> {
    if name.contains(|c: char| c == '"' || c.is_control()) {
        return Err(Error::Foreign {
            what: format!(
                "the interface {name:?}, from which others would reach all networks of this host, has a name that no rule of nft can have"
            ),
            remedy: "rename it (`ip link set OLD name NEW`), and try again".to_owned(),
        });
    }
    Ok(match name.strip_suffix('*') {
        Some(beginning) => format!("\"{beginning}\\*\""),
        None => format!("\"{name}\""),
    })
}

fn nft(input: &str) -> Result<(), Error> {
    let command = Command::new(&NFT).args(["-f", "-"]).input(input);
    command.run().map(drop).map_err(explain)
}

fn explain(error: run::Error) -> Error {
    match error {
        run::Error::NotInstalled { .. } => Error::BackendMissing {
            what: "nft is not installed, which lets guests reach the world: install nftables".to_owned(),
        },
        other => other.into(),
    }
}

/// Whether the program is there.
pub fn check() -> Result<(), Error> {
    NFT.path().map(drop).map_err(explain)
}

impl Change for Firewall {
    fn apply(&self, _: &mut Context<'_>) -> Result<(), Error> {
        nft(&format!("{REMOVE}{}", self.table()?))
    }

    fn undo(&self, _: &mut Context<'_>) -> Result<(), Error> {
        nft(REMOVE)
    }

    fn missing(&self, _: &mut Context<'_>) -> Result<Option<String>, Error> {
        // The text as nft prints it, not its JSON, whose shape differs between versions
        // (https://github.com/containers/netavark/issues/1303).
        match Command::new(&NFT).args(["list", "table", "inet", "ttvm"]).run() {
            Ok(output) => {
                let whole = self.marks(&output.stdout) == self.marks(&self.table()?);
                Ok((!whole).then(|| "the nft table inet ttvm is not as it was made".to_owned()))
            }
            Err(run::Error::Failed { .. }) => Ok(Some("there is no nft table inet ttvm".to_owned())),
            Err(other) => Err(other.into()),
        }
    }

    fn undoing(&self) -> String {
        "remove the nft table inet ttvm".to_owned()
    }
}

impl fmt::Display for Firewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "let {} out in the host's name, and nobody in (nft table inet ttvm)",
            self.subnet
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarding(name: &str) -> Result<String, Error> {
        let firewall = Firewall {
            bridge: "ttvm0".parse().expect("a name"),
            subnet: "10.0.0.0/24".parse().expect("a network"),
            guarded: vec![name.to_owned()],
        };
        firewall.table()
    }

    #[test]
    fn names_that_the_kernel_allows() {
        for (name, written) in [
            ("eth0", "\"eth0\""),
            ("a;b{}#$c", "\"a;b{}#$c\""),
            ("a\\", "\"a\\\""),
            ("*", "\"\\*\""),
            ("eth*", "\"eth\\*\""),
            ("e*h", "\"e*h\""),
            ("eth\\*", "\"eth\\\\*\""),
        ] {
            let table = guarding(name).expect("a table");
            let line = format!("\t\tiifname {written} oifname != \"ttvm0\" drop\n");
            assert!(table.contains(&line), "{name}: {table}");
        }
        for name in ["x\"drop", "\"", "a\u{1}"] {
            let error = guarding(name).expect_err("no words").to_string();
            assert!(error.contains(&format!("{name:?}")), "{error}");
        }
    }
}

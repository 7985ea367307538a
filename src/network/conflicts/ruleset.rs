// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules of `nft -j list ruleset` (libnftables-json(5)), read as far as they matter here.
//!
//! Deliberately without a type per object: the format grows with nft, and programs that knew each object failed on
//! the next release (<https://github.com/containers/netavark/issues/942>). What is not known is passed over.

use serde_json::Value;

/// All chains of the host.
#[derive(Debug, Default)]
pub struct Ruleset {
    chains: Vec<Chain>,
}

/// One chain.
#[derive(Debug)]
pub struct Chain {
    pub family: String,
    pub table: String,
    pub name: String,
    /// Where the kernel calls it; `None` if only other chains do.
    pub hook: Option<String>,
    /// What reaches its end is dropped.
    pub drops: bool,
    /// Its rules in order, each a list of statements.
    pub rules: Vec<Vec<Value>>,
}

impl Ruleset {
    /// Reads nft's output.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        let document: Value = serde_json::from_str(json)?;
        let mut ruleset = Self::default();
        let objects = document.get("nftables").and_then(Value::as_array);
        for object in objects.into_iter().flatten() {
            if let Some(chain) = object.get("chain") {
                ruleset.chains.push(Chain {
                    family: text(chain, "family"),
                    table: text(chain, "table"),
                    name: text(chain, "name"),
                    hook: chain.get("hook").and_then(Value::as_str).map(str::to_owned),
                    drops: text(chain, "policy") == "drop",
                    rules: Vec::new(),
                });
            } else if let Some(rule) = object.get("rule") {
                // A table's chains come before its rules.
                let (family, table, name) = (text(rule, "family"), text(rule, "table"), text(rule, "chain"));
                let chain = ruleset.chains.iter_mut().find(|chain| chain.is(&family, &table, &name));
                if let (Some(chain), Some(Value::Array(statements))) = (chain, rule.get("expr")) {
                    chain.rules.push(statements.clone());
                }
            }
        }
        Ok(ruleset)
    }

    /// The chains the kernel itself calls at `hook`.
    pub fn base_chains<'a>(&'a self, hook: &'a str) -> impl Iterator<Item = &'a Chain> {
        let at_hook = move |chain: &&Chain| chain.hook.as_deref() == Some(hook);
        self.chains.iter().filter(at_hook)
    }

    /// The chain `name` beside `chain`.
    pub fn beside(&self, chain: &Chain, name: &str) -> Option<&Chain> {
        self.chains
            .iter()
            .find(|other| other.is(&chain.family, &chain.table, name))
    }

    /// Whether a chain in the table of `chain` has such a name.
    pub fn any_beside(&self, chain: &Chain, named: impl Fn(&str) -> bool) -> bool {
        let same_table = |other: &&Chain| other.family == chain.family && other.table == chain.table;
        self.chains.iter().filter(same_table).any(|other| named(&other.name))
    }

    /// Whether any chain has such a name.
    pub fn any(&self, named: impl Fn(&str) -> bool) -> bool {
        self.chains.iter().any(|chain| named(&chain.name))
    }
}

impl Chain {
    fn is(&self, family: &str, table: &str, name: &str) -> bool {
        self.family == family && self.table == table && self.name == name
    }
}

fn text(object: &Value, key: &str) -> String {
    object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

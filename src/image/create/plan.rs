// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said of an image, before it is made and after.

use std::collections::BTreeMap;

use super::{Creation, Reason, Request, Source, report};
use crate::config::types::Size;
use crate::image::Origin;

impl Creation {
    /// What [`make`](Self::make) will do, in words.
    pub fn plan(&self) -> Vec<String> {
        let request = &self.request;
        let Request { size, place, kind, .. } = request;
        let (files, bytes) = (self.survey.files, Size::from_bytes(self.survey.bytes));
        let what = match (place, &request.pool) {
            (Origin::File(_), _) => "a sparse file".to_owned(),
            (Origin::Volume(_), None) => "a volume".to_owned(),
            (Origin::Volume(_), Some(pool)) => format!("a thin volume in {pool}"),
        };
        let mut plan = vec![
            format!("make {place}, {what} of {size}, with the file system {}", kind.as_str()),
            format!("copy {files} files ({bytes}) from {}", request.source.display()),
        ];
        let mounts = match &self.source {
            Source::Tree(tree) => tree.mounts().clone(),
            Source::Archive(..) => BTreeMap::new(),
        };
        if !mounts.is_empty() {
            plan.push(format!("leave out what is mounted there at {} places", mounts.len()));
        }
        let own = mounts.iter().filter(|(_, reason)| **reason == Reason::Filesystem);
        let own: Vec<String> = own.map(|(path, _)| report::shown(path)).collect();
        if !own.is_empty() {
            plan.push(format!("leave out file systems of their own: {}", own.join(", ")));
        }
        plan.extend(self.identity(String::new()).plan());
        plan.extend(self.boots_nothing().map(str::to_owned));
        plan
    }

    /// What was done about the guest's network, in a few words.
    pub fn network(&self) -> Option<&'static str> {
        self.identity(String::new()).network_in_words()
    }

    /// Whether that is nothing because nothing that is known here configures it.
    pub fn lacks_network(&self) -> bool {
        self.identity(String::new()).lacks_network()
    }

    /// Whether nobody can log in with a password, as far as the source tells.
    pub fn nobody_logs_in(&self) -> bool {
        self.identity(String::new()).nobody_logs_in()
    }

    /// What somebody has to run in the guest for new host keys of SSH.
    pub fn lacks_keys(&self) -> Option<&'static str> {
        self.identity(String::new()).lacks_keys()
    }
}

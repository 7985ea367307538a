// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is asked for.

use std::path::PathBuf;
use std::time::Duration;

use ext4_fill::Kind;

use super::exclude::{Exclusions, Reason};
use super::identity::{self, Keep};
use super::output::volume::Wanted;
use super::pattern::Pattern;
use crate::config::types::{GuestName, LvmName, Size, Volume};
use crate::image::Origin;

/// What is to be made, and from what.
#[derive(Debug, Clone)]
pub struct Request {
    /// The guest.
    pub name: GuestName,
    /// The size of the disk.
    pub size: Size,
    /// Where it goes.
    pub place: Origin,
    /// The thin pool that a volume is to be in.
    pub pool: Option<LvmName>,
    /// `/`, a directory, or a tar archive.
    pub source: PathBuf,
    /// What is left out besides what always is.
    pub exclude: Vec<Pattern>,
    /// What is not made otherwise than it is in the source.
    pub keep: Vec<Keep>,
    /// The kind of file system.
    pub kind: Kind,
    /// What the guest calls its root; else it is found by its UUID.
    pub root: Option<String>,
    /// What the guest is there to run, once, before it powers itself off.
    pub script: Option<Vec<u8>>,
    /// Root's password, as shadow(5) has it.
    pub password: Option<String>,
    /// Where ttvm keeps recordings and images.
    pub state: PathBuf,
    /// Images of other guests.
    pub guests: Vec<PathBuf>,
    /// How full that pool may be, in percent.
    pub thin_pool_limit: u8,
    /// How long to wait for another ttvm that works on the volume group.
    pub lock_timeout: Duration,
}

impl Request {
    pub(super) fn wanted<'a>(&'a self, volume: &'a Volume) -> Wanted<'a> {
        Wanted {
            volume,
            pool: self.pool.as_ref(),
            size: self.size,
            pool_limit: self.thin_pool_limit,
            limit: self.lock_timeout,
        }
    }

    pub(super) fn exclusions(&self) -> Exclusions {
        let mut exclusions = Exclusions::default();
        for pattern in &self.exclude {
            exclusions.pattern(pattern.clone(), Reason::Asked);
        }
        // mke2fs has made one.
        exclusions.fixed(&["/lost+found"], Reason::Cache);
        if !self.keep.contains(&Keep::All) {
            exclusions.file(&self.state, Reason::Ttvm);
            exclusions.fixed(&["/var/lib/ttvm"], Reason::Ttvm);
            for image in &self.guests {
                exclusions.file(image, Reason::Guests);
            }
        }
        if !identity::keeps(&self.keep, Keep::Caches) {
            exclusions.caches();
        }
        if !identity::keeps(&self.keep, Keep::Swap) {
            exclusions.swap();
        }
        identity::exclude(&self.keep, &mut exclusions);
        exclusions
    }
}

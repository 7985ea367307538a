// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest from nothing: a kernel, and everything else in memory.

use std::path::PathBuf;

use super::kept::Kept;
use super::text::Description;
use super::{Error, Plan, directory, is_free};
use crate::base::progress::Progress;
use crate::config::guest::Toolstack;
use crate::config::guests;
use crate::config::host::HostConfig;
use crate::config::places::Places;
use crate::config::types::{GuestName, Size};
use crate::initrd::busybox::{self, Image, Password, Settings};
use crate::initrd::kernel::Kernel;

/// It has nothing but busybox and a few drivers.
const MEMORY: Size = Size::mib(128);

/// What is asked for.
#[derive(Debug)]
pub struct Request {
    /// The guest.
    pub name: GuestName,
    /// What starts it.
    pub toolstack: Toolstack,
    /// Where its kernel is; without, the newest of this system.
    pub kernel: Option<PathBuf>,
    /// Root's password, if it is not to be the one that everybody knows.
    pub password: Option<Password>,
}

/// A guest that is all in memory.
#[derive(Debug)]
pub struct Ram {
    /// What is to be made.
    pub plan: Plan,
    /// The version of its kernel.
    pub version: String,
    /// Its memory.
    pub memory: Size,
    /// Bytes of its initial RAM disk.
    pub size: u64,
    /// Of the drivers it should have, what its kernel has not.
    pub missing: Vec<String>,
}

impl Ram {
    /// Puts it together; nothing is written. `progress` hears of bytes of a package, if the kernel is in one.
    pub fn prepare(
        places: &Places,
        host: &HostConfig,
        request: &Request,
        progress: &mut Progress<'_>,
    ) -> Result<Self, Error> {
        is_free(places, &request.name)?;
        let kernel = Kernel::find(places.root(), request.kernel.as_deref())?;
        let modules = kernel.modules(&busybox::usual, progress)?;
        let settings = Settings {
            password: request.password.clone().unwrap_or_default(),
            ..Settings::default()
        };
        let image = Image::with(places.root(), &modules, &settings)?;
        let content = image.content(progress)?;
        let (directory, version) = (directory(places), kernel.version);
        let initrd = Kept::new(
            &directory,
            &format!("initrd-busybox-{version}"),
            content,
            request.password.is_some(),
        );
        let kernel = Kept::new(&directory, &format!("vmlinuz-{version}"), kernel.content, false);
        let description = Description {
            toolstack: request.toolstack,
            memory: MEMORY,
            kernel: Some(&kernel.path),
            initrd: Some(&initrd.path),
            words: &format!("quiet ttvm.guest={}", request.name),
            disk: None,
        };
        let text = description.render();
        guests::check(places, host, &request.name, &text, false)?;
        Ok(Self {
            version,
            memory: MEMORY,
            size: initrd.size(),
            missing: image.missing,
            plan: Plan {
                name: request.name.clone(),
                path: guests::path(places, &request.name),
                text,
                kept: vec![kernel, initrd],
            },
        })
    }
}

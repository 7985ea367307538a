// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest with a disk: an image of a system, with what it boots beside it.

use std::path::{Path, PathBuf};

use super::kept::{Draft, Kept};
use super::text::{self, Description};
use super::{Error, describe, directory, is_free};
use crate::base::progress::Progress;
use crate::config::guest::{Origin, Toolstack};
use crate::config::guests;
use crate::config::host::HostConfig;
use crate::config::places::Places;
use crate::config::types::Size;
use crate::file;
use crate::image::create::{Boots, Creation, Report};
use crate::initrd::busybox::{self, Image, Settings};
use crate::initrd::kernel::Kernel;

/// What a kernel and a small system take, and how much more an initial RAM disk does than its bytes: it is packed, and Linux has
/// both for a while.
const MEMORY: u64 = 256 << 20;
const UNPACKED: u64 = 6;
const STEP: u64 = 128 << 20;

/// What the root is called as long as nobody knows.
const UNKNOWN: &str = "UUID=(known when it is made)";

/// What a guest boots.
#[derive(Debug)]
struct Booted {
    version: String,
    kernel: Kept,
    initrd: Option<Kept>,
}

/// A guest with a disk that can be made.
#[derive(Debug)]
pub struct Disk {
    creation: Creation,
    toolstack: Toolstack,
    booted: Option<Booted>,
}

impl Disk {
    /// The guest of that image, with what is in the source for it to boot.
    pub fn with_own_kernel(places: &Places, creation: Creation, toolstack: Toolstack, boots: Boots) -> Self {
        let directory = beside(places, &creation);
        let keep =
            |name: &str, content, secret| Kept::new(&directory, &format!("{name}-{}", boots.version), content, secret);
        let booted = Booted {
            kernel: keep("vmlinuz", boots.kernel, false),
            // It may have keys in it; where it is from, it may be root's alone.
            initrd: boots.initrd.map(|content| keep("initrd", content, true)),
            version: boots.version,
        };
        Self {
            creation,
            toolstack,
            booted: Some(booted),
        }
    }

    /// The guest of that image, with a kernel from elsewhere and an initial RAM disk that mounts the root with its drivers.
    pub fn with_kernel(
        places: &Places,
        (creation, toolstack): (Creation, Toolstack),
        kernel: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<Self, Error> {
        let kernel = Kernel::find(places.root(), Some(kernel))?;
        let modules = kernel.modules(&busybox::usual, progress)?;
        let image = Image::with(places.root(), &modules, &Settings::for_root())?;
        let directory = beside(places, &creation);
        let keep = |name: &str, content| Kept::new(&directory, &format!("{name}-{}", kernel.version), content, false);
        let initrd = keep("initrd-root", image.content(progress)?);
        let booted = Booted {
            kernel: keep("vmlinuz", kernel.content),
            initrd: Some(initrd),
            version: kernel.version,
        };
        Ok(Self {
            creation,
            toolstack,
            booted: Some(booted),
        })
    }

    /// The guest of an image without anything to boot: its file lacks that.
    pub fn without_kernel(creation: Creation, toolstack: Toolstack) -> Self {
        Self {
            creation,
            toolstack,
            booted: None,
        }
    }

    /// The image.
    pub fn creation(&self) -> &Creation {
        &self.creation
    }

    /// The version of the kernel that is kept for it.
    pub fn version(&self) -> Option<&str> {
        Some(&self.booted.as_ref()?.version)
    }

    /// Its memory: its initial RAM disk fits.
    pub fn memory(&self) -> Size {
        let initrd = self.booted.as_ref().and_then(|booted| booted.initrd.as_ref());
        let initrd = initrd.map_or(0, Kept::size);
        Size::from_bytes((MEMORY + UNPACKED * initrd).next_multiple_of(STEP))
    }

    fn kept(&self) -> impl Iterator<Item = &Kept> {
        let booted = self.booted.iter();
        booted.flat_map(|booted| std::iter::once(&booted.kernel).chain(&booted.initrd))
    }

    /// What will be done, in words, but for the guest's file.
    pub fn plan(&self) -> Vec<String> {
        let mut plan = self.creation.plan();
        plan.extend(self.kept().map(Kept::plan));
        plan
    }

    /// The guest's file, as far as it is known before the image is made.
    pub fn draft_text(&self) -> String {
        let root = self.creation.request().root.as_deref();
        self.text(root.unwrap_or(UNKNOWN))
    }

    /// The guest's file. The guest calls its root so.
    pub fn text(&self, root: &str) -> String {
        let request = self.creation.request();
        let booted = self.booted.as_ref();
        let initrd = booted.and_then(|booted| booted.initrd.as_ref());
        // By its UUID, an initial RAM disk finds it. The kernel alone does not.
        let root = match initrd {
            None if root.starts_with("UUID=") && self.toolstack.is_xen() => "/dev/xvda1",
            None if root.starts_with("UUID=") => "/dev/vda",
            _ => root,
        };
        Description {
            toolstack: self.toolstack,
            memory: self.memory(),
            kernel: booted.map(|booted| booted.kernel.path.as_path()),
            initrd: initrd.map(|kept| kept.path.as_path()),
            words: &format!("root={root} ro"),
            disk: Some(text::Disk {
                origin: &request.place,
                is_thick: matches!(request.place, Origin::Volume(_)) && request.pool.is_none(),
            }),
        }
        .render()
    }

    /// Makes the image, and keeps what it boots. What fails leaves nothing.
    pub fn make_image(&self, progress: &mut Progress<'_>) -> Result<Report, Error> {
        let mut draft = Draft::default();
        let report = self.make_parts(&mut draft, progress)?;
        draft.done();
        Ok(report)
    }

    /// Makes the whole guest, with its file. What fails leaves nothing but, if it is made by then, a volume: this is no place to
    /// remove one.
    pub fn make(&self, places: &Places, host: &HostConfig, progress: &mut Progress<'_>) -> Result<Report, Error> {
        let request = self.creation.request();
        is_free(places, &request.name)?;
        guests::check(places, host, &request.name, &self.draft_text(), false)?;
        let mut draft = Draft::default();
        let report = self.make_parts(&mut draft, progress)?;
        if let Origin::File(path) = &request.place {
            draft.made(path.clone());
        }
        let described = describe(places, host, &request.name, &self.text(&report.root));
        match (described, &request.place) {
            (Err(error), Origin::Volume(_)) => Err(Error::OnlyVolume {
                origin: request.place.clone(),
                source: Box::new(error),
            }),
            (described, _) => {
                described?;
                draft.done();
                Ok(report)
            }
        }
    }

    fn make_parts(&self, draft: &mut Draft, progress: &mut Progress<'_>) -> Result<Report, Error> {
        for kept in self.kept() {
            draft.keep(kept)?;
        }
        Ok(self.creation.make(progress)?)
    }
}

/// Where what a guest boots is kept: beside its image, if that is a file.
fn beside(places: &Places, creation: &Creation) -> PathBuf {
    match &creation.request().place {
        Origin::File(path) => file::parent(path).to_owned(),
        Origin::Volume(_) => directory(places),
    }
}

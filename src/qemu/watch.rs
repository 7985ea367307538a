// SPDX-License-Identifier: MIT OR Apache-2.0
//! The plugins that watch a run from within QEMU (crates/qemu-watch): which one this QEMU loads, and where it is.

use std::path::{Path, PathBuf};

use super::engine::Version;

/// Where they are installed.
const INSTALLED: &str = "/usr/libexec/ttvm";

/// Why a run cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This QEMU has another interface for plugins.
    #[error(
        "QEMU {version} loads none of ttvm's plugins, which are for 7.2 to 8.2, 9.2 and 10.0: install one of these"
    )]
    NoInterface {
        /// Its version.
        version: Version,
    },
    /// The plugin is not there.
    #[error("{} is missing: reinstall the package ttvm", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
}

/// The plugin for that QEMU. Whoever runs what cargo has built has it beside the program.
///
/// # Errors
///
/// If there is none.
pub fn plugin(version: &Version) -> Result<PathBuf, Error> {
    let name = match version.release() {
        (7, 2) | (8, _) => "libqemu_watch_1.so",
        (9, 2) | (10, 0) => "libqemu_watch_4.so",
        _ => {
            return Err(Error::NoInterface {
                version: version.clone(),
            });
        }
    };
    let beside = std::env::current_exe().ok();
    let beside = beside.as_deref().and_then(Path::parent).map(|it| it.join(name));
    let installed = Path::new(INSTALLED).join(name);
    match beside.filter(|it| it.is_file()) {
        Some(path) => Ok(path),
        None if installed.is_file() => Ok(installed),
        None => Err(Error::Missing { path: installed }),
    }
}

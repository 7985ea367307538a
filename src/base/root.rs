// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system whose files are read may be a tree below a directory (`--root`).

use std::path::{Path, PathBuf};

/// `path`, which is absolute, in the tree that begins at `root`.
pub fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

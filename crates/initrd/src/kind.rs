// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kinds of files that an archive can have.

use nix::libc;
use nix::sys::stat::SFlag;

use super::newc::Header;

/// What a symbolic link can say.
pub(super) const TARGET_LIMIT: usize = 4095;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link; its target is its data.
    Link,
    /// A device, a FIFO or a socket.
    Node(Node),
}

/// What has neither data nor names of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
}

impl Node {
    /// What `mknod(2)` is asked for.
    pub(super) fn flag(self) -> SFlag {
        match self {
            Self::Character => SFlag::S_IFCHR,
            Self::Block => SFlag::S_IFBLK,
            Self::Fifo => SFlag::S_IFIFO,
            Self::Socket => SFlag::S_IFSOCK,
        }
    }
}

impl Kind {
    /// What `header` describes.
    ///
    /// # Errors
    ///
    /// Why it cannot be.
    pub fn of(header: &Header) -> Result<Self, &'static str> {
        let kind = Self::of_mode(header.mode).ok_or("it is of a kind that there is not")?;
        match kind {
            Self::Link if header.size == 0 => Err("it is a symbolic link that leads nowhere"),
            Self::Link if header.size as usize > TARGET_LIMIT + 1 => {
                Err("it is a symbolic link with more than 4095 bytes")
            }
            Self::Directory | Self::Node(_) if header.size > 0 => Err("it has data, but is no file"),
            kind => Ok(kind),
        }
    }

    /// What a mode says.
    pub fn of_mode(mode: u32) -> Option<Self> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFDIR => Self::Directory,
            libc::S_IFREG => Self::File,
            libc::S_IFLNK => Self::Link,
            libc::S_IFCHR => Self::Node(Node::Character),
            libc::S_IFBLK => Self::Node(Node::Block),
            libc::S_IFIFO => Self::Node(Node::Fifo),
            libc::S_IFSOCK => Self::Node(Node::Socket),
            _ => return None,
        })
    }

    /// Whether it needs root.
    pub fn is_device(self) -> bool {
        matches!(self, Self::Node(Node::Character | Node::Block))
    }

    /// The letter that `ls -l` has for it.
    pub fn letter(self) -> char {
        match self {
            Self::Directory => 'd',
            Self::File => '-',
            Self::Link => 'l',
            Self::Node(Node::Character) => 'c',
            Self::Node(Node::Block) => 'b',
            Self::Node(Node::Fifo) => 'p',
            Self::Node(Node::Socket) => 's',
        }
    }
}

/// A mode as `ls -l` writes it.
pub fn mode_text(mode: u32) -> String {
    let mut text = String::with_capacity(10);
    text.push(Kind::of_mode(mode).map_or('?', Kind::letter));
    for (shift, special, letter) in [
        (6, libc::S_ISUID, 's'),
        (3, libc::S_ISGID, 's'),
        (0, libc::S_ISVTX, 't'),
    ] {
        let bit = |bit: u32, letter: char| if mode >> shift & bit != 0 { letter } else { '-' };
        text.push(bit(4, 'r'));
        text.push(bit(2, 'w'));
        text.push(match (mode & special != 0, mode >> shift & 1 != 0) {
            (false, _) => bit(1, 'x'),
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_as_ls_writes_them() {
        for (mode, text) in [
            (0o100_644, "-rw-r--r--"),
            (0o104_755, "-rwsr-xr-x"),
            (0o102_644, "-rw-r-Sr--"),
            (0o041_777, "drwxrwxrwt"),
            (0o120_777, "lrwxrwxrwx"),
            (0o020_600, "crw-------"),
            (0o060_660, "brw-rw----"),
            (0o010_644, "prw-r--r--"),
            (0o140_755, "srwxr-xr-x"),
        ] {
            assert_eq!(mode_text(mode), text);
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why an image was not made, each with what to do about it.

use std::io;
use std::path::PathBuf;

use ext4_fill::Kind;

use crate::base::error::{Classify, Exit};
use crate::config::types::{LvmName, Size, Volume};
use crate::{image, lvm2_cmd, run, snapshot};

/// Why an image was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is something of that name.
    #[error("{0} is there already: nothing was done; remove it, or choose another name")]
    Exists(String),
    /// The source cannot be used.
    #[error("cannot read the source {}: see that it is there, and that you may read it", path.display())]
    Source {
        /// The source.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The source is neither a directory nor an archive.
    #[error("{} is neither a directory nor a tar archive: --from takes /, a directory, or a file made by tar", .0.display())]
    NoSource(PathBuf),
    /// The source is packed in a way that is not taken.
    #[error("{} is {what}, which is not taken here: {remedy} first (--from takes /, a directory, or a tar archive, as it is or packed with gzip, zstd, xz or bzip2)", path.display())]
    OtherSource {
        /// The source.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What makes a source of it.
        remedy: &'static str,
    },
    /// What a program for containers keeps, and no file system.
    #[error("{} is what {program} writes: layers, and no file system; {remedy}", path.display())]
    Layers {
        /// The source.
        path: PathBuf,
        /// What writes such.
        program: &'static str,
        /// What writes a file system.
        remedy: &'static str,
    },
    /// An archive that is not to be trusted, or cannot be.
    #[error("{} cannot be used: {why}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What is to be otherwise in the guest is not where it should be.
    #[error(
        "{way} is {kind}, so that {path} would not become the guest's own: copy a source in which that is otherwise, leave it out with --exclude {way}, or have that part as it is with --keep (MAKING IMAGES in ttvm(1))"
    )]
    Diverted {
        /// What is on the way to it.
        way: String,
        /// Of what kind that is.
        kind: String,
        /// What is to be otherwise.
        path: String,
    },
    /// Something has the name of a directory that no system is without.
    #[error(
        "{path} is {kind}, and the guest needs a directory there: leave it out with --exclude {path}, and it gets one"
    )]
    NotADirectory {
        /// Its path.
        path: String,
        /// What it is.
        kind: String,
    },
    /// Nothing would run the script.
    #[error("there is no systemd in {}, which would run the script: install it there, or leave --run", .0.display())]
    NoSystemd(PathBuf),
    /// It does not fit.
    #[error("{size} is too small for {files} files, which take {need}: --size {fits} would do")]
    TooSmall {
        /// What was asked for.
        size: Size,
        /// What they take there.
        need: Size,
        /// Files there are.
        files: u64,
        /// What would do.
        fits: Size,
    },
    /// No file system is so large.
    #[error("{size} is more than a file system that is made here can be (nearly {largest}): give it less with --size")]
    LargeFilesystem {
        /// What was asked for.
        size: Size,
        /// What there can be.
        largest: Size,
    },
    /// The place is the name of a directory.
    #[error("{} is the name of a directory: --file takes that of a file, such as {}", .0.display(), .0.join("image").display())]
    NoFileName(PathBuf),
    /// The place takes no file that is so large.
    #[error(
        "a file of {size} cannot be in {}: give it less with --size or a higher limit with `ulimit -f`, or put it on another disk",
        path.display()
    )]
    LargeImage {
        /// The directory of the image.
        path: PathBuf,
        /// The image's size.
        size: Size,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The place was full before the image was.
    #[error("{place} cannot be written, since what it is on is full: make room there, or put it elsewhere")]
    PlaceFull {
        /// The image.
        place: image::Origin,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It did not fit after all.
    #[error(
        "{path} does not fit into {size}: attributes, lists of blocks, or what has come since take more than was reckoned with; give it more with --size"
    )]
    Full {
        /// The file that did not.
        path: String,
        /// The image's size.
        size: Size,
        /// What was used up.
        #[source]
        source: ext4_fill::Error,
    },
    /// A file is larger than any can be.
    #[error(
        "{path} is larger than a file of {} can be (nearly {}): leave it out with --exclude{}",
        kind.as_str(),
        Size::from_bytes(kind.largest_file().next_multiple_of(1 << 40)),
        or_ext4(*kind)
    )]
    LargeFile {
        /// The file.
        path: String,
        /// The file system.
        kind: Kind,
    },
    /// A file has more names than any can have.
    #[error(
        "{path} has more than the {} names that {} can count (a directory has one in each of its own): leave some out with --exclude{}",
        kind.most_names(),
        kind.as_str(),
        or_ext4(*kind)
    )]
    ManyNames {
        /// The file.
        path: String,
        /// The file system.
        kind: Kind,
    },
    /// A file cannot be laid down.
    #[error("cannot put {path} into the image")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: ext4_fill::Error,
    },
    /// mke2fs failed.
    #[error("cannot make the file system: is e2fsprogs installed?")]
    MakeFilesystem(#[source] run::Error),
    /// The file system is not what it was to be.
    #[error("cannot fill the file system that mke2fs has made")]
    Filesystem(#[source] ext4_fill::Error),
    /// The image's file cannot be made.
    #[error("cannot {action} {}", path.display())]
    Image {
        /// What was to be done.
        action: &'static str,
        /// The image.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file system cannot hold files without names.
    #[error(
        "the file system of {} has no files without names (O_TMPFILE), of which nothing is left when they are not completed: put the image on a local disk",
        .0.display()
    )]
    NoTemporary(PathBuf),
    /// The disk is full.
    #[error("{} is full: the image needs {} more there than it has; make room there, or put it elsewhere", path.display(), Size::from_bytes(*missing))]
    NoSpace {
        /// The directory of the image.
        path: PathBuf,
        /// Bytes.
        missing: u64,
    },
    /// No such group.
    #[error("there is no volume group {0}: see `vgs`, and that its disks are there")]
    NoGroup(LvmName),
    /// The group is full.
    #[error("volume group {vg} has {free} free, and the image needs {need}: make room (`lvs {vg}`)")]
    GroupFull {
        /// The group.
        vg: LvmName,
        /// What it has.
        free: Size,
        /// What it needs.
        need: Size,
    },
    /// The pool would be full.
    #[error(
        "thin pool {pool} has {free} left below the limit of {limit} %, and the image takes {need}: extend it (`lvextend`), remove thin volumes, or raise thin_pool_limit in ttvm.toml"
    )]
    PoolFull {
        /// The pool.
        pool: Volume,
        /// What it has up to the limit; nothing if it takes no writes, or its metadata is over the limit.
        free: Size,
        /// How full it may be, in percent.
        limit: u8,
        /// What is written.
        need: Size,
    },
    /// No such pool.
    #[error("there is no thin pool {0}: see `lvs`")]
    NoPool(Volume),
    /// Another ttvm is at it.
    #[error("{0} is being made by another ttvm at this moment: nothing was done")]
    Busy(Volume),
    /// Under the temporary name there is something foreign.
    #[error("{0} is in the way, and nothing says that ttvm made it: see what it is, and rename or remove it")]
    InTheWay(Volume),
    /// There is no room for more in its name.
    #[error("the name {0} is too long to be made under another one meanwhile: choose a shorter one")]
    LongName(Volume),
    /// LVM itself failed.
    #[error(transparent)]
    Lvm(#[from] lvm2_cmd::Failure),
    /// The lock of a volume group.
    #[error(transparent)]
    Lock(#[from] snapshot::Error),
    /// It was made, but not sealed.
    #[error("{origin} is made, but not sealed: `ttvm image seal {origin}`")]
    Unsealed {
        /// The image.
        origin: image::Origin,
        /// Why.
        #[source]
        source: Box<image::Error>,
    },
    /// A limit of this process or of the system.
    #[error(
        "too many files are open: raise the limit (`ulimit -n`), or wait until others have closed theirs, and try again"
    )]
    Descriptors,
    /// A signal.
    #[error("it was interrupted: nothing is left of it")]
    Interrupted,
}

fn or_ext4(kind: Kind) -> &'static str {
    match kind {
        Kind::Ext4 => "",
        Kind::Ext3 | Kind::Ext2 => ", or take --fs ext4",
    }
}

impl Classify for Error {
    fn exit(&self) -> Exit {
        match self {
            Self::Exists(_)
            | Self::Diverted { .. }
            | Self::NotADirectory { .. }
            | Self::NoSystemd(_)
            | Self::TooSmall { .. }
            | Self::LargeFile { .. }
            | Self::ManyNames { .. }
            | Self::GroupFull { .. }
            | Self::PoolFull { .. }
            | Self::NoSpace { .. }
            | Self::LargeImage { .. }
            | Self::Busy(_)
            | Self::InTheWay(_)
            | Self::Archive { .. }
            | Self::Layers { .. }
            | Self::NoTemporary(_) => Exit::Refused,
            Self::NoSource(_)
            | Self::OtherSource { .. }
            | Self::LongName(_)
            | Self::NoFileName(_)
            | Self::LargeFilesystem { .. } => Exit::Usage,
            Self::Lock(error) => error.exit(),
            _ => Exit::Failed,
        }
    }
}

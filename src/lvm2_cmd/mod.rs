// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one place that runs LVM2: typed commands in, typed reports out; and that reads its metadata ([`disk`]).
//!
//! LVM's maintainers call executing the command the best way there is
//! (<https://github.com/lvmteam/lvm2/issues/1>). Every command costs a device scan, so each function here says how
//! many it runs, and callers ask [`crate::dm`] first.

pub mod disk;
pub mod metadata;
pub mod overview;
pub mod report;

use std::time::Duration;

use crate::config::types::{LvmName, Size, Volume};
use crate::run::{self, Command, Program};
pub use metadata::Metadata;
pub use report::{Group, LogicalVolume};

static LVM: Program = Program::new(&["lvm"]);
static DMSETUP: Program = Program::new(&["dmsetup"]);

/// A slow disk or a busy udev can hold a command up; a command that is stopped too early leaves half a volume.
const LIMIT: Duration = Duration::from_secs(90);

/// Why LVM did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command failed; it says why itself.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// A report is not what lvmreport(7) promises.
    #[error("LVM's report cannot be read")]
    Report(#[source] serde_json::Error),
}

/// What LVM did not do, to which volume.
#[derive(Debug, thiserror::Error)]
#[error("LVM could not {action} {volume}")]
pub struct Failure {
    /// What was to be done, such as `remove`.
    action: &'static str,
    /// The volume.
    volume: Volume,
    /// What LVM said.
    #[source]
    source: Box<Error>,
}

impl Failure {
    /// For `map_err` of what is done to `volume`.
    pub fn to(action: &'static str, volume: &Volume) -> impl FnOnce(Error) -> Self + use<> {
        let volume = volume.clone();
        move |source| {
            let source = Box::new(source);
            Self { action, volume, source }
        }
    }
}

/// What a volume must be at the moment LVM removes it, as an LVM selection (lvmreport(7)). LVM evaluates it under
/// its own lock, on the metadata it is about to change: nothing can slip in between a check and the removal.
#[derive(Debug, Clone)]
pub struct Selection(Vec<String>);

impl Selection {
    /// The one volume with this UUID.
    pub fn uuid(uuid: &str) -> Self {
        Self(vec![format!("lv_uuid=\"{uuid}\"")])
    }

    /// … that carries this tag.
    #[must_use]
    pub fn tag(self, tag: &str) -> Self {
        self.and(format!("lv_tags={{\"{tag}\"}}"))
    }

    /// … that is a snapshot of `origin` and no origin itself.
    #[must_use]
    pub fn snapshot_of(self, origin: &LvmName) -> Self {
        self.and(format!("origin=\"{origin}\""))
            .and("lv_role={\"snapshot\"}".into())
            .no_origin()
    }

    /// … that is a plain volume: no snapshot, no origin, nothing layered.
    #[must_use]
    pub fn plain(self) -> Self {
        self.and("origin=\"\"".into())
            .and("segtype=\"linear\"".into())
            .no_origin()
    }

    /// … that has its own room in a thin pool: no snapshot, no origin.
    #[must_use]
    pub fn thin(self) -> Self {
        self.and("origin=\"\"".into())
            .and("segtype=\"thin\"".into())
            .no_origin()
    }

    fn no_origin(self) -> Self {
        self.and("lv_role!={\"origin\"}".into())
    }

    fn and(mut self, condition: String) -> Self {
        self.0.push(condition);
        self
    }
}

/// The kind of snapshot to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With a copy-on-write area of its own.
    Thick(Size),
    /// In the origin's thin pool.
    Thin,
}

fn lvm(subcommand: &str) -> Command<'static> {
    Command::new(&LVM)
        .arg(subcommand)
        // Descriptors of ours are close-on-exec; systemd's own may not be.
        .env("LVM_SUPPRESS_FD_WARNINGS", "1")
        .deadline(LIMIT)
}

/// Makes `volume` a snapshot of `origin`, active and writable, with `tags`. One LVM command.
pub fn create_snapshot(volume: &Volume, origin: &LvmName, kind: Kind, tags: &[String]) -> Result<(), Error> {
    let mut command = lvm("lvcreate").args(["--yes", "--snapshot"]);
    command = match kind {
        Kind::Thick(size) => command.args(["--size".into(), format!("{}b", size.bytes())]),
        // A thin snapshot is otherwise made to skip activation.
        Kind::Thin => command.args(["--setactivationskip", "n", "--activate", "y"]),
    };
    for tag in tags {
        command = command.args(["--addtag", tag]);
    }
    command
        .args(["--name", volume.lv.as_str(), "--"])
        .arg(format!("{}/{origin}", volume.vg))
        .run()?;
    Ok(())
}

/// Makes `volume`, of `size` bytes rounded up to what the group gives, active and writable, with `tags`; in a thin pool of the
/// same group if one is named. What was there before does not show, of a thin volume as far as its pool sees to that
/// (`lvcreate --zero` when the pool was made). One LVM command.
pub fn create_volume(volume: &Volume, size: Size, pool: Option<&LvmName>, tags: &[String]) -> Result<(), Error> {
    let bytes = format!("{}b", size.bytes());
    let mut command = lvm("lvcreate").args(["--yes", "--activate", "y"]);
    command = match pool {
        Some(pool) => command.args(["--virtualsize", &bytes, "--thinpool", pool.as_str()]),
        None => command.args([
            "--type",
            "linear",
            "--size",
            &bytes,
            "--wipesignatures",
            "y",
            "--zero",
            "y",
        ]),
    };
    for tag in tags {
        command = command.args(["--addtag", tag]);
    }
    command
        .args(["--name", volume.lv.as_str(), "--", volume.vg.as_str()])
        .run()?;
    Ok(())
}

/// Gives `volume` another name in its group; it fails if there is one of that name. One LVM command.
pub fn rename(volume: &Volume, name: &LvmName) -> Result<(), Error> {
    lvm("lvrename")
        .args(["--yes", "--", volume.vg.as_str(), volume.lv.as_str(), name.as_str()])
        .run()?;
    Ok(())
}

/// Activates `volume`, and the origin it may be a snapshot of. One LVM command.
pub fn activate(volume: &Volume) -> Result<(), Error> {
    lvm("lvchange")
        .args(["--yes", "--activate", "y", "--"])
        .arg(volume.to_string())
        .run()?;
    Ok(())
}

/// Loads the tables of `volume` anew and lets it go on if it is suspended. One LVM command.
pub fn refresh(volume: &Volume) -> Result<(), Error> {
    lvm("lvchange")
        .args(["--yes", "--refresh", "--"])
        .arg(volume.to_string())
        .run()?;
    Ok(())
}

/// Removes the device-mapper device with this UUID, a mapping that LVM has lost track of. The data behind it stays.
pub fn remove_mapping(uuid: &str) -> Result<(), Error> {
    Command::new(&DMSETUP).args(["remove", "--uuid", uuid]).run()?;
    Ok(())
}

/// Removes `volume` if, and only if, all of `selection` holds for it; otherwise nothing happens and no error comes:
/// look whether it is gone. One LVM command.
pub fn remove(volume: &Volume, selection: &Selection) -> Result<(), Error> {
    lvm("lvremove")
        .args(["--yes", "--select"])
        .arg(selection.0.join(" && "))
        .arg("--")
        .arg(volume.to_string())
        .run()?;
    Ok(())
}

/// Lets nobody write to `volume` any more, or everybody again: in LVM's metadata, and in the kernel if it is active.
/// It fails if nothing is to be changed. One LVM command.
pub fn set_read_only(volume: &Volume, read_only: bool) -> Result<(), Error> {
    lvm("lvchange")
        .args(["--yes", "--permission", if read_only { "r" } else { "rw" }, "--"])
        .arg(volume.to_string())
        .run()?;
    Ok(())
}

/// Gives `volume` these tags, all or none. One LVM command.
pub fn add_tags(volume: &Volume, tags: &[String]) -> Result<(), Error> {
    tag(volume, "--addtag", tags)
}

/// Takes these tags from `volume`, all or none. One LVM command.
pub fn remove_tags(volume: &Volume, tags: &[String]) -> Result<(), Error> {
    tag(volume, "--deltag", tags)
}

fn tag(volume: &Volume, option: &str, tags: &[String]) -> Result<(), Error> {
    lvm("lvchange")
        .arg("--yes")
        .args(tags.iter().flat_map(|tag| [option, tag.as_str()]))
        .arg("--")
        .arg(volume.to_string())
        .run()?;
    Ok(())
}

/// How reports are asked for.
const REPORT: [&str; 8] = [
    "--reportformat",
    "json",
    "--units",
    "b",
    "--nosuffix",
    "--binary",
    // Else groups of a host that does not run lvmlockd are passed over, as if they were not there.
    "--shared",
    "--options",
];

/// A volume group and its volumes; `None` if there is no such group. Two LVM commands.
pub fn report(vg: &LvmName) -> Result<Option<Group>, Error> {
    // Asked for by selection, a missing group is an empty list and not a failure to be guessed at.
    let groups = lvm("vgs")
        .args(REPORT)
        .arg(report::GROUP_FIELDS)
        .arg("--select")
        .arg(format!("vg_name=\"{vg}\""))
        .run()?;
    let Some(mut group) = report::groups(&groups.stdout).map_err(Error::Report)?.pop() else {
        return Ok(None);
    };
    group.volumes = volumes(vg)?;
    Ok(Some(group))
}

/// The volumes of a group that is there. One LVM command.
pub fn volumes(vg: &LvmName) -> Result<Vec<LogicalVolume>, Error> {
    let volumes = lvm("lvs")
        .args(REPORT)
        .arg(report::VOLUME_FIELDS)
        .arg("--")
        .arg(vg.as_str())
        .run()?;
    report::volumes(&volumes.stdout).map_err(Error::Report)
}

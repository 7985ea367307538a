// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recording a run with TT Xen.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::live::{Bounds, Domain, Ended};
use super::{Error, config_digest, engine};
use crate::base::clock::now;
use crate::config::guest::{Boot, Guest};
use crate::guest::toolstack::tt_xen::deviced::{self, RunDirectory, require_debugfs};
use crate::guest::toolstack::tt_xen::xm::{Mode, Xm};
use crate::guest::watch::Watch;
use crate::recording::library::draft;
use crate::recording::library::manifest::{Engine, Outcome};
use crate::recording::record::{self, Options, Recorded};
use crate::recording::session::disks::{self, Disks};
use crate::recording::session::limit::Limit;
use crate::recording::session::{Environment, Error as SessionError, Listener};
use crate::recording::{Draft, Error as LibraryError, Library};

/// Whether `guest` can be recorded on the system in the tree that begins at `root`, into `library`, and by which xm and Xen.
pub fn check(root: &Path, guest: &Guest, library: &Library) -> Result<(Xm, String), SessionError> {
    disks::check_disks(guest)?;
    let engine = engine(root, &guest.name)?;
    require_debugfs(root).map_err(Error::from)?;
    // Before anything is made: what is below has names that fit.
    RunDirectory::new(library.state_directory()).map_err(Error::from)?;
    Ok(engine)
}

/// Records a run of `guest`, whose file has the text `file`, on the system in the tree that begins at `root`.
pub fn record(
    root: &Path,
    guest: &Guest,
    file: &str,
    library: &Library,
    environment: &Environment<'_>,
    options: &Options,
    listener: &mut dyn Listener,
) -> Result<Recorded, SessionError> {
    let (xm, version) = check(root, guest, library)?;
    options
        .limit
        .map(|limit| limit.instructions(&guest.name, None))
        .transpose()?;
    record::require_room(library)?;
    let watch = Watch::begin(root).map_err(Error::from)?;
    // Both network modes attach guests to a bridge.
    let manifest = record::manifest(
        guest,
        file,
        now(),
        machine(guest, version),
        "bridge",
        &environment.seals,
        listener,
    )?;
    let disks = Disks::make(&guest.name, &record::wanted(guest, &manifest), environment)?;
    let draft = library.create(&guest.name, &manifest, file)?;
    let domain = |directory: &RunDirectory| {
        let domain = Domain {
            root,
            guest,
            xm,
            mode: Mode::Record(directory),
            paused: false,
            watch,
        };
        let bounds = Bounds {
            limit: options.limit.and_then(Limit::host),
            library: Some(library),
        };
        let ended = domain.run(&bounds, &format!("recording as {}", draft.id()), listener)?;
        keep(guest, &draft, &ended)?;
        Ok(ended)
    };
    let ended = RunDirectory::new(draft.directory())
        .map_err(|error| SessionError::from(Error::from(error)))
        .and_then(|directory| domain(&directory));
    let ended = ended.inspect_err(|error| draft.note_why(&crate::base::error::one_line(error)))?;
    record::finish(draft, manifest, Some(&disks), listener, |log, console| Outcome {
        ended: ended.at,
        exit: ended.exit,
        instructions: None,
        console_complete: true,
        moments: Vec::new(),
        log,
        console,
    })
    .map(|recording| Recorded {
        recording,
        cut: ended.full.then_some(record::Cut::Full),
        called_off: false,
    })
}

fn machine(guest: &Guest, version: String) -> Engine {
    Engine {
        toolstack: guest.toolstack,
        version,
        machine: "pv".to_owned(),
        cpu: "host".to_owned(),
        // The guest's clock is the host's, as recorded.
        icount: "-".to_owned(),
        began: None,
        memory: guest.memory.bytes(),
        cmdline: match &guest.boot {
            Boot::Kernel { cmdline, .. } => Some(cmdline.clone().unwrap_or_default()),
            Boot::Bootloader { .. } | Boot::Firmware => None,
        },
        reset_ends: true,
        hpet: false,
        config: config_digest(guest),
        firmware: Vec::new(),
    }
}

/// Gives what the run has left the names that every recording has.
fn keep(guest: &Guest, draft: &Draft, ended: &Ended) -> Result<(), SessionError> {
    let log = draft.directory().join(deviced::LOG);
    let no_log = |source| Error::NoLog {
        path: log.clone(),
        source,
    };
    // Under its own name it is what a replay reads.
    fs::hard_link(&log, draft.log()).map_err(|error| no_log(Some(error)))?;
    if fs::metadata(&log).map_err(|error| no_log(Some(error)))?.len() == 0 {
        return Err(no_log(None).into());
    }
    if ended.console.is_none() {
        tracing::warn!(
            ttvm_guest = %guest.name,
            "xenconsoled keeps no log of guests (start it with --log=guest): console.log is empty, and replays are compared without"
        );
    }
    let path = draft.console();
    let text = ended.console.as_deref().unwrap_or_default();
    draft::new_file(&path)
        .and_then(|mut file| file.write_all(text))
        .map_err(LibraryError::file("write", &path))?;
    Ok(())
}

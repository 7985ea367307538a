// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ttvm status --watch`: the table as it changes. systemd, Xen's store and the kernel say when there is something to look at; only
//! how full a snapshot is, of which there are no news, is read every ten seconds while it is shown.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read, Write};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};
use zbus::export::ordered_stream::OrderedStreamExt;
use zbus::message::{Message, Type};
use zbus::{Connection, MatchRule, MessageStream};

use super::status::{self, Arguments, Found, Row, World};
use crate::base::clock::now;
use crate::base::error::one_line;
use crate::base::text;
use crate::cli::systemd::{self, Unit};
use crate::cli::terminal::clock::date_and_time;
use crate::cli::terminal::guard::Guard;
use crate::cli::terminal::keyboard::Raw;
use crate::cli::terminal::table::{self, Cell};
use crate::cli::{Error, Exit, answers};
use crate::config::guests;
use crate::config::places::Places;
use crate::guest::domain::{self, Domain};
use crate::guest::record;
use crate::xenstore::{self, XenStore};

/// How often the fill of snapshots is read.
const FILL: Duration = Duration::from_secs(10);

/// Below it are the objects of units.
const UNITS: &str = "/org/freedesktop/systemd1/unit";

/// What ends it, besides a signal: q, Ctrl-C and Ctrl-D.
const END: [u8; 4] = [b'q', b'Q', 0x03, 0x04];

pub(in crate::cli) fn run(places: &Places, arguments: &Arguments) -> Result<Exit, Error> {
    if places.is_own() {
        let directory = places.config_dir().display();
        return Err(Error::Usage(format!(
            "there is nothing to watch: the guests below {directory} have no units, and run in the foreground. Those of this host: `sudo ttvm status --watch`"
        )));
    }
    systemd::block_on(watch(places, arguments))
}

async fn watch(places: &Places, arguments: &Arguments) -> Result<Exit, Error> {
    let mut news = News::begin(places).await?;
    // Before the screen is taken: what is wrong is said where it stays.
    let Some(world) = news.look(None).await? else {
        return Ok(Exit::Done);
    };
    let mut found = status::rows(places, &arguments.guests, &world)?;
    let mut view = View::begin(arguments)?;
    view.show(&found)?;
    let mut read = Instant::now();
    loop {
        let wake = view.wake(&found.rows, read);
        match news.next(view.keys(), wake).await? {
            Event::End => return Ok(Exit::Done),
            Event::Resized => {}
            Event::Time if read + FILL > Instant::now() => {
                let now = now();
                found.rows.iter_mut().for_each(|row| row.grow_older(now));
            }
            Event::Changed | Event::Time => {
                let Some(world) = news.look(view.keys()).await? else {
                    return Ok(Exit::Done);
                };
                match status::rows(places, &arguments.guests, &world) {
                    Ok(now) => found = now,
                    // A file is being changed: what was known stays until it is right again.
                    Err(Error::Config(error)) => found.notes = vec![one_line(&error)],
                    Err(error) => return Err(error),
                }
                read = Instant::now();
            }
        }
        view.show(&found)?;
    }
}

/// What happened.
enum Event {
    /// There may be something else to be seen.
    Changed,
    /// The terminal has another size.
    Resized,
    /// The time is over.
    Time,
    /// Whoever looks wants to end it.
    End,
}

/// All who have something to tell.
struct News {
    bus: Connection,
    jobs: MessageStream,
    units: MessageStream,
    /// Whether there was news of a guest while systemd was asked.
    missed: bool,
    files: Files,
    xen: Option<Xen>,
    signals: [Signal; 4],
    resized: Signal,
}

impl News {
    async fn begin(places: &Places) -> Result<Self, Error> {
        let on = |kind| signal(kind).map_err(systemd::Error::Runtime);
        let bus = systemd::connect().await.map_err(|error| match systemd::is_here() {
            true => error.into(),
            false => Error::NoSystemd("status --watch"),
        })?;
        let subscribed = systemd::in_time(subscribe(&bus)).await;
        let (jobs, units) = subscribed.map_err(systemd::Error::NoAnswer)??;
        Ok(Self {
            jobs,
            units,
            missed: false,
            files: Files::begin(places)?,
            xen: Xen::begin(),
            signals: [
                on(SignalKind::interrupt())?,
                on(SignalKind::terminate())?,
                on(SignalKind::hangup())?,
                on(SignalKind::quit())?,
            ],
            resized: on(SignalKind::window_change())?,
            bus,
        })
    }

    /// Everything as it is now. What happens meanwhile is news, and is taken in: the answer comes behind it, and only so much of it is
    /// kept. Nothing if whoever looks wants to end it.
    async fn look(&mut self, keys: Option<&AsyncFd<OwnedFd>>) -> Result<Option<World>, Error> {
        self.files.watch();
        self.missed = false;
        let mut asked = pin!(systemd::units(&self.bus));
        let units = loop {
            tokio::select! {
                biased;
                ended = ended(&mut self.signals, keys) => {
                    ended.map_err(systemd::Error::Runtime)?;
                    return Ok(None);
                }
                said = self.jobs.next() => self.missed |= is_of_a_guest(said, of_job)?,
                said = self.units.next() => self.missed |= is_of_a_guest(said, of_unit)?,
                units = &mut asked => break units?,
            }
        };
        Ok(Some(World {
            units: Some(units),
            own: None,
            domains: self.xen.as_mut().map_or_else(|| Ok(BTreeMap::new()), Xen::domains)?,
        }))
    }

    /// Waits for something to happen, `keys` to be pressed, or `until`.
    async fn next(&mut self, keys: Option<&AsyncFd<OwnedFd>>, until: Option<Instant>) -> Result<Event, Error> {
        let missed = self.missed;
        loop {
            tokio::select! {
                biased;
                ended = ended(&mut self.signals, keys) => {
                    ended.map_err(systemd::Error::Runtime)?;
                    return Ok(Event::End);
                }
                _ = self.resized.recv() => return Ok(Event::Resized),
                // After those who want to end it.
                () = std::future::ready(()), if missed => return Ok(Event::Changed),
                said = self.jobs.next() => if is_of_a_guest(said, of_job)? {
                    return Ok(Event::Changed);
                },
                said = self.units.next() => if is_of_a_guest(said, of_unit)? {
                    return Ok(Event::Changed);
                },
                changed = self.files.changed() => {
                    changed.map_err(systemd::Error::Runtime)?;
                    return Ok(Event::Changed);
                }
                changed = changed(&mut self.xen) => {
                    changed?;
                    return Ok(Event::Changed);
                }
                () = time(until) => return Ok(Event::Time),
            }
        }
    }
}

/// News of jobs, and of what units do.
async fn subscribe(bus: &Connection) -> Result<(MessageStream, MessageStream), systemd::Error> {
    let signals = || MatchRule::builder().msg_type(Type::Signal).sender(systemd::NAME);
    let jobs = signals().interface(systemd::MANAGER).member("JobRemoved").build()?;
    let units = signals()
        .interface("org.freedesktop.DBus.Properties")
        .path_namespace(UNITS)
        .arg(0, "org.freedesktop.systemd1.Unit")
        .build()?;
    let queue = NonZeroUsize::new(64);
    let jobs = MessageStream::for_match_rule(jobs, bus, queue).await?;
    let units = MessageStream::for_match_rule(units, bus, queue).await?;
    // Without it systemd tells of nothing.
    bus.call_method(
        Some(systemd::NAME),
        systemd::PATH,
        Some(systemd::MANAGER),
        "Subscribe",
        &(),
    )
    .await?;
    Ok((jobs, units))
}

/// Whether a message is about a unit of a guest, as `of` finds out; an error if there will be no other.
fn is_of_a_guest(said: Option<zbus::Result<Message>>, of: fn(&Message) -> bool) -> Result<bool, systemd::Error> {
    match said {
        Some(message) => Ok(of(&message?)),
        None => Err(systemd::Error::NoBus("it has closed the connection".to_owned())),
    }
}

/// `JobRemoved`: a job's number and object, its unit, what came of it.
fn of_job(message: &Message) -> bool {
    type Removed = (u32, zbus::OwnedObjectPath, String, String);
    let removed = message.body().deserialize::<Removed>();
    removed.is_ok_and(|(_, _, unit, _)| Unit::named(&unit).is_some())
}

/// Changes of any unit: its object has its name, in which all but letters and digits is written as `_` and two hexadecimal digits.
fn of_unit(message: &Message) -> bool {
    let header = message.header();
    let path = header.path().map(|path| path.as_str().to_owned()).unwrap_or_default();
    path.rsplit('/').next().is_some_and(|name| name.starts_with("ttvm_"))
}

async fn time(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// To wait until `source` can be read.
fn readable(source: &impl AsFd) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = source.as_fd().try_clone_to_owned()?;
    // SAFETY: the descriptor is open, and owned by what is made of it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Whether it can be read without waiting.
fn is_ready(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Waits until whoever looks wants to end it.
async fn ended(signals: &mut [Signal; 4], keys: Option<&AsyncFd<OwnedFd>>) -> io::Result<()> {
    let [interrupt, terminate, hangup, quit] = signals;
    loop {
        tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            _ = quit.recv() => return Ok(()),
            pressed = pressed(keys) => if pressed? {
                return Ok(());
            },
        }
    }
}

/// Waits for keys; whether one of them ends it.
async fn pressed(keys: Option<&AsyncFd<OwnedFd>>) -> io::Result<bool> {
    let Some(keys) = keys else {
        return std::future::pending().await;
    };
    keys.readable().await?.clear_ready();
    let mut text = [0; 64];
    if !is_ready(keys.get_ref()) {
        return Ok(false);
    }
    let length = io::stdin().read(&mut text)?;
    // Nothing, although there is something to read: the terminal is gone.
    Ok(length == 0 || text[..length].iter().any(|key| END.contains(key)))
}

/// The files that say something of guests: their own, and what is remembered of runs.
struct Files {
    inotify: Inotify,
    ready: AsyncFd<OwnedFd>,
    directories: [PathBuf; 2],
}

impl Files {
    fn begin(places: &Places) -> Result<Self, Error> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        let inotify = inotify.map_err(|errno| systemd::Error::Runtime(errno.into()))?;
        Ok(Self {
            ready: readable(&inotify).map_err(systemd::Error::Runtime)?,
            inotify,
            directories: [
                places.real(&guests::directory(places)),
                record::directory(places.root()),
            ],
        })
    }

    /// Asks for news of the directories that are there by now; asking again for those of one changes nothing (inotify(7)).
    fn watch(&self) {
        let what = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        for directory in &self.directories {
            let _ = self.inotify.add_watch(directory, what);
        }
    }

    async fn changed(&self) -> io::Result<()> {
        self.ready.readable().await?.clear_ready();
        // What it was is looked at anew.
        loop {
            match self.inotify.read_events() {
                Ok(_) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Xen's store, where there is one that answers us.
struct Xen {
    store: XenStore,
    ready: AsyncFd<OwnedFd>,
}

impl Xen {
    fn begin() -> Option<Self> {
        if !xenstore::is_here() {
            return None;
        }
        let begin = || {
            let mut store = XenStore::connect()?;
            store.watch("@introduceDomain")?;
            store.watch("@releaseDomain")?;
            let ready = readable(&store)?;
            Ok::<_, xenstore::Error>(Self { store, ready })
        };
        begin()
            .map_err(|error| eprintln!("ttvm: note: domains are not shown: {}", text::line(&one_line(&error))))
            .ok()
    }

    /// All domains. Events that came with the answers are news of what was looked at.
    fn domains(&mut self) -> Result<BTreeMap<u32, Domain>, Error> {
        loop {
            let domains = domain::list(&mut self.store)?;
            let mut changed = false;
            while self.store.pending().is_some() {
                changed = true;
            }
            if !changed {
                return Ok(domains);
            }
        }
    }
}

/// Waits until there are other domains.
async fn changed(xen: &mut Option<Xen>) -> Result<(), Error> {
    let Some(xen) = xen else {
        return std::future::pending().await;
    };
    let ready = xen.ready.readable().await;
    ready.map_err(systemd::Error::Runtime)?.clear_ready();
    while is_ready(&xen.store) {
        xen.store.event()?;
    }
    Ok(())
}

/// Where it is shown.
enum View {
    /// The whole terminal.
    Screen(Screen),
    /// A line for each change.
    Lines(Lines),
}

impl View {
    fn begin(arguments: &Arguments) -> Result<Self, Error> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if arguments.json || dumb || !io::stdout().is_terminal() {
            return Ok(Self::Lines(Lines {
                json: arguments.json,
                shown: None,
                noted: Vec::new(),
            }));
        }
        Ok(Self::Screen(Screen::begin()?))
    }

    fn keys(&self) -> Option<&AsyncFd<OwnedFd>> {
        match self {
            Self::Screen(screen) => screen.keys.as_ref(),
            Self::Lines(_) => None,
        }
    }

    fn show(&mut self, found: &Found) -> Result<(), Error> {
        match self {
            Self::Screen(_) => Screen::show(found),
            Self::Lines(lines) => lines.show(found),
        }
    }

    /// When there is something else to be seen although nothing has happened: a guest is older, or its snapshot, last read at
    /// `read`, fuller.
    fn wake(&self, rows: &[Row], read: Instant) -> Option<Instant> {
        if matches!(self, Self::Lines(_)) {
            return None;
        }
        let older = rows.iter().filter_map(|row| row.uptime).map(until_older).min();
        let older = older.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let fuller = rows.iter().any(|row| !row.snapshots.is_empty()).then_some(read + FILL);
        [older, fuller].into_iter().flatten().min()
    }
}

/// How many seconds later an uptime is written in another way ([`status::duration`]).
fn until_older(uptime: u64) -> u64 {
    match uptime {
        0..3600 => 1,
        3600..86_400 => 60 - uptime % 60,
        _ => 3600 - uptime % 3600,
    }
}

/// The terminal, which is as before when this is gone.
struct Screen {
    keys: Option<AsyncFd<OwnedFd>>,
    _raw: Option<Raw>,
    /// Where nobody types on it.
    _guard: Option<Guard>,
}

/// The terminal's other screen, without a cursor, and back (xterm's control sequences).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

impl Screen {
    fn begin() -> Result<Self, Error> {
        let raw = Raw::begin(LEAVE);
        let guard = raw.is_none().then(|| Guard::begin(LEAVE, None)).flatten();
        let keys = raw.as_ref().map(|_| readable(&io::stdin())).transpose();
        let screen = Self {
            keys: keys.map_err(systemd::Error::Runtime)?,
            _raw: raw,
            _guard: guard,
        };
        io::stdout().write_all(ENTER.as_bytes())?;
        Ok(screen)
    }

    fn show(found: &Found) -> Result<(), Error> {
        let (width, height) = size();
        let mut out = io::stdout().lock();
        out.write_all(frame(found, width, height, table::has_colours()).as_bytes())?;
        out.flush()?;
        crate::base::fail_point::reach("status.shown");
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Then it was brought back before that was said.
        if std::thread::panicking() {
            return;
        }
        let mut out = io::stdout().lock();
        let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
    }
}

/// What is written to a terminal of that size: each line over the one that was there, so that nothing flickers.
fn frame(found: &Found, width: usize, height: usize, colours: bool) -> String {
    let cells: Vec<Vec<Cell>> = found.rows.iter().map(status::cells).collect();
    let mut lines = table::lines(&status::HEAD, &cells, width, colours);
    // The last line is for what there is no room for, and for how to end it.
    let room = height.saturating_sub(1).max(1);
    let hidden = lines.len().saturating_sub(room);
    lines.truncate(room);
    let mut last = match hidden {
        0 => "q ends".to_owned(),
        more => format!("{more} more; q ends"),
    };
    for note in &found.notes {
        last.extend(["; ", &text::line(note)]);
    }
    let last: String = last.chars().take(width).collect();
    let mut text = "\x1b[H".to_owned();
    for line in &lines {
        text.extend([line, "\x1b[K\r\n"]);
    }
    text.extend(["\x1b[J", &format!("\x1b[{height};1H"), &last]);
    text
}

nix::ioctl_read_bad!(window_size, libc::TIOCGWINSZ, libc::winsize);

/// Columns and lines of the terminal.
fn size() -> (usize, usize) {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: it writes a whole winsize where it is told to (ioctl_tty(2)).
    let known = unsafe { window_size(libc::STDOUT_FILENO, &raw mut size) };
    match known {
        Ok(_) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// For files, pipes and programs.
struct Lines {
    json: bool,
    shown: Option<Vec<Row>>,
    noted: Vec<String>,
}

impl Lines {
    fn show(&mut self, found: &Found) -> Result<(), Error> {
        if self.noted != found.notes {
            found.print_notes();
            self.noted.clone_from(&found.notes);
        }
        let rows = &found.rows;
        let before = self.shown.replace(rows.clone());
        let was = |row: &Row| before.iter().flatten().find(|old| old.guest == row.guest);
        let changed: Vec<&Row> = rows
            .iter()
            .filter(|row| was(row).is_none_or(|old| row.differs(old)))
            .collect();
        let mut out = io::stdout().lock();
        if self.json {
            answers();
            for row in changed {
                writeln!(out, "{}", crate::base::text::json(&serde_json::to_string(row)?))?;
            }
            return Ok(out.flush()?);
        }
        let time = date_and_time(now());
        let mut cells: Vec<Vec<Cell>> = changed
            .into_iter()
            .map(|row| timed(&time, status::cells(row)))
            .collect();
        let gone = before
            .iter()
            .flatten()
            .filter(|old| rows.iter().all(|row| row.guest != old.guest));
        cells.extend(gone.map(|row| timed(&time, vec![row.guest.to_string().into(), "no file".to_owned().into()])));
        let head: Vec<&str> = std::iter::once("TIME").chain(status::HEAD).collect();
        // The head once, at the beginning.
        let from = usize::from(before.is_some());
        for line in &table::lines(&head, &cells, usize::MAX, table::has_colours())[from..] {
            writeln!(out, "{line}")?;
        }
        Ok(out.flush()?)
    }
}

fn timed(time: &str, mut cells: Vec<Cell>) -> Vec<Cell> {
    cells.insert(0, time.to_owned().into());
    cells
}

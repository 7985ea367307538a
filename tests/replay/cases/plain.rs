// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs that nobody records, as the main process of `ttvm@` has them.

use ttvm::config::guests;
use ttvm::config::host::HostConfig;
use ttvm::config::places::{Given, Places};
use ttvm::guest::record::Ending;
use ttvm::recording::session::disks::Seals;
use ttvm::recording::session::{Environment, Error, Listener, plain as session};

use super::super::lab::{FILE, GUEST, Place, STATE};

/// What such a run tells.
pub enum Told {
    Console(String),
    Trouble(Option<String>),
}

struct Follower<'a>(&'a mut dyn FnMut(Told));

impl Listener for Follower<'_> {
    fn console(&mut self, text: &[u8]) {
        (self.0)(Told::Console(String::from_utf8_lossy(text).into_owned()));
    }

    fn ready(&mut self, _text: &str) {}

    fn progress(&mut self, _what: &str, _done: u64, _total: u64) {}

    fn trouble(&mut self, why: Option<&str>) {
        (self.0)(Told::Trouble(why.map(str::to_owned)));
    }
}

/// Runs the guest of `place` to its end.
pub fn plain(place: &Place, told: &mut dyn FnMut(Told)) -> Result<Ending, Error> {
    // Whose places are somebody's own has no other.
    let file = std::fs::read_to_string(place.path(FILE)).expect("the guest's file");
    place.write(FILE, format!("toolstack = \"qemu\"\n{file}").as_bytes());
    let host = HostConfig::default();
    let places = Places::of_caller(&Given {
        config_dir: Some(place.path(".config/ttvm")),
        state_dir: Some(place.path(STATE)),
        root: None,
    });
    let guest = guests::load(&places.expect("places"), &host, &GUEST.parse().expect("a name")).expect("a guest");
    let environment = Environment {
        snapshot: &host.snapshot,
        overlays: place.path(STATE).join("overlays"),
        seals: Seals::default(),
        prepared: false,
        shared: false,
    };
    session::run(&guest, &place.library(), &environment, &mut Follower(told), None)
}

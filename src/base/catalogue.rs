// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an administrator meets in the journal, each under an id of its own (MESSAGE_ID= in systemd.journal-fields(7)), under which
//! the catalogue explains it: `packaging/catalog/ttvm.catalog`, `journalctl -x`.

/// Something that is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// A guest, or a run that was to be recorded or replayed, could not be started.
    NotStarted,
    /// A run that had begun failed.
    RunFailed,
    /// The guest's kernel crashed, or its watchdog fired.
    Crashed,
    /// A guest that comes to nothing again and again waits before it is started once more.
    Slowed,
    /// It is not started any more.
    GivenUp,
    /// It did not shut down in time and was destroyed.
    NotShutDown,
    /// A domain was found that an earlier run left behind.
    LeftBehind,
    /// The snapshots for a start could not be made.
    NoSnapshots,
    /// What a run left could not be removed.
    NotTidied,
    /// A snapshot overflowed.
    SnapshotLost,
    /// A guest stands still for want of room.
    NoRoom,
    /// A guest stands still, or its recording was ended, because a disk failed on the host.
    DiskFailed,
    /// A recording was ended because the disk was nearly full.
    RecordingCut,
    /// A replay was another run.
    Diverged,
    /// A change of the network was undone.
    NetworkUndone,
    /// It could not be undone.
    NetworkNotUndone,
    /// A tried boot is not well: the machine is reset.
    BootNotWell,
}

impl Message {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::NotStarted,
        Self::RunFailed,
        Self::Crashed,
        Self::Slowed,
        Self::GivenUp,
        Self::NotShutDown,
        Self::LeftBehind,
        Self::NoSnapshots,
        Self::NotTidied,
        Self::SnapshotLost,
        Self::NoRoom,
        Self::DiskFailed,
        Self::RecordingCut,
        Self::Diverged,
        Self::NetworkUndone,
        Self::NetworkNotUndone,
        Self::BootNotWell,
    ];

    /// Its id: 128 bits, by chance, in hexadecimal digits. It stays what it is for good: whoever looks for it has written it down.
    pub fn id(self) -> &'static str {
        match self {
            Self::NotStarted => "f08114af66d14fc88238ad7c2d4e6836",
            Self::RunFailed => "13895af338144dec811a70f75e0cde6a",
            Self::Crashed => "8af7303d185249b191dcce86f1521276",
            Self::Slowed => "3092f0cbad0347ddb5297d8c77ed9b0c",
            Self::GivenUp => "7d4c1a3eeb3a431e95bdc71ecc1052f0",
            Self::NotShutDown => "bde869a109294410afa46b9bdd98ba80",
            Self::LeftBehind => "73d675fb8a0f497f8613de0c4482e7d7",
            Self::NoSnapshots => "ebc7a6c278fc435a86e9f3e79246c049",
            Self::NotTidied => "156277ba5faf420d83b87a4cf3440db1",
            Self::SnapshotLost => "33f757cb01264848bc8a53be3f18653b",
            Self::NoRoom => "63083c31324344df99264b13776b2bdd",
            Self::DiskFailed => "cf4d2f40774db968f1235df87e56575f",
            Self::RecordingCut => "92f2e7a3d4a74f2d9d4129514938763d",
            Self::Diverged => "ea86e485c2d1423a8e590a5b07d3b0a8",
            Self::NetworkUndone => "0bf06b1717774cb7ac32f24600ed4792",
            Self::NetworkNotUndone => "feaa4ad6ea9a46749697d9fc4fe51d9e",
            Self::BootNotWell => "5d26a4bce8714ab1b10b4dd0cef8689d",
        }
    }
}

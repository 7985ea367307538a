// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files that somebody made to do harm: nothing of them gets a name, nothing is written anywhere else.

use std::fs;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use ttvm::base::error::{Classify, Exit, chain};
use ttvm::base::text::is_plain;
use ttvm::file::digest;
use ttvm::recording::Error;
use ttvm::recording::library::export::With;

use super::{START, World, goes_on, noise};

/// A member of an archive, as it is to be written.
#[derive(Clone)]
pub struct Member {
    pub name: Vec<u8>,
    pub kind: u8,
    /// Where the size in the header is not that of the content.
    pub size: Option<u64>,
    pub link: &'static str,
    pub content: Vec<u8>,
}

pub fn member(name: &str, content: &[u8]) -> Member {
    Member {
        name: name.as_bytes().to_vec(),
        kind: b'0',
        size: None,
        link: "",
        content: content.to_vec(),
    }
}

/// Written byte by byte: the tar crate would not write such names.
pub fn tar(members: &[Member]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for member in members {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..member.name.len()].copy_from_slice(&member.name);
        header.as_mut_bytes()[157..157 + member.link.len()].copy_from_slice(member.link.as_bytes());
        header.set_entry_type(tar::EntryType::new(member.kind));
        header.set_size(member.size.unwrap_or(member.content.len() as u64));
        header.set_mode(0o4777);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&member.content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// The members of a good one.
pub fn good(world: &World) -> Vec<Member> {
    // A small one: it is packed often.
    fs::write(world.directory.join("base.img"), noise(20_000)).expect("an image");
    let recording = world.record(START);
    let with = With {
        disks: true,
        engine: false,
    };
    let mut bytes = Vec::new();
    recording
        .export(&mut bytes, "memory".as_ref(), with, &mut goes_on)
        .expect("an export");
    let mut archive = tar::Archive::new(GzDecoder::new(&bytes[..]));
    let members = archive.entries().expect("entries").map(|entry| {
        let mut entry = entry.expect("an entry");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("a content");
        let name = entry.path_bytes().into_owned();
        Member {
            name,
            ..member("", &content)
        }
    });
    members.collect()
}

pub fn refused(world: &World, bytes: &[u8]) -> Error {
    let result = world.library.import(&mut &bytes[..], "it", None, &mut goes_on);
    let left: Vec<String> = world
        .tree()
        .into_iter()
        .filter(|path| {
            !matches!(
                path.as_str(),
                "recordings" | "recordings/.lock" | "recordings/clientA" | "bases" | "engines"
            )
        })
        .collect();
    assert_eq!(left, [""; 0]);
    result.map(drop).expect_err("it is refused")
}

fn sealed(text: &str) -> Vec<u8> {
    let content = text.rsplit_once("# digest").expect("a seal").0;
    let seal = format!(
        "# digest of the lines above: {}\n",
        digest::of_bytes(content.as_bytes())
    );
    (content.to_owned() + &seal).into_bytes()
}

#[test]
fn members_that_do_not_belong() {
    let (world, other) = (World::new("hostile-from"), World::new("hostile"));
    let good = good(&world);
    let names: Vec<String> = good
        .iter()
        .map(|member| String::from_utf8_lossy(&member.name).into_owned())
        .collect();
    assert_eq!(
        names[..6],
        [
            "manifest.toml",
            "guest.toml",
            "console.log",
            "replay.log",
            "kernel",
            "initrd"
        ]
    );
    assert_eq!(names.len(), 7);
    let with = |at: usize, member: Member| {
        let mut members = good.clone();
        members.insert(at, member);
        gzip(&tar(&members))
    };
    for name in [
        "../guest.toml",
        "/etc/passwd",
        "./guest.toml",
        "guest.toml/",
        "manifest.toml",
        "lock",
        "disks/../../x",
        "disks/0000000000000000000000000000000000000000000000000000000000000000.img",
        "guest.toml\0.x",
        "",
        "\u{fffd}",
    ] {
        let error = refused(&other, &with(1, member(name, b"x"))).to_string();
        let name = name.split('\0').next().unwrap_or_default();
        let ours = name == "guest.toml";
        let expected = match ours {
            true => "it is not imported: guest.toml has 1 bytes, its manifest says 19".to_owned(),
            false => format!("it is not imported: {name:?} does not belong to a recording, or is there twice"),
        };
        assert_eq!(error, expected);
    }
    // Each only once, wherever.
    for (at, again) in good.iter().enumerate() {
        let error = refused(&other, &with(good.len(), again.clone())).to_string();
        assert!(
            error.ends_with("does not belong to a recording, or is there twice"),
            "{at}: {error}"
        );
    }
    // Links, devices, directories, sparse files, and what gives the next member another name or size.
    for kind in b"123456 7SLKxgVM".iter().copied().filter(|kind| *kind != b' ') {
        for at in 1..good.len() {
            let mut members = good.clone();
            members[at].kind = kind;
            members[at].link = "../../../../../../etc/passwd";
            let error = refused(&other, &gzip(&tar(&members))).to_string();
            assert!(error.ends_with("is not a regular file"), "{} {error}", kind as char);
        }
        let long = Member {
            kind,
            link: "/etc/passwd",
            ..member("././@LongLink", b"guest.toml")
        };
        let error = refused(&other, &with(1, long)).to_string();
        assert!(error.contains("does not belong to a recording"), "{error}");
    }
    // The good one is good.
    let bytes = gzip(&tar(&good));
    assert!(other.library.import(&mut &bytes[..], "it", None, &mut goes_on).is_ok());
}

#[test]
fn contents_that_are_not_what_they_say() {
    let (world, other) = (World::new("contents-from"), World::new("contents"));
    let good = good(&world);
    let change = |at: usize, change: &dyn Fn(&mut Member)| {
        let mut members = good.clone();
        change(&mut members[at]);
        refused(&other, &gzip(&tar(&members)))
    };
    for at in 1..good.len() {
        let name = String::from_utf8_lossy(&good[at].name).into_owned();
        let error = change(at, &|member| member.content[0] ^= 1).to_string();
        let expected = format!("it is not imported: {name} is not what was recorded: its digest is blake3:");
        assert!(error.starts_with(&expected), "{error}");
        for size in [0, u64::from(u32::MAX), 1 << 62, u64::MAX] {
            let error = change(at, &|member| member.size = Some(size)).to_string();
            let expected = format!("it is not imported: {name} has {size} bytes, its manifest says ");
            let overflow = error.contains("size overflow") || error.contains("is damaged");
            assert!(error.starts_with(&expected) || overflow, "{error}");
        }
        let mut members = good.clone();
        members.remove(at);
        if name.starts_with("disks/") {
            continue;
        }
        let error = refused(&other, &gzip(&tar(&members))).to_string();
        assert_eq!(error, format!("it is not imported: it has no {name}"));
    }
    // Cut off anywhere, packed or not.
    let plain = tar(&good);
    let end = plain.len() - 1024;
    for length in (0..end)
        .step_by(97_531)
        .chain([1, 511, 512, 513, end - 21_000, end - 20_000])
    {
        let error = refused(&other, &gzip(&plain[..length])).to_string();
        let nothing = length == 0 && error.ends_with(": there is nothing in it");
        assert!(
            error.starts_with("it is not imported: it ") || nothing,
            "{length}: {error}"
        );
    }
    let packed = gzip(&plain);
    for length in (0..packed.len() - 4000).step_by(12_345) {
        let error = refused(&other, &packed[..length]).to_string();
        assert!(error.starts_with("it is not imported: it "), "{length}: {error}");
    }
    for bytes in [
        &b""[..],
        b"\x1f\x8b",
        b"no archive",
        &plain[..],
        &gzip(b"no archive"),
        &gzip(&[0; 4096]),
    ] {
        let error = refused(&other, bytes).to_string();
        assert!(error.starts_with("it is not imported: "), "{error}");
    }
}

#[test]
fn manifests_that_promise_too_much() {
    let (world, other) = (World::new("promise-from"), World::new("promise"));
    let good = good(&world);
    let text = String::from_utf8(good[0].content.clone()).expect("text");
    let with = |manifest: Vec<u8>| {
        let mut members = good.clone();
        members[0].content = manifest;
        refused(&other, &gzip(&tar(&members)))
    };
    // More than any disk has: refused before a byte is written.
    for size in [1u64 << 60, i64::MAX as u64] {
        let error = with(sealed(&text.replace("size = 300000", &format!("size = {size}"))));
        assert!(chain(&error).starts_with("there is no room for it at "), "{error}");
        assert_eq!(error.exit(), Exit::Refused);
    }
    let cases = [
        (text.replace("300000", "-1").into_bytes(), "was edited"),
        (sealed(&text.replace("300000", "-1")), "is not understood"),
        (
            sealed(&text.replace("guest = \"clientA\"", "guest = \"../../etc\"")),
            "is not understood",
        ),
        (
            sealed(&text.replace("target = \"vda\"", "target = \"vda,file=/etc/shadow\"")),
            "is not understood",
        ),
        (sealed(&text.replace("format = 2", "format = 9")), "has format 9"),
        (
            sealed(
                text.split("[result]")
                    .next()
                    .map(|text| text.to_owned() + "# digest")
                    .as_deref()
                    .unwrap_or_default(),
            ),
            "it is an incomplete recording",
        ),
        (vec![b' '; (1 << 20) + 1], "larger than any manifest"),
        (vec![0xff; 10], "it is damaged"),
    ];
    for (manifest, why) in cases {
        let error = with(manifest).to_string();
        assert!(
            error.starts_with("it is not imported: ") && error.contains(why),
            "{why}: {error}"
        );
    }
    let mut members = good.clone();
    members.rotate_left(1);
    let error = refused(&other, &gzip(&tar(&members))).to_string();
    assert_eq!(
        error,
        "it is not imported: it does not begin with a manifest, so it is no recording"
    );
    // The name of a file that is there is not taken from its owner.
    let bytes = gzip(&tar(&good));
    let place = other.recordings().join("clientA");
    fs::create_dir_all(&place).expect("a directory");
    fs::write(place.join("20261125-130700"), "a person's").expect("a file");
    let imported = other.library.import(&mut &bytes[..], "it", None, &mut goes_on);
    assert!(imported.is_ok());
    assert_eq!(
        fs::read_to_string(place.join("20261125-130700")).expect("a file"),
        "a person's"
    );
}

/// A manifest may name whatever its maker likes. A pipe would keep us waiting, a watchdog would be armed by being opened, and a
/// time to come would make it the newest for ever.
#[test]
fn names_and_times_from_elsewhere() {
    let (world, other) = (World::new("elsewhere-from"), World::new("elsewhere"));
    let mut good = good(&world);
    // Without the disk.
    good.truncate(6);
    let text = String::from_utf8(good[0].content.clone()).expect("text");
    let origin = format!("origin = \"{}\"", world.directory.join("base.img").display());
    assert!(text.contains(&origin), "{text}");
    let archive = |text: &str| {
        let mut members = good.clone();
        members[0].content = sealed(text);
        gzip(&tar(&members))
    };
    for place in [
        "//dev/watchdog",
        "/./dev/zero",
        "/srv/../dev/sda",
        "/proc/self/mem",
        "/dev/../sys/x",
    ] {
        let error = refused(
            &other,
            &archive(&text.replace(&origin, &format!("origin = \"{place}\""))),
        )
        .to_string();
        assert!(
            error.contains("is not understood") && error.contains("neither a volume"),
            "{error}"
        );
    }
    for time in ["9000000000000000000", "250000000000"] {
        let error = refused(
            &other,
            &archive(&text.replace(&format!("started = {START}"), &format!("started = {time}"))),
        );
        assert!(
            error.to_string().contains("it is of a time that is still to come"),
            "{error}"
        );
    }

    let pipe = other.directory.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let bytes = archive(&text.replace(&origin, &format!("origin = \"{}\"", pipe.display())));
    fs::write(other.directory.join("pipe.ttvm"), bytes).expect("a file");
    assert!(other.exact("import pipe.ttvm").starts_with("imported clientA "));
    let said = other.exact("export clientA --with-disks -o out.ttvm");
    assert!(
        said.starts_with("ttvm: what disk vda was made from did not come with the recording: "),
        "{said}"
    );
    // Nor is it taken from the user without a look.
    let said = other.exact("import pipe.ttvm --disk pipe");
    assert!(said.contains("neither a regular file nor a disk"), "{said}");
    assert!(!other.directory.join("out.ttvm").exists());
}

/// What is shown does nothing to a terminal, and forges no lines.
#[test]
fn text_from_elsewhere() {
    let (world, other) = (World::new("text-from"), World::new("text"));
    let mut good = good(&world);
    good.truncate(6);
    let text = String::from_utf8(good[0].content.clone()).expect("text");
    let ours = world.directory.join("base.img").display().to_string();
    let text = text.replace(&ours, "/srv/\\u202ered\\u2066").replace(
        "version = \"7.2.22\"",
        "version = \"7\\u001b]0;pwned\\u0007\\u001b[2J\\nstate: complete\"",
    );
    good[0].content = sealed(&text);
    fs::write(other.directory.join("text.ttvm"), gzip(&tar(&good))).expect("a file");
    let said =
        other.exact("import text.ttvm") + &other.exact("show clientA") + &other.exact("export clientA --with-disks");
    assert!(
        said.contains("/srv/\\u{202e}red\\u{2066}")
            && said.contains("qemu 7\\u{1b}]0;pwned\\u{7}\\u{1b}[2J\\nstate: complete"),
        "{said}"
    );
    assert!(said.chars().all(|c| c == '\n' || is_plain(c)), "{said:?}");
    let forged = ["state: complete", "note: all is well"];
    assert!(!said.lines().any(|line| forged.contains(&line)), "{said}");
}

/// What is not understood is quoted, and stays a part of the line that says so.
#[test]
fn quotes_from_elsewhere() {
    let (world, other) = (World::new("quotes-from"), World::new("quotes"));
    let mut good = good(&world);
    good.truncate(6);
    let text = String::from_utf8(good[0].content.clone()).expect("text");
    for key in ["exit", "toolstack", "target"] {
        let old = text.lines().find(|line| line.starts_with(&format!("{key} = ")));
        let old = old.unwrap_or_else(|| panic!("{key} in {text}"));
        let new = format!("{key} = \"x\\nttvm: imported web\\u001b[2J\\u202e\"");
        good[0].content = sealed(&text.replace(old, &new));
        fs::write(other.directory.join("quotes.ttvm"), gzip(&tar(&good))).expect("a file");
        let said = other.exact("import quotes.ttvm");
        assert!(
            said.contains("x\\nttvm: imported web\\u{1b}[2J\\u{202e}"),
            "{key}: {said}"
        );
        assert!(said.chars().all(|c| c == '\n' || is_plain(c)), "{key}: {said:?}");
        let lines: Vec<&str> = said.lines().collect();
        assert!(
            matches!(lines[..], [line, "[1]"] if line.starts_with("ttvm: quotes.ttvm is not imported: ")),
            "{key}: {said}"
        );
    }
}

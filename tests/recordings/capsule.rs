// SPDX-License-Identifier: MIT OR Apache-2.0
//! An engine that comes with a recording: kept once, run by nobody unasked, and refused if it is not what it says.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use ttvm::file::digest::{self, Digest};
use ttvm::qemu::capsule::{LOADER, List, Member as File, PROGRAM};
use ttvm::recording::library::import::Imported;

use super::hostile::{Member, good, gzip, member, refused, tar};
use super::{World, goes_on, noise};

/// What stands for a QEMU here: nothing runs it.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![(PROGRAM, noise(9000)), (LOADER, noise(700)), ("libc.so.6", noise(1))]
}

fn list() -> List {
    let file = |(name, content): &(&str, Vec<u8>)| File {
        name: (*name).to_owned(),
        size: content.len() as u64,
        digest: digest::of_bytes(content),
    };
    List {
        version: "7.2.22".to_owned(),
        files: files().iter().map(file).collect(),
    }
}

fn text(list: &List) -> Vec<u8> {
    list.to_text().expect("a text").into_bytes()
}

fn capsule() -> Digest {
    digest::of_bytes(&text(&list()))
}

/// The members of the engine: its list, then its files.
fn engine(list: &List) -> Vec<Member> {
    let files = files();
    let files = files
        .iter()
        .map(|(name, content)| member(&format!("engine/{name}"), content));
    [member("engine/capsule.toml", &text(list))]
        .into_iter()
        .chain(files)
        .collect()
}

fn import(world: &World, members: &[Member], guest: &str) -> Imported {
    let bytes = gzip(&tar(members));
    let guest = guest.parse().expect("a name");
    let imported = world.library.import(&mut &bytes[..], "it", Some(&guest), &mut goes_on);
    imported.expect("it is imported")
}

#[test]
fn kept_once_and_as_long_as_it_is_needed() {
    let (from, world) = (World::new("capsule-from"), World::new("capsule"));
    let alone = good(&from);
    let with = [&alone[..], &engine(&list())].concat();
    assert!(matches!(import(&world, &with, "clientA"), Imported::New(_)));
    assert!(matches!(import(&world, &with, "clientB"), Imported::New(_)));
    assert!(matches!(import(&world, &alone, "clientC"), Imported::New(_)));
    let place = world.directory.join(format!("state/engines/{}", capsule().hex()));
    for (name, content) in files() {
        let path = place.join("files").join(name);
        assert!(fs::read(&path).expect(name) == content, "{name}");
        let mode = if name == LOADER { 0o555 } else { 0o444 };
        assert_eq!(fs::metadata(&path).expect(name).permissions().mode() & 0o777, mode);
    }
    let line = |trusted| format!("         capsule: {}, 9.5K, {trusted}\n", capsule());
    assert!(world.exact("show clientB").contains(&line("not trusted")));
    assert!(!world.exact("show clientC").contains("capsule:"));
    // What came without one gets it by a second import.
    assert!(matches!(import(&world, &with, "clientC"), Imported::Already(_)));
    assert!(world.exact("show clientC").contains(&line("not trusted")));
    assert!(world.exact("list").contains("; engines: "));

    let other = digest::of_bytes(b"another");
    assert_eq!(
        world.exact(&format!("trust-engine {other}")),
        format!("ttvm: no recording here has the engine {other}: `ttvm recordings show` says which one it has\n[1]\n")
    );
    let trust = format!("trust-engine {}", capsule());
    let said = format!(
        "the engine {} may be run, as long as a recording here has it\n",
        capsule()
    );
    assert_eq!(world.exact(&trust), said);
    assert!(world.exact("show clientA").contains(&line("trusted")));

    // From there it goes on with the recording.
    assert!(
        world
            .ttvm("export clientC --with-disks --with-engine -o on.ttvm")
            .starts_with("exported ")
    );
    let next = World::new("capsule-next");
    let on = world.directory.join("on.ttvm").display().to_string();
    assert_eq!(
        next.exact(&format!("import {on}")),
        "imported clientA 20261125-130700\n"
    );
    assert!(next.exact("show clientA").contains(&line("not trusted")));

    for guest in ["clientA", "clientB"] {
        assert!(world.ttvm(&format!("rm {guest} 2026")).starts_with("removed "));
        assert!(place.exists());
    }
    assert!(world.ttvm("rm clientC 2026").starts_with("removed "));
    assert_eq!(world.tree(), ["bases", "engines", "recordings", "recordings/.lock"]);
}

#[test]
fn damaged() {
    let (from, world) = (World::new("capsule-damage-from"), World::new("capsule-damage"));
    import(&world, &[good(&from), engine(&list())].concat(), "clientA");
    let place = world.directory.join(format!("state/engines/{}", capsule().hex()));
    let path = place.join("files/libc.so.6");
    let as_it_was = fs::read(&path).expect("a library");
    fs::remove_file(&path).expect("it goes");
    fs::write(&path, "x").expect("another library");
    let said = world.exact("verify clientA");
    let expected = format!(
        "clientA 20261125-130700: the engine's DIR/state/engines/{}/files/libc.so.6 was edited: its digest is blake3:",
        capsule().hex()
    );
    assert!(said.starts_with(&expected) && said.ends_with("[1]\n"), "{said}");
    fs::write(&path, as_it_was).expect("the library");
    assert_eq!(
        world.exact("verify clientA"),
        "clientA 20261125-130700 is as it was recorded\n"
    );
    // Another list is another engine, which nobody has trusted.
    world.exact(&format!("trust-engine {}", capsule()));
    let other = List {
        version: "7.2.23".to_owned(),
        ..list()
    };
    fs::write(place.join("capsule.toml"), text(&other)).expect("a list");
    let recording = world.library.find(&world.guest, None).expect("a recording");
    let error = recording
        .capsule_to_run(&mut goes_on)
        .expect_err("it is refused")
        .to_string();
    assert!(error.contains("is damaged: its list has blake3:"), "{error}");
    assert!(world.exact("verify clientA").contains("its engine cannot be read: "));
}

#[test]
fn not_what_it_says() {
    let (from, world) = (World::new("capsule-bad-from"), World::new("capsule-bad"));
    let alone = good(&from);
    let says = |members: &[Member]| refused(&world, &gzip(&tar(&[&alone[..], members].concat()))).to_string();
    let changed = |at: usize, change: &dyn Fn(&mut Member)| {
        let mut members = engine(&list());
        change(&mut members[at]);
        says(&members)
    };
    // No name leads out of it.
    for name in ["../../../x", "/etc/passwd", ".hidden", "a/b", "", "..", "loader"] {
        let mut list = list();
        list.files[2].name = name.to_owned();
        let error = says(&engine(&list));
        let expected =
            format!("its engine is none: capsule.toml: {name:?} is no name of a file in it, or is there twice");
        assert!(error.ends_with(&expected), "{error}");
    }
    for name in [
        "engine/../guest.toml",
        "engine/more",
        "engine//loader",
        "engine",
        "engine/capsule.toml",
        "capsule.toml",
    ] {
        let error = says(&[&engine(&list())[..], &[member(name, b"x")]].concat());
        let expected = format!("{name:?} does not belong to a recording, or is there twice");
        assert!(error.ends_with(&expected), "{error}");
    }
    for kind in *b"12345" {
        let error = changed(2, &|member| (member.kind, member.link) = (kind, "/etc/passwd"));
        assert!(error.ends_with("\"engine/loader\" is not a regular file"), "{error}");
        let error = changed(0, &|member| (member.kind, member.link) = (kind, "/etc/passwd"));
        assert!(
            error.contains("\"engine/capsule.toml\" does not belong to a recording"),
            "{error}"
        );
    }
    // Nor is anything another than the list says.
    for at in 1..4 {
        let error = changed(at, &|member| member.content[0] ^= 1);
        assert!(
            error.contains(" is not what was recorded: its digest is blake3:"),
            "{error}"
        );
        let error = changed(at, &|member| member.content.push(0));
        assert!(error.contains(" bytes, its manifest says "), "{error}");
        let mut members = engine(&list());
        let gone = members.remove(at);
        let error = says(&members);
        assert!(
            error.ends_with(&format!("it has no {}", String::from_utf8_lossy(&gone.name))),
            "{error}"
        );
    }
    // What its list promises.
    let with = |change: &dyn Fn(&mut List)| {
        let mut list = list();
        change(&mut list);
        says(&engine(&list))
    };
    let many = |list: &mut List| {
        let file = list.files[2].clone();
        let name = |number: u32| File {
            name: number.to_string(),
            ..file.clone()
        };
        list.files.extend((0..300).map(name));
    };
    let error = with(&many);
    assert!(error.contains("more than 256 files or 512 MiB"), "{error}");
    let error = with(&|list| list.files[0].size = 1 << 62);
    assert!(error.contains("more than 256 files or 512 MiB"), "{error}");
    let error = with(&|list| drop(list.files.remove(1)));
    assert!(error.ends_with("capsule.toml has no file \"loader\""), "{error}");
    let error = with(&|list| list.version = "7.2.23\u{1b}[2J".to_owned());
    assert!(
        error.contains("its engine is not the one of the recording") && !error.contains('\u{1b}'),
        "{error}"
    );
    let error = changed(0, &|member| {
        let known = std::mem::take(&mut member.content);
        member.content = [&b"\"x\\nttvm: imported web\" = 1\n"[..], &known].concat();
    });
    assert!(
        error.contains("x\\nttvm: imported web") && error.lines().count() == 1,
        "{error}"
    );
    let error = changed(0, &|member| member.content = vec![b'#'; 70_000]);
    assert!(error.ends_with("the list of its engine is larger than any"), "{error}");
    let error = changed(0, &|member| member.content = b"\xff\xfe".to_vec());
    assert!(error.starts_with("it is not imported: it "), "{error}");
    let error = says(&engine(&list())[1..]);
    assert!(error.contains("does not belong to a recording"), "{error}");
    // And the good one is good.
    import(&world, &[&alone[..], &engine(&list())].concat(), "clientA");
}

/// The QEMU of this host is not the one that is said to have recorded.
#[test]
fn another_engine_is_not_exported() {
    let world = World::new("capsule-other");
    world.record(super::START);
    let said = world.exact("export clientA --with-engine");
    let installed = ttvm::run::find("/".as_ref(), PROGRAM).is_some();
    let expected = match installed {
        true => {
            "ttvm: the engine that is here is not exported with the recording 20261125-130700 of guest \"clientA\": "
        }
        false => "ttvm: QEMU is not installed",
    };
    assert!(
        said.starts_with(expected) && said.ends_with(if installed { "[4]\n" } else { "[1]\n" }),
        "{said}"
    );
    assert!(!world.directory.join("clientA-20261125-130700.ttvm").exists());
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said of volumes that LVM knows; never is one made a snapshot that ttvm removes unless somebody says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::random::Random;
use ttvm::config::guest::{DiskSource, Toolstack};
use ttvm::config::host;
use ttvm::config::places::Places;
use ttvm::config::types::{Size, Volume};
use ttvm::import::{Asked, Error, Known, Plan, Request, plan};

/// A tree with a file of xl's, whose guest has this disk.
fn tree(name: &str, disk: &str) -> (Places, PathBuf) {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("import-volumes").join(name);
    drop(fs::remove_dir_all(&root));
    fs::create_dir_all(root.join("boot")).expect("a directory");
    fs::write(root.join("boot/k"), "").expect("a file");
    let file = root.join("a.cfg");
    fs::write(
        &file,
        format!("name = \"a\"\nkernel = \"/boot/k\"\ndisk = [ \"{disk}\" ]\n"),
    )
    .expect("a file");
    (Places::system(&root), file)
}

fn made(places: &Places, file: &Path, origins: &[(&str, &str)], known: Option<&Known>) -> Result<Plan, Error> {
    let parse =
        |(target, volume): &(&str, &str)| (target.parse().expect("a target"), volume.parse().expect("a volume"));
    let origins: Vec<_> = origins.iter().map(parse).collect();
    let request = Request {
        file,
        name: None,
        toolstack: None,
        dialect: None,
        origins: &origins,
    };
    let host = host::load(places).expect("the defaults");
    plan(places, &host, &request, &|_| {
        known.cloned().map_or(Asked::Nothing, Asked::Known)
    })
}

fn volume(text: &str) -> Volume {
    text.parse().expect("a volume")
}

#[test]
fn a_snapshot_is_told_by_its_origin() {
    let (places, file) = tree("told", "/dev/xenvg/mine,raw,xvda1,rw");
    let known = Known {
        origin: Some(volume("xenvg/golden")),
        room: Some(Size::mib(300)),
    };
    let plan = made(&places, &file, &[], Some(&known)).expect("a plan");
    for line in [
        "# xenvg/mine is a snapshot of xenvg/golden. The guest gets it as it is, with all that earlier runs wrote.",
        "# origin   = \"xenvg/golden\"",
        "# snapshot = { name = \"mine\", size = \"300M\" }",
        "path     = \"/dev/xenvg/mine\"",
    ] {
        assert!(plan.text.contains(line), "{line}\n{}", plan.text);
    }
    assert!(
        plan.notes[0].why.contains("--origin xvda1=xenvg/golden"),
        "{:?}",
        plan.notes
    );
    let guest = ttvm::config::guests::check(
        &places,
        &host::load(&places).expect("defaults"),
        &plan.name,
        &plan.text,
        true,
    );
    let guest = guest.expect("a guest");
    assert_eq!((guest.snapshots().count(), guest.toolstack), (0, Toolstack::Xl));
    let writable = |source: &DiskSource| matches!(source, DiskSource::Path { writable: true, .. });
    assert!(writable(&guest.disks[0].source));
}

/// Whatever is not known to be a snapshot is not to be removed, and becomes the origin.
#[test]
fn no_volume_is_to_be_removed_that_is_no_snapshot() {
    let plain = Known {
        origin: None,
        room: None,
    };
    for (disk, known) in [
        ("/dev/vg/root,raw,xvda1,rw", None),
        ("/dev/vg/root,raw,xvda1,rw", Some(&plain)),
        ("/dev/mapper/vg-root,raw,xvda1,rw", None),
        ("phy:vg/root,xvda1,w", Some(&plain)),
    ] {
        let (places, file) = tree("kept", disk);
        let plan = made(&places, &file, &[], known).expect("a plan");
        assert!(!plan.text.contains("remove"), "{}", plan.text);
        assert!(plan.text.contains("# origin   = \"vg/root\"\n"), "{}", plan.text);
        assert!(plan.text.contains("# snapshot = { size = \"1G\" }"), "{}", plan.text);
        assert_eq!(
            plan.text.contains("LVM was not asked"),
            known.is_none(),
            "{}",
            plan.text
        );
        assert!(plan.notes[0].why.contains("--origin xvda1=vg/root"), "{:?}", plan.notes);
    }
    let volume = "/dev/mapper/xen--vg-a--b,raw,xvda1,rw";
    let (places, file) = tree("kept", volume);
    let plan = made(&places, &file, &[], None).expect("a plan");
    assert!(plan.text.contains("\"xen-vg/a-b\""), "{}", plan.text);
}

#[test]
fn other_devices_are_no_volumes() {
    for device in [
        "/dev/md/0",
        "/dev/cciss/c0d0p1",
        "/dev/disk/by-label/a",
        "/dev/nbd/0",
        "/dev/mapper/mpatha",
        "/dev/mapper/mpathb-part1",
        "/dev/mapper/mpathbp1",
        "/dev/mapper/san-lun0p1",
        "/dev/gpt/data",
        "/dev/mapper/vg-root-cow",
        "/dev/sda1",
    ] {
        let (places, file) = tree("devices", &format!("{device},raw,xvda1,rw"));
        let plan = made(&places, &file, &[], None).expect("a plan");
        assert!(!plan.text.contains("origin") && plan.notes.is_empty(), "{}", plan.text);
        assert!(plan.text.contains(&format!("path   = \"{device}\"")), "{}", plan.text);
    }
}

#[test]
fn a_volume_becomes_a_snapshot_if_that_is_said() {
    let cases = [
        // The name that the file has, in the same group.
        ("/dev/xenvg/mine,raw,xvda1,rw", "xenvg/golden", "xenvg/mine"),
        // Another group's cannot be kept.
        ("/dev/other/mine,raw,xvda1,rw", "xenvg/golden", "xenvg/ttvm-a-xvda1"),
        // The volume itself is never written again.
        ("/dev/xenvg/golden,raw,xvda1,rw", "xenvg/golden", "xenvg/ttvm-a-xvda1"),
        ("file:/srv/a.img,xvda1,w", "xenvg/golden", "xenvg/ttvm-a-xvda1"),
        ("/dev/mapper/xenvg-mine,raw,xvda1,rw", "xenvg/golden", "xenvg/mine"),
    ];
    for (disk, origin, expected) in cases {
        let (places, file) = tree("said", disk);
        let plan = made(&places, &file, &[("xvda1", origin)], None).expect("a plan");
        assert!(plan.refusal().is_none(), "{:?}", plan.refusal());
        let guest = ttvm::config::guests::check(
            &places,
            &host::load(&places).expect("defaults"),
            &plan.name,
            &plan.text,
            true,
        );
        let guest = guest.expect("a guest");
        let snapshots: Vec<_> = guest.snapshots().collect();
        assert_eq!(
            (snapshots[0].volume.to_string().as_str(), &snapshots[0].origin),
            (expected, &volume(origin)),
            "{disk}"
        );
    }
}

/// Of several imports at the same moment all but one are refused, and the other's file is whole.
#[test]
fn nothing_is_replaced() {
    let (places, file) = tree("replaced", "/dev/xenvg/mine,raw,xvda1,rw");
    let mut import = Command::new(env!("CARGO_BIN_EXE_ttvm"));
    import
        .arg("--root")
        .arg(places.root())
        .args(["guest", "import"])
        .arg(&file);
    import.stdout(Stdio::null()).stderr(Stdio::null());
    let children: Vec<Child> = (0..8).map(|_| import.spawn().expect("ttvm runs")).collect();
    let mut codes: Vec<_> = children
        .into_iter()
        .map(|mut child| child.wait().expect("it ends").code())
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, [&[Some(0)][..], &[Some(4); 7]].concat());
    let plan = made(&places, &file, &[], None).expect("a plan");
    let path = places.real(&plan.path);
    assert_eq!(fs::read_to_string(&path).expect("a file"), plan.text);
    assert_eq!(
        fs::read_dir(path.parent().expect("a directory"))
            .expect("a directory")
            .count(),
        1
    );
    // A link that leads nowhere is somebody's file as well.
    fs::remove_file(&path).expect("it goes");
    std::os::unix::fs::symlink("nowhere", &path).expect("a link");
    let plan = made(&places, &file, &[], None).expect("a plan");
    assert!(matches!(plan.write(&places), Err(Error::Exists { .. })));
    assert!(fs::symlink_metadata(&path).is_ok_and(|data| data.is_symlink()));
}

/// Files that were spoiled here and there are taken, refused or listed; whatever is offered as a guest's file can be read as one.
#[test]
fn spoiled_files() {
    let (places, file) = tree("spoiled", "");
    let host = host::load(&places).expect("the defaults");
    let mut random = Random::new(6);
    let originals = ["01-seed/clientA.conf", "02-xl/web.cfg", "03-python/lab.conf"];
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import");
    let originals = originals.map(|name| fs::read_to_string(fixtures.join(name)).expect("a fixture"));
    let toolstacks = [None, Some(Toolstack::Xl), Some(Toolstack::Xm), Some(Toolstack::Qemu)];
    let (mut plans, mut refused) = (0, 0);
    for round in 0..1500 {
        let mut text = originals[round % originals.len()].clone();
        for _ in 0..=random.below(3) {
            text = random.spoil(&text, "a1 ='\"[](),:;\\\n\t#%+-/*.é\u{1b}\r");
        }
        fs::write(&file, &text).expect("a file");
        let request = Request {
            file: &file,
            name: Some("x".parse().expect("a name")),
            toolstack: toolstacks[random.below(toolstacks.len())],
            dialect: None,
            origins: &[],
        };
        let Ok(plan) = plan(&places, &host, &request, &|_| Asked::Nothing) else {
            continue;
        };
        plans += 1;
        if let Some(why) = plan.refusal() {
            refused += 1;
            // What is missing in the file may be missing in the guest; nothing else may go wrong.
            let why = why.to_string();
            let expected = ["needs \"kernel\" or \"bootloader\"", "have the address", "two disks"];
            for line in why.lines() {
                assert!(
                    expected.iter().any(|part| line.contains(part)),
                    "{line}\n{text}\n{}",
                    plan.text
                );
            }
        }
    }
    println!("{plans} plans, {refused} refused");
    assert!(plans > 300, "{plans}");
}

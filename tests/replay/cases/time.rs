// SPDX-License-Identifier: MIT OR Apache-2.0
//! Going to any moment of a recording, and every bit as it was there.

use std::fs;
use std::process::{Command, Stdio};

use ttvm::file::digest::{self, Digest};

use super::super::Outcome;
use super::super::lab::{GUEST, Lab, Place, STATE, contents};

/// Points of each guest, but for who wants more (`TTVM_POINTS`).
const POINTS: u64 = 1;

/// Numbers by chance, the same each time.
fn points(end: u64) -> Vec<u64> {
    let count = std::env::var("TTVM_POINTS").ok().and_then(|count| count.parse().ok());
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut points: Vec<u64> = (0..count.unwrap_or(POINTS))
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % end
        })
        .collect();
    if count.is_some() {
        points.extend([0, end - 1]);
    }
    points
}

fn end(place: &Place) -> u64 {
    let recording = place.recording();
    let result = recording.manifest().result.as_ref().expect("a result");
    result.instructions.expect("a count")
}

/// The digest of the memory and registers after `at` instructions.
fn dump(place: &Place, at: u64, name: &str) -> Digest {
    let at = at.to_string();
    place.replay(&["--at", &at, "--dump-memory", name]).expect(0, &[]);
    let core = digest::of_bytes(&fs::read(place.path(name)).expect("a core"));
    fs::remove_file(place.path(name)).expect("it goes");
    core
}

/// From checkpoints, each point is what it is from the first instruction on; and from each the run goes on to the same end.
fn every_bit(place: &Place) {
    place.replay(&["--verify"]).expect(0, &["IDENTICAL: demo "]);
    let again = place.replay(&["--verify"]);
    again.expect(0, &["memory and registers at "]);
    let listed = place.run(&["recordings", "checkpoints", GUEST]);
    listed.expect(0, &["INSTRUCTIONS", "blake3:"]);
    let points = points(end(place));
    let from_checkpoints: Vec<Digest> = points.iter().map(|at| dump(place, *at, "core")).collect();
    for at in &points {
        let at = at.to_string();
        place.replay(&["--at", &at]).expect(0, &["IDENTICAL: demo "]);
    }
    place
        .run(&["recordings", "checkpoints", GUEST, "--rm"])
        .expect(0, &["the checkpoints are removed"]);
    place
        .run(&["recordings", "checkpoints", GUEST])
        .expect(0, &["has no checkpoints"]);
    for (at, core) in points.iter().zip(from_checkpoints) {
        assert!(
            dump(place, *at, "core") == core,
            "another memory after {at} instructions"
        );
    }
    let left: Vec<_> = fs::read_dir(place.path(STATE).join("overlays"))
        .expect("overlays")
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

pub fn disk_and_network(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,clocks,disk,net,disk", "");
    place.record(&[]);
    every_bit(&place);
    Ok(())
}

pub fn memory_alone(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,clocks,random", "");
    place.record(&[]);
    every_bit(&place);
    Ok(())
}

/// Requests of the disk are under way at many of its points.
pub fn busy_disk(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("disk,disk,disk,disk,disk,disk", "");
    place.record(&[]);
    every_bit(&place);
    Ok(())
}

/// A run goes on from each of its checkpoints, whatever its devices were doing there. The first are while Linux begins, which has its
/// tick from another timer then than later on.
pub fn from_each_checkpoint(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,clocks", "");
    place.record(&[]);
    place.replay(&["--verify"]).expect(0, &["IDENTICAL: demo "]);
    let listed = place.run(&["recordings", "checkpoints", GUEST]).out;
    let checkpoints: Vec<u64> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.replace(',', "").parse().ok())
        .collect();
    assert!(checkpoints.len() > 2, "{listed}");
    // Some ticks later.
    let end = end(&place);
    for at in checkpoints
        .iter()
        .map(|checkpoint| checkpoint + 3_000_000)
        .filter(|at| *at < end)
    {
        dump(&place, at, "core");
    }
    Ok(())
}

/// The points that a person has words for, and those that there are not.
pub fn points_by_name(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random,clocks", "");
    place.record(&[]);
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    // The console goes on behind the text.
    let after = place.replay(&["--at", "'guest up'", "--console"]);
    after.expect(0, &["random ", "IDENTICAL"]);
    assert!(!after.out.contains("guest up"), "{}", after.out);
    // So does it from where a line begins, by the page of the run.
    place
        .run(&["report", GUEST, "-o", "page.html"])
        .expect(0, &["page.html"]);
    let page = contents(&place.path("page.html"));
    let line = page
        .split("<li id=\"i-")
        .find(|line| line.contains("<code>random "))
        .expect("a line");
    let position = line.split('"').next().expect("a position");
    let from = place.replay(&["--at", position, "--console"]);
    assert!(
        from.expect(0, &["IDENTICAL"]).out.starts_with("random "),
        "{}",
        from.out
    );
    place.replay(&["--at", "50%"]).expect(0, &["IDENTICAL"]);
    place.replay(&["--at", "5s"]).expect(0, &["IDENTICAL"]);
    place.replay(&["--at", "end-1000"]).expect(0, &["IDENTICAL"]);
    let beyond = (end(&place) + 1).to_string();
    place.replay(&["--at", &beyond]).expect(2, &["there is no such point"]);
    place
        .replay(&["--at", "'no such words'"])
        .expect(2, &["there is no such point"]);
    place.replay(&["--at", ""]).expect(2, &["nothing is no moment"]);
    // What a person has made is not overwritten.
    place.write("core", b"mine");
    place
        .replay(&["--at", "end", "--dump-memory", "core"])
        .expect(1, &["core"]);
    assert_eq!(fs::read(place.path("core")).expect("core"), b"mine");
    Ok(())
}

/// A core of what the kernel prints at its end, in the real debugger.
pub fn core_in_gdb(lab: &Lab) -> Outcome {
    if ttvm::run::find("/".as_ref(), "gdb").is_none() {
        return Err(super::super::Skipped("gdb is not installed"));
    }
    let place = lab.place();
    place.describe("random", "");
    place.record(&[]);
    place.replay(&["--at", "end", "--dump-memory", "core"]).expect(0, &[]);
    let gdb = Command::new("gdb")
        .args([
            "-q",
            "-batch",
            "-nx",
            "-ex",
            "printf \"PC %#lx\\n\", $pc",
            "-ex",
            "x/2bx 0",
        ])
        .arg(format!("--core={}", place.path("core").display()))
        .stdin(Stdio::null())
        .output()
        .expect("gdb");
    let said = String::from_utf8_lossy(&gdb.stdout).into_owned();
    // It powers off in the kernel.
    assert!(
        said.contains("PC 0xffffffff"),
        "{said}{}",
        String::from_utf8_lossy(&gdb.stderr)
    );
    Ok(())
}

/// Both directions, and the same bytes every time.
pub fn packets(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("net", "");
    place.record(&[]);
    place.replay(&["--pcap", "one"]).expect(0, &["IDENTICAL"]);
    place
        .replay(&["--pcap", "two"])
        .expect(0, &["IDENTICAL", "memory and registers at"]);
    let [one, two] = ["one", "two"].map(|name| fs::read(place.path(name)).expect("a dump"));
    assert!(one == two, "other packets: {} bytes, {} bytes", one.len(), two.len());
    // Of libpcap; three times an echo and its answer.
    assert_eq!(&one[..4], 0xa1b2_c3d4_u32.to_le_bytes());
    let echoes = |kind: u8| {
        one.windows(42)
            .filter(|frame| frame[12..14] == [8, 0] && frame[23] == 1 && frame[34] == kind)
            .count()
    };
    assert!(echoes(8) >= 3 && echoes(0) >= 3, "{} {}", echoes(8), echoes(0));
    // What a person has made is not overwritten.
    place.replay(&["--pcap", "one"]).expect(1, &["cannot make", "one"]);
    assert!(fs::read(place.path("one")).expect("a dump") == one);
    Ok(())
}

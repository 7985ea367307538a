// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs that are watched from within QEMU stay the same, and what is seen of them is what a debugger would see.

use std::fs;

use serde_json::Value;

use super::super::Outcome;
use super::super::lab::{GUEST, Lab, Place, STATE};
use super::explain::{KERNEL_TEXT, LINUX};
use crate::tiny::compiled;

/// How many answers are compared with the machine, or with all that is there to find; `TTVM_QUESTIONS` for more.
const QUESTIONS: usize = 2;

fn questions() -> usize {
    let wanted = std::env::var("TTVM_QUESTIONS").ok();
    wanted.and_then(|count| count.parse().ok()).unwrap_or(QUESTIONS)
}

/// A recording with checkpoints.
fn recorded(lab: &Lab, steps: &str) -> Place {
    let place = lab.place();
    place.describe(steps, "");
    place.record(&[]);
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    place
}

/// The lines of a trace.
fn trace(place: &Place, args: &[&str]) -> Vec<Value> {
    let ran = place.run(&[&["trace", GUEST, "--json"], args].concat());
    ran.expect(0, &[]);
    ran.out
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn number(of: &Value, name: &str) -> u64 {
    let digits = of[name].as_str().and_then(|text| text.strip_prefix("0x"));
    let number = match digits {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => of[name].as_u64(),
    };
    number.unwrap_or_else(|| panic!("{name}: {of}"))
}

/// Some of them, from everywhere.
fn some<T>(all: &[T], count: usize) -> impl Iterator<Item = &T> {
    let step = (all.len() / count).max(1);
    all.iter().step_by(step).take(count)
}

/// A register after `at` instructions, by its number in a core (`struct user_regs_struct`).
fn register(place: &Place, at: u64, number: usize) -> u64 {
    let at = at.to_string();
    place.replay(&["--at", &at, "--dump-memory", "core"]).expect(0, &[]);
    let core = fs::read(place.path("core")).expect("a core");
    fs::remove_file(place.path("core")).expect("it goes");
    let long = |at: usize| u64::from_le_bytes(core[at..at + 8].try_into().expect("8 bytes"));
    let short = |at: usize| u16::from_le_bytes([core[at], core[at + 1]]);
    let word = |at: usize| u32::from_le_bytes(core[at..at + 4].try_into().expect("4 bytes"));
    let heads = (0..usize::from(short(0x38))).map(|index| long(0x20) as usize + 56 * index);
    // The first note: its head, its name, and the registers behind what the system says of the process.
    let note = heads.into_iter().find(|head| word(*head) == 4).expect("notes");
    let note = long(note + 8) as usize;
    let content = note + 12 + (word(note) as usize).next_multiple_of(4);
    long(content + 112 + 8 * number)
}

const RIP: usize = 16;
const RSP: usize = 19;

fn nothing_is_left(place: &Place) {
    let left: Vec<_> = fs::read_dir(place.path(STATE).join("overlays"))
        .expect("overlays")
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// All system calls of a whole run, twice, and both times it is the recorded run; each is where the machine is by its count.
pub fn watched(lab: &Lab) -> Outcome {
    let place = recorded(lab, "random,disk");
    let calls = trace(&place, &["syscalls"]);
    assert_eq!(calls, trace(&place, &["syscalls"]));
    for call in some(&calls, questions()) {
        let at = number(call, "at");
        assert_eq!(register(&place, at, RIP), number(call, "address"), "{call}");
    }
    // From the middle on it is the same: programs that waited then make these calls again where they waited.
    let from = number(&calls[calls.len() / 2], "at");
    let later: Vec<_> = calls.iter().filter(|it| number(it, "at") >= from).cloned().collect();
    assert_eq!(trace(&place, &["syscalls", "--from", &from.to_string()]), later);
    let named = |name: &str| calls.iter().filter(|call| call["call"] == *name).collect::<Vec<_>>();
    // The shell's children, and their messages, whose length is what `write` returns.
    assert!(!named("execve").is_empty());
    let written = named("write");
    assert!(!written.is_empty());
    for call in written {
        let length = format!("{:#x}", number(call, "result"));
        assert_eq!(call["arguments"][2], length, "{call}");
        assert!(number(call, "until") > number(call, "at"), "{call}");
    }
    // Each block begins where the one before it has ended, unless an exception or the disk has come between.
    let from = number(&calls[0], "at");
    let (from, to) = (from.to_string(), (from + 300_000).to_string());
    let blocks = trace(&place, &["exec", "--from", &from, "--to", &to]);
    let broken = blocks
        .windows(2)
        .filter(|two| number(&two[0], "at") + number(&two[0], "instructions") != number(&two[1], "at"));
    let broken = broken.count();
    assert!(broken * 100 < blocks.len(), "{broken} of {}", blocks.len());
    for block in some(&blocks, questions()) {
        assert_eq!(
            register(&place, number(block, "at"), RIP),
            number(block, "address"),
            "{block}"
        );
    }
    // What a browser opens.
    let ran = place.run(&["trace", GUEST, "syscalls", "--format", "chrome"]);
    let chrome: Vec<Value> = serde_json::from_str(&ran.expect(0, &[]).out).expect("JSON");
    let mut slices: Vec<_> = chrome.iter().filter(|event| event["ph"] == "X").collect();
    assert_eq!(slices.len(), calls.len());
    // A thread is in one call at a time, or in one that a signal or a child of vfork has come into.
    let time = |slice: &Value, name: &str| slice[name].as_f64().expect("a time");
    slices.retain(|slice| !slice["args"]["until"].is_null());
    slices.sort_by(|a, b| time(a, "ts").total_cmp(&time(b, "ts")));
    let mut over = std::collections::BTreeMap::new();
    for slice in slices {
        let (begin, end) = (time(slice, "ts"), time(slice, "ts") + time(slice, "dur"));
        let before = over.entry(slice["tid"].as_u64()).or_insert(end);
        assert!(*before <= begin || end <= *before, "{slice}");
        *before = end.max(*before);
    }
    nothing_is_left(&place);
    Ok(())
}

/// Who wrote last, looked for from checkpoint to checkpoint, is the last of all writes from the first instruction on.
pub fn last_writes(lab: &Lab) -> Outcome {
    let place = recorded(lab, "random,disk");
    let end = end(&place);
    let mut found = 0;
    for question in 0..questions() as u64 {
        let at = LINUX + (end - LINUX) / (questions() as u64 + 1) * (question + 1);
        // What the machine has on its stack was written before.
        let address = format!("{:#x}", register(&place, at, RSP));
        let before = at.to_string();
        let writes = trace(&place, &["writes", &address, "--to", &before]);
        let asked = format!("last write to {address} before {before}");
        let answer = place.run(&["ask", GUEST, &asked, "--json"]);
        let answer: Value = serde_json::from_str(&answer.expect(0, &[]).out).expect("JSON");
        match writes.last() {
            None => assert_eq!(answer["found"], false, "{asked}"),
            Some(last) => {
                found += 1;
                for name in ["at", "address", "to", "size", "value"] {
                    assert_eq!(answer[name], last[name], "{asked}: {name}");
                }
                assert_eq!(register(&place, number(last, "at"), RIP), number(last, "address"));
            }
        }
    }
    assert!(found > 0);
    // Where there is nothing.
    let none = place.run(&["ask", GUEST, "last write to 0x7fffffffe000 before 1000"]);
    none.expect(0, &["never wrote there"]);
    nothing_is_left(&place);
    Ok(())
}

/// When something was executed first, by its address and by its name.
pub fn first_executions(lab: &Lab) -> Outcome {
    let place = recorded(lab, "random");
    let calls = trace(&place, &["syscalls", "--from", "'guest up'", "--to", "'random '"]);
    let from = number(&calls[0], "at");
    let (from, to) = (from.to_string(), (from + 300_000).to_string());
    let blocks = trace(&place, &["exec", "--from", &from, "--to", &to]);
    for block in some(&blocks, questions()) {
        let address = number(block, "address");
        let text = format!("{address:#x}");
        let answer = place.run(&["ask", GUEST, &format!("first execution of {text}"), "--json"]);
        let answer: Value = serde_json::from_str(&answer.expect(0, &[]).out).expect("JSON");
        let first = number(&answer, "at");
        assert!(first <= number(block, "at"), "{answer} {block}");
        assert_eq!(register(&place, first, RIP), address);
        let all = trace(&place, &["exec", &text, "--to", &(first + 1).to_string()]);
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(number(&all[0], "at"), first);
    }
    // What was kept of the first question is made again where it is damaged.
    let address = number(&blocks[0], "address");
    let kept = place.recording().directory().join("executed");
    fs::write(&kept, b"damaged").expect("a file");
    place
        .run(&["ask", GUEST, &format!("first execution of {address:#x}")])
        .expect(0, &["was executed first after"]);
    assert_ne!(fs::read(&kept).expect("it was kept"), b"damaged");
    place.write("symbols", format!("{address:x} T here\n").as_bytes());
    place
        .run(&["ask", GUEST, "first execution of here", "--symbols", "symbols"])
        .expect(0, &[&format!("{address:#x} (here)"), "--gdb --at "]);
    place
        .run(&["ask", GUEST, "first execution of 0x1234567"])
        .expect(0, &["it was never executed"]);
    nothing_is_left(&place);
    Ok(())
}

/// Two processes have the same page of a program, each at an address of its own: QEMU translates it once for both.
pub fn shared_code(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("", "");
    place.give_program("twice", &compiled("twice", "-static-pie -fPIE -mno-red-zone"));
    place.script("/twice; /twice; poweroff -f");
    place.record(&[]);
    // Leaves checkpoints.
    place.replay(&["--verify"]).expect(0, &["IDENTICAL"]);
    let console = fs::read_to_string(place.recording().console()).expect("its console");
    let said = |word: &str| -> Vec<u64> {
        let lines = console.lines().filter_map(|line| line.strip_prefix(word));
        lines
            .map(|text| u64::from_str_radix(text.trim(), 16).expect("an address"))
            .collect()
    };
    let (here, count) = (said("here "), said("count "));
    assert!(here.len() == 2 && here[0] != here[1], "{here:x?}");
    let calls = trace(&place, &["syscalls"]);
    // Each has a child, which is on its stack, and comes back first.
    let vforks: Vec<_> = calls.iter().filter(|it| it["call"] == "vfork").collect();
    assert_eq!(vforks.len(), 2, "{vforks:?}");
    for vfork in vforks {
        assert!(vfork["result"].as_i64().is_some_and(|child| child > 1), "{vfork}");
    }
    let calls = calls.iter().filter(|it| it["call"] == "getppid");
    // The shell asks this, too; here it is behind two other instructions.
    let calls: Vec<_> = calls
        .filter(|it| here.contains(&(number(it, "address") - 11)))
        .collect();
    assert_eq!(calls.len(), 6, "{calls:?}");
    for call in &calls {
        assert_eq!(call["result"], 1, "{call}");
        assert_eq!(register(&place, number(call, "at"), RIP), number(call, "address"));
    }
    for (here, count) in here.iter().zip(&count) {
        let (here_text, count_text) = (format!("{here:#x}"), format!("{count:#x}"));
        let all = trace(&place, &["exec", &here_text]);
        // More often where its number was not in memory yet.
        assert!(all.len() >= 3, "{all:?}");
        let last = all[all.len() - 1].clone();
        let answer = place.run(&["ask", GUEST, &format!("first execution of {here_text}"), "--json"]);
        let answer: Value = serde_json::from_str(&answer.expect(0, &[]).out).expect("JSON");
        assert_eq!(answer["at"], all[0]["at"]);
        let all = trace(&place, &["writes", &count_text]);
        let by = |write: &&Value| number(write, "address") == *here;
        assert_eq!(all.iter().filter(by).count(), 3, "{all:?}");
        let at = number(&last, "at");
        assert_eq!(register(&place, at, RIP), *here);
        let (from, to) = (at.to_string(), (at + 3).to_string());
        let blocks = trace(&place, &["exec", "--from", &from, "--to", &to]);
        assert_eq!(blocks[0]["address"], last["address"], "{blocks:?}");
    }
    nothing_is_left(&place);
    Ok(())
}

fn end(place: &Place) -> u64 {
    let recording = place.recording();
    let result = recording.manifest().result.as_ref().expect("a result");
    result.instructions.expect("a count")
}

/// Who wrote a sector: the guest writes some with random numbers, and one with the time.
pub fn sectors(lab: &Lab) -> Outcome {
    let place = recorded(lab, "disk");
    let ask = |sector: u64| -> Value {
        let answer = place.run(&["ask", GUEST, &format!("who wrote sector vda:{sector}"), "--json"]);
        serde_json::from_str(&answer.expect(0, &[]).out).expect("JSON")
    };
    // 64 KiB from 400 KiB on, and a part of the first page (tests/guest/init).
    for (sector, first, sectors) in [(800, 800, 128), (927, 800, 128), (3, 0, 8)] {
        let answer = ask(sector);
        assert_eq!(
            (number(&answer, "first"), number(&answer, "sectors")),
            (first, sectors),
            "{answer}"
        );
        let [begun, filled] = ["begun", "filled"].map(|name| &answer[name]);
        assert!(number(filled, "at") < number(begun, "at"), "{answer}");
        // By the guest's own addresses, what was put there is within the sector.
        assert!(number(filled, "size") <= 8, "{answer}");
        for write in [begun, filled] {
            assert_eq!(register(&place, number(write, "at"), RIP), number(write, "address"));
        }
        // The time was copied by the call that wrote it.
        let calls = trace(&place, &["syscalls", "--to", &number(begun, "at").to_string()]);
        let copied = number(filled, "at");
        let call = calls
            .iter()
            .find(|call| {
                call["space"] == filled["space"]
                    && number(call, "at") < copied
                    && call["until"].as_u64().is_some_and(|until| copied < until)
            })
            .expect("a call");
        assert_eq!(call["call"], "write", "{call}");
    }
    assert_eq!(ask(5000)["found"], false);
    place
        .run(&["ask", GUEST, "who wrote sector vdb:1"])
        .expect(2, &["no disk \"vdb\""]);
    nothing_is_left(&place);
    Ok(())
}

/// A request that makes sectors zeros has no data.
pub fn zeros(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("", "");
    place.give_program("zeros", &compiled("zeros", "-static-pie -fPIE -mno-red-zone"));
    place.script("/zeros <>/dev/vda; poweroff -f");
    place.record(&[]);
    let said = fs::read_to_string(place.recording().console()).expect("its console");
    assert!(said.contains("zeros: done"), "{said}");
    let answer = place.run(&["ask", GUEST, "who wrote sector vda:1610", "--json"]);
    let answer: Value = serde_json::from_str(&answer.expect(0, &[]).out).expect("JSON");
    let of = |name| number(&answer, name);
    assert_eq!((of("first"), of("sectors")), (1600, 16), "{answer}");
    assert_eq!(answer["data"], Value::Null);
    let begun = &answer["begun"];
    assert_eq!(register(&place, number(begun, "at"), RIP), number(begun, "address"));
    place
        .run(&["ask", GUEST, "who wrote sector vda:1615"])
        .expect(0, &["sectors 1600 to 1615", "became zeros"]);
    place
        .run(&["ask", GUEST, "who wrote sector vda:1616"])
        .expect(0, &["never wrote it"]);
    nothing_is_left(&place);
    Ok(())
}

/// What the log has, without a replay: QEMU is not needed.
pub fn from_the_log(lab: &Lab) -> Outcome {
    let place = recorded(lab, "disk,net");
    let disk = trace(&place, &["disk"]);
    let counted: Vec<u64> = disk.iter().map(|it| number(it, "request")).collect();
    let mut sorted = counted.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..disk.len() as u64).collect::<Vec<_>>());
    assert!(disk.is_sorted_by_key(|it| number(it, "at")));
    let packets = trace(&place, &["net"]);
    assert!(packets.len() >= 3, "{packets:?}");
    let middle = number(&packets[1], "at").to_string();
    assert_eq!(trace(&place, &["net", "--from", &middle]).len(), packets.len() - 1);
    assert_eq!(trace(&place, &["net", "--to", &middle]).len(), 1);
    // Each is among those of a replay, which has both directions.
    place.replay(&["--pcap", "both"]).expect(0, &["IDENTICAL"]);
    let both = fs::read(place.path("both")).expect("a dump");
    for packet in &packets {
        let frame = packet["frame"].as_str().expect("a frame");
        let frame: Vec<u8> = (0..frame.len() / 2)
            .map(|index| u8::from_str_radix(&frame[2 * index..2 * index + 2], 16).expect("a byte"))
            .collect();
        assert!(both.windows(frame.len()).any(|it| it == frame), "{packet}");
    }
    let mut command = place.command(&["trace", GUEST, "net", "--format", "pcap"]);
    let pcap = command.output().expect("the program").stdout;
    assert_eq!(&pcap[..4], 0xa1b2_c3d4_u32.to_le_bytes());
    let bytes: u64 = packets.iter().map(|it| number(it, "size") + 16).sum();
    assert_eq!(pcap.len() as u64, 24 + bytes);
    Ok(())
}

/// A run that is not the recorded one gives no answer.
pub fn another_run(lab: &Lab) -> Outcome {
    let place = recorded(lab, "random");
    let mut command = place.command(&["ask", GUEST, "first execution of 0x1234567"]);
    command.env("TTVM_FLIP", format!("{}:{KERNEL_TEXT:#x}", LINUX + 123_456_789));
    let ran = super::super::lab::Running::start(command).end();
    ran.expect(5, &["is not the same run here"]);
    nothing_is_left(&place);
    Ok(())
}

/// What cannot be asked.
pub fn refused(lab: &Lab) -> Outcome {
    let place = lab.place();
    place.describe("random", "");
    place.record(&["--for", "guest:1_000_000"]);
    let usage = |args: &[&str], words: &str| {
        place.run(args).expect(2, &[words]);
    };
    usage(&["ask", GUEST, "why"], "last write to ADDRESS");
    usage(&["ask", GUEST, "first execution of do_exit"], "--symbols");
    usage(&["trace", GUEST, "writes"], "which address");
    usage(&["trace", GUEST, "everything"], "trace what");
    usage(&["trace", GUEST, "disk", "disk", "disk"], "trace what");
    usage(&["trace", GUEST, "disk", "--format", "pcap"], "is for net");
    usage(
        &["trace", GUEST, "exec", "--from", "9", "--to", "9"],
        "nothing is between",
    );
    place.write("symbols", b"no list of symbols\n");
    place
        .run(&["trace", GUEST, "exec", "--symbols", "symbols"])
        .expect(1, &["symbols has no names"]);
    // Whoever reads has seen enough.
    let ran = place.shell("ttvm trace demo exec | head -n 3");
    assert_eq!(ran.expect(0, &[]).out.lines().count(), 3);
    nothing_is_left(&place);
    Ok(())
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! The picture in src/lib.rs, held against what the code says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module at the top, and the files that are its own.
type Files = BTreeMap<String, Vec<PathBuf>>;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The lines of the picture, from above: the modules of each.
fn picture() -> Vec<Vec<String>> {
    let text = fs::read_to_string(source().join("lib.rs")).expect("src/lib.rs");
    let lines = text.lines().filter_map(|line| line.strip_prefix("//! "));
    let drawn = lines.skip_while(|line| *line != "```text").skip(1);
    drawn
        .take_while(|line| *line != "```")
        .map(|line| {
            let words = line.split_whitespace();
            // What it is for begins in a column of its own.
            let names = line.get(..25).unwrap_or(line).split_whitespace().count();
            words.take(names).map(str::to_owned).collect()
        })
        .collect()
}

fn modules() -> Files {
    let mut files = Files::new();
    let mut directories = vec![source()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let below = path.strip_prefix(source()).expect("below src").to_owned();
            let top = below.iter().next().expect("a name").to_string_lossy();
            let name = top.trim_end_matches(".rs");
            if path.extension().is_some_and(|it| it == "rs") && !["bin", "lib", "house"].contains(&name) {
                files.entry(name.to_owned()).or_default().push(path);
            }
        }
    }
    files
}

/// What stands behind `prefix` in the code of a file, without its comments and its own tests: the modules it uses.
fn used(path: &Path, prefix: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(path).expect("a source file");
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code: String = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    let mut found = BTreeSet::new();
    for rest in code.split(prefix).skip(1) {
        // One, or several at once: `crate::{log, notify}`.
        let names = match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap_or_default().split(',').collect(),
            None => vec![rest],
        };
        for name in names {
            let name = name.trim();
            let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            found.insert(name[..end.unwrap_or(name.len())].to_owned());
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// What each module uses of the others.
fn arrows(files: &Files) -> BTreeMap<String, BTreeSet<String>> {
    let arrows = files.iter().map(|(name, paths)| {
        let all = paths.iter().flat_map(|path| used(path, "crate::"));
        (name.clone(), all.filter(|other| other != name).collect())
    });
    arrows.collect()
}

#[test]
fn arrows_point_down() {
    let files = modules();
    let floors = picture();
    let floor = |name: &str| floors.iter().position(|names| names.iter().any(|it| it == name));
    let mut wrong: Vec<String> = Vec::new();
    for name in files.keys() {
        if floor(name).is_none() {
            wrong.push(format!("{name} is not in the picture"));
        }
    }
    for name in floors.iter().flatten().filter(|name| !files.contains_key(*name)) {
        wrong.push(format!("there is no module {name}"));
    }
    for (name, others) in arrows(&files) {
        for other in others {
            match (floor(&name), floor(&other)) {
                (Some(above), Some(below)) if above < below => {}
                (_, None) => wrong.push(format!("{name} uses {other}, which is no module at the top")),
                _ => wrong.push(format!("{name} uses {other}, which is not below it")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whoever looks into a folder sees all that is in it.
#[test]
fn a_folder_has_a_dozen_files() {
    const MOST: usize = 12;
    let top = source().parent().expect("the package").to_owned();
    let mut wrong: Vec<String> = Vec::new();
    let mut directories = vec![source(), top.join("crates")];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).expect("a directory").flatten();
        let (inner, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.map(|it| it.path()).partition(|path| path.is_dir());
        let code = files
            .iter()
            .filter(|path| path.extension().is_some_and(|it| it == "rs"));
        let count = code.count();
        if count > MOST {
            wrong.push(format!("{} has {count} files side by side", directory.display()));
        }
        directories.extend(inner);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The programs that run before, beside and after each guest, and in the boot: small, and up at once.
#[test]
fn small_programs_have_no_bus_and_no_executor() {
    let files = modules();
    let arrows = arrows(&files);
    let heavy: BTreeSet<&String> = files
        .iter()
        .filter(|(_, paths)| {
            let mut uses = paths
                .iter()
                .map(|path| fs::read_to_string(path).expect("a source file"));
            uses.any(|text| text.contains("zbus::") || text.contains("tokio::"))
        })
        .map(|(name, _)| name)
        .collect();
    assert!(!heavy.is_empty(), "netd has both");
    for program in ["ttvm-grub", "ttvm-snapshot", "ttvm-guest", "ttvm-boot"] {
        let mut reached = used(&source().join(format!("bin/{program}.rs")), "ttvm::");
        let mut to_do: Vec<String> = reached.iter().cloned().collect();
        while let Some(name) = to_do.pop() {
            for other in arrows.get(&name).into_iter().flatten() {
                if reached.insert(other.clone()) {
                    to_do.push(other.clone());
                }
            }
        }
        let wrong: Vec<&&String> = heavy.iter().filter(|name| reached.contains(**name)).collect();
        assert!(wrong.is_empty(), "{program} reaches {wrong:?}");
    }
}

/// Documents lead to files by their paths: each is there.
#[test]
fn paths_in_documents_are_there() {
    let top = source().parent().expect("the package").to_owned();
    let documents = [
        "CONTRIBUTING.md",
        "docs/architecture.md",
        "docs/host.md",
        "docs/state.md",
        "docs/testing.md",
        "docs/words.md",
        "README.md",
    ];
    let is_path = |text: &str| {
        // Capitals stand for what somebody else chooses.
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_./@-".contains(c);
        let folders = [
            "src/",
            "crates/",
            "tests/",
            "docs/",
            "man/",
            "units/",
            "fuzz/",
            "examples/",
            "packaging/",
            "hooks/",
            "benches/",
            "etc/",
        ];
        // QEMU's own manual is in docs/devel, which some documents name.
        text.chars().all(plain)
            && !text.starts_with("docs/devel/")
            && folders.iter().any(|folder| text.starts_with(folder))
    };
    let mut wrong: Vec<String> = Vec::new();
    for document in documents {
        let text = fs::read_to_string(top.join(document)).expect("a document");
        let quoted = text.split(['`', '(', ')', ' ', '\n']).filter(|text| is_path(text));
        let lost = quoted.filter(|path| !top.join(path).exists());
        wrong.extend(lost.map(|path| format!("{document}: there is no {path}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

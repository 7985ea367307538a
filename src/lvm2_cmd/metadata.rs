// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text of a group's metadata (lvm2's lib/format_text): sections, and settings that are a number, a string or a list.

use std::collections::{BTreeMap, BTreeSet};

use super::report::LogicalVolume;

/// LVM's own are four deep.
const DEEPEST: usize = 8;

/// Why a text is not a group's metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not in LVM's format.
    #[error("LVM's metadata cannot be read at its byte {0}")]
    Syntax(usize),
    /// What is looked for is not there.
    #[error("LVM's metadata lacks {0}")]
    Lacks(&'static str),
}

/// A group, as its metadata says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Its UUID.
    pub uuid: String,
    /// The lock manager of a shared group; empty for a local one.
    pub lock_type: String,
    /// Neither exported, nor of a certain host (`system_id`, lvmsystemid(7)), nor of several at once by its flags, nor read-only, and
    /// without a disk that is missing or just being moved. A lock manager is in [`lock_type`](Self::lock_type).
    pub is_ordinary: bool,
    /// The size of an extent, in bytes.
    pub extent_size: u64,
    /// Its volumes, the inner ones, too.
    pub volumes: Vec<LogicalVolume>,
    /// What is said of thin ones of them, by name.
    pub thin: BTreeMap<String, Thin>,
    /// What is said of pools of these, by name.
    pub pools: BTreeMap<String, ThinPool>,
    /// Its disks: their UUIDs without dashes, and where LVM found each.
    pub disks: Vec<(String, String)>,
}

impl Metadata {
    /// Whether no other volume of its pool has the number of a thin one, and so has what is kept under it.
    pub fn is_alone(&self, thin: &Thin) -> bool {
        let is_same = |other: &&Thin| other.pool == thin.pool && other.device == thin.device;
        self.thin.values().filter(is_same).count() == 1
    }
}

/// A thin volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thin {
    /// Its pool.
    pub pool: String,
    /// Its number there, by which the kernel knows it.
    pub device: u64,
    /// The volume that it is just merged into.
    pub merged_into: Option<String>,
    /// Whether nothing else is said of it, as an origin outside of the pool would be.
    pub is_plain: bool,
}

/// A thin pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThinPool {
    /// The number of its newest change, which the kernel should have as well.
    pub transaction: u64,
    /// Whether there is a change that the kernel has not been told of.
    pub has_messages: bool,
}

/// Reads the metadata of group `vg`.
///
/// # Errors
///
/// If the text is not in LVM's format, or of another group.
pub fn parse(text: &str, vg: &str) -> Result<Metadata, Error> {
    let mut reader = Reader { text, at: 0 };
    let all = reader.section(0)?;
    let group = all.section(vg).ok_or(Error::Lacks("the group"))?;
    let disks = group.section("physical_volumes").ok_or(Error::Lacks("its disks"))?;
    let none = Section::default();
    let volumes = group.section("logical_volumes").unwrap_or(&none);
    let relations = Relations::of(volumes);
    let extent_size = group.number("extent_size").ok_or(Error::Lacks("the size of extents"))? * 512;
    let missing = disks
        .sections()
        .any(|(_, disk)| disk.list("flags").contains(&"MISSING"));
    let status = group.list("status");
    let strange = ["EXPORTED", "CLUSTERED", "SHARED", "PVMOVE"];
    // Which host is this one is for LVM to say.
    let of_a_host = group.list("system_id").iter().any(|id| !id.is_empty());
    Ok(Metadata {
        uuid: group.word("id").ok_or(Error::Lacks("the group's UUID"))?.to_owned(),
        lock_type: group.word("lock_type").unwrap_or_default().to_owned(),
        is_ordinary: !missing
            && !of_a_host
            && status.contains(&"WRITE")
            && !status.iter().any(|flag| strange.contains(flag)),
        extent_size,
        volumes: volumes
            .sections()
            .map(|(name, volume)| logical_volume(name, volume, &relations, extent_size))
            .collect::<Option<_>>()
            .ok_or(Error::Lacks("a volume's UUID or segments"))?,
        thin: each(volumes, "thin", thin)?,
        pools: each(volumes, "thin-pool", thin_pool)?,
        disks: disks
            .sections()
            .map(|(_, disk)| Some((disk.word("id")?.replace('-', ""), disk.word("device")?.to_owned())))
            .collect::<Option<_>>()
            .ok_or(Error::Lacks("a disk's UUID or place"))?,
    })
}

/// Which volumes are made from which, by the segments of all.
#[derive(Default)]
struct Relations<'a> {
    /// The origins of thick snapshots, by the volume that has the changes. Not those that are just merged into their origins.
    thick: BTreeMap<&'a str, &'a str>,
    origins: BTreeSet<&'a str>,
}

impl<'a> Relations<'a> {
    fn of(volumes: &Section<'a>) -> Self {
        let mut relations = Self::default();
        for segment in volumes.sections().filter_map(|(_, volume)| volume.section("segment1")) {
            let Some(origin) = segment.word("origin") else { continue };
            relations.origins.insert(origin);
            if let (Some("snapshot"), Some(store)) = (segment.word("type"), segment.word("cow_store")) {
                relations.thick.insert(store, origin);
            }
        }
        relations
    }
}

/// A volume as a report would have it.
fn logical_volume(name: &str, volume: &Section<'_>, all: &Relations<'_>, extent_size: u64) -> Option<LogicalVolume> {
    let first = volume.section("segment1")?;
    let origin = all.thick.get(name).copied().or_else(|| first.word("origin"));
    let mut roles = Vec::new();
    roles.extend(origin.map(|_| "snapshot".to_owned()));
    roles.extend(all.origins.contains(name).then(|| "origin".to_owned()));
    let segments = volume.sections().filter(|(name, _)| name.starts_with("segment"));
    let mut extents = segments.filter_map(|(_, segment)| segment.number("extent_count"));
    let extents = extents.try_fold(0_u64, u64::checked_add)?;
    let writable = volume.list("status").contains(&"WRITE");
    Some(LogicalVolume {
        name: name.to_owned(),
        uuid: volume.word("id")?.to_owned(),
        size: extents.checked_mul(extent_size)?,
        tags: volume.list("tags").iter().map(ToString::to_string).collect(),
        roles,
        origin: origin.unwrap_or_default().to_owned(),
        segtype: kind(first)?.to_owned(),
        permissions: if writable { "writeable" } else { "read-only" }.to_owned(),
    })
}

/// What `read` makes of each volume whose first segment is of this type.
fn each<T>(
    volumes: &Section<'_>,
    kind: &str,
    read: impl Fn(&Section<'_>, &Section<'_>) -> Option<T>,
) -> Result<BTreeMap<String, T>, Error> {
    let segments = volumes.sections().filter_map(|(name, volume)| {
        let segment = volume.section("segment1")?;
        (segment.word("type") == Some(kind)).then_some((name, volume, segment))
    });
    segments
        .map(|(name, volume, segment)| Some((name.to_owned(), read(volume, segment)?)))
        .collect::<Option<_>>()
        .ok_or(Error::Lacks("a thin volume's number or pool"))
}

fn thin(volume: &Section<'_>, segment: &Section<'_>) -> Option<Thin> {
    const PLAIN: [&str; 7] = [
        "start_extent",
        "extent_count",
        "type",
        "thin_pool",
        "transaction_id",
        "device_id",
        "origin",
    ];
    Some(Thin {
        pool: segment.word("thin_pool")?.to_owned(),
        device: segment.number("device_id")?,
        merged_into: segment.word("merge").map(str::to_owned),
        is_plain: segment.0.iter().all(|(name, _)| PLAIN.contains(name)) && volume.section("segment2").is_none(),
    })
}

fn thin_pool(_: &Section<'_>, segment: &Section<'_>) -> Option<ThinPool> {
    Some(ThinPool {
        transaction: segment.number("transaction_id")?,
        has_messages: segment.sections().next().is_some(),
    })
}

/// A segment's type, in the report's words: one stripe is linear.
fn kind<'a>(segment: &Section<'a>) -> Option<&'a str> {
    match segment.word("type")? {
        "striped" if segment.number("stripe_count") == Some(1) => Some("linear"),
        other => Some(other),
    }
}

#[derive(Debug, Default)]
struct Section<'a>(Vec<(&'a str, Node<'a>)>);

#[derive(Debug)]
enum Node<'a> {
    Section(Section<'a>),
    /// One word or number, or a list of them.
    Values(Vec<&'a str>),
}

impl<'a> Section<'a> {
    fn node(&self, name: &str) -> Option<&Node<'a>> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, node)| node)
    }

    fn section(&self, name: &str) -> Option<&Section<'a>> {
        match self.node(name)? {
            Node::Section(section) => Some(section),
            Node::Values(_) => None,
        }
    }

    fn sections(&self) -> impl Iterator<Item = (&'a str, &Section<'a>)> {
        self.0.iter().filter_map(|(name, node)| match node {
            Node::Section(section) => Some((*name, section)),
            Node::Values(_) => None,
        })
    }

    fn list(&self, name: &str) -> &[&'a str] {
        match self.node(name) {
            Some(Node::Values(values)) => values,
            _ => &[],
        }
    }

    fn word(&self, name: &str) -> Option<&'a str> {
        match self.list(name) {
            [value] => Some(value),
            _ => None,
        }
    }

    fn number(&self, name: &str) -> Option<u64> {
        // No count of extents or sectors is as large as to overflow what it is multiplied with.
        self.word(name)?.parse().ok().filter(|number| *number < 1 << 48)
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Goes behind what does not count: white space, and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn takes(&mut self, mark: char) -> bool {
        self.skip();
        let found = self.rest().starts_with(mark);
        self.at += usize::from(found) * mark.len_utf8();
        found
    }

    fn error<T>(&self) -> Result<T, Error> {
        Err(Error::Syntax(self.at))
    }

    /// What is between here and the brace that closes it, or the end of the text.
    fn section(&mut self, depth: usize) -> Result<Section<'a>, Error> {
        let mut nodes = Vec::new();
        loop {
            self.skip();
            let is_end = match depth {
                0 => self.rest().is_empty(),
                _ => self.takes('}'),
            };
            if is_end {
                return Ok(Section(nodes));
            }
            let name = self.bare()?;
            let node = if self.takes('=') {
                Node::Values(self.values()?)
            } else if depth < DEEPEST && self.takes('{') {
                Node::Section(self.section(depth + 1)?)
            } else {
                return self.error();
            };
            nodes.push((name, node));
        }
    }

    fn values(&mut self) -> Result<Vec<&'a str>, Error> {
        if !self.takes('[') {
            return Ok(vec![self.value()?]);
        }
        let mut values = Vec::new();
        while !self.takes(']') {
            values.push(self.value()?);
            self.takes(',');
        }
        Ok(values)
    }

    /// A string, as it stands: nothing that is looked for here has anything in it that LVM would escape.
    fn value(&mut self) -> Result<&'a str, Error> {
        if !self.takes('"') {
            return self.bare();
        }
        let rest = self.rest();
        let mut escaped = false;
        let end = rest.find(|mark| {
            let is_end = mark == '"' && !escaped;
            escaped = mark == '\\' && !escaped;
            is_end
        });
        match end {
            Some(end) => {
                self.at += end + 1;
                Ok(&rest[..end])
            }
            None => self.error(),
        }
    }

    /// A name or a number.
    fn bare(&mut self) -> Result<&'a str, Error> {
        self.skip();
        let rest = self.rest();
        let is_part = |mark: char| mark.is_ascii_alphanumeric() || "_.+-".contains(mark);
        let end = rest.find(|mark| !is_part(mark)).unwrap_or(rest.len());
        if end == 0 {
            return self.error();
        }
        self.at += end;
        Ok(&rest[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# Generated by LVM2 version 2.03.16(2)
contents = "Text Format Volume Group"
version = 1
description = "Created *after* executing 'lvcreate -n \"x\" {'"
xenvg {
    id = "xMMGKq-gdR6-pmMy-jrW5-Zb0m-FVMZ-sW5zUk"
    seqno = 8
    format = "lvm2" # informational
    status = ["RESIZEABLE", "READ", "WRITE"]
    flags = []
    extent_size = 8192 # 4 Megabytes
    physical_volumes {
        pv0 {
            id = "71mpwg-QWbp-7DIw-t1cG-1fl9-dyuq-wCnahy"
            device = "/dev/vdb" # Hint only
            status = ["ALLOCATABLE"]
            flags = []
        }
    }
    logical_volumes {
        base {
            id = "f1oiAh-qB14-LbbF-EaFs-eX1n-3BUp-cObqRS"
            status = ["READ", "WRITE", "VISIBLE"]
            segment_count = 1
            segment1 { start_extent = 0 extent_count = 16 type = "striped" stripe_count = 1
                stripes = [ "pv0", 0 ] }
        }
        snap-1 {
            id = "2aTC5f-YgJc-Icml-v4xB-4aJQ-Neca-k3nntL"
            status = ["READ", "WRITE"]
            tags = ["ttvm", "ttvm.guest=clientA", "ttvm.origin=base"]
            segment1 { start_extent = 0 extent_count = 8 type = "striped" stripe_count = 1 }
            segment2 { start_extent = 8 extent_count = 2 type = "striped" stripe_count = 2 }
        }
        snapshot0 {
            id = "45boCl-yZhr-0Ll9-9QVs-6pD5-BeL1-OopuKK"
            status = ["READ", "WRITE", "VISIBLE"]
            segment1 { start_extent = 0 extent_count = 16 type = "snapshot" chunk_size = 8
                origin = "base" cow_store = "snap-1" }
        }
    }
}
"#;

    #[test]
    fn a_thick_snapshot() {
        let group = parse(TEXT, "xenvg").expect("metadata");
        assert!(group.is_ordinary && group.lock_type.is_empty() && group.extent_size == 4 << 20);
        assert_eq!(
            group.disks,
            [("71mpwgQWbp7DIwt1cG1fl9dyuqwCnahy".into(), "/dev/vdb".into())]
        );
        let named = |name: &str| group.volumes.iter().find(|volume| volume.name == name).expect(name);
        let (base, snapshot) = (named("base"), named("snap-1"));
        assert!(base.is("origin") && !base.is("snapshot") && base.origin.is_empty());
        assert!(snapshot.is("snapshot") && !snapshot.is("origin") && snapshot.origin == "base");
        assert_eq!((snapshot.size, snapshot.segtype.as_str()), (40 << 20, "linear"));
        assert_eq!(snapshot.tags, ["ttvm", "ttvm.guest=clientA", "ttvm.origin=base"]);
        let merging = parse(&TEXT.replace("cow_store", "merging_store"), "xenvg").expect("metadata");
        assert!(
            !merging
                .volumes
                .iter()
                .any(|volume| volume.is("snapshot") && volume.name == "snap-1")
        );
    }

    #[test]
    fn thin_volumes() {
        let pool = r#"logical_volumes {
        pool {
            id = "AAAAAA-yZhr-0Ll9-9QVs-6pD5-BeL1-OopuKK"
            segment1 { start_extent = 0 extent_count = 8 type = "thin-pool" metadata = "pool_tmeta" pool = "pool_tdata"
                transaction_id = 3 chunk_size = 128 discards = "passdown" zero_new_blocks = 1 }
        }
        thin {
            id = "BBBBBB-yZhr-0Ll9-9QVs-6pD5-BeL1-OopuKK"
            status = ["READ", "WRITE", "VISIBLE"]
            segment1 { start_extent = 0 extent_count = 16 type = "thin" thin_pool = "pool" transaction_id = 2
                device_id = 7 origin = "tbase" }
        }"#;
        let text = TEXT.replacen("logical_volumes {", pool, 1);
        let group = parse(&text, "xenvg").expect("metadata");
        let thin = group.thin.get("thin").expect("it is thin");
        assert!(group.thin.len() == 1 && thin.is_plain && thin.device == 7 && thin.pool == "pool");
        let known = group.pools.get("pool").expect("its pool");
        assert!(group.pools.len() == 1 && known.transaction == 3 && !known.has_messages);
        let queued = text.replace("zero_new_blocks = 1", "message1 { create = \"thin\" }");
        assert!(parse(&queued, "xenvg").expect("metadata").pools["pool"].has_messages);
        for more in ["merge = \"tbase\"", "external_origin = \"base\"", "unheard_of = 1"] {
            let text = text.replace("device_id = 7", &format!("device_id = 7 {more}"));
            assert!(
                !parse(&text, "xenvg").expect("metadata").thin["thin"].is_plain,
                "{more}"
            );
        }
        let thin = "        thin {";
        let second =
            &text[text.find(thin).expect("it is there")..text.find("        base {").expect("it is behind it")];
        for (from, to, is_alone) in [
            ("none", "", false),
            ("device_id = 7", "device_id = 8", true),
            ("thin_pool = \"pool\"", "thin_pool = \"other\"", true),
        ] {
            let other = second.replace("        thin {", "        other {").replace(from, to);
            let group = parse(&text.replacen(thin, &format!("{other}{thin}"), 1), "xenvg").expect("metadata");
            assert!(
                group.thin.len() == 2 && group.is_alone(&group.thin["thin"]) == is_alone,
                "{to}"
            );
        }
        let nameless = text.replace("device_id = 7", "");
        assert!(matches!(parse(&nameless, "xenvg"), Err(Error::Lacks(_))));
    }

    #[test]
    fn groups_that_are_not_to_be_touched() {
        let changes = [
            ("\"RESIZEABLE\"", "\"EXPORTED\""),
            ("\"RESIZEABLE\"", "\"SHARED\""),
            ("flags = []\n        }", "flags = [\"MISSING\"] }"),
            ("\"READ\", \"WRITE\"]\n    flags", "\"READ\"]\n    flags"),
            ("seqno", "system_id = \"another\" seqno"),
        ];
        for (from, to) in changes {
            assert!(TEXT.contains(from));
            let group = parse(&TEXT.replacen(from, to, 1), "xenvg").expect("metadata");
            assert!(!group.is_ordinary, "{to}");
        }
        let of_no_host = TEXT.replacen("seqno", "system_id = \"\" seqno", 1);
        assert!(parse(&of_no_host, "xenvg").expect("metadata").is_ordinary);
        let shared = TEXT.replacen("seqno", "lock_type = \"sanlock\" seqno", 1);
        assert_eq!(parse(&shared, "xenvg").expect("metadata").lock_type, "sanlock");
    }

    #[test]
    fn hostile_texts() {
        for text in [
            "vg {",
            "vg = ",
            "vg { a = \"",
            "vg { a = [ 1, ",
            "}",
            "vg",
            "a = \"\\\"",
            "é",
        ] {
            assert!(matches!(parse(text, "vg"), Err(Error::Syntax(_))), "{text}");
        }
        let deep = "a {".repeat(1000) + &"}".repeat(1000);
        assert!(matches!(parse(&deep, "a"), Err(Error::Syntax(_))));
        assert_eq!(parse("", "vg"), Err(Error::Lacks("the group")));
        assert_eq!(parse("other { id = \"x\" }", "vg"), Err(Error::Lacks("the group")));
    }
}

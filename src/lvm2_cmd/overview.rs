// SPDX-License-Identifier: MIT OR Apache-2.0
//! All that LVM says of a host, from one process: its version, how it is set, groups, volumes and pools. `lvm` runs a file of
//! commands (lvm(8)); the file is its standard input.

use serde::Deserialize;

use super::report::{GROUP_FIELDS, Group, LogicalVolume, VOLUME_FIELDS};
use super::{Error, LIMIT, LVM};
use crate::run::Command;

/// What LVM says of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overview {
    /// Its version: `2.03.16(2)`.
    pub version: String,
    /// From how many percent on thick snapshots are made larger; 100 is never.
    pub snapshot_autoextend: u64,
    /// The same of thin pools.
    pub pool_autoextend: u64,
    /// Whether dmeventd is told of volumes to watch.
    pub monitoring: bool,
    /// The volume groups, with their visible volumes.
    pub groups: Vec<Group>,
    /// Groups that lack disks, and how many.
    pub incomplete: Vec<(String, u64)>,
    /// The thin pools.
    pub pools: Vec<ThinPool>,
    /// The thin volumes, and the pools that they are in.
    pub thin: Vec<InPool>,
    /// Active volumes that dmeventd could watch and does not, thin pools aside: their groups and names.
    pub unwatched: Vec<(String, String)>,
}

/// A thin pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThinPool {
    /// Its group.
    pub vg: String,
    /// Its name.
    pub lv: String,
    /// Data in use, in percent, rounded up; `None` if it is not active.
    pub data_percent: Option<u8>,
    /// Metadata in use, in percent, rounded up; `None` if it is not active.
    pub metadata_percent: Option<u8>,
    /// What is wrong with it, in LVM's word (lv_health_status in lvmreport(7)); empty if nothing is.
    pub health: String,
    /// Whether dmeventd watches it.
    pub monitored: bool,
}

/// A thin volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InPool {
    /// Its group.
    pub vg: String,
    /// Its name.
    pub lv: String,
    /// Its pool.
    pub pool: String,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    vg: Vec<GroupRow>,
    #[serde(default)]
    lv: Vec<VolumeRow>,
}

#[derive(Deserialize)]
struct Report {
    report: Vec<Part>,
}

#[derive(Deserialize)]
struct GroupRow {
    #[serde(flatten)]
    group: Group,
    vg_missing_pv_count: String,
}

#[derive(Deserialize)]
struct VolumeRow {
    #[serde(flatten)]
    volume: LogicalVolume,
    vg_name: String,
    pool_lv: String,
    data_percent: String,
    metadata_percent: String,
    lv_health_status: String,
    seg_monitor: String,
}

/// Asks LVM. One process, which scans the devices once for each of its two reports.
///
/// # Errors
///
/// LVM's own, or [`Error::Report`] if its answer is another one than lvmreport(7) promises.
pub fn overview() -> Result<Overview, Error> {
    let output = Command::new(&LVM)
        .arg("/dev/stdin")
        .env("LVM_SUPPRESS_FD_WARNINGS", "1")
        .deadline(LIMIT)
        .input(&script())
        .run()?;
    Overview::parse(&output.stdout)
}

/// The commands. LVM reads no line of more than 255 characters.
fn script() -> String {
    let report = "--reportformat json --units b --nosuffix --binary --shared -o";
    format!(
        "#!lvm\nversion\n\
         lvmconfig --typeconfig full activation/snapshot_autoextend_threshold activation/thin_pool_autoextend_threshold activation/monitoring\n\
         vgs {report} {GROUP_FIELDS},vg_missing_pv_count\n\
         lvs {report} vg_name,{VOLUME_FIELDS},pool_lv,data_percent,metadata_percent,lv_health_status,seg_monitor\n"
    )
}

impl Overview {
    /// Takes apart what LVM prints.
    ///
    /// # Errors
    ///
    /// [`Error::Report`] if it is no such answer.
    pub fn parse(stdout: &str) -> Result<Self, Error> {
        let (settings, reports) = stdout.split_at(reports(stdout));
        let setting = |name: &str| {
            let mut lines = settings.lines().filter_map(|line| line.split_once('='));
            lines
                .find(|(key, _)| key.trim() == name)
                .and_then(|(_, value)| value.trim().parse::<u64>().ok())
        };
        let version = settings
            .lines()
            .find_map(|line| line.trim().strip_prefix("LVM version:"));
        let mut overview = Self {
            version: version
                .and_then(|rest| rest.split_whitespace().next())
                .unwrap_or_default()
                .to_owned(),
            snapshot_autoextend: setting("snapshot_autoextend_threshold").unwrap_or(100),
            pool_autoextend: setting("thin_pool_autoextend_threshold").unwrap_or(100),
            monitoring: setting("monitoring") != Some(0),
            ..Self::default()
        };
        let reports = serde_json::Deserializer::from_str(reports).into_iter::<Report>();
        let mut volumes = Vec::new();
        for report in reports {
            for part in report.map_err(Error::Report)?.report {
                for row in part.vg {
                    if let Ok(missing @ 1..) = row.vg_missing_pv_count.parse() {
                        overview.incomplete.push((row.group.name.clone(), missing));
                    }
                    overview.groups.push(row.group);
                }
                volumes.extend(part.lv);
            }
        }
        for row in volumes {
            overview.add(row);
        }
        Ok(overview)
    }

    fn add(&mut self, row: VolumeRow) {
        if row.volume.segtype == "thin-pool" {
            self.pools.push(ThinPool {
                vg: row.vg_name.clone(),
                lv: row.volume.name.clone(),
                data_percent: percent(&row.data_percent),
                metadata_percent: percent(&row.metadata_percent),
                health: row.lv_health_status,
                monitored: row.seg_monitor == "monitored",
            });
        } else if row.volume.segtype == "thin" {
            self.thin.push(InPool {
                vg: row.vg_name.clone(),
                lv: row.volume.name.clone(),
                pool: row.pool_lv,
            });
        } else if row.seg_monitor == "not monitored" {
            self.unwatched.push((row.vg_name.clone(), row.volume.name.clone()));
        }
        if let Some(group) = self.groups.iter_mut().find(|group| group.name == row.vg_name) {
            group.volumes.push(row.volume);
        }
    }

    /// The group of this name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// The pool that the volume `lv` of the group `vg` is in, if it is a thin one.
    pub fn pool_of(&self, vg: &str, lv: &str) -> Option<&ThinPool> {
        let volume = self.thin.iter().find(|thin| thin.vg == vg && thin.lv == lv)?;
        self.pools.iter().find(|pool| pool.vg == vg && pool.lv == volume.pool)
    }
}

/// Where the reports begin: before them, what `version` prints has braces, too.
fn reports(stdout: &str) -> usize {
    let before = stdout.split_inclusive('\n');
    before
        .take_while(|line| !line.trim_start().starts_with('{'))
        .map(str::len)
        .sum()
}

/// `12.34`, or nothing.
fn percent(text: &str) -> Option<u8> {
    let value: f64 = text.parse().ok()?;
    // Within 0 and 100, whatever is said.
    Some(value.ceil().clamp(0.0, 100.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_lvm_reads() {
        assert!(script().lines().all(|line| line.len() <= 255), "{}", script());
    }

    #[test]
    fn one_answer_of_several_commands() {
        let text = r#"  LVM version:     2.03.16(2) (2022-05-18)
  Configuration:   ./configure --prefix=/usr --includedir=${prefix}/include
snapshot_autoextend_threshold=70
thin_pool_autoextend_threshold=100
monitoring=1
  { "report": [ { "vg": [
     {"vg_name":"x","vg_uuid":"c-d","vg_free":"4194304","vg_lock_type":"","vg_missing_pv_count":"1"} ] } ] }
  { "report": [ { "lv": [
     {"vg_name":"x","lv_name":"pool","lv_uuid":"a-b","lv_size":"4194304","lv_tags":"","lv_role":"private","origin":"","segtype":"thin-pool","lv_permissions":"writeable","pool_lv":"","data_percent":"12.34","metadata_percent":"1.00","lv_health_status":"","seg_monitor":"monitored"},
     {"vg_name":"x","lv_name":"base","lv_uuid":"e-f","lv_size":"4194304","lv_tags":"","lv_role":"public","origin":"","segtype":"thin","lv_permissions":"writeable","pool_lv":"pool","data_percent":"","metadata_percent":"","lv_health_status":"","seg_monitor":""} ] } ] }
"#;
        let overview = Overview::parse(text).expect("an overview");
        assert_eq!(overview.version, "2.03.16(2)");
        assert_eq!((overview.snapshot_autoextend, overview.pool_autoextend), (70, 100));
        assert_eq!(overview.incomplete, [("x".to_owned(), 1)]);
        assert_eq!(overview.group("x").map(|group| group.volumes.len()), Some(2));
        let pool = overview.pool_of("x", "base").expect("a pool");
        assert_eq!((pool.data_percent, pool.monitored), (Some(13), true));
        assert_eq!(overview.pool_of("x", "pool"), None);
    }
}

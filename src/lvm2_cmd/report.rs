// SPDX-License-Identifier: MIT OR Apache-2.0
//! LVM's JSON reports (`--reportformat json`, in which every value is a string) as typed values.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// The fields of [`Group`].
pub(super) const GROUP_FIELDS: &str = "vg_name,vg_uuid,vg_free,vg_lock_type";
/// The fields of [`LogicalVolume`].
pub(super) const VOLUME_FIELDS: &str = "lv_name,lv_uuid,lv_size,lv_tags,lv_role,origin,segtype,lv_permissions";

/// A volume group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Group {
    /// Its name.
    #[serde(rename = "vg_name")]
    pub name: String,
    /// Its UUID.
    #[serde(rename = "vg_uuid")]
    pub uuid: String,
    /// Bytes no volume uses.
    #[serde(rename = "vg_free", deserialize_with = "number")]
    pub free: u64,
    /// The lock manager of a shared group (`dlm`, `sanlock`); empty for a local one.
    #[serde(rename = "vg_lock_type")]
    pub lock_type: String,
    /// Its visible volumes.
    #[serde(skip)]
    pub volumes: Vec<LogicalVolume>,
}

/// A logical volume.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogicalVolume {
    /// Its name in the group.
    #[serde(rename = "lv_name")]
    pub name: String,
    /// Its UUID.
    #[serde(rename = "lv_uuid")]
    pub uuid: String,
    /// Its size in bytes.
    #[serde(rename = "lv_size", deserialize_with = "number")]
    pub size: u64,
    /// Its tags.
    #[serde(rename = "lv_tags", deserialize_with = "list")]
    pub tags: Vec<String>,
    /// What it is to other volumes (`public`, `snapshot`, `origin`, …).
    #[serde(rename = "lv_role", deserialize_with = "list")]
    pub roles: Vec<String>,
    /// The volume it is a snapshot of; empty if it is none.
    pub origin: String,
    /// The type of its first segment.
    pub segtype: String,
    /// Who may write it: `writeable`, `read-only`, `read-only-override` (only the kernel refuses), or `unknown` of one
    /// that is writable and not active.
    #[serde(rename = "lv_permissions")]
    pub permissions: String,
}

impl Group {
    /// Whether a device-mapper UUID is that of a volume of this group, or of a layer of one: another group may have
    /// the same name, on a disk that came from elsewhere.
    pub fn owns(&self, device_uuid: &str) -> bool {
        let own = self.uuid.replace('-', "");
        !own.is_empty()
            && device_uuid
                .strip_prefix("LVM-")
                .is_some_and(|uuid| uuid.starts_with(&own))
    }
}

impl LogicalVolume {
    /// Whether it has this role.
    pub fn is(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own == role)
    }
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(text
        .split(',')
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect())
}

#[derive(Deserialize)]
struct Report<T> {
    report: Vec<T>,
}

#[derive(Deserialize)]
struct Groups {
    vg: Vec<Group>,
}

#[derive(Deserialize)]
struct Volumes {
    lv: Vec<LogicalVolume>,
}

/// LVM may print a hint before the report (<https://github.com/lvmteam/lvm2/issues/137>).
fn json(stdout: &str) -> &str {
    stdout.find('{').map_or(stdout, |start| &stdout[start..])
}

/// The volume groups that `lvm vgs` reports.
pub fn groups(stdout: &str) -> Result<Vec<Group>, serde_json::Error> {
    let report: Report<Groups> = serde_json::from_str(json(stdout))?;
    Ok(report.report.into_iter().flat_map(|part| part.vg).collect())
}

/// The volumes that `lvm lvs` reports.
pub fn volumes(stdout: &str) -> Result<Vec<LogicalVolume>, serde_json::Error> {
    let report: Report<Volumes> = serde_json::from_str(json(stdout))?;
    Ok(report.report.into_iter().flat_map(|part| part.lv).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_strings() {
        let text = r#"  Consider pruning archives
  { "report": [ { "lv": [
      {"lv_name":"snap1","lv_uuid":"a-b","lv_size":"4194304","lv_tags":"ttvm,ttvm.guest=clientA","lv_role":"public,snapshot,thicksnapshot","origin":"base","segtype":"linear","lv_permissions":"writeable"}
  ] } ] }"#;
        let volumes = volumes(text).expect("a report");
        assert!(volumes[0].is("snapshot") && !volumes[0].is("origin"));
        assert_eq!(volumes[0].tags, ["ttvm", "ttvm.guest=clientA"]);
        let text = r#"{"report":[{"vg":[{"vg_name":"x","vg_uuid":"c-d","vg_free":"4194304","vg_lock_type":""}]}]}"#;
        let group = groups(text).expect("a report").remove(0);
        assert_eq!(group.free, 4_194_304);
        assert!(group.owns("LVM-cdab-cow") && !group.owns("LVM-abcd") && !group.owns("cd"));
        assert_eq!(groups(r#"{"report":[{"vg":[]}]}"#).expect("an empty report"), []);
    }
}

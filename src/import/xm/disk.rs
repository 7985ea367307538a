// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk as xm takes it: `KIND:TARGET,NAME,ACCESS`, then a backend's domain or what TT Xen has kept from the project before it.

use crate::import::disk::{Format, Spec};

/// Reads a disk. `Err` says what is not understood of it.
pub(in crate::import) fn parse(spec: &str) -> Result<Spec, String> {
    let mut fields = spec.splitn(4, ',');
    let (Some(target), Some(device), Some(access)) = (fields.next(), fields.next(), fields.next()) else {
        return Err("it needs three fields: what is behind it, its name in the guest, and r or w".into());
    };
    let mut disk = Spec::default();
    (disk.target, disk.format) = source(target)?;
    disk.device = target.starts_with("phy:");
    let device = device.strip_prefix("ioemu:").unwrap_or(device);
    let (vdev, kind) = device.split_once(':').unwrap_or((device, "disk"));
    disk.vdev = vdev.to_owned();
    disk.cdrom = match kind {
        "cdrom" => true,
        "disk" => false,
        _ => return Err(format!("{kind:?} is no kind of device")),
    };
    (disk.writable, disk.shared) = match access {
        "r" | "ro" => (false, false),
        "w" | "rw" => (true, false),
        "w!" | "rw!" => (true, true),
        _ => return Err(format!("{access:?} is no access: r, w or w!")),
    };
    match fields.next() {
        None | Some("") => {}
        // Several fields are TT Xen's; a word by itself is the domain that the disk comes from.
        Some(more) if more.contains([',', '/']) => disk.parameters = Some(more.to_owned()),
        Some(domain) => disk.backend = Some(domain.trim().to_owned()),
    }
    Ok(disk)
}

/// What is behind a disk: `phy:xenvg/snap1`, `file:/srv/a.img`, `tap:aio:/srv/a.img`.
fn source(target: &str) -> Result<(Option<String>, Format), String> {
    if target.is_empty() {
        return Ok((None, Format::Empty));
    }
    let unknown = |kind: &str| {
        Err(format!(
            "\"{kind}:\" is a kind of disk that is not carried over; phy:, file:, tap:aio: and tap:qcow2: are"
        ))
    };
    let (kind, rest) = target
        .split_once(':')
        .ok_or("it does not say what kind it is: phy: or file:")?;
    match kind {
        "phy" | "file" => Ok((Some(rest.to_owned()), Format::Raw)),
        "tap" | "tap2" => {
            // tap:tapdisk:aio: is an older spelling.
            let rest = rest.strip_prefix("tapdisk:").unwrap_or(rest);
            let (kind, path) = rest.split_once(':').unwrap_or(("aio", rest));
            match kind {
                "aio" | "sync" => Ok((Some(path.to_owned()), Format::Raw)),
                "qcow" => Ok((Some(path.to_owned()), Format::Qcow)),
                "qcow2" => Ok((Some(path.to_owned()), Format::Qcow2)),
                "vhd" => Ok((Some(path.to_owned()), Format::Vhd)),
                _ => unknown(&format!("tap:{kind}")),
            }
        }
        _ => unknown(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_of_xm() {
        let read = |spec| {
            parse(spec).map(|disk| {
                (
                    disk.target.unwrap_or_default(),
                    disk.vdev,
                    disk.writable,
                    disk.parameters,
                )
            })
        };
        let seed = "phy:/dev/xenvg/snap1,xvda1,w,xenvg,/dev/sdb/lvm_1,3G";
        let kept = Some("xenvg,/dev/sdb/lvm_1,3G".to_owned());
        assert_eq!(read(seed), Ok(("/dev/xenvg/snap1".into(), "xvda1".into(), true, kept)));
        assert_eq!(
            read("phy:xenvg/snap1,ioemu:hda,r"),
            Ok(("xenvg/snap1".into(), "hda".into(), false, None))
        );
        assert_eq!(
            read("tap:aio:/a b,sda1,w!"),
            Ok(("/a b".into(), "sda1".into(), true, None))
        );
        assert_eq!(
            parse("tap2:tapdisk:qcow2:/a,sda1,w").map(|disk| disk.format),
            Ok(Format::Qcow2)
        );
        assert_eq!(
            parse(",hdc:cdrom,r").map(|disk| (disk.cdrom, disk.format)),
            Ok((true, Format::Empty))
        );
        assert_eq!(
            parse("phy:/dev/a,xvda,w,storage").map(|disk| (disk.backend, disk.parameters)),
            Ok((Some("storage".into()), None))
        );
        assert_eq!(
            parse("phy:/dev/a,xvda,w,").map(|disk| (disk.backend, disk.parameters)),
            Ok((None, None))
        );
        for wrong in [
            "",
            "phy:/dev/a",
            "phy:/dev/a,xvda",
            "/dev/a,xvda,w",
            "nbd:1,xvda,w",
            "phy:/dev/a,xvda,x",
            "phy:/a,hda:tape,r",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

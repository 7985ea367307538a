// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the firmware makes possible: on UEFI, GRUB starts Xen only with its module multiboot2, and only without
//! Secure Boot, whose verifier lets neither Xen nor dom0's kernel pass as multiboot files
//! (`grub-core/kern/efi/sb.c`, GRUB_FILE_TYPE_MULTIBOOT_KERNEL and the list of forbidden types).

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::base::root::under;
use crate::file::tree;

/// "EFI_GLOBAL_VARIABLE" of the UEFI specification; Linux puts four bytes of attributes before the value.
const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Much more than that variable has.
const VARIABLE: u64 = 1 << 12;
const MODULES: [&str; 2] = ["/boot/grub/x86_64-efi", "/boot/grub2/x86_64-efi"];

/// The kind of firmware that this system was started by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// BIOS, or something that acts as one.
    Bios,
    /// UEFI, where GRUB can start Xen.
    Uefi,
    /// UEFI that starts only what is signed.
    SecureBoot,
    /// UEFI with a GRUB that cannot start Xen.
    NoMultiboot2,
}

impl Firmware {
    /// Of the system whose tree begins at `root`.
    pub fn of(root: &Path) -> Self {
        if !under(root, Path::new("/sys/firmware/efi")).exists() {
            return Self::Bios;
        }
        if tree::read(root, Path::new(SECURE_BOOT), VARIABLE).is_ok_and(|data| data.get(4) == Some(&1)) {
            return Self::SecureBoot;
        }
        let has_module = |directory: &&str| under(root, &Path::new(directory).join("multiboot2.mod")).exists();
        match MODULES.iter().any(has_module) {
            true => Self::Uefi,
            false => Self::NoMultiboot2,
        }
    }

    /// Why no entry with Xen can be started; `None` if it can.
    pub fn without_xen(self) -> Option<&'static str> {
        match self {
            Self::Bios | Self::Uefi => None,
            Self::SecureBoot => {
                Some("Secure Boot is on, and GRUB then starts no Xen; switch it off in the firmware's setup")
            }
            Self::NoMultiboot2 => Some(
                "GRUB's module multiboot2 is not in /boot/grub/x86_64-efi, and without it GRUB starts no Xen on UEFI; \
                 install GRUB's EFI modules and run grub-install",
            ),
        }
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bios => "BIOS",
            Self::Uefi => "UEFI",
            Self::SecureBoot => "UEFI with Secure Boot",
            Self::NoMultiboot2 => "UEFI, GRUB without multiboot2",
        })
    }
}

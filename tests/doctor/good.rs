// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host on which nothing is wrong: guests on xl with a thick and with a thin snapshot, one of TT Xen, one of QEMU.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ttvm::base::clock::boot_id;
use ttvm::boot::RunningXen;
use ttvm::config::places::Places;
use ttvm::doctor::{Answers, Asked, Check, Facts, Socket, examine};
use ttvm::lvm2_cmd::overview::Overview;
use ttvm::qemu::engine::Version;

/// As `xl info` prints it.
const XL: &str = "host                   : debian
xen_major              : 4
xen_minor              : 17
xen_extra              : .4
total_memory           : 3071
xen_commandline        : placeholder com1=115200,8n1 console=com1 watchdog sync_console dom0_max_vcpus=1 dom0_mem=500M,max:500M
";

/// As LVM answers several commands.
const LVM: &str = r#"  LVM version:     2.03.16(2) (2022-05-18)
  Library version: 1.02.185 (2022-05-18)
  Configuration:   ./configure --prefix=/usr --includedir=${prefix}/include --mandir=${prefix}/share/man
snapshot_autoextend_threshold=70
thin_pool_autoextend_threshold=70
monitoring=1
  {"report":[{"vg":[{"vg_name":"xenvg","vg_uuid":"a-b","vg_free":"8589934592","vg_lock_type":"","vg_missing_pv_count":"0"}]}]}
  {"report":[{"lv":[
{"vg_name":"xenvg","lv_name":"base","lv_uuid":"1","lv_size":"1073741824","lv_tags":"","lv_role":"public","origin":"","segtype":"linear","lv_permissions":"writeable","pool_lv":"","data_percent":"","metadata_percent":"","lv_health_status":"","seg_monitor":""},
{"vg_name":"xenvg","lv_name":"pool","lv_uuid":"2","lv_size":"1073741824","lv_tags":"","lv_role":"private","origin":"","segtype":"thin-pool","lv_permissions":"writeable","pool_lv":"","data_percent":"12.34","metadata_percent":"10.02","lv_health_status":"","seg_monitor":"monitored"},
{"vg_name":"xenvg","lv_name":"tbase","lv_uuid":"3","lv_size":"1073741824","lv_tags":"","lv_role":"public","origin":"","segtype":"thin","lv_permissions":"writeable","pool_lv":"pool","data_percent":"5.00","metadata_percent":"","lv_health_status":"","seg_monitor":""}]}]}
"#;

const MENU: &str = "if [ \"${next_entry}\" ] ; then
   set default=\"${next_entry}\"
else
   set default=\"${saved_entry}\"
fi
menuentry 'ttvm: Xen' --class xen $menuentry_id_option 'ttvm-ttxen-linux' {
\tif multiboot2 /boot/xen-4.17-amd64.gz placeholder watchdog; then
\t\tif module2 /boot/vmlinuz-6.1.0-56-amd64 placeholder root=UUID=2f0c ro ttvm.entry=ttvm-ttxen-linux ${ttvm_try}; then
\t\t\tif module2 --nounzip /boot/initrd.img-6.1.0-56-amd64; then
\t\t\t\tset ttvm_loaded=true
\t\t\tfi
\t\tfi
\tfi
}
menuentry 'ttvm: Linux' $menuentry_id_option 'ttvm-linux' {
\tlinux /vmlinuz-6.1.0-56-amd64 root=UUID=2f0c ro ttvm.entry=ttvm-linux
\tinitrd /initrd.img-6.1.0-56-amd64
}
";

/// The files, and what is in them.
const FILES: &[(&str, &str)] = &[
    ("boot/grub/grub.cfg", MENU),
    ("boot/initrd.img-6.1.0-56-amd64", "an initial RAM disk"),
    ("boot/vmlinuz-6.1.0-56-amd64", "a kernel"),
    ("boot/xen-4.17-amd64.gz", "Xen"),
    ("boot/guest", "a kernel"),
    (
        "etc/default/xendomains",
        "# XENDOMAINS_SAVE=/var/lib/xen/save\nXENDOMAINS_SAVE=\"\"\n",
    ),
    ("etc/ttvm/ttvm.toml", "[boot]\nwatchdog = true\n"),
    (
        "etc/ttvm/guests/clientA.toml",
        "memory = \"96M\"\nkernel = \"/boot/guest\"\n[[disk]]\norigin = \"xenvg/base\"\ntarget = \"xvda1\"\n\
         snapshot = { name = \"snap1\", size = \"32M\" }\n[[vif]]\n",
    ),
    (
        "etc/ttvm/guests/thin.toml",
        "memory = \"96M\"\nkernel = \"/boot/guest\"\n[[disk]]\norigin = \"xenvg/tbase\"\ntarget = \"xvda1\"\n\
         snapshot = { name = \"tsnap1\" }\n",
    ),
    (
        "etc/ttvm/guests/old.toml",
        "toolstack = \"xm\"\nmemory = \"96M\"\nkernel = \"/boot/guest\"\n",
    ),
    (
        "etc/ttvm/guests/emu.toml",
        "toolstack = \"qemu\"\nmemory = \"128M\"\nkernel = \"/boot/guest\"\ncmdline = \"console=ttyS0\"\n",
    ),
    ("proc/812/comm", "xenconsoled\n"),
    ("proc/cmdline", "root=UUID=2f0c ro ttvm.entry=ttvm-ttxen-linux\n"),
    (
        "proc/meminfo",
        "MemTotal:         480000 kB\nMemAvailable:     400000 kB\nSwapFree:              0 kB\n",
    ),
    ("proc/mounts", "none /sys/kernel/debug debugfs rw 0 0\n"),
    (
        "proc/sys/kernel/random/boot_id",
        "8d1d1d0e-0000-4000-8000-000000000000\n",
    ),
    ("proc/xen/capabilities", "control_d\n"),
    ("etc/systemd/system/sockets.target.wants/dm-event.socket", ""),
    ("run/systemd/system/x", ""),
    ("sys/class/net/ttbr0/ifindex", "4\n"),
    ("usr/sbin/dmeventd", ""),
    ("usr/sbin/dnsmasq", ""),
    ("usr/sbin/lvm", ""),
    ("usr/sbin/nft", ""),
    ("usr/sbin/xl", ""),
    ("usr/sbin/xm", ""),
];

/// A host in the making.
pub struct Host {
    files: BTreeMap<String, String>,
    links: Vec<(&'static str, &'static str)>,
    /// What `xl info` prints.
    pub xl: String,
    /// What LVM prints.
    pub lvm: String,
    /// What QEMU prints.
    pub qemu: &'static str,
    /// What changes in the answers.
    pub answers: fn(&mut Answers),
    /// The time.
    pub now: u64,
    /// The boot in which the network was made.
    pub boot: String,
}

impl Host {
    /// The good one.
    pub fn good() -> Self {
        let files = FILES
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        let mut files: BTreeMap<String, String> = files.collect();
        let block = format!("{:#<1024}", "# GRUB Environment Block\nsaved_entry=ttvm-linux\n");
        files.insert("boot/grub/grubenv".to_owned(), block);
        files.insert("var/lib/ttvm/network/state.json".to_owned(), String::new());
        Self {
            files,
            links: Vec::new(),
            xl: XL.to_owned(),
            lvm: LVM.to_owned(),
            qemu: "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b2)",
            answers: |_| {},
            // 2026-11-30
            now: 1_796_000_000,
            boot: boot_id(),
        }
    }

    /// Gives it a file.
    pub fn write(&mut self, path: &str, text: &str) {
        self.files.insert(path.to_owned(), text.to_owned());
    }

    /// Takes a file from it.
    pub fn remove(&mut self, path: &str) {
        assert!(self.files.remove(path).is_some(), "{path}");
    }

    /// Changes a file.
    pub fn replace(&mut self, path: &str, from: &str, to: &str) {
        let text = self.files.get_mut(path).expect(path);
        assert!(text.contains(from), "{path} has no {from}");
        *text = text.replace(from, to);
    }

    /// Gives a file another name.
    pub fn rename(&mut self, from: &str, to: &str) {
        let text = self.files.remove(from).expect(from);
        self.files.insert(to.to_owned(), text);
    }

    /// Gives it a symbolic link.
    pub fn link(&mut self, path: &'static str, target: &'static str) {
        self.links.push((path, target));
    }

    /// Makes it, below the directory that is returned.
    pub fn plant(&self, name: &str) -> PathBuf {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("doctor-{name}"));
        let _ = fs::remove_dir_all(&root);
        let place = |path: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            path
        };
        for (path, text) in &self.files {
            let text = match path.as_str() {
                "var/lib/ttvm/network/state.json" => self.network(),
                _ => text.clone(),
            };
            fs::write(place(path), text).expect("a file");
        }
        for (path, target) in &self.links {
            symlink(target, place(path)).expect("a link");
        }
        root
    }

    fn network(&self) -> String {
        serde_json::json!({
            "options": {"bridge": null, "uplink": null, "manage_uplink": null, "subnet": null, "dhcp": null},
            "settings": {
                "mode": "nat", "bridge": "ttbr0", "subnet": "10.0.0.0/24", "dhcp": true, "zone": null,
                "manage_uplink": false, "uplink": null
            },
            "steps": [], "leftover": [], "force": false, "boot": self.boot, "tried": "", "degraded": null, "last": 1
        })
        .to_string()
    }

    /// Looks at it.
    pub fn examine(&self, name: &str) -> Vec<Check> {
        let root = self.plant(name);
        let mut answers = Answers {
            xen: Asked::Answer(RunningXen::parse(&self.xl)),
            store: Asked::Answer(vec!["clientA".to_owned()]),
            grub_writes: Asked::Answer(()),
            lvm: Asked::Answer(Overview::parse(&self.lvm).expect("LVM's answer")),
            dm_event: Asked::Answer(Socket::parse("LoadState=loaded\nActiveState=active\n")),
            conflicts: Asked::Answer(Vec::new()),
            qemu: Asked::Answer(Version::parse(self.qemu).expect("a version")),
            free_space: Asked::Answer(20 << 30),
            now: self.now,
        };
        (self.answers)(&mut answers);
        let facts = Facts::read(&Places::system(&root));
        let mut checks = examine(&facts, &answers);
        let root = root.to_str().expect("a path");
        for check in &mut checks {
            check.sentence = check.sentence.replace(root, "");
        }
        checks
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
//! What makes a guest of a copy of a host.

mod network;

use std::fs;
use std::os::unix::fs::symlink;

use super::{Place, debugfs, header, set_mode, sh};

/// A host as Debian makes it, as far as it matters.
fn host(place: &Place) {
    for (name, content) in [
        ("usr/lib/systemd/systemd", ""),
        ("usr/bin/ssh-keygen", ""),
        ("usr/sbin/sshd", ""),
        ("usr/sbin/ifup", ""),
        (
            "etc/fstab",
            "UUID=1 / ext4 defaults 0 1\nUUID=2 none swap sw 0 0\n/dev/vg/srv /srv xfs defaults 0 2\n",
        ),
        ("etc/hostname", "host7\n"),
        (
            "etc/hosts",
            "127.0.0.1 localhost\n127.0.1.1 host7.example.org host7\n10.0.0.2 host70\n",
        ),
        ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        ("etc/ssh/ssh_host_ed25519_key", "secret"),
        ("etc/ssh/sshd_config", "config"),
        ("etc/crypttab", "x /dev/y\n"),
        ("etc/initramfs-tools/conf.d/resume", "RESUME=UUID=2\n"),
        (
            "etc/network/interfaces",
            "auto eth0\niface eth0 inet static\n  address 10.0.0.1/24\n",
        ),
        ("etc/network/interfaces.d/vlan", "x"),
        ("etc/udev/rules.d/70-persistent-net.rules", "x"),
        ("var/lib/systemd/random-seed", "seed"),
        ("var/lib/dhcp/dhclient.eth0.leases", "x"),
        ("etc/ttvm/guests/other.toml", "x"),
        ("etc/ttvm/ttvm.toml", "x"),
    ] {
        place.file(name, content);
    }
    let wants = place.path("src/etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).expect("a directory");
    for unit in [
        "ttvm-network.service",
        "ttvm@other.service",
        "xenconsoled.service",
        "ssh.service",
    ] {
        symlink(format!("/lib/systemd/system/{unit}"), wants.join(unit)).expect("a link");
    }
    symlink(
        "/dev/null",
        place.path("src/etc/systemd/system/serial-getty@hvc0.service"),
    )
    .expect("a link");
}

const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";

#[test]
fn a_guest_of_its_own() {
    let place = Place::new("identity");
    host(&place);
    set_mode(&place.path("src/etc/hosts"), 0o640);
    let said = place.made("--size 64M --from DIR/src");
    let line = place.content("/etc/fstab");
    let uuid = line
        .lines()
        .nth(1)
        .and_then(|line| line.strip_prefix("UUID="))
        .expect(&line);
    let (uuid, rest) = uuid.split_once(' ').expect("a line");
    assert_eq!(rest, "/ ext4 errors=remount-ro 0 1");
    let superblock = debugfs(&place.path("image"), "show_super_stats -h");
    assert!(superblock.contains(uuid), "{superblock}");
    assert_eq!(place.content("/etc/hostname"), "clientA\n");
    assert_eq!(
        place.content("/etc/hosts"),
        "127.0.0.1 localhost\n127.0.1.1 clientA.example.org clientA\n10.0.0.2 host70\n"
    );
    assert!(debugfs(&place.path("image"), "stat /etc/hosts").contains("Mode:  0640"));
    assert!(place.has("/etc/machine-id") && place.content("/etc/machine-id").is_empty());
    assert_eq!(place.content("/etc/crypttab"), "# Emptied by `ttvm image create`.\n");
    assert_eq!(place.content("/etc/initramfs-tools/conf.d/resume"), "RESUME=none\n");
    let network = place.content("/etc/network/interfaces");
    assert!(
        network.contains("iface eth0 inet dhcp\n") && !network.contains("10.0.0.1"),
        "{network}"
    );
    for gone in [
        "/etc/ssh/ssh_host_ed25519_key",
        "/etc/network/interfaces.d/vlan",
        "/etc/udev/rules.d/70-persistent-net.rules",
        "/var/lib/systemd/random-seed",
        "/var/lib/dhcp/dhclient.eth0.leases",
        "/etc/ttvm/guests/other.toml",
        "/etc/systemd/system/serial-getty@hvc0.service",
        &format!("{WANTS}/ttvm-network.service"),
        &format!("{WANTS}/ttvm@other.service"),
        &format!("{WANTS}/xenconsoled.service"),
    ] {
        assert!(!place.has(gone), "{gone}: {said}");
    }
    for there in [
        "/etc/ssh/sshd_config",
        "/etc/ttvm/ttvm.toml",
        &format!("{WANTS}/ssh.service"),
        &format!("{WANTS}/ttvm-ssh-keys.service"),
        "/etc/systemd/system/ttvm-ssh-keys.service",
        "/proc",
        "/run",
    ] {
        assert!(place.has(there), "{there}: {said}");
    }
    assert!(
        place
            .content("/etc/systemd/system/ttvm-ssh-keys.service")
            .contains("\nBefore=ssh.service sshd.service\n")
    );
    assert!(debugfs(&place.path("image"), "stat /tmp").contains("Mode:  01777"));
    assert!(
        said.contains("its network: ifupdown, with DHCP on the first network card\n"),
        "{said}"
    );
    // There is nothing to boot in it.
    assert!(
        said.contains("there is no kernel in DIR/src (boot/vmlinuz-VERSION): install one there"),
        "{said}"
    );
    let file = "In /etc/ttvm/guests/clientA.toml:\n\ntoolstack = \"qemu\"\nmemory    = \"256M\"\non_reboot = \"stop\"\n\n[[disk]]\n\
        origin = \"DIR/image\"\ntarget = \"vda\"\n\n[[vif]]\n";
    assert!(said.contains(file), "{said}");
}

/// What the source boots is kept beside the image, and the guest's file is whole.
#[test]
fn with_its_kernel() {
    let place = Place::new("bootable");
    host(&place);
    for (name, content) in [
        ("boot/vmlinuz-6.1.0-9-amd64", "an older kernel"),
        ("boot/initrd.img-6.1.0-9-amd64", "its initrd"),
        ("boot/vmlinuz-6.1.0-10-amd64", "the kernel"),
        ("boot/initrd.img-6.1.0-10-amd64", "the initrd"),
        ("boot/vmlinuz-6.1.0-11-amd64", "not installed to its end"),
    ] {
        place.file(name, content);
    }
    sh("tar -C src -cf src.tar .", &place.0);
    for (source, image) in [("src", "image"), ("src.tar", "other")] {
        let said = place.session(&format!("--size 64M --from DIR/{source} --file DIR/{image}"));
        let (kernel, initrd) = (
            kept(&place, "vmlinuz-6.1.0-10-amd64."),
            kept(&place, "initrd-6.1.0-10-amd64."),
        );
        assert_eq!(
            fs::read(place.path(&kernel)).expect("a kernel"),
            b"the kernel",
            "{said}"
        );
        assert_eq!(
            fs::read(place.path(&initrd)).expect("an initrd"),
            b"the initrd",
            "{said}"
        );
        let superblock = debugfs(&place.path(image), "show_super_stats -h");
        let uuid = superblock
            .lines()
            .find_map(|line| line.strip_prefix("Filesystem UUID:"));
        let uuid = uuid.expect("a UUID").trim();
        let file = format!(
            "toolstack = \"qemu\"\nmemory    = \"384M\"\non_reboot = \"stop\"\nkernel    = \"DIR/{kernel}\"\ninitrd    = \"DIR/{initrd}\"\n\
             cmdline   = \"console=ttyS0 panic=-1 no_timer_check nolapic_timer root=UUID={uuid} ro\"\n\n[[disk]]\n\
             origin = \"DIR/{image}\"\ntarget = \"vda\"\n\n[[vif]]\n"
        );
        assert!(said.contains(&file), "{said}");
    }
}

/// The one file whose name begins so.
fn kept(place: &Place, begins: &str) -> String {
    let entries = fs::read_dir(place.path("")).expect("a directory").flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let names: Vec<String> = names.filter(|name| name.starts_with(begins)).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    names.concat()
}

#[test]
fn each_part_can_be_kept() {
    let place = Place::new("kept");
    host(&place);
    let parts = [
        ("fstab", "/etc/fstab", "/dev/vg/srv"),
        ("hostname", "/etc/hostname", "host7"),
        ("id", "/etc/machine-id", "0123456789abcdef"),
        ("ssh-keys", "/etc/ssh/ssh_host_ed25519_key", "secret"),
        ("swap", "/etc/crypttab", "/dev/y"),
        ("network", "/etc/network/interfaces", "10.0.0.1/24"),
        ("state", "/var/lib/systemd/random-seed", "seed"),
        ("services", "/etc/ttvm/guests/other.toml", "x"),
    ];
    place.made("--size 64M --from DIR/src --fstab-root /dev/xvda1");
    assert!(place.content("/etc/fstab").contains("\n/dev/xvda1 / ext4 "));
    for (_, path, content) in parts {
        assert!(!place.content(path).contains(content), "{path}");
    }
    for (keep, path, content) in parts {
        fs::remove_file(place.path("image")).expect("the image goes");
        place.made(&format!("--size 64M --from DIR/src --keep {keep}"));
        assert!(place.content(path).contains(content), "{keep}");
    }
}

/// As it is, to the last byte, and the same file by all its names.
#[test]
fn all_can_be_kept() {
    let place = Place::new("kept-all");
    host(&place);
    let table = "id:2:initdefault:\n1:2345:respawn:/sbin/getty 38400 tty1\n\n";
    let path = place.file("etc/inittab", table);
    fs::hard_link(path, place.path("src/again")).expect("a link");
    place.made("--size 64M --from DIR/src --keep all");
    assert_eq!(place.content("/etc/inittab"), table);
    assert!(debugfs(&place.path("image"), "stat /etc/inittab").contains("Links: 2"));
    fs::remove_file(place.path("image")).expect("the image goes");
    place.made("--size 64M --from DIR/src --keep console");
    assert_eq!(place.content("/etc/inittab"), table);
}

/// By which others know the host, too.
#[test]
fn keys_and_ids_of_others() {
    let place = Place::new("keys");
    let keys = [
        ("ssh-keys", "/etc/dropbear/dropbear_ed25519_host_key"),
        ("ssh-keys", "/etc/dropbear/dropbear_ed25519_host_key.pub"),
        ("id", "/etc/wireguard/wg0.conf"),
        ("id", "/var/lib/tailscale/tailscaled.state"),
        ("id", "/var/lib/zerotier-one/identity.secret"),
        ("state", "/etc/dhcpcd.duid"),
        ("state", "/etc/dhcpcd.secret"),
        ("state", "/var/lib/wicked/duid.xml"),
    ];
    let others = ["/etc/dropbear/config", "/var/lib/zerotier-one/local.conf"];
    for path in keys.iter().map(|(_, path)| path).chain(&others) {
        place.file(&path[1..], "x");
    }
    place.file("usr/sbin/dropbear", "");
    let said = place.made("--size 64M --from DIR/src");
    assert!(
        said.contains("its host keys of SSH are gone: see that it makes new ones (`dropbear -R`)\n"),
        "{said}"
    );
    assert!(keys.iter().all(|(_, path)| !place.has(path)), "{said}");
    assert!(others.iter().all(|path| place.has(path)), "{said}");
    for kept in ["id", "ssh-keys", "state"] {
        fs::remove_file(place.path("image")).expect("the image goes");
        let said = place.made(&format!("--size 64M --from DIR/src --keep {kept}"));
        assert_eq!(said.contains("host keys"), kept != "ssh-keys", "{said}");
        for (part, path) in keys {
            assert_eq!(place.has(path), part == kept, "{path}: {said}");
        }
    }
}

/// Of what is kept the plan says nothing.
#[test]
fn what_is_its_own() {
    let place = Place::new("own");
    host(&place);
    let plan = |kept: &str| place.session(&format!("--size 64M --from DIR/src --dry-run --keep {kept}"));
    for (kept, own) in [
        ("id", "name and root"),
        ("hostname,fstab", "ids"),
        ("console,caches", "name, root and ids"),
    ] {
        let (said, line) = (
            plan(kept),
            format!("\nwould make it the guest clientA, by its own {own}\n"),
        );
        assert!(said.contains(&line), "{said}");
    }
    for kept in ["fstab,hostname,id", "all"] {
        let said = plan(kept);
        assert!(!said.contains("its own") && said.ends_with("[0]"), "{said}");
    }
    for kept in ["fstab", "all"] {
        place.says(
            &format!("--size 64M --from DIR/src --file DIR/image --fstab-root /dev/xvda1 --keep id,{kept}"),
            &format!(
                "ttvm: --fstab-root is for a new /etc/fstab, and --keep {kept} leaves the one in the source: give one of both\n[2]"
            ),
        );
    }
    assert_eq!(place.rest(), [""; 0]);
}

/// A System V init has a table of terminals, and no service for the rest.
#[test]
fn without_systemd() {
    let place = Place::new("sysv");
    place.file(
        "etc/inittab",
        "id:2:initdefault:\n1:2345:respawn:/sbin/getty 38400 tty1\n",
    );
    place.file("etc/securetty", "tty1\nttyS0\n");
    place.file("etc/rc2.d/S20xendomains", "x");
    place.file("etc/rc2.d/S20ssh", "x");
    place.made("--size 64M --from DIR/src --fs ext3");
    let table = place.content("/etc/inittab");
    assert!(
        table.contains("\nh0:2345:respawn:/bin/sh -c '[ -c /dev/hvc0 ]"),
        "{table}"
    );
    assert_eq!(place.content("/etc/securetty"), "tty1\nttyS0\nhvc0\n");
    assert!(place.content("/etc/fstab").contains(" / ext3 "));
    assert!(!place.has("/etc/rc2.d/S20xendomains") && place.has("/etc/rc2.d/S20ssh"));
    assert!(!place.has("/etc/machine-id"));
}

/// Archives of containers have empty files for the devices. A device that is there stays, with its own permissions.
#[test]
fn devices_that_are_files() {
    let place = Place::new("guest-devices");
    place.file("dev/console", "");
    place.file("dev/null", "what was written to it");
    let device = |name: &str| debugfs(&place.path("image"), &format!("stat /dev/{name}"));
    let are_devices = || {
        for (name, mode, numbers) in [("console", "0600", "05:01"), ("null", "0666", "01:03")] {
            let said = device(name);
            assert!(
                said.contains("Type: character special") && said.contains(mode),
                "{said}"
            );
            assert!(
                said.contains(&format!("Device major/minor number: {numbers}")),
                "{said}"
            );
        }
    };
    sh(
        "tar -C src -cf x.tar dev; ln src/dev/null src/again; tar -C src -cf links.tar dev again",
        &place.0,
    );
    fs::remove_file(place.path("src/again")).expect("it goes");
    for source in ["src", "x.tar", "links.tar"] {
        place.made(&format!("--size 64M --from DIR/{source}"));
        are_devices();
        if source == "links.tar" {
            assert_eq!(place.content("/again"), "what was written to it");
        }
        fs::remove_file(place.path("image")).expect("the image goes");
    }
    let mut archive = tar::Builder::new(fs::File::create(place.path("x.tar")).expect("a file"));
    let mut header = header();
    header.set_entry_type(tar::EntryType::Char);
    header.set_mode(0o640);
    header.set_device_major(5).expect("a number");
    header.set_device_minor(1).expect("a number");
    archive
        .append_data(&mut header, "dev/console", std::io::empty())
        .expect("a member");
    archive.into_inner().expect("an archive");
    place.made("--size 64M --from DIR/x.tar");
    assert!(device("console").contains("0640"), "{}", device("console"));
}

/// Busybox has another table, and an ifupdown that does not hear of cards as they come.
#[test]
fn with_busybox() {
    let place = Place::new("busybox");
    place.file("etc/hostname", "localhost\n");
    place.file("etc/hosts", "127.0.0.1 localhost\n");
    place.file(
        "etc/inittab",
        "::sysinit:/sbin/openrc boot\n::wait:/sbin/openrc default\n",
    );
    place.file("etc/network/interfaces", "auto eth0\niface eth0 inet static\n");
    place.file("usr/sbin/sshd", "");
    place.file("usr/bin/ssh-keygen", "");
    place.file("etc/ssh/ssh_host_rsa_key", "secret");
    place.file("sbin/agetty", "");
    symlink("/bin/busybox", place.path("src/sbin/ifup")).expect("a link");
    let said = place.made("--size 64M --from DIR/src");
    assert!(!said.contains("host keys"), "{said}");
    let table = place.content("/etc/inittab");
    assert!(
        table.contains(
            "\n::respawn:/bin/sh -c '[ -c /dev/hvc0 ] || exec sleep 100000; exec /sbin/agetty 115200 hvc0 linux'\n"
        ),
        "{table}"
    );
    assert!(table.ends_with("\n::sysinit:/usr/bin/ssh-keygen -A\n"), "{table}");
    assert!(!place.has("/etc/ssh/ssh_host_rsa_key"));
    assert_eq!(place.content("/etc/hosts"), "127.0.0.1 localhost\n127.0.1.1\tclientA\n");
    let network = place.content("/etc/network/interfaces");
    assert!(
        network.ends_with("\nauto eth0\niface eth0 inet dhcp\n") && !network.contains("allow-hotplug"),
        "{network}"
    );
    assert!(said.contains("its network: ifupdown, with DHCP on eth0\n"), "{said}");
    fs::remove_file(place.path("image")).expect("the image goes");
    fs::remove_file(place.path("src/etc/inittab")).expect("the table goes");
    let said = place.made("--size 64M --from DIR/src");
    assert!(
        said.contains("its host keys of SSH are gone: see that it makes new ones (`ssh-keygen -A`)\n"),
        "{said}"
    );
    fs::remove_file(place.path("image")).expect("the image goes");
    assert!(
        !place
            .made("--size 64M --from DIR/src --keep ssh-keys")
            .contains("host keys")
    );
}

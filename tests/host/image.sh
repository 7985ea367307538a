#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Builds the disks of the emulated Xen host, once, and prints the directory that holds them. SUITE names the Debian that it
# is: bookworm (12, the default) or trixie (13).
#
#   root.raw  data.raw      a Debian with GRUB and Xen; a volume group. Never written again.
#   esp.raw                 what UEFI firmware starts: GRUB for the same Debian.
#   root.qcow2 data.qcow2   empty overlays for those two, with room for snapshots of the whole machine.
#
# The directory is named after the content of this script and of rootfs/, so a change in either makes a new one.
# No loop device and no mount is used: mke2fs fills the file system, and what needs a running kernel (grub-install, LVM)
# happens in one short boot of the image itself (rootfs/usr/lib/ttvm-host/setup).
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
suite=${SUITE:-bookworm}
cache=${TTVM_HOST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ttvm/host}
PATH=$PATH:/usr/sbin:/sbin

say() { echo "host image ($suite): $*" >&2; }
die() { say "$*"; exit 1; }

case $suite in
    bookworm | trixie) ;;
    *) die "no such Debian; SUITE is bookworm or trixie" ;;
esac

# What runs in the host, and why it is more than a minimal Debian.
packages=(
    systemd systemd-sysv udev dbus kmod procps                      # a machine
    linux-image-amd64 initramfs-tools zstd grub-pc grub-efi-amd64-bin   # that boots
    xen-system-amd64 xen-utils-common                               # as a Xen host
    lvm2 thin-provisioning-tools dmeventd e2fsprogs                 # with LVM
    iproute2 nftables bridge-utils dnsmasq-base polkitd             # for the network modes
    busybox-static cpio python3                                     # for our guests and our agent
    man-db                                                          # systemd-analyze verify asks for the pages it names
    qemu-system-x86 qemu-utils                                      # records and replays, within the emulated host
    qemu-system-xen                                                 # the device model of HVM guests
    dracut-core                                                     # makes an initrd of the other kind
    strace                                                          # kills LVM at the system call a test names
    dosfstools                                                      # makes the EFI system partition
    xz-utils                                                        # unpacks modules of kernels since 6.12
)
# Never needed. Less to unpack, to copy, and, with one emulated processor, to go through at each boot: the initrd gets
# along without udev and LVM, and hardware that only says hello is not driven.
excluded=(
    '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/info/*' '/usr/share/locale/*' '/usr/share/lintian/*'
    /usr/share/initramfs-tools/hooks/{dmsetup,fsck,keymap,lvm2,resume,thermal,thin-provisioning-tools,udev}
    /usr/share/initramfs-tools/scripts/{init-top,init-bottom,local-premount,local-top,local-block}/'*'
    {,/usr}'/lib/modules/*/kernel/sound/*' {,/usr}'/lib/modules/*/kernel/arch/x86/'{crypto,kvm}'/*'
    {,/usr}'/lib/modules/*/kernel/net/'{bluetooth,can,ceph,dccp,ieee802154,mac80211,mac802154,nfc,rds,rxrpc,sctp,smc,tipc,wireless}'/*'
    {,/usr}'/lib/modules/*/kernel/fs/'{afs,btrfs,ceph,cifs,coda,f2fs,gfs2,jffs2,jfs,nfs,nfsd,nilfs2,ntfs3,ocfs2,orangefs,reiserfs,smb,ubifs,udf,ufs,xfs}'/*'
    {,/usr}'/lib/modules/*/kernel/drivers/'{accessibility,ata,atm,bluetooth,comedi,cpufreq,crypto,edac,firewire,firmware,gpu,hid,hv,hwmon,i2c,iio,infiniband,input,isdn,leds,media,message,mfd,misc,mmc,mtd,nvme,parport,pcmcia,platform,power,scsi,soundwire,staging,target,thermal,thunderbolt,ufs,usb,video,w1,watchdog}'/*'
    {,/usr}'/lib/modules/*/kernel/drivers/net/'{can,ethernet,fddi,hamradio,ieee802154,phy,usb,wan,wireless}'/*'
)

install_missing() {
    local pair missing=()
    for pair in mmdebstrap:mmdebstrap mke2fs:e2fsprogs sfdisk:fdisk qemu-system-x86_64:qemu-system-x86 \
        qemu-img:qemu-utils flock:util-linux $([ "$(id -u)" = 0 ] || echo fakeroot:fakeroot); do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    [ -e /usr/share/ovmf/OVMF.fd ] || missing+=(ovmf)
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        die "please install: ${missing[*]}"
    fi
    say "installing ${missing[*]}"
    local get=(apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=600 install "${missing[@]}")
    export DEBIAN_FRONTEND=noninteractive
    # The package lists are often there and good enough.
    if ! "${get[@]}" >/dev/null 2>&1 </dev/null && ! { apt-get -qq update && "${get[@]}"; } </dev/null >&2; then
        die "could not install ${missing[*]}"
    fi
}

install_missing
# Once more: installing one version of qemu-system-x86 removes another version's qemu-utils.
install_missing
mkdir -p "$cache"
hash=$suite-$(cd "$here" && { cat image.sh; find rootfs -type f -printf '%p %m\n' | sort; find rootfs -type f | sort | xargs cat; } | sha256sum | cut -c1-16)
done_dir=$cache/$hash

exec 9>"$cache/$suite.lock"
flock -n 9 || { say "waiting for another build"; flock 9; }
if [ -e "$done_dir/root.raw" ]; then
    touch "$done_dir"
    echo "$done_dir"
    exit 0
fi

# We hold the lock: what other builds left unfinished is rubbish, and so is what nobody has used for a week.
rm -rf "$cache/tmp.$suite".*
find "$cache" -maxdepth 1 -regextype posix-extended -regex '.*/([a-z]+-)?[0-9a-f]{16}' -mtime +7 -exec rm -rf {} +

work=$(mktemp -d "$cache/tmp.$suite.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
start=$SECONDS

say "unpacking Debian with Xen (once; a few minutes)"
list=$(IFS=,; echo "${packages[*]}")
if ! mmdebstrap --quiet --variant=apt --include="$list" "${excluded[@]/#/--dpkgopt=path-exclude=}" \
    --essential-hook="tar -C '$here/rootfs' --owner=0 --group=0 --numeric-owner -c . | tar -C \"\$1\" --keep-directory-symlink -x" \
    --customize-hook='rm -f "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap' \
    --customize-hook='cd "$1"/boot && kernel=$(ls vmlinuz-* | cut -d- -f2-) && chroot "$1" dracut --quiet --no-hostonly --zstd \
        --modules "base rootfs-block kernel-modules fs-lib shutdown" --filesystems ext4 --drivers "virtio_pci virtio_blk" \
        --kver "$kernel" /usr/lib/ttvm-host/initrd-dracut.img' \
    --customize-hook='cd "$1"/usr/lib/ttvm-host && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq -o APT::Sandbox::User=root download \
        "$(APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-cache depends linux-image-cloud-amd64 | sed -n "s/.*Depends: //p" | grep ^linux-image-)" && mv linux-image-*.deb second-kernel.deb' \
    "$suite" "$work/root.tar" >"$work/log" 2>&1; then
    tail -n 40 "$work/log" >&2
    die "mmdebstrap failed"
fi
say "unpacked after $((SECONDS - start)) s"

# MBR partitions: the first starts at 1 MiB, so that GRUB has room before it; the second is for a /boot of its own.
truncate -s 5G "$work/root.raw"
truncate -s 6G "$work/data.raw"
truncate -s 64M "$work/esp.raw"
printf '%s\n' '2048,4700M,83,*' ',,83' | sfdisk -q "$work/root.raw"

# As another user than root, fakeroot remembers who owns what between tar and mke2fs.
as_root=()
[ "$(id -u)" = 0 ] || as_root=(fakeroot)
export work
"${as_root[@]}" bash -e <<'INNER'
mkdir "$work/root"
tar -C "$work/root" -x --numeric-owner -f "$work/root.tar"
rm "$work/root.tar"
cd "$work/root"
echo ttvm-host >etc/hostname
echo '127.0.0.1 localhost ttvm-host' >etc/hosts
# No fsck before mounting: after a power cut the journal is what has to do.
echo '/dev/vda1 / ext4 errors=remount-ro 0 0' >etc/fstab
# A fixed machine id, and time stamps in the future: else systemd takes every start for the first one.
echo 74746d2d686f7374000000000000fade >etc/machine-id
mkdir -p var/log/journal
touch -d '+1 day' etc/.updated var/.updated
sed -i 's/^root:[^:]*:/root::/' etc/shadow
cp boot/vmlinuz-* "$work/vmlinuz"
cp boot/initrd.img-* "$work/initrd"
mke2fs -q -t ext4 -L ttvm-host -N 100000 -m 0 -d . -E offset=1048576,lazy_itable_init=0,lazy_journal_init=0,nodiscard \
    "$work/root.raw" 4700M
rm -rf "$work/root"
INNER
say "file system made after $((SECONDS - start)) s"

# The image's first boot, without systemd: setup is process 1 and powers off when it is done.
# setpriv: this emulator does not outlive us.
if ! timeout -k 5 600 setpriv --pdeathsig KILL qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 1024 \
    -nodefaults -display none -no-reboot -serial "file:$work/setup.log" -kernel "$work/vmlinuz" -initrd "$work/initrd" \
    -append 'root=/dev/vda1 rw console=ttyS0 quiet cryptomgr.notests panic=-1 init=/usr/lib/ttvm-host/setup' \
    -drive "if=virtio,format=raw,cache=unsafe,file=$work/root.raw" \
    -drive "if=virtio,format=raw,cache=unsafe,file=$work/data.raw" \
    -drive "if=virtio,format=raw,cache=unsafe,file=$work/esp.raw" </dev/null >&2 ||
    ! grep -q '^ttvm-host setup: done' "$work/setup.log"; then
    tail -n 40 "$work/setup.log" >&2
    die "setting up the image in its own kernel failed"
fi
rm -f "$work/vmlinuz" "$work/initrd" "$work/log"

for disk in root data; do
    (cd "$work" && qemu-img create -q -f qcow2 -F raw -b "$disk.raw" "$disk.qcow2")
done
chmod 0755 "$work"
mv "$work" "$done_dir"
say "ready after $((SECONDS - start)) s: $(du -sh "$done_dir" | cut -f1)"
echo "$done_dir"

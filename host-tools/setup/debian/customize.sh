#!/bin/sh
# Makes what mmdebstrap has installed a system that boots from its disk to a login on COM1: root, without a password.
#
# usage: customize.sh ROOT      (mmdebstrap's --customize-hook; $PCANEL_NAME and $PCANEL_UUID are the host's name and
#                                the file system's identity)
set -eu

root=$1
etc=$root/etc

sed -i 's/^root:[^:]*:/root::/' "$etc/shadow"
echo "$PCANEL_NAME" > "$etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$PCANEL_NAME" > "$etc/hosts"
echo "UUID=$PCANEL_UUID / ext4 errors=remount-ro 0 1" > "$etc/fstab"
# A known machine need not be set up at each start from a disk whose changes are forgotten.
printf '%s' "$PCANEL_UUID" | tr -d - > "$etc/machine-id"
# Addresses by DHCP, where there is a network. The resolver is that of the engines' user-mode network.
echo "nameserver 10.0.2.3" > "$etc/resolv.conf"
mkdir -p "$etc/systemd/system/multi-user.target.wants"
ln -sf /lib/systemd/system/systemd-networkd.service "$etc/systemd/system/multi-user.target.wants/"
cat > "$etc/systemd/network/80-dhcp.network" <<NETWORK
[Match]
Name=en* eth*

[Network]
DHCP=yes
NETWORK

# What has nothing to do here, and what a first start would do for a quarter of an hour of an emulated machine.
for unit in e2scrub_reap.service ldconfig.service systemd-journal-flush.service systemd-firstboot.service \
    apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer \
    systemd-hwdb-update.service systemd-journal-catalog-update.service systemd-repart.service systemd-pstore.service \
    getty-static.service; do
    ln -sf /dev/null "$etc/systemd/system/$unit"
done
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/log/*.log "$root"/var/log/apt

mkdir -p "$root/boot/grub"
cat > "$root/boot/grub/grub.cfg" <<GRUB
if [ "\$grub_platform" = efi ]; then
    terminal_input console
    terminal_output console
else
    serial --unit=0 --speed=115200
    terminal_input serial console
    terminal_output serial console
fi
set timeout=0
menuentry Debian {
    linux /vmlinuz root=UUID=$PCANEL_UUID ro quiet cryptomgr.notests console=ttyS0,115200
    initrd /initrd.img
}
GRUB

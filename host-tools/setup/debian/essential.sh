#!/bin/sh
# What has to be in a Debian disk before its kernel is installed: the initrd's modules, few of them.
#
# usage: essential.sh ROOT      (mmdebstrap's --essential-hook)
set -eu

mkdir -p "$1/etc/initramfs-tools/conf.d"
echo MODULES=list > "$1/etc/initramfs-tools/conf.d/pcanel"
printf '%s\n' virtio_pci virtio_mmio virtio_blk virtio_scsi sd_mod sr_mod ata_piix ahci ext4 \
    > "$1/etc/initramfs-tools/modules"

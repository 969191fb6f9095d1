#!/bin/sh
# What has to be in a Debian disk before its kernel is installed: the initrd's modules, few of them. They are only put
# in, where a list of initramfs-tools would load them all: udev loads what the machine has.
#
# usage: essential.sh ROOT      (mmdebstrap's --essential-hook)
set -eu

tools=$1/etc/initramfs-tools
mkdir -p "$tools/conf.d" "$tools/hooks"
echo MODULES=list > "$tools/conf.d/pcanel"
cat > "$tools/hooks/pcanel" <<'HOOK'
#!/bin/sh
if [ "${1:-}" = prereqs ]; then
    exit 0
fi
. /usr/share/initramfs-tools/hook-functions
manual_add_modules virtio_pci virtio_mmio virtio_blk virtio_scsi sd_mod sr_mod ata_piix ahci ext4
HOOK
chmod 755 "$tools/hooks/pcanel"

#!/bin/sh
# Fetches the kernel package that one of Debian's metapackages depends on now,
# and unpacks it.
#
# usage: kernel.sh APT_STATE METAPACKAGE DEST
set -eu

here=$(cd "$(dirname "$0")" && pwd)
apt_state=$(cd "$1" && pwd)
meta=$2
dest=$3

# Lists that are older than the mirror's newest kernel lead to a 404: read them again, once.
fetch() {
    package=$(apt-cache -c "$apt_state/apt.conf" depends --important "$meta" |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    if [ -z "$package" ]; then
        echo "setup: $meta depends on no linux-image package" >&2
        return 1
    fi
    echo "setup: fetching $package (what $meta stands for now)"
    (cd "$dest.download" && apt-get -c "$apt_state/apt.conf" download "$package")
}

rm -rf "$dest"
"$here/apt-directory.sh" "$dest.download"
if ! fetch; then
    apt-get -c "$apt_state/apt.conf" update || true # a list that does not arrive may not be needed
    fetch
fi
dpkg-deb -x "$dest.download"/linux-image-*.deb "$dest"
rm -rf "$dest.download"
echo "setup: $(basename "$dest"/boot/vmlinuz-*) is in $dest"

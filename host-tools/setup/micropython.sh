#!/bin/sh
# Fetches MicroPython's source by apt from Debian, checks it, and unpacks it.
#
# usage: micropython.sh APT_STATE DEST
set -eu

here=$(cd "$(dirname "$0")" && pwd)
apt_state=$(cd "$1" && pwd)
dest=$2
version=1.25.0+ds-1
tarball=micropython_1.25.0+ds.orig.tar.xz
sha256=7b25be99a502f070b2de81dafc08da7051d992325d6e67daa9045a918fffdbea

"$here/apt-directory.sh" "$dest.download"
echo "setup: fetching MicroPython's source, Debian's micropython $version (6 MB)"
(cd "$dest.download" &&
    apt-get -c "$apt_state/apt.conf" source --download-only micropython=$version &&
    echo "$sha256  $tarball" | sha256sum --check)

rm -rf "$dest"
mkdir -p "$dest"
tar -xJf "$dest.download/$tarball" -C "$dest" --strip-components=1
echo "setup: MicroPython is in $dest"

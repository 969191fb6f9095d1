#!/bin/sh
# Fetches MicroPython's source by apt from Debian, checks it, unpacks it, and applies the patches in micropython/.
#
# usage: micropython.sh APT_STATE DEST
set -eu

here=$(cd "$(dirname "$0")" && pwd)
apt_state=$(cd "$1" && pwd)
dest=$2
version=1.25.0+ds-1
tarball=micropython_1.25.0+ds.orig.tar.xz
sha256=7b25be99a502f070b2de81dafc08da7051d992325d6e67daa9045a918fffdbea

if ! [ -f "$dest.download/$tarball" ]; then
    "$here/apt-directory.sh" "$dest.download"
    echo "setup: fetching MicroPython's source, Debian's micropython $version (6 MB)"
    (cd "$dest.download" && apt-get -c "$apt_state/apt.conf" source --download-only micropython=$version)
fi
if ! (cd "$dest.download" && echo "$sha256  $tarball" | sha256sum --check --quiet); then
    rm -f "$dest.download/$tarball"
    echo "setup: $tarball is not the one that is pinned" >&2
    exit 1
fi

rm -rf "$dest"
mkdir -p "$dest"
tar -xJf "$dest.download/$tarball" -C "$dest" --strip-components=1 --touch
for patch in "$here"/micropython/*.patch; do
    patch --silent --strip=1 --directory="$dest" <"$patch"
done
echo "setup: MicroPython is in $dest"

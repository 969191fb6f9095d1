#!/bin/sh
# Fetches Debian packages and unpacks them into one directory; nothing is installed.
#
# usage: unpack.sh APT_STATE DEST PACKAGE...
set -eu

here=$(cd "$(dirname "$0")" && pwd)
apt_state=$(cd "$1" && pwd)
dest=$2
shift 2

# Lists that are older than the mirror lead to a 404: read them again, once.
fetch() {
    (cd "$dest.download" && apt-get -c "$apt_state/apt.conf" download "$@")
}

rm -rf "$dest"
"$here/apt-directory.sh" "$dest.download"
echo "setup: fetching $*"
if ! fetch "$@"; then
    apt-get -c "$apt_state/apt.conf" update || true # a list that does not arrive may not be needed
    fetch "$@"
fi
for package in "$dest.download"/*.deb; do
    dpkg-deb -x "$package" "$dest.unpacked"
done
rm -rf "$dest.download"
mv "$dest.unpacked" "$dest"
echo "setup: $* unpacked in $dest"

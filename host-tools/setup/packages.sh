#!/bin/sh
# Installs the Debian packages named in packages.txt that are missing.
#
# As root with apt, as a user with sudo; where neither works, prints the one
# command that somebody with the right to run it has to run, and fails.
set -eu

here=$(cd "$(dirname "$0")" && pwd)

missing=
for name in $(sed 's/#.*//' "$here/packages.txt"); do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $name"
done

if [ -z "$missing" ]; then
    echo "setup: every Debian package needed is installed"
    exit 0
fi

if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    as_root=sudo
else
    echo "setup: these packages are missing, and there is neither root nor sudo here. Install them with" >&2
    echo "    apt-get install --no-install-recommends$missing" >&2
    echo "as root, then run make again." >&2
    exit 1
fi

echo "setup: installing Debian packages:$missing"
if ! $as_root apt-get update; then
    echo "setup: 'apt-get update' failed (above); going on with the package lists that are there" >&2
fi
$as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install --yes --no-install-recommends $missing

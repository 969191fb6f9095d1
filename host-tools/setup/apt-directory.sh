#!/bin/sh
# Makes an empty directory to download into with apt.
#
# usage: apt-directory.sh DIR
#
# Run by root, apt downloads as the user _apt, who has to own the directory; elsewhere apt runs as who runs it.
set -eu

rm -rf "$1"
mkdir -p "$1"
if [ "$(id -u)" = 0 ] && id _apt >/dev/null 2>&1; then
    chown _apt "$1"
fi

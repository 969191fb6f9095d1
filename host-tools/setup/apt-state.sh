#!/bin/sh
# Makes a private apt state, so that sources and packages of Debian can be
# fetched without root and without a change to the machine's own apt.
#
# usage: apt-state.sh DIR [SUITE [ARCHITECTURE]]      afterwards: apt-get -c DIR/apt.conf ...
#
# The mirrors are those that the machine's own apt uses for its release, in
# whatever form they are written down; apt itself is asked for them. Trixie's
# sources come from the same mirror (MicroPython 1.25.0 is packaged there).
# With SUITE the packages are that release's, from the same mirrors; with ARCHITECTURE
# those of another kind of machine, such as i386.
set -eu

dir=$1
wanted=${2:-}
architecture=${3:-$(dpkg --print-architecture)}
. /etc/os-release
: "${VERSION_CODENAME:?/etc/os-release names no release of Debian}"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

mkdir -p "$dir/lists/partial" "$dir/archives/partial"
dir=$(cd "$dir" && pwd)

# Prints "URI SUITE" of each suite of this release that the machine's apt knows.
suites() {
    apt-get update --print-uris -o Dir::State::lists="$dir/lists" |
        sed -nE "s,^'(.*)/dists/($VERSION_CODENAME(-updates|-security)?)/(In)?Release'.*,\1 \2,p" | sort -u
}

suites > "$dir/suites"
main=$(sed -n "s/ $VERSION_CODENAME\$//p" "$dir/suites" | head -n 1)
if [ -z "$main" ]; then
    echo "setup: this machine's apt has no source for Debian $VERSION_CODENAME, so no mirror to take from" >&2
    exit 1
fi

{
    while read -r uri suite; do
        [ -z "$wanted" ] || suite=$wanted${suite#"$VERSION_CODENAME"}
        echo "deb [signed-by=$keyring] $uri $suite main"
    done < "$dir/suites"
    echo "deb-src [signed-by=$keyring] $main trixie main"
} > "$dir/sources.list"

cat > "$dir/apt.conf" <<CONF
Dir::State "$dir";
Dir::State::lists "$dir/lists";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "$dir";
Dir::Cache::archives "$dir/archives";
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "-";
APT::Architecture "$architecture";
APT::Architectures "$architecture";
Acquire::Languages "none";
CONF

# Run by root, apt fetches as its own user _apt, who must get here: into a home of mode 0700, say, it does not.
# Signatures and hashes are checked all the same.
if [ "$(id -u)" = 0 ] && ! setpriv --reuid _apt --regid nogroup --clear-groups test -x "$dir/lists" 2>/dev/null; then
    echo "setup: apt's user _apt cannot get into $dir, so apt fetches as root" >&2
    echo 'APT::Sandbox::User "root";' >> "$dir/apt.conf"
fi

# A mirror in the middle of its own update lacks a list now and then. What the others have is enough, as a rule.
echo "setup: reading Debian's package lists into $dir"
if ! apt-get -c "$dir/apt.conf" update; then
    echo "setup: some lists did not arrive (above); going on with those that did" >&2
fi

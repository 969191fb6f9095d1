#!/bin/sh
# Builds Bochs 3.0 for speed from Debian's source package: no debugger, no display, handlers chaining.
#
# usage: bochs.sh APT_STATE DEST [debugger]      afterwards: DEST/bochs, or DEST/bochs-debugger
#
# The patches in bochs/ mend what 3.0 does otherwise than the SDM says (docs/engines.md). With
# `debugger` the second program is built, from the same source: for `pcanel bench --profile` and
# for breakpoints; it is slower and chains no handlers.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
apt_state=$(cd "$1" && pwd)
mkdir -p "$2"
dest=$(cd "$2" && pwd)
kind=${3:-fast}
version=3.0+dfsg-1
tarball=bochs_3.0+dfsg.orig.tar.xz
sha256=78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b

# It writes its speed to the log each second from a signal handler, which may wait for the log's lock for ever.
common="--enable-repeat-speedups --enable-fast-function-calls
    --enable-cpu-level=6 --enable-x86-64 --enable-vmx=2 --enable-svm --enable-avx --enable-evex --enable-amx
    --enable-cet --enable-uintr --enable-protection-keys --enable-memtype --enable-x86-debugger
    --enable-pci --enable-e1000 --enable-ne2000 --enable-a20-pin --disable-show-ips --disable-docbook --with-nogui"
case $kind in
fast)
    program=bochs
    options="--enable-all-optimizations --disable-debugger"
    ;;
debugger)
    program=bochs-debugger
    # "All optimizations" would switch handlers chaining on, whatever is said of it: then the debugger's loop counts
    # each instruction for the time, and RDTSC (exact-tsc.patch) once more.
    options="--disable-handlers-chaining --enable-debugger --enable-disasm --disable-readline"
    ;;
*)
    echo "setup: bochs.sh: there is no kind '$kind'" >&2
    exit 2
    ;;
esac

work=$dest/build-$program
rm -rf "$work"
mkdir -p "$work"
[ -d "$dest/download" ] || "$here/apt-directory.sh" "$dest/download"
if ! [ -f "$dest/download/$tarball" ]; then
    echo "setup: fetching Bochs's source, Debian's bochs $version (4 MB)"
    if ! (cd "$dest/download" && apt-get -c "$apt_state/apt.conf" source --download-only --tar-only bochs=$version); then
        echo "setup: Bochs's source did not arrive; ENGINE=bochs27 does without it, two and a half times as slow" >&2
        exit 1
    fi
fi
if ! (cd "$dest/download" && echo "$sha256  $tarball" | sha256sum --check --quiet); then
    rm -f "$dest/download/$tarball"
    echo "setup: $tarball is not the one that is pinned" >&2
    exit 1
fi
tar -xJf "$dest/download/$tarball" -C "$work" --strip-components=1
for patch in "$here"/bochs/*.patch; do
    patch --silent --strip=1 --directory="$work" <"$patch"
done

# The options of the make that calls this are not for Bochs's.
unset MAKEFLAGS MFLAGS MAKELEVEL

echo "setup: building Bochs 3.0 ($kind), two to five minutes on two CPUs; its log is $work/build.log"
log=$work/build.log
if ! (
    cd "$work"
    # shellcheck disable=SC2086 # the options are words
    ./configure $common $options CFLAGS=-O3 CXXFLAGS='-O3 -w' &&
        make -j"$(nproc)" bochs
) >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "setup: Bochs 3.0 did not build: $log" >&2
    exit 1
fi
strip -o "$dest/$program.new" "$work/bochs"
mv "$dest/$program.new" "$dest/$program"
find "$work" -mindepth 1 ! -name build.log -delete
echo "setup: Bochs 3.0 is $dest/$program"

#!/bin/sh
# Makes the virtual environment DIR with the pcanel package (editable) and all
# that the tests and checks import, in the versions of requirements.txt (lock.sh writes it), by their hashes.
#
# usage: venv.sh DIR
#
# Takes the first python3 of at least 3.11 that can make environments: the one
# on PATH (which may be a user's own build), else Debian's.
set -eu

dir=$1
here=$(cd "$(dirname "$0")" && pwd)

python=
for candidate in python3 /usr/bin/python3; do
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "setup: no python3 of at least 3.11 with venv and ensurepip (Debian: apt-get install python3 python3-venv)" >&2
    exit 1
fi

echo "setup: virtual environment in $dir with $("$python" --version)"
"$python" -m venv --clear "$dir"
pip() {
    "$dir/bin/python" -m pip --disable-pip-version-check "$@"
}

# No package is built here: a build would fetch what it needs by itself, in any version.
pip install --require-hashes --only-binary :all: --requirement "$here/requirements.txt"
pip install --no-index --no-deps --no-build-isolation --editable "$here/.."

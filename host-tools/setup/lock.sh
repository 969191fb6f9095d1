#!/bin/sh
# Writes requirements.txt, the lock file of venv.sh, from pyproject.toml: every package that the host tools, the
# tests and the build of the package itself need, with the hashes of its files.
#
# usage: lock.sh [--upgrade]      keeps the versions that are there, or takes the newest
#
# pip-tools does it, in an environment that is thrown away. Whoever runs this looks at the difference before it
# is committed: what stands there is what every machine installs from then on.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --disable-pip-version-check --quiet pip-tools
sed '/^#/d' "$here/requirements.txt" > "$work/requirements.txt"
(cd "$here/.." && "$work/venv/bin/pip-compile" --quiet --extra test --all-build-deps --generate-hashes \
    --strip-extras --allow-unsafe --no-annotate --no-header \
    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
    --output-file "$work/requirements.txt" "$@" pyproject.toml)
{
    sed -n '/^#/p' "$here/requirements.txt"
    cat "$work/requirements.txt"
} > "$here/requirements.txt.new"
mv "$here/requirements.txt.new" "$here/requirements.txt"

#!/bin/sh
# Unpacks a Python that this release of Debian does not have, from a newer release, for `make compat`.
# Quick when it is there. Installs nothing on the machine and needs no root.
# Usage: scripts/newer_python.sh 3.14 DIRECTORY      makes DIRECTORY/usr/bin/python3.14
#
# The program brings the newer release's C library with it: its ELF interpreter and RPATH are set to the unpacked
# files. So it runs beside the programs of the machine, and starts this machine's browsers.
set -eu

python=python$1
directory=$2
suites="forky sid"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ ! -x "$directory/usr/bin/$python" ] || exit 0

for program in apt-get dpkg patchelf; do
    command -v "$program" >/dev/null || {
        echo "browserkeeper: no $program, so no $python from a newer release; make compat will say so" >&2
        exit 0
    }
done
site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' | grep -v security | head -n 1)
[ -n "$site" ] && [ -r "$keys" ] || {
    echo "browserkeeper: apt has no lists of Debian (apt-get update), so no $python from a newer release" >&2
    exit 0
}

mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
apt=$directory/apt
# The state of apt and dpkg is our own and empty, so that all dependencies are fetched, too.
mkdir -p "$apt/lists/partial" "$apt/archives/partial"
: >"$apt/status"
of_apt="-qq -o Dir::Etc::SourceList=$apt/sources.list -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State=$apt -o Dir::State::status=$apt/status -o Dir::Cache=$apt -o APT::Sandbox::User=$(id -un)
    -o Acquire::Languages=none -o APT::Install-Recommends=false"
for suite in $suites; do
    echo "browserkeeper: fetching $python of Debian $suite into $directory"
    echo "deb [signed-by=$keys] $site $suite main" >"$apt/sources.list"
    # shellcheck disable=SC2086 # options, one a word
    if apt-get $of_apt update && apt-get $of_apt -y --download-only install "$python" "$python-dev" "$python-venv"; then
        found=$suite
        break
    fi
done
if [ -z "${found:-}" ]; then
    echo "browserkeeper: no release of Debian that can be reached here has $python" >&2
    exit 0
fi

for package in "$apt"/archives/*.deb; do dpkg -x "$package" "$directory"; done
rm -rf "$apt"
# Releases whose /lib is a link to /usr/lib pack everything below /usr; older packages are moved there.
lib=$(dirname "$(find "$directory" -name libc.so.6 | head -n 1)")
loader=$(find "$directory" -name 'ld-linux*.so.*' -type f | head -n 1)
# RPATH and not RUNPATH: it holds for the libraries of extension modules as well.
patchelf --set-interpreter "$loader" --force-rpath --set-rpath "$lib" "$directory/usr/bin/$python"
# Two places of Debian's own that do not follow the prefix: ensurepip's wheels, and the header of the architecture.
sed -i "s|/usr/share/python-wheels|$directory/usr/share/python-wheels|" "$directory/usr/lib/$python"/_sysconfigdata_*.py
sed -i "s|<\(.*/$python/pyconfig.h\)>|\"../\1\"|" "$directory/usr/include/$python/pyconfig.h"
"$directory/usr/bin/$python" -c 'import ssl, sqlite3, ctypes, sys; print("browserkeeper: unpacked Python", sys.version)'

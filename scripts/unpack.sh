#!/bin/sh
# Unpacks daemons that tests start by themselves from Debian's packages, without installing them: an installed
# docker.io or prometheus would be a service of the machine from then on. Needs no root.
# Usage: scripts/unpack.sh DIRECTORY
set -eu

directory=$1
programs="dockerd containerd containerd-shim-runc-v2 runc docker-init prometheus promtool cron"
packages="docker.io containerd runc tini prometheus cron"

for program in $programs; do
    command -v "$program" >/dev/null || [ -x "$directory/usr/bin/$program" ] || [ -x "$directory/usr/sbin/$program" ] ||
        lacking="${lacking:-} $program"
done
[ -n "${lacking:-}" ] || exit 0

echo "browserkeeper: fetching$lacking into $directory"
mkdir -p "$directory/debs"
cd "$directory/debs"
for package in $packages; do
    # One by one, so that a package this release lacks does not keep the others away.
    # As our own user: root's sandbox user cannot write here, and apt would warn of it.
    if apt-get download -qq -o "APT::Sandbox::User=$(id -un)" "$package"; then dpkg -x "$package"_*.deb ..
    else echo "browserkeeper: $package cannot be had here; its tests will say so" >&2
    fi
done
cd ..
rm -rf debs

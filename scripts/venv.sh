#!/bin/sh
# Makes the virtual environment and installs the package with its test and check tools.
# Usage: PYTHON=python3 scripts/venv.sh DIRECTORY
set -eu
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "browserkeeper: $python is older than 3.10; say PYTHON=…" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "browserkeeper: installing python3-venv"
    if [ "$(id -u)" = 0 ]; then sudo=""; else sudo=sudo; fi
    $sudo apt-get update -q
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends python3-venv
fi
[ -x "$1/bin/python" ] || "$python" -m venv "$1"
echo "browserkeeper: installing the package into $1"
# pip learnt --group, which `make bench` uses, in 25.1.
"$(dirname "$0")/install.sh" "$1" "pip>=25.1" -e ".[dev]"

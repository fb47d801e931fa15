#!/bin/sh
# Installs into a virtual environment: with uv, which takes a third of pip's time, or with pip where uv cannot be had
# or fails, as with a package index that only pip is configured for.
# Usage: scripts/install.sh DIRECTORY REQUIREMENT...
set -eu

python=$1/bin/python
shift
if "$python" -m pip install -q uv 2>/dev/null &&
    "$python" -m uv pip install -q --python "$python" --compile-bytecode "$@"; then
    exit 0
fi
echo "browserkeeper: pip takes over from uv" >&2
exec "$python" -m pip install -q "$@"

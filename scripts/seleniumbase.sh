#!/bin/sh
# Makes a virtual environment with SeleniumBase and this package, for the tests of docs/how-to/seleniumbase.md.
# SeleniumBase pins the exact version of selenium and some 40 other packages, so it cannot be in the environment of the
# other tests.  Quick when it is there.
# Usage: PYTHON=python3 scripts/seleniumbase.sh DIRECTORY
set -eu

seleniumbase=4.56.3
directory=$1
mark=$directory/$seleniumbase
[ -e "$mark" ] && exit 0

echo "browserkeeper: installing SeleniumBase $seleniumbase into $directory" >&2
rm -rf "$directory"
if "${PYTHON:-python3}" -m venv "$directory" &&
    timeout 900 "$(dirname "$0")/install.sh" "$directory" -e . "seleniumbase==$seleniumbase" >"$directory/pip.log" 2>&1; then
    : >"$mark"
else
    echo "browserkeeper: SeleniumBase cannot be had here (see $directory/pip.log); its tests will say so" >&2
fi

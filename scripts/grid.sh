#!/bin/sh
# Fetches Selenium Grid from Maven Central for the tests of remote sessions; quick when it is there. Needs no root.
# Usage: scripts/grid.sh DIRECTORY
set -eu

version=4.47.0
directory=$1
[ ! -e "$directory/$version" ] || exit 0

for program in java mvn; do
    command -v "$program" >/dev/null || {
        echo "browserkeeper: no $program, so no Selenium Grid; the tests that need one will say so" >&2
        exit 0
    }
done

echo "browserkeeper: fetching Selenium Grid $version into $directory"
rm -rf "$directory"
mkdir -p "$directory"
cat >"$directory/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>browserkeeper</groupId>
  <artifactId>grid</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.seleniumhq.selenium</groupId>
      <artifactId>selenium-grid</artifactId>
      <version>$version</version>
    </dependency>
  </dependencies>
</project>
POM
if timeout 600 mvn -q -B -f "$directory/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$(realpath "$directory")/lib" >"$directory/mvn.log" 2>&1; then
    : >"$directory/$version"
else
    echo "browserkeeper: Selenium Grid cannot be had here (see $directory/mvn.log); its tests will say so" >&2
fi

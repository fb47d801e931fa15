#!/bin/sh
# Fetches Selenium's own clients of other languages for the tests of `browserkeeper serve`: JavaScript from the npm
# registry, Java from Maven Central.  Quick when they are there.  Needs no root.
# Usage: scripts/clients.sh DIRECTORY
set -eu

javascript=4.46.0 # the newest for Node.js 20
java=4.52.0
directory=$1
mkdir -p "$directory"

have() { command -v "$1" >/dev/null 2>&1; }
say() { echo "browserkeeper: $*" >&2; }

if [ ! -e "$directory/javascript/$javascript" ]; then
    if have node && have npm; then
        say "fetching selenium-webdriver $javascript for Node.js"
        rm -rf "$directory/javascript"
        mkdir -p "$directory/javascript"
        echo '{"private": true}' >"$directory/javascript/package.json"
        # Without scripts: they could fetch programs, and a remote session needs none.
        if (cd "$directory/javascript" && timeout 300 npm install --ignore-scripts --no-audit --no-fund \
            "selenium-webdriver@$javascript" >npm.log 2>&1); then
            : >"$directory/javascript/$javascript"
        else
            say "selenium-webdriver cannot be had here (see $directory/javascript/npm.log); its tests will say so"
        fi
    else
        say "no node with npm, so no JavaScript client; the tests that need one will say so"
    fi
fi

if [ ! -e "$directory/java/$java" ]; then
    if have javac && have mvn; then
        say "fetching selenium-java $java"
        rm -rf "$directory/java"
        mkdir -p "$directory/java"
        cat >"$directory/java/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>browserkeeper</groupId>
  <artifactId>clients</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.seleniumhq.selenium</groupId>
      <artifactId>selenium-java</artifactId>
      <version>$java</version>
    </dependency>
  </dependencies>
</project>
POM
        if timeout 600 mvn -q -B -f "$directory/java/pom.xml" dependency:copy-dependencies \
            -DincludeScope=runtime -DoutputDirectory="$(realpath "$directory")/java/lib" \
            >"$directory/java/mvn.log" 2>&1; then
            : >"$directory/java/$java"
        else
            say "selenium-java cannot be had here (see $directory/java/mvn.log); its tests will say so"
        fi
    else
        say "no javac with mvn, so no Java client; the tests that need one will say so"
    fi
fi

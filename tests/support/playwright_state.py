"""A storage state made by Playwright itself, and what Playwright makes of one of ours.

Playwright is no test dependency: with its own Node.js it has 193 MB.  So ``playwright_state.json``, made
by ``python -m tests.support.playwright_state`` with Playwright 1.65.2 and Chromium 156, is kept beside
this file, and the tests that need Playwright itself run where it is installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")
ORIGIN = "https://shop.example"
PAGE = "<!doctype html><link rel='icon' href='data:,'><title>shop</title>"

FILL = """async () => {
  localStorage.setItem('token', 'from playwright');
  localStorage.setItem('odd \\0 \\ud83d\\ude00', 'lone \\ud800');
  document.cookie = 'script=yes; path=/; max-age=30000000; secure; samesite=strict';
  const done = request => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  const opening = indexedDB.open('shop', 7);
  opening.onupgradeneeded = () => {
    const carts = opening.result.createObjectStore('carts', {keyPath: 'id'});
    carts.createIndex('by name', 'name', {unique: true});
    carts.createIndex('by both', ['id', 'name'], {});
    opening.result.createObjectStore('kinds', {autoIncrement: true});
    opening.result.createObjectStore('empty');
  };
  const database = await done(opening);
  const transaction = database.transaction(['carts', 'kinds'], 'readwrite');
  transaction.objectStore('carts').put({id: 1, name: 'plain', list: [1, 'two', null, true]});
  const shared = {a: 1};
  const kinds = {
    date: new Date('2026-01-02T03:04:05.678Z'), bytes: new Uint8Array([1, 2, 255]),
    buffer: new Uint8Array([9, 8]).buffer, floats: new Float64Array([0.5, -1]),
    big: 2n ** 70n, map: new Map([['k', new Date(0)]]), set: new Set([1, 'x']),
    expression: /a.b/gi, nothing: undefined, minusZero: -0, infinite: -Infinity, notANumber: NaN,
    first: shared, second: shared, blob: new Blob(['content']),
  };
  kinds.self = kinds;
  transaction.objectStore('kinds').put(kinds, 'all');
  transaction.objectStore('kinds').put('by date', new Date('2026-01-01T00:00:00Z'));
  transaction.objectStore('kinds').put([1, [2, [3]]]);
  await new Promise(resolve => { transaction.oncomplete = resolve; });
  database.close();
}"""
"""Stores values of all kinds in a page."""

LOOK = """async () => {
  const done = request => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  const database = await done(indexedDB.open('shop'));
  const transaction = database.transaction(['carts', 'kinds'], 'readonly');
  const carts = transaction.objectStore('carts'), kinds = transaction.objectStore('kinds');
  const [cart, all, byDate, keys] = await Promise.all([
    done(carts.index('by name').get('plain')), done(kinds.get('all')),
    done(kinds.get(new Date('2026-01-01T00:00:00Z'))), done(kinds.getAllKeys()),
  ]);
  const seen = {
    version: database.version, stores: [...database.objectStoreNames],
    both: carts.index('by both').keyPath, unique: carts.index('by name').unique, cart, byDate,
    automatic: kinds.autoIncrement, keys: keys.map(String).length,
    date: all.date.toISOString(), bytes: [all.bytes.constructor.name, ...all.bytes],
    buffer: [all.buffer.constructor.name, ...new Uint8Array(all.buffer)],
    floats: [all.floats.constructor.name, ...all.floats], big: String(all.big),
    map: [...all.map].map(([k, v]) => [k, v.getTime()]), set: [...all.set],
    expression: String(all.expression), nothing: 'nothing' in all && all.nothing === undefined,
    minusZero: Object.is(all.minusZero, -0), infinite: String(all.infinite),
    notANumber: Number.isNaN(all.notANumber), shared: all.first === all.second && all.first.a === 1,
    self: all.self === all, token: localStorage.getItem('token'),
    odd: localStorage.getItem('odd \\0 \\ud83d\\ude00') === 'lone \\ud800',
  };
  database.close();
  return JSON.stringify(seen);
}"""
"""What a page finds of it, as JSON."""

SEEN: dict[str, Any] = {
    "version": 7,
    "stores": ["carts", "empty", "kinds"],
    "both": ["id", "name"],
    "unique": True,
    "cart": {"id": 1, "name": "plain", "list": [1, "two", None, True]},
    "byDate": "by date",
    "automatic": True,
    "keys": 3,
    "date": "2026-01-02T03:04:05.678Z",
    "bytes": ["Uint8Array", 1, 2, 255],
    "buffer": ["ArrayBuffer", 9, 8],
    "floats": ["Float64Array", 0.5, -1],
    "big": str(2**70),
    "map": [["k", 0]],
    "set": [1, "x"],
    "expression": "/a.b/gi",
    "nothing": True,
    "minusZero": True,
    "infinite": "-Infinity",
    "notANumber": True,
    "shared": True,
    "self": True,
    "token": "from playwright",
    "odd": True,
}

COOKIES: list[dict[str, Any]] = [
    {"name": "login", "value": "secret", "domain": "shop.example", "path": "/", "httpOnly": True},
    {"name": "all", "value": 'a "b", c', "domain": ".shop.example", "path": "/", "expires": 4e9},
    {
        "name": "__Host-id",
        "value": "ü",
        "domain": "shop.example",
        "path": "/",
        "secure": True,
        "sameSite": "None",
    },
    {"name": "local", "value": "", "domain": "localhost", "path": "/a", "sameSite": "Strict"},
    {
        "name": "chips",
        "value": "1",
        "domain": "embed.example",
        "path": "/",
        "secure": True,
        "sameSite": "None",
        "partitionKey": ORIGIN,
    },
]


@contextlib.contextmanager
def playwright_page(**arguments: Any) -> Iterator[tuple[Any, Any]]:
    """A context of Playwright's with these arguments, whose requests are all answered with PAGE, and a
    page in it.  Raises ImportError where there is no Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        try:
            context = browser.new_context(**arguments)
            context.route("**/*", lambda route: route.fulfill(body=PAGE, content_type="text/html"))
            yield context, context.new_page()
        finally:
            browser.close()


def look_with_playwright(file: Path) -> dict[str, Any] | None:
    """What Playwright finds with a state that it has loaded: ``seen`` and ``cookies``; None without it.

    Under a guard of ours, since Playwright leaves zombies."""
    if importlib.util.find_spec("playwright") is None:
        return None
    guarded = (sys.executable, "-m", "browserkeeper", "run", "--")
    program = (sys.executable, "-m", "tests.support.playwright_state", str(file))
    done = subprocess.run([*guarded, *program], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    if sys.argv[1:]:
        with playwright_page(storage_state=sys.argv[1]) as (context, page):
            page.goto(f"{ORIGIN}/")
            seen = json.loads(page.evaluate(LOOK))
            print(json.dumps({"seen": seen, "cookies": context.cookies()}))
        return
    with playwright_page() as (context, page):
        context.add_cookies(COOKIES)
        page.goto(f"{ORIGIN}/")
        page.evaluate(FILL)
        found = json.loads(page.evaluate(LOOK))
        state = context.storage_state(indexed_db=True)
    if found != SEEN:
        sys.exit(f"the page itself finds {found}")
    FILE.write_text(json.dumps(state, indent=2) + "\n")
    print(f"{FILE} is written")


if __name__ == "__main__":
    main()

"""A HOME with a root certificate, a font and an alias for fonts, and what a browser sees of them."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_until

FONT = Path("/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf")
ALIAS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><match target="pattern"><test name="family"><string>Company Face</string></test>
<edit name="family" mode="assign" binding="same"><string>Keeper Sans Mono</string></edit></match>
</fontconfig>
"""
MEASURE = """
const context = document.createElement("canvas").getContext("2d");
context.font = `40px "${arguments[0]}", serif`;
return context.measureText("iiiiiiii").width == context.measureText("MMMMMMMM").width;"""


def make_certificates(directory: Path) -> None:
    """A root certificate, ``ca.pem``, and one of it for localhost, ``server.pem`` with its key."""
    quiet = functools.partial(subprocess.run, cwd=directory, check=True, capture_output=True)
    new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-days", "30"]
    root = [*new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Company Root"]
    quiet([*root, "-addext", "keyUsage=critical,keyCertSign"])
    quiet([*new, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"])
    (directory / "names").write_text("subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n")
    sign = [
        "openssl",
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-days",
        "30",
    ]
    quiet([*sign, "-CAcreateserial", "-out", "server.crt", "-extfile", "names"])
    text = (directory / "server.crt").read_text() + (directory / "server.key").read_text()
    (directory / "server.pem").write_text(text)


@contextlib.contextmanager
def https_server(directory: Path) -> Iterator[str]:
    """The address of a page on localhost whose certificate is of the company's root."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<title>company</title>")

        def log_message(self, *_: object) -> None: ...

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A browser that does not trust the certificate ends the handshake with an error."""

    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def furnish(config: Path, data: Path, certificates: Path) -> None:
    """Put the root certificate, the font and the alias into the two XDG directories."""
    database = data / "pki" / "nssdb"
    database.mkdir(parents=True)
    subprocess.run(["certutil", "-d", f"sql:{database}", "-N", "--empty-password"], check=True)
    trust = ["-A", "-t", "C,,", "-n", "Company Root", "-i", str(certificates / "ca.pem")]
    subprocess.run(["certutil", "-d", f"sql:{database}", *trust], check=True)
    (data / "fonts").mkdir()
    font = FONT.read_bytes()
    for encoding in ("ascii", "utf-16-be"):
        font = font.replace("DejaVu".encode(encoding), "Keeper".encode(encoding))
    (data / "fonts" / "keeper.ttf").write_bytes(font)
    (config / "fontconfig").mkdir(parents=True)
    (config / "fontconfig" / "fonts.conf").write_text(ALIAS)
    for program in ("chromium", "mozilla"):
        (config / program).mkdir()
    (config / "chromium" / "NativeMessagingHosts").mkdir()
    (config / "chromium" / "Local State").write_text("{}")
    (config / "user-dirs.dirs").write_text('XDG_DOWNLOAD_DIR="$HOME/Downloads"\n')


def what_is_seen(driver: Any, url: str) -> dict[str, Any]:
    """Which of the three a browser knows: True or False, and of the certificate why not, or ""."""
    from selenium.common.exceptions import WebDriverException

    try:
        driver.get(url)
        wait_until(lambda: driver.title)  # Chromium's own page about the error may come late
        refusal = "" if driver.title == "company" else f"the page {driver.title!r}"
    except WebDriverException as error:
        refusal = error.msg or repr(error)
    driver.get("data:text/html,<p>fonts</p>")
    return {
        "certificate": refusal,
        "font": driver.execute_script(MEASURE, "Keeper Sans Mono"),
        "alias": driver.execute_script(MEASURE, "Company Face"),
    }


def listing(directory: Path) -> dict[str, tuple[int, int]]:
    """Size and modification time of all below a directory, itself included."""
    found = {".": (0, directory.stat().st_mtime_ns)}
    for root, folders, files in os.walk(directory):
        for name in (*folders, *files):
            facts = os.lstat(os.path.join(root, name))
            found[os.path.relpath(os.path.join(root, name), directory)] = (
                facts.st_size,
                facts.st_mtime_ns,
            )
    return found


def why_not() -> str:
    """What is missing for these places; "" where nothing is."""
    missing = [name for name in ("certutil", "openssl") if not shutil.which(name)]
    missing += [] if FONT.exists() else [str(FONT)]
    return f"no {', '.join(missing)} (libnss3-tools, openssl, fonts-dejavu-core)" if missing else ""

"""A Docker daemon for the tests, with its own socket and folders, and an image made of this machine.

No image can be pulled where these tests run.  The image is a skeleton, a tar of a few kilobytes; the
machine's ``/usr``, the interpreter, the virtual environment and this repository are mounted into each
container, read-only and at their own paths.

What is in a container is counted here, outside of it, from the host's ``/proc``: whatever has its
pid namespace is in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import witness
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGE = "browserkeeper-test:latest"
CGROUPS = Path("/sys/fs/cgroup")
SHIM_SOCKETS = Path("/run/containerd/s")
"""containerd's, wherever its own folders are."""
PATIENCE = 60.0
"""Seconds for the daemon to be up; it takes one."""

SUPERVISOR = """
while :; do
    "$@" >> "$0/log" 2>&1
    while [ -e "$0/hold" ]; do sleep 0.1; done
    [ -e "$0/stop" ] && exit
done
"""
"""Starts the daemon again when it was killed, as systemd would; not before ``hold`` has gone."""

SKELETON_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/nsswitch.conf": "hosts: files\n",
    "etc/hosts": "127.0.0.1 localhost\n",
}
"""No passwd entry for the plain user: that is what ``--user 1000`` gives in most images."""
BORROWED = ("/usr", "/etc/alternatives", "/etc/fonts", "/etc/chromium.d", "/etc/ld.so.cache")


@dataclasses.dataclass
class Daemon:
    """One that runs; ``client`` is the SDK's."""

    directory: Path
    client: Any

    @property
    def url(self) -> str:
        return f"unix://{self.directory}/socket"

    @property
    def pid(self) -> int:
        return int((self.directory / "pid").read_text())

    @contextlib.contextmanager
    def container(self, *command: str, **options: Any) -> Iterator[Any]:
        """Started; removed at the end of the block, whatever it was doing."""
        made = self.client.containers.create(IMAGE, list(command), **{**defaults(), **options})
        try:
            made.start()
            yield made
        finally:
            made.remove(force=True, v=True)

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        """SIGKILL it; it comes back at the end of the block."""
        hold, pid = self.directory / "hold", self.pid
        hold.touch()
        try:
            os.kill(pid, signal.SIGKILL)
            assert wait_until(lambda: witness.look(pid) is None)
            yield
        finally:
            hold.unlink()
            assert wait_until(lambda: is_up(self.directory))


def defaults() -> dict[str, Any]:
    """No network but the loopback, and the machine's programs, read-only."""
    return {
        "network_mode": "none",
        "volumes": {path: {"bind": path, "mode": "ro"} for path in sorted(borrowed())},
        "environment": environment(),
        "working_dir": str(ROOT),
        "stop_signal": "SIGKILL",
    }


def environment() -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}:{tool_directory()}:/usr/local/bin:/usr/bin:/bin",
        "BROWSERKEEPER_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def tool_directory() -> Path:
    """Where geckodriver is, which Debian has no package of."""
    return Path(shutil.which("geckodriver") or "/usr/bin/geckodriver").parent


def borrowed() -> set[str]:
    places = {*BORROWED, sys.base_prefix, sys.prefix, str(ROOT), str(tool_directory())}
    return {place for place in places if os.path.exists(place) and not place.startswith("/usr/")}


# -------------------------------------------------------------------------------- the witness


def inside(container: Any) -> list[witness.Seen]:
    """Every process of a container, zombies included, its PID 1 first; by the host's /proc."""
    container.reload()
    first = container.attrs["State"]["Pid"]
    namespace = _namespace(first)
    found = [seen for pid in _pids() if _namespace(pid) == namespace and (seen := witness.look(pid))]
    return sorted(found, key=lambda seen: seen.pid != first)


def _namespace(pid: int) -> str:
    """Of a zombie as well: it keeps its number, and with it the namespace, until it is reaped."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


# --------------------------------------------------------------------------------- the daemon


@pytest.fixture(scope="module")
def docker_daemon() -> Iterator[Daemon]:
    """For a module, not for the whole session: other modules' tests count all that is below pytest."""
    directory = Path(tempfile.mkdtemp(prefix="tmpdkr"))
    with started(directory) as daemon:
        import_image(daemon.client)
        if why := why_no_container(daemon):
            pytest.skip(why)
        yield daemon
        for container in daemon.client.containers.list(all=True):
            container.remove(force=True, v=True)
        daemon.client.close()


def why_no_container(daemon: Daemon) -> str:
    """A daemon may start where runc may not make what a container is made of."""
    import docker

    try:
        with daemon.container("true") as container:
            container.wait()
    except docker.errors.APIError as error:
        return f"no container can be started here: {error}"
    return ""


@contextlib.contextmanager
def started(directory: Path) -> Iterator[Daemon]:
    """Under tini as a subreaper: containerd's shims daemonise, and would come to pytest.  When pytest
    is killed, tini passes SIGTERM on to the whole group."""
    import docker

    words = ["dockerd", "-H", f"unix://{directory}/socket", "--data-root", directory / "data"]
    words += ["--exec-root", directory / "e", "--pidfile", directory / "pid", "--group", "root"]
    words += [
        "--cgroup-parent",
        f"/{directory.name}",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
    ]
    before = set(SHIM_SOCKETS.glob("*"))
    shell = ["tini", "-s", "-g", "-p", "SIGTERM", "--", "sh", "-c", SUPERVISOR, directory, *words]
    process = subprocess.Popen(list(map(str, shell)), start_new_session=True)
    try:
        if not wait_until(lambda: is_up(directory), PATIENCE):
            tail = (directory / "log").read_text()[-1500:]
            pytest.skip(f"the Docker daemon does not start here: {tail}")
        client = docker.DockerClient(f"unix://{directory}/socket", timeout=60)
        yield Daemon(directory, client)
    finally:
        end(process, directory)
        clean_up(directory, set(SHIM_SOCKETS.glob("*")) - before)


def is_up(directory: Path) -> bool:
    """True if the daemon answers.  Asked without the SDK, which leaves its socket open if none does."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(str(directory / "socket"))
            client.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 OK" in client.recv(100)
        except OSError:
            return False


def end(process: subprocess.Popen[bytes], directory: Path) -> None:
    (directory / "stop").touch()
    (directory / "hold").unlink(missing_ok=True)
    below = witness.below(process.pid)
    with contextlib.suppress(OSError, ValueError):
        os.kill(int((directory / "pid").read_text()), signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    witness.end_by_pid(below)
    wait_until(lambda: not any(map(witness.is_same, below)))  # one that dies may still hold its files


def clean_up(directory: Path, sockets: set[Path]) -> None:
    """Mounts, folders, cgroups, and the sockets of shims whose daemon was killed."""
    with open("/proc/self/mounts") as file:
        mounts = [line.split()[1] for line in file if line.split()[1].startswith(str(directory))]
    for mount in reversed(mounts):
        subprocess.run(["umount", "-l", mount], check=False)
    shutil.rmtree(directory)
    for dead in filter(is_dead_socket, sockets):
        dead.unlink()
    for place in (CGROUPS / directory.name, *CGROUPS.glob(f"*/{directory.name}")):  # v2's, v1's
        for inner in (*sorted(place.rglob("*/"), reverse=True), place):
            with contextlib.suppress(OSError):
                inner.rmdir()
    for place in (SHIM_SOCKETS, SHIM_SOCKETS.parent):
        with contextlib.suppress(OSError):
            place.rmdir()  # another daemon's stay


def is_dead_socket(path: Path) -> bool:
    """Another daemon's may have come meanwhile."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) != 0


def import_image(client: Any) -> None:
    """A root file system of folders and links, and the four files that a C library wants."""
    client.api.import_image_from_data(skeleton(), repository=IMAGE)


def skeleton() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, mode in {"tmp": 0o1777, "var/tmp": 0o1777, "root": 0o755, "run": 0o755}.items():
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            tar.addfile(folder)
        for name in ("bin", "sbin", "lib", "lib64"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(link)
        for name, text in SKELETON_FILES.items():
            file = tarfile.TarInfo(name)
            file.size = len(text)
            tar.addfile(file, io.BytesIO(text.encode()))
    return made.getvalue()

"""Tries every door of the loopback, again and again, until its standard input ends.

    python -I -S port_scanner.py

Connects to each TCP port of 127.0.0.1, and between these to the TCP ports and unix sockets that the
kernel lists as listening.  Prints a JSON object on a line for each connection that succeeds, with the
answer to ``GET /sessions``, and one for each round in which all ports were tried.  Run it in a network
namespace that has nothing else, and as another user than the one that is attacked: it takes whatever it
reaches for a finding.
"""

import json
import os
import select
import socket

LISTENING, ACCEPTS = "0A", 0x10000
PORTS_A_LOOK = 2048
"""Ports that are tried between two looks at the kernel's table of those that listen."""
ASK = b"GET /sessions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def main() -> None:
    found: set[str] = set()
    rounds = 0
    while not is_over():
        for first in range(1, 65536, PORTS_A_LOOK):
            for port in range(first, min(first + PORTS_A_LOOK, 65536)):
                try_port(socket.AF_INET, "127.0.0.1", port, found)
            look(found)
            if is_over():
                break
        else:
            rounds += 1
            print(json.dumps({"rounds": rounds}), flush=True)


def is_over() -> bool:
    return bool(select.select([0], [], [], 0)[0]) and not os.read(0, 1)


def look(found: set[str]) -> None:
    for table, family, host in (("tcp", socket.AF_INET, "127.0.0.1"), ("tcp6", socket.AF_INET6, "::1")):
        for line in lines(table):
            if line[3] == LISTENING:
                try_port(family, host, int(line[1].rpartition(":")[2], 16), found)
    for line in lines("unix"):
        if int(line[3], 16) & ACCEPTS and len(line) > 7:
            address = line[7]
            told = f"\0{address[1:]}" if address.startswith("@") else address
            attempt(socket.AF_UNIX, told, f"unix:{address}", found)


def lines(table: str) -> list[list[str]]:
    with open(f"/proc/net/{table}") as file:
        return [line.split() for line in file.read().splitlines()[1:]]


def try_port(family: int, host: str, port: int, found: set[str]) -> None:
    attempt(family, (host, port), f"{host} {port}", found)


def attempt(family: int, address: object, name: str, found: set[str]) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as link:
        link.settimeout(10)
        try:
            link.connect(address)  # type: ignore[arg-type]
            if link.getsockname() == link.getpeername():
                return  # the kernel has given it the port that it connects to
            link.sendall(ASK)
            answer = link.recv(4096).decode("utf-8", "replace")
        except OSError as error:
            if link.fileno() < 0 or isinstance(error, (ConnectionRefusedError, PermissionError)):
                return
            if isinstance(error, FileNotFoundError):
                return
            answer = repr(error)
    said = f"{name}: {answer.rpartition(chr(10))[2][:200]}"
    if said not in found:
        found.add(said)
        print(json.dumps({"reached": name, "answer": answer}), flush=True)


if __name__ == "__main__":
    main()

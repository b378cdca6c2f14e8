"""Where a server listens, by which names it may be called, and which keys it asks for."""

import errno
import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path

from ....errors import UsageError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""The names of this machine in a Host header."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        UsageError: the port is taken, or the address is not one of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} of {host} is in use; give another --port, or 0 for any") from None
        raise UsageError(f"cannot listen on port {port} of {host} ({error.strerror}); give another --host") from None


def is_loopback(host: str) -> bool:
    """Return True for an address that only this machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_names(host: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return the names by which a server may be called, as in a Host header without its port; empty for any."""
    if not allowed and not is_loopback(host):
        return ()
    names = (host, *allowed)
    return tuple(dict.fromkeys([*LOOPBACK, *(f"[{name}]" if ":" in name else name.lower() for name in names)]))


def api_keys(given: Sequence[str], file: Path | None) -> tuple[str, ...]:
    """Return the keys of the command line and of the lines of a file.

    Raises:
        UsageError: the file has none, or a key cannot be sent in a header.
        OSError: the file cannot be read.
    """
    keys = list(given)
    if file is not None:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        if not any(lines):
            raise UsageError(f"{file} has no API key; write one on each line")
        keys += [line for line in lines if line]
    for key in keys:
        if not key or not key.isprintable() or " " in key:
            raise UsageError("an API key is empty, or has a space or a control character; give another one")
    return tuple(dict.fromkeys(keys))

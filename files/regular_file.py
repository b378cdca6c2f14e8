"""Reading files of folders that may come from anyone: regular files only, and no more bytes than their kind has."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

PIECE = 1 << 20  # bytes that are read at once


def read_regular(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file, or of one that a link leads to.

    A named pipe or a device is refused without waiting for it.

    Args:
        limit: the most bytes that a file of its kind has.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: it is something else than a regular file, it cannot be read, or it is longer than ``limit``. The
            message names the file and the reason.
    """
    check_regular(path)
    try:
        # What has become a pipe since then does not block either.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError(f"{path} cannot be read (it is not a regular file)")
            data = _read(stream, limit + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error})") from None
    if len(data) > limit:
        raise ValueError(f"{path} cannot be read (it is longer than the {limit:,} bytes that such a file may have)")
    return data


def _read(stream: BinaryIO, most: int) -> bytes:
    """Return at most this many bytes; memory is taken for those that there are."""
    pieces = []
    while most > 0 and (piece := stream.read(min(most, PIECE))):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def check_regular(path: Path) -> None:
    """Check that a path leads to a regular file.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: a link leads to nothing, or there is a folder, a named pipe, a socket or a device. The message names
            the file and the reason.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise ValueError(f"{path} cannot be read (it is a link to a file that does not exist)") from None
        raise
    except (OSError, ValueError) as error:  # a loop of links, a folder without permission
        raise ValueError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} cannot be read (it is {_kind(mode)}, not a regular file)")


def is_there(path: Path) -> bool:
    """Return False where there is nothing at the path, and True where there is a regular file.

    Raises:
        ValueError: there is something else, as in ``check_regular``.
    """
    try:
        check_regular(path)
    except FileNotFoundError:
        return False
    return True


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"

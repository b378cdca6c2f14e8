"""What a shared library exports and which libraries it needs, read from its file: ELF, Mach-O and PE of 64 bits."""

import struct
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SharedLibrary:
    """A shared library.

    Attributes:
        exported: the names that other libraries find in it.
        needed: the libraries that it needs.
    """

    exported: frozenset[str]
    needed: frozenset[str]


def read_library(path: Path) -> SharedLibrary:
    """Read a file.

    Raises:
        ValueError: it is none of the three formats.
    """
    data = path.read_bytes()
    if data[:4] == b"\x7fELF":
        return _elf(data)
    if data[:4] == b"\xcf\xfa\xed\xfe":
        return _mach_o(data)
    if data[:2] == b"MZ":
        return _pe(data)
    raise ValueError(f"{path} is no shared library")


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def _elf(data: bytes) -> SharedLibrary:
    start, size, count = struct.unpack_from("<Q", data, 40)[0], *struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, start + size * index) for index in range(count)]
    exported, needed = set(), set()
    for _, kind, _, _, at, length, link, _, _, _ in sections:
        names = sections[link][4] if link < count else 0
        if kind == 11:  # dynamic symbols
            for entry in range(at, at + length, 24):
                name, info, other, section = struct.unpack_from("<IBBH", data, entry)
                if section != 0 and info >> 4 in (1, 2) and other & 3 == 0:
                    exported.add(_text(data, names + name))
        if kind == 6:  # the dynamic section
            for entry in range(at, at + length, 16):
                tag, value = struct.unpack_from("<QQ", data, entry)
                if tag == 1:
                    needed.add(_text(data, names + value))
    return SharedLibrary(frozenset(exported), frozenset(needed))


def _mach_o(data: bytes) -> SharedLibrary:
    at = 32
    exported, needed = set(), set()
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        command, length = struct.unpack_from("<II", data, at)
        if command == 2:  # the symbols
            symbols, count, names, _ = struct.unpack_from("<IIII", data, at + 8)
            for entry in range(symbols, symbols + 16 * count, 16):
                name, kind = struct.unpack_from("<IB", data, entry)
                if kind & 0x01 and kind & 0x0E and not kind & 0xF0:
                    exported.add(_text(data, names + name).removeprefix("_"))
        if command == 12:  # a library
            needed.add(_text(data, at + struct.unpack_from("<I", data, at + 8)[0]))
        at += length
    return SharedLibrary(frozenset(exported), frozenset(needed))


def _pe(data: bytes) -> SharedLibrary:
    header = struct.unpack_from("<I", data, 60)[0] + 4
    count, optional = struct.unpack_from("<H", data, header + 2)[0], struct.unpack_from("<H", data, header + 16)[0]
    sections = [struct.unpack_from("<IIII", data, header + 20 + optional + 40 * i + 8) for i in range(count)]

    def place(address: int) -> int:
        for size, start, stored, at in sections:
            if start <= address < start + max(size, stored):
                return int(at + address - start)
        raise ValueError(f"there is no section at {address:#x}")

    exports, _, imports, _ = struct.unpack_from("<IIII", data, header + 20 + 112)
    exported, needed = set(), set()
    if exports:
        table = place(exports)
        names, pointers = struct.unpack_from("<I", data, table + 24)[0], struct.unpack_from("<I", data, table + 32)[0]
        first = place(pointers)
        exported = {_text(data, place(struct.unpack_from("<I", data, first + 4 * i)[0])) for i in range(names)}
    at = place(imports) if imports else 0
    while imports and (name := struct.unpack_from("<I", data, at + 12)[0]):
        needed.add(_text(data, place(name)))
        at += 20
    return SharedLibrary(frozenset(exported), frozenset(needed))

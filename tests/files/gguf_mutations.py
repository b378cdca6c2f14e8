"""Mutations of the header of a GGUF file: its counts, lengths, types and offsets, each known by its place.

From the specification (ggml/docs/gguf.md).
"""

import random
import struct
from dataclasses import dataclass

Random = random.Random

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
NUMBERS = (
    *(0, 1, 2, 3, 7, 8, 9, 31, 32, 33, 255, 2**16, 10**9, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62),
    *(2**63 - 1, 2**63, 2**64 - 1),
)


@dataclass(frozen=True)
class Place:
    """A field of the header: where it is, how many bytes it has, and what it is."""

    at: int
    size: int
    what: str


def mutate_gguf(content: bytes, choice: Random) -> tuple[bytes, str]:
    """Change one field of the header; cut or lengthen the file now and then.

    Raises:
        ValueError: the header cannot be read.
    """
    if choice.random() < 0.1:
        cut = choice.randrange(len(content))
        return content[:cut], f"truncated to {cut} bytes"
    places = header_places(content)
    kinds = sorted({one.what for one in places})
    kind = choice.choice(kinds)
    place = choice.choice([one for one in places if one.what == kind])
    changed = bytearray(content)
    if kind == "text":
        way = choice.choice(("noise", "another", "zero"))
        other = choice.choice([one for one in places if one.what == "text"])
        new = {
            "noise": choice.randbytes(place.size),
            "another": (content[other.at : other.at + other.size] * 8)[: place.size].ljust(place.size, b"x"),
            "zero": bytes(place.size),
        }[way]
        changed[place.at : place.at + place.size] = new
        return bytes(changed), f"text at {place.at}: {way}"
    old = int.from_bytes(content[place.at : place.at + place.size], "little")
    value = choice.choice((*NUMBERS, old + 1, old - 1, old * 2, old ^ 1, old // 2, choice.getrandbits(64)))
    value %= 1 << 8 * place.size
    changed[place.at : place.at + place.size] = value.to_bytes(place.size, "little")
    return bytes(changed), f"{kind} at {place.at}: {old} = {value}"


def header_places(content: bytes) -> list[Place]:
    """Return the fields of the header.

    Raises:
        ValueError: it is not a GGUF file of version 2 or 3.
    """
    try:
        return list(_Header(content).places)
    except (struct.error, KeyError, IndexError) as error:
        raise ValueError(str(error)) from None


class _Header:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0
        self.places: list[Place] = []
        if content[:4] != b"GGUF":
            raise ValueError("not a GGUF file")
        self._number(4, "magic")
        self._number(4, "version")
        tensors = self._number(8, "number of tensors")
        entries = self._number(8, "number of metadata")
        for _ in range(entries):
            self._text("key")
            self._value(self._number(4, "type of metadata"), "value")
        for _ in range(tensors):
            self._text("tensor name")
            for _ in range(self._number(4, "number of dimensions")):
                self._number(8, "dimension")
            self._number(4, "type of tensor")
            self._number(8, "offset")

    def _number(self, size: int, what: str) -> int:
        if self.at + size > len(self.content):
            raise ValueError("the header is cut")
        self.places.append(Place(self.at, size, what))
        value = int.from_bytes(self.content[self.at : self.at + size], "little")
        self.at += size
        return value

    def _text(self, what: str) -> None:
        length = self._number(8, f"length of {what}")
        if self.at + length > len(self.content):
            raise ValueError("the header is cut")
        if length:
            self.places.append(Place(self.at, length, "text"))
        self.at += length

    def _value(self, kind: int, what: str) -> None:
        if kind == STRING:
            self._text(what)
        elif kind == ARRAY:
            inner = self._number(4, "type of array")
            for _ in range(self._number(8, "length of array")):
                self._value(inner, "element")
        else:
            self._number(SIZES[kind], what)

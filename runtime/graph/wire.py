"""The part of protobuf's wire format that is needed to change a serialized ONNX graph without the onnx package.

Source: https://protobuf.dev/programming-guides/encoding. A message is a sequence of fields, each a tag (number and
wire type) and a value; fields that are not changed keep their bytes.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
ONE_BYTE = 0x7F  # the largest number of one byte


class Field(NamedTuple):
    """A field and the offsets of its bytes: the tag from ``start``, the value from ``value`` to ``end``."""

    number: int
    wire_type: int
    start: int
    value: int
    end: int


def fields(message: bytes) -> Iterator[Field]:
    """Yield the fields of a message in order.

    Raises:
        ValueError: the bytes are not a protobuf message.
    """
    at, size = 0, len(message)
    while at < size:
        start = at
        tag, at = message[at], at + 1  # nearly every tag and length is one byte
        if tag > ONE_BYTE:
            tag, at = read_varint(message, start)
        wire_type, value = tag & 7, at
        if wire_type == LENGTH_DELIMITED:
            length, value = (message[at], at + 1) if at < size and message[at] <= ONE_BYTE else read_varint(message, at)
            at = value + length
        elif wire_type == VARINT:
            _, at = read_varint(message, at)
        elif wire_type in (FIXED64, FIXED32):
            at += 8 if wire_type == FIXED64 else 4
        else:
            raise ValueError(f"not a protobuf message: wire type {wire_type}")
        if at > size:
            raise ValueError("not a protobuf message: a field is longer than what holds it")
        yield Field(tag >> 3, wire_type, start, value, at)


def texts(message: bytes, number: int) -> list[bytes]:
    """Return the values of a field of strings, bytes or messages."""
    return [message[f.value : f.end] for f in fields(message) if (f.number, f.wire_type) == (number, LENGTH_DELIMITED)]


def integers(message: bytes, number: int) -> list[int]:
    """Return the values of a field of int64."""
    found = [read_varint(message, f.value)[0] for f in fields(message) if (f.number, f.wire_type) == (number, VARINT)]
    return [value - (1 << 64) if value >> 63 else value for value in found]


def edit(message: bytes, number: int, change: Callable[[bytes], bytes]) -> bytes:
    """Return the message with ``change`` applied to every value of a field of strings, bytes or messages."""
    parts = []
    for field in fields(message):
        if (field.number, field.wire_type) == (number, LENGTH_DELIMITED):
            parts.append(delimited(number, change(message[field.value : field.end])))
        else:
            parts.append(message[field.start : field.end])
    return b"".join(parts)


def delimited(number: int, value: bytes) -> bytes:
    """Serialize a field of a string, bytes or message."""
    return varint(number << 3 | LENGTH_DELIMITED) + varint(len(value)) + value


def integer(number: int, value: int) -> bytes:
    """Serialize a field of an integer, 0 or more."""
    return varint(number << 3 | VARINT) + varint(value)


def varint(value: int) -> bytes:
    """Serialize an integer, 0 or more."""
    parts = bytearray()
    while value > ONE_BYTE:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def read_varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the integer that begins at ``at``, and the offset after it.

    Raises:
        ValueError: it does not end.
    """
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("not a protobuf message: a number does not end")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7

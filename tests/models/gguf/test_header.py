"""The header of a GGUF file: what gguf-py writes is read, and what cannot be right ends at once."""

import resource
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from intaglio.errors import CheckpointError, UnsupportedError
from intaglio.models.gguf.header import MOST_ELEMENTS, MOST_ENTRIES, read_header
from intaglio.models.gguf.parts import read_parts

from . import make

HUGE = 10**9


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def header(*, version: int = 3, tensors: int = 0, entries: int = 0, body: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + body


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def array(kind: int, count: int, data: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + data


def nested(depth: int) -> bytes:
    return array(9, 1, nested(depth - 1)) if depth else array(0, 1, b"\1")


PADDED = bytes(400)
DAMAGED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "its beginning needs 4 bytes, and 0 are left of the file"),
    "another file": (b"PK\3\4" + PADDED, "is not a GGUF file: it begins with b'PK\\\\x03\\\\x04'; fetch it again"),
    "no counts": (b"GGUF\3\0\0\0\1", "a number of its header needs 8 bytes, and 1 are left of the file"),
    "10^9 entries": (
        header(entries=HUGE, body=PADDED),
        "it has 1,000,000,000 entries of metadata, which take at least",
    ),
    "10^9 tensors": (header(tensors=HUGE, body=PADDED), "it has 1,000,000,000 tensors, which take at least"),
    "2^64 - 1 entries": (header(entries=2**64 - 1), "it has 18,446,744,073,709,551,615 entries of metadata"),
    "a key of 2^60 bytes": (
        header(entries=1, body=struct.pack("<Q", 2**60) + PADDED),
        "a key of its metadata needs 1,152,921,504,606,846,976 bytes, and 400 are left of the file",
    ),
    "a text of 2^60 bytes": (
        header(entries=1, body=entry("a", 8, struct.pack("<Q", 2**60)) + PADDED),
        "'a' needs 1,152,921,504,606,846,976 bytes",
    ),
    "a list of 2^60 numbers": (
        header(entries=1, body=entry("a", 9, array(4, 2**60)) + PADDED),
        "it has 1,152,921,504,606,846,976 elements of 'a', which take at least",
    ),
    "a list of 2^60 texts": (header(entries=1, body=entry("a", 9, array(8, 2**60))), "elements of 'a', which take"),
    "a list of 2^60 lists": (header(entries=1, body=entry("a", 9, array(9, 2**60))), "elements of 'a', which take"),
    "lists in lists in lists": (
        header(entries=1, body=entry("a", 9, nested(9))),
        "'a' has arrays in arrays, more than",
    ),
    "a value of no type": (
        header(entries=1, body=entry("a", 13, PADDED)),
        "'a' has a value of type 13, which there is",
    ),
    "a list of no type": (header(entries=1, body=entry("a", 9, array(13, 1)) + PADDED), "'a' has values of type 13"),
    "a boolean of 2": (header(entries=1, body=entry("a", 7, b"\2")), "'a' is a boolean that is neither 0 nor 1"),
    "a list with a boolean of 2": (
        header(entries=1, body=entry("a", 9, array(7, 1, b"\2"))),
        "'a' has a boolean that is neither 0 nor 1",
    ),
    "a text that is no text": (
        header(entries=1, body=entry("a", 8, struct.pack("<Q", 1) + b"\xff")),
        "'a' is a text that is not UTF-8",
    ),
    "a key twice": (header(entries=2, body=entry("a", 0, b"\1") * 2), "its metadata has 'a' twice"),
    "an alignment of 3": (
        header(entries=1, body=entry("general.alignment", 4, struct.pack("<I", 3))),
        "general.alignment is 3, expected a power of two",
    ),
    "an alignment of 0": (
        header(entries=1, body=entry("general.alignment", 4, struct.pack("<I", 0))),
        "general.alignment is 0, expected a power of two",
    ),
    "an alignment that is a text": (
        header(entries=1, body=entry("general.alignment", 8, text("32"))),
        "general.alignment is '32', expected a power of two",
    ),
    "five dimensions": (
        header(tensors=1, body=tensor("t", (1,) * 5, 0, 0) + PADDED),
        "'t' has 5 dimensions, expected 1",
    ),
    "no dimension": (header(tensors=1, body=tensor("t", (), 0, 0) + PADDED), "'t' has 0 dimensions, expected 1 to 4"),
    "10^9 dimensions": (
        header(tensors=1, body=text("t") + struct.pack("<I", HUGE) + PADDED),
        "'t' has 1,000,000,000 dimensions, expected 1 to 4",
    ),
    "a size of 0": (
        header(tensors=1, body=tensor("t", (4, 0), 0, 0) + PADDED),
        r"'t' has the shape \(0, 4\), which the",
    ),
    "sizes of 2^62": (
        header(tensors=1, body=tensor("t", (2**62, 2**62), 0, 0) + PADDED),
        "'t' has the shape .*, which the file cannot hold",
    ),
    "a row that is no whole block": (
        header(tensors=1, body=tensor("t", (33,), 2, 0) + PADDED),
        "'t' has rows of 33 numbers, and Q4_0 has blocks of 32",
    ),
    "an offset beyond the file": (
        header(tensors=1, body=tensor("t", (4,), 0, 2**40) + PADDED),
        "'t' ends at byte 1,099,511,627,.*, and the file has",
    ),
    "an offset of 2^64 - 32": (
        header(tensors=1, body=tensor("t", (4,), 0, 2**64 - 32) + PADDED),
        "'t' ends at byte 18,",
    ),
    "an offset that is not aligned": (
        header(tensors=1, body=tensor("t", (4,), 0, 8) + PADDED),
        "'t' has an offset that is no multiple of the alignment, 32",
    ),
    "two tensors in one place": (
        header(tensors=2, body=tensor("t", (4,), 0, 0) + tensor("u", (4,), 0, 0) + PADDED),
        "the tensors 't' and 'u' overlap",
    ),
    "a tensor twice": (
        header(tensors=2, body=tensor("t", (4,), 0, 0) + tensor("t", (4,), 0, 32) + PADDED),
        "tensor 't' is in it twice",
    ),
    "a tensor that is cut off": (header(tensors=1, body=tensor("t", (400,), 0, 0) + PADDED), "'t' ends at byte"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    content, message = DAMAGED[name]
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_header(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(("fetch it again", "fetch the file again"))


def repeated(part: Callable[[int], bytes], count: int) -> bytes:
    return b"".join(part(index) for index in range(count))


LONG: dict[str, tuple[Callable[[], bytes], str]] = {
    "entries": (
        lambda: header(
            entries=MOST_ENTRIES + 1, body=repeated(lambda i: entry(f"{i}", 0, b"\0"), MOST_ENTRIES + 1) + PADDED
        ),
        "it has 65,537 entries of metadata, more than the 65,536 that are read",
    ),
    "elements": (
        lambda: header(entries=1, body=entry("a", 9, array(0, MOST_ELEMENTS + 1, bytes(MOST_ELEMENTS + 1)))),
        "it has 8,388,609 elements of 'a', more than the 8,388,608 that are read",
    ),
    "elements of two lists": (
        lambda: header(
            entries=2,
            body=entry("a", 9, array(0, MOST_ELEMENTS, bytes(MOST_ELEMENTS))) + entry("b", 9, array(0, 1, b"\0")),
        ),
        "it has 1 elements of 'b', more than the 0 that are read",
    ),
}


@pytest.mark.parametrize("name", LONG)
def test_more_than_any_model_has_is_refused(name: str, tmp_path: Path) -> None:
    make_content, message = LONG[name]
    (tmp_path / "a.gguf").write_bytes(make_content())
    with pytest.raises(CheckpointError, match=message):
        read_header(tmp_path / "a.gguf")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is in kB on Linux")
def test_no_memory_is_taken_for_what_a_file_does_not_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    for content, _ in DAMAGED.values():
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            read_header(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (1, "is a GGUF file of version 1, and versions 2 and 3 are read; make it again with a recent llama.cpp"),
        (4, "is a GGUF file of version 4, and versions 2 and 3 are read"),
        (0x03000000, "is a GGUF file in big endian, which is not read; convert it with gguf-py's gguf-convert-endian"),
    ],
)
def test_other_versions_are_named(version: int, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(header(version=version, body=PADDED))
    with pytest.raises(UnsupportedError, match=message):
        read_header(tmp_path / "a.gguf")


def test_big_endian_files_of_gguf_py_are_named(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "qwen2", endianess=gguf.GGUFEndian.BIG)
    writer.add_block_count(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UnsupportedError, match="is a GGUF file in big endian"):
        read_header(tmp_path / "a.gguf")


@pytest.mark.parametrize(("number", "name"), [(16, "IQ2_XXS"), (26, "I32"), (99, "number 99")])
def test_types_that_are_not_read_are_named(number: int, name: str, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(header(tensors=1, body=tensor("t", (256,), number, 0) + PADDED))
    message = rf"tensor t is of the type {name}, which is not read \(those that are: F32, F16, Q4_0, .*\); use a file"
    with pytest.raises(UnsupportedError, match=message):
        read_header(tmp_path / "a.gguf")


@pytest.mark.parametrize("alignment", [None, 8, 64, 4096])
@pytest.mark.parametrize("version", [2, 3])
def test_what_gguf_py_writes_is_read(version: int, alignment: int | None, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    values: dict[str, tuple[Callable[[str, Any], None], Any]] = {
        "u8": (writer.add_uint8, 200),
        "i8": (writer.add_int8, -100),
        "u16": (writer.add_uint16, 60000),
        "i16": (writer.add_int16, -30000),
        "u32": (writer.add_uint32, 4_000_000_000),
        "i32": (writer.add_int32, -2_000_000_000),
        "u64": (writer.add_uint64, 2**63),
        "i64": (writer.add_int64, -(2**62)),
        "f32": (writer.add_float32, 0.5),
        "f64": (writer.add_float64, 0.1),
        "bool": (writer.add_bool, True),
        "text": (writer.add_string, "ĠÜ한"),
    }
    for key, (add, value) in values.items():
        add(key, value)
    lists: dict[str, list[Any]] = {"numbers": [1, 2, 3], "texts": ["a", "b c"], "flags": [True, False]}
    for key, items in lists.items():
        writer.add_array(key, items)
    tensors: dict[str, npt.NDArray[Any]] = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.arange(5, dtype=np.float16),
    }
    for name, array_ in tensors.items():
        writer.add_tensor(name, array_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = bytearray(path.read_bytes())
    data[4] = version
    path.write_bytes(data)
    found = read_header(path)
    assert {key: found.metadata[key] for key in values} == {key: value for key, (_, value) in values.items()}
    assert {key: list(found.metadata[key]) for key in lists} == lists  # type: ignore[arg-type]
    assert {name: one.shape for name, one in found.tensors.items()} == {"a": (2, 3), "b": (5,)}
    for name, one in found.tensors.items():
        assert bytes(data[one.offset : one.offset + one.nbytes]) == tensors[name].tobytes()


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").mkdir()
    with pytest.raises(CheckpointError, match=r"a\.gguf cannot be read \(.*it is a folder, not a regular file\)"):
        read_header(tmp_path / "a.gguf")


def split(folder: Path) -> list[Path]:
    make.write(folder / "tiny.gguf", make.config("qwen2"), "Q8_0", parts=3)
    return sorted(folder.glob("*.gguf"))


def test_parts_are_read_from_any_of_them(tmp_path: Path) -> None:
    files = split(tmp_path)
    whole = make.write(tmp_path / "whole.gguf", make.config("qwen2"), "Q8_0")
    _, expected = read_parts(whole)
    for file in files:
        found, read = read_parts(file)
        assert list(found) == files
        assert {name: one.shape for name, one in read.tensors.items()} == {
            name: one.shape for name, one in expected.tensors.items()
        }
        assert len({one.file for one in read.tensors.values()}) == 3
        assert read.metadata["qwen2.block_count"] == 4


def test_parts_that_are_not_all_there_or_do_not_belong_together(tmp_path: Path) -> None:
    files = split(tmp_path)
    second = files[1].read_bytes()
    files[1].unlink()
    with pytest.raises(CheckpointError, match=r"1 of 3 parts are missing, first tiny-00002-of-00003\.gguf; fetch them"):
        read_parts(files[0])
    files[1].write_bytes(files[2].read_bytes())
    with pytest.raises(
        CheckpointError, match=r"it is part 1 \(from 0\) of 3 by its name, and part 2 of 3 by its metadata"
    ):
        read_parts(files[0])
    files[1].write_bytes(second)
    files[0].rename(tmp_path / "first.gguf")
    with pytest.raises(CheckpointError, match="is one of 3 parts of a split file, and its name does not say which"):
        read_parts(tmp_path / "first.gguf")


def test_a_name_of_too_many_parts(tmp_path: Path) -> None:
    (tmp_path / "a-00001-of-99999.gguf").write_bytes(b"")
    with pytest.raises(CheckpointError, match="its name says that it has 99,999 parts; at most 1000 are read"):
        read_parts(tmp_path / "a-00001-of-99999.gguf")

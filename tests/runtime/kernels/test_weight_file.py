"""Processes share packed weights by a file: they get the bits that each would pack, whatever is in the file."""

import gc
import os
import resource
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from intaglio.errors import IntaglioWarning, OutputError
from intaglio.exporter import QuantizeOptions, quantize
from intaglio.runtime import kernels, load
from intaglio.runtime.kernels.weight_file import UNUSED_DAYS, WeightFile, weight_file
from numpy.typing import NDArray

from ..conftest import NAMES, run_session
from .test_matmul import CHECKPOINT, Case, session

pytestmark = [
    pytest.mark.skipif(kernels.instructions() is None, reason="no compiled kernels for this processor"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="files of packed weights need Linux"),
]
CASES = (
    Case(37, 96, 4, 32, zero_points=True, bias=True),
    Case(130, 300, 8, 64, zero_points=False, bias=False),
    Case(600, 2048, 4, 32, zero_points=False, bias=True),
)
INDEX_AT, HEADER, INDEX_ENTRY = 72, 96, 64  # bytes


@pytest.fixture
def file(tmp_path: Path) -> WeightFile:
    library = kernels.library()
    assert library is not None
    return WeightFile(tmp_path / "packed.weights", library)


@pytest.fixture(autouse=True)
def warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def outputs(file: WeightFile | None, cases: tuple[Case, ...] = CASES) -> list[NDArray[np.float32]]:
    """Return the results of sessions that are created with the file, or without any."""
    if file is None:
        sessions = [session(case.model()) for case in cases]
    else:
        with file.used():
            sessions = [session(case.model()) for case in cases]
    found = []
    for case, one in zip(cases, sessions, strict=True):
        for rows in (1, 70):
            x = np.random.default_rng(rows).normal(size=(1, rows, case.k)).astype(np.float32)
            found.append(run_session(one, {"x": x})[0])
    return found


def same(found: list[NDArray[np.float32]], wanted: list[NDArray[np.float32]]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


def mapped(path: Path) -> list[str]:
    """Return the permissions of the mappings of a file in this process."""
    gc.collect()
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line.split()[1] for line in lines if line.endswith(str(path))]


def test_written_and_mapped_weights_give_the_same_bits(file: WeightFile) -> None:
    wanted = outputs(None)
    assert same(outputs(file), wanted)
    written = file.path.read_bytes()
    assert same(outputs(file), wanted)
    assert file.path.read_bytes() == written
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert sorted(path.suffix for path in file.path.parent.iterdir()) == [".lock", ".weights"]


def test_weights_are_mapped_for_reading_until_their_session_ends(file: WeightFile) -> None:
    for _ in range(2):  # the process that writes, and one that reads
        with file.used():
            sessions = [session(case.model()) for case in CASES]
        assert set(mapped(file.path)) | {"r--s"} == {"r--s"}
        del sessions[:2]
        x = np.ones((1, 1, CASES[2].k), dtype=np.float32)
        assert np.isfinite(run_session(sessions[0], {"x": x})[0]).all()
        sessions.clear()
        assert mapped(file.path) == []


def test_weights_that_the_file_does_not_have_are_packed(file: WeightFile) -> None:
    outputs(file, CASES[:1])
    before = file.path.read_bytes()
    assert same(outputs(file), outputs(None))
    assert file.path.read_bytes() == before


def test_other_weights_of_the_same_shape_are_not_taken(file: WeightFile) -> None:
    outputs(file, CASES[:1])
    for change in ("values", "scales", "zero_points"):
        other = Case(37, 96, 4, 32, zero_points=True, bias=True)
        numbers = getattr(other, change)
        numbers.flat[numbers.size // 2] = (
            numbers.min() if numbers.flat[numbers.size // 2] > numbers.min() else numbers.max()
        )
        assert same(outputs(file, (other,)), outputs(None, (other,)))


def test_a_session_that_fails_leaves_no_file(file: WeightFile) -> None:
    def fail() -> None:
        with file.used():
            session(CASES[0].model())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not file.path.exists()
    assert same(outputs(file), outputs(None))
    assert file.path.exists()


def test_a_damaged_file_is_written_anew(file: WeightFile) -> None:
    wanted = outputs(file)
    good = file.path.read_bytes()
    for damaged in (b"", good[:40], good[:HEADER], good[:-1], good + b"\0", good[: len(good) // 2], b"\0" * len(good)):
        file.path.write_bytes(damaged)
        assert same(outputs(file), wanted)
        assert file.path.read_bytes() == good


def test_a_changed_header_or_index_is_seen(file: WeightFile) -> None:
    """Change bytes at random; weights' own bytes are not checked, as those of an artifact are not when it is loaded."""
    wanted = outputs(file, CASES[:2])
    good = file.path.read_bytes()
    index = int.from_bytes(good[INDEX_AT : INDEX_AT + 8], "little")
    assert len(good) - index == 2 * INDEX_ENTRY
    random = np.random.default_rng(0)
    for _ in range(40):
        changed = bytearray(good)
        for place in random.choice([*range(HEADER), *range(index, len(good))], random.integers(1, 4)):
            changed[place] ^= random.integers(1, 256)
        file.path.write_bytes(bytes(changed))
        assert same(outputs(file, CASES[:2]), wanted)
        assert file.path.read_bytes() == good


def mixed(lane: int, word: int) -> int:
    lane = (lane ^ word) * 0x9E3779B97F4A7C15 % 2**64
    return lane ^ lane >> 29


def with_check(data: bytes) -> bytes:
    """Return a file whose header has the right hash, computed here once more."""
    first, second = 0, 0
    blank = data[: HEADER - 16] + bytes(16)
    for part in (blank, data[int.from_bytes(data[INDEX_AT : INDEX_AT + 8], "little") :]):
        lanes = [first, second, first ^ len(part), ~second % 2**64]
        padded = part + bytes(-len(part) % 32)
        for at in range(0, len(padded), 8):
            lane = at // 8 % 4
            lanes[lane] = mixed(lanes[lane], int.from_bytes(padded[at : at + 8], "little"))
        for lane in range(4):
            first, second = mixed(first, lanes[lane]), mixed((second + 1) % 2**64, lanes[3 - lane])
    return data[: HEADER - 16] + first.to_bytes(8, "little") + second.to_bytes(8, "little") + data[HEADER:]


def test_an_index_that_leads_outside_the_file_is_refused_though_its_hash_is_right(file: WeightFile) -> None:
    wanted = outputs(file, CASES[:2])
    good = file.path.read_bytes()
    assert with_check(good) == good
    index = int.from_bytes(good[INDEX_AT : INDEX_AT + 8], "little")
    at, size = index + INDEX_ENTRY - 16, index + INDEX_ENTRY - 8
    hostile = [(at, value) for value in (0, 64, 97, index + 64, len(good) + 64, 2**63, 2**64 - 64)]
    hostile += [(size, value) for value in (index, len(good), 2**63, 2**64 - 1)]
    hostile += [(INDEX_AT, value) for value in (0, 96 - 8, index - 8, index + 8, len(good) + 64, 2**63)]
    for place, value in hostile:
        changed = good[:place] + value.to_bytes(8, "little") + good[place + 8 :]
        file.path.write_bytes(with_check(changed) if len(changed) == len(good) else changed)
        assert same(outputs(file, CASES[:2]), wanted)
        assert file.path.read_bytes() == good


def test_a_file_that_others_may_write_is_replaced(file: WeightFile) -> None:
    wanted = outputs(file)
    file.path.chmod(0o622)
    assert same(outputs(file), wanted)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_a_link_is_not_followed(file: WeightFile, tmp_path: Path) -> None:
    other = tmp_path / "other"
    file.path.symlink_to(other)
    with pytest.warns(IntaglioWarning, match=r"packed\.weights cannot be used .*so this process keeps the packed"):
        assert same(outputs(file), outputs(None))
    assert not other.exists()


def test_without_space_the_weights_are_private(file: WeightFile) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, before[1]))
    try:
        with pytest.warns(IntaglioWarning, match="give the folder more space, or another folder as weight_cache"):
            found = outputs(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert same(found, outputs(None))
    assert [path.name for path in file.path.parent.iterdir()] == ["packed.lock"]


def test_files_that_nobody_used_for_long_are_removed(file: WeightFile) -> None:
    old, new = file.path.with_name("old.weights"), file.path.with_name("new.weights")
    for path, days in ((old, UNUSED_DAYS + 1), (new, UNUSED_DAYS - 1)):
        path.touch()
        then = path.stat().st_mtime - days * 86400
        os.utime(path, (then, then))
    outputs(file)
    assert not old.exists()
    assert new.exists()


def test_another_data_file_or_instruction_set_has_another_file(tmp_path: Path, file: WeightFile) -> None:
    data = tmp_path / "data"
    data.write_bytes(b"1")
    first = weight_file(tmp_path / "folder", file.library, data, "AVX2")
    assert weight_file(tmp_path / "folder", file.library, data, "AVX2") == first
    assert weight_file(tmp_path / "folder", file.library, data, "AVX512-VNNI") != first
    data.write_bytes(b"22")
    assert weight_file(tmp_path / "folder", file.library, data, "AVX2") != first


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    artifact = tmp_path / "int4"
    quantize(CHECKPOINT, artifact, precision="int4", options=QuantizeOptions(method="rtn"))
    with pytest.raises(OutputError, match="give another folder as weight_cache"):
        load(artifact, weight_cache=tmp_path / "file" / "folder")


def test_processes_that_load_at_once_share_one_file(tmp_path: Path) -> None:
    artifact, folder = tmp_path / "int4", tmp_path / "packed"
    quantize(CHECKPOINT, artifact, precision="int4", options=QuantizeOptions(method="rtn"))
    script = f"""
from pathlib import Path
from intaglio.runtime import load
lm = load({str(artifact)!r}, threads=1, weight_cache={str(folder)!r})
print(lm.generate([5, 6, 7], max_new_tokens=12, temperature=0).token_ids)
lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(".weights")]
print([(line[1], line[4]) for line in lines])
"""
    command = [sys.executable, "-c", script]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = {process.communicate()[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    (same_for_all,) = told
    assert "r--s" in same_for_all
    wanted = (
        load(artifact, task="text-generation", threads=1)
        .generate([5, 6, 7], max_new_tokens=12, temperature=0)
        .token_ids
    )
    assert str(wanted) in same_for_all
    assert len(list(folder.glob("*.weights"))) == 1


def test_instruction_sets_that_pack_alike_share_a_file(file: WeightFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """AMX and AVX512-VNNI on a processor that has both; each other set writes the file of its own layout anew."""
    written: dict[str, tuple[int, bytes]] = {}
    for name in (*NAMES, *NAMES):
        monkeypatch.setenv("INTAGLIO_KERNELS", name.lower())
        layout = kernels.packed_layout()
        if layout is None:
            continue
        assert layout == {"AMX": "AVX512-VNNI"}.get(name, name)
        path = file.path.with_name(f"{layout}.weights")
        expected = outputs(None)
        found = outputs(WeightFile(path, file.library))
        assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
        now = (path.stat().st_ino, path.read_bytes())
        assert written.setdefault(layout, now) == now
    assert written

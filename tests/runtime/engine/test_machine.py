"""Processors and memory within a container's limits, and where the system does not report them."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from intaglio import machine
from intaglio.machine import GpuMemory, available_memory, give_back_memory, gpu_memory, usable_cpus


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.usefixtures("eight")
def test_the_affinity_mask_counts_where_there_is_no_quota(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == 8
    assert usable_cpus(write(tmp_path, cpu_dot_max="max 100000\n")) == 8


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(("quota", "cpus"), [("350000 100000", 3), ("50000 100000", 1), ("9900000 100000", 8)])
def test_a_quota_of_either_cgroup_version_lowers_it(tmp_path: Path, quota: str, cpus: int) -> None:
    assert usable_cpus(write(tmp_path / "v2", cpu_dot_max=quota)) == cpus
    amount, period = quota.split()
    assert (
        usable_cpus(write(tmp_path / "v1", cpu__cpu_dot_cfs_quota_us=amount, cpu__cpu_dot_cfs_period_us=period)) == cpus
    )


@pytest.mark.usefixtures("eight")
def test_an_unlimited_first_version_quota(tmp_path: Path) -> None:
    root = write(tmp_path, cpu__cpu_dot_cfs_quota_us="-1", cpu__cpu_dot_cfs_period_us="100000")
    assert usable_cpus(root) == 8


def test_available_memory_is_the_smallest_remaining_limit(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 100 kB\nMemAvailable:   64 kB\n")
    assert available_memory(tmp_path, meminfo) == 65536
    limited = write(tmp_path / "v2", memory_dot_max="40000\n", memory_dot_current="15000\n")
    assert available_memory(limited, meminfo) == 25000
    unlimited = write(tmp_path / "open", memory_dot_max="max\n", memory_dot_current="15000\n")
    assert available_memory(unlimited, meminfo) == 65536
    first = write(tmp_path / "v1", memory__memory_dot_limit_in_bytes="500", memory__memory_dot_usage_in_bytes="600")
    assert available_memory(first, meminfo) == 0


def test_the_page_cache_that_a_cgroup_can_give_up_is_not_used(tmp_path: Path) -> None:
    stat = "anon 9000\ninactive_file 6000\nactive_file 100\n"
    second = write(tmp_path / "v2", memory_dot_max="40000", memory_dot_current="15000", memory_dot_stat=stat)
    assert available_memory(second, tmp_path / "none") == 31000
    old = write(
        tmp_path / "v1",
        memory__memory_dot_limit_in_bytes="500",
        memory__memory_dot_usage_in_bytes="600",
        memory__memory_dot_stat="inactive_file 1\ntotal_inactive_file 150\n",
    )
    assert available_memory(old, tmp_path / "none") == 50


def test_memory_is_unknown_where_the_system_does_not_say(tmp_path: Path) -> None:
    assert available_memory(tmp_path, tmp_path / "none") is None


def resident() -> int:
    """Return the anonymous resident memory of this process in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_freed_memory_goes_back_to_the_system() -> None:
    give_back_memory()
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        pytest.skip("another C library than glibc")
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    size, count = 50_000, 1000  # so small that they are no mappings of their own
    blocks = [libc.malloc(size) for _ in range(count)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks[:-1]:  # the last one keeps the heap from shrinking by itself
        libc.free(block)
    before = resident()
    give_back_memory()
    assert resident() < before - size * count // 2
    libc.free(blocks[-1])
    blocks.clear()


def test_trimming_memory_does_nothing_where_it_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    give_back_memory()


class FakeDriver:
    """The functions of CUDA's driver that are asked for memory; each returns 0, or the number of an error."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.contexts: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            if name == "cuDeviceGetName":
                arguments[0].value = b"NVIDIA Test"
            elif name == "cuMemGetInfo_v2":
                assert self.contexts == ["in"]
                arguments[0]._obj.value = 7_000_000
            elif name.startswith("cuCtxPush"):
                self.contexts.append("in")
            elif name.startswith("cuCtxPop"):
                self.contexts.pop()
            return int(name == self.failing)

        return call


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Forget the GPU that was asked before, and the fake one afterwards."""
    machine._cuda_device.cache_clear()
    yield
    machine._cuda_device.cache_clear()


@pytest.mark.usefixtures("forgotten")
def test_the_driver_says_how_much_memory_of_the_gpu_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = FakeDriver()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    assert gpu_memory() == gpu_memory() == GpuMemory("NVIDIA Test", 7_000_000)
    assert driver.contexts == []  # the thread's own context is as it was


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("failing", ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuMemGetInfo_v2"])
def test_memory_is_unknown_where_the_driver_fails(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeDriver(failing))
    assert gpu_memory() is None


@pytest.mark.usefixtures("forgotten")
def test_memory_is_unknown_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert gpu_memory() is None

"""The processors and the memory that this process may use, with the limits of containers."""

import ctypes
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

CUDA_DRIVERS = {"win32": "nvcuda.dll"}
CUDA_DRIVER = "libcuda.so.1"
LONGEST_GPU_NAME = 256
CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def usable_cpus(cgroup: Path = CGROUP) -> int:
    """Return the number of processors that this process may run on.

    It is limited by the affinity mask and the cgroup's quota (v2 ``cpu.max``, v1 ``cpu.cfs_quota_us``). With the
    machine's number, surplus threads in a container or under ``taskset`` would wait for each other at every operator.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = [*_words(cgroup / "cpu.max"), "", ""][:2]
    if not quota:
        quota = "".join(_words(cgroup / "cpu" / "cpu.cfs_quota_us"))
        period = "".join(_words(cgroup / "cpu" / "cpu.cfs_period_us"))
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        count = min(count, max(1, int(quota) // int(period)))
    return count


def available_memory(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int | None:
    """Return the bytes that can be allocated without swapping, or None where the system has no figure.

    A cgroup counts the page cache of files that its processes have read as used; what is inactive of it is given up
    for an allocation, as Kubernetes reckons it too.
    """
    free = []
    for line in _lines(meminfo):
        if line.startswith("MemAvailable:"):
            free.append(int(line.split()[1]) * 1024)
    for folder, limit, used, cached in (
        (cgroup, "memory.max", "memory.current", "inactive_file"),
        (cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, now = "".join(_words(folder / limit)), "".join(_words(folder / used))
        if most.isdigit() and now.isdigit():
            needed = max(0, int(now) - _figure(folder / "memory.stat", cached))
            free.append(max(0, int(most) - needed))
    return min(free, default=None)


def _figure(path: Path, name: str) -> int:
    """Return a number of a file of lines ``NAME NUMBER``; 0 where it has none."""
    found = [line.split()[1] for line in _lines(path) if line.split()[:1] == [name]]
    return int(found[0]) if found and found[0].isdigit() else 0


class GpuMemory(NamedTuple):
    """A GPU's name, and the bytes of its memory that are free."""

    name: str
    free: int


def gpu_memory(index: int = 0) -> GpuMemory | None:
    """Return the free memory of an NVIDIA GPU, or None where the driver is missing or does not say.

    The driver's own library is asked, which is there wherever CUDA runs: the index counts the GPUs of
    CUDA_VISIBLE_DEVICES, and a part of a divided GPU (MIG) reports its own memory. The first call makes CUDA's primary
    context, which ONNX Runtime uses too.
    """
    found = _cuda_device(index)
    if found is None:
        return None
    driver, context, name = found
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    if driver.cuCtxPushCurrent_v2(context):
        return None
    failed = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
    return None if failed else GpuMemory(name, free.value)


@cache
def _cuda_device(index: int) -> tuple[Any, ctypes.c_void_p, str] | None:
    """Return the CUDA driver, the primary context and the name of a GPU; None where there is none."""
    try:
        driver = ctypes.CDLL(CUDA_DRIVERS.get(sys.platform, CUDA_DRIVER))
    except OSError:
        return None
    device, context = ctypes.c_int(), ctypes.c_void_p()
    name = ctypes.create_string_buffer(LONGEST_GPU_NAME)
    failed = (  # each call returns 0, or the number of an error
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), index)
        or driver.cuDeviceGetName(name, LONGEST_GPU_NAME, device)
        or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    )
    return None if failed else (driver, context, name.value.decode(errors="replace"))


def peak_rss() -> int | None:
    """Return the peak of resident memory in bytes, or None where the system has no figure.

    On Linux it is read from /proc: the figure of getrusage survives an exec and would include a large parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def give_back_memory() -> None:
    """Return freed memory to the system, which glibc otherwise keeps for later allocations."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()

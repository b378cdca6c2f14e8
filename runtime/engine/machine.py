"""What this process may use of the machine: processors and memory, containers' limits included."""

import ctypes
import os
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def usable_cpus(cgroup: Path = CGROUP) -> int:
    """The number of processors this process may run on.

    The machine's count is the wrong one: inside a container or under ``taskset`` surplus threads wait for each other
    at every operator's end. The affinity mask and the cgroup's quota (v2 ``cpu.max``, v1 ``cpu.cfs_quota_us``) decide.
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
    """Bytes that can still be allocated without swapping, or None where the system does not say."""
    free = []
    for line in _lines(meminfo):
        if line.startswith("MemAvailable:"):
            free.append(int(line.split()[1]) * 1024)
    for limit, used in (
        (cgroup / "memory.max", cgroup / "memory.current"),
        (cgroup / "memory" / "memory.limit_in_bytes", cgroup / "memory" / "memory.usage_in_bytes"),
    ):
        most, now = "".join(_words(limit)), "".join(_words(used))
        if most.isdigit() and now.isdigit():
            free.append(max(0, int(most) - int(now)))
    return min(free, default=None)


def peak_rss() -> int | None:
    """The most memory that was ever resident, in bytes; None where the system does not tell.

    On Linux /proc is asked first: getrusage's figure survives an exec, so that a large parent would count.
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
    """Return to the system what was freed, which the C library keeps for the next allocations: glibc alone can."""
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

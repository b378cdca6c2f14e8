"""The peak memory of this process."""

import sys
from pathlib import Path


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

"""Memory of this process from the kernel, in MB of 10^6 bytes."""

from pathlib import Path


def peak() -> float:
    """Return the peak resident memory (VmHWM), mapped files and the interpreter included."""
    return _figure("VmHWM")


def resident() -> float:
    """Return the resident memory of now (VmRSS)."""
    return _figure("VmRSS")


def _figure(name: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split(f"{name}:")[1].split()[0]) * 1024 / 1e6

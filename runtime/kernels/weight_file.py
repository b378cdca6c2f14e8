"""Packed weights in files that processes map: they share the memory, and those after the first start sooner.

The kernels pack quantized weights while a graph is loaded. With a folder for such files the first process packs them
into a file there (native/common/weight_file.h), and the others map it. A file is named by the artifact's data file, as
it is on the disk, and by the layout of packed weights, which AMX and AVX512-VNNI share; each weight in it is found by a
hash of what the artifact stores.
"""

import ctypes
import errno
import hashlib
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ...errors import IntaglioWarning, OutputError, UnsupportedError

SUFFIX = ".weights"
UNUSED_DAYS = 30  # after which a file is removed when another one is written
UNUSABLE = (errno.EINVAL, errno.ENOENT)  # damaged, of another layout, or removed meanwhile: it is written anew


@dataclass(frozen=True)
class WeightFile:
    """The file of one artifact's packed weights.

    Attributes:
        path: where it is, or will be.
        library: the library of kernels.
    """

    path: Path
    library: Path

    @contextmanager
    def used(self) -> Iterator[None]:
        """While this is open, kernels that this thread creates map the file, or write it where there is none.

        One process at a time writes; others wait for it. Where the file cannot be written completely, a warning says
        why, and the weights are memory of this process alone.
        """
        import fcntl

        kernels = ctypes.CDLL(str(self.library))
        with self.path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            error = kernels.intaglio_begin_weight_file(os.fsencode(self.path), 0)
            if error == 0:
                fcntl.flock(lock, fcntl.LOCK_UN)
                with suppress(OSError):
                    os.utime(self.path)
                try:
                    yield
                finally:
                    kernels.intaglio_end_weight_file(0)
                return
            if error in UNUSABLE:
                with self._written(kernels):
                    yield
            else:
                self._warn(error)
                yield

    @contextmanager
    def _written(self, kernels: ctypes.CDLL) -> Iterator[None]:
        """While this is open, kernels that this thread creates write the file, which is there once it is complete."""
        with tempfile.TemporaryDirectory(dir=self.path.parent, prefix=".") as folder:
            new = Path(folder, "new")
            error = kernels.intaglio_begin_weight_file(os.fsencode(new), 1)
            if error != 0:
                self._warn(error)
                yield
                return
            try:
                yield
            except BaseException:
                kernels.intaglio_end_weight_file(0)
                raise
            error = kernels.intaglio_end_weight_file(1)
            if error == 0:
                _remove_unused(self.path.parent)
                new.replace(self.path)
            elif error != errno.ECANCELED:  # ECANCELED: no kernel had weights to pack
                self._warn(error)

    def _warn(self, error: int) -> None:
        warnings.warn(
            f"{self.path} cannot be used ({os.strerror(error)}), so this process keeps the packed weights to itself; "
            f"give the folder more space, or another folder as weight_cache",
            IntaglioWarning,
            stacklevel=2,
        )


def weight_file(folder: Path, library: Path, data: Path, layout: str) -> WeightFile:
    """Return the file of an artifact's packed weights in a folder, which is made if it is new.

    Args:
        data: the artifact's data file.
        layout: the name of the layout in which the weights are packed.

    Raises:
        UnsupportedError: this system has no such files.
        OutputError: the folder cannot be made or written.
    """
    if not sys.platform.startswith("linux"):
        raise UnsupportedError("weight_cache needs Linux; leave it out on this system")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = data.stat()
    except OSError as error:
        raise OutputError(
            f"{error.filename or folder}: {error.strerror}; give another folder as weight_cache"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} cannot be written; give another folder as weight_cache")
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, layout)
    name = hashlib.sha256(repr(identity).encode()).hexdigest()[:32]
    return WeightFile(folder / f"{name}{SUFFIX}", library)


def _remove_unused(folder: Path) -> None:
    """Remove files that no process has opened for a while; those that are mapped stay in memory until they are not."""
    oldest = time.time() - UNUSED_DAYS * 86400
    for file in (*folder.glob(f"*{SUFFIX}"), *folder.glob("*.lock")):
        with suppress(OSError):
            if file.stat().st_mtime < oldest:
                file.unlink()

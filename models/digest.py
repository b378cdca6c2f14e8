"""The digest that identifies a checkpoint: SHA-256 over the files that were read, computed in a thread.

These are config.json, the weight files, and the settings of the quantization where they are in a file of their own. Of
a GGUF model, they are its file or its parts, whatever their names. Adapters have digests of their own.
"""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

from ..artifact import sha256_file
from .checkpoint import Checkpoint
from .quantized.detect import OWN_FILES


class Digest:
    """A digest that is computed while the ``with`` block runs."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.files = _files(checkpoint)
        self.total = sum(file.stat().st_size for file in self.files.values())
        self.done = 0
        self.sums: dict[str, str] = {}
        self.error: OSError | None = None
        self.stop = False
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Digest":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop = True
        self.thread.join()

    def _run(self) -> None:
        def advance(count: int) -> None:
            self.done += count
            if self.stop:
                raise OSError("the export ended")

        try:
            for name, file in self.files.items():
                self.sums[name] = sha256_file(file, advance)
        except OSError as error:
            self.error = error

    def wait(self, report: Callable[[str, int, int], None]) -> str:
        """Return the digest in hex; until it is complete, call ``report("source", bytes done, bytes in all)``."""
        while self.thread.is_alive():
            report("source", self.done, self.total)
            self.thread.join(0.2)
        if self.error is not None:
            raise self.error
        report("source", self.total, self.total)
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.sums.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def _files(checkpoint: Checkpoint) -> dict[str, Path]:
    """Return the files by the names that the digest has for them."""
    if checkpoint.config_file is None:
        return {f"{number}.gguf": file for number, file in enumerate(checkpoint.files)}
    quantized = checkpoint.quantized or checkpoint.merged_quantized
    settings = (checkpoint.folder / name for name in OWN_FILES if quantized)
    files = (checkpoint.config_file, *(file for file in settings if file.is_file()), *checkpoint.files)
    return {file.name: file for file in files}

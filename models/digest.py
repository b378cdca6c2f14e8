"""The digest that identifies a checkpoint: SHA-256 over its config and weight files, computed in a thread."""

import hashlib
import threading
from collections.abc import Callable

from ..artifact import sha256_file
from .checkpoint import Checkpoint


class Digest:
    """A digest that is computed while the ``with`` block runs."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        config = () if checkpoint.config_file is None else (checkpoint.config_file,)
        self.files = (*config, *checkpoint.files)
        self.total = sum(file.stat().st_size for file in self.files)
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
            for file in self.files:
                self.sums[file.name] = sha256_file(file, advance)
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

"""Prompts on disk: a scheduler that is opened later need not read again what an earlier one has read.

A file holds one prompt: its tokens, and the keys and values that the model computed for them (safetensors). Files are
named by what decides those numbers, so that another artifact, kernel or element type never takes them. The least
recently used ones are removed where all together grow too large.
"""

import hashlib
import json
import os
import stat
import tempfile
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import __version__
from ...errors import IntaglioWarning, OutputError, UsageError
from ..decoding.decoder import Decoder
from ..engine.session import Session
from ..kernels import instructions

SUFFIX = ".prompt"
MOST_BYTES = 8 << 30  # of all files of a folder together
TOKENS, CHECK = "tokens", "crc32"

Tokens = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StoredPrompt:
    """A prompt in a file."""

    path: Path
    tokens: Tokens


class PromptFiles:
    """The prompts of one model in a folder. A thread of its own writes them; the methods are for one other thread.

    Args:
        folder: made where it is new, for the user alone, since prompts can be read from the files.

    Raises:
        UsageError: the session is not on the CPU.
        OutputError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path, session: Session) -> None:
        if session.device != "cpu":
            raise UsageError("prompts are kept on disk for device='cpu' only; leave out prompt_cache on a GPU")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{error.filename}: {error.strerror}; give another folder as prompt_cache") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OutputError(f"{folder} cannot be written; give another folder as prompt_cache")
        self._folder = folder
        self._model = _digest(session)
        self._lock = threading.Lock()  # of the replacement of ``prompts``
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="prompts")
        read = (_read(path, session.manifest.model.vocab_size) for path in folder.glob(f"{self._model}-*{SUFFIX}"))
        self.prompts: tuple[StoredPrompt, ...] = tuple(stored for stored in read if stored is not None)

    def save(self, decoder: Decoder, slot: int, prompt: Tokens, done: Callable[[], object]) -> None:
        """Write the prompt that a slot holds, in the background; ``done()`` is called once the slot may change."""
        if any(begins(stored.tokens, prompt) for stored in self.prompts):
            done()
            return
        name = hashlib.sha256(prompt.tobytes()).hexdigest()[:32]
        stored = StoredPrompt(self._folder / f"{self._model}-{name}{SUFFIX}", prompt.copy())
        self._writer.submit(self._write, stored, decoder.saved(slot)).add_done_callback(lambda _: done())

    def restore(self, decoder: Decoder, slot: int, stored: StoredPrompt) -> bool:
        """Let a slot have a stored prompt; return False where its file is gone or damaged: then it is forgotten."""
        from safetensors import SafetensorError, safe_open  # only where prompts are kept on disk

        try:
            with safe_open(stored.path, framework="np") as file:
                values = [file.get_tensor(str(layer)) for layer in range(len(file.keys()) - 1)]
                if (file.metadata() or {}).get(CHECK) != _check(values):
                    raise ValueError("the values are not those that were written")
            decoder.restore(slot, values, int(stored.tokens.size))
        except (OSError, ValueError, SafetensorError):
            self._remove((stored,))
            return False
        with suppress(OSError):
            os.utime(stored.path)
        return True

    def close(self) -> None:
        """Wait until everything is written."""
        self._writer.shutdown()

    def _write(self, stored: StoredPrompt, values: list[NDArray[Any]]) -> None:
        from safetensors.numpy import save_file

        tensors = {str(layer): np.ascontiguousarray(value) for layer, value in enumerate(values)}
        tensors[TOKENS] = stored.tokens
        try:
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=".") as folder:
                new = Path(folder, "new")
                save_file(tensors, new, {CHECK: _check(values)})
                new.chmod(stat.S_IRUSR | stat.S_IWUSR)
                with new.open("rb") as file:
                    os.fsync(file.fileno())
                new.replace(stored.path)
        except OSError as error:
            warnings.warn(
                f"{self._folder}: a prompt could not be written ({error.strerror or error}); it is read again after a "
                "restart. Give the folder more space, or another folder as prompt_cache",
                IntaglioWarning,
                stacklevel=2,
            )
            return
        self._remove(tuple(other for other in self.prompts if begins(stored.tokens, other.tokens)))
        with self._lock:
            self.prompts = (*self.prompts, stored)
        self._make_room()

    def _make_room(self) -> None:
        """Remove the files that were used least recently until all together are small enough."""
        files = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            with suppress(OSError):
                status = path.stat()
                files.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= MOST_BYTES:
                return
            total -= size
            self._remove(tuple(stored for stored in self.prompts if stored.path == path))
            path.unlink(missing_ok=True)

    def _remove(self, removed: tuple[StoredPrompt, ...]) -> None:
        with self._lock:
            self.prompts = tuple(stored for stored in self.prompts if stored not in removed)
        for stored in removed:
            with suppress(OSError):
                stored.path.unlink()


def begins(text: Tokens, beginning: Tokens) -> bool:
    """Return whether tokens begin with others."""
    return text.size >= beginning.size and np.array_equal(text[: beginning.size], beginning)


def _read(path: Path, vocabulary: int) -> StoredPrompt | None:
    """Read the tokens of a file; None where it is not one of these files."""
    from safetensors import SafetensorError, safe_open

    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        with safe_open(path, framework="np") as file:
            tokens = file.get_tensor(TOKENS)
    except (OSError, SafetensorError):
        return None
    whole = tokens.ndim == 1 and tokens.dtype == np.int64 and tokens.size > 0
    sound = whole and bool((tokens >= 0).all() and (tokens < vocabulary).all())
    return StoredPrompt(path, tokens) if sound else None


def _check(values: list[NDArray[Any]]) -> str:
    """Return a checksum, which finds damage of a disk."""
    check = 0
    for value in values:
        check = zlib.crc32(np.ascontiguousarray(value).data.cast("B") if value.size else b"", check)
    return f"{check:08x}"


def _digest(session: Session) -> str:
    """Return a name for everything that the keys and values of a prompt depend on."""
    manifest = session.manifest
    parts = [
        __version__,
        session.ort.__version__,
        {name: entry.sha256 for name, entry in manifest.files.items() if name in (manifest.graph, manifest.data)},
        session.cache_dtype,
        session.windowed,
        session.intaglio_kernels,
        instructions(),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

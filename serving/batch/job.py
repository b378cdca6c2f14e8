"""A job over rows: ordered, and resumable. Results are written in blocks; a block is there whole or not at all.

rows ─▶ without those that a block has ─▶ task ─▶ part-000000.jsonl, part-000001.jsonl, ...
"""

# pyright: reportMissingImports=false

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import OutputError, UsageError
from ...extras import ray_extra
from .rows import Row, RowTask, plain

if TYPE_CHECKING:
    from ray.data import Dataset

Item = TypeVar("Item")
Progress = Callable[[int], object]
"""``progress(done)``: how many rows are written."""


class Blocks:
    """The folder of a job's results.

    Args:
        job: what the job does; a folder takes the results of one job alone.
        key: the column that names a row; no two rows have the same value in it.

    Raises:
        OutputError: the folder has the results of another job, or is none.
    """

    def __init__(self, folder: Path, key: str, job: Mapping[str, Any]) -> None:
        self.folder = folder
        self.key = key
        folder.mkdir(parents=True, exist_ok=True)
        described = json.dumps({"key": key, **job}, sort_keys=True, default=str)
        record = folder / "job.json"
        if not record.exists():
            _write(record, described)
        elif (written := record.read_text(encoding="utf-8")) != described:
            raise OutputError(f"{folder} has the results of another job, {written}; give another folder")
        self._parts = sorted(folder.glob("part-*.jsonl"))
        self.keys = {row[key] for row in self}
        """The names of the rows that are written."""

    def __iter__(self) -> Iterator[Row]:
        for part in self._parts:
            with part.open(encoding="utf-8") as lines:
                yield from map(json.loads, lines)

    def name_of(self, row: Row) -> Any:
        """Return a row's name.

        Raises:
            UsageError: it has none.
        """
        if self.key not in row:
            raise UsageError(f"a row has no column {self.key!r}, which is to name it; it has {', '.join(row)}")
        return row[self.key]

    def add(self, rows: Sequence[Row]) -> None:
        """Write the next block.

        Raises:
            UsageError: two rows have the same name, or one has none.
        """
        for name in map(self.name_of, rows):
            if name in self.keys:
                raise UsageError(f"two rows have {self.key} {name!r}; give each a name of its own")
            self.keys.add(name)
        part = self.folder / f"part-{len(self._parts):06d}.jsonl"
        _write(part, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        self._parts.append(part)


def _write(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all, also after a loss of power."""
    begun = path.with_name(f".{path.name}.begun")
    with begun.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    begun.replace(path)


def run(
    rows: Iterable[Row], task: RowTask[Any], blocks: Blocks, *, block_rows: int = 256, progress: Progress | None = None
) -> None:
    """Run a task over the rows that have no result yet, in this process, and write the results in their order.

    Args:
        block_rows: how many rows are computed together and written as a block; an interruption loses no more.

    Raises:
        UsageError: rows without the key, or as ``RowTask.rows``.
    """
    done = frozenset(blocks.keys)
    todo = (row for row in rows if blocks.name_of(row) not in done)
    for block in _blocks(todo, block_rows):
        blocks.add(task.rows(block))
        if progress is not None:
            progress(len(blocks.keys))


def _blocks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while block := list(islice(iterator, size)):
        yield block


def run_dataset(
    dataset: "Dataset",
    task: type[RowTask[Any]],
    blocks: Blocks,
    *,
    workers: int | tuple[int, int] = 1,
    batch_size: int = 32,
    cpus: float = 1,
    block_rows: int = 256,
    progress: Progress | None = None,
    **settings: Any,
) -> None:
    """Run a task over the rows of a data set of Ray that have no result yet, on the machines of its cluster.

    Each worker is a process with a model of its own. The results are written here, in the order of the data set.

    Args:
        workers: how many, or between how many.
        batch_size: how many rows a worker computes together.
        cpus: processors of a worker, and the threads of its model.
        settings: as those of the task: ``artifact``, ``columns``, ``load_options`` and its options.

    Raises:
        UsageError: as ``run``; what else a worker raises is in Ray's error.
    """
    with ray_extra():
        from ray.data import ActorPoolStrategy

    done, key = frozenset(blocks.keys), blocks.key
    load_options = {"threads": max(1, int(cpus)), **(settings.pop("load_options", None) or {})}
    size = workers if isinstance(workers, tuple) else (workers, workers)
    dataset.context.execution_options.preserve_order = True
    # Not a filter before the task: that needs a processor, and all may be the workers'.
    results = dataset.map_batches(
        _Remaining,
        fn_constructor_args=(task, key, done, {"load_options": load_options, **settings}),
        compute=ActorPoolStrategy(min_size=size[0], max_size=size[1]),
        batch_size=batch_size,
        num_cpus=cpus,
    )
    for block in _blocks(results.iter_rows(), block_rows):
        blocks.add([plain(row) for row in block])
        if progress is not None:
            progress(len(blocks.keys))


class _Remaining:
    """A worker: a task for the rows whose results are not written yet."""

    def __init__(self, task: type[RowTask[Any]], key: str, done: frozenset[Any], settings: dict[str, Any]) -> None:
        self._task = task(**settings)
        self._key = key
        self._done = done

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        keep = [index for index, name in enumerate(batch[self._key]) if name not in self._done]
        return self._task({name: [values[index] for index in keep] for name, values in batch.items()})
